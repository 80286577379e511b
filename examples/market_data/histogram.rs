//! Counts of times, in buckets whose width grows with the value.

/// Buckets per doubling, as a power of two: a value is known to one part in 64.
const PRECISION_BITS: u32 = 6;
const PER_DOUBLING: u64 = 1 << PRECISION_BITS;
/// Enough for every `u64`.
const BUCKETS: usize = ((u64::BITS - PRECISION_BITS + 1) as usize) << PRECISION_BITS;

/// A histogram of `u64` values, for quantiles of latencies. Recording costs a few instructions and
/// no memory.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Adds what `other` has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max = 0;
    }

    /// The largest value; `None` before the first.
    pub(crate) fn max(&self) -> Option<u64> {
        (self.total > 0).then_some(self.max)
    }

    /// The value that `quantile` of all values do not exceed, rounded up to the end of its bucket;
    /// `None` before the first value.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<u64> {
        // A share of a count is a count; what is cut off are fractions.
        #[allow(clippy::cast_possible_truncation)]
        let above = (self.total as f64 * (1.0 - quantile)) as u64;
        // Not all of them: with a quantile of 0 the smallest value is left.
        let mut above = above.min(self.total.checked_sub(1)?);
        for (index, &count) in self.counts.iter().enumerate().rev() {
            if count > above {
                return Some(last_value(index).min(self.max));
            }
            above -= count;
        }
        None
    }
}

/// The first doubling has a bucket for every value; from then on the leading bits decide.
// The leading bits are below twice PER_DOUBLING, so that the result is below BUCKETS.
#[allow(clippy::cast_possible_truncation)]
fn bucket(value: u64) -> usize {
    let shift = value
        .checked_ilog2()
        .unwrap_or(0)
        .saturating_sub(PRECISION_BITS);
    (u64::from(shift) * PER_DOUBLING + (value >> shift)) as usize
}

/// The largest value in a bucket.
fn last_value(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / PER_DOUBLING).saturating_sub(1);
    let leading = bucket - shift * PER_DOUBLING;
    // Wrapping: one behind the last bucket is 2^64.
    ((leading + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_gaps() {
        let mut first = 0;
        for index in 0..BUCKETS {
            let last = last_value(index);
            assert_eq!(bucket(first), index);
            assert_eq!(bucket(last), index);
            assert!(last - first <= last / PER_DOUBLING, "{first} to {last}");
            first = last.wrapping_add(1);
        }
        assert_eq!(first, 0, "the last bucket ends with the last value");
    }

    #[test]
    fn quantiles_are_known_to_one_part_in_64() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        assert_eq!(histogram.max(), None);
        for value in 1..=100_000 {
            histogram.record(value);
        }
        for (quantile, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let ratio = histogram.quantile(quantile).unwrap() as f64 / exact;
            assert!((0.999..1.0 + 1.0 / 64.0).contains(&ratio), "{ratio}");
        }
        assert_eq!(histogram.quantile(1.0), Some(100_000));
        assert_eq!(histogram.max(), Some(100_000));
    }

    #[test]
    fn adding_is_recording_together() {
        let (mut both, mut one, mut other) = (
            Histogram::default(),
            Histogram::default(),
            Histogram::default(),
        );
        for value in 0..1_000_u64 {
            both.record(value * value);
            let half = if value % 2 == 0 { &mut one } else { &mut other };
            half.record(value * value);
        }
        one.add(&other);
        assert_eq!(one.counts, both.counts);
        assert_eq!(one.quantile(0.9), both.quantile(0.9));
        one.clear();
        assert_eq!(one.quantile(0.9), None);
    }
}
