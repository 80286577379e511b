//! Waiting for news: asleep in the kernel, or awake and asking again and again.
//!
//! A turn begins here; what the poll has said then goes to [`connection`](super::connection).

use super::Reactor;
use crate::session::Time;
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
#[derive(Default)]
pub(super) struct Vigil {
    pub(super) polling: Polling,
    /// The beginning of the last turn that had news; `None` before the first.
    pub(super) last_news: Option<Time>,
}

impl Vigil {
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

impl Reactor {
    /// Waits for news, at most until something else is due, or for `limit`.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let timeout = self.poll_timeout(limit);
        // What does not wait need not stay awake for it.
        if self.vigil.polling == Polling::Block || timeout == Some(Duration::ZERO) {
            return self.poll.poll(&mut self.events, timeout);
        }
        let clock = &self.shared.turn.clock;
        let mut now = clock.now();
        let due = timeout.map(|timeout| now.after(timeout));
        let end = self.vigil.awake_until(due);
        while end.is_none_or(|end| now < end) {
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                return Ok(());
            }
            now = clock.now();
        }
        // Nothing is asked again that was only just asked.
        match due.map(|due| due.since(now)) {
            Some(Duration::ZERO) => Ok(()),
            rest => self.poll.poll(&mut self.events, rest),
        }
    }
}
