//! The ring: the newest events of one reactor, in memory that is allocated once.
//!
//! Comes after [`super::event`]; [`super::render`] reads what it keeps. When full, the oldest event makes room
//! and is counted. All connections share one ring, so that its size does not depend on their number.

use std::fmt;

use super::event::Event;

/// A ring of events that overwrites the oldest.
pub struct Ring {
    /// A power of two of them, or none when the trace is off.
    slots: Box<[Event]>,
    /// Events recorded so far; the next one's sequence.
    recorded: u64,
}

impl Ring {
    /// Most events a ring holds: 128 MiB of them.
    pub const MAX_CAPACITY: usize = 1 << 20;

    /// A ring for `events` events, rounded up to a power of two and at most [`MAX_CAPACITY`](Ring::MAX_CAPACITY).
    /// 0 switches recording off. All memory is allocated and touched here.
    #[must_use]
    pub fn with_capacity(events: usize) -> Ring {
        let capacity = match events {
            0 => 0,
            _ => events.min(Self::MAX_CAPACITY).next_power_of_two(),
        };
        Ring {
            slots: vec![Event::EMPTY; capacity].into_boxed_slice(),
            recorded: 0,
        }
    }

    /// Records an event and gives it the next sequence. Never allocates, never fails.
    #[inline]
    pub fn record(&mut self, event: Event) {
        // One masked index and one branch, which is also the switch: of an empty ring the mask is all ones,
        // `recorded` stays 0, and slot 0 does not exist. So there is neither a division nor a way to panic.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the mask keeps the low bits only"
        )]
        let index = self.recorded as usize & self.slots.len().wrapping_sub(1);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = event.with_sequence(self.recorded);
            self.recorded += 1;
        }
    }

    /// The events still held, oldest first. Reversible, for those who want the newest few.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Event> + Clone {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the mask keeps the low bits only"
        )]
        let next = self.recorded as usize & self.slots.len().wrapping_sub(1);
        // Before the first lap is complete, what lies behind `next` was never recorded.
        let (newer, older) = self.slots.split_at(next);
        let older = if self.overwrites() { older } else { &[] };
        older.iter().chain(newer)
    }

    /// The events of one connection still held, oldest first: its flight recorder. The newest `n` of them are
    /// `of(connection).rev().take(n)`. Walks the whole ring, one cache line per event, so ask when somebody
    /// wants to see them rather than at every disconnect.
    pub fn of(&self, connection: u64) -> impl DoubleEndedIterator<Item = &Event> + Clone {
        self.iter()
            .filter(move |event| event.connection() == connection)
    }

    /// How many events were recorded since the ring was made.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// How many of them were overwritten by newer ones.
    #[must_use]
    pub fn overwritten(&self) -> u64 {
        self.recorded.saturating_sub(self.slots.len() as u64)
    }

    /// How many events the ring holds at most; 0 when it is off.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of memory the events occupy.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Every slot holds an event, so the next one overwrites the oldest.
    fn overwrites(&self) -> bool {
        self.recorded >= self.slots.len() as u64
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("capacity", &self.capacity())
            .field("recorded", &self.recorded)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Kind;

    fn filled(capacity: usize, events: u64) -> Ring {
        let mut ring = Ring::with_capacity(capacity);
        for index in 0..events {
            ring.record(Event::handler_timer_fired(index * 10, index % 3, index));
        }
        ring
    }

    #[test]
    fn capacity_is_rounded_up_and_limited() {
        for (asked, given) in [(0, 0), (1, 1), (2, 2), (3, 4), (1000, 1024), (1024, 1024)] {
            let ring = Ring::with_capacity(asked);
            assert_eq!((ring.capacity(), ring.memory_bytes()), (given, given * 128));
        }
        assert_eq!(
            Ring::with_capacity(usize::MAX).capacity(),
            Ring::MAX_CAPACITY
        );
    }

    #[test]
    fn keeps_the_newest_oldest_first_at_every_fill() {
        for capacity in [1, 2, 4, 8] {
            for events in 0..=3 * capacity as u64 + 1 {
                let ring = filled(capacity, events);
                let kept: Vec<u64> = ring.iter().map(Event::value).collect();
                let expected: Vec<u64> = (events.saturating_sub(capacity as u64)..events).collect();
                assert_eq!(kept, expected, "{capacity} {events}");
                assert!(ring.iter().all(|event| event.sequence() == event.value()));
                assert_eq!(
                    (ring.recorded(), ring.overwritten()),
                    (events, events - kept.len() as u64)
                );
                assert!(
                    ring.iter()
                        .rev()
                        .map(Event::value)
                        .eq(kept.into_iter().rev())
                );
            }
        }
    }

    #[test]
    fn without_capacity_nothing_is_recorded() {
        let ring = filled(0, 5);
        assert_eq!(
            (ring.recorded(), ring.overwritten(), ring.memory_bytes()),
            (0, 0, 0)
        );
        assert_eq!(ring.iter().count(), 0);
    }

    #[test]
    fn a_connection_sees_its_own_events_only() {
        let ring = filled(8, 20);
        let own: Vec<u64> = ring.of(1).map(Event::value).collect();
        assert_eq!(own, [13, 16, 19]);
        assert_eq!(
            ring.of(1)
                .rev()
                .take(2)
                .map(Event::value)
                .collect::<Vec<_>>(),
            [19, 16]
        );
        assert_eq!(ring.of(99).count(), 0);
    }

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let mut ring = Ring::with_capacity(4);
        ring.record(Event::closed_cleanly(1, 2));
        let event = Event::close_received(123, 456, Some(1001), "going away");
        ring.record(event);
        assert_eq!(ring.iter().last(), Some(&event.with_sequence(1)));
        assert_eq!(
            ring.iter().next().map(Event::kind),
            Some(Kind::ClosedCleanly)
        );
    }
}
