//! The server's half of the handshake, for test peers and embedded loopback exchanges. It makes the
//! checks of RFC 6455 §4.2.1; routing, authentication and choosing are the caller's.

use super::request::{HeaderError, validate_header, validate_value, write_header};
use super::response::only;
use super::{
    Accept, HandshakeError, HandshakeLimits, Key, Misbehaviour, VERSION, accept_for,
    parse_extensions,
};
use crate::protocol::base64;
use crate::protocol::http::{Head, HeadParser, Headers, RequestLine, is_token};

/// Waits for a request to upgrade.
#[derive(Debug)]
pub struct ServerHandshake {
    parser: HeadParser<RequestLine>,
}

/// What [`ServerHandshake::receive`] did with its input.
#[derive(Debug, PartialEq, Eq)]
pub struct ReceivedRequest {
    /// So many bytes of the input belong to the request. Once it is there, the rest are frames.
    pub consumed: usize,
    /// The request, once it is complete and every check has passed.
    pub request: Option<UpgradeRequest>,
}

impl ServerHandshake {
    /// Only the limit on the head matters here.
    #[must_use]
    pub fn new(limits: HandshakeLimits) -> Self {
        Self {
            parser: HeadParser::new(limits.max_header_bytes),
        }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`HandshakeError`] if this is no request to upgrade; answer with [`write_rejection`] and do
    /// not go on with the stream.
    pub fn receive(&mut self, input: &[u8]) -> Result<ReceivedRequest, HandshakeError> {
        let progress = self.parser.receive(input)?;
        let request = progress.head.map(UpgradeRequest::check).transpose()?;
        Ok(ReceivedRequest {
            consumed: progress.consumed,
            request,
        })
    }
}

/// A request to upgrade that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRequest {
    head: Head<RequestLine>,
    accept: Accept,
}

impl UpgradeRequest {
    /// RFC 6455 §4.2.1, in the order of its list.
    fn check(head: Head<RequestLine>) -> Result<Self, Misbehaviour> {
        let headers = &head.headers;
        // 1. "An HTTP/1.1 or higher GET request, including a "Request-URI" [...]."
        if &*head.start.method != "GET" {
            return Err(Misbehaviour::MethodNotGet);
        }
        if head.start.minor_version == 0 {
            return Err(Misbehaviour::HttpVersion);
        }
        // 2. "A |Host| header field containing the server's authority."
        let Ok(Some(_)) = only(headers, "Host") else {
            return Err(Misbehaviour::HostMissing);
        };
        // 3. "An |Upgrade| header field containing the value "websocket", treated as an ASCII
        // case-insensitive value."
        if headers.first("Upgrade").is_none() {
            return Err(Misbehaviour::UpgradeMissing);
        }
        if !headers.has_token("Upgrade", "websocket") {
            return Err(Misbehaviour::UpgradeNotWebsocket);
        }
        // 4. "A |Connection| header field that includes the token "Upgrade", treated as an ASCII
        // case-insensitive value."
        if !headers.has_token("Connection", "upgrade") {
            return Err(Misbehaviour::ConnectionNotUpgrade);
        }
        // 5. "A |Sec-WebSocket-Key| header field with a base64-encoded [...] value that, when
        // decoded, is 16 bytes in length."
        let Ok(Some(key)) = only(headers, "Sec-WebSocket-Key") else {
            return Err(Misbehaviour::KeyInvalid);
        };
        let decoded = base64::decode(key.as_bytes()).map_err(|_| Misbehaviour::KeyInvalid)?;
        let key: Key = key
            .as_bytes()
            .try_into()
            .map_err(|_| Misbehaviour::KeyInvalid)?;
        if decoded.len() != 16 {
            return Err(Misbehaviour::KeyInvalid);
        }
        // 6. "A |Sec-WebSocket-Version| header field, with a value of 13."
        if !matches!(only(headers, "Sec-WebSocket-Version"), Ok(Some(VERSION))) {
            return Err(Misbehaviour::VersionUnsupported);
        }
        // 8. and 9.: subprotocols and extensions are optional, but they have a form.
        let offered: Vec<&str> = headers.tokens("Sec-WebSocket-Protocol").collect();
        if offered.is_empty() && headers.first("Sec-WebSocket-Protocol").is_some() {
            return Err(Misbehaviour::SubprotocolsInvalid);
        }
        for (index, subprotocol) in offered.iter().enumerate() {
            if !is_token(subprotocol) || offered[..index].contains(subprotocol) {
                return Err(Misbehaviour::SubprotocolsInvalid);
            }
        }
        for value in headers.all("Sec-WebSocket-Extensions") {
            parse_extensions(value).map_err(Misbehaviour::ExtensionsMalformed)?;
        }
        Ok(Self {
            accept: accept_for(&key),
            head,
        })
    }

    /// Path and query as they stand in the request line.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.head.start.target
    }

    /// All header lines.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// The subprotocols the client offers, in its order of preference.
    pub fn subprotocols(&self) -> impl Iterator<Item = &str> {
        self.head.headers.tokens("Sec-WebSocket-Protocol")
    }

    /// The values of `Sec-WebSocket-Extensions`, each of which follows the grammar.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.head.headers.all("Sec-WebSocket-Extensions")
    }

    /// Writes the answer that opens the connection (RFC 6455 §4.2.2) to the end of `out`.
    ///
    /// # Errors
    /// [`HeaderError`] if something in the answer cannot stand there; nothing is written then.
    pub fn write_response(
        &self,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), HeaderError> {
        if answer
            .subprotocol
            .is_some_and(|subprotocol| !is_token(subprotocol))
        {
            return Err(HeaderError::Subprotocols);
        }
        if let Some(extensions) = answer.extensions {
            parse_extensions(extensions).map_err(|_| HeaderError::Extensions)?;
        }
        for (name, value) in answer.headers {
            validate_header(name, value)?;
        }
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        write_header(out, "Upgrade", b"websocket");
        write_header(out, "Connection", b"Upgrade");
        write_header(out, "Sec-WebSocket-Accept", &self.accept);
        if let Some(subprotocol) = answer.subprotocol {
            write_header(out, "Sec-WebSocket-Protocol", subprotocol.as_bytes());
        }
        if let Some(extensions) = answer.extensions {
            write_header(out, "Sec-WebSocket-Extensions", extensions.as_bytes());
        }
        for (name, value) in answer.headers {
            write_header(out, name, value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// What the server adds to its answer. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The chosen subprotocol, one of [`UpgradeRequest::subprotocols`].
    pub subprotocol: Option<&'a str>,
    /// The accepted extensions with their parameters.
    pub extensions: Option<&'a str>,
    /// Further headers, written last in this order.
    pub headers: &'a [(String, String)],
}

/// Writes a refusal with a body, after which the connection is to be closed, to the end of `out`.
///
/// # Errors
/// [`HeaderError`] if something in the answer cannot stand there; nothing is written then.
pub fn write_rejection(
    status: u16,
    reason: &str,
    headers: &[(String, String)],
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), HeaderError> {
    validate_value(reason)?;
    for (name, value) in headers {
        validate_header(name, value)?;
    }
    out.extend_from_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
    write_header(out, "Connection", b"close");
    write_header(out, "Content-Length", body.len().to_string().as_bytes());
    for (name, value) in headers {
        write_header(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    Ok(())
}
