//! The stages of a connection, their deadlines, and what moves it from one to the next.
//!
//! Before this comes the reactor, which reports what the sockets did; after it, on the way in, the
//! decoder, and on the way out [`outbound`](super::outbound).

use super::aside::Aside;
use super::liveness::{Due, Heard, Liveness};
use super::options::Target;
use super::outbound::{Compression, Output, Sends, WaitingPong};
use super::reach::Reach;
use super::timers::Timers;
use super::{Inbound, Time};
use crate::error::{DisconnectReason, Error, SendError, Stage as ErrorStage, Watch};
use crate::protocol::deflate::Agreed;
use crate::protocol::frame::OpCode;
use crate::protocol::handshake::HandshakeError;
use crate::trace::event::{Event, Frame, FrameHead};
use crate::trace::kind::{self, Callback, Kind, Level, Subject};
use crate::trace::recorder::Recorder;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// An attempt is due and waits to be admitted.
    Queued,
    /// The host's name is looked up.
    Resolving,
    /// The TCP handshake is under way.
    Connecting,
    /// The proxy is asked for the way.
    Tunnelling,
    /// The TLS handshake is under way.
    Securing,
    /// The opening handshake is under way.
    Upgrading,
    /// Messages flow.
    Open,
    /// Our Close frame was sent, the peer's is awaited; its messages still count.
    Closing,
    /// Both Close frames were sent; the peer's end of the TCP connection is awaited.
    Closed,
    /// We gave up; what arrives is dropped until the peer ends the TCP connection.
    Failing,
    /// The TCP connection is to be dropped now.
    Over,
    /// The next attempt is awaited.
    BackOff,
    /// The end.
    Ended,
}

/// What the reactor is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask the gate whether an attempt may begin.
    Admit,
    /// Look up the name of the target's host.
    Resolve,
    /// Open a TCP connection.
    Connect(SocketAddr),
    /// Nothing but wait.
    Wait,
}

/// Everything about a connection but its inbound parser.
pub(crate) struct Life {
    pub(crate) id: u64,
    pub(crate) stage: Stage,
    pub(crate) level: Level,
    /// Events recorded of this connection.
    recorded: Cell<u64>,
    /// Some of them were about frames.
    pub(crate) framed: Cell<bool>,
    /// For the trace: the callback that runs, or ran last.
    pub(crate) callback: Callback,
    /// What sending comes to.
    pub(super) sends: Sends,
    /// The kind of the fragmented message that is being sent.
    pub(super) sending: Option<OpCode>,
    /// Attempts since the connection was last open, the one under way included.
    pub(crate) attempt: u32,
    /// How often the connection was opened.
    pub(super) epoch: u32,
    /// Bytes of output that wait for the socket.
    pub(crate) queued: usize,
    /// When the stage has taken too long, or the back-off is over.
    pub(super) deadline: Option<Time>,
    pub(super) pong: Option<Box<WaitingPong>>,
    /// What was negotiated of permessage-deflate.
    pub(super) deflate: Option<Box<Agreed>>,
    pub(crate) timers: Timers,
    pub(crate) target: Target,
    /// Redirects followed in this attempt.
    pub(super) redirects: u8,
    /// The attempt under way.
    pub(super) reach: Option<Box<Reach>>,
    /// When the peer was last heard of.
    pub(crate) heard: Heard,
    pub(super) liveness: Option<Box<Liveness>>,
    /// Failures in a row, for the back-off; a connection that was no good counts.
    pub(super) failures: u32,
    /// The handler, or another thread, wants nothing more to be read for now.
    pub(crate) paused: bool,
    /// Messages were delivered since the last `on_batch_end`.
    pub(crate) batch: bool,
    /// The queue has reached its high-water mark, and not yet fallen to the low one.
    pub(crate) high_water: bool,
    /// Both Close frames were exchanged.
    pub(crate) clean: bool,
    /// This side has closed it, whatever else it is ending for.
    pub(crate) unwanted: bool,
    /// What few connections have.
    pub(super) aside: Option<Box<Aside>>,
}

/// The earlier of two times, where there are any.
#[inline]
fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Life {
    /// A connection whose first attempt begins at `now`, with the first deadline.
    pub(crate) fn new(id: u64, target: Target, level: Level, now: Time) -> Self {
        Self {
            id,
            stage: Stage::BackOff,
            level: target.options.level.unwrap_or(level),
            recorded: Cell::new(0),
            framed: Cell::new(false),
            callback: Callback::OnOpen,
            sends: Sends::Unknown,
            sending: None,
            attempt: 0,
            epoch: 0,
            queued: 0,
            deadline: Some(now),
            pong: None,
            deflate: None,
            timers: Timers::default(),
            target,
            redirects: 0,
            reach: None,
            heard: Heard::default(),
            liveness: None,
            failures: 0,
            paused: false,
            batch: false,
            high_water: false,
            clean: false,
            unwanted: false,
            aside: None,
        }
    }

    /// How often the connection was opened.
    pub(crate) fn epoch(&self) -> u64 {
        u64::from(self.epoch)
    }

    /// The name that the user gave, for the trace.
    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.target.options.name.as_ref()
    }

    /// Records an event that the level asks for, numbered among those of this connection.
    #[inline(always)]
    pub(crate) fn trace(&self, trace: &mut Recorder, mut event: Event) {
        let ordinal = self.recorded.get();
        self.recorded.set(ordinal + 1);
        event.set_ordinal(ordinal);
        trace.record(&mut event, self.name());
    }

    /// Likewise an event about a frame.
    #[inline(always)]
    pub(crate) fn trace_frame(
        &self,
        trace: &mut Recorder,
        now: Time,
        kind: Kind,
        subject: Subject,
        frame: &Frame<'_>,
    ) {
        let ordinal = self.recorded.get();
        self.recorded.set(ordinal + 1);
        self.framed.set(true);
        let head = FrameHead {
            time_ns: now.nanoseconds(),
            sequence: 0,
            connection: self.id,
            ordinal,
            kind,
            subject,
        };
        trace.record_frame(head, frame, self.name());
    }

    /// Records an event if the level asks for its kind.
    #[inline]
    pub(crate) fn record(
        &self,
        output: &mut Output<'_>,
        kind: Kind,
        event: impl FnOnce(u64, u64) -> Event,
    ) {
        output.tally.note(kind);
        if self.level.records(kind) {
            let event = event(output.now.nanoseconds(), self.id);
            self.trace(output.trace, event);
        }
    }

    /// Changes the trace level; the change itself is recorded, and so is the gap before it. Where the environment
    /// has set one, that stays: who set it cannot change what the program asks for here.
    pub(crate) fn set_level(&mut self, output: &mut Output<'_>, level: Level) {
        if output.trace.forced_level().is_some() {
            return;
        }
        // One that ends all recording is the last that is recorded.
        let recorded = if level == Level::Off {
            self.level
        } else {
            level
        };
        self.sends.doubt();
        self.level = recorded;
        self.record(output, Kind::LevelChanged, |time, id| {
            Event::level_changed(time, id, level)
        });
        self.level = level;
    }

    /// When the reactor must call [`handle_deadline`](Self::handle_deadline) or fire a timer.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let lively = match &self.liveness {
            Some(liveness) if self.watches() => {
                liveness.next(&self.target.options.liveness, &self.heard)
            }
            _ => None,
        };
        let next_address = self.reach.as_ref().and_then(|reach| reach.next_start());
        let departure = self.departure();
        let next = earlier(self.deadline, self.timers.next());
        let next = earlier(next, earlier(lively, next_address));
        earlier(next, departure)
    }

    /// Nobody can be expected to be heard while nothing is read.
    fn watches(&self) -> bool {
        self.stage == Stage::Open && !self.paused
    }

    /// Stops reading, or goes on with it; the watchdogs begin anew then.
    pub(crate) fn pause(&mut self, output: &mut Output<'_>, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        if paused {
            self.record(output, Kind::ReadingPaused, Event::reading_paused);
        } else {
            self.record(output, Kind::ReadingResumed, Event::reading_resumed);
            if let Some(liveness) = &mut self.liveness {
                liveness.forgive(output.now);
            }
        }
    }

    /// The round trip of the last ping of the heartbeat that was answered.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.liveness.as_ref()?.round_trip
    }

    /// A pong has come; it may be one that the heartbeat waits for.
    pub(crate) fn handle_pong(&mut self, output: &mut Output<'_>, payload: &[u8]) {
        if let Some(liveness) = &mut self.liveness
            && liveness.handle_pong(payload, output.now)
            && let Some(time) = liveness.round_trip
        {
            output.tally.round_trip(time);
        }
    }

    /// Does what heartbeats and watchdogs ask for.
    fn handle_liveness(&mut self, output: &mut Output<'_>) {
        while self.watches()
            && let Some(liveness) = &mut self.liveness
        {
            let options = &self.target.options.liveness;
            let times = (output.now, output.seen);
            match liveness.due(options, &self.heard, times, output.entropy) {
                None => return,
                // A full queue refuses it; then the missing answer says so.
                Some(Due::Ping(payload)) => {
                    let _ = self.send_control(output, None, OpCode::Ping, &payload);
                }
                Some(Due::Text(text)) => {
                    let plain = Compression::Never;
                    let sent = self.send(output, None, plain, OpCode::Text, text.as_bytes());
                    // Between the fragments of a message there is no place for it. The next one asks.
                    if sent == Err(SendError::FragmentOrder)
                        && let Some(liveness) = &mut self.liveness
                    {
                        liveness.not_asked();
                    }
                }
                Some(Due::Breach(watch, limit)) => {
                    self.record(output, Kind::TimerFired, |time, id| {
                        Event::timer_fired(time, id, timer_of(watch))
                    });
                    self.end_with(DisconnectReason::Silent { watch, limit });
                }
            }
        }
    }

    /// The peer ended its side of the TCP connection.
    pub(crate) fn handle_end_of_stream(&mut self, output: &mut Output<'_>, inbound: &mut Inbound) {
        match self.stage {
            Stage::Upgrading => {
                if let Some(error) = inbound.finish_handshake() {
                    self.fail(output, Error::Handshake(error));
                }
            }
            Stage::Tunnelling => {
                if let Some(error) = inbound.finish_tunnel() {
                    self.fail(output, Error::Proxy(error));
                }
            }
            Stage::Connecting | Stage::Securing => {
                let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                self.fail(output, Error::Io(ended));
            }
            Stage::Open => {
                self.record(output, Kind::RemoteDropped, |time, id| {
                    Event::remote_dropped(time, id, "")
                });
                self.end_with(DisconnectReason::Dropped);
            }
            Stage::Closing => {
                self.record(output, Kind::RemoteDropped, |time, id| {
                    Event::remote_dropped(time, id, "")
                });
                self.stage = Stage::Over;
            }
            Stage::Failing => self.stage = Stage::Over,
            // Pitfall 15: after both Close frames any end of the stream is a good one.
            Stage::Closed => {
                self.record(output, Kind::ClosedCleanly, Event::closed_cleanly);
                self.stage = Stage::Over;
            }
            Stage::Queued | Stage::Resolving | Stage::Over | Stage::BackOff | Stage::Ended => {}
        }
    }

    /// The socket failed.
    pub(crate) fn handle_io_error(&mut self, output: &mut Output<'_>, error: io::Error) {
        match self.stage {
            Stage::Open => {
                let text = error.to_string();
                self.record(output, Kind::RemoteDropped, |time, id| {
                    Event::remote_dropped(time, id, text)
                });
                self.end_with(DisconnectReason::Failed(Error::Io(error)));
            }
            Stage::Closed => {
                self.record(output, Kind::ClosedCleanly, Event::closed_cleanly);
                self.stage = Stage::Over;
            }
            Stage::Closing => {
                let text = error.to_string();
                self.record(output, Kind::RemoteDropped, |time, id| {
                    Event::remote_dropped(time, id, text)
                });
                self.stage = Stage::Over;
            }
            Stage::Failing => self.stage = Stage::Over,
            _ => self.fail(output, Error::Io(error)),
        }
    }

    /// Time has passed. `Some` asks the reactor for the first step of an attempt.
    pub(crate) fn handle_deadline(
        &mut self,
        output: &mut Output<'_>,
        inbound: &mut Inbound,
    ) -> Step {
        self.handle_liveness(output);
        self.depart(output);
        if self.deadline.is_none_or(|deadline| output.seen < deadline) {
            let due = self.reach.as_mut().and_then(|reach| reach.due(output.now));
            return due.map_or(Step::Wait, |address| self.connect(output, address));
        }
        self.deadline = None;
        // A Close frame has waited long enough for the messages before it.
        if self.send_waiting_close(output) {
            return Step::Wait;
        }
        let timeouts = self.target.options.timeouts;
        let (timer, stage, limit) = match self.stage {
            Stage::BackOff => return Step::Admit,
            Stage::Closing | Stage::Closed => {
                self.record(output, Kind::TimerFired, |time, id| {
                    Event::timer_fired(time, id, kind::Timer::CloseDeadline)
                });
                self.record(output, Kind::ForcedClosed, Event::forced_closed);
                self.stage = Stage::Over;
                return Step::Wait;
            }
            Stage::Failing => {
                self.stage = Stage::Over;
                return Step::Wait;
            }
            Stage::Resolving => (
                kind::Timer::ConnectDeadline,
                ErrorStage::Resolve,
                timeouts.resolve,
            ),
            Stage::Connecting => (kind::Timer::ConnectDeadline, ErrorStage::Tcp, timeouts.tcp),
            Stage::Tunnelling => (
                kind::Timer::HandshakeDeadline,
                ErrorStage::Proxy,
                timeouts.proxy,
            ),
            Stage::Securing => (
                kind::Timer::HandshakeDeadline,
                ErrorStage::Tls,
                timeouts.tls,
            ),
            Stage::Upgrading => (
                kind::Timer::HandshakeDeadline,
                ErrorStage::Upgrade,
                timeouts.upgrade,
            ),
            Stage::Queued | Stage::Open | Stage::Over | Stage::Ended => return Step::Wait,
        };
        self.record(output, Kind::TimerFired, |time, id| {
            Event::timer_fired(time, id, timer)
        });
        // Which of the two it was: the stage's own, or that of the whole attempt.
        let began = self
            .reach
            .as_ref()
            .map_or(output.now, |reach| reach.began());
        let limit = if output.now.since(began) >= timeouts.whole {
            timeouts.whole
        } else {
            limit
        };
        // A refusal whose body does not end is a refusal all the same.
        let error = match inbound.finish_handshake() {
            Some(error @ HandshakeError::Rejected(_)) => Error::Handshake(error),
            _ => Error::Timeout { stage, limit },
        };
        self.fail(output, error);
        Step::Wait
    }

    /// Nothing more to say: the TCP connection is to be dropped.
    pub(super) fn end_with(&mut self, reason: DisconnectReason) {
        self.set_ending(reason);
        self.deadline = None;
        self.stage = Stage::Over;
    }

    /// The time for an orderly end is over: drops the connection for whatever reason it has, or because
    /// this side wants it so.
    pub(crate) fn handle_drain_deadline(&mut self, output: &mut Output<'_>) {
        if self.stage != Stage::Ended {
            self.record(output, Kind::TimerFired, |time, id| {
                Event::timer_fired(time, id, kind::Timer::DrainDeadline)
            });
            if matches!(self.stage, Stage::Closing | Stage::Closed) {
                self.record(output, Kind::ForcedClosed, Event::forced_closed);
            }
            self.drop_now();
        }
    }

    /// Nothing is waited for any more: the reason is what it is by now.
    pub(super) fn drop_now(&mut self) {
        let reason = self.take_ending().unwrap_or(DisconnectReason::Local {
            code: None,
            reason: String::new(),
        });
        self.end_with(reason);
    }
}

/// For the trace: what the watch is called there.
fn timer_of(watch: Watch) -> kind::Timer {
    match watch {
        Watch::Pong => kind::Timer::PongDeadline,
        Watch::Answer => kind::Timer::ApplicationPongDeadline,
        Watch::AnyByte => kind::Timer::AnyByteWatchdog,
        Watch::Data => kind::Timer::DataWatchdog,
        Watch::FirstData => kind::Timer::FirstDataWatchdog,
    }
}
