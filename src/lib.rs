//! A WebSocket client for programs that listen to very many feeds at once.
//!
//! One thread runs one [`Reactor`]; the reactor holds thousands of connections; a message goes from the
//! read that brought it to your [`Handler`] with no queue, no copy and no allocation in between. (One
//! that a read cuts, or that comes in fragments, is copied together once; TLS decrypts in place, and
//! rustls allocates for each record.)
//!
//! ```no_run
//! use websockex::{Context, Handler, HandlerResult, Message, Open, Reactor};
//!
//! struct Trades {
//!     seen: u64,
//! }
//!
//! impl Handler for Trades {
//!     fn on_open(&mut self, cx: &mut Context<'_>, _open: &Open<'_>) -> HandlerResult {
//!         cx.send_text(r#"{"op":"subscribe","channel":"trades"}"#)?;
//!         Ok(())
//!     }
//!
//!     fn on_message(&mut self, _cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
//!         if let Message::Text(_json) = message {
//!             self.seen += 1;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), websockex::Error> {
//!     let mut reactor = Reactor::new()?;
//!     reactor.connect("wss://stream.example.com/ws", Trades { seen: 0 })?;
//!     reactor.run()
//! }
//! ```
//!
//! # The picture
//!
//! ```text
//! IN   socket -> [tls: decrypt] -> frame decoder -> message (inflate, utf-8) -> Handler
//! OUT  Handler -> Context -> [deflate] -> frame encoder (copy + mask in one pass)
//!              -> out buffer -> [tls: encrypt] -> socket
//! ```
//!
//! A connection's life, from top to bottom; each module says in its first lines what comes before and
//! after it:
//!
//! ```text
//! Request -> admission -> resolver -> connect -> [proxy] -> [tls] -> protocol::handshake     on_open
//!    ^       who may, when  names      sockets                        the upgrade               |
//!    |                                                                                          v
//!    |       poll -> receive -> [tls] -> protocol::decoder -> dispatch ----------------> on_message, ...
//!    |       poll <- link    <- [tls] <- protocol::encoder <- outbound, pace <- Context <-------'
//!    |                                                                                          |
//!    `------ policy, supervision <- closing <- liveness, limits, errors <-----------------------'
//!                                                              on_disconnect, on_terminate
//! ```
//!
//! Beside it, of every step: an event for [`trace`], which may go on to [`sinks`], and numbers for
//! [`stats`].
//!
//! A floor imports only from lower ones; a test checks it.
//!
//! | floor | files | what it does |
//! | --- | --- | --- |
//! | 3 | `reactor/` | the poll loop, sockets, timers, look-ups, commands of other threads; the only user of mio |
//! | 2 | `handler.rs`, `request.rs` | what a user implements, and what a user asks for |
//! | 1 | `session/`, [`sinks`], `tls/`, `error/` | the life of one connection, without sockets and clock; where events go besides the ring; TLS, the only user of rustls |
//! | 0 | [`protocol`], [`trace`], [`stats`] | RFC 6455 and RFC 7692, bytes in and events out; the ring of recorded events; counters and histograms |
//!
//! # What to know
//!
//! - **Requests.** A URL is enough; a [`Request`] says the rest: headers, subprotocols, limits,
//!   timeouts, TLS, compression, proxies, heartbeats, when to connect again. [`Request::refresh`]
//!   changes it before each attempt.
//! - **Callbacks.** [`Handler`] states their order, which is a contract. A handler that returns
//!   `Err` or panics ends its own connection and no other.
//! - **Coming and going.** [`Admission`] says how many connect at a time and how fast;
//!   [`ReconnectPolicy`] and [`Handler::on_disconnect`] what follows an end; [`Open::reason`] whether
//!   data was missed; [`Supervision`] when a handler that failed is replaced by a fresh one.
//! - **Sending.** What a callback sends leaves in one write at the end of the turn. A [`Pacer`] spreads
//!   it, [`Request::max_queued`] limits what waits, [`Request::hold_sends`] keeps it while there is no
//!   connection.
//! - **Closing.** What was sent before a Close frame leaves before it; [`Request::close_timeout`] is
//!   the peer's time to take it, to answer, and to end the TCP connection.
//! - **Other threads.** [`Remote`] connects, sends, casts, closes and shuts down from anywhere. It
//!   waits for the reactor only where its name or a timeout says so, and never on the reactor's own
//!   thread. A [`Client`] is a reactor that has a thread.
//! - **Errors.** A mistake in a request is told before any I/O; what happens to a connection its
//!   handler is told, as a [`DisconnectReason`]; why something was not sent, as a [`SendError`].
//! - **Security.** Peers are verified; switching that off takes a method with `danger` in its name.
//!   Everything that comes from the network has a limit: the head of the handshake
//!   ([`HandshakeLimits`]), frames and messages, inflated ones too ([`Limits`]). Memory grows with
//!   what arrived, never with what a header declares.
//! - **Seeing inside.** Lifecycle events of all connections are always recorded in a ring, frames
//!   when asked for; [`ReactorBuilder::print_trace`] and [`Remote::print_trace`] print them as they
//!   happen, [`Disconnect::last_events`] and [`Remote::last_events`] show them afterwards, [`sinks`]
//!   carry them elsewhere, and `WEBSOCKEX_TRACE` in the environment does all that for a program that
//!   nobody can recompile. [`Remote::stats`] and [`Remote::connections`] are the numbers, at any
//!   moment and from any thread, [for Prometheus](stats::ReactorStats::prometheus) too.
//!
//! # Features
//!
//! | feature | default | what |
//! | --- | --- | --- |
//! | `aws-lc-rs` | yes | `wss://` through rustls with the aws-lc-rs provider (implies `tls`) |
//! | `ring` | no | the same with the ring provider |
//! | `tls` | (by the above) | rustls without a provider: the program installs one |
//! | `deflate` | yes | permessage-deflate through zlib-rs; offered when a request asks for it |
//! | `log` | no | [`trace`] events to the crate `log` |
//! | `tracing` | no | [`trace`] events to the crate `tracing` |
//! | `simdutf8` | yes | SIMD validation of text that is not ASCII, off x86-64, where it needs no crate |
//!
//! Without default features the crate depends on mio, getrandom and socket2 (on Unix also on libc, for
//! the name of one error; on Linux on nix, to pin a thread to a core and for receive timestamps), and on what these need.

/// Its examples compile.
#[cfg(all(doctest, feature = "tls", feature = "deflate"))]
#[doc = include_str!("../README.md")]
struct Readme;

mod error;
mod handler;
pub mod protocol;
mod reactor;
mod request;
mod session;
pub mod sinks;
pub mod stats;
#[cfg(feature = "tls")]
mod tls;
pub mod trace;

pub use error::{
    BoxError, DisconnectReason, Error, PolicyError, ProxyError, ProxyRefusal, SendError,
    SocksReply, SocksViolation, Stage, Watch,
};
pub use handler::{
    ConnectionId, Context, Disconnect, Handler, HandlerResult, Message, Open, OpenReason,
    Reconnect, Termination,
};
pub use protocol::close::CloseCode;
pub use protocol::decoder::Limits;
#[cfg(feature = "deflate")]
pub use protocol::deflate::Deflate;
pub use protocol::error::ProtocolError;
pub use protocol::handshake::{HandshakeError, HandshakeLimits, Rejection, Response};
pub use protocol::url::{Url, UrlError};
pub use reactor::{
    Client, ConnectionState, ConnectionStatus, Connections, OwnedMessage, Polling, Reactor,
    ReactorBuilder, Remote,
};
pub use request::{IntoRequest, Request};
pub use session::admission::Admission;
pub use session::options::{ReceiveTimestamps, SocketOptions};
pub use session::outbound::{Compression, Fragment};
pub use session::pace::Pacer;
pub use session::policy::ReconnectPolicy;
pub use session::proxy::{Proxy, ProxyUrlError};
pub use session::refresh::Attempt;
pub use session::supervision::{Restart, Supervision};
pub use session::timers::TimerId;
pub use stats::StageTimes;
#[cfg(feature = "tls")]
pub use tls::{TlsConfig, TlsConfigBuilder};
