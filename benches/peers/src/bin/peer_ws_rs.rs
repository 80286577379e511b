//! ws-rs, the crate `ws`: an event loop of its own, on mio 0.6. It validates UTF-8, with the standard
//! library; each message is a `String` or `Vec` of its own. It masks with `rand`, and checks neither the
//! server's key nor that its frames are not masked unless told to.
//!
//! - TLS is OpenSSL's only, another provider than everybody else's here: unsupported.
//! - It never polls without blocking: `--spin` is unsupported.
//! - What a handler sends goes through the queue of its loop, which takes 256 of them per turn, and is
//!   written when the socket is next found writable. It has no flush; a turn of ours ends when the last
//!   message of a batch is in the write buffer. Nor does it say when that is written: as messages of
//!   more than some KiB would all be buffered, gigabytes of them, `send` with such is unsupported.
//! - Its permessage-deflate does not survive a Rust of today: it makes a zlib stream of zeroes, in which
//!   the pointers to functions may not be zero, and the panic ends the process.

#![allow(
    clippy::result_large_err,
    reason = "a handler of it returns its error as it is"
)]

mod peer_shared {
    pub(crate) mod reports;
}

use peer_shared::reports;
use std::cell::{Cell, RefCell};
use std::io;
use std::process::exit;
use std::rc::Rc;
use url::Url;
use websockex_peers::{
    Arguments, GO, Meter, Mode, Report, Result, Tally, live_heap, monotonic_ns, resident, start,
    unsupported,
};
use ws::{Factory, Frame, Handler, Handshake, Message, OpCode, Sender, Settings};

const CLIENT: &str = "ws 0.9";
/// Bytes of a message that it is still asked to send.
const SENT_MAX: usize = 16 * 1024;

/// What all handlers share; they are on one thread.
struct Shared {
    arguments: Arguments,
    url: Url,
    payload: String,
    tally: RefCell<Tally>,
    meter: Cell<Meter>,
    opened: Cell<usize>,
    /// Messages that are still to be sent, or handshakes that are still to begin.
    left: Cell<u64>,
    /// When the message of an echo was sent.
    sent: Cell<u64>,
    before: Cell<(u64, i64)>,
}

impl Shared {
    fn end(&self, report: &Report) -> ! {
        report.print();
        exit(0)
    }

    fn end_tally(&self) -> ! {
        let usage = self.meter.get().stop();
        self.end(&Report::new(
            CLIENT,
            &self.arguments,
            &usage,
            &self.tally.borrow(),
        ))
    }

    fn message(&self) -> Message {
        match self.arguments.binary {
            true => Message::Binary(self.payload.clone().into_bytes()),
            false => Message::Text(self.payload.clone()),
        }
    }
}

struct Client {
    shared: Rc<Shared>,
    out: Sender,
    /// Of this batch, not yet in the write buffer.
    pending: u64,
}

impl Client {
    fn send_batch(&mut self) -> ws::Result<()> {
        let batch = self.shared.arguments.batch.max(1) as u64;
        self.pending = self.shared.left.get().min(batch);
        self.shared.left.set(self.shared.left.get() - self.pending);
        for _ in 0..self.pending {
            self.out.send(self.shared.message())?;
        }
        Ok(())
    }

    fn send_echo(&self) -> ws::Result<()> {
        self.shared.sent.set(monotonic_ns());
        self.out.send(self.shared.message())
    }

    /// The connections are opened one after the other: all at once would be more than a listener's
    /// backlog holds.
    fn open_next(&self, opened: usize, wanted: usize) -> ws::Result<bool> {
        if opened < wanted {
            self.out.connect(self.shared.url.clone())?;
        }
        Ok(opened == wanted)
    }

    /// Begins another handshake, if one is left.
    fn visit_next(&self) -> ws::Result<()> {
        let left = self.shared.left.get();
        if left > 0 {
            self.shared.left.set(left - 1);
            self.out.connect(self.shared.url.clone())?;
        }
        Ok(())
    }
}

impl Handler for Client {
    fn on_open(&mut self, _: Handshake) -> ws::Result<()> {
        let shared = self.shared.clone();
        let opened = shared.opened.get() + 1;
        shared.opened.set(opened);
        let connections = shared.arguments.connections;
        match shared.arguments.mode {
            Mode::Receive => {
                if self.open_next(opened, connections)? {
                    shared.meter.set(Meter::start());
                    self.out.send(GO)?;
                }
            }
            Mode::Echo => {
                shared.meter.set(Meter::start());
                self.send_echo()?;
            }
            Mode::Send => {
                shared.meter.set(Meter::start());
                self.send_batch()?;
            }
            Mode::Idle => {
                if opened == 1 {
                    shared.before.set((resident(), live_heap()));
                }
                if self.open_next(opened, connections + 1)? {
                    let usage = shared.meter.get().stop();
                    let report =
                        Report::new(CLIENT, &shared.arguments, &usage, &shared.tally.borrow());
                    shared.end(&reports::idle(report, shared.before.get()));
                }
            }
            Mode::Handshakes => {
                // The first has more to do than the others: code to be paged in. And it stays: the loop
                // ends when there is no connection, even if one is queued.
                if opened == 1 {
                    shared.meter.set(Meter::start());
                    for _ in 0..shared.arguments.in_flight {
                        self.visit_next()?;
                    }
                    return Ok(());
                }
                shared.tally.borrow_mut().messages += 1;
                if shared.tally.borrow().is_complete() {
                    shared.end_tally();
                }
                self.visit_next()?;
                // The one way to end a connection without the other side's consent.
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
            }
        }
        Ok(())
    }

    fn on_message(&mut self, message: Message) -> ws::Result<()> {
        let payload = message.into_data();
        let shared = self.shared.clone();
        if shared.arguments.mode == Mode::Send {
            let usage = shared.meter.get().stop();
            match reports::sent(CLIENT, &shared.arguments, &usage, &payload) {
                Ok(report) => shared.end(&report),
                Err(error) => fail(&error),
            }
        }
        let mut tally = shared.tally.borrow_mut();
        tally.take(&payload);
        let is_echo = shared.arguments.mode == Mode::Echo;
        if is_echo {
            tally.latencies.push(monotonic_ns() - shared.sent.get());
        }
        if tally.is_complete() {
            drop(tally);
            shared.end_tally();
        }
        if is_echo {
            self.send_echo()?;
        }
        Ok(())
    }

    fn on_send_frame(&mut self, frame: Frame) -> ws::Result<Option<Frame>> {
        if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) && self.pending > 0 {
            self.pending -= 1;
            if self.pending == 0 {
                self.send_batch()?;
            }
        }
        Ok(Some(frame))
    }

    fn on_error(&mut self, error: ws::Error) {
        if self.shared.arguments.mode != Mode::Handshakes {
            fail(&error);
        }
    }
}

fn fail(error: &dyn std::fmt::Display) -> ! {
    eprintln!("{error}");
    exit(1)
}

fn client(shared: &Rc<Shared>, out: Sender) -> Client {
    Client {
        shared: shared.clone(),
        out,
        pending: 0,
    }
}

fn settings(arguments: &Arguments) -> Settings {
    let (incoming, outgoing) = match arguments.mode {
        Mode::Idle | Mode::Handshakes => (512, 512),
        Mode::Receive if arguments.connections == 1 => (64 * 1024, 2048),
        Mode::Send => (2048, 64 * 1024),
        _ => (2048, 2048),
    };
    Settings {
        max_connections: arguments.connections.max(arguments.in_flight) * 2 + 2,
        queue_size: arguments.batch.max(5),
        fragment_size: usize::MAX,
        in_buffer_capacity: incoming,
        out_buffer_capacity: outgoing,
        fragments_capacity: if arguments.mode == Mode::Idle { 0 } else { 10 },
        tcp_nodelay: true,
        ..Settings::default()
    }
}

fn main() -> Result<()> {
    let arguments = start()?;
    if arguments.is_tls() {
        unsupported(CLIENT, "its TLS is OpenSSL's, another provider");
    }
    if arguments.spin {
        unsupported(CLIENT, "it cannot poll without blocking");
    }
    if arguments.deflate {
        unsupported(
            CLIENT,
            "its permessage-deflate panics when built with a Rust of today",
        );
    }
    if arguments.mode == Mode::Send && arguments.size > SENT_MAX {
        unsupported(CLIENT, "it has no backpressure: all would be buffered");
    }
    let shared = Rc::new(Shared {
        url: Url::parse(&arguments.url)?,
        payload: arguments.payload(),
        tally: RefCell::new(Tally::new(arguments.messages, arguments.stamped)),
        meter: Cell::new(Meter::start()),
        opened: Cell::new(0),
        left: Cell::new(arguments.messages),
        sent: Cell::new(0),
        before: Cell::new((0, 0)),
        arguments,
    });
    let builder = &mut ws::Builder::new();
    let builder = builder.with_settings(settings(&shared.arguments));
    let factory = |out| client(&shared, out);
    run(builder.build(factory)?, &shared)
}

fn run<F: Factory>(mut socket: ws::WebSocket<F>, shared: &Shared) -> Result<()> {
    socket.connect(shared.url.clone())?;
    socket.run()?;
    Err("the loop has ended before its time".into())
}
