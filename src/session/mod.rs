//! The life of one connection, without sockets and without a clock.
//!
//! ```text
//! [queue] -> resolve -> tcp -> [proxy] -> tls -> upgrade -> open -> closing -> over -> back-off ...
//! ```
//!
//! The reactor, above, does what a session asks for ([`Step`]) and tells it what came of it
//! (`handle_*`); time, entropy and bytes are arguments. The protocol core, below, does the frames.
//!
//! - [`life`]: the stages, their deadlines, and what ends them; [`connecting`] and [`returning`] are
//!   its beginning and its end.
//! - [`admission`]: when an attempt that is due may begin, among all those of a reactor.
//! - [`aside`]: what few connections have at a time, between two opens above all.
//! - [`refresh`]: what the request changes of itself before each attempt.
//! - [`reach`]: which address to try when, and how long each stage took.
//! - [`liveness`]: heartbeats and watchdogs of an open connection.
//! - [`closing`]: the closing handshake, and giving up.
//! - [`outbound`]: what may be sent when, and the way of a frame into the turn's output.
//! - [`backlog`]: what is to be sent when the connection opens, or by its pace: [`pace`].
//! - [`inbound`]: which parser reads the bytes now.
//! - [`supervision`]: starting anew after the end, and how often.
//! - [`entropy`] and [`chacha`]: unpredictable bytes, bought in bulk and stretched.
//! - [`proxy`]: the way through a proxy, between tcp and tls.
//! - [`policy`]: when to connect again; [`redirect`]: where to, when the server says so.

pub(crate) mod admission;
pub(crate) mod aside;
pub(crate) mod backlog;
pub(crate) mod chacha;
pub(crate) mod closing;
mod connecting;
pub(crate) mod entropy;
pub(crate) mod inbound;
pub(crate) mod life;
pub(crate) mod liveness;
pub(crate) mod options;
pub(crate) mod outbound;
pub(crate) mod pace;
pub(crate) mod policy;
pub(crate) mod proxy;
pub(crate) mod reach;
mod redirect;
pub(crate) mod refresh;
mod returning;
pub(crate) mod supervision;
#[cfg(test)]
mod tests;
pub(crate) mod time;
pub(crate) mod timers;

pub(crate) use entropy::Entropy;
pub(crate) use inbound::Inbound;
pub(crate) use life::{Life, Stage, Step};
pub(crate) use options::{Options, Target};
pub(crate) use outbound::{Output, Wire};
pub(crate) use time::Time;

/// One connection: two halves that are borrowed apart, so that a handler can send while it looks at
/// a message that still lies in the decoder.
pub(crate) struct Session {
    pub(crate) inbound: Inbound,
    pub(crate) life: Life,
}
