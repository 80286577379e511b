//! Keeps the newest events, whosever they are: for frames, which come by the million.
//!
//! One of the two stores of [`super::ring`]; the other is [`super::fair`].

use super::event::Event;

/// A ring that overwrites its oldest event.
pub(super) struct Newest {
    /// Reserved once, touched as it fills, and never longer than `capacity`.
    events: Vec<Event>,
    /// A power of two, or 0.
    capacity: usize,
    /// Events recorded so far.
    recorded: u64,
}

impl Newest {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        debug_assert!(capacity == 0 || capacity.is_power_of_two());
        Self {
            events: Vec::with_capacity(capacity),
            capacity,
            recorded: 0,
        }
    }

    /// The place for the next event, still with what it is to overwrite; `None` if there are no places. Never
    /// allocates.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<&mut Event> {
        // The mask of an empty ring is all ones, but its `recorded` stays 0: so there is neither a
        // division nor a way to panic.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the mask keeps the low bits only"
        )]
        let index = self.recorded as usize & self.capacity.wrapping_sub(1);
        if index >= self.events.len() {
            self.lengthen();
        }
        let place = self.events.get_mut(index)?;
        self.recorded += 1;
        Some(place)
    }

    /// The first lap.
    #[cold]
    fn lengthen(&mut self) {
        if self.capacity > 0 {
            self.events.push(Event::EMPTY);
        }
    }

    /// What is held, in no order.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn overwritten(&self) -> u64 {
        self.recorded - self.events.len() as u64
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.events.capacity() * size_of::<Event>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_at_every_fill() {
        for capacity in [0, 1, 2, 4, 8] {
            for events in 0..=3 * capacity as u64 + 1 {
                let mut newest = Newest::with_capacity(capacity);
                for index in 0..events {
                    if let Some(place) = newest.next() {
                        *place = Event::handler_timer_fired(0, 0, index);
                    }
                }
                let mut kept: Vec<u64> = newest.events().iter().map(Event::value).collect();
                kept.sort_unstable();
                let expected: Vec<u64> = (events.saturating_sub(capacity as u64)..events).collect();
                assert_eq!(kept, expected, "{capacity} {events}");
                if capacity > 0 {
                    assert_eq!(newest.overwritten(), events - kept.len() as u64);
                }
                assert_eq!(newest.memory_bytes(), capacity * 128);
            }
        }
    }
}
