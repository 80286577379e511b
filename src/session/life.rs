//! The stages of a connection, their deadlines, and what moves it from one to the next.
//!
//! Before this comes the reactor, which reports what the sockets did; after it, on the way in, the
//! decoder, and on the way out [`outbound`](super::outbound).

use super::liveness::{Due, Heard, Liveness, Watch};
use super::options::Target;
use super::outbound::{Compression, Output, WaitingPong};
use super::policy;
use super::reach::{Next, Reach, StageTimes};
use super::reason::DisconnectReason;
use super::redirect;
use super::timers::Timers;
use super::{Entropy, Inbound, Time};
use crate::error::{Error, Stage as ErrorStage};
use crate::protocol::Role;
use crate::protocol::decoder::Decoder;
use crate::protocol::deflate::Agreed;
use crate::protocol::frame::OpCode;
use crate::protocol::handshake::{ClientHandshake, HandshakeError, Misbehaviour, Response};
use crate::protocol::url::Host;
use crate::trace::event::Event;
use crate::trace::kind::{self, Callback, Kind, Level};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The host's name is looked up.
    Resolving,
    /// The TCP handshake is under way.
    Connecting,
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
    /// For the trace: the callback that runs, or ran last.
    pub(crate) callback: Callback,
    /// Some of a run of refused sends was recorded already.
    pub(super) dropping: bool,
    /// The kind of the fragmented message that is being sent.
    pub(super) sending: Option<OpCode>,
    /// Attempts since the connection was last open, the one under way included.
    pub(crate) attempt: u32,
    /// How often the connection was opened.
    pub(crate) epoch: u64,
    /// Bytes of output that wait for the socket.
    pub(crate) queued: usize,
    /// When the stage has taken too long, or the back-off is over.
    pub(super) deadline: Option<Time>,
    pub(super) pong: Option<Box<WaitingPong>>,
    /// What was negotiated of permessage-deflate.
    pub(super) deflate: Option<Agreed>,
    pub(crate) timers: Timers,
    pub(crate) target: Target,
    /// The request's own target, while a redirect is followed.
    redirected_from: Option<Box<Target>>,
    /// Redirects followed in this attempt.
    redirects: u8,
    /// The attempt under way.
    pub(super) reach: Option<Box<Reach>>,
    /// When the peer was last heard of.
    pub(crate) heard: Heard,
    liveness: Option<Box<Liveness>>,
    /// Failures in a row, for the back-off; a connection that was no good counts.
    failures: u32,
    /// The handler, or another thread, wants nothing more to be read for now.
    pub(crate) paused: bool,
    /// The queue has reached its high-water mark, and not yet fallen to the low one.
    pub(crate) high_water: bool,
    /// Why the connection ends, once that is known.
    pub(super) ending: Option<Box<DisconnectReason>>,
    /// Both Close frames were exchanged.
    pub(crate) clean: bool,
}

impl Life {
    /// A connection whose first attempt begins at `now`, with the first deadline.
    pub(crate) fn new(id: u64, target: Target, level: Level, now: Time) -> Self {
        Self {
            id,
            stage: Stage::BackOff,
            level: target.options.level.unwrap_or(level),
            callback: Callback::OnOpen,
            dropping: false,
            sending: None,
            attempt: 0,
            epoch: 0,
            queued: 0,
            deadline: Some(now),
            pong: None,
            deflate: None,
            timers: Timers::default(),
            target,
            redirected_from: None,
            redirects: 0,
            reach: None,
            heard: Heard::default(),
            liveness: None,
            failures: 0,
            paused: false,
            high_water: false,
            ending: None,
            clean: false,
        }
    }

    /// The name that the user gave, for the trace.
    pub(crate) fn name(&self) -> Option<&str> {
        self.target.options.name.as_deref()
    }

    /// Records an event if the level asks for its kind.
    #[inline]
    pub(crate) fn record(
        &self,
        output: &mut Output<'_>,
        kind: Kind,
        event: impl FnOnce(u64, u64) -> Event,
    ) {
        if self.level.records(kind) {
            let event = event(output.now.nanoseconds(), self.id);
            output.trace.record(event, self.name());
        }
    }

    /// Changes the trace level; the change itself is recorded, and so is the gap before it.
    pub(crate) fn set_level(&mut self, output: &mut Output<'_>, level: Level) {
        self.level = level;
        self.record(output, Kind::LevelChanged, |time, id| {
            Event::level_changed(time, id, level)
        });
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
        [self.deadline, self.timers.next(), lively, next_address]
            .into_iter()
            .flatten()
            .min()
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
            self.heard.any_byte = output.now;
            self.heard.data = self.heard.data.map(|_| output.now);
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
    pub(crate) fn handle_pong(&mut self, payload: &[u8], now: Time) {
        if let Some(liveness) = &mut self.liveness {
            liveness.handle_pong(payload, now);
        }
    }

    /// Does what heartbeats and watchdogs ask for.
    fn handle_liveness(&mut self, output: &mut Output<'_>) {
        while self.watches()
            && let Some(liveness) = &mut self.liveness
        {
            let options = &self.target.options.liveness;
            match liveness.due(options, &self.heard, output.now, output.entropy) {
                None => return,
                // A full queue refuses it; then the missing answer says so.
                Some(Due::Ping(payload)) => {
                    let _ = self.send_control(output, None, OpCode::Ping, &payload);
                }
                Some(Due::Text(text)) => {
                    let plain = Compression::Never;
                    let _ = self.send(output, None, plain, OpCode::Text, text.as_bytes());
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

    /// Begins an attempt to connect.
    pub(crate) fn begin_attempt(&mut self, output: &mut Output<'_>) -> Step {
        if self.redirects == 0 {
            self.attempt = self.attempt.saturating_add(1);
        }
        self.clean = false;
        self.sending = None;
        self.queued = 0;
        self.pong = None;
        self.ending = None;
        let attempt = u64::from(self.attempt);
        let url = self.target.url.clone();
        let server = url.host_header();
        if self.epoch == 0 && self.attempt == 1 {
            self.record(output, Kind::Connecting, |time, id| {
                Event::connecting(time, id, attempt, server)
            });
        } else {
            self.record(output, Kind::Reconnecting, |time, id| {
                Event::reconnecting(time, id, attempt, server)
            });
        }
        self.reach = Some(Box::new(Reach::new(output.now)));
        self.limit_stage(output.now, self.target.options.timeouts.resolve);
        let given = &self.target.options.connect_to;
        if !given.is_empty() {
            let addresses = given.clone();
            return self.connect_to(output, addresses);
        }
        let address = match url.host() {
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
            Host::Name(_) => {
                self.stage = Stage::Resolving;
                return Step::Resolve;
            }
        };
        let address = SocketAddr::new(address, url.port());
        self.connect_to(output, vec![address])
    }

    /// The name was looked up.
    pub(crate) fn handle_resolved(
        &mut self,
        output: &mut Output<'_>,
        result: io::Result<Vec<SocketAddr>>,
    ) -> Step {
        if self.stage != Stage::Resolving {
            return Step::Wait;
        }
        match result {
            Ok(addresses) if !addresses.is_empty() => {
                let (count, first) = (addresses.len() as u64, addresses[0]);
                self.record(output, Kind::Resolved, |time, id| {
                    Event::resolved(time, id, count, first)
                });
                if let Some(reach) = &mut self.reach {
                    reach.times.resolve = reach.lap(output.now);
                }
                self.connect_to(output, addresses)
            }
            result => {
                let none = || io::Error::new(io::ErrorKind::NotFound, "it has none");
                let source = result.err().unwrap_or_else(none);
                let host = self.target.url.host_str().to_owned();
                self.fail(output, Error::Resolve { host, source });
                Step::Wait
            }
        }
    }

    /// The stage that begins has this long, if the whole attempt has.
    fn limit_stage(&mut self, now: Time, limit: Duration) {
        let whole = self.target.options.timeouts.whole;
        let end = self
            .reach
            .as_ref()
            .map_or(now, |reach| reach.began())
            .after(whole);
        self.deadline = Some(now.after(limit).min(end));
    }

    fn connect_to(&mut self, output: &mut Output<'_>, addresses: Vec<SocketAddr>) -> Step {
        self.stage = Stage::Connecting;
        self.limit_stage(output.now, self.target.options.timeouts.tcp);
        let reach = self.reach.as_mut().expect("an attempt is under way");
        match reach.race(addresses, output.now) {
            Ok(first) => self.connect(output, first),
            Err(error) => {
                self.fail(output, Error::Io(error));
                Step::Wait
            }
        }
    }

    fn connect(&mut self, output: &mut Output<'_>, address: SocketAddr) -> Step {
        self.record(output, Kind::TcpConnecting, |time, id| {
            Event::tcp_connecting(time, id, address)
        });
        Step::Connect(address)
    }

    /// The TCP connection to `address` did not come about: on to the next one, if there is one.
    pub(crate) fn handle_connect_error(
        &mut self,
        output: &mut Output<'_>,
        address: SocketAddr,
        source: io::Error,
    ) -> Step {
        let Some(reach) = &mut self.reach else {
            return Step::Wait;
        };
        match reach.handle_error(output.now) {
            Next::Connect(address) => self.connect(output, address),
            Next::Wait => Step::Wait,
            Next::Failed => {
                self.fail(output, Error::Connect { address, source });
                Step::Wait
            }
        }
    }

    /// The TCP connection to `address` stands; the handshakes have their own deadline.
    pub(crate) fn handle_connected(&mut self, output: &mut Output<'_>, address: SocketAddr) {
        if let Some(reach) = &mut self.reach {
            reach.handle_connected();
            reach.times.tcp = reach.lap(output.now);
        }
        self.stage = Stage::Securing;
        self.limit_stage(output.now, self.target.options.timeouts.tls);
        self.record(output, Kind::TcpConnected, |time, id| {
            Event::tcp_connected(time, id, address)
        });
    }

    /// The way is free, through TLS or without: writes the request of RFC 6455 §4.1.
    ///
    /// # Errors
    /// A request that cannot be written; the user's setters have refused it before.
    pub(crate) fn begin_upgrade(&mut self, output: &mut Output<'_>) -> Result<Inbound, Error> {
        self.stage = Stage::Upgrading;
        self.limit_stage(output.now, self.target.options.timeouts.upgrade);
        if let Some(reach) = &mut self.reach
            && self.target.url.is_secure()
        {
            reach.times.tls = reach.lap(output.now);
        }
        let Target { url, options } = &self.target;
        let offer = options.deflate.map(|deflate| deflate.offer());
        let head = self.target.request_head(offer.as_deref());
        let mut request = Vec::with_capacity(512);
        let nonce = output.entropy.take();
        let limits = options.handshake_limits;
        let handshake = ClientHandshake::new(&head, nonce, limits, &mut request)?;
        output.frames.extend(&request);
        let server = url.host_header();
        self.record(output, Kind::Upgrading, |time, id| {
            Event::upgrading(time, id, server)
        });
        Ok(Inbound::Upgrading(Box::new(handshake)))
    }

    /// The opening handshake is done: frames from here on.
    ///
    /// # Errors
    /// An answer to the offer of permessage-deflate that does not fit it.
    pub(crate) fn handle_upgraded(
        &mut self,
        output: &mut Output<'_>,
        response: &Response,
    ) -> Result<Inbound, Error> {
        let options = &self.target.options;
        let decoder = Decoder::new(Role::Client, options.limits);
        self.deflate = match &options.deflate {
            None => None,
            Some(offer) => offer
                .accept(response.extensions())
                .map_err(|error| Error::Handshake(Misbehaviour::Deflate(error).into()))?,
        };
        self.stage = Stage::Open;
        self.deadline = None;
        self.redirects = 0;
        self.attempt = 0;
        self.paused = false;
        self.high_water = false;
        self.heard = Heard::open(output.now);
        if let Some(reach) = &mut self.reach {
            reach.times.upgrade = reach.lap(output.now);
        }
        let liveness = &self.target.options.liveness;
        self.liveness = (!liveness.is_empty())
            .then(|| Box::new(Liveness::new(liveness, output.now, output.entropy)));
        self.epoch += 1;
        let (epoch, agreed) = (self.epoch, response.subprotocol().unwrap_or(""));
        if epoch == 1 {
            self.record(output, Kind::Connected, |time, id| {
                Event::connected(time, id, epoch, agreed)
            });
        } else {
            self.record(output, Kind::Reconnected, |time, id| {
                Event::reconnected(time, id, epoch, agreed)
            });
        }
        Ok(Inbound::Open(match &self.deflate {
            None => decoder,
            Some(agreed) => decoder.with_deflate(agreed),
        }))
    }

    /// The peer ended its side of the TCP connection.
    pub(crate) fn handle_end_of_stream(&mut self, output: &mut Output<'_>, inbound: &mut Inbound) {
        match self.stage {
            Stage::Upgrading => {
                if let Some(error) = inbound.finish_handshake() {
                    self.fail(output, Error::Handshake(error));
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
            Stage::Closing | Stage::Failing => self.stage = Stage::Over,
            // Pitfall 15: after both Close frames any end of the stream is a good one.
            Stage::Closed => {
                self.record(output, Kind::ClosedCleanly, Event::closed_cleanly);
                self.stage = Stage::Over;
            }
            Stage::Resolving | Stage::Over | Stage::BackOff | Stage::Ended => {}
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
            Stage::Closing | Stage::Failing => self.stage = Stage::Over,
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
        if self.deadline.is_none_or(|deadline| output.now < deadline) {
            let due = self.reach.as_mut().and_then(|reach| reach.due(output.now));
            return due.map_or(Step::Wait, |address| self.connect(output, address));
        }
        self.deadline = None;
        let timeouts = self.target.options.timeouts;
        let (timer, stage, limit) = match self.stage {
            Stage::BackOff => return self.begin_attempt(output),
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
            Stage::Open | Stage::Over | Stage::Ended => return Step::Wait,
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
        self.ending = Some(Box::new(reason));
        self.deadline = None;
        self.stage = Stage::Over;
    }

    /// Drops the connection for whatever reason it has, or because this side wants it so.
    pub(crate) fn abort(&mut self) {
        if self.stage != Stage::Ended {
            let reason = self.ending.take().map_or(
                DisconnectReason::Local {
                    code: None,
                    reason: String::new(),
                },
                |reason| *reason,
            );
            self.end_with(reason);
        }
    }

    /// After an attempt that the server has redirected: the next one goes there, at once and without
    /// asking the handler. False if there was no redirect, or none that may be followed.
    pub(crate) fn follow_redirect(&mut self, output: &mut Output<'_>) -> bool {
        let next = match self.ending.as_deref() {
            Some(DisconnectReason::ConnectFailed(Error::Handshake(HandshakeError::Rejected(
                rejection,
            )))) if self.redirects < self.target.options.max_redirects => {
                redirect::follow(&self.target, rejection)
            }
            _ => None,
        };
        let Some(next) = next else {
            self.redirects = 0;
            if let Some(target) = self.redirected_from.take() {
                self.target = *target;
            }
            return false;
        };
        self.redirects += 1;
        let url = next.url.clone();
        let from = std::mem::replace(&mut self.target, next);
        self.redirected_from.get_or_insert_with(|| Box::new(from));
        self.ending = None;
        self.stage = Stage::BackOff;
        self.deadline = Some(output.now);
        self.record(output, Kind::ReconnectScheduled, |time, id| {
            let server = format_args!("redirected to {}", url.host_header());
            Event::reconnect_scheduled(time, id, 0, server)
        });
        true
    }

    /// Why it ended. The reactor has dropped the TCP connection.
    pub(crate) fn take_reason(&mut self) -> DisconnectReason {
        self.dropping = false;
        self.liveness = None;
        self.deadline = None;
        self.queued = 0;
        self.pong = None;
        self.ending
            .take()
            .map_or(DisconnectReason::Dropped, |reason| *reason)
    }

    /// How long the stages of the attempt took that is under way, or was the last.
    pub(crate) fn stage_times(&self) -> StageTimes {
        self.reach
            .as_ref()
            .map_or_else(StageTimes::default, |reach| reach.times)
    }

    /// The attempt is over, and everybody who wanted to know has been told.
    pub(crate) fn end_attempt(&mut self) {
        self.reach = None;
    }

    /// What the policy would do after `reason`: connect again after this time, or never.
    pub(crate) fn policy_delay(
        &mut self,
        reason: &DisconnectReason,
        entropy: &mut Entropy,
    ) -> Option<Duration> {
        let policy = &self.target.options.reconnect;
        let asked = match reason {
            DisconnectReason::Local { .. } => return None,
            DisconnectReason::ConnectFailed(error) => {
                self.failures = self.failures.saturating_add(1);
                match error {
                    Error::Handshake(HandshakeError::Rejected(rejection)) => {
                        policy::retry_after(rejection)
                    }
                    _ => None,
                }
            }
            _ => {
                let good = self
                    .heard
                    .data_span()
                    .is_some_and(|span| policy.resets(span));
                self.failures = if good {
                    0
                } else {
                    self.failures.saturating_add(1)
                };
                None
            }
        };
        let delay = policy.delay(self.failures, entropy)?;
        Some(delay.max(asked.unwrap_or_default()))
    }

    /// The next attempt comes after `delay`, or never.
    pub(crate) fn plan(
        &mut self,
        output: &mut Output<'_>,
        delay: Option<Duration>,
        reason: DisconnectReason,
    ) {
        let Some(delay) = delay else {
            self.ending = Some(Box::new(reason));
            self.stage = Stage::Ended;
            return;
        };
        self.stage = Stage::BackOff;
        self.deadline = Some(output.now.after(delay));
        let nanoseconds = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.record(output, Kind::ReconnectScheduled, |time, id| {
            Event::reconnect_scheduled(time, id, nanoseconds, &reason)
        });
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
