//! What the tests share: a handler that keeps a log and checks the callback contract
//! ([`recorder`]), servers ([`server`]), and the reactor with its deadlines, here.

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod pki;
pub(crate) mod proxy;
pub(crate) mod recorder;
pub(crate) mod server;

pub(crate) use recorder::{Call, Fault, Log, Recorder, Why};
pub(crate) use server::{Peer, Server, Transport, frame};

use socket2::{Domain, Socket, Type};
#[cfg(target_os = "linux")]
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use websockex::trace::Kind;
use websockex::{IntoRequest, Reactor, ReactorBuilder, Request};

/// How long something that must happen may take, on a machine that does a lot else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A time that no test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A time that passes as soon as the reactor looks.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

/// A port that is taken, and refuses until somebody listens.
pub(crate) fn port_that_refuses() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("a port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address.as_socket().expect("IPv4"))
}

/// A listener whose queue is full, which does not answer at all (on Linux), and what fills it.
#[cfg(target_os = "linux")]
pub(crate) fn port_that_is_silent() -> (Vec<Socket>, SocketAddr) {
    let (listener, address) = port_that_refuses();
    listener.listen(0).expect("a backlog");
    let mut sockets = vec![listener];
    loop {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        match filler.connect_timeout(&address.into(), SHORT * 5) {
            Ok(()) => sockets.push(filler),
            Err(error) if error.kind() == ErrorKind::TimedOut => return (sockets, address),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The reactor under test with the logs of its connections.
pub(crate) struct Rig {
    pub(crate) reactor: Reactor,
    logs: Vec<Log>,
    _watchdog: Watchdog,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(Reactor::builder())
    }

    pub(crate) fn with(builder: ReactorBuilder) -> Self {
        Self {
            reactor: builder.build().expect("a reactor"),
            logs: Vec::new(),
            _watchdog: Watchdog::start(),
        }
    }

    pub(crate) fn connect(&mut self, request: impl IntoRequest, recorder: Recorder) -> Log {
        let log = recorder.log();
        let id = self.reactor.connect(request, recorder).expect("a request");
        log.set_id(id);
        self.logs.push(log.clone());
        log
    }

    /// Opens a connection whose other end the test holds.
    pub(crate) fn open(
        &mut self,
        transport: Transport,
        recorder: Recorder,
        configure: impl FnOnce(Request) -> Request,
    ) -> (Peer, Log, Server) {
        let (peers, accepted) = channel();
        let server = Server::start(transport, move |_, mut peer| {
            peer.accept();
            peers.send(peer).expect("the test waits for it");
        });
        let log = self.connect(configure(server.request()), recorder);
        self.run_until(|| log.is_open() || log.is_terminated());
        let peer = accepted.recv_timeout(PATIENCE).expect("an open peer");
        (peer, log, server)
    }

    /// One turn that waits for something to happen.
    pub(crate) fn turn(&mut self) {
        self.reactor.turn(Some(PATIENCE)).expect("a turn");
    }

    /// Turns for as long as something happens at once.
    pub(crate) fn settle(&mut self) {
        for _ in 0..16 {
            self.reactor.turn(Some(Duration::ZERO)).expect("a turn");
        }
    }

    /// Turns until `condition` holds.
    pub(crate) fn run_until(&mut self, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "what the test waits for did not happen: {:#?}",
                self.logs
            );
            let wait = Duration::from_millis(5);
            self.reactor.turn(Some(wait)).expect("a turn");
        }
    }

    /// Turns until no connection is left.
    pub(crate) fn run(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.reactor.connections() > 0 {
            assert!(
                Instant::now() < deadline,
                "connections do not end: {:#?}",
                self.logs
            );
            self.reactor.turn(Some(PATIENCE)).expect("a turn");
        }
    }

    /// The `*DBG*` lines of the trace, from where it begins.
    pub(crate) fn dbg_lines(&self) -> Vec<String> {
        let line = |event| websockex::trace::render::dbg_line(event, "feed").to_string();
        self.reactor.trace().iter().map(line).collect()
    }

    /// How many events of `kind` the trace holds.
    pub(crate) fn traced(&self, kind: Kind) -> usize {
        let events = self.reactor.trace().iter();
        events.filter(|event| event.kind() == kind).count()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        let all_ended = self.reactor.connections() == 0;
        for log in &self.logs {
            log.check_contract(all_ended);
        }
    }
}

/// Waits for what another thread does.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen");
        thread::yield_now();
    }
}

/// An open connection whose other end the test itself holds, so that it decides what arrives in
/// which turn.
pub(crate) struct Duet {
    // Dropped first: a peer that is left open must not keep the reactor waiting.
    pub(crate) peer: Peer,
    pub(crate) rig: Rig,
    pub(crate) log: Log,
    _server: Server,
}

impl Duet {
    pub(crate) fn open(transport: Transport, recorder: Recorder) -> Self {
        Self::open_with(transport, recorder, |request| request)
    }

    pub(crate) fn open_with(
        transport: Transport,
        recorder: Recorder,
        configure: impl FnOnce(Request) -> Request,
    ) -> Self {
        let mut rig = Rig::new();
        let (peer, log, server) = rig.open(transport, recorder, configure);
        Self {
            peer,
            rig,
            log,
            _server: server,
        }
    }

    /// The peer sends `bytes`, and the client takes them in one turn.
    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        self.peer.write(bytes);
        self.rig.turn();
    }

    /// Turns until the client has sent its Close frame.
    pub(crate) fn await_close(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.rig.traced(Kind::CloseSent) == 0 {
            assert!(Instant::now() < deadline, "no Close: {:?}", self.log);
            self.rig.turn();
        }
    }
}

/// Ends the process when a test hangs where no other deadline reaches it: inside a turn.
pub(crate) struct Watchdog {
    _stop: Sender<()>,
}

impl Watchdog {
    pub(crate) fn start() -> Self {
        let (stop, stopped) = channel::<()>();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        thread::spawn(move || {
            if stopped.recv_timeout(3 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} hangs");
                std::process::exit(101);
            }
        });
        Self { _stop: stop }
    }
}
