//! What an idle connection costs: live heap and resident memory, ws and wss.
//!
//! The clients live in a child process (this program again), so that the server's side is not in the
//! figures; they are opened a few at a time, and what the first of them cost (buffers of the reactor,
//! tables that grow) is not counted.
//!
//! ```text
//! cargo bench --bench idle_memory -- [--ws N] [--wss N]
//! ```
#![allow(
    unsafe_code,
    reason = "an allocator that counts cannot be written without"
)]

#[path = "support/server.rs"]
mod server;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use websockex::{Context, Disconnect, Handler, HandlerResult, Open, Reactor, Reconnect, TlsConfig};

const WS: usize = 5000;
const WSS: usize = 2000;
/// Connections opened at a time: fewer than a listener's backlog.
const WAVE: usize = 64;
/// Files that a process has open besides its connections.
const OTHER_FILES: usize = 32;
/// How long the connections are watched being idle: what follows the handshakes, such as TLS session
/// tickets, has arrived then.
const SETTLE: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The system's allocator, which also counts the bytes that are live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, whose contract this is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System`, by one of the methods here, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `dealloc`; the caller vouches for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| -> Result<Option<usize>> {
        let Some(index) = arguments.iter().position(|argument| argument == name) else {
            return Ok(None);
        };
        let value = arguments.get(index + 1).ok_or(format!("{name} of what?"))?;
        Ok(Some(value.parse()?))
    };
    if arguments.first().is_some_and(|first| first == "--client") {
        let [_, url, count] = &arguments[..] else {
            return Err("--client URL COUNT".into());
        };
        return client(url, count.parse()?);
    }
    // Cargo says `--bench` when it is to be measured, and not when it is only to be tested.
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let test = has("--test") || !has("--bench");
    let default = |count| if test { 2 * WAVE } else { count };
    measure("ws", affordable(value("--ws")?.unwrap_or(default(WS))))?;
    measure("wss", affordable(value("--wss")?.unwrap_or(default(WSS))))
}

/// As many connections as a process may have files open for.
fn affordable(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let limit = files.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    match limit {
        Some(limit) if limit < wanted + OTHER_FILES => {
            let possible = limit.saturating_sub(OTHER_FILES);
            println!("{possible} connections and not {wanted}: `ulimit -n` is {limit}");
            possible
        }
        _ => wanted,
    }
}

/// Serves `count` connections and has a child open them.
fn measure(scheme: &str, count: usize) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("{scheme}://localhost:{}/", listener.local_addr()?.port());
    let (certificate, tls) = if scheme == "wss" {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        (certificate, Some(Arc::new(config)))
    } else {
        (String::new(), None)
    };
    let server = thread::spawn(move || serve(&listener, count, tls.as_ref()));
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--client", &url, &count.to_string()])
        .stdin(Stdio::piped())
        .spawn()?;
    // The child reads it to its end before it connects.
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(certificate.as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("the clients failed: {status}").into());
    }
    server.join().expect("the server does not panic")?;
    Ok(())
}

/// Accepts `count` connections and holds them until the first one ends.
fn serve(listener: &TcpListener, count: usize, tls: Option<&Arc<ServerConfig>>) -> io::Result<()> {
    let mut streams = Vec::with_capacity(count);
    let mut connections = Vec::new();
    for _ in 0..count {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        if let Some(config) = tls {
            let connection = ServerConnection::new(Arc::clone(config));
            let mut connection = connection.map_err(io::Error::other)?;
            server::upgrade(&mut Stream::new(&mut connection, &mut stream))?;
            connections.push(connection);
        } else {
            server::upgrade(&mut stream)?;
        }
        streams.push(stream);
    }
    // The child is gone when this returns, whatever it returns.
    if let Some(stream) = streams.first_mut() {
        let _ = TcpStream::read(stream, &mut [0; 1024]);
    }
    Ok(())
}

#[derive(Clone, Default)]
struct Idle {
    opened: Rc<Cell<usize>>,
    ended: Rc<Cell<usize>>,
}

impl Handler for Idle {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }

    fn on_disconnect(&mut self, _: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        eprintln!("{}", disconnect.reason);
        self.ended.set(self.ended.get() + 1);
        Reconnect::Never
    }
}

/// Opens `count` connections and prints what each of them costs.
fn client(url: &str, count: usize) -> Result<()> {
    let mut certificate = Vec::new();
    io::stdin().read_to_end(&mut certificate)?;
    let mut reactor = Reactor::builder();
    if !certificate.is_empty() {
        let tls = TlsConfig::builder().root_certificates_pem(&certificate)?;
        reactor = reactor.tls(tls.build()?);
    }
    drop(certificate);
    let mut reactor = reactor.build()?;
    let idle = Idle::default();
    open(&mut reactor, url, &idle, WAVE.min(count))?;
    let (heap, resident) = (LIVE.load(Ordering::Relaxed), resident_kib());
    open(&mut reactor, url, &idle, count)?;
    let heap = LIVE.load(Ordering::Relaxed) - heap;
    let resident = resident_kib() - resident;
    let more = count.saturating_sub(WAVE).max(1) as f64;
    println!(
        "{count:>6} idle connections to {url}: {:.0} bytes of live heap and {:.2} KiB resident each",
        heap as f64 / more,
        resident / more,
    );
    // Without closing handshakes; the server expects it.
    std::process::exit(0);
}

/// Opens connections until there are `count`, and lets them settle.
fn open(reactor: &mut Reactor, url: &str, idle: &Idle, count: usize) -> Result<()> {
    let mut begun = idle.opened.get();
    while idle.opened.get() < count {
        while begun < count && begun - idle.opened.get() < WAVE {
            reactor.connect(url, idle.clone())?;
            begun += 1;
        }
        reactor.turn(Some(Duration::from_secs(1)))?;
        if idle.ended.get() > 0 {
            return Err("a connection ended".into());
        }
    }
    let end = Instant::now() + SETTLE;
    while Instant::now() < end {
        reactor.turn(Some(SETTLE))?;
    }
    Ok(())
}

/// Resident memory of this process, in KiB; 0 where there is no such file.
fn resident_kib() -> f64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Rss:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.unwrap_or(0.0)
}
