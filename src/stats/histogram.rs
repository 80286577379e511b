//! How values are distributed: a log-linear histogram. Each power of two is divided into eight
//! buckets, so a value read from it is at most an eighth too large, over the whole range.

use super::meter::Counter;
use std::fmt;
use std::time::Duration;

/// Buckets per power of two; so many of the first values have a bucket of their own.
const STEP_BITS: u32 = 3;
const STEPS: u64 = 1 << STEP_BITS;
/// Values from 2^40 on (18 minutes, in nanoseconds) share the last bucket.
const LARGEST_EXPONENT: u32 = 39;
const BUCKETS: usize = ((LARGEST_EXPONENT - STEP_BITS + 2) as usize) << STEP_BITS;

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    let exponent = value.checked_ilog2().unwrap_or(0);
    let number = if exponent < STEP_BITS {
        value
    } else {
        let shift = exponent - STEP_BITS;
        u64::from(shift) * STEPS + (value >> shift)
    };
    usize::try_from(number).map_or(BUCKETS - 1, |number| number.min(BUCKETS - 1))
}

/// The largest value of a bucket.
fn largest(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    if next <= STEPS {
        return bucket as u64;
    }
    let shift = next / STEPS - 1;
    ((next - shift * STEPS) << shift) - 1
}

/// A histogram that one thread writes and others read.
pub(crate) struct SharedHistogram {
    buckets: [Counter; BUCKETS],
    sum: Counter,
    largest: Counter,
}

impl Default for SharedHistogram {
    fn default() -> Self {
        Self {
            buckets: [const { Counter::new() }; BUCKETS],
            sum: Counter::new(),
            largest: Counter::new(),
        }
    }
}

impl SharedHistogram {
    /// For the one writer.
    pub(crate) fn record(&self, value: u64) {
        self.buckets[bucket(value)].add(1);
        self.sum.add(value);
        self.largest.raise(value);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        let counts: Vec<u64> = self.buckets.iter().map(Counter::value).collect();
        Histogram {
            count: counts.iter().sum(),
            counts,
            sum: self.sum.value(),
            largest: self.largest.value(),
        }
    }
}

/// How the values of something are distributed, with an error of at most an eighth.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    largest: u64,
}

impl Histogram {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest of them, exactly; 0 if there is none.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Their mean, rounded down; 0 if there is none.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// A value that at least `fraction` (0 to 1) of all values do not exceed, and that is at most an eighth
    /// larger than the smallest such value; 0 if there is none. The median is `quantile(0.5)`. Values from
    /// 2^40 on, 18 minutes if they are nanoseconds, are all taken for the [`largest`](Self::largest).
    #[must_use]
    pub fn quantile(&self, fraction: f64) -> u64 {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among so many values needs no more than 53 bits"
        )]
        let rank = (fraction.clamp(0.0, 1.0) * self.count as f64).ceil() as u64;
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank.max(1) && bucket + 1 < BUCKETS {
                return largest(bucket).min(self.largest);
            }
        }
        self.largest
    }

    /// As [`quantile`](Self::quantile), of values that are nanoseconds.
    #[must_use]
    pub fn quantile_time(&self, fraction: f64) -> Duration {
        Duration::from_nanos(self.quantile(fraction))
    }

    /// How many values are below 2^`exponent`, exactly.
    pub(super) fn below_power_of_two(&self, exponent: u32) -> u64 {
        let end = bucket((1 << exponent) - 1) + 1;
        self.counts.iter().take(end).sum()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("largest", &self.largest)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        let mut smallest = 0;
        for number in 0..BUCKETS - 1 {
            let end = largest(number);
            assert_eq!((bucket(smallest), bucket(end)), (number, number));
            assert!(
                end >= smallest && end - smallest <= smallest / 8,
                "{number}"
            );
            smallest = end + 1;
        }
        assert_eq!(smallest, (15 << (LARGEST_EXPONENT - 3)));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_at_most_an_eighth_too_large() {
        let shared = SharedHistogram::default();
        let values: Vec<u64> = (1..=5000_u64).map(|number| number * number).collect();
        for value in &values {
            shared.record(*value);
        }
        let histogram = shared.snapshot();
        assert_eq!((histogram.count(), histogram.largest()), (5000, 25_000_000));
        assert_eq!(histogram.sum(), values.iter().sum());
        assert_eq!(histogram.mean(), histogram.sum() / 5000);
        for (fraction, rank) in [(0.0, 1), (0.1, 500), (0.5, 2500), (0.99, 4950), (1.0, 5000)] {
            let (exact, read) = (values[rank - 1], histogram.quantile(fraction));
            assert!(
                (exact..=exact + exact / 8).contains(&read),
                "{fraction} {exact} {read}"
            );
        }
        for exponent in 0..40 {
            let below = values
                .iter()
                .filter(|value| **value < 1 << exponent)
                .count();
            assert_eq!(histogram.below_power_of_two(exponent), below as u64);
        }
    }

    #[test]
    fn quantiles_of_huge_values_are_not_too_small() {
        let shared = SharedHistogram::default();
        for value in [5, 1 << 40, 1 << 50] {
            shared.record(value);
        }
        let histogram = shared.snapshot();
        assert_eq!(
            [0.3, 0.5, 1.0].map(|part| histogram.quantile(part)),
            [5, 1 << 50, 1 << 50]
        );
    }

    #[test]
    fn without_values_everything_is_zero() {
        let histogram = SharedHistogram::default().snapshot();
        assert_eq!(
            (
                histogram.quantile(0.5),
                histogram.mean(),
                histogram.largest()
            ),
            (0, 0, 0)
        );
        assert_eq!(Histogram::default().quantile(1.0), 0);
    }
}
