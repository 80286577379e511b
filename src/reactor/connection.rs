//! One connection's turn: what the poll, a timer or a command said, carried out on its socket, its
//! session and its handler, and then settled: written, re-armed, published, or ended.

use super::Shared;
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
use crate::session::outbound::Compression;
use crate::session::{Inbound, Life, Session, Stage, Time, Wire};
use crate::stats::meter::ConnectionMeter;
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;
use crate::trace::event::Event as TraceEvent;
use crate::trace::kind::{Callback, Kind};
use mio::Token;
use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Connection {
    pub(super) core: Core,
    pub(super) link: Option<Link>,
    /// Sockets that race to be the link, each with its token (RFC 8305).
    pub(super) racing: Vec<(Token, Link)>,
    /// Of the socket, new with each: an event for an earlier one is not taken for this one's.
    pub(super) token: Token,
    /// The entry in the timers that counts.
    pub(super) armed: Option<Time>,
    /// Reading was paused when the last turn ended.
    pub(super) paused: bool,
    /// On the ready list: there is more to read than a turn's share.
    pub(super) ready: bool,
    /// Who waits until all output is written.
    pub(super) unwritten: Vec<Written>,
    pub(super) supervisor: Option<Box<Supervisor>>,
    /// The look-up whose answer is awaited.
    pub(super) lookup: u64,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsConfig>,
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
        let server = request.target.url.host_header().to_string();
        let meter = ConnectionMeter::new(request.target.options.name.clone(), server);
        let meter = Arc::new(meter);
        shared.central.slots().register(id, &meter);
        let mut life = Life::new(id.0, request.target, shared.level, shared.turn.now);
        life.level = shared.forced_level.unwrap_or(life.level);
        Self {
            core: Core {
                id,
                handler,
                session: Session {
                    inbound: Inbound::Nobody,
                    life,
                },
                casts: Vec::new(),
                batch: false,
                peer: None,
                published: Availability::NotOpen,
                opened: None,
                meter,
            },
            link: None,
            racing: Vec::new(),
            token: super::NO_TOKEN,
            armed: None,
            paused: false,
            ready: false,
            unwritten: Vec::new(),
            supervisor: None,
            lookup: 0,
            #[cfg(feature = "tls")]
            tls: request.tls,
        }
    }

    pub(super) fn life(&mut self) -> &mut Life {
        &mut self.core.session.life
    }

    /// The poll reported the socket.
    pub(super) fn handle_event(&mut self, shared: &mut Shared, readiness: Readiness) {
        if readiness.token != self.token {
            let racer = self
                .racing
                .iter()
                .position(|(token, _)| *token == readiness.token);
            // Pitfall 24: an event of a socket that is gone finds nobody here.
            let Some(racer) = racer else {
                return;
            };
            if !self.handle_racer(shared, racer) {
                return;
            }
        }
        if let Some(link) = &mut self.link {
            link.peer_ended |= readiness.ended;
        }
        if readiness.writable {
            self.flush(shared);
        }
        if readiness.readable {
            self.receive(shared);
        }
    }

    /// A timer is due.
    pub(super) fn handle_deadline(&mut self, shared: &mut Shared) {
        // No more than were armed at first: a handler that arms one with no delay gets it next turn.
        for _ in 0..self.life().timers.armed() {
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
        let (mut output, _) = shared.turn.split(None);
        let Session { inbound, life } = &mut self.core.session;
        let step = life.handle_deadline(&mut output, inbound);
        self.perform(shared, step);
    }

    /// The name was looked up.
    pub(super) fn handle_resolved(
        &mut self,
        shared: &mut Shared,
        number: u64,
        result: io::Result<Vec<SocketAddr>>,
    ) {
        if number == self.lookup {
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
        self.with_output(shared, |life, output| {
            let (opcode, payload) = (message.opcode(), message.as_bytes());
            result = life.send(output, None, Compression::BySize, opcode, payload);
            if let Err(error) = result {
                output.tally.drops += u64::from(!matches!(error, SendError::Full { .. }));
                let length = payload.len() as u64;
                life.record(output, Kind::SendDropped, |time, id| {
                    TraceEvent::send_dropped(time, id, opcode as u8, length, error)
                });
            }
        });
        match (written, result) {
            (None, _) => {}
            // Who does not wait any more need not know.
            (Some(written), Err(error)) => drop(written.try_send(Err(error))),
            (Some(written), Ok(())) => self.unwritten.push(written),
        }
    }

    /// Stops or resumes reading.
    pub(super) fn pause(&mut self, shared: &mut Shared, paused: bool) {
        self.with_output(shared, |life, output| life.pause(output, paused));
    }

    /// Another thread casts.
    pub(super) fn cast(&mut self, shared: &mut Shared, message: Box<dyn Any + Send>) {
        let mut wire = self.link.as_mut().map(|link| LinkWire {
            link,
            spare: &mut shared.spare,
        });
        let wire = wire.as_mut().map(|wire| wire as &mut dyn Wire);
        self.core.cast(&mut shared.turn, wire, message);
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

    /// Drops the connection now, for the reason it was closing for.
    pub(super) fn abort(&mut self) {
        self.life().abort();
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

    /// The socket takes output again.
    fn flush(&mut self, shared: &mut Shared) {
        let Some(link) = &mut self.link else {
            return;
        };
        let drained = link.flush(&mut shared.spare);
        let queued = link.queued();
        let (mut output, _) = shared.turn.split(None);
        let life = &mut self.core.session.life;
        let low_water = life.handle_queued(&mut output, queued);
        if drained {
            life.handle_drained(&mut output);
        }
        if low_water && life.stage == Stage::Open {
            self.call(shared, Callback::OnDrained, |handler, cx| {
                handler.on_drained(cx)
            });
        }
    }

    /// Ends the turn: writes what it has sent, in one write, and draws the conclusions.
    pub(super) fn settle(&mut self, shared: &mut Shared) -> Fate {
        self.write_out(shared);
        if self.life().stage == Stage::Over {
            self.finish(shared);
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
        if self.paused && !paused && !self.ready {
            self.ready = true;
            shared.ready.push(self.core.id);
        }
        self.paused = paused;
        // What is due at once has the next turn, after the others had this one: a handler that arms
        // a timer without delay again and again, or a server that refuses at once, would keep it.
        let soonest = shared.turn.now.after(Duration::from_nanos(1));
        if let Some(time) = life.next_deadline().map(|time| time.max(soonest))
            && self.armed.is_none_or(|armed| time < armed)
        {
            self.armed = Some(time);
            shared.timers.arm(time, self.core.id.0);
        }
        Fate::Alive
    }

    pub(super) fn write_out(&mut self, shared: &mut Shared) {
        let Some(link) = &mut self.link else {
            shared.turn.frames.clear();
            return;
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
        // Also if the session knows the number already: a message that fills its pieces to the last
        // byte was counted while it was written.
        if queued > 0 || life.queued > 0 {
            let (mut output, _) = shared.turn.split(None);
            // What falls to the low mark here was never reported as high: it is the same turn.
            life.handle_queued(&mut output, queued);
        }
        if queued == 0 {
            for written in self.unwritten.drain(..) {
                let _ = written.try_send(Ok(()));
            }
        }
        shared.turn.tally.outbound.socket_bytes += std::mem::take(&mut link.written);
        if life.stage == Stage::Failing {
            link.end();
        }
        self.handle_link_error(shared);
    }

    /// Fails the connection if a write has; true if so.
    pub(super) fn handle_link_error(&mut self, shared: &mut Shared) -> bool {
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
        if let Some(mut link) = self.link.take() {
            #[cfg(feature = "tls")]
            link.close_notify(&mut shared.spare);
            shared.network.forget(&mut link.stream);
        }
        // What was not written by now never will be.
        for written in self.unwritten.drain(..) {
            let _ = written.try_send(Err(SendError::Gone));
        }
        self.core.session.inbound = Inbound::Nobody;
        self.token = super::NO_TOKEN;
    }

    /// The connection, or the attempt, is over: what now?
    fn finish(&mut self, shared: &mut Shared) {
        self.drop_link(shared);
        let life = &mut self.core.session.life;
        let (mut output, _) = shared.turn.split(None);
        if life.follow_redirect(&mut output) {
            return;
        }
        let reason = life.take_reason();
        // From here on it is between two attempts; a handler that closes now ends it.
        life.stage = Stage::BackOff;
        let by_policy = life.policy_delay(&reason, &mut shared.turn.entropy);
        let to_the_caller = life.epoch == 0
            && life.target.options.fail_first
            && matches!(reason, DisconnectReason::ConnectFailed(_));
        if to_the_caller {
            life.plan_end(reason);
            return;
        }
        let last = reason.is_handler_failure() || shared.is_shutting_down();
        let policy = if last { None } else { by_policy };
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
        let delay = match decision {
            _ if last => None,
            Reconnect::Never => None,
            Reconnect::ByPolicy => policy,
            Reconnect::After(delay) => Some(delay),
            Reconnect::To(request) => {
                let (mut output, _) = shared.turn.split(None);
                life.change_target(&mut output, request.target);
                #[cfg(feature = "tls")]
                {
                    self.tls = request.tls;
                }
                Some(Duration::ZERO)
            }
        };
        let tally = &mut shared.turn.tally;
        tally.disconnected(super::status::cause(&reason), delay.is_some());
        let (mut output, _) = shared.turn.split(None);
        life.plan(&mut output, delay, reason);
    }

    /// The last callback; the connection is no more.
    pub(super) fn terminate(
        self,
        shared: &mut Shared,
    ) -> (DisconnectReason, Option<Box<Supervisor>>) {
        (self.core.terminate(&mut shared.turn), self.supervisor)
    }
}
