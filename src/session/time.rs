//! Time as an argument: the session has no clock, so its tests can run in virtual time.

use std::num::NonZeroU64;
use std::time::Duration;

/// A moment since the reactor was made.
///
/// Kept as its nanoseconds and one more, so that an `Option` of it is no larger: a connection has a
/// handful of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(NonZeroU64);

impl Time {
    pub(crate) const ZERO: Self = Self(NonZeroU64::MIN);

    /// Saturates after 584 years.
    pub(crate) fn from_start(elapsed: Duration) -> Self {
        Self::ZERO.after(elapsed)
    }

    /// So many nanoseconds after the reactor was made.
    #[inline]
    pub(crate) fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(Self::ZERO.0.saturating_add(nanoseconds))
    }

    #[inline]
    pub(crate) fn nanoseconds(self) -> u64 {
        self.0.get() - 1
    }

    #[inline]
    pub(crate) fn after(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }

    /// Zero if `earlier` is later.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_no_larger_and_the_end_of_time_is_not_passed() {
        assert_eq!(size_of::<Option<Time>>(), 8);
        assert_eq!(Time::ZERO.nanoseconds(), 0);
        let end = Time::ZERO.after(Duration::MAX);
        assert_eq!(end.after(Duration::from_nanos(1)), end);
        assert_eq!(Time::ZERO.since(end), Duration::ZERO);
        assert_eq!(end.since(Time::ZERO).as_nanos(), u128::from(u64::MAX - 1));
    }
}
