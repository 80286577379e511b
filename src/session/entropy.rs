//! Unpredictable bytes, bought in bulk: masking keys, handshake nonces, jitter.
//!
//! The source is an argument, so that the simulator can use a seeded one. The reactor's is the
//! operating system's generator, [`stretched`](super::chacha) because a system call per frame would
//! cost more than the frame.

use std::io;

/// Bytes fetched at a time: 1,016 masking keys. With the key that replaces its own, that is all the
/// [stretched](super::chacha) source makes in four steps.
const BATCH: usize = 4096 - 32;

/// Fills a buffer with unpredictable bytes.
pub(crate) type Source = Box<dyn FnMut(&mut [u8]) -> io::Result<()>>;

/// A buffered source of unpredictable bytes. Each byte is given out once. It is not erased then: the peer
/// learns keys and nonces anyway, and when a heartbeat or an attempt is due shows by itself.
pub(crate) struct Entropy {
    /// Not in a box of its own, which would be one more thing to load for each key.
    bytes: [u8; BATCH],
    /// Bytes given out already. So narrow a number cannot overflow when a few are added, which saves a
    /// check for each key.
    used: u16,
    source: Source,
}

impl Entropy {
    /// # Errors
    /// The source's: without unpredictable masking keys there is no client (RFC 6455 §10.3).
    pub(crate) fn new(mut source: Source) -> io::Result<Self> {
        let mut bytes = [0; BATCH];
        source(&mut bytes[..])?;
        Ok(Self {
            bytes,
            used: 0,
            source,
        })
    }

    /// The next `N` bytes.
    ///
    /// # Panics
    /// When the source fails that did not fail before: going on with predictable keys would be
    /// worse, and the operating systems document that it does not happen.
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        loop {
            if let Some(taken) = self.take_fetched() {
                return taken;
            }
            self.refill();
        }
    }

    /// The next `N` bytes, if they need not be fetched first.
    #[inline(always)]
    pub(crate) fn take_fetched<const N: usize>(&mut self) -> Option<[u8; N]> {
        const { assert!(N <= BATCH && BATCH <= u16::MAX as usize) };
        let start = usize::from(self.used);
        let slot = self.bytes.get(start..start + N)?;
        // No more than a batch: the slot is in it.
        self.used = u16::try_from(start + N).unwrap_or(u16::MAX);
        slot.try_into().ok()
    }

    #[cold]
    fn refill(&mut self) {
        (self.source)(&mut self.bytes[..]).expect("the source of entropy that worked so far");
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pitfall 37: no key is zero for lack of a source, and none is given out twice.
    #[test]
    fn pitfall_37_keys_come_from_the_source_once_each() {
        let mut next = 0_u32;
        let mut entropy = Entropy::new(Box::new(move |bytes| {
            for chunk in bytes.chunks_exact_mut(4) {
                next += 1;
                chunk.copy_from_slice(&next.to_be_bytes());
            }
            Ok(())
        }))
        .unwrap();
        for expected in 1..=5000_u32 {
            assert_eq!(entropy.take::<4>(), expected.to_be_bytes());
        }
    }

    #[test]
    fn a_source_that_fails_at_first_is_an_error() {
        let source = Box::new(|_: &mut [u8]| Err(io::Error::other("no entropy")));
        assert!(Entropy::new(source).is_err());
    }
}
