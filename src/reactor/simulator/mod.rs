//! The reactor in virtual time, over a simulated network: what runs here is the code that runs
//! everywhere, with other things in [`system`](super::system) beneath it.
//!
//! ```text
//! agenda -> network, servers, names -> World -> Reactor::finish_turn and what it calls -> handlers
//! ```
//!
//! - [`world`]: a reactor, a clock that jumps to the next moment at which something happens, and all
//!   the rest of the world. Nothing in it comes from outside, so a seed names a run.
//! - [`network`]: TCP and its [`faults`]; [`socket`] is the client's end, [`peer`] the other one.
//! - [`server`]: WebSocket servers and proxies that follow a script.
//! - [`log`]: what happened, for comparing and for looking into failures.
//! - [`paths`]: one scenario for each way that a connection can take, with its times.
//! - [`storm`]: thousands of sessions, servers that do anything, all faults.

mod faults;
mod log;
mod network;
mod paths;
mod peer;
mod random;
mod server;
mod socket;
mod storm;
mod world;

pub(super) use network::Network;
pub(super) use socket::Stream;
