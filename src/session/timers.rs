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
}

impl Timers {
    /// Arms `timer`, anew if it was armed.
    pub(crate) fn set(&mut self, timer: TimerId, at: Time) {
        self.cancel(timer);
        self.0.get_or_insert_default().list.push((timer, at));
    }

    /// True if it was armed.
    pub(crate) fn cancel(&mut self, timer: TimerId) -> bool {
        let Some(armed) = &mut self.0 else {
            return false;
        };
        let before = armed.list.len();
        armed.list.retain(|(armed, _)| *armed != timer);
        armed.list.len() < before
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
        let list = &mut self.0.as_mut()?.list;
        let (_, index) = list.iter().enumerate().filter_map(due).min()?;
        Some(list.remove(index).0)
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
