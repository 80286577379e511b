//! The timers that a handler sets on its own connection.

use super::Time;

/// A handler's own name for one of its timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(pub u64);

/// A handful of timers; a list serves better than a tree. A connection that never had one pays a
/// pointer for it.
#[derive(Default)]
pub(crate) struct Timers(Option<Box<Armed>>);

#[derive(Default)]
struct Armed {
    list: Vec<(TimerId, Time)>,
    /// Timers that were armed since the clock was last read: the last so many of the list.
    fresh: usize,
}

impl Timers {
    /// Arms `timer`, anew if it was armed.
    pub(crate) fn set(&mut self, timer: TimerId, at: Time) {
        self.cancel(timer);
        let armed = self.0.get_or_insert_default();
        armed.list.push((timer, at));
        armed.fresh += 1;
    }

    /// A callback that ran from `began` to `ended` armed its timers somewhere in between: none fires
    /// before its delay has passed.
    #[inline]
    pub(crate) fn postpone(&mut self, began: Time, ended: Time) {
        if let Some(armed) = &mut self.0 {
            let first = armed.list.len() - std::mem::take(&mut armed.fresh);
            for (_, at) in &mut armed.list[first..] {
                *at = at.after(ended.since(began));
            }
        }
    }

    /// True if it was armed.
    pub(crate) fn cancel(&mut self, timer: TimerId) -> bool {
        let Some(armed) = &mut self.0 else {
            return false;
        };
        let found = armed.list.iter().position(|(armed, _)| *armed == timer);
        if let Some(index) = found {
            armed.remove(index);
        }
        found.is_some()
    }

    /// How many are armed.
    pub(crate) fn armed(&self) -> usize {
        self.list().len()
    }

    fn list(&self) -> &[(TimerId, Time)] {
        self.0.as_ref().map_or(&[], |armed| &armed.list)
    }

    /// When the next one is due.
    #[inline]
    pub(crate) fn next(&self) -> Option<Time> {
        self.list().iter().map(|(_, at)| *at).min()
    }

    /// Takes one that is due, the earliest first.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<TimerId> {
        let due =
            |(index, (_, at)): (usize, &(TimerId, Time))| (*at <= now).then_some((*at, index));
        let armed = self.0.as_mut()?;
        let (_, index) = armed.list.iter().enumerate().filter_map(due).min()?;
        Some(armed.remove(index))
    }
}

impl Armed {
    fn remove(&mut self, index: usize) -> TimerId {
        let is_fresh = index >= self.list.len() - self.fresh;
        self.fresh -= usize::from(is_fresh);
        self.list.remove(index).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_timer_fires_before_its_delay_after_the_callback_that_armed_it() {
        let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
        let mut timers = Timers::default();
        timers.set(TimerId(1), at(1));
        timers.set(TimerId(2), at(2));
        timers.set(TimerId(3), at(3));
        assert!(timers.cancel(TimerId(1)));
        timers.postpone(at(0), at(10));
        assert_eq!(timers.next(), Some(at(12)));
        // Only those that were armed in between.
        timers.set(TimerId(4), at(14));
        assert!(timers.cancel(TimerId(2)));
        timers.postpone(at(10), at(15));
        assert_eq!(timers.take_due(at(13)), Some(TimerId(3)));
        assert_eq!(timers.next(), Some(at(19)));
        timers.postpone(at(15), at(20));
        assert_eq!(timers.next(), Some(at(19)));
    }

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
