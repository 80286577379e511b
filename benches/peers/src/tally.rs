//! What arrived.

use crate::latency::{Latencies, stamp_of};
use crate::process::monotonic_ns;

/// Of one payload: its length, its first and its last eight bytes, so that it costs the same few
/// instructions whatever the size. Shorter payloads are padded with zeroes.
#[inline]
pub fn checksum(payload: &[u8]) -> u64 {
    let (first, last) = match (payload.first_chunk::<8>(), payload.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => {
            let mut padded = [0; 8];
            padded[..payload.len()].copy_from_slice(payload);
            (u64::from_le_bytes(padded), 0)
        }
    };
    (payload.len() as u64)
        .wrapping_add(first)
        .wrapping_add(last)
}

/// Counts messages and sums their checksums up, in whatever order they come.
///
/// A client with several threads or tasks has one each and [adds](Self::add) them at the end; one
/// with several tasks on one thread may share one.
#[derive(Debug)]
pub struct Tally {
    /// So many.
    pub messages: u64,
    /// Of payload.
    pub bytes: u64,
    /// The wrapping sum of [`checksum`] over the payloads.
    pub checksum: u64,
    /// From the stamps, if the payloads have any.
    pub latencies: Latencies,
    wanted: u64,
    stamped: bool,
}

impl Tally {
    /// Complete after `wanted` messages. With `stamped`, it reads the stamps and the clock.
    pub fn new(wanted: u64, stamped: bool) -> Self {
        Self {
            messages: 0,
            bytes: 0,
            checksum: 0,
            latencies: Latencies::default(),
            wanted,
            stamped,
        }
    }

    /// A complete message.
    #[inline]
    pub fn take(&mut self, payload: &[u8]) {
        self.messages += 1;
        self.bytes += payload.len() as u64;
        self.checksum = self.checksum.wrapping_add(checksum(payload));
        if self.stamped {
            self.take_stamp(payload);
        }
    }

    /// A complete message, of which its length and its first and last eight bytes are known.
    #[inline]
    pub fn take_sum(&mut self, length: u64, first: u64, last: u64) {
        self.messages += 1;
        self.bytes += length;
        let sum = length.wrapping_add(first).wrapping_add(last);
        self.checksum = self.checksum.wrapping_add(sum);
    }

    #[cold]
    fn take_stamp(&mut self, payload: &[u8]) {
        if let Some(sent) = stamp_of(payload) {
            self.latencies.push(monotonic_ns().saturating_sub(sent));
        }
    }

    /// Are there as many as are wanted?
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.messages >= self.wanted
    }

    /// Takes in what another has counted.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.checksum = self.checksum.wrapping_add(other.checksum);
        self.latencies.add(&other.latencies);
    }
}
