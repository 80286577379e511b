//! HTTP proxies: the CONNECT method (RFC 9110 §9.3.6).

use super::url::{Proxy, ProxyUrlError};
use super::{TunnelReceived, TunnelTarget};
use crate::error::{ProxyError, ProxyRefusal};
use crate::protocol::base64;
use crate::protocol::handshake::MAX_INTERIM_HEADS;
use crate::protocol::http::{HeadLimit, HeadParser, StatusLine};
use crate::protocol::url::{Host, UrlError};

/// The longest head a proxy may answer with, in bytes: as much as a server's by default.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What a proxy answers that wants credentials, or others than it got.
const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;

/// A CONNECT that waits for its answer.
#[derive(Debug)]
pub(super) struct Connect {
    parser: HeadParser<StatusLine>,
    interim_heads: usize,
}

impl Connect {
    /// Writes the request.
    pub(super) fn new(proxy: &Proxy, target: TunnelTarget<'_>, out: &mut Vec<u8>) -> Self {
        // RFC 9110 §9.3.6: "There is no default port; a client MUST send the port number even if
        // the CONNECT request is based on a URI reference that contains an authority component with
        // an elided port".
        let port = target.port();
        let authority = match target.host() {
            Host::Name(name) => format!("{name}:{port}"),
            Host::Ipv4(address) => format!("{address}:{port}"),
            Host::Ipv6(address) => format!("[{address}]:{port}"),
        };
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        out.extend_from_slice(request.as_bytes());
        if let Some(login) = proxy.login() {
            for part in [b"Proxy-Authorization: ".as_slice(), login, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"\r\n");
        Self {
            parser: HeadParser::new(MAX_HEAD_BYTES),
            interim_heads: 0,
        }
    }

    /// Takes the next bytes of the answer, its head and nothing behind it.
    pub(super) fn receive(&mut self, input: &[u8]) -> Result<TunnelReceived, ProxyError> {
        let mut consumed = 0;
        loop {
            let progress = self.parser.receive(&input[consumed..])?;
            consumed += progress.consumed;
            let Some(head) = progress.head else {
                return Ok(TunnelReceived {
                    consumed,
                    done: false,
                });
            };
            match head.start.status {
                // "Any 2xx (Successful) response indicates that the sender (and all inbound
                // proxies) will switch to tunnel mode immediately after the response header
                // section; data received after that header section is from the server identified by
                // the request target." And: "A client MUST ignore any Content-Length or
                // Transfer-Encoding header fields received in a successful response to CONNECT."
                200..300 => {
                    return Ok(TunnelReceived {
                        consumed,
                        done: true,
                    });
                }
                // RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx responses
                // received prior to a final response, even if the client does not expect one." No
                // upgrade was asked for, so 101 is not one of them but a refusal to do as told.
                100 | 102..200 => {
                    self.interim_heads += 1;
                    if self.interim_heads > MAX_INTERIM_HEADS {
                        return Err(ProxyError::Limit(HeadLimit::InterimHeads(
                            MAX_INTERIM_HEADS,
                        )));
                    }
                }
                // "Any response other than a successful response indicates that the tunnel has not
                // yet been formed." Its body is not waited for.
                status => {
                    let refusal = Box::new(ProxyRefusal {
                        status,
                        reason: head.start.reason,
                        headers: head.headers,
                    });
                    return Err(match status {
                        PROXY_AUTHENTICATION_REQUIRED => {
                            ProxyError::AuthenticationRequired(refusal)
                        }
                        _ => ProxyError::Refused(refusal),
                    });
                }
            }
        }
    }
}

/// The value of `Proxy-Authorization`, in the scheme `Basic` (RFC 7617).
pub(super) fn login(user: &[u8], password: &[u8]) -> Result<Vec<u8>, ProxyUrlError> {
    // RFC 7617 §2: "a user-id containing a colon character is invalid", and "The user-id and
    // password MUST NOT contain any control characters".
    let plain = [user, b":", password].concat();
    if user.contains(&b':') || plain.iter().any(u8::is_ascii_control) {
        return Err(UrlError::BadUserinfo.into());
    }
    Ok(format!("Basic {}", base64::encode(&plain)).into_bytes())
}
