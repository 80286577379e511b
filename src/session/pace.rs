//! Even pacing of what is sent, for servers that count frames: one [`Pacer`] for one connection or for
//! several of a reactor.
//!
//! Each frame has a moment from which on it may leave, an interval after the last one's (the generic
//! cell rate algorithm, with the burst as its tolerance). A connection asks for the moment of one frame
//! at a time, the next to leave, so that connections which share a pacer take turns. What waits lies in
//! the connection's [`aside`](super::aside).

use super::Time;
use super::backlog::{Backlog, Entry, Waiting};
use super::life::{Life, Stage};
use super::outbound::Output;
use crate::error::{PolicyError, SendError};
use crate::protocol::close::CloseCode;
use crate::protocol::frame::OpCode;
use crate::trace::event::Event;
use crate::trace::kind::Kind;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Spreads what is sent evenly over time: so many frames in a period, and no more than a stated burst
/// at once. Clones share one pace, and so do the connections whose requests have them; all of them
/// belong to one reactor.
///
/// Every frame counts, pings, pongs and the Close frame too, and each fragment of a message; only the
/// opening handshake does not. What may not leave yet waits in its connection, within
/// [`Request::max_queued`](crate::Request::max_queued), in order. Pings and pongs go ahead of messages,
/// and of pongs only the newest waits. A Close frame follows what was sent before it without waiting for
/// its own turn, at the latest when the close timeout has passed; what waits then is dropped. So it is
/// when the connection is lost.
///
/// ```
/// use std::time::Duration;
/// use websockex::{Pacer, Request};
///
/// # fn main() -> Result<(), websockex::Error> {
/// // One message every 200 ms, on both connections together.
/// let pacer = Pacer::new(5, Duration::from_secs(1))?;
/// let trades = Request::new("wss://stream.example.com/trades")?.pace(pacer.clone());
/// let orders = Request::new("wss://stream.example.com/orders")?.pace(pacer);
/// # let _ = (trades, orders);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pacer(Arc<Pace>);

/// Nanoseconds by which a timer may be late without that being anybody's fault: the poll counts in
/// milliseconds.
const GRAIN: u64 = 1_200_000;

struct Pace {
    /// Nanoseconds between two frames.
    interval: u64,
    /// How much earlier than evenly a frame may leave.
    tolerance: u64,
    /// When the next frame that asks would leave, evenly paced: nanoseconds of the reactor's time.
    next: AtomicU64,
    /// When the next frame would leave, evenly paced after those that have left.
    left: AtomicU64,
    /// The reactor whose time that is; 0 for none yet.
    reactor: AtomicU64,
}

impl Pacer {
    /// At most `frames` in each `period`, one at a time.
    ///
    /// # Errors
    /// [`Error::Policy`](crate::Error::Policy): a zero, or so many frames that nothing is between them.
    pub fn new(frames: u32, period: Duration) -> Result<Self, PolicyError> {
        Self::with_burst(frames, period, 1)
    }

    /// Likewise, but after a rest `burst` frames may leave at once: in a period that begins with one,
    /// as many more leave, less one.
    ///
    /// # Errors
    /// As [`new`](Self::new), and for a burst of zero.
    pub fn with_burst(frames: u32, period: Duration, burst: u32) -> Result<Self, PolicyError> {
        if frames == 0 || burst == 0 {
            return Err(PolicyError::Zero("what a pacer lets through"));
        }
        let interval = u64::try_from((period / frames).as_nanos()).unwrap_or(u64::MAX);
        if interval == 0 {
            return Err(PolicyError::Zero("the time between two frames"));
        }
        Ok(Self(Arc::new(Pace {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst) - 1),
            next: AtomicU64::new(0),
            left: AtomicU64::new(0),
            reactor: AtomicU64::new(0),
        })))
    }

    /// Is this the reactor that it belongs to? The first that asks is.
    pub(crate) fn belongs_to(&self, reactor: u64) -> bool {
        let order = Ordering::Relaxed;
        let owner = self.0.reactor.compare_exchange(0, reactor, order, order);
        owner.is_ok() || owner == Err(reactor)
    }

    /// Takes the next free moment: the frame that asks may leave from then on. Only the thread of its
    /// reactor asks.
    pub(super) fn reserve(&self, now: Time) -> Time {
        let Pace {
            interval,
            tolerance,
            next,
            ..
        } = &*self.0;
        let even = next.load(Ordering::Relaxed);
        let base = even.max(now.nanoseconds());
        next.store(base.saturating_add(*interval), Ordering::Relaxed);
        let at = even.saturating_sub(*tolerance);
        Time::ZERO.after(Duration::from_nanos(at)).max(now)
    }

    /// Does a frame leave, whose moment has come? Not if that was some time ago and those that were
    /// held up with it would leave all at once: then it asks for another moment.
    fn leave(&self, now: Time) -> bool {
        let Pace {
            interval,
            tolerance,
            next,
            left,
            ..
        } = &*self.0;
        let even = left.load(Ordering::Relaxed);
        // No timer is exact: half an interval makes up for that, once, and for a short one the grain of
        // the poll's.
        let slack = tolerance.saturating_add((interval / 2).max(GRAIN));
        if even.saturating_sub(slack) > now.nanoseconds() {
            next.fetch_max(even, Ordering::Relaxed);
            return false;
        }
        self.count(now);
        true
    }

    /// Counts a frame that leaves.
    fn count(&self, now: Time) {
        let Pace { interval, left, .. } = &*self.0;
        let base = left.load(Ordering::Relaxed).max(now.nanoseconds());
        left.store(base.saturating_add(*interval), Ordering::Relaxed);
    }
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer")
            .field("interval", &Duration::from_nanos(self.0.interval))
            .field("tolerance", &Duration::from_nanos(self.0.tolerance))
            .finish_non_exhaustive()
    }
}

/// What waits for its pace.
#[derive(Default)]
pub(super) struct Paced {
    pub(super) backlog: Backlog,
    /// When the next frame may leave; nothing waits for its pace without.
    departure: Option<Time>,
    /// The payload of a Close frame that follows.
    close: Option<Box<[u8]>>,
}

impl Paced {
    pub(super) fn is_empty(&self) -> bool {
        self.departure.is_none() && self.close.is_none() && self.backlog.is_empty()
    }
}

impl Life {
    /// Sends now or, if that is too early, when its time has come. The caller has found that the
    /// connection is open and paced, and that there is room but for what waits here.
    #[cold]
    pub(super) fn send_paced(
        &mut self,
        output: &mut Output<'_>,
        entry: Entry,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let now = output.now;
        if self.take_turn(now) {
            self.write_entry(output, entry, payload);
            return Ok(());
        }
        let waiting = self.waiting_bytes();
        let queued = self.queued + output.frames.len() + waiting;
        if queued.saturating_add(Waiting::size(payload)) > self.target.options.max_queued {
            let opcode = entry.opcode();
            return Err(self.refuse_full(output, queued, opcode, payload.len()));
        }
        let aside = self.aside();
        aside.entered += 1;
        let waiting = Waiting::new(aside.entered, entry, payload);
        if entry.is_control() {
            aside.paced.backlog.push_ahead(waiting);
        } else {
            aside.paced.backlog.push(waiting);
        }
        self.handle_queued(output, self.queued);
        Ok(())
    }

    /// May a frame leave at once? Otherwise the moment for the next one is known from here on.
    pub(super) fn take_turn(&mut self, now: Time) -> bool {
        if self
            .aside
            .as_ref()
            .is_some_and(|aside| !aside.paced.is_empty())
        {
            return false;
        }
        let mut at = self.reserve(now);
        if at <= now {
            if self.leave(now) {
                return true;
            }
            at = self.reserve(now);
        }
        self.aside().paced.departure = Some(at);
        false
    }

    fn leave(&self, now: Time) -> bool {
        let pacer = self.target.options.pacer.as_ref();
        pacer.is_none_or(|pacer| pacer.leave(now))
    }

    fn reserve(&self, now: Time) -> Time {
        let pacer = self.target.options.pacer.as_ref();
        pacer.map_or(now, |pacer| pacer.reserve(now))
    }

    /// A pong has its turn at once, or waits for it; it replaces one that waits.
    #[cold]
    pub(super) fn pace_pong(&mut self, output: &mut Output<'_>, payload: &[u8]) {
        let behind = self.queued > 0;
        if behind && !self.may_pong() || !self.take_turn(output.now) {
            self.hold_pong(payload);
        } else if behind {
            self.hold_pong(payload);
            self.write_pong(output);
        } else {
            self.write_frame(output, None, true, OpCode::Pong, payload);
        }
    }

    /// When something that is paced may leave.
    pub(super) fn departure(&self) -> Option<Time> {
        let departure = self.aside.as_ref()?.paced.departure;
        departure.filter(|_| matches!(self.stage, Stage::Open | Stage::Closing))
    }

    /// What waited for its pace, and whose time has come, leaves.
    pub(super) fn depart(&mut self, output: &mut Output<'_>) {
        while self.departure().is_some_and(|at| at <= output.now) {
            // The peer waits for a pong; but one more for a socket that takes nothing helps nobody.
            let pong = self.may_pong() && self.has_pong();
            let paced = &mut self.aside().paced;
            if (pong || !paced.backlog.is_empty()) && !self.leave(output.now) {
                let at = self.reserve(output.now);
                self.aside().paced.departure = Some(at);
                continue;
            }
            self.aside().paced.departure = None;
            if pong {
                self.write_pong(output);
            } else if let Some(waiting) = self.aside().paced.backlog.pop() {
                self.aside().note(&waiting, Ok(()));
                let (entry, payload) = waiting.into_parts();
                self.write_entry(output, entry, &payload);
            }
            let more = !self.aside().paced.backlog.is_empty() || self.may_pong() && self.has_pong();
            if more {
                let at = self.reserve(output.now);
                self.aside().paced.departure = Some(at);
            } else {
                self.send_waiting_close(output);
            }
        }
        self.tidy();
    }

    /// A Close frame goes behind what waits for its pace; false if nothing does.
    pub(super) fn defer_close(&mut self, payload: &[u8]) -> bool {
        match &mut self.aside {
            Some(aside) if !aside.paced.backlog.is_empty() => {
                aside.paced.close = Some(payload.into());
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_close_waiting(&self) -> bool {
        let aside = self.aside.as_ref();
        aside.is_some_and(|aside| aside.paced.close.is_some())
    }

    /// The Close frame that waited goes now, and its answer is awaited; false if there is none.
    pub(super) fn send_waiting_close(&mut self, output: &mut Output<'_>) -> bool {
        let close = self
            .aside
            .as_mut()
            .and_then(|aside| aside.paced.close.take());
        let Some(payload) = close else {
            return false;
        };
        self.drop_paced(output);
        let (code, text) = match &payload[..] {
            [high, low, text @ ..] => (Some(u16::from_be_bytes([*high, *low])), text),
            _ => (None, &[][..]),
        };
        let text = std::str::from_utf8(text).unwrap_or_default();
        self.write_close(output, code.map(CloseCode::new), text, &payload);
        self.deadline = Some(output.now.after(self.target.options.close_timeout));
        true
    }

    /// Counts a frame that leaves whatever its pace.
    pub(super) fn count_unpaced(&mut self, now: Time) {
        if let Some(pacer) = &self.target.options.pacer {
            pacer.reserve(now);
            pacer.count(now);
        }
    }

    /// What waits for its pace will not leave any more.
    pub(crate) fn drop_paced(&mut self, output: &mut Output<'_>) {
        let Some(aside) = &mut self.aside else {
            return;
        };
        let mut paced = std::mem::take(&mut aside.paced);
        let mut count = 0;
        while let Some(waiting) = paced.backlog.pop() {
            aside.note(&waiting, Err(SendError::Gone));
            count += 1;
        }
        self.tidy();
        if count > 0 {
            output.tally.drops += count;
            self.record(output, Kind::Abandoned, |time, id| {
                Event::abandoned(time, id, count, "paced frames")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(1000);

    fn at(milliseconds: u64) -> Time {
        Time::ZERO.after(Duration::from_millis(milliseconds))
    }

    #[test]
    fn frames_leave_evenly() {
        let pacer = Pacer::new(5, PERIOD).unwrap();
        let clone = pacer.clone();
        assert_eq!(pacer.reserve(at(50)), at(50));
        assert_eq!(clone.reserve(at(50)), at(250));
        assert_eq!(pacer.reserve(at(60)), at(450));
        // A rest saves nothing up.
        assert_eq!(pacer.reserve(at(5000)), at(5000));
        assert_eq!(pacer.reserve(at(5000)), at(5200));
    }

    #[test]
    fn a_burst_is_allowed_after_a_rest_only() {
        let pacer = Pacer::with_burst(5, PERIOD, 3).unwrap();
        for _ in 0..3 {
            assert_eq!(pacer.reserve(at(100)), at(100));
        }
        assert_eq!(pacer.reserve(at(100)), at(300));
        assert_eq!(pacer.reserve(at(300)), at(500));
        // A shorter rest, a smaller burst.
        assert_eq!(pacer.reserve(at(900)), at(900));
        assert_eq!(pacer.reserve(at(900)), at(900));
        assert_eq!(pacer.reserve(at(900)), at(1100));
    }

    #[test]
    fn what_cannot_pace_is_refused() {
        for (frames, period, burst) in [
            (0, PERIOD, 1),
            (1, PERIOD, 0),
            (1, Duration::ZERO, 1),
            (u32::MAX, Duration::from_nanos(7), 1),
        ] {
            assert!(Pacer::with_burst(frames, period, burst).is_err());
        }
        let slow = Pacer::with_burst(1, Duration::MAX, u32::MAX).unwrap();
        assert_eq!(slow.reserve(at(1)), at(1));
    }

    #[test]
    fn it_belongs_to_the_first_reactor_that_asks() {
        let pacer = Pacer::new(1, PERIOD).unwrap();
        assert!(pacer.belongs_to(7) && pacer.clone().belongs_to(7));
        assert!(!pacer.belongs_to(8));
    }
}
