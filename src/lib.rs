//! A WebSocket client for very many feeds at once.

mod error;
mod handler;
pub mod protocol;
mod reactor;
mod request;
mod session;
#[cfg(feature = "tls")]
mod tls;
pub mod trace;

pub use error::{BoxError, Error, SendError, Stage};
pub use handler::{
    ConnectionId, Context, Disconnect, Handler, HandlerResult, Message, Open, Reconnect,
    Termination,
};
pub use protocol::close::CloseCode;
pub use protocol::decoder::Limits;
pub use protocol::error::ProtocolError;
pub use protocol::handshake::{HandshakeError, HandshakeLimits, Rejection, Response};
pub use protocol::url::{Url, UrlError};
pub use reactor::{OwnedMessage, Reactor, ReactorBuilder, Remote};
pub use request::{IntoRequest, Request};
pub use session::outbound::Fragment;
pub use session::policy::ReconnectPolicy;
pub use session::reason::DisconnectReason;
pub use session::timers::TimerId;
#[cfg(feature = "tls")]
pub use tls::{TlsConfig, TlsConfigBuilder};
