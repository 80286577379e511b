//! One connection's turn: what the poll, a timer or a command said, carried out on its socket, its
//! session and its handler, and then settled: written, re-armed, published, or ended.

use super::dispatch::Core;
use super::link::{Link, LinkWire, More};
use super::remote::{OwnedMessage, Written};
use super::resolver::Waiter;
use super::slots::Availability;
use super::socket;
use super::{Shared, Supervisor};
use crate::error::DisconnectReason;
use crate::error::{Error, SendError};
use crate::handler::{ConnectionId, Handler, Message, Reconnect};
use crate::protocol::close::CloseFrame;
use crate::request::Request;
use crate::session::outbound::Compression;
use crate::session::{Inbound, Life, Session, Stage, Step, Time, Wire};
#[cfg(feature = "tls")]
use crate::tls::{Tls, TlsConfig};
use crate::trace::event::Event as TraceEvent;
use crate::trace::kind::{Callback, Kind};
use mio::event::Event;
use mio::{Interest, Token};
use std::any::Any;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// Reads of one connection in one turn; then the others have theirs (pitfall 23).
const READS_PER_TURN: usize = 4;

pub(super) struct Connection {
    pub(super) core: Core,
    link: Option<Link>,
    /// Sockets that race to be the link, each with its token (RFC 8305).
    racing: Vec<(Token, Link)>,
    /// Of the socket, new with each: an event for an earlier one is not taken for this one's.
    pub(super) token: Token,
    /// The entry in the timers that counts.
    pub(super) armed: Option<Time>,
    /// Reading was paused when the last turn ended.
    paused: bool,
    /// On the ready list: there is more to read than a turn's share.
    pub(super) ready: bool,
    /// Who waits until all output is written.
    unwritten: Vec<Written>,
    pub(super) supervisor: Option<Box<Supervisor>>,
    /// The look-up whose answer is awaited.
    lookup: u64,
    #[cfg(feature = "tls")]
    tls: Option<TlsConfig>,
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
        let life = Life::new(id.0, request.target, shared.level, shared.turn.now);
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

    fn life(&mut self) -> &mut Life {
        &mut self.core.session.life
    }

    /// The poll reported the socket.
    pub(super) fn handle_event(&mut self, shared: &mut Shared, event: &Event) {
        let ended = event.is_read_closed() || event.is_error();
        let readable = event.is_readable() || ended;
        let writable = event.is_writable() || event.is_error();
        if event.token() != self.token {
            let racer = self
                .racing
                .iter()
                .position(|(token, _)| *token == event.token());
            // Pitfall 24: an event of a socket that is gone finds nobody here.
            let Some(racer) = racer else {
                return;
            };
            if !self.handle_racer(shared, racer) {
                return;
            }
        }
        if let Some(link) = &mut self.link {
            link.peer_ended |= ended;
        }
        if writable {
            self.flush(shared);
        }
        if readable {
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

    /// Does what the session asks for, until it asks for nothing.
    fn perform(&mut self, shared: &mut Shared, mut step: Step) {
        loop {
            step = match step {
                Step::Wait => return,
                Step::Resolve => {
                    shared.lookups += 1;
                    self.lookup = shared.lookups;
                    let url = &self.core.session.life.target.url;
                    let waiter = Waiter {
                        id: self.core.id,
                        number: self.lookup,
                        port: url.port(),
                    };
                    let now = shared.turn.now;
                    let result = match shared.resolver.resolve(url.host_str(), waiter, now) {
                        Ok(None) => return,
                        Ok(Some(addresses)) => Ok(addresses),
                        Err(error) => Err(error),
                    };
                    let (mut output, _) = shared.turn.split(None);
                    self.life().handle_resolved(&mut output, result)
                }
                Step::Connect(address) => match self.open_socket(shared, address) {
                    Ok(()) => return,
                    Err(error) => {
                        let (mut output, _) = shared.turn.split(None);
                        self.life()
                            .handle_connect_error(&mut output, address, error)
                    }
                },
            };
        }
    }

    fn open_socket(&mut self, shared: &mut Shared, address: SocketAddr) -> io::Result<()> {
        let options = &self.core.session.life.target.options.socket;
        let mut stream = socket::connect(address, options)?;
        let token = shared.next_token(self.core.id);
        // Edge-triggered, once for the socket's life (pitfall 31).
        let interest = Interest::READABLE | Interest::WRITABLE;
        shared.registry.register(&mut stream, token, interest)?;
        self.racing.push((token, Link::new(stream, address)));
        Ok(())
    }

    /// A socket that tries to connect was reported; true when it has, and so has won the race.
    fn handle_racer(&mut self, shared: &mut Shared, racer: usize) -> bool {
        let Some(outcome) = self.racing[racer].1.connected() else {
            return false;
        };
        let (token, mut link) = self.racing.swap_remove(racer);
        let address = link.address;
        match outcome {
            Ok(()) => {
                self.drop_racers(shared);
                self.token = token;
                self.link = Some(link);
                self.core.peer = Some(address);
                let (mut output, _) = shared.turn.split(None);
                self.life().handle_connected(&mut output, address);
                self.begin_handshakes(shared);
                true
            }
            Err(error) => {
                let _ = shared.registry.deregister(&mut link.stream);
                let (mut output, _) = shared.turn.split(None);
                let step = self
                    .life()
                    .handle_connect_error(&mut output, address, error);
                self.perform(shared, step);
                false
            }
        }
    }

    fn drop_racers(&mut self, shared: &mut Shared) {
        for (_, mut link) in self.racing.drain(..) {
            // Dropping the socket would do it too, but a poll that counts on it is told.
            let _ = shared.registry.deregister(&mut link.stream);
        }
    }

    fn begin_handshakes(&mut self, shared: &mut Shared) {
        #[cfg(feature = "tls")]
        if self.core.session.life.target.url.is_secure() {
            if let Err(error) = self.begin_tls(shared) {
                let (mut output, _) = shared.turn.split(None);
                self.life().fail(&mut output, error);
            }
            return;
        }
        // Refused before any I/O, unless a handler has asked for it with `Reconnect::To`, or a
        // server with a redirect. What is meant for TLS must never be written without.
        #[cfg(not(feature = "tls"))]
        if self.core.session.life.target.url.is_secure() {
            let (mut output, _) = shared.turn.split(None);
            self.life().fail(&mut output, Error::TlsUnavailable);
            return;
        }
        self.begin_upgrade(shared);
    }

    fn begin_upgrade(&mut self, shared: &mut Shared) {
        let (mut output, _) = shared.turn.split(None);
        let Session { inbound, life } = &mut self.core.session;
        match life.begin_upgrade(&mut output) {
            Ok(upgrading) => *inbound = upgrading,
            Err(error) => life.fail(&mut output, error),
        }
    }

    #[cfg(feature = "tls")]
    fn begin_tls(&mut self, shared: &mut Shared) -> Result<(), Error> {
        let config = match &self.tls {
            Some(config) => config,
            None => shared.tls_config()?,
        };
        let tls = Tls::new(config, self.core.session.life.target.url.host())?;
        let link = self
            .link
            .as_mut()
            .expect("TLS begins on a connected socket");
        link.tls = Some(Box::new(tls));
        link.decrypt(&mut [], &mut shared.spare, |_| {})?;
        Ok(())
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

    /// Reads what there is, up to a turn's share, and delivers it.
    pub(super) fn receive(&mut self, shared: &mut Shared) {
        // Lent out of `shared` for the time, so that both can be used.
        let mut buffer = std::mem::take(&mut shared.receive);
        let mut reads = 0;
        while self.reads() {
            if reads == READS_PER_TURN {
                // No edge will come for what is left: remember it (pitfall 22).
                if !self.ready {
                    self.ready = true;
                    shared.ready.push(self.core.id);
                }
                break;
            }
            reads += 1;
            self.core.session.life.heard.any_byte = shared.turn.now;
            match self.receive_once(shared, &mut buffer) {
                Ok(More::Perhaps) => {}
                Ok(More::Drained) => break,
                Ok(More::Ended) => {
                    let (mut output, _) = shared.turn.split(None);
                    let Session { inbound, life } = &mut self.core.session;
                    life.handle_end_of_stream(&mut output, inbound);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let (mut output, _) = shared.turn.split(None);
                    self.life().handle_io_error(&mut output, error);
                    break;
                }
            }
        }
        shared.receive = buffer;
        let mut wire = self.link.as_mut().map(|link| LinkWire {
            link,
            spare: &mut shared.spare,
        });
        let wire = wire.as_mut().map(|wire| wire as &mut dyn Wire);
        self.core.end_batch(&mut shared.turn, wire);
    }

    /// Is there anybody to read for?
    fn reads(&self) -> bool {
        self.link.is_some()
            && !(self.core.session.life.paused && self.core.session.life.stage == Stage::Open)
            && matches!(
                self.core.session.life.stage,
                Stage::Securing
                    | Stage::Upgrading
                    | Stage::Open
                    | Stage::Closing
                    | Stage::Closed
                    | Stage::Failing
            )
    }

    fn receive_once(&mut self, shared: &mut Shared, buffer: &mut [u8]) -> io::Result<More> {
        let link = self.link.as_mut().expect("`reads` has checked it");
        #[cfg(feature = "tls")]
        if link.tls.is_some() {
            return self.receive_tls(shared, buffer);
        }
        let room = match &mut self.core.session.inbound {
            Inbound::Open(decoder) => decoder.room(),
            _ => None,
        };
        let in_room = room.as_ref().map_or(0, |room| room.len());
        let asked = in_room + buffer.len();
        let length = link.read(room, buffer)?;
        if length == 0 {
            return Ok(More::Ended);
        }
        let direct = length.min(in_room);
        if direct > 0
            && let Inbound::Open(decoder) = &mut self.core.session.inbound
            && let Err(error) = decoder.received(direct)
        {
            let outcome = Ok(Err(Error::Protocol(error)));
            self.core.conclude(&mut shared.turn, None, outcome);
        }
        let mut wire = LinkWire {
            link,
            spare: &mut shared.spare,
        };
        let input = &buffer[..length - direct];
        self.core.deliver(&mut shared.turn, Some(&mut wire), input);
        Ok(link.more_after(length, asked))
    }

    #[cfg(feature = "tls")]
    fn receive_tls(&mut self, shared: &mut Shared, buffer: &mut [u8]) -> io::Result<More> {
        let link = self.link.as_mut().expect("`reads` has checked it");
        let start = link.partial.len();
        buffer[..start].copy_from_slice(link.partial.as_slice());
        let asked = buffer.len() - start;
        if asked == 0 {
            // A handshake message in so many small records that it does not fit.
            let error = Error::Tls("a handshake message is too long".into());
            let (mut output, _) = shared.turn.split(None);
            self.life().fail(&mut output, error);
            return Ok(More::Drained);
        }
        let length = link.read(None, &mut buffer[start..])?;
        if length == 0 {
            return Ok(More::Ended);
        }
        shared.spare.give(&mut link.partial);
        let incoming = &mut buffer[..start + length];
        let (core, turn) = (&mut self.core, &mut shared.turn);
        let received = link.decrypt(incoming, &mut shared.spare, |plain| {
            core.deliver(turn, None, plain);
        });
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                let (mut output, _) = shared.turn.split(None);
                self.life().fail(&mut output, error);
                return Ok(More::Perhaps);
            }
        };
        let rest = &incoming[received.consumed..];
        if !rest.is_empty() {
            link.partial = shared.spare.take();
            link.partial.extend(rest);
        }
        if self.core.session.life.stage == Stage::Securing {
            self.continue_tls(shared);
        }
        if received.ended {
            return Ok(More::Ended);
        }
        let link = self.link.as_ref().expect("only `settle` drops it");
        Ok(link.more_after(length, asked))
    }

    /// On to the opening handshake, if that of TLS is done.
    #[cfg(feature = "tls")]
    fn continue_tls(&mut self, shared: &mut Shared) {
        let Some(tls) = self.link.as_ref().and_then(|link| link.tls.as_ref()) else {
            return;
        };
        if tls.is_handshaking() {
            return;
        }
        let ((version, suite), resumed) = (tls.agreed(), tls.is_resumed());
        let (mut output, _) = shared.turn.split(None);
        self.life()
            .record(&mut output, Kind::TlsEstablished, |time, id| {
                if resumed {
                    TraceEvent::tls_resumed(time, id, version, suite)
                } else {
                    TraceEvent::tls_established(time, id, version, suite)
                }
            });
        self.begin_upgrade(shared);
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

    fn write_out(&mut self, shared: &mut Shared) {
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
        if life.stage == Stage::Failing {
            link.end();
        }
        if let Some(error) = link.take_error() {
            let (mut output, _) = shared.turn.split(None);
            match error {
                Error::Io(error) => life.handle_io_error(&mut output, error),
                error => life.fail(&mut output, error),
            }
        }
    }

    fn drop_link(&mut self, shared: &mut Shared) {
        self.drop_racers(shared);
        if let Some(mut link) = self.link.take() {
            #[cfg(feature = "tls")]
            link.close_notify(&mut shared.spare);
            let _ = shared.registry.deregister(&mut link.stream);
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
