//! The ring: what a reactor remembers, in memory that is reserved once.
//!
//! Comes after [`super::event`]; [`super::render`] reads what it keeps. Two stores of equal capacity:
//!
//! - Lifecycle events are few and tell the story. `fair.rs` gives every connection its part, so
//!   that no busy neighbour pushes a quiet connection's events out unseen.
//! - Frame events ([`Level::Frames`] and up) come by the million. `newest.rs` keeps the newest.
//!
//! Reading merges the two in time order.

use std::fmt;
use std::iter::{FusedIterator, Rev};

use super::event::{Event, Frame, FrameHead};
use super::fair::Fair;
use super::kind::Level;
use super::newest::Newest;

/// The newest events of a reactor's connections, each connection with its fair part.
pub struct Ring {
    lifecycle: Fair,
    frames: Newest,
    /// The next event's sequence.
    recorded: u64,
    on: bool,
}

impl Ring {
    /// Most events of either sort that a ring holds: 128 MiB of them.
    pub const MAX_CAPACITY: usize = 1 << 20;

    /// A ring for `events` lifecycle events and as many frame events, rounded up to a power of two and at most
    /// [`MAX_CAPACITY`](Ring::MAX_CAPACITY). 0 switches recording off. All memory is reserved here; the
    /// operating system hands it out as the ring fills for the first time.
    #[must_use]
    pub fn with_capacity(events: usize) -> Ring {
        let capacity = match events {
            0 => 0,
            _ => events.min(Self::MAX_CAPACITY).next_power_of_two(),
        };
        Ring {
            lifecycle: Fair::with_capacity(capacity),
            frames: Newest::with_capacity(capacity),
            recorded: 0,
            on: capacity > 0,
        }
    }

    /// Records an event and gives it the next sequence. Never allocates, never fails; takes the same time however
    /// many events and connections there are.
    #[inline]
    pub fn record(&mut self, mut event: Event) {
        self.take(&mut event);
    }

    /// Likewise, and the caller's event has its sequence then.
    #[inline(always)]
    pub(super) fn take(&mut self, event: &mut Event) {
        if !self.on {
            return;
        }
        event.set_sequence(self.recorded);
        self.recorded += 1;
        if event.kind().level() == Level::Frames {
            if let Some(place) = self.frames.next() {
                *place = *event;
            }
        } else {
            self.lifecycle.record(*event);
        }
    }

    /// Records an event about a frame, as `record` does, and in place. `None` if the ring is off.
    #[inline(always)]
    pub(super) fn record_frame(
        &mut self,
        mut head: FrameHead,
        frame: &Frame<'_>,
    ) -> Option<&Event> {
        head.sequence = self.recorded;
        let place = self.frames.next()?;
        place.become_frame(head, frame);
        self.recorded += 1;
        Some(place)
    }

    /// The events still held, oldest first.
    #[must_use]
    pub fn iter(&self) -> Events<'_> {
        Events::sorted(self.lifecycle.events().iter().chain(self.frames.events()))
    }

    /// The events of one connection still held, oldest first: its flight recorder. The newest `n` of them are
    /// `of(connection).newest_first().take(n)`. Lifecycle events are found at once; frame events, if there are
    /// any, by looking at all of them.
    #[must_use]
    pub fn of(&self, connection: u64) -> Events<'_> {
        let frames = self.frames.events().iter();
        let own = frames.filter(|event| event.connection() == connection);
        Events::sorted(self.lifecycle.of(connection).chain(own))
    }

    /// A connection has ended, and no event says so.
    pub(crate) fn end(&mut self, connection: u64) {
        self.lifecycle.end(connection);
    }

    /// Likewise, without frame events: found without looking at those of others, and in order already.
    pub(crate) fn lifecycle_of(&self, connection: u64) -> impl Iterator<Item = &Event> {
        self.lifecycle.of(connection)
    }

    /// How many events were recorded since the ring was made.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// How many of them were overwritten by newer ones. Of one connection
    /// [`Events::overwritten`] tells.
    #[must_use]
    pub fn overwritten(&self) -> u64 {
        self.lifecycle.overwritten() + self.frames.overwritten()
    }

    /// Most lifecycle events of one connection that the ring holds.
    #[must_use]
    pub fn share(&self) -> usize {
        self.lifecycle.share()
    }

    /// Bytes of memory that the ring has reserved.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.lifecycle.memory_bytes() + self.frames.memory_bytes()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("recorded", &self.recorded)
            .field("overwritten", &self.overwritten())
            .finish_non_exhaustive()
    }
}

/// Events in the order they happened, oldest first.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    events: std::vec::IntoIter<&'a Event>,
}

impl<'a> Events<'a> {
    pub(crate) fn sorted(events: impl Iterator<Item = &'a Event>) -> Self {
        let mut events: Vec<&Event> = events.collect();
        events.sort_unstable_by_key(|event| event.sequence());
        Self {
            events: events.into_iter(),
        }
    }

    /// The newest first.
    pub fn newest_first(self) -> Rev<Self> {
        self.rev()
    }

    /// How many events of these connections were recorded, and overwritten since, before and between those that
    /// are left here.
    #[must_use]
    pub fn overwritten(&self) -> u64 {
        let mut events = self.events.as_slice().to_vec();
        events.sort_by_key(|event| event.connection());
        let own = events.chunk_by(|one, other| one.connection() == other.connection());
        own.map(|events| {
            let mut expected = 0;
            let missing = events.iter().map(|event| {
                // One that supervision began anew counts anew.
                let missing = event.ordinal().saturating_sub(expected);
                expected = event.ordinal() + 1;
                missing
            });
            missing.sum::<u64>()
        })
        .sum()
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = &'a Event;

    fn next(&mut self) -> Option<&'a Event> {
        self.events.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl DoubleEndedIterator for Events<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.events.next_back()
    }
}

impl ExactSizeIterator for Events<'_> {}
impl FusedIterator for Events<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Kind;

    const TEXT: Frame<'static> = Frame {
        opcode: 1,
        fin: true,
        compressed: false,
        length: 5,
        payload: b"hello",
    };

    #[test]
    fn capacity_is_rounded_up_and_limited() {
        for (asked, given) in [(0, 0), (1, 1), (2, 2), (3, 4), (1000, 1024), (1024, 1024)] {
            let mut ring = Ring::with_capacity(asked);
            for number in 0..2 * given + 1 {
                ring.record(Event::closed_cleanly(0, number as u64));
                ring.record(Event::frame_received(0, number as u64, TEXT));
            }
            assert_eq!(ring.iter().count(), 2 * given, "{asked}");
        }
        let frames_alone = 128 << 20;
        let memory = Ring::with_capacity(usize::MAX).memory_bytes();
        assert!((2 * frames_alone..4 * frames_alone).contains(&memory));
    }

    #[test]
    fn without_capacity_nothing_is_held() {
        let mut ring = Ring::with_capacity(0);
        ring.record(Event::closed_cleanly(0, 0));
        ring.record(Event::frame_received(0, 0, TEXT));
        assert_eq!((ring.recorded(), ring.iter().count()), (0, 0));
        assert_eq!(ring.of(0).count(), 0);
    }

    #[test]
    fn both_stores_come_out_as_one_story() {
        let mut ring = Ring::with_capacity(8);
        for number in 0..8 {
            ring.record(Event::connecting(number, number % 2, 1, ""));
            ring.record(Event::frame_received(number, number % 2, TEXT));
        }
        let sequences: Vec<u64> = ring.iter().map(Event::sequence).collect();
        assert_eq!(sequences, (0..16).collect::<Vec<_>>());
        let own: Vec<(u64, Kind)> = ring
            .of(1)
            .map(|event| (event.time_ns(), event.kind()))
            .collect();
        let pair = |time| [(time, Kind::Connecting), (time, Kind::FrameReceived)];
        assert_eq!(own, [1, 3, 5, 7].map(pair).concat());
        let newest: Vec<u64> = ring
            .of(1)
            .newest_first()
            .take(3)
            .map(Event::time_ns)
            .collect();
        assert_eq!(newest, [7, 7, 5]);
        assert_eq!(ring.of(99).count(), 0);
    }

    #[test]
    fn what_is_missing_is_counted() {
        let mut ring = Ring::with_capacity(4);
        ring.record(Event::connecting(0, 7, 1, "").with_ordinal(0));
        for ordinal in 1..=10 {
            ring.record(Event::frame_received(0, 7, TEXT).with_ordinal(ordinal));
            ring.record(Event::frame_received(0, 8, TEXT).with_ordinal(ordinal - 1));
        }
        // The connecting, and two frames of ten.
        let own = ring.of(7);
        assert_eq!((own.len(), own.overwritten()), (3, 8));
        assert_eq!(ring.of(8).overwritten(), 8);
        assert_eq!(ring.iter().overwritten(), 16);
        assert_eq!(ring.overwritten(), 16);
    }

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let mut ring = Ring::with_capacity(4);
        ring.record(Event::closed_cleanly(1, 2));
        let event = Event::close_received(123, 456, Some(1001), "going away").with_ordinal(9);
        ring.record(event);
        let mut expected = event;
        expected.set_sequence(1);
        assert_eq!(ring.iter().next_back(), Some(&expected));
        assert_eq!(
            ring.iter().next().map(Event::kind),
            Some(Kind::ClosedCleanly)
        );
    }
}
