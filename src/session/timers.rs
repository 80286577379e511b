//! The timers that a handler sets on its own connection.

use super::Time;

/// A handler's own name for one of its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(pub u64);

/// A handful of timers; a list serves better than a tree.
#[derive(Default)]
pub(crate) struct Timers {
    armed: Vec<(TimerId, Time)>,
}

impl Timers {
    /// Arms `timer`, anew if it was armed.
    pub(crate) fn set(&mut self, timer: TimerId, at: Time) {
        self.cancel(timer);
        self.armed.push((timer, at));
    }

    /// True if it was armed.
    pub(crate) fn cancel(&mut self, timer: TimerId) -> bool {
        let before = self.armed.len();
        self.armed.retain(|(armed, _)| *armed != timer);
        self.armed.len() < before
    }

    /// How many are armed.
    pub(crate) fn armed(&self) -> usize {
        self.armed.len()
    }

    /// When the next one is due.
    #[inline]
    pub(crate) fn next(&self) -> Option<Time> {
        self.armed.iter().map(|(_, at)| *at).min()
    }

    /// Takes one that is due, the earliest first.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<TimerId> {
        let due =
            |(index, (_, at)): (usize, &(TimerId, Time))| (*at <= now).then_some((*at, index));
        let (_, index) = self.armed.iter().enumerate().filter_map(due).min()?;
        Some(self.armed.remove(index).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_fire_in_order_and_once() {
        let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
        let mut timers = Timers::default();
        timers.set(TimerId(1), at(3));
        timers.set(TimerId(2), at(2));
        timers.set(TimerId(3), at(2));
        timers.set(TimerId(1), at(1));
        assert!(timers.cancel(TimerId(3)));
        assert!(!timers.cancel(TimerId(3)));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.take_due(at(0)), None);
        assert_eq!(timers.take_due(at(9)), Some(TimerId(1)));
        assert_eq!(timers.take_due(at(9)), Some(TimerId(2)));
        assert_eq!(timers.take_due(at(9)), None);
        assert_eq!(timers.next(), None);
    }
}
