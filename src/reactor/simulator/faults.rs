//! How unkind the network is.

use std::time::Duration;

/// Chances in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// What was sent arrives in pieces.
    pub(super) split: u64,
    /// A socket takes less than it has room for.
    pub(super) short_write: u64,
    /// The poll reports a socket later than it could.
    pub(super) late_edge: u64,
    /// The poll reports a socket for no reason.
    pub(super) spurious: u64,
    /// The reactor wakes up later than it asked for.
    pub(super) late_wake: u64,
    /// Nothing arrives for some seconds.
    pub(super) stall: u64,
    /// The connection is reset after something that was sent.
    pub(super) reset: u64,
    /// Added to each latency, at most.
    pub(super) jitter: Duration,
    /// The order of the poll's reports is anybody's guess.
    pub(super) shuffled: bool,
}

impl Faults {
    pub(super) const ALL: Self = Self {
        split: 20,
        short_write: 20,
        late_edge: 10,
        spurious: 5,
        late_wake: 10,
        stall: 1,
        reset: 1,
        jitter: Duration::from_millis(30),
        shuffled: true,
    };
}
