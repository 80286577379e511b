//! A handler that does anything, and checks that it is called as it was promised.

use super::super::log::Log;
use super::super::random::Random;
use super::payload::{Received, payload};
use crate::error::{DisconnectReason, Error, SendError};
use crate::handler::{
    ConnectionId, Context, Disconnect, Handler, HandlerResult, Message, Open, Reconnect,
    Termination,
};
use crate::protocol::close::CloseCode;
use crate::protocol::handshake::HandshakeError;
use crate::session::Time;
use crate::session::timers::TimerId;
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// The policy of all sessions.
pub(super) const LEAST: Duration = Duration::from_millis(100);
pub(super) const MOST: Duration = Duration::from_secs(2);
pub(super) const RESET_AFTER: Duration = Duration::from_secs(3);

/// What a server that is busy asks for.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const RESUME: TimerId = TimerId(1);
const CLOSE: TimerId = TimerId(2);
const SEND: TimerId = TimerId(3);

/// What all sessions of a run have seen together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) handlers: u64,
    pub(super) opened: u64,
    pub(super) failed_attempts: u64,
    pub(super) disconnected: u64,
    pub(super) terminated: u64,
    pub(super) messages: u64,
    /// Servers that end in good order without a Close frame, and how many messages they send before.
    pub(super) finished: BTreeMap<u64, u64>,
    /// Those that were closed from outside since they were last open.
    pub(super) closed: BTreeSet<ConnectionId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// An attempt is under way, or waited for.
    Between,
    Open,
    /// The handler has failed: its connection ends.
    Failed,
    /// There is no next attempt.
    Ending,
}

pub(super) struct Session {
    log: Log,
    totals: Rc<RefCell<Totals>>,
    random: Random,
    /// Whose messages they are that it sends.
    sender: u64,
    phase: Phase,
    epoch: u64,
    /// Attempts that failed since it was last open.
    failed: u32,
    /// Failures in a row, as the policy counts them.
    failures: i32,
    /// The next attempt is not over before.
    not_before: Time,
    received: Received,
    sent: u64,
    first_batch: Option<Time>,
    last_batch: Option<Time>,
    /// It has closed since it was last open.
    closed: bool,
}

impl Session {
    pub(super) fn new(log: &Log, totals: &Rc<RefCell<Totals>>, mut random: Random) -> Self {
        totals.borrow_mut().handlers += 1;
        Self {
            log: log.clone(),
            totals: Rc::clone(totals),
            sender: random.next(),
            random,
            phase: Phase::Between,
            epoch: 0,
            failed: 0,
            failures: 0,
            not_before: Time::ZERO,
            received: Received::default(),
            sent: 0,
            first_batch: None,
            last_batch: None,
            closed: false,
        }
    }

    fn require(&self, holds: bool, what: &str) {
        if !holds {
            let (sender, phase) = (self.sender, self.phase);
            self.log
                .violation(format!("session {sender:x}: {what} ({phase:?})"));
        }
    }

    fn note(&self, what: &str) {
        self.log
            .note(format_args!("session {:x}: {what}", self.sender));
    }

    fn send(&mut self, cx: &mut Context<'_>) {
        let length = match self.random.within(0..40) {
            0 => self.random.length(0..150_000),
            _ => self.random.length(0..300),
        };
        let text = payload(self.sender ^ self.epoch, self.sent, length);
        let result = match self.random.chance(50) {
            true => cx.send_text(&text),
            false => cx.send_binary(text.as_bytes()),
        };
        match result {
            Ok(()) => self.sent += 1,
            Err(SendError::Full { .. } | SendError::Closing) => {}
            Err(SendError::NotOpen) => self.require(self.phase != Phase::Open, "it is open"),
            Err(error) => self.require(false, &format!("cannot send: {error}")),
        }
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        self.closed = true;
        let _ = cx.close_with(CloseCode::NORMAL, &self.sent.to_string());
    }

    /// Anything that a handler may do, and how it may end.
    fn act(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        match self.random.within(0..100) {
            0..20 => self.send(cx),
            20..24 => {
                cx.pause_reading();
                let delay = self.random.milliseconds(0..3000);
                cx.set_timer(RESUME, delay);
            }
            24..28 => {
                let delay = self.random.milliseconds(0..3000);
                cx.set_timer(CLOSE, delay);
            }
            28..36 => {
                let delay = self.random.milliseconds(0..1000);
                cx.set_timer(SEND, delay);
            }
            36..38 => self.close(cx),
            38 => {
                self.phase = Phase::Failed;
                return Err("a handler that fails".into());
            }
            39 => {
                self.phase = Phase::Failed;
                // The hook that prints panics has nothing to print here.
                std::panic::resume_unwind(Box::new("a handler that panics"));
            }
            40..44 => {
                let _ = cx.send_ping(b"are you there");
            }
            _ => {}
        }
        Ok(())
    }

    /// Has everything come that the server had sent before it ended the connection?
    fn check_completeness(&self, reason: &DisconnectReason) {
        let count = self.received.count;
        let sent = match reason {
            // A server that closes by itself says how many it has sent; an answer says nothing.
            DisconnectReason::Remote { reason, .. } => reason.parse().ok(),
            DisconnectReason::Dropped => {
                let sender = self.received.sender();
                sender.and_then(|sender| self.totals.borrow().finished.get(&sender).copied())
            }
            _ => None,
        };
        if let Some(sent) = sent {
            self.require(
                count == sent,
                &format!("{count} messages have come of {sent}"),
            );
        }
    }

    /// Counts also what no policy brings back, such as a connection that the peer ended while this side
    /// was closing it: the handler may go on all the same, and then the policy goes on counting.
    fn count_failure(&mut self, disconnect: &Disconnect<'_>) {
        let span = self.last_batch.zip(self.first_batch);
        let span = span.map(|(last, first)| last.since(first));
        let good = disconnect.was_open() && span.is_some_and(|span| span >= RESET_AFTER);
        if good {
            self.failures = 0;
        } else if !matches!(disconnect.reason, DisconnectReason::Local { .. }) {
            self.failures += 1;
        }
    }

    /// Full jitter between bounds, from the start after data came in for a while.
    fn check_policy(&mut self, id: ConnectionId, disconnect: &Disconnect<'_>) {
        self.count_failure(disconnect);
        let reason = disconnect.reason;
        let ends = matches!(reason, DisconnectReason::Local { .. }) || reason.is_handler_failure();
        let Some(delay) = disconnect.policy else {
            let closed = self.closed || self.totals.borrow().closed.contains(&id);
            return self.require(ends || closed || self.is_late(), "the policy gives up");
        };
        self.require(!ends, "the policy goes on");
        let bound = match self.failures {
            0 => Duration::ZERO,
            failures => MOST.min(LEAST * (1 << (failures - 1).min(10))),
        };
        let refused = matches!(
            reason.error(),
            Some(Error::Handshake(HandshakeError::Rejected(_)))
        );
        let least = if refused { RETRY_AFTER } else { Duration::ZERO };
        let within = (least..=bound.max(least)).contains(&delay);
        self.require(
            within,
            &format!("{delay:?} after {} failures", self.failures),
        );
    }

    /// The reactor shuts down, or may: there is no next attempt then.
    fn is_late(&self) -> bool {
        self.log.milliseconds() >= super::SHUTDOWN
    }
}

impl Handler for Session {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        self.note("open");
        self.closed = false;
        self.totals.borrow_mut().closed.remove(&cx.id());
        self.require(self.phase == Phase::Between, "opened");
        self.require(open.epoch == self.epoch + 1, "an epoch is missing");
        self.require(
            open.attempts == self.failed + 1,
            "an attempt was not told of",
        );
        self.require(self.log.now() >= self.not_before, "opened before its time");
        self.totals.borrow_mut().opened += 1;
        self.phase = Phase::Open;
        self.epoch = open.epoch;
        self.failed = 0;
        self.received = Received::default();
        self.sent = 0;
        (self.first_batch, self.last_batch) = (None, None);
        for _ in 0..self.random.within(0..3) {
            self.send(cx);
        }
        self.act(cx)
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        self.note("message");
        self.require(self.phase == Phase::Open, "a message");
        self.totals.borrow_mut().messages += 1;
        if let Err(error) = self.received.take(message.as_bytes()) {
            self.require(false, &error);
        }
        self.act(cx)
    }

    fn on_ping(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> HandlerResult {
        self.require(self.phase == Phase::Open, "a ping");
        // Refused only when closing has begun, or too much waits.
        let _ = cx.send_pong(payload);
        self.act(cx)
    }

    fn on_pong(&mut self, cx: &mut Context<'_>, _payload: &[u8]) -> HandlerResult {
        self.require(self.phase == Phase::Open, "a pong");
        self.act(cx)
    }

    fn on_cast(&mut self, cx: &mut Context<'_>, _message: Box<dyn Any + Send>) -> HandlerResult {
        self.require(self.phase == Phase::Open, "a cast");
        self.act(cx)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: TimerId) -> HandlerResult {
        self.note("timer");
        let calls = matches!(self.phase, Phase::Between | Phase::Open);
        self.require(calls, "a timer");
        match timer {
            RESUME => cx.resume_reading(),
            CLOSE => self.close(cx),
            SEND => self.send(cx),
            TimerId(other) => self.require(false, &format!("there is no timer {other}")),
        }
        Ok(())
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.require(self.phase == Phase::Open, "the end of a batch");
        let now = self.log.now();
        self.first_batch.get_or_insert(now);
        self.last_batch = Some(now);
        self.act(cx)
    }

    fn on_drained(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.note("drained");
        self.require(self.phase == Phase::Open, "drained");
        self.act(cx)
    }

    fn on_disconnect(&mut self, cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        self.note(&format!("disconnect {disconnect}"));
        self.totals.borrow_mut().disconnected += 1;
        self.require(disconnect.epoch == self.epoch, "an epoch was not told of");
        if disconnect.was_open() {
            let open = matches!(self.phase, Phase::Open | Phase::Failed);
            self.require(open, "the end of a connection that was not open");
            self.check_completeness(disconnect.reason);
        } else {
            self.totals.borrow_mut().failed_attempts += 1;
            self.require(self.phase != Phase::Open, "an attempt while it is open");
            self.failed += 1;
            self.require(
                disconnect.attempt == self.failed,
                "an attempt was not told of",
            );
            self.require(self.log.now() >= self.not_before, "failed before its time");
        }
        self.check_policy(cx.id(), disconnect);
        let failed = self.phase == Phase::Failed;
        self.require(
            !failed || disconnect.reason.is_handler_failure(),
            "the handler's failure is not the reason",
        );
        let decision = match self.random.within(0..20) {
            0 => Reconnect::Never,
            1 => Reconnect::After(self.random.milliseconds(0..1000)),
            2 => Reconnect::To(Box::new(super::random_request(&mut self.random))),
            3 => {
                cx.close();
                Reconnect::ByPolicy
            }
            _ => Reconnect::ByPolicy,
        };
        let delay = match &decision {
            Reconnect::Never => None,
            Reconnect::ByPolicy => disconnect.policy,
            Reconnect::After(delay) => Some(*delay),
            Reconnect::To(_) => Some(Duration::ZERO),
        };
        if matches!(decision, Reconnect::To(_)) {
            // The other request's policy begins anew.
            self.failures = 0;
        }
        // A handler that has failed, or that closes now, has no say.
        let delay = delay.filter(|_| !failed);
        self.phase = match delay {
            Some(_) => Phase::Between,
            None => Phase::Ending,
        };
        self.not_before = self.log.now().after(delay.unwrap_or_default());
        decision
    }

    fn on_terminate(self: Box<Self>, _termination: &Termination<'_>) {
        self.note("end");
        self.require(self.phase != Phase::Open, "an end without a disconnect");
        self.totals.borrow_mut().terminated += 1;
    }
}
