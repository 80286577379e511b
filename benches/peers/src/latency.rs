//! Latencies, and the stamps that one-way ones are measured by: the first twenty bytes of a payload
//! are `CLOCK_MONOTONIC` in nanoseconds when the burst it belongs to was due, decimal, with leading
//! zeroes, so that it is text. All of a burst carry the same: what a client costs the server, by being
//! woken for one, shows in the others.

use serde::{Deserialize, Serialize};

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 20;

/// Samples in nanoseconds; all are kept.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u64>);

/// What is said of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub count: u64,
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Latencies {
    /// Makes room for so many more, so that none moves while it measures.
    pub fn reserve(&mut self, samples: u64) {
        self.0.reserve(samples as usize);
    }

    /// One more, in nanoseconds.
    #[inline]
    pub fn push(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }

    /// Takes in the samples of another.
    pub fn add(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// `None` if there are no samples.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        // The nearest rank: the sample that so many per mille are not above.
        let at = |per_mille: usize| sorted[(sorted.len() * per_mille).div_ceil(1000).max(1) - 1];
        Some(Percentiles {
            count: sorted.len() as u64,
            min: sorted[0],
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: sorted[last],
        })
    }
}

/// Writes a stamp to the beginning of a payload.
pub fn write_stamp(payload: &mut [u8], mut nanoseconds: u64) {
    for byte in payload[..STAMP_LEN].iter_mut().rev() {
        *byte = b'0' + u8::try_from(nanoseconds % 10).unwrap_or(0);
        nanoseconds /= 10;
    }
}

/// The stamp of a payload, if it begins with one.
pub fn stamp_of(payload: &[u8]) -> Option<u64> {
    let digits = payload.get(..STAMP_LEN)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number.wrapping_mul(10) + u64::from(digit - b'0'))
    })
}
