//! The client's half of the handshake: what may stand in the request, and the request itself.

use std::error::Error;
use std::fmt;

use super::{Key, parse_extensions};
use crate::protocol::buffer::Buffer;
use crate::protocol::http::is_token;
use crate::protocol::url::Url;

/// What the user wants in the request. It has no `Debug`, because its headers hold secrets.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// Gives the request target, `Host`, and `Authorization` if it has a userinfo.
    pub url: &'a Url,
    /// Further headers, written last in this order. `Host`, `Origin` and `Authorization` replace
    /// the ones written otherwise.
    pub headers: &'a [(String, String)],
    /// Subprotocols in order of preference.
    pub subprotocols: &'a [String],
    /// The value of `Origin`, which browsers send and some servers ask for.
    pub origin: Option<&'a str>,
    /// The value of `Sec-WebSocket-Extensions`: what is offered.
    pub extensions: Option<&'a str>,
}

impl<'a> RequestHead<'a> {
    /// A request with nothing but what it must have.
    #[must_use]
    pub fn new(url: &'a Url) -> Self {
        Self {
            url,
            headers: &[],
            subprotocols: &[],
            origin: None,
            extensions: None,
        }
    }

    /// Checks everything the user put in, so that what is written cannot be anything but one
    /// request.
    ///
    /// # Errors
    /// The first [`HeaderError`] found.
    pub fn validate(&self) -> Result<(), HeaderError> {
        for (name, value) in self.headers {
            validate_header(name, value)?;
        }
        for name in REPLACEABLE {
            let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
            if self.headers.iter().filter(same).count() > 1 {
                return Err(HeaderError::Repeated(name));
            }
        }
        // RFC 6455 §4.1: "The elements that comprise this value MUST be non-empty strings with
        // characters in the range U+0021 to U+007E not including separator characters as defined in
        // [RFC2616] and MUST all be unique strings."
        for (index, subprotocol) in self.subprotocols.iter().enumerate() {
            if !is_token(subprotocol) || self.subprotocols[..index].contains(subprotocol) {
                return Err(HeaderError::Subprotocols);
            }
        }
        validate_value(self.origin.unwrap_or_default())?;
        // What follows the grammar is made of tokens and cannot hold a line break.
        if let Some(offer) = self.extensions {
            parse_extensions(offer).map_err(|_| HeaderError::Extensions)?;
        }
        Ok(())
    }

    /// Writes the request in the order RFC 6455 §4.1 asks for things.
    pub(super) fn write(&self, key: &Key, out: &mut impl Out) {
        let own = |name: &str| {
            let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
            self.headers
                .iter()
                .find(same)
                .map(|(_, value)| value.as_str())
        };
        // "The method of the request MUST be GET, and the HTTP version MUST be at least 1.1."
        out.put(b"GET ");
        out.put(self.url.path_and_query().as_bytes());
        out.put(b" HTTP/1.1\r\nHost: ");
        out.put(own("Host").unwrap_or(self.url.host_header()).as_bytes());
        // RFC 6455 §4.1: of the version, "The value of this header field MUST be 13."
        out.put(b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ");
        out.put(key);
        out.put(b"\r\nSec-WebSocket-Version: 13\r\n");
        if let Some(origin) = own("Origin").or(self.origin) {
            write_header(out, "Origin", origin.as_bytes());
        }
        if !self.subprotocols.is_empty() {
            write_header(
                out,
                "Sec-WebSocket-Protocol",
                self.subprotocols.join(", ").as_bytes(),
            );
        }
        if let Some(extensions) = self.extensions {
            write_header(out, "Sec-WebSocket-Extensions", extensions.as_bytes());
        }
        if let Some(authorization) = own("Authorization").or(self.url.basic_authorization()) {
            write_header(out, "Authorization", authorization.as_bytes());
        }
        for (name, value) in self.headers {
            if !REPLACEABLE
                .iter()
                .any(|other| other.eq_ignore_ascii_case(name))
            {
                write_header(out, name, value.as_bytes());
            }
        }
        out.put(b"\r\n");
    }
}

/// Where a head is written to.
pub(crate) trait Out {
    /// Puts `bytes` at the end.
    fn put(&mut self, bytes: &[u8]);
}

impl Out for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Out for Buffer {
    fn put(&mut self, bytes: &[u8]) {
        self.extend(bytes);
    }
}

/// Headers that have their place in the request and may be given by the user.
const REPLACEABLE: [&str; 3] = ["Host", "Origin", "Authorization"];

/// Headers that say how the connection is used or where the request ends. A second one of them
/// could make the server see another request than the one we wrote.
const OWNED: [&str; 4] = [
    "Connection",
    "Upgrade",
    "Content-Length",
    "Transfer-Encoding",
];
const OWNED_PREFIX: &str = "Sec-WebSocket-";

/// Writes one header line; name and value have been validated.
pub(super) fn write_header(out: &mut impl Out, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.put(part);
    }
}

/// Whether a header may be added to a handshake: the name is a token and not one that the handshake
/// itself writes, and the value has no control characters (HTAB excepted), so no line breaks either.
///
/// # Errors
/// [`HeaderError`] says which of it is wrong.
pub fn validate_header(name: &str, value: &str) -> Result<(), HeaderError> {
    if !is_token(name) {
        return Err(HeaderError::Name);
    }
    let prefix = name.get(..OWNED_PREFIX.len()).unwrap_or_default();
    let owned = OWNED.iter().any(|owned| owned.eq_ignore_ascii_case(name));
    if owned || prefix.eq_ignore_ascii_case(OWNED_PREFIX) {
        return Err(HeaderError::Owned);
    }
    validate_value(value)
}

pub(super) fn validate_value(value: &str) -> Result<(), HeaderError> {
    // RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous".
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(HeaderError::Value);
    }
    Ok(())
}

/// Why something cannot stand in a handshake. This is a mistake of the caller, not of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is not a token.
    Name,
    /// The value contains a control character.
    Value,
    /// The handshake writes this header itself, or it would give the request a body.
    Owned,
    /// A header that may stand there only once was given twice.
    Repeated(&'static str),
    /// Subprotocols must be unique tokens.
    Subprotocols,
    /// The value for `Sec-WebSocket-Extensions` does not follow the grammar.
    Extensions,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a header name must be a token (RFC 9110 §5.1)",
            Self::Value => "a header value must not contain control characters (RFC 9110 §5.5)",
            Self::Owned => {
                "Connection, Upgrade, Sec-WebSocket-*, Content-Length and Transfer-Encoding \
                 are not yours to set (RFC 6455 §4.1)"
            }
            Self::Repeated(name) => return write!(f, "the header {name} is given twice"),
            Self::Subprotocols => "subprotocols must be tokens and unique (RFC 6455 §4.1)",
            Self::Extensions => "the extension offer does not follow the grammar (RFC 6455 §9.1)",
        })
    }
}

impl Error for HeaderError {}
