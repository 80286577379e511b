//! When to look at which connection again.
//!
//! Lazy: a connection has at most one entry that counts, and moving its deadline away costs nothing
//! here. The entry fires at the old time, the connection says when to look again, and is entered
//! anew. So receiving a message never touches this (pitfall 29). An entry that an earlier one has
//! replaced stays until its time, or until there are too many of these.

use crate::session::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem;

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, u64)>>,
}

impl Timers {
    /// Looks at the connection with `id` at `time`.
    pub(super) fn arm(&mut self, time: Time, id: u64) {
        self.heap.push(Reverse((time, id)));
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes an entry that is due.
    pub(super) fn take_due(&mut self, now: Time) -> Option<(Time, u64)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Throws out what does not count, if there is more than a few for each of so many connections.
    /// It costs no more than a few comparisons for each entry that was made since the last time.
    pub(super) fn tidy(&mut self, connections: usize, counts: impl Fn(Time, u64) -> bool) {
        if self.heap.len() <= 64 + 4 * connections {
            return;
        }
        let mut entries = mem::take(&mut self.heap).into_vec();
        entries.retain(|Reverse((time, id))| counts(*time, *id));
        // The same moment may have been entered again while an earlier one counted.
        entries.sort_unstable();
        entries.dedup();
        self.heap = entries.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(milliseconds: u64) -> Time {
        Time::ZERO.after(Duration::from_millis(milliseconds))
    }

    /// A deadline far away, and again and again a timer before it.
    #[test]
    fn replaced_entries_do_not_pile_up() {
        let mut timers = Timers::default();
        let far = at(1_000_000);
        let mut most = 0;
        timers.arm(far, 1);
        for tick in 0..10_000 {
            timers.arm(at(tick), 1);
            assert_eq!(timers.take_due(at(tick)), Some((at(tick), 1)));
            timers.arm(far, 1);
            timers.tidy(1, |time, id| (time, id) == (far, 1));
            most = most.max(timers.heap.len());
        }
        assert!(most < 100, "{most}");
        assert_eq!(timers.next(), Some(far));
    }

    #[test]
    fn what_counts_stays_and_in_order() {
        let mut timers = Timers::default();
        for id in (0..1000).rev() {
            timers.arm(at(id), id);
        }
        timers.tidy(1, |_, id| id % 10 == 3);
        for id in (3..1000).step_by(10) {
            assert_eq!(timers.take_due(at(1000)), Some((at(id), id)));
        }
        assert_eq!(timers.take_due(at(1000)), None);
    }
}
