//! Close codes and the payload of a Close frame (RFC 6455 §5.5.1 and §7.4).
//!
//! The decoder parses received Close payloads here; the session writes its own with
//! [`CloseFrame::encode`]. A code travels as a plain number, so that codes registered after this was
//! written, and the private range, pass through unharmed.

use super::error::ProtocolError;
use super::utf8;
use std::fmt;

/// Longest reason in a Close frame, in bytes: a control payload holds 125, the code takes two.
pub const MAX_CLOSE_REASON: usize = 123;

/// The status code of a closing handshake (RFC 6455 §7.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: an endpoint goes away: a server shuts down, a program ends.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a type of data that this endpoint does not accept.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1005: stands for "no code was in the Close frame"; never on the wire.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: stands for "the connection ended without a Close frame"; never on the wire.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: data that does not fit its type, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: a message that breaks the receiver's policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message too big to process.
    pub const TOO_BIG: Self = Self(1009);
    /// 1010: the server did not negotiate an extension that the client needs.
    pub const EXTENSION_REQUIRED: Self = Self(1010);
    /// 1011: an unexpected condition, such as a handler that failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: try again later (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got a bad response from upstream (IANA registry).
    pub const BAD_GATEWAY: Self = Self(1014);

    /// A code from its number; any number can be held, not every one may be sent.
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// The number.
    pub const fn value(self) -> u16 {
        self.0
    }

    /// May this code stand in a Close frame?
    ///
    /// RFC 6455 §7.4.1: 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control
    /// frame by an endpoint"; §7.4.2 leaves 0-999 unused, 1000-2999 to the protocol and its
    /// registry, 3000-4999 to libraries, frameworks and applications.
    pub const fn is_allowed_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

/// The content of a Close frame that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Why the connection ends, as a number.
    pub code: CloseCode,
    /// Why, in words for a log; at most [`MAX_CLOSE_REASON`] bytes, often empty.
    pub reason: &'a str,
}

/// A Close frame that cannot be sent: the mistake is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidClose {
    /// The code must not appear on the wire (RFC 6455 §7.4.1).
    Code(CloseCode),
    /// The reason has this many bytes, more than [`MAX_CLOSE_REASON`].
    ReasonTooLong(usize),
}

impl fmt::Display for InvalidClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => {
                write!(
                    f,
                    "close code {code} must not be sent (RFC 6455 section 7.4.1)"
                )
            }
            Self::ReasonTooLong(length) => write!(
                f,
                "a close reason of {length} bytes is longer than {MAX_CLOSE_REASON}"
            ),
        }
    }
}

impl std::error::Error for InvalidClose {}

impl<'a> CloseFrame<'a> {
    /// Parses the payload of a received Close frame; `None` is the empty payload.
    ///
    /// # Errors
    /// A payload of one byte, a code that must not be sent, a reason that is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        // RFC 6455 §5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte
        // unsigned integer (in network byte order) representing a status code".
        let (code, reason) = match payload {
            [] => return Ok(None),
            [_] => return Err(ProtocolError::TruncatedCloseCode),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        let code = CloseCode::new(code);
        if !code.is_allowed_on_wire() {
            return Err(ProtocolError::ForbiddenCloseCode(code));
        }
        // RFC 6455 §5.5.1: "Following the 2-byte integer, the body MAY contain UTF-8-encoded data".
        let reason = utf8::validate(reason).map_err(ProtocolError::InvalidUtf8)?;
        Ok(Some(Self { code, reason }))
    }

    /// Writes the payload into `out` and returns its length.
    ///
    /// # Errors
    /// A code that must not be sent, or a reason that is too long.
    pub fn encode(&self, out: &mut [u8; 125]) -> Result<usize, InvalidClose> {
        if !self.code.is_allowed_on_wire() {
            return Err(InvalidClose::Code(self.code));
        }
        let reason = self.reason.as_bytes();
        if reason.len() > MAX_CLOSE_REASON {
            return Err(InvalidClose::ReasonTooLong(reason.len()));
        }
        out[..2].copy_from_slice(&self.code.value().to_be_bytes());
        out[2..2 + reason.len()].copy_from_slice(reason);
        Ok(2 + reason.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_code_and_reason() {
        let close = CloseFrame::parse(b"\x03\xe8bye").unwrap().unwrap();
        assert_eq!(close.code, CloseCode::NORMAL);
        assert_eq!(close.reason, "bye");
    }

    /// Pitfall 14: an empty payload is fine, one byte is not, 1012 to 1014 are.
    #[test]
    fn pitfall_14_close_payloads() {
        assert_eq!(CloseFrame::parse(b""), Ok(None));
        assert_eq!(
            CloseFrame::parse(b"\x03"),
            Err(ProtocolError::TruncatedCloseCode)
        );
        for code in 1012_u16..=1014 {
            assert!(CloseFrame::parse(&code.to_be_bytes()).is_ok(), "{code}");
        }
    }

    #[test]
    fn every_code_is_sorted_as_the_rfc_says() {
        let allowed = |code: u16| {
            (1000..=1014).contains(&code) && ![1004, 1005, 1006].contains(&code)
                || (3000..5000).contains(&code)
        };
        for code in 0..=u16::MAX {
            let parsed = CloseFrame::parse(&code.to_be_bytes()).is_ok();
            assert_eq!(parsed, allowed(code), "{code}");
            let frame = CloseFrame {
                code: code.into(),
                reason: "",
            };
            assert_eq!(frame.encode(&mut [0; 125]).is_ok(), allowed(code), "{code}");
        }
    }

    #[test]
    fn reason_is_utf8_and_bounded() {
        assert!(matches!(
            CloseFrame::parse(b"\x03\xe8\xff"),
            Err(ProtocolError::InvalidUtf8(_))
        ));
        let reason = "x".repeat(124);
        let frame = CloseFrame {
            code: CloseCode::NORMAL,
            reason: &reason,
        };
        assert_eq!(
            frame.encode(&mut [0; 125]),
            Err(InvalidClose::ReasonTooLong(124))
        );
        let frame = CloseFrame {
            reason: &reason[..123],
            ..frame
        };
        assert_eq!(frame.encode(&mut [0; 125]), Ok(125));
    }
}
