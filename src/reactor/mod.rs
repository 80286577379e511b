//! The reactor: one thread, one poll, very many connections. The only floor that knows mio.
//!
//! ```text
//! poll -> event -> Connection::handle_event -> read -> [tls] -> decoder -> Handler
//!                              Connection::settle <- frames of the turn <- Context
//!                                      `-> one write, timers, ready list
//! ```
//!
//! - [`connection`]: one connection's turn; [`connect`] is how it gets its socket, [`admission`] when.
//! - [`receive`]: from the socket into the decoder.
//! - [`delivery`]: bytes to callbacks; [`dispatch`] guards them.
//! - [`casts`]: those that wait for a connection to open.
//! - [`link`]: the socket, TLS, and output that waits; [`socket`]: how it is opened.
//! - [`remote`]: commands from other threads; [`slots`] is what they may know.
//! - [`status`]: what is counted, and who may look.
//! - [`supervisor`]: the end of a connection, and what may begin anew in its place.
//! - [`timers`]: when to look at which connection again.
//! - [`polling`]: how to wait for news.
//! - [`resolver`]: names looked up on threads of their own.
//! - [`system`]: sockets, readiness and time, as the operating system gives them; [`kernel`]: what only
//!   Linux gives.

mod admission;
mod builder;
mod casts;
mod client;
mod connect;
mod connection;
mod delivery;
mod dispatch;
mod kernel;
mod link;
mod polling;
mod receive;
mod remote;
mod resolver;
#[cfg(test)]
mod simulator;
mod slots;
mod socket;
mod status;
mod supervisor;
mod system;
mod timers;

pub use builder::ReactorBuilder;
pub use client::Client;
pub use polling::Polling;
pub use remote::{OwnedMessage, Remote};
pub use status::{ConnectionState, ConnectionStatus, Connections};

use crate::error::Error;
use crate::handler::{ConnectionId, Handler};
use crate::protocol::buffer::Buffer;
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::decoder::Pool;
use crate::protocol::deflate::Deflaters;
use crate::protocol::mask;
use crate::request::{IntoRequest, Request};
use crate::session::admission::Gate;
use crate::session::supervision::Supervision;
use crate::session::{Entropy, Output, Time, Wire};
use crate::stats::tally::Tally;
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;
use crate::trace::recorder::Recorder;
use crate::trace::{Level, Ring};
use builder::EVENTS;
use casts::discard;
use connect::Approaches;
use connection::{Connection, Fate};
use kernel::Stamps;
use link::Spare;
use mio::{Events, Poll, Token};
use polling::Vigil;
use receive::ReceiveBuffer;
use remote::{Central, Command, Opened};
use resolver::{Answer, Resolver};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, mem};
use supervisor::{Supervisor, remove};
use system::{Clock, Network, Readiness};
use timers::Timers;

/// The tokens of the waker, of the alarm, and of a connection without a socket.
const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
const NO_TOKEN: Token = Token(usize::MAX - 2);

const FOREIGN_PACER: Error = Error::Refused("the request's pacer belongs to another reactor");
const SHUTTING_DOWN: Error = Error::Refused("the reactor is shutting down");

/// Many connections on one thread.
///
/// ```no_run
/// use websockex::{Context, Handler, HandlerResult, Message, Reactor};
///
/// struct Print;
///
/// impl Handler for Print {
///     fn on_message(&mut self, _cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
///         println!("{message:?}");
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), websockex::Error> {
/// let mut reactor = Reactor::new()?;
/// reactor.connect("wss://stream.example.com/ws", Print)?;
/// reactor.run()
/// # }
/// ```
pub struct Reactor {
    poll: Poll,
    events: Events,
    /// By slot.
    connections: Vec<Option<Box<Connection>>>,
    shared: Shared,
    /// Exchanged with the queue of commands, so that neither is allocated anew.
    commands: VecDeque<Command>,
    /// Likewise with the ready list.
    ready: Vec<ConnectionId>,
    stay_alive: bool,
    /// To which the thread is still to be pinned.
    core: Option<usize>,
    vigil: Vigil,
}

/// What the connections of a reactor share.
struct Shared {
    network: Network,
    central: Arc<Central>,
    resolver: Resolver,
    turn: Turn,
    spare: Spare,
    receive: ReceiveBuffer,
    stamps: Stamps,
    timers: Timers,
    /// Who may connect, and when.
    gate: Gate,
    approaches: Approaches,
    /// Connections whose TLS handshakes are to go on.
    #[cfg(feature = "tls")]
    handshakes: VecDeque<ConnectionId>,
    /// Connections that have more to read than their share of the last turn.
    ready: Vec<ConnectionId>,
    level: Level,
    sockets: u32,
    lookups: u64,
    /// When those still there are to be dropped.
    shutdown: Option<Time>,
    /// What the owner is to be told.
    escalated: VecDeque<Error>,
    #[cfg(feature = "tls")]
    tls: Option<TlsConfig>,
}

/// What a connection's turn works with.
struct Turn {
    central: Arc<Central>,
    clock: Clock,
    /// When the turn of the loop began.
    began: Time,
    /// When the poll was last asked for all there is: what had come until then is seen to in this turn.
    polled: Time,
    /// Read from the clock when a turn of the loop begins, and when a connection's turn has ended.
    now: Time,
    /// What the connection at work has sent.
    frames: Buffer,
    entropy: Box<Entropy>,
    masking: mask::Implementation,
    trace: Recorder,
    tally: Tally,
    /// Since when a handler has been at work, or may have been, and after it until when.
    lap: Time,
    /// One is at work in this connection's turn.
    handling: bool,
    /// One socket at most had news in the last turn of the loop, or more to read than its share.
    is_lone: bool,
    pool: Pool,
    deflaters: Deflaters,
}

impl Turn {
    fn read_clock(&mut self) {
        self.now = self.clock.now();
        (self.began, self.polled, self.lap) = (self.now, self.now, self.now);
    }

    /// What sending needs, and apart from it what receiving needs.
    fn split<'a, 'w: 'a>(
        &'a mut self,
        wire: Option<&'a mut (dyn Wire + 'w)>,
    ) -> (Output<'a>, &'a mut Pool) {
        let output = Output {
            now: self.now,
            seen: self.polled,
            frames: &mut self.frames,
            entropy: &mut self.entropy,
            masking: self.masking,
            trace: &mut self.trace,
            tally: &mut self.tally,
            deflaters: &mut self.deflaters,
            wire: wire.map(|wire| wire as &mut dyn Wire),
        };
        (output, &mut self.pool)
    }
}

impl Shared {
    fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// A token that tells this socket from all that its slot had before.
    fn next_token(&mut self, id: ConnectionId) -> Token {
        self.sockets = self.sockets.wrapping_add(1);
        let half = usize::BITS / 2;
        let number = self.sockets as usize & (usize::MAX >> (half + 1));
        Token(number << half | id.slot() as usize)
    }

    /// The reactor's own configuration, made when it is first needed.
    #[cfg(feature = "tls")]
    fn tls_config(&mut self) -> Result<&TlsConfig, Error> {
        match &mut self.tls {
            Some(config) => Ok(config),
            none => Ok(none.insert(TlsConfig::new()?)),
        }
    }
}

/// The slot that a token names.
fn slot(token: Token) -> usize {
    token.0 & (usize::MAX >> (usize::BITS / 2))
}

/// What can be known of a request before any I/O.
fn check_request(central: &Central, request: &Request) -> Result<(), Error> {
    request.validate()?;
    if !central.paces(request) {
        return Err(FOREIGN_PACER);
    }
    #[cfg(feature = "tls")]
    if request.target.url.is_secure() && request.tls.is_none() && !crate::tls::has_provider() {
        return Err(Error::TlsUnavailable);
    }
    #[cfg(not(feature = "tls"))]
    if request.target.url.is_secure() {
        return Err(Error::TlsUnavailable);
    }
    Ok(())
}

impl Reactor {
    /// A reactor with the defaults.
    ///
    /// # Errors
    /// As [`ReactorBuilder::build`].
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// Begins with the defaults.
    pub fn builder() -> ReactorBuilder {
        ReactorBuilder::new()
    }

    /// Connects. The first attempt begins with the next [`turn`](Self::turn), and whatever comes of
    /// it the handler's callbacks are told.
    ///
    /// # Errors
    /// Only what is wrong before any I/O: the URL, the request, a reactor that shuts down.
    pub fn connect(
        &mut self,
        request: impl IntoRequest,
        handler: impl Handler,
    ) -> Result<ConnectionId, Error> {
        let request = request.into_request()?;
        let id = self.reserve(&request)?;
        self.insert(id, request, Box::new(handler), None);
        Ok(id)
    }

    /// Connects with a handler from `factory`, and when the connection has ended for good starts it
    /// anew with another, as `supervision` says. When that says no more, the failure is an
    /// [`Error::Ended`] of [`run`](Self::run), and the other connections are still there.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn supervise<H: Handler>(
        &mut self,
        request: impl IntoRequest,
        supervision: Supervision,
        mut factory: impl FnMut() -> H + 'static,
    ) -> Result<ConnectionId, Error> {
        let request = request.into_request()?;
        // First, so that a panic here leaves no slot taken.
        let handler = Box::new(factory());
        let id = self.reserve(&request)?;
        let factory = Box::new(move || -> Box<dyn Handler> { Box::new(factory()) });
        let supervisor = Supervisor::new(supervision, request.clone(), factory);
        self.insert(id, request, handler, None);
        if let Some(Some(connection)) = self.connections.get_mut(id.slot() as usize) {
            connection.supervisor = Some(Box::new(supervisor));
        }
        Ok(id)
    }

    fn reserve(&mut self, request: &Request) -> Result<ConnectionId, Error> {
        check_request(&self.shared.central, request)?;
        if self.shared.is_shutting_down() {
            return Err(SHUTTING_DOWN);
        }
        self.shared.turn.read_clock();
        self.shared.central.slots().reserve_for(request)
    }

    /// Runs until no connection is left, or, if it was built to stay alive, until it is shut down.
    ///
    /// # Errors
    /// [`Error::Reactor`]: the poll failed. [`Error::Pin`]: the thread cannot be kept on the core that
    /// it was built for. [`Error::Ended`]: a linked connection has ended, or a supervised one too
    /// often; running again goes on with the others. What else happens to connections their handlers
    /// are told.
    pub fn run(&mut self) -> Result<(), Error> {
        self.pin()?;
        self.shared.turn.read_clock();
        while !self.is_done() {
            self.go_on(None)?;
        }
        Ok(())
    }

    /// Keeps this thread on the core that the reactor was built for, if it is not there yet.
    fn pin(&mut self) -> Result<(), Error> {
        if let Some(core) = self.core {
            // Before, so that these threads do not inherit it: they would wait for each other.
            let started = self.shared.resolver.start();
            started.map_err(Error::Reactor)?;
            kernel::pin(core).map_err(|source| Error::Pin { core, source })?;
            self.core = None;
        }
        Ok(())
    }

    /// Waits for something to happen, at most for `timeout`, and does all there is to do then: for
    /// programs with a loop of their own.
    ///
    /// # Errors
    /// As [`run`](Self::run), which alone pins.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        // Nobody knows when the last one was.
        if timeout.is_some() || self.vigil.needs_time() {
            self.shared.turn.read_clock();
        }
        self.go_on(timeout)
    }

    /// A turn right after the last one, or after the clock was read.
    fn go_on(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        match self.wait(timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(Error::Reactor(error)),
        }
        self.shared.turn.read_clock();
        let (mut news, mut woken) = (0, false);
        // A full poll is not all there is. Before anybody is taken for silent, each socket had a chance
        // to be heard. One poll more than they fill: the waker, the alarm and sockets that race are in them too.
        let mut is_full = true;
        for round in 0..=self.connections.len() / EVENTS + 1 {
            if round > 0 {
                // Here and not behind the events, so that what was asked for is always seen to: no second
                // edge comes for it.
                self.shared.turn.polled = self.shared.turn.clock.now();
                if self.wait(Some(Duration::ZERO)).is_err() {
                    self.events.clear();
                }
            }
            let mut events = 0;
            for event in &self.events {
                events += 1;
                if event.token() == ALARM {
                    // What is due is looked for in every turn.
                    self.vigil.alarm_rang();
                    continue;
                }
                news += 1;
                let readiness = Readiness::from(event);
                woken |= handle_event(&mut self.connections, &mut self.shared, readiness);
            }
            is_full = events == EVENTS;
            if !is_full {
                break;
            }
        }
        if is_full {
            // Those that had news again may have kept others waiting that had it since.
            self.shared.turn.polled = self.shared.turn.began;
        }
        if news > 0 {
            self.vigil.last_news = Some(self.shared.turn.now);
        }
        self.finish_turn(news, woken)
    }

    /// The turn after the poll's news, of which there were so many: everything else that is to be
    /// done now. `woken`: other threads have left commands.
    fn finish_turn(&mut self, news: u64, woken: bool) -> Result<(), Error> {
        self.shared.turn.is_lone = news <= 1 && self.shared.ready.len() <= 1;
        // Together, and before anything else: the peer is awake then.
        self.shared.network.close_ended();
        self.handle_ready();
        #[cfg(feature = "tls")]
        self.handle_handshakes();
        if woken {
            self.handle_commands();
        }
        self.handle_timers();
        self.handle_admission();
        self.handle_shutdown();
        self.shared.network.close_ended();
        self.shared.turn.end(news);
        match self.shared.escalated.pop_front() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        Remote {
            central: Arc::clone(&self.shared.central),
        }
    }

    /// How many connections there are: connecting, open, or waiting for their next attempt.
    pub fn connections(&self) -> usize {
        self.shared.central.slots().occupied()
    }

    /// The trace of all connections, oldest event first.
    pub fn trace(&self) -> &Ring {
        self.shared.turn.trace.ring()
    }

    /// Nothing left to run for? A reactor that was shut down takes no more commands then.
    fn is_done(&self) -> bool {
        if !self.shared.escalated.is_empty() {
            return false;
        }
        if self.shared.is_shutting_down() {
            return self.shared.central.shut_if_empty();
        }
        !self.stay_alive && self.connections() == 0
    }

    /// When something is to be done, news or no news; a time that is past: at once.
    fn next_due(&self) -> Option<Time> {
        let Shared {
            timers,
            gate,
            shutdown,
            ready,
            escalated,
            ..
        } = &self.shared;
        #[cfg(feature = "tls")]
        if !self.shared.handshakes.is_empty() {
            return Some(Time::ZERO);
        }
        if !ready.is_empty() || !escalated.is_empty() {
            return Some(Time::ZERO);
        }
        let next = [timers.next(), gate.wakes_at(), *shutdown];
        next.into_iter().flatten().min()
    }

    /// Those that had more to read than their share.
    fn handle_ready(&mut self) {
        mem::swap(&mut self.ready, &mut self.shared.ready);
        for index in 0..self.ready.len() {
            let id = self.ready[index];
            self.with(id, |connection, shared| {
                if mem::take(&mut connection.core.ready) {
                    connection.handle_readable(shared);
                }
            });
        }
        self.ready.clear();
    }

    fn handle_timers(&mut self) {
        // What becomes due meanwhile has the next turn, after what has come in meanwhile: a handler that
        // is slow makes nobody silent.
        let polled = self.shared.turn.polled;
        while let Some((time, id)) = self.shared.timers.take_due(polled) {
            self.with(ConnectionId(id), |connection, shared| {
                // Lazy: an entry that was replaced by an earlier one means nothing any more.
                if connection.armed == Some(time) {
                    connection.armed = None;
                    connection.handle_deadline(shared);
                }
            });
        }
        let connections = &self.connections;
        self.shared.timers.tidy(connections.len(), |time, id| {
            let id = ConnectionId(id);
            let connection = connections.get(id.slot() as usize);
            let connection = connection.and_then(|connection| connection.as_ref());
            connection.is_some_and(|connection| {
                connection.core.id() == id && connection.armed == Some(time)
            })
        });
    }

    fn handle_commands(&mut self) {
        let mut commands = mem::take(&mut self.commands);
        self.shared.central.take(&mut commands);
        for command in commands.drain(..) {
            self.handle_command(command);
        }
        self.commands = commands;
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Connect {
                id,
                request,
                handler,
                opened,
            } => {
                self.insert(id, request, handler, opened);
                if self.shared.is_shutting_down() {
                    self.with(id, |connection, shared| {
                        connection.close(shared, GOING_AWAY);
                    });
                }
            }
            Command::Send {
                id,
                message,
                written,
            } => {
                if !self.has(id) {
                    let forced = self.shared.turn.trace.forced_level();
                    let level = forced.unwrap_or(self.shared.level);
                    self.shared.turn.lose(id, level, &message);
                }
                self.with(id, |connection, shared| {
                    connection.send(shared, &message, written);
                });
            }
            Command::Pause { id, paused } => {
                self.with(id, |connection, shared| connection.pause(shared, paused));
            }
            Command::Cast { id, cast } => {
                self.with(id, |connection, shared| connection.cast(shared, cast));
            }
            Command::Close { id, code, reason } => {
                let close = CloseFrame {
                    code,
                    reason: &reason,
                };
                self.with(id, |connection, shared| connection.close(shared, close));
            }
            Command::Abort { id } => self.with(id, Connection::abort),
            Command::Trace {
                id: Some(id),
                level,
            } => {
                self.with(id, |connection, shared| connection.set_level(shared, level));
            }
            Command::Trace { id: None, level } => {
                self.shared.level = level;
                self.for_all(|connection, shared| connection.set_level(shared, level));
            }
            Command::Print(print) => self.shared.turn.trace.set_print(print),
            Command::LastEvents { id, answer } => {
                let ring = self.shared.turn.trace.ring();
                let events = id.map_or_else(|| ring.iter(), |id| ring.of(id.into()));
                // Whoever asked may have stopped waiting.
                let _ = answer.send(events.copied().collect());
                // No handler has taken this time.
                self.shared.turn.now = self.shared.turn.clock.now();
            }
            Command::WithHandler { id, call } => {
                self.with(id, |connection, shared| {
                    connection.with_handler(shared, call);
                });
            }
            Command::Replace { id, handler } => {
                self.with(id, |connection, shared| {
                    connection.replace_handler(shared, handler);
                });
            }
            Command::AddSink(tap) => self.shared.turn.trace.add_outlet(Box::new(tap)),
            Command::RemoveSink(id) => self.shared.turn.trace.remove_outlet(id),
            Command::Resolved { host, answer } => self.handle_answer(&host, &answer),
            Command::Shutdown { deadline } => {
                let deadline = self.shared.turn.now.after(deadline);
                self.shared.shutdown = Some(deadline);
                self.for_all(|connection, shared| connection.close(shared, GOING_AWAY));
            }
        }
    }

    /// A name was looked up, for all connections that wait for it.
    fn handle_answer(&mut self, host: &str, answer: &Answer) {
        let now = self.shared.turn.now;
        for waiter in self.shared.resolver.handle_answer(host, answer, now) {
            let result = match answer {
                Ok(addresses) => Ok(resolver::with_port(addresses, waiter.port)),
                Err((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            };
            self.with(waiter.id, |connection, shared| {
                connection.handle_resolved(shared, waiter.number, result);
            });
        }
    }

    /// Drops what is still there when the shutdown has taken too long.
    fn handle_shutdown(&mut self) {
        if self
            .shared
            .shutdown
            .is_some_and(|deadline| self.shared.turn.now >= deadline)
        {
            self.for_all(Connection::handle_drain_deadline);
        }
        // A poll must not wait for a time that is past.
        if self.shared.is_shutting_down() && self.shared.central.shut_if_empty() {
            self.shared.shutdown = Some(Time::from_start(Duration::MAX));
        }
    }

    fn insert(
        &mut self,
        id: ConnectionId,
        request: Request,
        handler: Box<dyn Handler>,
        opened: Option<Opened>,
    ) {
        let slot = id.slot() as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        let mut connection = Connection::new(id, request, handler, &self.shared);
        connection.core.opened = opened.map(Box::new);
        self.connections[slot] = Some(Box::new(connection));
        self.with(id, |_, _| {});
    }

    /// Gives the connection `id` a turn, if it is still there.
    fn with(&mut self, id: ConnectionId, turn: impl FnOnce(&mut Connection, &mut Shared)) {
        let index = id.slot() as usize;
        clear_for(&mut self.connections, &mut self.shared, index);
        let connection = match self.connections.get_mut(index) {
            Some(Some(connection)) if connection.core.id() == id => connection,
            // What it brings may be foreign: a cast, a handler.
            _ => return discard(turn),
        };
        turn(connection, &mut self.shared);
        if connection.end_turn(&mut self.shared) == Fate::Ended {
            remove(&mut self.connections, &mut self.shared, index);
        }
    }

    fn has(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id.slot() as usize);
        matches!(connection, Some(Some(connection)) if connection.core.id() == id)
    }

    /// Gives every connection a turn.
    fn for_all(&mut self, mut turn: impl FnMut(&mut Connection, &mut Shared)) {
        for index in 0..self.connections.len() {
            if let Some(connection) = &self.connections[index] {
                let id = connection.core.id();
                self.with(id, &mut turn);
            }
        }
    }
}

const GOING_AWAY: CloseFrame<'static> = CloseFrame {
    code: CloseCode::GOING_AWAY,
    reason: "",
};

/// What the poll says of a socket, for its connection. True if it is the waker that it speaks of: other
/// threads have left commands.
fn handle_event(
    connections: &mut [Option<Box<Connection>>],
    shared: &mut Shared,
    readiness: Readiness,
) -> bool {
    if readiness.token == WAKER {
        return true;
    }
    let index = slot(readiness.token);
    clear_for(connections, shared, index);
    if let Some(Some(connection)) = connections.get_mut(index) {
        connection.handle_event(shared, readiness);
        if connection.end_turn(shared) == Fate::Ended {
            remove(connections, shared, index);
        }
    }
    false
}

/// Before the connection in `slot` has its turn: what another one has left in the receive buffer is
/// gathered where it belongs.
#[inline]
fn clear_for(connections: &mut [Option<Box<Connection>>], shared: &mut Shared, slot: usize) {
    if let Some(other) = shared.receive.cut_by_another(slot) {
        let index = other.slot() as usize;
        // It is there: what is cut does not outlast its socket.
        if let Some(Some(connection)) = connections.get_mut(index) {
            connection.gather(shared);
            if connection.end_turn(shared) == Fate::Ended {
                remove(connections, shared, index);
            }
        }
    }
}

impl Drop for Reactor {
    /// Drops all connections at once; their handlers are dropped without further callbacks. The trace's
    /// sinks get some time to take what waits for them.
    fn drop(&mut self) {
        self.shared.central.shut();
        self.shared.turn.trace.remove_outlets();
        self.shared.central.sinks.wait_for_ends();
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}
