//! The public API over real sockets: against servers that others wrote, and against hostile ones of
//! our own. One binary, so that it is linked once; a file for each theme.
//!
//! Nothing here sleeps to wait for something, and nothing depends on how fast the machine is: a test
//! waits for what must happen, and fails when a generous deadline passes first.

mod support;

mod abort;
mod admission;
mod blocked;
mod client;
mod closing;
mod connect;
mod crowds;
mod handlers;
mod holding;
mod life;
mod limits;
mod messages;
mod pacing;
mod pinning;
mod pitfalls;
mod polling;
mod proxies;
mod reasons;
mod reconnect;
mod redirects;
mod refresh;
mod remote;
mod supervision;
mod timestamps;
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
mod tls;
mod trace;
