//! The crate this is all about, with its defaults: text validated, certificates verified, the trace
//! at its default level.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use websockex::{
    ConnectionId, Context, Deflate, Handler, HandlerResult, Message, Open, Polling, Reactor,
    Request, Termination, TimerId, TlsConfig,
};
use websockex_peers::{
    Arguments, GO, Meter, Mode, Report, Result, Tally, live_heap, resident, start, tls,
};

const NAME: &str = "websockex";
/// Connections opened at a time: fewer than a listener's backlog.
const WAVE: usize = 64;
/// How long `--spin` stays awake for news, which in an echo is never that far apart.
const SPIN: Duration = Duration::from_millis(1);
const NEXT_BATCH: TimerId = TimerId(0);

fn main() -> Result<()> {
    let arguments = start()?;
    let mut builder = Reactor::builder();
    if let Some(ca) = &arguments.ca {
        builder = builder.tls(tls_config(ca, arguments.resumption)?);
    }
    if arguments.spin {
        builder = builder.polling(Polling::SpinThenBlock(SPIN));
    }
    let mut reactor = builder.build()?;
    match arguments.mode {
        Mode::Receive => receive(&mut reactor, &arguments)?,
        Mode::Echo => echo(&mut reactor, &arguments)?,
        Mode::Send => send(&mut reactor, &arguments)?,
        Mode::Idle => idle(&mut reactor, &arguments)?,
        Mode::Handshakes => handshakes(&mut reactor, &arguments)?,
    }
    .print();
    Ok(())
}

/// The same for all clients; but what is resumed comes from the crate's own store, as anyone has it who
/// builds a [`TlsConfig`] with it.
fn tls_config(ca: &Path, resumption: bool) -> Result<TlsConfig> {
    if !resumption {
        return Ok(TlsConfig::from_rustls(tls::client_config(ca, false)?));
    }
    // Installed again, were there one already, it would be the same.
    let _ = tls::provider().install_default();
    Ok(TlsConfig::builder().root_certificates_file(ca)?.build()?)
}

fn request(arguments: &Arguments) -> Result<Request> {
    // No look-up, as no other client does one.
    let request = Request::new(&arguments.url)?.connect_to([arguments.address()?])?;
    Ok(match arguments.deflate {
        true => request.deflate(Deflate::new()),
        false => request,
    })
}

/// Opens so many, a wave at a time; `handler` is given the counter of those that are open.
fn open<H: Handler>(
    reactor: &mut Reactor,
    arguments: &Arguments,
    count: usize,
    mut handler: impl FnMut(Rc<Cell<usize>>) -> H,
) -> Result<ConnectionId> {
    let opened = Rc::new(Cell::new(0));
    let request = request(arguments)?;
    let mut last = None;
    let mut begun = 0;
    while opened.get() < count {
        while begun < count && begun - opened.get() < WAVE {
            last = Some(reactor.connect(request.clone(), handler(Rc::clone(&opened)))?);
            begun += 1;
        }
        reactor.turn(None)?;
    }
    last.ok_or("no connections?".into())
}

/// Takes messages.
struct Receiver {
    opened: Rc<Cell<usize>>,
    tally: Rc<RefCell<Tally>>,
}

impl Handler for Receiver {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }

    fn on_message(&mut self, _: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        self.tally.borrow_mut().take(message.as_bytes());
        Ok(())
    }
}

fn receive(reactor: &mut Reactor, arguments: &Arguments) -> Result<Report> {
    if arguments.idle > 0 {
        let idle = Arguments {
            url: arguments.idle_url(),
            ..arguments.clone()
        };
        open(reactor, &idle, idle.idle, |opened| Idle { opened })?;
    }
    let tally = Rc::new(RefCell::new(Tally::new(
        arguments.messages,
        arguments.stamped,
    )));
    let id = open(reactor, arguments, arguments.connections, |opened| {
        Receiver {
            opened,
            tally: Rc::clone(&tally),
        }
    })?;
    let meter = Meter::start();
    reactor.remote().send(id, GO)?;
    while !tally.borrow().is_complete() {
        reactor.turn(None)?;
    }
    let usage = meter.stop();
    let tally = tally.borrow();
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

/// Sends, and again when it is back.
struct Pinger {
    opened: Rc<Cell<usize>>,
    tally: Rc<RefCell<Tally>>,
    payload: String,
    sent: Instant,
}

impl Pinger {
    fn ping(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.sent = Instant::now();
        Ok(cx.send_text(&self.payload)?)
    }
}

impl Handler for Pinger {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }

    fn on_cast(&mut self, cx: &mut Context<'_>, _: Box<dyn Any + Send>) -> HandlerResult {
        self.ping(cx)
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        let is_complete = {
            let mut tally = self.tally.borrow_mut();
            tally.latencies.push(self.sent.elapsed().as_nanos() as u64);
            tally.take(message.as_bytes());
            tally.is_complete()
        };
        if is_complete { Ok(()) } else { self.ping(cx) }
    }
}

fn echo(reactor: &mut Reactor, arguments: &Arguments) -> Result<Report> {
    let tally = Rc::new(RefCell::new(Tally::new(arguments.messages, false)));
    tally.borrow_mut().latencies.reserve(arguments.messages);
    let id = open(reactor, arguments, 1, |opened| Pinger {
        opened,
        tally: Rc::clone(&tally),
        payload: arguments.payload(),
        sent: Instant::now(),
    })?;
    let meter = Meter::start();
    reactor.remote().cast(id, ())?;
    while !tally.borrow().is_complete() {
        reactor.turn(None)?;
    }
    let usage = meter.stop();
    let tally = tally.borrow();
    Ok(Report::new(NAME, arguments, &usage, &tally))
}

/// Sends batch upon batch, and waits for the answer.
struct Sender {
    opened: Rc<Cell<usize>>,
    answer: Rc<RefCell<Option<String>>>,
    payload: String,
    binary: bool,
    batch: u64,
    left: u64,
}

impl Sender {
    /// One batch; the next comes with the next turn, or when the socket has taken this one.
    fn send(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        for _ in 0..self.left.min(self.batch) {
            match self.binary {
                true => cx.send_binary(self.payload.as_bytes())?,
                false => cx.send_text(&self.payload)?,
            }
            self.left -= 1;
        }
        if self.left > 0 {
            cx.set_timer(NEXT_BATCH, Duration::ZERO);
        }
        Ok(())
    }
}

impl Handler for Sender {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }

    fn on_cast(&mut self, cx: &mut Context<'_>, _: Box<dyn Any + Send>) -> HandlerResult {
        self.send(cx)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: TimerId) -> HandlerResult {
        // Something waits for the socket: `on_drained` goes on.
        if cx.queued() > 0 {
            Ok(())
        } else {
            self.send(cx)
        }
    }

    fn on_drained(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.send(cx)
    }

    fn on_message(&mut self, _: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        if let Message::Text(text) = message {
            *self.answer.borrow_mut() = Some(text.to_owned());
        }
        Ok(())
    }
}

fn send(reactor: &mut Reactor, arguments: &Arguments) -> Result<Report> {
    let answer = Rc::new(RefCell::new(None));
    let id = open(reactor, arguments, 1, |opened| Sender {
        opened,
        answer: Rc::clone(&answer),
        payload: arguments.payload(),
        binary: arguments.binary,
        batch: arguments.batch as u64,
        left: arguments.messages,
    })?;
    let meter = Meter::start();
    reactor.remote().cast(id, ())?;
    while answer.borrow().is_none() {
        reactor.turn(None)?;
    }
    let usage = meter.stop();
    let answer = answer.take().unwrap_or_default();
    Report::new(NAME, arguments, &usage, &Tally::new(0, false)).with_answer(&answer)
}

/// Only counts those that are open.
struct Idle {
    opened: Rc<Cell<usize>>,
}

impl Handler for Idle {
    fn on_open(&mut self, _: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        Ok(())
    }
}

fn idle(reactor: &mut Reactor, arguments: &Arguments) -> Result<Report> {
    open(reactor, arguments, 1, |opened| Idle { opened })?;
    let before = (resident(), live_heap());
    open(reactor, arguments, arguments.connections, |opened| Idle {
        opened,
    })?;
    Ok(Report::idle(NAME, arguments, before))
}

/// Goes as soon as it is open, without a closing handshake, as all peers do.
struct Visitor {
    opened: Rc<Cell<u64>>,
    ended: Rc<Cell<u64>>,
}

impl Handler for Visitor {
    fn on_open(&mut self, cx: &mut Context<'_>, _: &Open<'_>) -> HandlerResult {
        self.opened.set(self.opened.get() + 1);
        cx.abort();
        Ok(())
    }

    fn on_terminate(self: Box<Self>, _: &Termination<'_>) {
        self.ended.set(self.ended.get() + 1);
    }
}

fn handshakes(reactor: &mut Reactor, arguments: &Arguments) -> Result<Report> {
    let request = request(arguments)?;
    let (opened, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let visit = |reactor: &mut Reactor, wanted: u64| -> Result<()> {
        let (start, in_flight) = (ended.get(), arguments.in_flight as u64);
        let mut begun = 0;
        while ended.get() - start < wanted {
            while begun < wanted && begun - (ended.get() - start) < in_flight {
                let (opened, ended) = (Rc::clone(&opened), Rc::clone(&ended));
                reactor.connect(request.clone(), Visitor { opened, ended })?;
                begun += 1;
            }
            reactor.turn(None)?;
        }
        Ok(())
    };
    // The first has more to do than the others: a session to resume, code to be paged in.
    visit(reactor, 1)?;
    let meter = Meter::start();
    visit(reactor, arguments.messages)?;
    let usage = meter.stop();
    let mut tally = Tally::new(0, false);
    tally.messages = opened.get() - 1;
    Ok(Report::new(NAME, arguments, &usage, &tally))
}
