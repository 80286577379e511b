//! SOCKS version 5 (RFC 1928), without authentication or with user name and password (RFC 1929).
//!
//! ```text
//! client                                  proxy
//! version, methods            ->
//!                             <-          version, method
//! version, user, password     ->                              if the method asks for it
//!                             <-          version, status
//! version, CONNECT, address   ->
//!                             <-          version, reply, bound address
//! ```
//!
//! An answer has 262 bytes at most, of which few mean anything, so they are taken one by one and
//! none is kept. That makes every way to split them the same.

use super::url::{Proxy, ProxyUrlError};
use super::{TunnelReceived, TunnelTarget};
use crate::error::{ProxyError, SocksReply, SocksViolation};
use crate::protocol::url::Host;

/// RFC 1928 §3: "The VER field is set to X'05' for this version of the protocol."
const VERSION: u8 = 0x05;
/// RFC 1929 §2: "The VER field contains the current version of the subnegotiation, which is X'01'."
const LOGIN_VERSION: u8 = 0x01;

/// RFC 1928 §3: the methods of authentication that are used here.
const NO_AUTHENTICATION: u8 = 0x00;
const USERNAME_PASSWORD: u8 = 0x02;
const NO_ACCEPTABLE_METHODS: u8 = 0xff;

/// RFC 1928 §4: the command, and a byte that means nothing.
const CONNECT: u8 = 0x01;
const RESERVED: u8 = 0x00;

/// RFC 1928 §5: types of addresses.
const IPV4: u8 = 0x01;
const DOMAIN_NAME: u8 = 0x03;
const IPV6: u8 = 0x04;
/// The port behind every address.
const PORT_BYTES: u16 = 2;

/// RFC 1929 §2: success; anything else is a failure.
const LOGIN_SUCCESS: u8 = 0x00;

/// A negotiation under way.
#[derive(Debug)]
pub(super) struct Socks5 {
    /// Has the credentials.
    proxy: Proxy,
    /// The request for the connection, sent when the proxy is content with the authentication.
    request: Vec<u8>,
    next: Next,
}

/// What the next byte from the proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    MethodVersion,
    Method,
    LoginVersion,
    LoginStatus,
    ReplyVersion,
    Reply,
    Reserved,
    AddressType,
    NameLength,
    /// One of so many bytes of the bound address and its port, at least one.
    Bound {
        remaining: u16,
    },
    /// The server's.
    Nothing,
}

impl Socks5 {
    /// Writes the greeting.
    pub(super) fn new(proxy: &Proxy, target: TunnelTarget<'_>, out: &mut Vec<u8>) -> Self {
        // RFC 1928 §3: "The client connects to the server, and sends a version identifier/method
        // selection message": the version, the number of methods, and the methods.
        match proxy.login() {
            Some(_) => out.extend([VERSION, 2, NO_AUTHENTICATION, USERNAME_PASSWORD]),
            None => out.extend([VERSION, 1, NO_AUTHENTICATION]),
        }
        Self {
            proxy: proxy.clone(),
            request: request(target),
            next: Next::MethodVersion,
        }
    }

    /// Takes the next bytes from the proxy, up to the end of its reply, and writes what to send.
    pub(super) fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<TunnelReceived, ProxyError> {
        for (index, &byte) in input.iter().enumerate() {
            self.next = self.handle_byte(byte, out)?;
            if self.next == Next::Nothing {
                return Ok(TunnelReceived {
                    consumed: index + 1,
                    done: true,
                });
            }
        }
        Ok(TunnelReceived {
            consumed: input.len(),
            done: false,
        })
    }

    fn handle_byte(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<Next, ProxyError> {
        Ok(match self.next {
            Next::MethodVersion => expect_version(byte, Next::Method)?,
            Next::Method => self.handle_method(byte, out)?,
            Next::LoginVersion if byte != LOGIN_VERSION => {
                return Err(SocksViolation::LoginVersion(byte).into());
            }
            Next::LoginVersion => Next::LoginStatus,
            // RFC 1929 §2: "A STATUS field of X'00' indicates success. If the server returns a
            // `failure' (STATUS value other than X'00') status, it MUST close the connection."
            Next::LoginStatus if byte != LOGIN_SUCCESS => {
                return Err(ProxyError::LoginFailed { status: byte });
            }
            Next::LoginStatus => self.send_request(out),
            Next::ReplyVersion => expect_version(byte, Next::Reply)?,
            // RFC 1928 §6: "When a reply (REP value other than X'00') indicates a failure, the SOCKS
            // server MUST terminate the TCP connection shortly after sending the reply." So what is
            // behind that byte is not waited for; some proxies send nothing there.
            Next::Reply => match SocksReply::from_code(byte) {
                Some(reply) => return Err(ProxyError::Socks(reply)),
                None => Next::Reserved,
            },
            // RFC 1928 §6: "Fields marked RESERVED (RSV) must be set to X'00'."
            Next::Reserved if byte != RESERVED => {
                return Err(SocksViolation::Reserved(byte).into());
            }
            Next::Reserved => Next::AddressType,
            // The address the proxy bound is of no use for CONNECT, and many proxies send zeros; it
            // only has to be stepped over.
            Next::AddressType => match byte {
                IPV4 => bound(4),
                IPV6 => bound(16),
                // RFC 1928 §5: "The first octet of the address field contains the number of octets
                // of name that follow".
                DOMAIN_NAME => Next::NameLength,
                _ => return Err(SocksViolation::AddressType(byte).into()),
            },
            Next::NameLength => bound(byte),
            Next::Bound { remaining: 1 } | Next::Nothing => Next::Nothing,
            Next::Bound { remaining } => Next::Bound {
                remaining: remaining - 1,
            },
        })
    }

    fn handle_method(&self, method: u8, out: &mut Vec<u8>) -> Result<Next, ProxyError> {
        match (method, self.proxy.login()) {
            (NO_AUTHENTICATION, _) => Ok(self.send_request(out)),
            (USERNAME_PASSWORD, Some(login)) => {
                out.extend_from_slice(login);
                Ok(Next::LoginVersion)
            }
            // RFC 1928 §3: "If the selected METHOD is X'FF', none of the methods listed by the
            // client are acceptable, and the client MUST close the connection."
            (NO_ACCEPTABLE_METHODS, _) => Err(ProxyError::NoAcceptableMethod),
            // "The server selects from one of the methods given in METHODS".
            _ => Err(SocksViolation::MethodNotOffered(method).into()),
        }
    }

    fn send_request(&self, out: &mut Vec<u8>) -> Next {
        out.extend_from_slice(&self.request);
        Next::ReplyVersion
    }
}

fn expect_version(byte: u8, next: Next) -> Result<Next, ProxyError> {
    if byte == VERSION {
        Ok(next)
    } else {
        Err(SocksViolation::Version(byte).into())
    }
}

/// A bound address of so many bytes, and its port.
fn bound(address_bytes: u8) -> Next {
    Next::Bound {
        remaining: u16::from(address_bytes) + PORT_BYTES,
    }
}

/// RFC 1928 §4: version, command, reserved, address type, address, port in network octet order.
fn request(target: TunnelTarget<'_>) -> Vec<u8> {
    let mut request = vec![VERSION, CONNECT, RESERVED];
    match target.host() {
        Host::Ipv4(address) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Host::Ipv6(address) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Host::Name(name) => {
            let length = u8::try_from(name.len()).expect("a URL's host has at most 254 bytes");
            request.extend([DOMAIN_NAME, length]);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend(target.port().to_be_bytes());
    request
}

/// The request of RFC 1929 §2: version, user name and password, each behind its length.
pub(super) fn login(user: &[u8], password: &[u8]) -> Result<Vec<u8>, ProxyUrlError> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).map_err(|_| ProxyUrlError::LoginLength);
    // RFC 1929 §2 gives both fields 1 to 255 bytes. An empty password is forgiven: keys that stand
    // as a user name alone are in use, and proxies take them.
    if user.is_empty() {
        return Err(ProxyUrlError::LoginLength);
    }
    let mut login = vec![LOGIN_VERSION, length(user)?];
    login.extend_from_slice(user);
    login.push(length(password)?);
    login.extend_from_slice(password);
    Ok(login)
}
