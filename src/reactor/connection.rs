//! One connection's turn: what the poll, a timer or a command said, carried out on its socket, its
//! session and its handler, and then settled: written, re-armed, published, or ended.

use super::Shared;
use super::casts::{Cast, Casts};
use super::connect::Approach;
use super::dispatch::Core;
use super::link::{Link, LinkWire};
use super::remote::HandlerCall;
use super::remote::{OwnedMessage, Written};
use super::slots::Availability;
use super::supervisor::Supervisor;
use super::system::Readiness;
use crate::error::DisconnectReason;
use crate::error::{Error, SendError};
use crate::handler::{ConnectionId, Handler, Message, Reconnect};
use crate::protocol::close::CloseFrame;
use crate::request::Request;
use crate::session::aside::Comeback;
use crate::session::backlog::Backlog;
use crate::session::outbound::Compression;
use crate::session::{Inbound, Life, Session, Stage, Target, Time, Wire};
use crate::stats::meter::ConnectionMeter;
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;
use crate::trace::event::Event as TraceEvent;
use crate::trace::kind::{Callback, Kind};
use mio::Token;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Connection {
    pub(super) core: Core,
    pub(super) link: Option<Link>,
    /// The way to the link, while it is on it or waits to be.
    pub(super) approach: Option<Box<Approach>>,
    /// Of the socket, new with each: an event for an earlier one is not taken for this one's.
    pub(super) token: Token,
    /// The entry in the timers that counts.
    pub(super) armed: Option<Time>,
    /// Who waits until a message is written, in the order of the messages.
    pub(super) unwritten: Option<Box<Waiters>>,
    pub(super) supervisor: Option<Box<Supervisor>>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsConfig>,
}

// There are very many of them, so every idle one pays for a field more. Not where debug assertions or
// tests make a socket larger.
#[cfg(not(any(test, debug_assertions)))]
const _: () = assert!(size_of::<Connection>() <= 360);

/// What outlives a connection that supervision starts anew.
pub(super) struct Legacy {
    pub(super) casts: Casts,
    held: Backlog,
    entered: u64,
    unwritten: Option<Box<Waiters>>,
}

/// Is there a connection after its turn?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Alive,
    Ended,
}

impl Connection {
    /// A connection whose first attempt begins in the next turn.
    pub(super) fn new(
        id: ConnectionId,
        request: Request,
        handler: Box<dyn Handler>,
        shared: &Shared,
    ) -> Self {
        let Target { url, options } = &request.target;
        let meter = ConnectionMeter::new(options.name.clone(), url.clone());
        let published = Availability::at_first(&request);
        let meter = Arc::new(meter);
        shared.central.slots().register(id, &meter);
        let mut life = Life::new(id.0, request.target, shared.level, shared.turn.now);
        life.level = shared.turn.trace.forced_level().unwrap_or(life.level);
        Self {
            core: Core {
                handler,
                session: Session {
                    inbound: Inbound::Nobody,
                    life,
                },
                casts: Casts::default(),
                published,
                paused: false,
                ready: false,
                opened: None,
                meter,
            },
            link: None,
            approach: None,
            token: super::NO_TOKEN,
            armed: None,
            unwritten: None,
            supervisor: None,
            #[cfg(feature = "tls")]
            tls: request.tls,
        }
    }

    pub(super) fn life(&mut self) -> &mut Life {
        &mut self.core.session.life
    }

    /// The poll reported the socket.
    pub(super) fn handle_event(&mut self, shared: &mut Shared, readiness: Readiness) {
        if readiness.token != self.token && !self.handle_racer(shared, readiness) {
            return;
        }
        if let Some(link) = &mut self.link {
            link.peer_ended |= readiness.ended;
            link.readable |= readiness.readable;
        }
        if readiness.writable && self.awaits_room() {
            self.flush(shared);
        }
        if readiness.readable {
            self.handle_readable(shared);
        }
    }

    /// A timer is due.
    pub(super) fn handle_deadline(&mut self, shared: &mut Shared) {
        // No more than were armed at first: a handler that arms one with no delay gets it next turn.
        for _ in 0..self.life().timers.armed() {
            // Another one has aborted it: it is told of that first.
            if self.life().stage == Stage::Over {
                return;
            }
            let Some(timer) = self.core.session.life.timers.take_due(shared.turn.now) else {
                break;
            };
            let (mut output, _) = shared.turn.split(None);
            self.life()
                .record(&mut output, Kind::HandlerTimerFired, |time, id| {
                    TraceEvent::handler_timer_fired(time, id, timer.0)
                });
            self.call(shared, Callback::OnTimer, |handler, cx| {
                handler.on_timer(cx, timer)
            });
        }
        if matches!(self.life().stage, Stage::Over | Stage::Ended) {
            return;
        }
        let (mut output, _) = shared.turn.split(None);
        let Session { inbound, life } = &mut self.core.session;
        let waiting = life.waiting_bytes();
        let step = life.handle_deadline(&mut output, inbound);
        if life.waiting_bytes() < waiting {
            // With this the queue may have fallen to its low-water mark.
            self.write_out(shared);
            self.flush(shared);
        }
        self.perform(shared, step);
    }

    /// The name was looked up.
    pub(super) fn handle_resolved(
        &mut self,
        shared: &mut Shared,
        number: u64,
        result: io::Result<Vec<SocketAddr>>,
    ) {
        if self
            .approach
            .as_ref()
            .is_some_and(|approach| approach.lookup == number)
        {
            let (mut output, _) = shared.turn.split(None);
            let step = self.life().handle_resolved(&mut output, result);
            self.perform(shared, step);
        }
    }

    /// Another thread sends. It was told that the connection is open; if that is no longer true,
    /// the trace says what became of the message.
    pub(super) fn send(
        &mut self,
        shared: &mut Shared,
        message: &OwnedMessage,
        written: Option<Written>,
    ) {
        let message = match message {
            OwnedMessage::Text(text) => Message::Text(text),
            OwnedMessage::Binary(bytes) => Message::Binary(bytes),
        };
        let mut result = Ok(());
        let entered = self.life().entered();
        self.with_output(shared, |life, output| {
            let (opcode, payload) = (message.opcode(), message.as_bytes());
            result = life.send(output, None, Compression::BySize, opcode, payload);
            if let Err(error) = result {
                life.note_drop(output, opcode, payload.len(), error);
            }
        });
        match (written, result) {
            (None, _) => {}
            // Who does not wait any more need not know.
            (Some(written), Err(error)) => drop(written.try_send(Err(error))),
            (Some(written), Ok(())) => {
                let number = self.life().entered();
                let waiters = self.unwritten.get_or_insert_default();
                if number == entered {
                    waiters.sent.push(written);
                } else {
                    waiters.aside.insert(number, written);
                    self.life().watch(true);
                }
            }
        }
    }

    /// Stops or resumes reading.
    pub(super) fn pause(&mut self, shared: &mut Shared, paused: bool) {
        self.with_output(shared, |life, output| life.pause(output, paused));
    }

    /// Another thread casts.
    pub(super) fn cast(&mut self, shared: &mut Shared, cast: Cast) {
        let mut wire = self.link.as_mut().map(|link| LinkWire {
            link,
            spare: &mut shared.spare,
        });
        let wire = wire.as_mut().map(|wire| wire as &mut dyn Wire);
        self.core.cast(&mut shared.turn, wire, cast);
    }

    /// Another thread looks at the handler.
    pub(super) fn with_handler(&mut self, shared: &mut Shared, call: HandlerCall) {
        self.call(shared, Callback::WithHandler, |handler, _cx| {
            call(handler);
            Ok(())
        });
    }

    /// Another handler takes over.
    pub(super) fn replace_handler(&mut self, shared: &mut Shared, handler: Box<dyn Handler>) {
        self.with_output(shared, |life, output| {
            life.record(output, Kind::HandlerReplaced, TraceEvent::handler_replaced);
        });
        let former = std::mem::replace(&mut self.core.handler, handler);
        // Its destructor is foreign code.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(former)));
    }

    /// Closes from this side.
    pub(super) fn close(&mut self, shared: &mut Shared, close: CloseFrame<'_>) {
        self.with_output(shared, |life, output| {
            // Refused only if it is closing already, or over.
            let _ = life.close(output, Some(close));
        });
    }

    /// Ends from this side, without the closing handshake.
    pub(super) fn abort(&mut self, shared: &mut Shared) {
        self.with_output(shared, Life::abort);
    }

    /// Drops the connection now, for the reason it was closing for: the shutdown has taken too long.
    pub(super) fn handle_drain_deadline(&mut self, shared: &mut Shared) {
        self.with_output(shared, Life::handle_drain_deadline);
    }

    /// Changes the trace level.
    pub(super) fn set_level(&mut self, shared: &mut Shared, level: crate::trace::Level) {
        self.with_output(shared, |life, output| life.set_level(output, level));
    }

    fn with_output(
        &mut self,
        shared: &mut Shared,
        run: impl FnOnce(&mut Life, &mut crate::session::Output<'_>),
    ) {
        let mut wire = self.link.as_mut().map(|link| LinkWire {
            link,
            spare: &mut shared.spare,
        });
        let wire = wire.as_mut().map(|wire| wire as &mut dyn Wire);
        let (mut output, _) = shared.turn.split(wire);
        run(&mut self.core.session.life, &mut output);
    }

    fn call(
        &mut self,
        shared: &mut Shared,
        callback: Callback,
        call: impl FnOnce(
            &mut dyn Handler,
            &mut crate::handler::Context<'_>,
        ) -> crate::handler::HandlerResult,
    ) {
        let mut wire = self.link.as_mut().map(|link| LinkWire {
            link,
            spare: &mut shared.spare,
        });
        let wire = wire.as_mut().map(|wire| wire as &mut dyn Wire);
        self.core.call(&mut shared.turn, wire, callback, call);
    }

    /// Does something wait for the socket to take more? Most of what the poll says of one that has news
    /// is that it still takes output.
    #[inline]
    fn awaits_room(&self) -> bool {
        let life = &self.core.session.life;
        let link = self.link.as_ref();
        link.is_some_and(Link::has_pending) || life.queued > 0 || life.high_water || life.has_pong()
    }

    /// The socket takes output again.
    fn flush(&mut self, shared: &mut Shared) {
        let Some(link) = &mut self.link else {
            return;
        };
        link.flush(&mut shared.spare);
        let (queued, handed) = (link.queued(), link.handed);
        let (mut output, _) = shared.turn.split(None);
        let life = &mut self.core.session.life;
        let low_water = life.handle_queued(&mut output, queued);
        life.handle_flushed(&mut output, handed);
        if low_water {
            self.tell_drained(shared);
        }
    }

    /// The queue has fallen to its low-water mark.
    fn tell_drained(&mut self, shared: &mut Shared) {
        if self.life().stage == Stage::Open {
            self.call(shared, Callback::OnDrained, |handler, cx| {
                handler.on_drained(cx)
            });
        }
    }

    /// Ends the turn: writes what it has sent, in one write, and draws the conclusions.
    pub(super) fn settle(&mut self, shared: &mut Shared) -> Fate {
        self.write_out(shared);
        // Again only while a proxy is told one address after the other.
        while self.life().stage == Stage::Over {
            self.finish(shared);
        }
        if self.approach.is_some() {
            self.settle_permit(shared);
        }
        let life = &self.core.session.life;
        if life.stage == Stage::Ended {
            self.drop_link(shared);
            return Fate::Ended;
        }
        self.core.publish(&shared.central);
        let life = &self.core.session.life;
        // What has arrived while reading was paused gives no new edge.
        let paused = life.paused && life.stage == Stage::Open;
        if self.core.paused && !paused && !self.core.ready {
            self.core.ready = true;
            shared.ready.push(self.core.id());
        }
        self.core.paused = paused;
        // What is due at once has the next turn, after the others had this one: a handler that arms
        // a timer without delay again and again, or a server that refuses at once, would keep it.
        let soonest = shared.turn.now.after(Duration::from_nanos(1));
        if let Some(time) = life.next_deadline().map(|time| time.max(soonest))
            && self.armed.is_none_or(|armed| time < armed)
        {
            self.armed = Some(time);
            shared.timers.arm(time, self.core.session.life.id);
        }
        Fate::Alive
    }

    /// Writes what the turn has sent so far, and draws the conclusions.
    #[inline]
    pub(super) fn write_out(&mut self, shared: &mut Shared) {
        if !self.is_silent(shared) && self.write_frames(shared) {
            self.tell_drained(shared);
            // What it sends then leaves with this turn. That the queue falls to the low mark again
            // was never reported as high.
            self.write_frames(shared);
        }
        self.handle_link_error(shared);
    }

    /// Is it open, with nothing sent in this turn and nobody waiting for what was sent before, be it to
    /// know that a pong has left? So are most, after a message.
    #[inline]
    fn is_silent(&self, shared: &Shared) -> bool {
        self.core.session.life.stage == Stage::Open
            && shared.turn.frames.is_empty()
            && !self.awaits_room()
            && self.core.session.life.may_pong()
            && self.unwritten.is_none()
    }

    /// Hands the turn's frames to the link. True if the queue has fallen to its low-water mark, which
    /// is so when what waited for its pace has left, or never will.
    fn write_frames(&mut self, shared: &mut Shared) -> bool {
        let Some(link) = &mut self.link else {
            shared.turn.frames.clear();
            return false;
        };
        if !shared.turn.frames.is_empty() {
            let mut wire = LinkWire {
                link,
                spare: &mut shared.spare,
            };
            wire.write(shared.turn.frames.as_slice());
            shared.turn.frames.clear();
        }
        let life = &mut self.core.session.life;
        let queued = link.queued();
        let mut low_water = false;
        // Also if the session knows the number already: a message that fills its pieces to the last
        // byte was counted while it was written.
        if queued > 0 || life.queued > 0 || life.high_water {
            let (mut output, _) = shared.turn.split(None);
            low_water = life.handle_queued(&mut output, queued);
        }
        life.handle_handed(shared.turn.now, queued, link.handed);
        if life.stage == Stage::Failing {
            link.end();
        }
        if let Some(waiters) = &mut self.unwritten {
            waiters.tell(life, link);
        }
        low_water
    }

    /// Fails the connection if a write has; true if so.
    #[inline]
    pub(super) fn handle_link_error(&mut self, shared: &mut Shared) -> bool {
        self.link.as_ref().is_some_and(Link::has_failed) && self.fail_link(shared)
    }

    fn fail_link(&mut self, shared: &mut Shared) -> bool {
        let Some(error) = self.link.as_mut().and_then(Link::take_error) else {
            return false;
        };
        let (mut output, _) = shared.turn.split(None);
        match error {
            Error::Io(error) => self.life().handle_io_error(&mut output, error),
            error => self.life().fail(&mut output, error),
        }
        true
    }

    fn drop_link(&mut self, shared: &mut Shared) {
        self.drop_racers(shared);
        #[cfg(feature = "tls")]
        if let Some(link) = &mut self.link {
            link.close_notify(&mut shared.spare);
        }
        if let Some(link) = self.link.take() {
            shared.network.forget(link.stream);
            shared.receive.forget(self.core.id());
        }
        let (mut output, _) = shared.turn.split(None);
        self.life().drop_paced(&mut output);
        // What was not written by now never will be, unless it is held for the next open.
        if let Some(waiters) = &mut self.unwritten {
            waiters.give_up(&mut self.core.session.life);
        }
        self.core.session.inbound = Inbound::Nobody;
        self.token = super::NO_TOKEN;
    }

    /// The connection, or the attempt, is over: what now?
    fn finish(&mut self, shared: &mut Shared) {
        self.drop_link(shared);
        let life = &mut self.core.session.life;
        let (mut output, _) = shared.turn.split(None);
        if let Some(step) = life.retry_behind_proxy(&mut output) {
            self.perform(shared, step);
            return;
        }
        if life.follow_redirect(&mut output) {
            return;
        }
        let reason = life.take_reason();
        // From here on it is between two attempts; a handler that closes now ends it.
        life.stage = Stage::BackOff;
        let (mut output, _) = shared.turn.split(None);
        let by_policy = life.policy_delay(&mut output, &reason);
        let to_the_caller = life.epoch() == 0
            && life.target.options.fail_first
            && matches!(reason, DisconnectReason::ConnectFailed(_));
        if to_the_caller {
            life.plan_end(reason);
            return;
        }
        let last = reason.is_handler_failure() || shared.is_shutting_down();
        let policy = by_policy.filter(|_| !last && !life.unwanted);
        let decision = self.core.on_disconnect(&mut shared.turn, &reason, policy);
        shared.turn.frames.clear();
        let life = &mut self.core.session.life;
        life.end_attempt();
        if life.stage != Stage::BackOff {
            // The handler closed it, or failed.
            let cause = super::status::cause(&reason);
            shared.turn.tally.disconnected(cause, false);
            life.stage = Stage::Ended;
            return;
        }
        let mut step = Comeback::Again;
        let delay = match decision {
            _ if last => None,
            Reconnect::Never => None,
            Reconnect::ByPolicy => policy,
            Reconnect::After(delay) => Some(delay),
            Reconnect::To(request) if !shared.central.paces(&request) => {
                let cause = super::status::cause(&reason);
                shared.turn.tally.disconnected(cause, false);
                life.plan_end(DisconnectReason::Failed(super::FOREIGN_PACER));
                return;
            }
            Reconnect::To(request) => {
                self.core.meter.set_url(request.target.url.clone());
                let (mut output, _) = shared.turn.split(None);
                life.change_target(&mut output, request.target);
                #[cfg(feature = "tls")]
                {
                    self.tls = request.tls;
                }
                step = Comeback::Elsewhere;
                Some(Duration::ZERO)
            }
        };
        let tally = &mut shared.turn.tally;
        tally.disconnected(super::status::cause(&reason), delay.is_some());
        let (mut output, _) = shared.turn.split(None);
        life.plan(&mut output, delay, step, reason);
    }

    /// The last callback; the connection is no more.
    pub(super) fn terminate(
        self,
        shared: &mut Shared,
        reason: DisconnectReason,
    ) -> DisconnectReason {
        self.core.terminate(&mut shared.turn, reason)
    }

    /// What a successor would go on with.
    pub(super) fn bequeath(&mut self) -> Legacy {
        Legacy {
            casts: std::mem::take(&mut self.core.casts),
            entered: self.life().entered(),
            held: self.life().take_held(),
            unwritten: std::mem::take(&mut self.unwritten),
        }
    }

    /// Begins in the place of one that has ended for `reason`.
    pub(super) fn inherit(&mut self, legacy: Legacy, reason: DisconnectReason) {
        let Legacy {
            casts,
            held,
            entered,
            unwritten,
        } = legacy;
        self.core.casts = casts;
        self.unwritten = unwritten;
        let watched = self
            .unwritten
            .as_ref()
            .is_some_and(|waiters| !waiters.aside.is_empty());
        let life = self.life();
        life.succeed(reason, held, entered);
        life.watch(watched);
    }
}

/// Who waits until the socket has a message. Boxed together: a connection that nobody ever waited for
/// pays a pointer.
#[derive(Default)]
pub(super) struct Waiters {
    /// For messages that were put aside, by their numbers.
    aside: BTreeMap<u64, Written>,
    /// For messages that left in this turn.
    sent: Vec<Written>,
    /// For messages in the link, each with its last byte, counted as [`Link::handed`] counts, in order.
    queued: VecDeque<(u64, Written)>,
}

impl Waiters {
    /// Tells those who wait for messages that the socket has by now.
    fn tell(&mut self, life: &mut Life, link: &Link) {
        self.note_outcomes(life);
        // With an error nobody knows what the socket has; the connection ends with it.
        if link.has_failed() {
            return;
        }
        let end = link.handed + link.queued() as u64;
        let sent = self.sent.drain(..).map(|written| (end, written));
        self.queued.extend(sent);
        while self
            .queued
            .front()
            .is_some_and(|(end, _)| *end <= link.handed)
            && let Some((_, written)) = self.queued.pop_front()
        {
            answer(&written, Ok(()));
        }
    }

    /// There is no socket any more: only what is held for the next open still has a chance.
    fn give_up(&mut self, life: &mut Life) {
        self.note_outcomes(life);
        let queued = self.queued.drain(..).map(|(_, written)| written);
        for written in queued.chain(self.sent.drain(..)) {
            answer(&written, Err(SendError::Gone));
        }
    }

    /// What has become of messages that were put aside.
    fn note_outcomes(&mut self, life: &mut Life) {
        if self.aside.is_empty() {
            return;
        }
        for (number, outcome) in life.outcomes() {
            match (self.aside.remove(&number), outcome) {
                (None, _) => {}
                (Some(written), Ok(())) => self.sent.push(written),
                (Some(written), error) => answer(&written, error),
            }
        }
        if self.aside.is_empty() {
            life.watch(false);
        }
    }
}

/// Who does not wait any more need not know.
fn answer(written: &Written, outcome: Result<(), SendError>) {
    let _ = written.try_send(outcome);
}
