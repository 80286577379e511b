//! The last step inbound, and every other callback: a handler that fails here takes down its own
//! connection and nothing else. Bytes go on to [`delivery`](super::delivery).

use super::Turn;
use super::casts::{Cast, Casts, discard};
use super::delivery::{Input, deliver_frames, end_batch};
use super::remote::{Central, Opened};
use super::slots::Availability;
use crate::error::{DisconnectReason, Error};
use crate::handler::{
    ConnectionId, Context, Disconnect, Handler, HandlerResult, LastOnes, Open, OpenReason,
    Reconnect, Story, Termination,
};
use crate::session::backlog::Hold;
use crate::session::supervision::into_error;
use crate::session::timers::Timers;
use crate::session::{Inbound, Session, Stage, Wire};
use crate::stats::meter::ConnectionMeter;
use crate::trace::event::Event as TraceEvent;
use crate::trace::kind::{Callback, Kind};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A connection without its socket: the session and its handler.
pub(super) struct Core {
    pub(super) handler: Box<dyn Handler>,
    pub(super) session: Session,
    /// Casts that wait for the connection to open.
    pub(super) casts: Casts,
    /// Who waits for the connection to open.
    pub(super) opened: Option<Box<Opened>>,
    /// What other threads were told last.
    pub(super) published: Availability,
    /// Reading was paused when the last turn ended.
    pub(super) paused: bool,
    /// On the ready list: there is more to read than a turn's share. Or, while TLS is agreed on, in the
    /// queue of handshakes. Here, with the other small ones, because every struct is rounded up to
    /// eight bytes.
    pub(super) ready: bool,
    pub(super) meter: Arc<ConnectionMeter>,
}

/// What a callback, or everything between two reads, came to: `Err` of a panic, or the result.
type Outcome = Result<Result<(), Error>, Box<dyn Any + Send>>;

impl Core {
    pub(super) fn id(&self) -> ConnectionId {
        ConnectionId(self.session.life.id)
    }

    /// Passes bytes from the peer through the parser of the moment to the handler. Without a wire,
    /// what the handler sends waits in the turn's output. Returns how many were left: they are to come
    /// again, with more behind them.
    pub(super) fn deliver(
        &mut self,
        turn: &mut Turn,
        mut wire: Option<&mut dyn Wire>,
        input: Input<'_>,
    ) -> usize {
        if !matches!(self.session.inbound, Inbound::Open(_)) {
            self.deliver_early(turn, wire, input.bytes);
            return 0;
        }
        // Also if what is cut calls nobody.
        if !turn.handling {
            self.session.life.callback = Callback::OnMessage;
        }
        turn.begin_handling();
        let mut left = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            left = self.deliver_open(turn, reborrow(&mut wire), input)?;
            Ok(())
        }));
        if !matches!(outcome, Ok(Ok(()))) {
            self.conclude(turn, wire, outcome);
        }
        left
    }

    #[inline]
    fn deliver_open(
        &mut self,
        turn: &mut Turn,
        wire: Option<&mut dyn Wire>,
        input: Input<'_>,
    ) -> Result<usize, Error> {
        let Session { inbound, life } = &mut self.session;
        let (output, pool) = turn.split(wire);
        let mut cx = Context {
            id: ConnectionId(life.id),
            life,
            output,
        };
        let Inbound::Open(decoder) = inbound else {
            return Ok(0);
        };
        let mut left = deliver_frames(decoder, pool, &input, &mut *self.handler, &mut cx)?;
        if input.is_last {
            let callback = cx.life.callback;
            end_batch(&mut *self.handler, &mut cx).map_err(Error::Handler)?;
            // Of the two, the messages are what a turn is for.
            cx.life.callback = callback;
        }
        if cx.life.stage == Stage::Over {
            // Aborted: what was read with it, or decrypted with it, finds nobody.
            *inbound = Inbound::Nobody;
            left = 0;
        }
        Ok(left)
    }

    /// Passes the pieces that `receive` brings to the handler. While the connection is open, what they
    /// have in common is done once. Only their own callbacks are caught here: `receive` goes on after one
    /// that fails, and what it brings then is nobody's.
    #[cfg(feature = "tls")]
    pub(super) fn deliver_pieces<R>(
        &mut self,
        turn: &mut Turn,
        receive: impl FnOnce(&mut dyn FnMut(&[u8])) -> R,
    ) -> R {
        let Inbound::Open(decoder) = &mut self.session.inbound else {
            return receive(&mut |piece| {
                self.deliver(turn, None, Input::to_take(piece));
            });
        };
        let (handling, lap) = (turn.handling, turn.lap);
        turn.begin_handling();
        let life = &mut self.session.life;
        let (output, pool) = turn.split(None);
        let mut cx = Context {
            id: ConnectionId(life.id),
            life,
            output,
        };
        let handler = &mut *self.handler;
        let (mut any, mut outcome) = (false, Ok(Ok(())));
        let received = receive(&mut |piece| {
            if !any && !handling {
                // Also if what is cut calls nobody.
                cx.life.callback = Callback::OnMessage;
            }
            any = true;
            if matches!(outcome, Ok(Ok(()))) && cx.life.stage != Stage::Over {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    let input = Input::to_take(piece);
                    deliver_frames(decoder, pool, &input, handler, &mut cx).map(drop)
                }));
                if !matches!(result, Ok(Ok(()))) {
                    outcome = result;
                }
            }
        });
        if cx.life.stage == Stage::Over {
            // Aborted: what comes after this finds nobody either.
            self.session.inbound = Inbound::Nobody;
        }
        if !any {
            // TLS has spoken for itself.
            (turn.handling, turn.lap) = (handling, lap);
        }
        self.conclude(turn, None, outcome);
        received
    }

    /// What `deliver` does before the connection is open, and when it opens.
    fn deliver_early(&mut self, turn: &mut Turn, mut wire: Option<&mut dyn Wire>, input: &[u8]) {
        if let Inbound::Upgrading(_) = self.session.inbound {
            turn.begin_handling();
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.open(turn, reborrow(&mut wire), input)
        }));
        self.conclude(turn, wire, outcome);
    }

    fn open(
        &mut self,
        turn: &mut Turn,
        wire: Option<&mut dyn Wire>,
        input: &[u8],
    ) -> Result<(), Error> {
        let mut input = input;
        let mut wire = wire;
        let mut opened = None;
        if let Session {
            inbound: Inbound::Tunnelling(tunnel),
            life,
        } = &mut self.session
        {
            let (mut output, _) = turn.split(reborrow(&mut wire));
            if life.handle_proxy(&mut output, tunnel, input)? {
                // The reactor goes on from here, as if the server had just been reached.
                self.session.inbound = Inbound::Nobody;
            }
            return Ok(());
        }
        if let Inbound::Upgrading(handshake) = &mut self.session.inbound {
            let received = handshake.receive(input).map_err(Error::Handshake)?;
            input = &input[received.consumed..];
            let Some(response) = received.response else {
                return Ok(());
            };
            let attempts = self.session.life.attempt;
            let (mut output, _) = turn.split(reborrow(&mut wire));
            let Session { inbound, life } = &mut self.session;
            *inbound = life.handle_upgraded(&mut output, &response)?;
            // Before the handler knows: whomever it tells may send at once.
            self.publish(&turn.central);
            opened = Some((response, attempts));
        }
        let Session { inbound, life } = &mut self.session;
        let (output, pool) = turn.split(wire);
        let mut cx = Context {
            id: ConnectionId(life.id),
            life,
            output,
        };
        if let Some((response, attempts)) = opened {
            if let Some(waiting) = self.opened.take() {
                // Who does not wait any more need not know.
                let _ = waiting.try_send(Ok(()));
            }
            cx.life.callback = Callback::OnOpen;
            let before = cx.life.take_before();
            let open = Open {
                epoch: cx.life.epoch(),
                reason: OpenReason::new(before.as_ref()),
                attempts,
                times: cx.life.stage_times(),
                response: &response,
                peer: cx.life.peer().expect("an attempt that succeeds has a peer"),
            };
            cx.life.end_attempt();
            self.handler
                .on_open(&mut cx, &open)
                .map_err(Error::Handler)?;
            cx.life.release(&mut cx.output);
            while cx.life.stage != Stage::Over
                && let Some(cast) = self.casts.next()
            {
                cast.record(cx.life, &mut cx.output);
                cx.life.callback = Callback::OnCast;
                self.handler
                    .on_cast(&mut cx, cast.message)
                    .map_err(Error::Handler)?;
            }
        }
        if cx.life.stage == Stage::Over {
            *inbound = Inbound::Nobody;
        }
        let Inbound::Open(decoder) = inbound else {
            return Ok(());
        };
        let input = Input::to_take(input);
        deliver_frames(decoder, pool, &input, &mut *self.handler, &mut cx)?;
        if cx.life.stage == Stage::Over {
            // Aborted: what was read with it, or decrypted with it, finds nobody.
            *inbound = Inbound::Nobody;
        }
        Ok(())
    }

    /// Tells other threads how far the connection has come, if that has changed.
    #[inline]
    pub(super) fn publish(&mut self, central: &Central) {
        if self.session.life.stage != Stage::Open || self.published != Availability::Open {
            self.publish_anew(central);
        }
    }

    fn publish_anew(&mut self, central: &Central) {
        let availability = match self.session.life.stage {
            Stage::Open => Availability::Open,
            stage => match self.session.life.can_hold() {
                Hold::Room => Availability::Holding,
                Hold::Full => Availability::HoldFull,
                Hold::Never => match stage {
                    Stage::Closing | Stage::Closed | Stage::Failing => Availability::Closing,
                    _ => Availability::NotOpen,
                },
            },
        };
        if availability != self.published {
            self.published = availability;
            central.slots().publish(self.id(), availability);
        }
    }

    /// Runs one callback.
    pub(super) fn call(
        &mut self,
        turn: &mut Turn,
        mut wire: Option<&mut dyn Wire>,
        callback: Callback,
        call: impl FnOnce(&mut dyn Handler, &mut Context<'_>) -> HandlerResult,
    ) {
        turn.begin_handling();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let life = &mut self.session.life;
            life.callback = callback;
            let (output, _) = turn.split(reborrow(&mut wire));
            let mut cx = Context {
                id: ConnectionId(life.id),
                life,
                output,
            };
            call(&mut *self.handler, &mut cx).map_err(Error::Handler)
        }));
        self.conclude(turn, wire, outcome);
    }

    /// Ends the batch, if there is one under way.
    pub(super) fn end_batch(&mut self, turn: &mut Turn, wire: Option<&mut dyn Wire>) {
        if self.session.life.batch {
            let before = self.session.life.callback;
            self.call(turn, wire, Callback::OnBatchEnd, end_batch);
            self.session.life.callback = before;
        }
    }

    /// A cast has come; it waits while the connection is not open.
    pub(super) fn cast(&mut self, turn: &mut Turn, wire: Option<&mut dyn Wire>, cast: Cast) {
        let (mut output, _) = turn.split(None);
        if !matches!(self.session.life.stage, Stage::Open | Stage::Closing) {
            self.casts.wait(&self.session.life, &mut output, cast);
            return;
        }
        cast.record(&self.session.life, &mut output);
        self.call(turn, wire, Callback::OnCast, |handler, cx| {
            handler.on_cast(cx, cast.message)
        });
    }

    /// Fails the connection if the handler or the peer did.
    #[inline]
    pub(super) fn conclude(
        &mut self,
        turn: &mut Turn,
        wire: Option<&mut dyn Wire>,
        outcome: Outcome,
    ) {
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(turn, wire, error),
            Err(panic) => {
                let error = Error::HandlerPanicked(panic_message(&*panic));
                self.fail(turn, wire, error);
            }
        }
    }

    /// Nothing more is decoded then.
    #[cold]
    fn fail(&mut self, turn: &mut Turn, mut wire: Option<&mut dyn Wire>, error: Error) {
        self.session.inbound = Inbound::Nobody;
        if matches!(error, Error::Protocol(_)) {
            // As long as the connection is open: what the handler sends now is sent.
            self.end_batch(turn, reborrow(&mut wire));
        }
        let (mut output, _) = turn.split(wire);
        let life = &mut self.session.life;
        if matches!(error, Error::Handler(_) | Error::HandlerPanicked(_)) {
            // It is only told of the end from here on.
            life.timers = Timers::default();
        }
        let callback = life.callback;
        match &error {
            Error::HandlerPanicked(message) => {
                life.batch = false;
                life.record(&mut output, Kind::HandlerPanicked, |time, id| {
                    TraceEvent::handler_panicked(time, id, callback, message)
                });
            }
            Error::Handler(failure) => {
                life.batch = false;
                // The text of a handler's error is made by foreign code, which may panic too.
                let text = catch_unwind(AssertUnwindSafe(|| failure.to_string()))
                    .unwrap_or_else(|_| "(an error that cannot be displayed)".to_owned());
                life.record(&mut output, Kind::HandlerFailed, |time, id| {
                    TraceEvent::handler_failed(time, id, callback, text)
                });
            }
            _ => {}
        }
        life.fail(&mut output, error);
    }

    /// Asks the handler what comes after a disconnect. A failure here is the end.
    pub(super) fn on_disconnect(
        &mut self,
        turn: &mut Turn,
        reason: &DisconnectReason,
        policy: Option<Duration>,
    ) -> Reconnect {
        let life = &self.session.life;
        let events = turn.trace.last_events(life.id, life.framed.get());
        let name = life.name().cloned();
        let disconnect = Disconnect {
            story: Story {
                events: LastOnes::Copied(&events),
                name: name.as_deref(),
            },
            reason,
            attempt: life.attempt,
            epoch: life.epoch(),
            clean: life.clean,
            times: life.stage_times(),
            policy,
        };
        let mut decision = None;
        self.call(turn, None, Callback::OnDisconnect, |handler, cx| {
            decision = Some(handler.on_disconnect(cx, &disconnect));
            Ok(())
        });
        turn.trace.give_back(events);
        decision.unwrap_or(Reconnect::Never)
    }

    /// The last callback. What still waits for the connection is for its successor.
    pub(super) fn terminate(self, turn: &mut Turn, reason: DisconnectReason) -> DisconnectReason {
        let (mut output, _) = turn.split(None);
        self.session
            .life
            .record(&mut output, Kind::Terminated, |time, id| {
                let kind = TerminationKind(&reason);
                TraceEvent::terminated(time, id, kind)
            });
        let life = &self.session.life;
        if !life.level.records(Kind::Terminated) {
            turn.trace.end(life.id);
        }
        turn.begin_handling();
        let termination = Termination {
            id: self.id(),
            reason: &reason,
            epoch: life.epoch(),
            story: Story {
                events: LastOnes::In(turn.trace.ring(), life.id, life.framed.get()),
                name: life.name().map(|name| &**name),
            },
        };
        let handler = self.handler;
        // A panic here has nothing left to take down.
        let _ = catch_unwind(AssertUnwindSafe(|| handler.on_terminate(&termination)));
        turn.end_handling(&self.meter, life.id, Callback::OnTerminate);
        match self.opened {
            None => reason,
            Some(waiting) => {
                // Whoever waits gets the error itself; what remains here is that it was told.
                let told = "whoever waited for the connection has the reason";
                discard(waiting.try_send(Err(into_error(reason))));
                DisconnectReason::ConnectFailed(Error::Refused(told))
            }
        }
    }
}

/// Why it ended, without calling the foreign code that displays a handler's error.
struct TerminationKind<'a>(&'a DisconnectReason);

impl std::fmt::Display for TerminationKind<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_handler_failure() {
            f.write_str("the handler failed")
        } else {
            self.0.fmt(f)
        }
    }
}

fn reborrow<'s>(wire: &'s mut Option<&mut dyn Wire>) -> Option<&'s mut dyn Wire> {
    match wire {
        Some(wire) => Some(&mut **wire),
        None => None,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "(no message)".to_owned()
    }
}
