//! The modes for peers on anything that reads and writes: what differs between these programs is
//! [`Peer`] and [`Connection`] alone.
//!
//! A single connection blocks in its read, and with `--spin` never does; several are watched by mio,
//! edge-triggered. Handshakes have a thread each.

use super::reports;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::cell::Cell;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use websockex_peers::{
    Arguments, GO, Meter, Mode, Report, Result, Tally, Usage, live_heap, monotonic_ns, resident,
    start, tls, unsupported,
};

/// The crate that is measured.
pub(crate) trait Peer: 'static {
    /// Name and version.
    const CLIENT: &'static str;

    type Connection<S: Transport>: Connection;

    /// The opening handshake on a connected stream, which blocks until it is over.
    fn open<S: Transport>(stream: S, arguments: &Arguments) -> Result<Self::Connection<S>>;
}

/// An open connection of a peer.
pub(crate) trait Connection {
    /// Reads at most once; hands out one message, or all there are. `false` if there was nothing to
    /// read, which a blocking socket does not say.
    fn step(&mut self, take: impl FnMut(&[u8])) -> Result<bool>;

    /// Queues a message, and writes what is queued if it is the last of its turn.
    fn send(&mut self, payload: &str, is_binary: bool, is_last: bool) -> Result<()>;
}

/// What is there to know of a socket, and to tell it, while the peer owns it.
pub(crate) struct Control {
    /// A read may be worth its system call. A short read of an edge-triggered socket has emptied it.
    pub(crate) may_read: Cell<bool>,
    kind: Cell<Kind>,
    /// To watch it by.
    descriptor: RawFd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blocking,
    Spinning,
    Watched,
}

/// A socket that does not ask the kernel for what cannot be there.
pub(crate) struct Socket {
    tcp: TcpStream,
    control: Rc<Control>,
    /// What the kernel knows of it; the control may want another kind by now.
    kind: Kind,
}

impl Socket {
    #[cold]
    fn change_kind(&mut self) -> io::Result<()> {
        self.kind = self.control.kind.get();
        self.tcp.set_nonblocking(self.kind != Kind::Blocking)
    }
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.kind != self.control.kind.get() {
            self.change_kind()?;
        }
        if self.kind != Kind::Watched {
            return self.tcp.read(buffer);
        }
        if !self.control.may_read.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = self.tcp.read(buffer);
        if !matches!(result, Ok(length) if length == buffer.len()) {
            self.control.may_read.set(false);
        }
        result
    }
}

impl Write for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.tcp.write(bytes) {
                // Only a spinning echo and the one word that begins the sending are written to a
                // socket that does not block; both fit.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are read at once of a busy connection with TLS; rustls by itself reads 4 KiB.
const TLS_READ_SIZE: usize = 64 * 1024;

/// A socket below TLS, where one connection is busy.
pub(crate) struct BufferedSocket(BufReader<Socket>);

impl Read for BufferedSocket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for BufferedSocket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How to get a connected stream.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A socket, or TLS over one.
pub(crate) trait Transport: Read + Write + 'static {
    #[allow(dead_code, reason = "not every peer wants to know")]
    const IS_ENCRYPTED: bool;

    fn dial(dialer: &Dialer) -> Result<Self>
    where
        Self: Sized;

    fn control(&self) -> &Rc<Control>;
}

impl Transport for Socket {
    const IS_ENCRYPTED: bool = false;

    fn dial(dialer: &Dialer) -> Result<Self> {
        let tcp = TcpStream::connect(dialer.address)?;
        tcp.set_nodelay(true)?;
        let control = Rc::new(Control {
            may_read: Cell::new(true),
            kind: Cell::new(Kind::Blocking),
            descriptor: tcp.as_raw_fd(),
        });
        Ok(Self {
            tcp,
            control,
            kind: Kind::Blocking,
        })
    }

    fn control(&self) -> &Rc<Control> {
        &self.control
    }
}

impl Transport for BufferedSocket {
    const IS_ENCRYPTED: bool = false;

    fn dial(dialer: &Dialer) -> Result<Self> {
        let socket = Socket::dial(dialer)?;
        Ok(Self(BufReader::with_capacity(TLS_READ_SIZE, socket)))
    }

    fn control(&self) -> &Rc<Control> {
        self.0.get_ref().control()
    }
}

impl<T: Transport> Transport for StreamOwned<ClientConnection, T> {
    const IS_ENCRYPTED: bool = true;

    fn dial(dialer: &Dialer) -> Result<Self> {
        let (config, name) = dialer.tls.as_ref().ok_or("there is no TLS configuration")?;
        let tls = ClientConnection::new(config.clone(), name.clone())?;
        let mut stream = Self::new(tls, T::dial(dialer)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    fn control(&self) -> &Rc<Control> {
        self.sock.control()
    }
}

/// The whole program.
pub(crate) fn run<P: Peer>() -> Result<()> {
    let arguments = start()?;
    if arguments.deflate {
        unsupported(P::CLIENT, "it has no permessage-deflate");
    }
    let mut dialer = Dialer {
        address: arguments.address()?,
        tls: None,
    };
    if !arguments.is_tls() {
        return drive::<P, Socket>(&arguments, &dialer);
    }
    let ca = arguments.ca.as_ref().ok_or("--ca is missing")?;
    let config = tls::client_config(ca, arguments.resumption)?;
    let name = ServerName::try_from(arguments.host().to_owned())?;
    dialer.tls = Some((config, name));
    match arguments.mode == Mode::Receive && arguments.connections == 1 {
        true => drive::<P, StreamOwned<ClientConnection, BufferedSocket>>(&arguments, &dialer),
        false => drive::<P, StreamOwned<ClientConnection, Socket>>(&arguments, &dialer),
    }
}

fn drive<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<()> {
    let report = match arguments.mode {
        Mode::Receive if arguments.connections == 1 => receive_one::<P, S>(arguments, dialer)?,
        Mode::Receive => receive_many::<P, S>(arguments, dialer)?,
        Mode::Echo => echo::<P, S>(arguments, dialer)?,
        Mode::Send => send::<P, S>(arguments, dialer)?,
        Mode::Idle => idle::<P, S>(arguments, dialer)?,
        Mode::Handshakes => handshakes::<P, S>(arguments, dialer)?,
    };
    report.print();
    Ok(())
}

fn open<P: Peer, S: Transport>(
    arguments: &Arguments,
    dialer: &Dialer,
) -> Result<(P::Connection<S>, Rc<Control>)> {
    let stream = S::dial(dialer)?;
    let control = stream.control().clone();
    let connection = P::open(stream, arguments)?;
    if arguments.spin {
        control.kind.set(Kind::Spinning);
    }
    Ok((connection, control))
}

fn receive_one<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let mut tally = Tally::new(arguments.messages, arguments.stamped);
    let (mut connection, _) = open::<P, S>(arguments, dialer)?;
    let meter = Meter::start();
    connection.send(GO, false, true)?;
    while !tally.is_complete() {
        connection.step(|payload| tally.take(payload))?;
    }
    Ok(Report::new(P::CLIENT, arguments, &meter.stop(), &tally))
}

fn receive_many<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let mut tally = Tally::new(arguments.messages, arguments.stamped);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Vec::with_capacity(arguments.connections);
    for number in 0..arguments.connections {
        let connection = open::<P, S>(arguments, dialer)?;
        watch(&poll, &connection.1, number)?;
        connections.push(connection);
    }
    let timeout = arguments.spin.then_some(Duration::ZERO);
    let meter = Meter::start();
    connections[0].0.send(GO, false, true)?;
    while !tally.is_complete() {
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for event in &events {
            let (connection, control) = &mut connections[event.token().0];
            control.may_read.set(true);
            while connection.step(|payload| tally.take(payload))? {}
        }
    }
    Ok(Report::new(P::CLIENT, arguments, &meter.stop(), &tally))
}

fn watch(poll: &Poll, control: &Control, number: usize) -> Result<()> {
    control.kind.set(Kind::Watched);
    let mut source = SourceFd(&control.descriptor);
    Ok(poll
        .registry()
        .register(&mut source, Token(number), Interest::READABLE)?)
}

fn echo<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let payload = arguments.payload();
    let mut tally = Tally::new(arguments.messages, false);
    let (mut connection, _) = open::<P, S>(arguments, dialer)?;
    let meter = Meter::start();
    while !tally.is_complete() {
        let sent = monotonic_ns();
        connection.send(&payload, arguments.binary, true)?;
        let before = tally.messages;
        while tally.messages == before {
            connection.step(|payload| tally.take(payload))?;
        }
        tally.latencies.push(monotonic_ns() - sent);
    }
    Ok(Report::new(P::CLIENT, arguments, &meter.stop(), &tally))
}

fn send<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let payload = arguments.payload();
    let batch = arguments.batch.max(1) as u64;
    let (mut connection, _) = open::<P, S>(arguments, dialer)?;
    let meter = Meter::start();
    let mut left = arguments.messages;
    while left > 0 {
        let turn = left.min(batch);
        for number in 1..=turn {
            connection.send(&payload, arguments.binary, number == turn)?;
        }
        left -= turn;
    }
    let mut answer = Vec::new();
    while answer.is_empty() {
        connection.step(|payload| answer.extend_from_slice(payload))?;
    }
    reports::sent(P::CLIENT, arguments, &meter.stop(), &answer)
}

fn idle<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    let poll = Poll::new()?;
    let mut connections = Vec::with_capacity(arguments.connections + 1);
    let mut before = (0, 0);
    let meter = Meter::start();
    for number in 0..=arguments.connections {
        let (mut connection, control) = open::<P, S>(arguments, dialer)?;
        watch(&poll, &control, number)?;
        // A peer that holds a buffer only from its first read on has it now.
        connection.step(|_| {})?;
        connections.push((connection, control));
        if number == 0 {
            before = (resident(), live_heap());
        }
    }
    let tally = Tally::new(0, false);
    let report = Report::new(P::CLIENT, arguments, &meter.stop(), &tally);
    Ok(reports::idle(report, before))
}

fn handshakes<P: Peer, S: Transport>(arguments: &Arguments, dialer: &Dialer) -> Result<Report> {
    // The first has more to do than the others: a session to resume, code to be paged in.
    drop(open::<P, S>(arguments, dialer)?);
    let begun = AtomicU64::new(0);
    let barrier = Barrier::new(arguments.in_flight + 1);
    let work = || -> Result<()> {
        barrier.wait();
        barrier.wait();
        while begun.fetch_add(1, Relaxed) < arguments.messages {
            drop(open::<P, S>(arguments, dialer)?);
        }
        Ok(())
    };
    let usage = thread::scope(|scope| -> Result<Usage> {
        let workers: Vec<_> = (0..arguments.in_flight)
            .map(|_| scope.spawn(work))
            .collect();
        // They all have begun when the meter starts, and go on once it has.
        barrier.wait();
        let meter = Meter::start();
        barrier.wait();
        for worker in workers {
            worker.join().map_err(|_| "a thread has panicked")??;
        }
        Ok(meter.stop())
    })?;
    let mut tally = Tally::new(0, false);
    tally.messages = arguments.messages;
    Ok(Report::new(P::CLIENT, arguments, &usage, &tally))
}
