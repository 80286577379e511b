//! What can be wrong with received frames, told apart by blame, and the close code for each.

use super::close::CloseCode;
use super::utf8::InvalidUtf8;
use std::fmt;

/// Whose fault a [`ProtocolError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The bytes are no frame at all.
    Malformed,
    /// Well-formed frames in an order or with a content that the protocol forbids.
    Misbehaviour,
    /// Allowed by the protocol, refused by a limit set here.
    Limit,
}

/// Why a received byte stream was given up. The first error of a decoder sticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Reserved bits are set that no extension gave a meaning (the bits as they stood, RSV1 = 4).
    ReservedBits(u8),
    /// An opcode that RFC 6455 reserves.
    ReservedOpCode(u8),
    /// A payload length not in its shortest form.
    NonMinimalLength,
    /// A payload length with its most significant bit set.
    LengthOverflow,
    /// A server masked a frame.
    MaskedFrame,
    /// A client sent a frame without masking it.
    UnmaskedFrame,
    /// A control frame without FIN.
    FragmentedControl,
    /// A control frame that declares more than 125 bytes.
    ControlTooLong,
    /// A continuation frame, and no message to continue.
    UnexpectedContinuation,
    /// A new data frame inside a fragmented message.
    InterruptedMessage,
    /// A Close payload of one byte.
    TruncatedCloseCode,
    /// A close code that must not be sent.
    ForbiddenCloseCode(CloseCode),
    /// Text that is not UTF-8.
    InvalidUtf8(InvalidUtf8),
    /// A compressed message that is no DEFLATE stream.
    InvalidDeflate,
    /// A compressed message whose DEFLATE stream breaks off.
    TruncatedDeflate,
    /// A frame longer than the limit.
    FrameTooLarge {
        /// What the header declares, in bytes.
        length: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// A message, inflated if it is compressed, longer than the limit.
    MessageTooLarge {
        /// What has arrived or is declared so far, in bytes.
        length: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
}

impl ProtocolError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::ReservedBits(_)
            | Self::ReservedOpCode(_)
            | Self::NonMinimalLength
            | Self::LengthOverflow
            | Self::InvalidDeflate
            | Self::TruncatedDeflate => Blame::Malformed,
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } => Blame::Limit,
            _ => Blame::Misbehaviour,
        }
    }

    /// The code to close the connection with (RFC 6455 §7.4.1): the one place that decides.
    pub fn close_code(&self) -> CloseCode {
        match self {
            // "has received data within a message that was not consistent with the type"
            Self::InvalidUtf8(_) | Self::InvalidDeflate | Self::TruncatedDeflate => {
                CloseCode::INVALID_DATA
            }
            // "has received a message that is too big for it to process"
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits(bits) => {
                write!(f, "reserved bits {bits:03b} are set (RFC 6455 section 5.2)")
            }
            Self::ReservedOpCode(opcode) => {
                write!(f, "opcode {opcode:#x} is reserved (RFC 6455 section 5.2)")
            }
            Self::NonMinimalLength => {
                f.write_str("the payload length is not in its shortest form (RFC 6455 section 5.2)")
            }
            Self::LengthOverflow => f.write_str(
                "the most significant bit of the payload length is set (RFC 6455 section 5.2)",
            ),
            Self::MaskedFrame => f.write_str("the server masked a frame (RFC 6455 section 5.1)"),
            Self::UnmaskedFrame => {
                f.write_str("the client did not mask a frame (RFC 6455 section 5.1)")
            }
            Self::FragmentedControl => {
                f.write_str("a control frame is fragmented (RFC 6455 section 5.5)")
            }
            Self::ControlTooLong => {
                f.write_str("a control frame is longer than 125 bytes (RFC 6455 section 5.5)")
            }
            Self::UnexpectedContinuation => f.write_str(
                "a continuation frame has no message to continue (RFC 6455 section 5.4)",
            ),
            Self::InterruptedMessage => {
                f.write_str("a new message begins inside a fragmented one (RFC 6455 section 5.4)")
            }
            Self::TruncatedCloseCode => {
                f.write_str("a Close frame has one byte of payload (RFC 6455 section 5.5.1)")
            }
            Self::ForbiddenCloseCode(code) => write!(
                f,
                "close code {code} must not be sent (RFC 6455 section 7.4.1)"
            ),
            Self::InvalidUtf8(error) => write!(f, "{error} (RFC 6455 section 8.1)"),
            Self::InvalidDeflate => {
                f.write_str("a compressed message is no DEFLATE stream (RFC 7692 section 7.2.2)")
            }
            Self::TruncatedDeflate => {
                f.write_str("a compressed message breaks off (RFC 7692 section 7.2.2)")
            }
            Self::FrameTooLarge { length, limit } => {
                write!(f, "a frame of {length} bytes is over the limit of {limit}")
            }
            Self::MessageTooLarge { length, limit } => {
                write!(
                    f,
                    "a message of {length} bytes is over the limit of {limit}"
                )
            }
        }
    }
}

impl std::error::Error for ProtocolError {}
