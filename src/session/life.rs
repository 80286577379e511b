//! The stages of a connection, their deadlines, and what moves it from one to the next.
//!
//! Before this comes the reactor, which reports what the sockets did; after it, on the way in, the
//! decoder, and on the way out [`outbound`](super::outbound).

use super::options::Target;
use super::outbound::{Output, WaitingPong};
use super::reason::DisconnectReason;
use super::redirect;
use super::timers::Timers;
use super::{Inbound, Time};
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
    connecting: Option<Box<Connecting>>,
    /// Why the connection ends, once that is known.
    pub(super) ending: Option<Box<DisconnectReason>>,
    /// Both Close frames were exchanged.
    pub(crate) clean: bool,
}

/// What is needed only while connecting.
struct Connecting {
    addresses: Vec<SocketAddr>,
    /// The next one to try.
    next: usize,
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
            connecting: None,
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
        match (self.deadline, self.timers.next()) {
            (Some(deadline), Some(timer)) => Some(deadline.min(timer)),
            (deadline, timer) => deadline.or(timer),
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
        self.deadline = Some(output.now.after(self.target.options.connect_timeout));
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
        let result = result.and_then(|addresses| {
            if addresses.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "it has none"));
            }
            Ok(addresses)
        });
        match result {
            Ok(addresses) => {
                let (count, first) = (addresses.len() as u64, addresses[0]);
                self.record(output, Kind::Resolved, |time, id| {
                    Event::resolved(time, id, count, first)
                });
                self.connect_to(output, addresses)
            }
            Err(source) => {
                let host = self.target.url.host_str().to_owned();
                self.fail(output, Error::Resolve { host, source });
                Step::Wait
            }
        }
    }

    fn connect_to(&mut self, output: &mut Output<'_>, addresses: Vec<SocketAddr>) -> Step {
        let first = addresses[0];
        self.connecting = Some(Box::new(Connecting { addresses, next: 1 }));
        self.stage = Stage::Connecting;
        self.record(output, Kind::TcpConnecting, |time, id| {
            Event::tcp_connecting(time, id, first)
        });
        Step::Connect(first)
    }

    /// The TCP connection to `address` did not come about: on to the next one, if there is one.
    pub(crate) fn handle_connect_error(
        &mut self,
        output: &mut Output<'_>,
        address: SocketAddr,
        source: io::Error,
    ) -> Step {
        if let Some(connecting) = &mut self.connecting
            && let Some(&next) = connecting.addresses.get(connecting.next)
        {
            connecting.next += 1;
            self.record(output, Kind::TcpConnecting, |time, id| {
                Event::tcp_connecting(time, id, next)
            });
            return Step::Connect(next);
        }
        self.fail(output, Error::Connect { address, source });
        Step::Wait
    }

    /// The TCP connection to `address` stands; the handshakes have their own deadline.
    pub(crate) fn handle_connected(&mut self, output: &mut Output<'_>, address: SocketAddr) {
        self.connecting = None;
        self.deadline = Some(output.now.after(self.target.options.handshake_timeout));
        self.stage = Stage::Securing;
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
        if self.deadline.is_none_or(|deadline| output.now < deadline) {
            return Step::Wait;
        }
        self.deadline = None;
        let options = &self.target.options;
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
                options.connect_timeout,
            ),
            Stage::Connecting => (
                kind::Timer::ConnectDeadline,
                ErrorStage::Tcp,
                options.connect_timeout,
            ),
            Stage::Securing => (
                kind::Timer::HandshakeDeadline,
                ErrorStage::Tls,
                options.handshake_timeout,
            ),
            Stage::Upgrading => (
                kind::Timer::HandshakeDeadline,
                ErrorStage::Upgrade,
                options.handshake_timeout,
            ),
            Stage::Open | Stage::Over | Stage::Ended => return Step::Wait,
        };
        self.record(output, Kind::TimerFired, |time, id| {
            Event::timer_fired(time, id, timer)
        });
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
        self.connecting = None;
        self.deadline = None;
        self.queued = 0;
        self.pong = None;
        self.ending
            .take()
            .map_or(DisconnectReason::Dropped, |reason| *reason)
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
