//! Numbers: how much, how often, how long; readable from any thread while the reactor runs.
//!
//! ```text
//! session, reactor -> Tally              (plain additions, hot in the cache; one for all connections)
//!                      `-> Meter         (at the end of a connection's turn: what the turn brought)
//! any thread       <- ConnectionStats, ReactorStats -> Prometheus text, tables
//! ```
//!
//! - `tally.rs`: what is counted in one turn of one connection.
//! - `meter.rs`: what is published, by one thread and without locks or read-modify-write instructions.
//! - `snapshot.rs`: what is read.
//! - `histogram.rs`: how values are distributed, where a mean would lie.
//! - `prometheus.rs`: a snapshot in the text format that Prometheus scrapes.
//!
//! No clock in here: times are nanoseconds since the reactor's start, and the caller's.

pub(crate) mod histogram;
pub(crate) mod meter;
mod prometheus;
pub(crate) mod snapshot;
pub(crate) mod tally;

pub use histogram::Histogram;
pub use prometheus::{Prometheus, prometheus};
pub use snapshot::{
    ConnectionStats, FrameCounts, ReactorStats, ReconnectCounts, RoundTrips, SlowHandler,
    StageTimes, Traffic,
};
