//! A server that is stopped and started again, and ten thousand connections that come back: how long
//! until all are, what it costs, whether one is lost, and whether admission keeps to its word.
//!
//! The server is a child process (this program again), so that only the clients are measured. It
//! counts the connections that it has accepted and not yet upgraded. Everything is the crate's
//! default unless an argument says otherwise; it stops by itself.
//!
//! ```text
//! cargo bench --bench reconnect -- [--connections N] [--down SECONDS]
//!     [--connecting N] [--rate PER_SECOND, 0 for any]
//! ```

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use websockex::protocol::handshake::{Answer, ServerHandshake};
use websockex::{
    Admission, Context, Disconnect, DisconnectReason, Handler, HandlerResult, HandshakeLimits,
    Open, Reactor, Reconnect, Termination,
};

const CONNECTIONS: usize = 10_000;
/// Seconds for which the server is stopped.
const DOWN: f64 = 5.0;
/// When Cargo runs the benches only to see that they work.
const FEW: usize = 200;
const BRIEFLY: f64 = 0.3;
/// Files that a process has open besides its connections.
const OTHER_FILES: u64 = 64;
const SAMPLE: Duration = Duration::from_millis(100);
const PER_SECOND: usize = 10;
/// Beyond this something is wrong.
const PATIENCE: Duration = Duration::from_secs(180);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Settings {
    connections: usize,
    down: Duration,
    admission: Admission,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| -> Option<&String> {
        let index = arguments.iter().position(|argument| argument == name)?;
        arguments.get(index + 1)
    };
    if let Some(address) = value("--serve") {
        return serve(address.parse()?);
    }
    // Cargo says `--bench` when it is to be measured, and not when it is only to be tested.
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let test = has("--test") || !has("--bench");
    let (default, down) = if test {
        (FEW, BRIEFLY)
    } else {
        (CONNECTIONS, DOWN)
    };
    let down = value("--down").map_or(Ok(down), |text| text.parse())?;
    let mut admission = Admission::default();
    if let Some(most) = value("--connecting") {
        admission = admission.connecting(most.parse()?)?;
    }
    admission = match value("--rate").map(|text| text.parse()).transpose()? {
        None => admission,
        Some(0) => admission,
        Some(rate) => admission.rate(rate, Duration::from_secs(1))?,
    };
    let settings = Settings {
        connections: affordable(value("--connections").map_or(Ok(default), |n| n.parse())?)?,
        down: Duration::from_secs_f64(down),
        admission,
    };
    measure(&settings)
}

/// As many connections as a process may have files open for.
fn affordable(wanted: usize) -> Result<usize> {
    let needed = wanted as u64 + OTHER_FILES;
    let limit = rlimit::increase_nofile_limit(needed)?;
    if limit >= needed {
        return Ok(wanted);
    }
    let possible = usize::try_from(limit.saturating_sub(OTHER_FILES))?;
    println!("{possible} connections and not {wanted}: a process may have {limit} files open");
    Ok(possible)
}

// ---- the clients ----

/// What the connections come to; all of it counts up but `open`.
#[derive(Default)]
struct Numbers {
    open: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    ended: AtomicU64,
    done: AtomicBool,
}

struct Feed(Arc<Numbers>);

impl Handler for Feed {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.0.open.fetch_add(1, Relaxed);
        self.0.opened.fetch_add(1, Relaxed);
        Ok(())
    }

    fn on_disconnect(&mut self, _: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        match disconnect.reason {
            DisconnectReason::ConnectFailed(_) => self.0.refused.fetch_add(1, Relaxed),
            _ => self.0.open.fetch_sub(1, Relaxed),
        };
        Reconnect::ByPolicy
    }

    fn on_terminate(self: Box<Self>, _: &Termination<'_>) {
        self.0.ended.fetch_add(1, Relaxed);
    }
}

fn measure(settings: &Settings) -> Result<()> {
    let server = Server::start("127.0.0.1:0".parse()?)?;
    let address = server.address;
    let mut reactor = Reactor::builder().admission(settings.admission).build()?;
    let numbers = Arc::new(Numbers::default());
    println!(
        "{} connections, {:?}",
        settings.connections, settings.admission
    );
    for _ in 0..settings.connections {
        reactor.connect(format!("ws://{address}/"), Feed(Arc::clone(&numbers)))?;
    }
    let watcher = {
        let numbers = Arc::clone(&numbers);
        let (connections, down) = (settings.connections as u64, settings.down);
        thread::spawn(move || {
            let result = watch(&numbers, server, connections, down);
            numbers.done.store(true, Relaxed);
            result
        })
    };
    // Nothing but the reactor runs on this thread, whose time is what is measured.
    while !numbers.done.load(Relaxed) {
        reactor.turn(Some(SAMPLE))?;
    }
    watcher.join().expect("the watcher does not panic")
}

/// Stops the server and starts it again, and watches what comes of it.
fn watch(numbers: &Numbers, mut server: Server, connections: u64, down: Duration) -> Result<()> {
    let is_full = || numbers.open.load(Relaxed) == connections;
    let first = Phase::run(numbers, is_full)?;
    first.print("first connect", &server.count()?);
    let began = Instant::now();
    let address = server.address;
    drop(server);
    let outage = Phase::run(numbers, || began.elapsed() >= down)?;
    outage.print("server stopped", "");
    let mut server = Server::start(address)?;
    let back = Phase::run(numbers, is_full)?;
    back.print("server started again", &server.count()?);
    let ended = numbers.ended.load(Relaxed);
    let opened = numbers.opened.load(Relaxed);
    println!("lost for good: {ended}");
    if ended > 0 || opened < 2 * connections {
        return Err(format!("{opened} opens, {ended} connections ended").into());
    }
    Ok(())
}

/// A stretch of time, sampled.
struct Phase {
    took: Duration,
    samples: Vec<Sample>,
}

struct Sample {
    time: Instant,
    cpu: Duration,
    opened: u64,
    refused: u64,
}

impl Sample {
    fn take(numbers: &Numbers) -> Self {
        Self {
            cpu: reactor_time(),
            time: Instant::now(),
            opened: numbers.opened.load(Relaxed),
            refused: numbers.refused.load(Relaxed),
        }
    }
}

impl Phase {
    fn run(numbers: &Numbers, is_over: impl Fn() -> bool) -> Result<Self> {
        let start = Instant::now();
        let mut samples = vec![Sample::take(numbers)];
        loop {
            // Finely, so that the end is seen when it comes.
            while !is_over() && samples[samples.len() - 1].time.elapsed() < SAMPLE {
                thread::sleep(Duration::from_millis(1));
            }
            samples.push(Sample::take(numbers));
            if is_over() {
                let took = start.elapsed();
                return Ok(Self { took, samples });
            }
            if start.elapsed() > PATIENCE {
                return Err("it does not come to an end".into());
            }
        }
    }

    fn print(&self, name: &str, server: &str) {
        // The last sample is short, and so not representative.
        let whole = &self.samples[..self.samples.len() - 1];
        let load = |from: &Sample, to: &Sample| {
            let time = to.time.duration_since(from.time).as_secs_f64();
            100.0 * (to.cpu - from.cpu).as_secs_f64() / time
        };
        let (from, to) = (&self.samples[0], &self.samples[self.samples.len() - 1]);
        let peak = whole.windows(2).map(|pair| load(&pair[0], &pair[1]));
        let peak = peak.fold(0.0, f64::max);
        // Over a second, or all there is.
        let second = whole.len().clamp(1, PER_SECOND + 1);
        let rate = |count: fn(&Sample) -> u64| {
            let rate = |window: &[Sample]| {
                let (from, to) = (&window[0], &window[window.len() - 1]);
                let time = to.time.duration_since(from.time).as_secs_f64();
                (count(to) - count(from)) as f64 / time.max(SAMPLE.as_secs_f64())
            };
            whole.windows(second).map(rate).fold(0.0, f64::max)
        };
        println!(
            "{name}: {:.2} s, CPU peak {peak:.0} % mean {:.0} % of a core, {} opened (at most {:.0}/s), {} attempts failed (at most {:.0}/s){server}",
            self.took.as_secs_f64(),
            load(from, to),
            to.opened - from.opened,
            rate(|sample| sample.opened),
            to.refused - from.refused,
            rate(|sample| sample.refused),
        );
    }
}

/// CPU time of the main thread so far; zero where there is no such file.
fn reactor_time() -> Duration {
    let times = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let running = times.split_whitespace().next();
    Duration::from_nanos(running.and_then(|text| text.parse().ok()).unwrap_or(0))
}

// ---- the server ----

/// The server as its parent sees it; it dies with this.
struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(address: SocketAddr) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--serve", &address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().parse()?;
        Ok(Self {
            child,
            stdin,
            stdout,
            address,
        })
    }

    /// What it has counted. It goes on serving until it is dropped.
    fn count(&mut self) -> Result<String> {
        self.stdin = None;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // As if it had crashed. If it has already, so much the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Peer {
    stream: TcpStream,
    handshake: Option<ServerHandshake>,
}

/// Accepts, upgrades and keeps connections. Says at the end of its standard input what it has seen.
fn serve(address: SocketAddr) -> Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    let mut listener = TcpListener::bind(address)?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", listener.local_addr()?);
    let most = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&most);
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        println!(", {} under way at most", seen.load(Relaxed));
    });
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut under_way = 0;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() != LISTENER {
                let peer = &mut peers[event.token().0];
                under_way -= u64::from(handle(peer));
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                let token = Token(peers.len());
                poll.registry()
                    .register(&mut stream, token, Interest::READABLE)?;
                let handshake = Some(ServerHandshake::new(HandshakeLimits::default()));
                peers.push(Some(Peer { stream, handshake }));
                under_way += 1;
                most.fetch_max(under_way, Relaxed);
            }
        }
    }
}

/// Something came; true if with this the peer is no longer under way.
fn handle(slot: &mut Option<Peer>) -> bool {
    let mut buffer = [0; 4096];
    while let Some(peer) = slot {
        let length = match peer.stream.read(&mut buffer) {
            Ok(length) if length > 0 => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            _ => {
                let under_way = peer.handshake.is_some();
                *slot = None;
                return under_way;
            }
        };
        let Some(handshake) = &mut peer.handshake else {
            continue;
        };
        let request = handshake.receive(&buffer[..length]);
        let Some(request) = request.ok().and_then(|received| received.request) else {
            continue;
        };
        let mut answer = Vec::new();
        let written = request.write_response(&Answer::default(), &mut answer);
        written.expect("the request was good");
        // An empty socket takes it whole.
        let _ = peer.stream.write_all(&answer);
        peer.handshake = None;
        return true;
    }
    false
}
