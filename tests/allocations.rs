//! Nothing is allocated per message in the steady state: counted by the allocator itself, on the
//! reactor's thread only.
//!
//! A test binary of its own, because an allocator is the whole program's.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;
use websockex::protocol::handshake::{Answer, HandshakeLimits, ServerHandshake};
use websockex::trace::Level;
use websockex::{Context, Handler, HandlerResult, Message, Reactor};

thread_local! {
    /// Counts while it is `Some`.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

fn count() {
    // While the thread ends there is nothing to count in.
    let _ = COUNT.try_with(|count| count.set(count.get().map(|count| count + 1)));
}

// SAFETY: everything is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `pointer` came from this allocator, and so from the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `run` makes on this thread.
fn allocations(run: impl FnOnce()) -> u64 {
    COUNT.set(Some(0));
    run();
    COUNT.take().expect("it was counting")
}

/// Sends something small back for each message.
struct Reply;

impl Handler for Reply {
    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        match message {
            Message::Text(text) => cx.send_text(&text[..text.floor_char_boundary(40)])?,
            Message::Binary(_) => cx.send_binary(b"got it")?,
        }
        Ok(())
    }
}

/// An open connection, both ends of which are on this thread.
struct Pair {
    reactor: Reactor,
    peer: TcpStream,
}

impl Pair {
    fn open(handler: impl Handler, level: Level) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let mut reactor = Reactor::builder().trace(level).build().expect("a reactor");
        reactor
            .connect(format!("ws://{address}/"), handler)
            .expect("a request");
        let mut turn = || reactor.turn(Some(PATIENCE)).expect("a turn");
        turn();
        let (mut peer, _) = listener.accept().expect("it connects");
        turn();
        peer.set_nodelay(true).expect("a socket");
        accept(&mut peer);
        turn();
        Self { reactor, peer }
    }

    /// Delivers each of `pieces` in a turn of its own, and reads what comes back.
    fn round(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            self.peer.write_all(piece).expect("it is taken");
            self.reactor.turn(Some(PATIENCE)).expect("a turn");
        }
        let mut back = [0; 64 * 1024];
        assert!(self.peer.read(&mut back).expect("a reply") > 0);
    }
}

/// The server's side of the opening handshake.
fn accept(peer: &mut (impl Read + Write)) {
    let mut handshake = ServerHandshake::new(HandshakeLimits::default());
    let mut head = [0; 4096];
    let length = peer.read(&mut head).expect("the request");
    let received = handshake.receive(&head[..length]).expect("a request");
    let request = received.request.expect("a whole one");
    let mut answer = Vec::new();
    request
        .write_response(&Answer::default(), &mut answer)
        .expect("an answer");
    peer.write_all(&answer).expect("it is taken");
    peer.flush().expect("it is taken");
}

/// An unmasked frame; the length in its two-byte form from 126 on.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..126) => bytes.push(length),
        _ => {
            bytes.push(126);
            let length = u16::try_from(payload.len()).expect("a short frame");
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// How long a turn waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rounds before counting: buffers grow to their sizes, pools fill.
const WARM_UP: usize = 20;
/// Rounds that are counted; more than the entropy that is bought at a time lasts for.
const ROUNDS: usize = 2000;

#[track_caller]
fn assert_allocation_free(level: Level, pieces: &[&[u8]]) {
    let mut pair = Pair::open(Reply, level);
    for _ in 0..WARM_UP {
        pair.round(pieces);
    }
    let count = allocations(|| {
        for _ in 0..ROUNDS {
            pair.round(pieces);
        }
    });
    assert_eq!(count, 0, "allocations in {ROUNDS} rounds");
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| {}), 0);
}

/// One small message per read, and a batch of them.
#[test]
fn receiving_and_sending_small_messages_allocates_nothing() {
    let text = frame(0x81, r#"{"stream":"trade","price":"1.5"}"#.as_bytes());
    let binary = frame(0x82, &[7; 200]);
    assert_allocation_free(Level::Lifecycle, &[&text]);
    assert_allocation_free(Level::Lifecycle, &[&binary]);
    let batch = [&text[..], &binary].concat().repeat(20);
    assert_allocation_free(Level::Lifecycle, &[&batch]);
}

#[test]
fn fragmented_messages_with_control_frames_allocate_nothing() {
    let bytes = [
        frame(0x01, b"{\"first\":"),
        frame(0x89, b"ping"),
        frame(0x00, b"\"second\""),
        frame(0x80, b"}"),
    ]
    .concat();
    assert_allocation_free(Level::Lifecycle, &[&bytes]);
}

/// Cut in the header, in the payload, and in the middle of a code point.
#[test]
fn messages_cut_by_reads_allocate_nothing() {
    let text = frame(0x81, "€".repeat(100).as_bytes());
    let pieces: [&[u8]; 5] = [
        &text[..1],
        &text[1..3],
        &text[3..5],
        &text[5..120],
        &text[120..],
    ];
    assert_allocation_free(Level::Lifecycle, &pieces);
    let large = frame(0x82, &[1; 60_000]);
    assert_allocation_free(Level::Lifecycle, &[&large[..20_000], &large[20_000..]]);
}

/// The trace costs memory once, at the beginning.
#[test]
fn tracing_allocates_nothing_at_any_level() {
    let text = frame(0x81, b"{\"stream\":\"trade\"}");
    for level in [Level::Off, Level::Lifecycle, Level::Frames, Level::Payload] {
        assert_allocation_free(level, &[&text]);
    }
}

/// Nor does the way of an event to a sink, on this side of it.
#[test]
fn events_for_a_sink_allocate_nothing_here() {
    let text = frame(0x81, b"{\"stream\":\"trade\"}");
    let mut pair = Pair::open(Reply, Level::Payload);
    let sink = |_: &websockex::trace::Record| {};
    let remote = pair.reactor.remote();
    remote.add_trace_sink(sink).expect("it runs");
    for _ in 0..WARM_UP {
        pair.round(&[&text]);
    }
    let count = allocations(|| {
        for _ in 0..ROUNDS {
            pair.round(&[&text]);
        }
    });
    assert_eq!(count, 0, "allocations in {ROUNDS} rounds");
    let sink = &remote.stats().sinks[0];
    assert!(sink.written + sink.dropped > ROUNDS as u64, "{sink:?}");
}

/// Over TLS this crate allocates nothing either; what is counted is rustls', which takes and gives
/// each record in a vector of its own.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
#[test]
fn over_tls_allocations_are_those_of_the_records() {
    let name = "localhost".to_owned();
    let made = rcgen::generate_simple_self_signed(vec![name]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.expect("a key"))
        .expect("a configuration");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let server = std::thread::spawn(move || {
        let (peer, _) = listener.accept().expect("it connects");
        peer.set_nodelay(true).expect("a socket");
        let tls = rustls::ServerConnection::new(Arc::new(config)).expect("a configuration");
        let mut peer = rustls::StreamOwned::new(tls, peer);
        accept(&mut peer);
        peer
    });
    let tls = websockex::TlsConfig::builder()
        .root_certificates_pem(made.cert.pem().as_bytes())
        .and_then(websockex::TlsConfigBuilder::build)
        .expect("a configuration");
    let mut reactor = Reactor::builder().tls(tls).build().expect("a reactor");
    let opened = Arc::new(AtomicBool::new(false));
    let handler = Opened(Arc::clone(&opened));
    let url = format!("wss://localhost:{port}/");
    reactor.connect(url, handler).expect("a request");
    while !opened.load(Ordering::Acquire) {
        reactor.turn(Some(PATIENCE)).expect("a turn");
    }
    let mut peer = server.join().expect("a handshake");
    let text = frame(0x81, b"{\"stream\":\"trade\"}");
    let mut count = 0;
    for round in 0..WARM_UP + ROUNDS {
        peer.write_all(&text).expect("it is taken");
        peer.flush().expect("it is taken");
        let counted = allocations(|| reactor.turn(Some(PATIENCE)).expect("a turn"));
        if round >= WARM_UP {
            count += counted;
        }
        let mut back = [0; 1024];
        assert!(peer.read(&mut back).expect("a reply") > 0);
    }
    let each = count as f64 / ROUNDS as f64;
    println!("{each} allocations for a record in and a record out");
    assert!(each <= 4.0, "{each}");
}

/// Says when it is open.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
struct Opened(Arc<AtomicBool>);

#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
impl Handler for Opened {
    fn on_open(&mut self, _: &mut Context<'_>, _: &websockex::Open<'_>) -> HandlerResult {
        self.0.store(true, Ordering::Release);
        Ok(())
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        Ok(cx.send(message)?)
    }
}

/// Moves its timer with every message, as a watchdog does.
struct Watchdog;

impl Handler for Watchdog {
    fn on_message(&mut self, cx: &mut Context<'_>, _: Message<'_>) -> HandlerResult {
        cx.set_timer(websockex::TimerId(1), Duration::from_secs(3600));
        Ok(cx.send_text("kept")?)
    }
}

/// Pitfall 29: a timer that is re-armed for every message, and no list of messages per read.
#[test]
fn pitfall_29_re_arming_a_timer_allocates_nothing() {
    let mut pair = Pair::open(Watchdog, Level::Lifecycle);
    let text = frame(0x81, b"tick");
    for _ in 0..WARM_UP {
        pair.round(&[&text]);
    }
    let count = allocations(|| {
        for _ in 0..ROUNDS {
            pair.round(&[&text]);
        }
    });
    assert_eq!(count, 0);
}
