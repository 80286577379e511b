//! One monotonic clock for both ends, so that a latency is one-way and needs no second measurement.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch that never go back: the time of day at the start, and from then
/// on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    unix_at_start_ns: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start: Instant::now(),
            // Fits until the year 2554.
            unix_at_start_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.unix_at_start_ns.saturating_add(elapsed)
    }
}
