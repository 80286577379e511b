//! Time as an argument: the session has no clock, so its tests can run in virtual time.

use std::time::Duration;

/// A moment, in nanoseconds since the reactor was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(u64);

impl Time {
    pub(crate) const ZERO: Self = Self(0);

    /// Saturates after 584 years.
    pub(crate) fn from_start(elapsed: Duration) -> Self {
        Self(nanoseconds(elapsed))
    }

    pub(crate) fn nanoseconds(self) -> u64 {
        self.0
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    /// Saturates at the reactor's start.
    pub(crate) fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }

    /// Zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
