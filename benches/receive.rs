//! Receiving over loopback, end to end: a server thread blasts text messages of 128 bytes, and a
//! reactor with a handler that counts takes them. Beside it, in turns with it, two floors that only
//! walk headers: `blocking`, a plain read loop on one socket, and `poll`, edge-triggered readiness
//! and one buffer for all sockets.
//!
//! The figure to compare is `cpu`: time on the processor of the receiving thread alone. Messages per
//! second depend on how the two threads happen to share the machine.
//!
//! ```text
//! cargo bench --bench receive -- [--connections N] [--buffer BYTES] [--burst MESSAGES]
//!                                [--rounds N] [--seconds S] [--only CLIENT]... [--messages N]
//! ```

#[path = "support/frames.rs"]
mod frames;
#[path = "support/server.rs"]
mod server;

use frames::TRADE;
use mio::{Events, Interest, Poll, Token};
use std::cell::Cell;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};
use websockex::protocol::Role;
use websockex::protocol::buffer::Buffer;
use websockex::protocol::encoder;
use websockex::protocol::frame::OpCode;
use websockex::{Context, Handler, HandlerResult, Message, Open, Reactor};

/// Connections opened at a time: fewer than a listener's backlog.
const WAVE: usize = 64;
/// Messages before the clock starts.
const WARM_UP: u64 = 20_000;
/// Reads of one socket before the others have their turn, as in the reactor.
const READS_PER_TURN: usize = 4;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Options {
    /// Only tries whether everything runs; what it would measure means nothing.
    test: bool,
    connections: usize,
    buffer: usize,
    /// Messages per write of the server.
    burst: usize,
    rounds: usize,
    seconds: f64,
    /// Ends a measurement, if given, instead of `seconds`.
    messages: Option<u64>,
    only: Vec<String>,
}

impl Options {
    fn from_arguments() -> Result<Self> {
        let mut options = Self {
            // Cargo says `--bench` when it is to be measured, and not when it is only to be tested.
            test: true,
            connections: 1,
            buffer: 128 * 1024,
            burst: 0,
            rounds: 5,
            seconds: 1.0,
            messages: None,
            only: Vec::new(),
        };
        let is_test = std::env::args().any(|argument| argument == "--test");
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => options.test = is_test,
                "--test" => {}
                "--connections" => options.connections = value()?.parse()?,
                "--buffer" => options.buffer = value()?.parse()?,
                "--burst" => options.burst = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--messages" => options.messages = Some(value()?.parse()?),
                "--only" => options.only.push(value()?),
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        if options.test {
            (options.rounds, options.messages) = (1, Some(1000));
        }
        if options.burst == 0 {
            // One connection is blasted; of many, each has a little at a time.
            options.burst = if options.connections == 1 { 512 } else { 16 };
        }
        Ok(options)
    }
}

/// Connects, and takes messages until it has a sample.
type Client = fn(&Options, SocketAddr) -> Result<Sample>;

fn main() -> Result<()> {
    let options = Options::from_arguments()?;
    let clients: [(&str, Client); 3] =
        [("blocking", blocking), ("poll", poll), ("reactor", reactor)];
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); clients.len()];
    for _ in 0..options.rounds {
        for ((name, run), samples) in clients.iter().zip(&mut samples) {
            let left_out = !options.only.is_empty() && !options.only.iter().any(|one| one == name);
            if left_out || (*name == "blocking" && options.connections > 1) {
                continue;
            }
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            let (connections, burst) = (options.connections, options.burst);
            let server = thread::spawn(move || serve(&listener, connections, burst));
            samples.push(run(&options, address)?);
            server.join().expect("the server does not panic")?;
        }
    }
    if options.test {
        println!("receive: every client has run");
        return Ok(());
    }
    println!(
        "receive text 128 B, {} connection(s), buffer {} KiB, {} messages per write, {} rounds",
        options.connections,
        options.buffer >> 10,
        options.burst,
        options.rounds
    );
    let floor = samples.iter().find(|samples| !samples.is_empty());
    let floor = floor.map_or(0.0, |samples| median(samples, |sample| sample.cpu));
    for ((name, _), samples) in clients.iter().zip(&samples) {
        if !samples.is_empty() {
            let cpu = median(samples, |sample| sample.cpu);
            let fold = |start, choose: fn(f64, f64) -> f64| {
                samples.iter().map(|sample| sample.cpu).fold(start, choose)
            };
            println!(
                "{name:>9}  cpu {cpu:6.1} ns/message ({:.1} to {:.1}), {:5.2} x, {:6.2} million messages/s",
                fold(f64::MAX, f64::min),
                fold(0.0, f64::max),
                cpu / floor,
                median(samples, |sample| sample.rate) / 1e6,
            );
        }
    }
    Ok(())
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Accepts, and then writes to each connection in turn until they go away.
fn serve(listener: &TcpListener, connections: usize, burst: usize) -> io::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let (mut stream, _) = listener.accept()?;
        server::upgrade(&mut stream)?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let mut frame = Buffer::new();
    let (payload, no_key) = (TRADE.as_bytes(), [0; 4]);
    encoder::encode(
        Role::Server,
        true,
        OpCode::Text,
        payload,
        no_key,
        &mut frame,
    );
    let burst = frames::fill(burst * frame.len(), &[frame.as_slice().to_vec()]);
    loop {
        for stream in &mut streams {
            // An error says that the client has seen enough.
            if stream.write_all(&burst).is_err() {
                return Ok(());
            }
        }
    }
}

/// What one measurement gave.
#[derive(Clone, Copy)]
struct Sample {
    /// Nanoseconds on the processor per message.
    cpu: f64,
    /// Messages per second.
    rate: f64,
}

/// Counts from the end of the warm-up to the end of the measurement.
struct Meter {
    goal: Option<u64>,
    limit: Duration,
    started: Option<(Instant, Duration, u64)>,
}

impl Meter {
    fn new(options: &Options) -> Self {
        Self {
            goal: options.messages,
            limit: Duration::from_secs_f64(options.seconds),
            started: None,
        }
    }

    /// The sample, once it is complete; `count` messages have arrived by now.
    fn check(&mut self, count: u64) -> Option<Sample> {
        let Some((start, cpu, before)) = self.started else {
            if count >= WARM_UP {
                self.started = Some((Instant::now(), cpu_time(), count));
            }
            return None;
        };
        let (messages, elapsed) = (count - before, start.elapsed());
        let done = match self.goal {
            Some(goal) => messages >= goal,
            None => elapsed >= self.limit,
        };
        done.then(|| Sample {
            cpu: (cpu_time() - cpu).as_secs_f64() * 1e9 / messages as f64,
            rate: messages as f64 / elapsed.as_secs_f64(),
        })
    }
}

/// Processor time of this thread. Where there is no such file it is 0, and only the rate counts.
fn cpu_time() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = times.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// A connection that is open, without the crate under test.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )?;
    // Byte by byte, so that no frame is read with the head.
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(stream)
}

/// Counts the frames in `buffer[..end]` and moves the incomplete rest to the front.
fn count_frames(buffer: &mut [u8], end: &mut usize, count: &mut u64) {
    let taken = frames::walk(&buffer[..*end], |_, _| *count += 1);
    buffer.copy_within(taken..*end, 0);
    *end -= taken;
}

/// Floor for one connection.
fn blocking(options: &Options, address: SocketAddr) -> Result<Sample> {
    let mut stream = connect(address)?;
    let mut buffer = vec![0; options.buffer];
    let (mut end, mut count) = (0, 0);
    let mut meter = Meter::new(options);
    loop {
        end += stream.read(&mut buffer[end..])?;
        count_frames(&mut buffer, &mut end, &mut count);
        if let Some(sample) = meter.check(count) {
            return Ok(sample);
        }
    }
}

/// Floor for any number of connections.
fn poll(options: &Options, address: SocketAddr) -> Result<Sample> {
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    for index in 0..options.connections {
        let stream = connect(address)?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry()
            .register(&mut stream, Token(index), Interest::READABLE)?;
        streams.push((stream, Vec::new()));
    }
    let mut buffer = vec![0; options.buffer];
    let mut events = Events::with_capacity(1024);
    let mut ready: Vec<usize> = Vec::new();
    let mut count = 0;
    let mut meter = Meter::new(options);
    loop {
        let timeout = (!ready.is_empty()).then_some(Duration::ZERO);
        poll.poll(&mut events, timeout)?;
        let again = ready.drain(..);
        let mut turns: Vec<usize> = again.collect();
        turns.extend(events.iter().map(|event| event.token().0));
        for index in turns {
            let (stream, partial) = &mut streams[index];
            let mut drained = false;
            for _ in 0..READS_PER_TURN {
                let start = partial.len();
                buffer[..start].copy_from_slice(partial);
                let length = match stream.read(&mut buffer[start..]) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(error.into()),
                };
                let mut end = start + length;
                drained = end < buffer.len();
                count_frames(&mut buffer, &mut end, &mut count);
                partial.clear();
                partial.extend_from_slice(&buffer[..end]);
                if drained {
                    break;
                }
            }
            if !drained {
                ready.push(index);
            }
        }
        if let Some(sample) = meter.check(count) {
            return Ok(sample);
        }
    }
}

/// Counts the messages of all connections.
struct Counter {
    opened: Rc<Cell<usize>>,
    messages: Rc<Cell<u64>>,
}

impl Handler for Counter {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }

    fn on_message(&mut self, _: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        debug_assert_eq!(message, Message::Text(TRADE));
        self.messages.set(self.messages.get() + 1);
        Ok(())
    }
}

/// The crate.
fn reactor(options: &Options, address: SocketAddr) -> Result<Sample> {
    let mut reactor = Reactor::builder().receive_buffer(options.buffer).build()?;
    let url = format!("ws://{address}/");
    let opened = Rc::new(Cell::new(0));
    let messages = Rc::new(Cell::new(0));
    let mut begun = 0;
    while opened.get() < options.connections {
        while begun < options.connections && begun - opened.get() < WAVE {
            let (opened, messages) = (Rc::clone(&opened), Rc::clone(&messages));
            reactor.connect(&url, Counter { opened, messages })?;
            begun += 1;
        }
        reactor.turn(Some(Duration::from_secs(1)))?;
    }
    let mut meter = Meter::new(options);
    loop {
        reactor.turn(None)?;
        if let Some(sample) = meter.check(messages.get()) {
            return Ok(sample);
        }
    }
}
