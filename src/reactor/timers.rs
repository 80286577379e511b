//! When to look at which connection again.
//!
//! Lazy: a connection has at most one entry that counts, and moving its deadline away costs nothing
//! here. The entry fires at the old time, the connection says when to look again, and is entered
//! anew. So receiving a message never touches this (pitfall 29).

use crate::session::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
}
