//! Waiting for news: asleep in the kernel, or awake and asking again and again.
//!
//! A turn begins here; what the poll has said then goes to [`connection`](super::connection).

use super::kernel::Timer;
use super::system::Clock;
use super::{ALARM, Reactor};
use crate::session::Time;
use mio::Registry;
use std::io;
use std::time::Duration;

/// How a reactor waits when there is nothing to do; set with
/// [`ReactorBuilder::polling`](crate::ReactorBuilder::polling).
///
/// A thread that sleeps has to be woken when a message arrives, which takes longer than all that this
/// crate does with the message: a few microseconds, and tens of them where the core has gone to sleep
/// too. Over loopback an echo of 128 bytes comes back in 8 µs to a reactor that is awake, and in 17
/// to one that sleeps.
///
/// One that stays awake asks the kernel (`epoll_wait` with no timeout, some tenths of a microsecond
/// each) until there is news, and pays for it with its core: while it spins it takes all of it, whether
/// messages come or not, and keeps the core from its saving states. Only do that on a core that nobody
/// else needs; [`ReactorBuilder::pin_to`](crate::ReactorBuilder::pin_to) takes one. With fewer cores
/// than busy threads it makes everything slower, this reactor too.
///
/// In all modes timers, commands from other threads and shutdown come in their time, and a message
/// costs the same once it was noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// Sleeps until something happens. An idle reactor costs nothing.
    #[default]
    Block,
    /// Stays awake for this time after the last news, be it from a socket or from another thread,
    /// and then sleeps. A reactor without news costs nothing; one whose news is never further apart
    /// than this time takes a whole core. Timers are not news, so what they send is answered to a
    /// reactor that may be asleep. A hundred microseconds suit a peer in the same building.
    SpinThenBlock(Duration),
    /// Never sleeps: one core for as long as the reactor runs, idle or not,
    /// [`Reactor::turn`](super::Reactor::turn) with a timeout included.
    Busy,
}

/// What a reactor knows of its waiting.
pub(super) struct Vigil {
    pub(super) polling: Polling,
    /// The beginning of the last turn that had news; `None` before the first.
    pub(super) last_news: Option<Time>,
    alarm: Alarm,
}

impl Vigil {
    pub(super) fn new(polling: Polling, registry: &Registry) -> Self {
        Self {
            polling,
            last_news: None,
            alarm: Alarm::new(registry),
        }
    }

    /// Must it be known what time it is before a wait that nobody limits?
    pub(super) fn needs_time(&self) -> bool {
        self.alarm.timer.is_none()
    }

    /// The poll has reported the alarm.
    pub(super) fn alarm_rang(&mut self) {
        self.alarm.rang();
    }

    /// Until when to stay awake from `now` on, or at most until `due`, when something is to be done
    /// anyway. `None`: for ever. A time that is past: not at all.
    fn awake_until(&self, due: Option<Time>) -> Option<Time> {
        let end = match self.polling {
            Polling::Busy => return due,
            Polling::Block => Time::ZERO,
            Polling::SpinThenBlock(time) => self
                .last_news
                .map_or(Time::ZERO, |last_news| last_news.after(time)),
        };
        Some(due.map_or(end, |due| due.min(end)))
    }
}

/// Ends a wait when something is due. The poll could be told how long to wait, but then each wait would set
/// a timer and take it back, some tenths of a microsecond, and would take up to a millisecond too long.
/// Instead there is one timer for all of them, set anew only if something is due before it ends, or when it
/// has ended: as deadlines mostly move away, that is seldom.
struct Alarm {
    /// Not everywhere.
    timer: Option<Timer>,
    /// When it ends, or has ended and the poll has not said so.
    rings: Option<Time>,
}

impl Alarm {
    /// Its token is [`ALARM`].
    fn new(registry: &Registry) -> Self {
        Self {
            timer: Timer::new(registry, ALARM).ok(),
            rings: None,
        }
    }

    /// The poll has reported it. That something is due now is for the clock to say, which may be on another
    /// core than the timer was, and a little behind: then it is set again.
    fn rang(&mut self) {
        self.rings = None;
    }

    /// Rings at `due` or before. False if it cannot.
    fn set(&mut self, due: Time, now: Time, clock: &Clock) -> bool {
        let Some(timer) = &self.timer else {
            return false;
        };
        if self.rings.is_none_or(|rings| rings > due || rings <= now) {
            self.rings = clock.set(timer, due).then_some(due);
        }
        self.rings.is_some()
    }
}

impl Reactor {
    /// Waits for news, at most until something else is due, or for `limit`.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let due = self.next_due();
        let mut now = self.shared.turn.now;
        let is_due = |now: Time| due.is_some_and(|due| due <= now);
        if limit == Some(Duration::ZERO) || is_due(now) {
            // What does not wait need not stay awake for it.
            return self.poll.poll(&mut self.events, Some(Duration::ZERO));
        }
        if self.vigil.polling == Polling::Block {
            return self.sleep(due, now, limit);
        }
        let clock = &self.shared.turn.clock;
        now = clock.now();
        let limit = limit.map(|limit| now.after(limit));
        let end = self.vigil.awake_until(due.into_iter().chain(limit).min());
        let mut has_asked = false;
        while end.is_none_or(|end| now < end) {
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                return Ok(());
            }
            has_asked = true;
            now = clock.now();
        }
        if !is_due(now) && limit.is_none_or(|limit| now < limit) {
            return self.sleep(due, now, limit.map(|limit| limit.since(now)));
        }
        // Nothing is asked again that was only just asked. But once it is: nobody is taken for silent who
        // had no chance to be heard.
        if has_asked {
            return Ok(());
        }
        self.poll.poll(&mut self.events, Some(Duration::ZERO))
    }

    /// Sleeps until there is news, something is due, or `limit` has passed.
    fn sleep(&mut self, due: Option<Time>, now: Time, limit: Option<Duration>) -> io::Result<()> {
        let clock = &self.shared.turn.clock;
        let timeout = match due {
            Some(due) if !self.vigil.alarm.set(due, now, clock) => {
                let wait = due.since(now);
                Some(limit.map_or(wait, |limit| limit.min(wait)))
            }
            _ => limit,
        };
        self.poll.poll(&mut self.events, timeout)
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;
    use mio::event::Event;
    use mio::{Events, Poll};
    use std::time::Instant;

    struct Bench {
        poll: Poll,
        alarm: Alarm,
        clock: Clock,
    }

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(3600);
    const PATIENCE: Duration = Duration::from_secs(10);

    impl Bench {
        fn new() -> Self {
            let poll = Poll::new().expect("a poll");
            let alarm = Alarm::new(poll.registry());
            let clock = Clock::starting_at(Instant::now());
            Self { poll, alarm, clock }
        }

        fn set(&mut self, due: Time) {
            assert!(self.alarm.set(due, self.clock.now(), &self.clock));
        }

        /// Does the alarm ring, in this time?
        fn rings(&mut self, within: Duration) -> bool {
            let mut events = Events::with_capacity(4);
            self.poll.poll(&mut events, Some(within)).expect("a poll");
            let tokens: Vec<_> = events.iter().map(Event::token).collect();
            assert!(tokens.iter().all(|token| *token == ALARM));
            if !tokens.is_empty() {
                self.alarm.rang();
            }
            !tokens.is_empty()
        }
    }

    #[test]
    fn a_wait_ends_when_something_is_due_with_an_alarm_and_without() {
        for without in [false, true] {
            let mut reactor = Reactor::new().expect("a reactor");
            if without {
                reactor.vigil.alarm.timer = None;
            }
            for limit in [None, Some(LATE)] {
                let due = reactor.shared.turn.clock.now().after(SOON);
                reactor.shared.timers.arm(due, 0);
                reactor.turn(limit).expect("a turn");
                assert!(reactor.shared.turn.now >= due);
                assert_eq!(reactor.next_due(), None, "nobody's deadline is done with");
            }
        }
    }

    /// It was made a while ago, and does not know yet that something has come due since.
    #[test]
    fn the_poll_is_asked_in_every_turn() {
        let spin = Polling::SpinThenBlock(SOON);
        for polling in [Polling::Block, Polling::Busy, spin] {
            for limit in [None, Some(SOON)] {
                let builder = Reactor::builder().polling(polling);
                let mut reactor = builder.build().expect("a reactor");
                let due = Time::from_nanoseconds(1);
                reactor.shared.timers.arm(due, 0);
                assert!(reactor.shared.turn.now < due);
                reactor.remote().shutdown(SOON).expect("it is there");
                reactor.turn(limit).expect("a turn");
                assert!(reactor.shared.is_shutting_down(), "{polling:?}");
            }
        }
    }

    #[test]
    fn it_rings_when_something_is_due_and_not_before() {
        let mut bench = Bench::new();
        let due = bench.clock.now().after(SOON);
        bench.set(due);
        assert!(bench.rings(PATIENCE));
        assert!(bench.clock.now() >= due);
        assert!(!bench.rings(Duration::ZERO), "once");
    }

    #[test]
    fn what_is_past_rings_at_once() {
        let mut bench = Bench::new();
        bench.set(Time::ZERO);
        assert!(bench.rings(PATIENCE));
    }

    /// As if the clock were behind the timer.
    #[test]
    fn what_is_still_not_due_when_it_rings_is_waited_for_again() {
        let mut bench = Bench::new();
        let due = bench.clock.now().after(SOON);
        for _ in 0..3 {
            assert!(bench.alarm.set(due, Time::ZERO, &bench.clock));
            assert!(bench.rings(PATIENCE));
        }
    }

    #[test]
    fn an_earlier_time_takes_the_place_of_a_later_one() {
        let mut bench = Bench::new();
        bench.set(Time::ZERO.after(LATE));
        bench.set(bench.clock.now().after(SOON));
        assert!(bench.rings(PATIENCE));
    }

    #[test]
    fn a_deadline_that_moves_away_costs_nothing_until_its_former_time() {
        let mut bench = Bench::new();
        let due = bench.clock.now().after(SOON);
        bench.set(due);
        // Not now, which may be later.
        assert!(bench.alarm.set(due.after(LATE), Time::ZERO, &bench.clock));
        assert_eq!(bench.alarm.rings, Some(due));
        assert!(bench.rings(PATIENCE));
        bench.set(due.after(LATE));
        assert_eq!(bench.alarm.rings, Some(due.after(LATE)));
    }

    #[test]
    fn one_that_has_ended_unheard_is_set_anew_and_rings_no_more_for_the_former_time() {
        let mut bench = Bench::new();
        let due = bench.clock.now();
        bench.set(due);
        bench.set(due.after(LATE));
        assert!(!bench.rings(SOON));
        bench.set(bench.clock.now().after(SOON));
        assert!(bench.rings(PATIENCE));
    }
}
