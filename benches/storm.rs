//! A connect storm: connections that open, close in the orderly way, and open again, as many as there
//! is time for. One reactor on one thread beside tungstenite with a thread for each connection on its
//! way; the same server, the same rustls with the same provider, in turns. Sessions are resumed from what
//! each keeps by default: the crate's own store here, rustls's there.
//!
//! The server is a child process (this program again), so that only the client is in the figures: CPU
//! time of the process for each handshake, which includes TCP, TLS, the opening handshake and the
//! closing one. Handshakes per second depend on what server and client leave each other of the machine.
//!
//! ```text
//! cargo bench --bench storm -- [--in-flight N] [--seconds S] [--rounds N] [--per-turn N]
//! ```

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ServerSessionMemoryCache;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned,
};
use std::cell::Cell;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use websockex::trace::{Event, Kind};
use websockex::{
    Admission, Context, Disconnect, Handler, HandlerResult, Open, Reactor, Reconnect, Request,
    TlsConfig,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Options {
    in_flight: usize,
    seconds: f64,
    rounds: usize,
    per_turn: Option<u32>,
}

/// What a client did in its time.
#[derive(Clone, Copy, Default)]
struct Sample {
    handshakes: u64,
    /// Of them, those of TLS that resumed a session.
    resumed: u64,
    took: Duration,
    cpu: Duration,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| -> Option<&String> {
        let index = arguments.iter().position(|argument| argument == name)?;
        arguments.get(index + 1)
    };
    if let Some(threads) = value("--serve") {
        return serve(threads.parse()?);
    }
    // Cargo says `--bench` when it is to be measured, and not when it is only to be tested.
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let test = has("--test") || !has("--bench");
    let (seconds, rounds) = if test { (0.1, 1) } else { (2.0, 5) };
    let options = Options {
        in_flight: value("--in-flight").map_or(Ok(16), |text| text.parse())?,
        seconds: value("--seconds").map_or(Ok(seconds), |text| text.parse())?,
        rounds: value("--rounds").map_or(Ok(rounds), |text| text.parse())?,
        per_turn: value("--per-turn").map(|text| text.parse()).transpose()?,
    };
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let server = Server::start(2 * options.in_flight, &certificate, &key)?;
    println!("{} on their way at a time", options.in_flight);
    measure(&options, &server, None)?;
    measure(
        &options,
        &server,
        Some(&Tls::without_resumption(&certificate)?),
    )?;
    measure(&options, &server, Some(&Tls::with_defaults(&certificate)?))
}

/// The configurations of both clients.
struct Tls {
    websockex: TlsConfig,
    tungstenite: Arc<ClientConfig>,
}

impl Tls {
    fn without_resumption(certificate: &str) -> Result<Self> {
        let mut config = client_config(certificate)?;
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        Ok(Self {
            websockex: TlsConfig::from_rustls(Arc::clone(&config)),
            tungstenite: config,
        })
    }

    fn with_defaults(certificate: &str) -> Result<Self> {
        let websockex = TlsConfig::builder().root_certificates_pem(certificate.as_bytes())?;
        Ok(Self {
            websockex: websockex.build()?,
            tungstenite: Arc::new(client_config(certificate)?),
        })
    }
}

fn client_config(certificate: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(config.with_no_client_auth())
}

/// Has both clients work in turns, and prints the median of each by CPU time.
fn measure(options: &Options, server: &Server, tls: Option<&Tls>) -> Result<()> {
    type Client = fn(&Options, SocketAddr, Option<&Tls>) -> Result<Sample>;
    let clients: [(&str, Client); 2] = [
        ("websockex, one thread", websockex),
        ("tungstenite, a thread for each", tungstenite),
    ];
    let address = if tls.is_some() { server.wss } else { server.ws };
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for ((_, client), samples) in clients.iter().zip(&mut samples) {
            let (start, cpu) = (Instant::now(), process_time());
            let mut sample = client(options, address, tls)?;
            (sample.took, sample.cpu) = (start.elapsed(), process_time().saturating_sub(cpu));
            samples.push(sample);
        }
    }
    for ((name, _), samples) in clients.iter().zip(&mut samples) {
        let cost = |sample: &Sample| sample.cpu.as_secs_f64() * 1e6 / sample.handshakes as f64;
        samples.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let median = &samples[samples.len() / 2];
        let scheme = match tls {
            None => "ws",
            Some(_) if median.resumed > 0 => "wss, resumed",
            Some(_) => "wss, full",
        };
        println!(
            "{scheme:<12} {name:<30} {:>6.0} handshakes/s, {:>5.0} us of CPU each ({:.0} to {:.0}), {:.0} % of a core, {} % resumed",
            median.handshakes as f64 / median.took.as_secs_f64(),
            cost(median),
            cost(&samples[0]),
            cost(&samples[samples.len() - 1]),
            100.0 * median.cpu.as_secs_f64() / median.took.as_secs_f64(),
            100 * median.resumed / median.handshakes.max(1),
        );
    }
    Ok(())
}

/// CPU time of this process so far, in ticks of 10 ms; zero where there is no such file.
fn process_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, which may contain anything: user and system time.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    Duration::from_millis(
        10 * ticks
            .filter_map(|text| text.parse::<u64>().ok())
            .sum::<u64>(),
    )
}

// ---- the clients ----

struct Again {
    opened: Rc<Cell<u64>>,
    end: Instant,
}

impl Handler for Again {
    fn on_open(&mut self, cx: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        cx.close();
        Ok(())
    }

    fn on_disconnect(&mut self, _: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        assert!(disconnect.clean, "{}", disconnect.reason);
        if Instant::now() < self.end {
            Reconnect::After(Duration::ZERO)
        } else {
            Reconnect::Never
        }
    }
}

fn websockex(options: &Options, address: SocketAddr, tls: Option<&Tls>) -> Result<Sample> {
    // One host has half of the places.
    let places = u32::try_from(2 * options.in_flight)?;
    let mut admission = Admission::default().connecting(places)?;
    if let Some(steps) = options.per_turn {
        admission = admission.handshakes_per_turn(steps)?;
    }
    let mut reactor = Reactor::builder().admission(admission).build()?;
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    let url = format!("{scheme}://localhost:{}/", address.port());
    let mut request = Request::new(url)?.connect_to([address])?;
    if let Some(tls) = tls {
        request = request.tls(tls.websockex.clone());
    }
    let opened = Rc::new(Cell::new(0));
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    for _ in 0..options.in_flight {
        let opened = Rc::clone(&opened);
        reactor.connect(&request, Again { opened, end })?;
    }
    reactor.run()?;
    // The trace holds the last of them; whoever resumes does it from the second time on.
    let established: Vec<&Event> = (reactor.trace().iter())
        .filter(|event| event.kind() == Kind::TlsEstablished)
        .collect();
    let resumed = established.iter().filter(|event| event.resumed()).count() as u64;
    let part = established.len().max(1) as u64;
    Ok(Sample {
        handshakes: opened.get(),
        resumed: opened.get() * resumed / part,
        ..Sample::default()
    })
}

fn tungstenite(options: &Options, address: SocketAddr, tls: Option<&Tls>) -> Result<Sample> {
    let (opened, resumed) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let one = || -> Result<()> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let port = address.port();
        match tls {
            None => open_and_close(&format!("ws://localhost:{port}/"), stream)?,
            Some(tls) => {
                let name = ServerName::try_from("localhost")?;
                let tls = ClientConnection::new(Arc::clone(&tls.tungstenite), name)?;
                let mut stream = StreamOwned::new(tls, stream);
                open_and_close(&format!("wss://localhost:{port}/"), &mut stream)?;
                let is_resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
                resumed.fetch_add(u64::from(is_resumed), Relaxed);
            }
        }
        opened.fetch_add(1, Relaxed);
        Ok(())
    };
    thread::scope(|scope| {
        let work = || -> Result<()> {
            while Instant::now() < end {
                one()?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..options.in_flight).map(|_| scope.spawn(work)).collect();
        let mut results = threads.into_iter().map(thread::ScopedJoinHandle::join);
        results.try_for_each(|result| result.expect("no client panics"))
    })?;
    Ok(Sample {
        handshakes: opened.into_inner(),
        resumed: resumed.into_inner(),
        ..Sample::default()
    })
}

fn open_and_close<S: Read + Write>(url: &str, stream: S) -> Result<()> {
    let opened = tungstenite::client(url, stream);
    let (mut socket, _) = opened.map_err(|error| error.to_string())?;
    socket.close(None)?;
    close(&mut socket)
}

/// Reads until the connection is closed on both sides.
fn close<S: Read + Write>(socket: &mut tungstenite::WebSocket<S>) -> Result<()> {
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

// ---- the server ----

/// The server as its parent sees it; it dies with this.
struct Server {
    child: Child,
    ws: SocketAddr,
    wss: SocketAddr,
}

impl Server {
    fn start(threads: usize, certificate: &str, key: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--serve", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(format!("{certificate}{key}").as_bytes())?;
        drop(stdin);
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut lines = stdout.lines();
        let mut address =
            || -> Result<SocketAddr> { Ok(lines.next().ok_or("no server")??.parse()?) };
        let (ws, wss) = (address()?, address()?);
        Ok(Self { child, ws, wss })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(threads: usize) -> Result<()> {
    let mut pem = Vec::new();
    io::stdin().read_to_end(&mut pem)?;
    let chain = vec![CertificateDer::from_pem_slice(&pem)?];
    let key = PrivateKeyDer::from_pem_slice(&pem)?;
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(chain, key)?;
    config.session_storage = ServerSessionMemoryCache::new(4096);
    let config = Arc::new(config);
    for tls in [None, Some(config)] {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0")?);
        println!("{}", listener.local_addr()?);
        for _ in 0..threads {
            let (listener, tls) = (Arc::clone(&listener), tls.clone());
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    // A client that goes away in the middle is no concern of the next one.
                    let _ = answer(stream, tls.as_ref());
                }
            });
        }
    }
    // Until the parent kills it.
    loop {
        thread::park();
    }
}

fn answer(stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<()> {
    fn upgrade<S: Read + Write>(stream: S) -> Result<()> {
        let accepted = tungstenite::accept(stream);
        close(&mut accepted.map_err(|error| error.to_string())?)
    }
    stream.set_nodelay(true)?;
    match tls {
        None => upgrade(stream),
        Some(config) => {
            let connection = ServerConnection::new(Arc::clone(config))?;
            let mut stream = StreamOwned::new(connection, stream);
            upgrade(&mut stream)?;
            stream.conn.send_close_notify();
            Ok(stream.flush()?)
        }
    }
}
