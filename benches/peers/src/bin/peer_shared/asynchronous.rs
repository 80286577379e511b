//! The modes for peers on tokio: what differs between these programs is [`Peer`] and [`Connection`]
//! alone. Everything is generic, so that a peer pays for no dynamic dispatch of ours.
//!
//! One runtime on the current thread; a single connection is driven by the main task, several have a
//! task each.

use super::reports;
use bytes::Bytes;
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use websockex_peers::{
    Arguments, GO, Meter, Mode, Report, Result, Tally, live_heap, monotonic_ns, resident, start,
    tls, unsupported,
};

/// What a peer runs on.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for S {}

/// The crate that is measured.
pub(crate) trait Peer: Send + Sync + 'static {
    /// Name and version.
    const CLIENT: &'static str;
    /// Does it have permessage-deflate?
    const HAS_DEFLATE: bool = false;
    /// Does it read so little at a time that it is given a reader below it where one connection is busy?
    const WANTS_READER: bool = false;

    type Connection<S: Io>: Connection;

    /// The opening handshake on a connected stream.
    fn open<S: Io>(
        stream: S,
        arguments: &Arguments,
    ) -> impl Future<Output = Result<Self::Connection<S>>> + Send;
}

/// An open connection of a peer.
pub(crate) trait Connection: Send + 'static {
    /// What it hands a message out in.
    type Payload: Deref<Target = [u8]> + Send;

    /// The next text or binary message.
    fn receive(&mut self) -> impl Future<Output = Result<Self::Payload>> + Send;

    /// Queues a message.
    fn feed(&mut self, payload: &Bytes, is_binary: bool)
    -> impl Future<Output = Result<()>> + Send;

    /// Writes what is queued.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Bytes that are read at once of one busy connection, by the reader below TLS, which by itself reads
/// 4 KiB, or below a peer that wants one.
const READER_SIZE: usize = 64 * 1024;

/// How to get a connected stream.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

trait Transport: Io + Sized {
    fn dial(dialer: &Dialer) -> impl Future<Output = Result<Self>> + Send;
}

impl Transport for TcpStream {
    async fn dial(dialer: &Dialer) -> Result<Self> {
        let stream = TcpStream::connect(dialer.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Transport for BufReader<TcpStream> {
    async fn dial(dialer: &Dialer) -> Result<Self> {
        let stream = TcpStream::dial(dialer).await?;
        Ok(Self::with_capacity(READER_SIZE, stream))
    }
}

impl<T: Transport> Transport for TlsStream<T> {
    async fn dial(dialer: &Dialer) -> Result<Self> {
        let stream = T::dial(dialer).await?;
        let (connector, name) = dialer.tls.as_ref().ok_or("there is no TLS configuration")?;
        Ok(connector.connect(name.clone(), stream).await?)
    }
}

/// The whole program.
pub(crate) fn run<P: Peer>() -> Result<()> {
    let arguments = start()?;
    if arguments.deflate && !P::HAS_DEFLATE {
        unsupported(P::CLIENT, "it has no permessage-deflate");
    }
    let mut dialer = Dialer {
        address: arguments.address()?,
        tls: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let is_busy = arguments.mode == Mode::Receive && arguments.connections == 1;
    if !arguments.is_tls() {
        return match is_busy && P::WANTS_READER {
            true => runtime.block_on(drive::<P, BufReader<TcpStream>>(arguments, dialer)),
            false => runtime.block_on(drive::<P, TcpStream>(arguments, dialer)),
        };
    }
    let ca = arguments.ca.as_ref().ok_or("--ca is missing")?;
    let config = tls::client_config(ca, arguments.resumption)?;
    let name = ServerName::try_from(arguments.host().to_owned())?;
    dialer.tls = Some((TlsConnector::from(config), name));
    if is_busy {
        return runtime.block_on(drive::<P, TlsStream<BufReader<TcpStream>>>(
            arguments, dialer,
        ));
    }
    runtime.block_on(drive::<P, TlsStream<TcpStream>>(arguments, dialer))
}

/// Bytes of read buffer for peers where they can be chosen: much for one busy connection, little for
/// many, least where none is to be busy.
#[allow(dead_code, reason = "not every peer lets one choose")]
pub(crate) fn read_buffer_size(arguments: &Arguments) -> usize {
    match arguments.mode {
        Mode::Idle | Mode::Handshakes => 1024,
        Mode::Receive if arguments.connections == 1 => 128 * 1024,
        _ => 4 * 1024,
    }
}

async fn drive<P: Peer, S: Transport>(arguments: Arguments, dialer: Dialer) -> Result<()> {
    if arguments.spin {
        // A task that is always ready keeps the runtime from blocking in epoll_wait.
        tokio::spawn(async {
            loop {
                yield_now().await;
            }
        });
    }
    let report = match arguments.mode {
        Mode::Receive => receive::<P, S>(&arguments, &dialer).await?,
        Mode::Echo => echo::<P, S>(&arguments, &dialer).await?,
        Mode::Send => send::<P, S>(&arguments, &dialer).await?,
        Mode::Idle => idle::<P, S>(&arguments, &dialer).await?,
        Mode::Handshakes => handshakes::<P, S>(&arguments, &dialer).await?,
    };
    report.print();
    // Without taking ten thousand tasks down one by one.
    exit(0)
}

async fn open<P: Peer, S: Transport>(
    arguments: &Arguments,
    dialer: &Dialer,
) -> Result<P::Connection<S>> {
    P::open(S::dial(dialer).await?, arguments).await
}

async fn receive<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let mut tally = Tally::new(arguments.messages, arguments.stamped);
    let mut first = open::<P, S>(arguments, dialer).await?;
    if arguments.connections == 1 {
        let meter = Meter::start();
        go(&mut first).await?;
        while !tally.is_complete() {
            tally.take(&first.receive().await?);
        }
        return Ok(Report::new(P::CLIENT, arguments, &meter.stop(), &tally));
    }

    TALLY.set(Some(tally));
    let complete = Arc::new(Notify::new());
    for _ in 1..arguments.connections {
        let connection = open::<P, S>(arguments, dialer).await?;
        tokio::spawn(take_all(connection, complete.clone()));
    }
    // Each task runs up to its first wait before the meter does.
    yield_now().await;
    let meter = Meter::start();
    go(&mut first).await?;
    tokio::spawn(take_all(first, complete.clone()));
    complete.notified().await;
    let usage = meter.stop();
    let tally = TALLY.take().unwrap_or_else(|| Tally::new(0, false));
    Ok(Report::new(P::CLIENT, arguments, &usage, &tally))
}

thread_local! {
    /// Shared by the tasks, all of which run on this thread.
    static TALLY: RefCell<Option<Tally>> = const { RefCell::new(None) };
}

async fn take_all(mut connection: impl Connection, complete: Arc<Notify>) {
    loop {
        let payload = match connection.receive().await {
            Ok(payload) => payload,
            Err(error) => fail(&*error),
        };
        let is_complete = TALLY.with_borrow_mut(|tally| {
            tally.as_mut().is_none_or(|tally| {
                if !tally.is_complete() {
                    tally.take(&payload);
                }
                tally.is_complete()
            })
        });
        if is_complete {
            complete.notify_one();
            return;
        }
    }
}

fn fail(error: &dyn std::error::Error) -> ! {
    eprintln!("{error}");
    exit(1)
}

async fn go(connection: &mut impl Connection) -> Result<()> {
    connection
        .feed(&Bytes::from_static(GO.as_bytes()), false)
        .await?;
    connection.flush().await
}

async fn echo<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let payload = Bytes::from(arguments.payload());
    let mut tally = Tally::new(arguments.messages, false);
    let mut connection = open::<P, S>(arguments, dialer).await?;
    let meter = Meter::start();
    while !tally.is_complete() {
        let sent = monotonic_ns();
        connection.feed(&payload, arguments.binary).await?;
        connection.flush().await?;
        let reply = connection.receive().await?;
        tally.latencies.push(monotonic_ns() - sent);
        tally.take(&reply);
    }
    Ok(Report::new(P::CLIENT, arguments, &meter.stop(), &tally))
}

async fn send<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let payload = Bytes::from(arguments.payload());
    let batch = arguments.batch.max(1) as u64;
    let mut connection = open::<P, S>(arguments, dialer).await?;
    let meter = Meter::start();
    let mut left = arguments.messages;
    while left > 0 {
        let turn = left.min(batch);
        for _ in 0..turn {
            connection.feed(&payload, arguments.binary).await?;
        }
        connection.flush().await?;
        left -= turn;
    }
    let answer = connection.receive().await?;
    let usage = meter.stop();
    reports::sent(P::CLIENT, arguments, &usage, &answer)
}

async fn idle<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let complete = Arc::new(Notify::new());
    TALLY.set(Some(Tally::new(u64::MAX, false)));
    let mut before = (0, 0);
    let meter = Meter::start();
    for opened in 0..=arguments.connections {
        let connection = open::<P, S>(arguments, dialer).await?;
        tokio::spawn(take_all(connection, complete.clone()));
        yield_now().await;
        if opened == 0 {
            before = (resident(), live_heap());
        }
    }
    let tally = Tally::new(0, false);
    let report = Report::new(P::CLIENT, arguments, &meter.stop(), &tally);
    Ok(reports::idle(report, before))
}

async fn handshakes<P: Peer, S: Transport>(
    arguments: &Arguments,
    dialer: &Dialer,
) -> Result<Report> {
    // The first has more to do than the others: a session to resume, code to be paged in.
    drop(open::<P, S>(arguments, dialer).await?);
    let begun = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..arguments.in_flight {
        let (arguments, dialer, begun) = (arguments.clone(), dialer.clone(), begun.clone());
        workers.spawn(async move {
            while begun.fetch_add(1, Relaxed) < arguments.messages {
                drop(open::<P, S>(&arguments, &dialer).await?);
            }
            Result::Ok(())
        });
    }
    // None of them runs before this task waits for the first time.
    let meter = Meter::start();
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let usage = meter.stop();
    let mut tally = Tally::new(0, false);
    tally.messages = arguments.messages;
    Ok(Report::new(P::CLIENT, arguments, &usage, &tally))
}
