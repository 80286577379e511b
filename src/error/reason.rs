//! Why a connection ended, or an attempt to open one failed.

use super::Error;
use crate::protocol::close::CloseCode;
use std::fmt;
use std::time::Duration;

/// Which sign of life was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watch {
    /// The pong to a ping of the heartbeat.
    Pong,
    /// Application data after the text of the heartbeat.
    Answer,
    /// Any byte at all.
    AnyByte,
    /// A message.
    Data,
    /// The first message after the connection opened.
    FirstData,
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pong => "pong",
            Self::Answer => "answer to the heartbeat",
            Self::AnyByte => "byte",
            Self::Data => "message",
            Self::FirstData => "first message",
        })
    }
}

/// Why a connection ended, or an attempt to open one failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// It was closed from this side: by the handler, by a [`Remote`](crate::Remote), or because the
    /// reactor shut down.
    Local {
        /// The code that was sent, if one was; none after an [abort](crate::Context::abort).
        code: Option<CloseCode>,
        /// The reason that was sent.
        reason: String,
    },
    /// The peer sent a Close frame.
    Remote {
        /// Its code, if it had one (RFC 6455 §7.1.5 calls its absence 1005).
        code: Option<CloseCode>,
        /// Its reason.
        reason: String,
    },
    /// The peer ended the TCP connection without a Close frame (RFC 6455 §7.1.5 calls this 1006).
    Dropped,
    /// No connection came about.
    ConnectFailed(Error),
    /// The peer gave no sign of life for so long that it is taken for dead.
    Silent {
        /// The sign that was missed.
        watch: Watch,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The open connection was given up because of an error: the peer broke the protocol, the
    /// socket or TLS failed, or the handler failed.
    Failed(Error),
}

impl DisconnectReason {
    /// The close code of the connection in the sense of RFC 6455 §7.1.5: what a Close frame said,
    /// 1005 if it said nothing, 1006 if there was none.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Local { code, .. } => code.unwrap_or(CloseCode::ABNORMAL),
            Self::Remote { code, .. } => code.unwrap_or(CloseCode::NO_STATUS),
            Self::Failed(Error::Protocol(error)) => error.close_code(),
            Self::Failed(Error::Handler(_) | Error::HandlerPanicked(_)) => {
                CloseCode::INTERNAL_ERROR
            }
            Self::Dropped | Self::ConnectFailed(_) | Self::Silent { .. } | Self::Failed(_) => {
                CloseCode::ABNORMAL
            }
        }
    }

    /// The error, if there was one.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::ConnectFailed(error) | Self::Failed(error) => Some(error),
            Self::Local { .. } | Self::Remote { .. } | Self::Dropped | Self::Silent { .. } => None,
        }
    }

    /// Did the handler itself fail, by an `Err` or a panic?
    pub(crate) fn is_handler_failure(&self) -> bool {
        matches!(
            self.error(),
            Some(Error::Handler(_) | Error::HandlerPanicked(_))
        )
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (side, code, reason) = match self {
            Self::Local { code, reason } => ("closed from this side", code, reason),
            Self::Remote { code, reason } => ("closed by the peer", code, reason),
            Self::Dropped => {
                return f.write_str("the peer ended the connection without a Close frame");
            }
            Self::Silent { watch, limit } => {
                return write!(f, "the peer is silent: no {watch} for {limit:?}");
            }
            Self::ConnectFailed(error) | Self::Failed(error) => return error.fmt(f),
        };
        f.write_str(side)?;
        if let Some(code) = code {
            write!(f, " with {code}")?;
        }
        if !reason.is_empty() {
            write!(f, " {reason:?}")?;
        }
        Ok(())
    }
}
