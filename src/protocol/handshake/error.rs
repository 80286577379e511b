//! What can go wrong in a handshake, told apart by blame.

use std::error::Error;
use std::fmt;

use super::ExtensionError;
use crate::protocol::deflate::AnswerError;
use crate::protocol::http::{HeadError, HeadLimit, Headers, MalformedHead};

/// Why a handshake failed. The connection is of no more use; the first error sticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The peer's bytes are not HTTP/1.1.
    Malformed(MalformedHead),
    /// The peer speaks HTTP/1.1, but its handshake breaks a rule of RFC 6455.
    Misbehaved(Misbehaviour),
    /// The peer sent more than our limits allow.
    Limit(HeadLimit),
    /// The server answered properly, and its answer is not 101.
    Rejected(Box<Rejection>),
    /// The stream ended, or the caller's patience did, before the head was complete.
    Incomplete {
        /// Bytes of the unfinished head; 0 if the peer said nothing at all.
        received: usize,
    },
}

/// A final answer other than 101: the server refuses, redirects, or wants something else first.
///
/// RFC 6455 §4.1: "If the status code received from the server is not 101, the client handles the
/// response per HTTP \[RFC2616\] procedures." Which ones, is for the caller to say: `Location`, `Retry-After`
/// and `WWW-Authenticate` are in the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code, 200 to 999.
    pub status: u16,
    /// The reason phrase, often empty; the peer's words.
    pub reason: Box<str>,
    /// The header lines.
    pub headers: Headers,
    /// The start of the body without its transfer coding, at most
    /// [`max_rejection_body`](super::HandshakeLimits::max_rejection_body) bytes.
    pub body: Vec<u8>,
}

/// Which rule of the handshake a peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// An upgrade, or a 1xx answer, in HTTP/1.0.
    HttpVersion,
    /// No `Upgrade` header.
    UpgradeMissing,
    /// The `Upgrade` header says something else than `websocket`.
    UpgradeNotWebsocket,
    /// The `Connection` headers, if any, do not have the token `upgrade`.
    ConnectionNotUpgrade,
    /// No `Sec-WebSocket-Accept` header.
    AcceptMissing,
    /// More than one `Sec-WebSocket-Accept` header.
    AcceptRepeated,
    /// `Sec-WebSocket-Accept` does not answer our key.
    AcceptWrong,
    /// The server chose a subprotocol that was not offered.
    SubprotocolNotOffered,
    /// The server chose more than one subprotocol.
    SubprotocolRepeated,
    /// The server uses an extension that was not offered.
    ExtensionNotOffered,
    /// More than one `Sec-WebSocket-Extensions` header in an answer.
    ExtensionsRepeated,
    /// `Sec-WebSocket-Extensions` does not follow its grammar.
    ExtensionsMalformed(ExtensionError),
    /// The answer to the offer of permessage-deflate is not acceptable.
    Deflate(AnswerError),
    /// A request with another method than GET.
    MethodNotGet,
    /// A request without `Host`, or with more than one.
    HostMissing,
    /// A request whose `Sec-WebSocket-Key` is missing, repeated, or not sixteen bytes in base64.
    KeyInvalid,
    /// A request whose `Sec-WebSocket-Version` is missing, repeated, or not 13.
    VersionUnsupported,
    /// A request offers subprotocols that are not tokens, or one of them twice.
    SubprotocolsInvalid,
}

impl From<HeadError> for HandshakeError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed(malformed) => Self::Malformed(malformed),
            HeadError::Limit(limit) => Self::Limit(limit),
        }
    }
}

impl From<Misbehaviour> for HandshakeError {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::Misbehaved(misbehaviour)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => write!(f, "malformed handshake: {malformed}"),
            Self::Misbehaved(misbehaviour) => misbehaviour.fmt(f),
            Self::Limit(limit) => limit.fmt(f),
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Incomplete { received: 0 } => {
                f.write_str("the peer did not answer the handshake")
            }
            Self::Incomplete { received } => {
                write!(
                    f,
                    "the handshake broke off after {received} bytes of its head"
                )
            }
        }
    }
}

/// So much of the peer's reason phrase is shown, in characters.
const SHOWN_REASON_CHARACTERS: usize = 80;

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        // The peer's words go to logs and terminals, so nothing in them may act as a command there.
        let shown = self
            .reason
            .chars()
            .filter(|c| !c.is_control())
            .take(SHOWN_REASON_CHARACTERS);
        let reason: String = shown.collect();
        if !reason.is_empty() {
            write!(f, " ({reason})")?;
        }
        f.write_str(" instead of 101 (RFC 6455 §4.1)")
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpVersion => "HTTP/1.0 cannot switch protocols (RFC 6455 §4.1, RFC 9110 §15.2)",
            Self::UpgradeMissing => "the handshake lacks an Upgrade header (RFC 6455 §4.1)",
            Self::UpgradeNotWebsocket => "the Upgrade header is not \"websocket\" (RFC 6455 §4.1)",
            Self::ConnectionNotUpgrade => {
                "the Connection header lacks the token \"upgrade\" (RFC 6455 §4.1)"
            }
            Self::AcceptMissing => "the answer lacks Sec-WebSocket-Accept (RFC 6455 §4.1)",
            Self::AcceptRepeated => "the answer repeats Sec-WebSocket-Accept (RFC 6455 §11.3.3)",
            Self::AcceptWrong => "Sec-WebSocket-Accept does not match the key (RFC 6455 §4.1)",
            Self::SubprotocolNotOffered => {
                "the server chose a subprotocol that was not offered (RFC 6455 §4.1)"
            }
            Self::SubprotocolRepeated => {
                "the server chose more than one subprotocol (RFC 6455 §11.3.4)"
            }
            Self::ExtensionNotOffered => {
                "the server uses an extension that was not offered (RFC 6455 §4.1)"
            }
            Self::ExtensionsRepeated => {
                "the answer repeats Sec-WebSocket-Extensions (RFC 6455 §11.3.2)"
            }
            Self::ExtensionsMalformed(error) => {
                return write!(f, "Sec-WebSocket-Extensions is malformed: {error} (RFC 6455 §9.1)");
            }
            Self::Deflate(error) => return write!(f, "{error} (RFC 7692 §7.1)"),
            Self::MethodNotGet => "the request's method is not GET (RFC 6455 §4.2.1)",
            Self::HostMissing => "the request does not have one Host header (RFC 6455 §4.2.1)",
            Self::KeyInvalid => {
                "the request does not have one Sec-WebSocket-Key of 16 bytes (RFC 6455 §4.2.1)"
            }
            Self::VersionUnsupported => {
                "the request's Sec-WebSocket-Version is not 13 (RFC 6455 §4.2.1)"
            }
            Self::SubprotocolsInvalid => {
                "the request's Sec-WebSocket-Protocol is not a list of unique tokens (RFC 6455 §4.1)"
            }
        })
    }
}

impl Error for HandshakeError {}
