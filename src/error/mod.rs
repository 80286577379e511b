//! Everything that can go wrong, told apart by stage and by blame.

mod policy;
mod proxy;
mod reason;

pub use policy::PolicyError;
pub use proxy::{ProxyError, ProxyRefusal, SocksReply, SocksViolation};
pub use reason::{DisconnectReason, Watch};

use crate::protocol::close::InvalidClose;
use crate::protocol::error::ProtocolError;
use crate::protocol::handshake::{HandshakeError, HeaderError};
use crate::protocol::url::UrlError;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

/// An error of somebody else's: a handler's, or the TLS library's.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A stage on the way to an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Looking the host's name up.
    Resolve,
    /// The TCP handshake.
    Tcp,
    /// Asking a proxy for the way.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The opening handshake of RFC 6455 §4.
    Upgrade,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "looking up the name",
            Self::Tcp => "connecting",
            Self::Proxy => "asking the proxy",
            Self::Tls => "the TLS handshake",
            Self::Upgrade => "the opening handshake",
        })
    }
}

/// Why a request, a connection or the reactor failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be used. Found before any I/O.
    Url(UrlError),
    /// A header, subprotocol or other setting of a request cannot be used. Found before any I/O.
    Request(HeaderError),
    /// A policy of the request cannot work. Found before any I/O.
    Policy(PolicyError),
    /// `wss` was asked for, and the crate was built without the feature `tls` or a crypto provider.
    TlsUnavailable,
    /// The TLS configuration cannot be used. Found before any I/O.
    TlsConfig(BoxError),
    /// The host's name was not found.
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No TCP connection: refused, unreachable, no such network.
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The proxy did not open the way to the server.
    Proxy(ProxyError),
    /// TLS failed: a certificate that does not verify, an alert, a record that does not decrypt.
    Tls(BoxError),
    /// The opening handshake failed; a refusal carries status, headers and the start of the body.
    Handshake(HandshakeError),
    /// A stage took longer than it may.
    Timeout {
        /// The stage.
        stage: Stage,
        /// How long it was allowed to take.
        limit: Duration,
    },
    /// The peer broke the protocol or a limit; the connection was closed with
    /// [`ProtocolError::close_code`].
    Protocol(ProtocolError),
    /// The socket failed while the connection was open.
    Io(io::Error),
    /// A handler's callback returned this.
    Handler(BoxError),
    /// The closure of [`Request::refresh`](crate::Request::refresh) failed with this. It is the
    /// source of this error and not in its text, which is recorded: it may hold secrets.
    Refresh(BoxError),
    /// A handler's callback panicked, with this message, or a request's refresh.
    HandlerPanicked(String),
    /// A connection has ended whose end its owner wants to know: a linked one, one whose restarts
    /// were too many, or one that somebody waited for.
    Ended {
        /// Its name, or its id if it has none; empty for those that waited for it, who know which it was.
        connection: String,
        /// Why.
        reason: Box<DisconnectReason>,
    },
    /// Another connection of the reactor has this name.
    NameTaken(String),
    /// The reactor itself could not go on: no poll, no waker, no entropy.
    Reactor(io::Error),
    /// The reactor's thread cannot be kept on the core of
    /// [`ReactorBuilder::pin_to`](crate::ReactorBuilder::pin_to): there is none of that number, the
    /// process may not use it, or the operating system cannot do it.
    Pin {
        /// The core's number.
        core: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// The reactor has as many connections as its slots can number, or is shutting down.
    Refused(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => write!(f, "the URL cannot be used: {error}"),
            Self::Request(error) => write!(f, "the request cannot be used: {error}"),
            Self::Policy(error) => write!(f, "the request cannot be used: {error}"),
            Self::TlsUnavailable => f.write_str(
                "wss needs the feature `tls` and a crypto provider (feature `aws-lc-rs` or `ring`)",
            ),
            Self::TlsConfig(error) => write!(f, "the TLS configuration cannot be used: {error}"),
            Self::Resolve { host, source } => write!(f, "no address for {host}: {source}"),
            Self::Connect { address, source } => {
                write!(f, "no connection to {address}: {source}")
            }
            Self::Proxy(error) => write!(f, "the proxy does not open the way: {error}"),
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
            Self::Handshake(error) => write!(f, "the opening handshake failed: {error}"),
            Self::Timeout { stage, limit } => write!(f, "{stage} took longer than {limit:?}"),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::Io(error) => write!(f, "the connection failed: {error}"),
            Self::Handler(error) => write!(f, "the handler failed: {error}"),
            Self::Refresh(_) => f.write_str("the request could not be refreshed"),
            Self::HandlerPanicked(message) => write!(f, "the handler panicked: {message}"),
            Self::Ended { connection, reason } if connection.is_empty() => {
                write!(f, "the connection has ended: {reason}")
            }
            Self::Ended { connection, reason } => {
                write!(f, "connection {connection} has ended: {reason}")
            }
            Self::NameTaken(name) => write!(f, "another connection is called {name:?}"),
            Self::Reactor(error) => write!(f, "the reactor failed: {error}"),
            Self::Pin { core, source } => {
                write!(f, "the reactor cannot be kept on core {core}: {source}")
            }
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Url(error) => Some(error),
            Self::Request(error) => Some(error),
            Self::Policy(error) => Some(error),
            Self::Proxy(error) => Some(error),
            Self::Handshake(error) => Some(error),
            Self::Protocol(error) => Some(error),
            Self::Resolve { source, .. }
            | Self::Connect { source, .. }
            | Self::Pin { source, .. } => Some(source),
            Self::Io(error) | Self::Reactor(error) => Some(error),
            Self::Tls(error)
            | Self::TlsConfig(error)
            | Self::Handler(error)
            | Self::Refresh(error) => Some(error.as_ref()),
            Self::Ended { reason, .. } => reason.error().map(|error| error as _),
            Self::TlsUnavailable
            | Self::NameTaken(_)
            | Self::Timeout { .. }
            | Self::HandlerPanicked(_)
            | Self::Refused(_) => None,
        }
    }
}

impl From<UrlError> for Error {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error)
    }
}

impl From<HeaderError> for Error {
    fn from(error: HeaderError) -> Self {
        Self::Request(error)
    }
}

/// Why something was not sent. Nothing of it reached the wire, and the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is not open yet, or between two attempts.
    NotOpen,
    /// A Close frame was sent already. RFC 6455 §5.5.1: "The application MUST NOT send any more
    /// data frames after sending a Close frame."
    Closing,
    /// The connection has ended for good, or never was.
    Gone,
    /// The queue is full: the peer, or the reactor, does not take what is sent fast enough.
    Full {
        /// What waits already: bytes of a connection, or commands of a [`Remote`](crate::Remote).
        queued: usize,
        /// What may wait.
        limit: usize,
    },
    /// As much is held for the next open as [`Request::hold_sends`](crate::Request::hold_sends) allows.
    HoldFull,
    /// It was not written within the time allowed for that; it may still be.
    TimedOut,
    /// Waiting for the reactor on its own thread, which would wait for ever.
    OwnThread,
    /// A control payload of this many bytes; 125 are allowed (RFC 6455 §5.5).
    ControlTooLong(usize),
    /// A Close that cannot be sent.
    InvalidClose(InvalidClose),
    /// A message of one kind, or a whole one, in the middle of a fragmented message; or a further
    /// fragment where none was begun (RFC 6455 §5.4).
    FragmentOrder,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => f.write_str("the connection is not open"),
            Self::Closing => f.write_str("the connection is closing"),
            Self::Gone => f.write_str("the connection has ended"),
            Self::Full { queued, limit } => {
                write!(f, "the queue is full: {queued} wait, {limit} may")
            }
            Self::HoldFull => f.write_str("as much is held for the next open as may be"),
            Self::TimedOut => f.write_str("it was not written in time"),
            Self::OwnThread => f.write_str("the reactor's own thread cannot wait for it"),
            Self::ControlTooLong(length) => {
                write!(f, "a control payload of {length} bytes is longer than 125")
            }
            Self::InvalidClose(error) => error.fmt(f),
            Self::FragmentOrder => {
                f.write_str("the fragments of a message must follow each other, all of one kind")
            }
        }
    }
}

impl StdError for SendError {}

impl From<InvalidClose> for SendError {
    fn from(error: InvalidClose) -> Self {
        Self::InvalidClose(error)
    }
}
