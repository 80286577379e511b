//! TCP, and looking names up, as a reactor sees them: sockets with bounded buffers, edges that the
//! poll reports once, latency, refusals, silence, resets. Everything that happens is on an agenda,
//! and happens when its time in the virtual clock has come.

use super::faults::Faults;
use super::log::Log;
use super::peer::{End, Line, Peer};
use super::random::Random;
use super::socket::Socket;
use crate::reactor::system::Readiness;
use crate::session::Time;
use mio::Token;
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// What answers at an address.
#[derive(Clone)]
pub(super) enum Route {
    /// A server, made anew for each connection.
    Serves(Serve),
    /// A reset.
    Refuses,
    /// Nothing: the packets get lost.
    Silent,
}

/// Makes the peer of a new connection.
pub(super) type Serve = Rc<dyn Fn(&mut Random) -> Box<dyn Peer>>;

/// How long a packet takes.
pub(super) const LATENCY: Duration = Duration::from_millis(10);

/// Bytes on their way and not yet read, in each direction.
const CAPACITY: usize = 64 * 1024;

/// How long it lasts when nothing arrives: longer than some deadlines, shorter than others.
const STALL: Duration = Duration::from_secs(4);

/// Tokens of sockets that are gone, to report once more.
const GRAVES: usize = 8;

#[derive(Clone)]
pub(in crate::reactor) struct Network(Rc<RefCell<State>>);

/// What is to happen.
#[derive(Clone, Copy)]
enum Happening {
    /// The TCP handshake of this socket comes to its end.
    Connect(usize),
    /// The first that is on its way to the client arrives.
    Down(usize),
    /// Likewise to the server.
    Up(usize),
    /// The server wanted to be called.
    Wake(usize),
    /// The poll reports a socket, late or for no reason.
    Report(usize),
}

/// What is on its way.
enum Flight {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// One direction.
#[derive(Default)]
pub(super) struct Pipe {
    flights: VecDeque<Flight>,
    /// When the last of the flights arrives.
    last: Time,
    /// Bytes in the flights.
    flying: usize,
    pub(super) arrived: VecDeque<u8>,
    /// The end has arrived.
    pub(super) ended: bool,
}

impl Pipe {
    pub(super) fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.flying + self.arrived.len())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Connecting,
    Open,
    /// Reset, or never connected.
    Failed,
}

/// One TCP connection, both ends.
pub(super) struct Link {
    pub(super) address: SocketAddr,
    token: Token,
    pub(super) status: Status,
    /// What the socket says once of its failure.
    pub(super) error: Option<ErrorKind>,
    pub(super) down: Pipe,
    pub(super) up: Pipe,
    /// What the server has sent and the network did not take yet.
    backlog: VecDeque<u8>,
    /// How the server ends its side, after the backlog.
    ending: Option<End>,
    peer: Option<Box<dyn Peer>>,
    reads: bool,
    /// The client has ended its side.
    pub(super) finished: bool,
    /// The client wanted to write and could not.
    pub(super) blocked: bool,
    /// An edge that the poll has not reported.
    edge: bool,
}

pub(super) struct State {
    pub(super) log: Log,
    pub(super) random: Random,
    pub(super) faults: Faults,
    routes: BTreeMap<SocketAddr, Route>,
    /// By time, and in the order in which it was planned.
    agenda: BTreeMap<(Time, u64), Happening>,
    planned: u64,
    links: BTreeMap<usize, Link>,
    next_link: usize,
    edges: Vec<usize>,
    graves: VecDeque<Token>,
}

impl Network {
    pub(super) fn new(log: Log, random: Random, faults: Faults) -> Self {
        Self(Rc::new(RefCell::new(State {
            log,
            random,
            faults,
            routes: BTreeMap::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            links: BTreeMap::new(),
            next_link: 0,
            edges: Vec::new(),
            graves: VecDeque::new(),
        })))
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    pub(super) fn route(&self, address: SocketAddr, route: Route) {
        self.state().routes.insert(address, route);
    }

    /// A socket that has begun to connect to `address`.
    pub(in crate::reactor) fn open(&self, address: SocketAddr, token: Token) -> Socket {
        let number = self.state().open(address, token);
        Socket::new(self.clone(), number)
    }

    /// Sockets that the client has not dropped.
    pub(super) fn sockets(&self) -> usize {
        self.state()
            .links
            .values()
            .filter(|link| !link.is_dropped())
            .count()
    }

    /// Is there something that the server of a connection has sent and TCP does not take?
    pub(super) fn is_held_back(&self, number: usize) -> bool {
        let state = self.state();
        let link = state.links.get(&number);
        link.is_some_and(|link| !link.backlog.is_empty())
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Time> {
        let state = self.state();
        let (time, _) = state.agenda.first_key_value()?.0;
        Some(*time)
    }

    /// Lets everything happen whose time has come.
    pub(super) fn happen(&self) {
        let mut state = self.state();
        while let Some(happening) = state.take_due() {
            state.happen(happening);
        }
    }

    /// What the poll reports.
    pub(super) fn poll(&self) -> Vec<Readiness> {
        self.state().poll()
    }

    /// All servers die: their connections are reset.
    pub(super) fn reset_all(&self) {
        let mut state = self.state();
        let numbers: Vec<usize> = state.links.keys().copied().collect();
        for number in numbers {
            state.fly(number, Direction::Down, Flight::Reset);
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Down,
    Up,
}

impl Link {
    fn is_dropped(&self) -> bool {
        self.token == DROPPED
    }

    /// What epoll would say of the socket now.
    fn readiness(&self) -> Readiness {
        let failed = self.status == Status::Failed;
        let ended = failed || self.down.ended;
        let connected = self.status == Status::Open;
        Readiness {
            token: self.token,
            readable: ended || !self.down.arrived.is_empty(),
            writable: failed || (connected && self.up.room() > 0),
            ended,
        }
    }
}

/// The token of a socket that the client has dropped.
const DROPPED: Token = Token(usize::MAX - 2);

impl State {
    fn plan(&mut self, time: Time, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((time, self.planned), happening);
    }

    fn take_due(&mut self) -> Option<Happening> {
        let first = self.agenda.first_entry()?;
        let (time, _) = *first.key();
        (time <= self.log.now()).then(|| first.remove())
    }

    fn latency(&mut self) -> Duration {
        let jitter = u64::try_from(self.faults.jitter.as_micros()).expect("it is short");
        let mut latency = LATENCY + Duration::from_micros(self.random.within(0..jitter + 1));
        if self.random.chance(self.faults.stall) {
            latency += STALL;
        }
        latency
    }

    fn open(&mut self, address: SocketAddr, token: Token) -> usize {
        let number = self.next_link;
        self.next_link += 1;
        self.log
            .note(format_args!("socket {number}: connects to {address}"));
        let link = Link {
            address,
            token,
            status: Status::Connecting,
            error: None,
            down: Pipe::default(),
            up: Pipe::default(),
            backlog: VecDeque::new(),
            ending: None,
            peer: None,
            reads: true,
            finished: false,
            blocked: false,
            edge: false,
        };
        self.links.insert(number, link);
        if !matches!(self.routes.get(&address), None | Some(Route::Silent)) {
            let time = self.log.now().after(self.latency() + LATENCY);
            self.plan(time, Happening::Connect(number));
        }
        number
    }

    pub(super) fn link(&mut self, number: usize) -> &mut Link {
        self.links.get_mut(&number).expect("its socket is there")
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connect(number) => self.connect(number),
            Happening::Down(number) => self.arrive_down(number),
            Happening::Up(number) => self.arrive_up(number),
            Happening::Wake(number) => self.call(number, |peer, line| peer.wake(line)),
            Happening::Report(number) => self.edge(number),
        }
    }

    fn connect(&mut self, number: usize) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        // It may have been reset meanwhile.
        if link.status != Status::Connecting {
            return;
        }
        match self.routes.get(&link.address) {
            Some(Route::Serves(serve)) => {
                link.peer = Some(serve(&mut self.random));
                link.status = Status::Open;
            }
            _ => {
                link.status = Status::Failed;
                link.error = Some(ErrorKind::ConnectionRefused);
            }
        }
        self.edge(number);
    }

    /// Sends something on its way, from which it does not turn back and where nothing overtakes.
    fn fly(&mut self, number: usize, direction: Direction, flight: Flight) {
        let time = self.log.now().after(self.latency());
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        let (pipe, happening) = match direction {
            Direction::Down => (&mut link.down, Happening::Down(number)),
            Direction::Up => (&mut link.up, Happening::Up(number)),
        };
        pipe.last = pipe.last.max(time);
        if let Flight::Bytes(bytes) = &flight {
            pipe.flying += bytes.len();
        }
        pipe.flights.push_back(flight);
        let time = pipe.last;
        self.plan(time, happening);
    }

    fn fly_bytes(&mut self, number: usize, direction: Direction, mut bytes: Vec<u8>) {
        while bytes.len() > 1 && self.random.chance(self.faults.split) {
            let rest = bytes.split_off(self.random.length(1..bytes.len()));
            self.fly(number, direction, Flight::Bytes(bytes));
            bytes = rest;
        }
        self.fly(number, direction, Flight::Bytes(bytes));
        if self.random.chance(self.faults.reset) {
            self.fly(number, Direction::Down, Flight::Reset);
        }
    }

    /// What the client's socket has taken is sent.
    pub(super) fn send_up(&mut self, number: usize, bytes: &[u8]) {
        self.log.bytes("client", number, bytes);
        self.fly_bytes(number, Direction::Up, bytes.to_vec());
    }

    /// The client ends its side.
    pub(super) fn finish(&mut self, number: usize) {
        if !std::mem::replace(&mut self.link(number).finished, true) {
            self.log
                .note(format_args!("client {number}: ends its side"));
            self.fly(number, Direction::Up, Flight::End);
        }
    }

    /// The client drops its socket.
    pub(super) fn drop_socket(&mut self, number: usize) {
        self.finish(number);
        self.log.note(format_args!("socket {number}: dropped"));
        if self.graves.len() == GRAVES {
            self.graves.pop_front();
        }
        let token = std::mem::replace(&mut self.link(number).token, DROPPED);
        self.graves.push_back(token);
        if self.link(number).peer.is_none() {
            self.links.remove(&number);
        }
    }

    /// As much of the server's backlog as there is room for.
    pub(super) fn send_down(&mut self, number: usize) {
        let link = self.link(number);
        let length = link.backlog.len().min(link.down.room());
        let bytes: Vec<u8> = link.backlog.drain(..length).collect();
        let ending = match link.backlog.is_empty() {
            true => link.ending.take(),
            false => None,
        };
        if !bytes.is_empty() {
            self.log.bytes("server", number, &bytes);
            self.fly_bytes(number, Direction::Down, bytes);
        }
        if let Some(ending) = ending {
            self.log.note(format_args!("server {number}: {ending:?}"));
            let flight = match ending {
                End::Finished => Flight::End,
                End::Reset => Flight::Reset,
            };
            self.fly(number, Direction::Down, flight);
        }
    }

    fn arrive_down(&mut self, number: usize) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        let Some(flight) = link.down.flights.pop_front() else {
            return;
        };
        if link.status == Status::Failed {
            return;
        }
        match flight {
            Flight::Bytes(bytes) => {
                link.down.flying -= bytes.len();
                link.down.arrived.extend(bytes);
            }
            Flight::End => link.down.ended = true,
            Flight::Reset => {
                link.status = Status::Failed;
                link.error = Some(ErrorKind::ConnectionReset);
                link.peer = None;
                if link.is_dropped() {
                    self.links.remove(&number);
                    return;
                }
            }
        }
        self.edge(number);
    }

    fn arrive_up(&mut self, number: usize) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        match link.up.flights.pop_front() {
            None | Some(Flight::Reset) => {}
            Some(Flight::Bytes(bytes)) => {
                link.up.flying -= bytes.len();
                link.up.arrived.extend(bytes);
                self.read(number);
            }
            Some(Flight::End) => {
                link.up.ended = true;
                if link.reads {
                    self.call(number, |peer, line| peer.end(line));
                }
            }
        }
        if let Some(link) = self.links.get_mut(&number)
            && link.up.ended
            && link.is_dropped()
        {
            self.links.remove(&number);
        }
    }

    /// The server reads what has arrived, if it reads at all.
    fn read(&mut self, number: usize) {
        let link = self.link(number);
        if link.reads && !link.up.arrived.is_empty() {
            let bytes: Vec<u8> = link.up.arrived.drain(..).collect();
            if std::mem::take(&mut link.blocked) {
                self.edge(number);
            }
            self.call(number, |peer, line| peer.receive(line, &bytes));
        }
    }

    fn call(&mut self, number: usize, call: impl FnOnce(&mut dyn Peer, &mut Line<'_>)) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        let Some(mut peer) = link.peer.take() else {
            return;
        };
        let mut line = Line {
            number,
            log: &self.log,
            output: Vec::new(),
            end: None,
            wake: None,
            reads: link.reads,
        };
        call(&mut *peer, &mut line);
        let Line {
            output,
            end,
            wake,
            reads,
            ..
        } = line;
        link.peer = Some(peer);
        link.backlog.extend(output);
        link.ending = link.ending.or(end);
        let begins = reads && !link.reads;
        link.reads = reads;
        if let Some(delay) = wake {
            let time = self.log.now().after(delay);
            self.plan(time, Happening::Wake(number));
        }
        self.send_down(number);
        if begins {
            self.read(number);
        }
    }

    /// There is something to report of the socket.
    fn edge(&mut self, number: usize) {
        let Some(link) = self.links.get_mut(&number) else {
            return;
        };
        if !link.edge && !link.is_dropped() {
            link.edge = true;
            self.edges.push(number);
        }
    }

    fn poll(&mut self) -> Vec<Readiness> {
        let mut edges = std::mem::take(&mut self.edges);
        if self.faults.shuffled {
            self.random.shuffle(&mut edges);
        }
        let mut reports = Vec::new();
        for number in edges {
            let late = self.random.chance(self.faults.late_edge);
            let spurious = self.random.chance(self.faults.spurious);
            let delay = self.random.milliseconds(1..20);
            let Some(link) = self.links.get_mut(&number) else {
                continue;
            };
            link.edge = false;
            if link.is_dropped() {
                continue;
            }
            if !late {
                reports.push(link.readiness());
            }
            if late || spurious {
                let time = self.log.now().after(delay);
                self.plan(time, Happening::Report(number));
            }
        }
        if !reports.is_empty() && self.random.chance(self.faults.spurious) {
            // As in a batch in which the socket was closed: whoever has the slot now is not meant.
            reports.extend(self.graves.back().map(|token| Readiness {
                token: *token,
                readable: true,
                writable: true,
                ended: true,
            }));
        }
        reports
    }
}

/// What a socket that is not connected says.
pub(super) fn not_connected() -> io::Error {
    ErrorKind::NotConnected.into()
}
