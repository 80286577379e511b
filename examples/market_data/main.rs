//! Market data on a thousand connections, with one reactor.
//!
//! Run it with `cargo run --release --example market_data`; it needs nothing else. It starts an
//! exchange on the loopback interface, subscribes to three instruments on each connection, checks
//! that no message is lost, and shows how fast and how late they come. With `--url` it consumes a
//! real venue instead. `--help` lists the options.
//!
//! ```text
//! main     options -> exchange -> connect and subscribe -> opening bell -> measure -> close
//! feed     the two handlers: what a connection does with a message (scan finds the fields)
//! totals   what the handlers count -> meter: per second and in all (histogram) -> view: shown
//! report   the whole run as a page with plots
//! exchange the other end, on a thread of its own
//! ```

mod exchange;
mod feed;
mod histogram;
mod meter;
mod options;
mod report;
mod scan;
mod system;
mod totals;
mod view;

use exchange::{Exchange, Report, Settings, StreamKind};
use feed::{ExchangeFeed, VenueFeed};
use meter::{Meter, Span};
use options::{Asked, Options, Source};
use report::Sample;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use totals::SharedTotals;
use view::LiveView;
use websockex::trace::{Level, Record, render};
use websockex::{BoxError, Reactor, Request, TlsConfig};

/// Instruments that each connection to the exchange listens to.
const INSTRUMENTS_PER_CONNECTION: usize = 3;
/// The exchange draws the same market in every run.
const SEED: u64 = 1;
/// Within this time all connections must be open and subscribed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// How long to wait at the end for what is still on its way.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How long closing may take in the end.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two views.
const VIEW_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two points of a curve in the report.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// The name of the connection that is traced.
const TRACED: &str = "traced";
/// The longest wait for a socket, so that Ctrl-C is noticed when nothing comes in.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Files that are open for other reasons than connections: a generous guess.
const OTHER_FILES: usize = 64;

/// All that the summary tells.
pub(crate) struct Outcome {
    asked: usize,
    connected: usize,
    connect_time: Duration,
    tls: bool,
    rate: Option<f64>,
    span: Span,
    lost: u64,
    repeated: u64,
    reconnects: u64,
    failures: u64,
    first_failure: Option<String>,
    /// What the exchange says, if it is ours.
    exchange: Option<Report>,
}

impl Outcome {
    /// Why this run is not a success, if it is not.
    fn problem(&self) -> Option<String> {
        let why = self.first_failure.as_deref().unwrap_or("it took too long");
        if self.connected < self.asked {
            let missing = self.asked - self.connected;
            let asked = self.asked;
            return Some(format!(
                "{missing} of {asked} connections could not be opened: {why}"
            ));
        }
        // A venue may close a connection, and it was opened again; the exchange of our own may not.
        if self.exchange.is_some() && self.failures > 0 {
            return Some(format!("{} connections failed: {why}", self.failures));
        }
        if self.lost > 0 || self.repeated > 0 {
            let (lost, repeated) = (self.lost, self.repeated);
            return Some(format!(
                "{lost} messages were lost and {repeated} came twice"
            ));
        }
        None
    }
}

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("market_data: {message}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    let outcome = match run(&options) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("market_data: {error}");
            return ExitCode::FAILURE;
        }
    };
    if options.json {
        println!("{}", view::json(&outcome));
    } else {
        print!("{}", view::summary(&outcome));
    }
    match outcome.problem() {
        None => ExitCode::SUCCESS,
        Some(problem) => {
            eprintln!("market_data: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Outcome, BoxError> {
    check_open_file_limit(options)?;
    let interrupted = watch_for_ctrl_c()?;
    let exchange = match options.source {
        Source::Exchange { tls, rate } => {
            let seed = SEED;
            Some(Exchange::start(Settings { tls, rate, seed })?)
        }
        Source::Venue { .. } => None,
    };
    let mut session = Session::new(options, interrupted)?;

    let start = Instant::now();
    match (&options.source, &exchange) {
        (Source::Venue { url, subscribe }, _) => {
            session.connect_to_venue(options.connections, url, subscribe)?;
        }
        (_, Some(exchange)) => session.connect_to_exchange(options.connections, exchange)?,
        (Source::Exchange { .. }, None) => unreachable!("it was started above"),
    }
    session.wait_until_subscribed(options.connections)?;
    let connect_time = start.elapsed();
    let connected = session.totals.borrow().subscribed;

    let mut duration = options.duration;
    if connected < options.connections {
        duration = Duration::ZERO;
    }
    if let Some(exchange) = &exchange {
        exchange.ring_opening_bell()?;
    }
    let span = session.measure(duration, options.json)?;
    if let Some(exchange) = &exchange {
        exchange.ring_closing_bell()?;
        session.drain(exchange)?;
    }
    session.close()?;

    let published = exchange.as_ref().map(Exchange::report);
    if let Some(exchange) = exchange {
        exchange.stop()?;
    }
    let (tls, rate) = match &options.source {
        Source::Exchange { tls, rate } => (*tls, Some(*rate)),
        Source::Venue { url, .. } => (url.starts_with("wss:"), None),
    };
    let stats = session.reactor.remote().stats();
    let totals = session.totals.borrow();
    // What was published and never came has no successor that would show the gap.
    let missing = match &published {
        Some(report) if totals.failures == 0 => report.published.saturating_sub(totals.messages),
        _ => 0,
    };
    let outcome = Outcome {
        asked: options.connections,
        connected,
        connect_time,
        tls,
        rate,
        span,
        lost: totals.lost.max(missing),
        repeated: totals.repeated,
        reconnects: totals.reconnects,
        failures: totals.failures,
        first_failure: totals.first_failure.clone(),
        exchange: published,
    };
    if let Some(path) = &options.report {
        let trace = session.reactor.trace();
        report::write(path, &outcome, &session.samples, &stats, trace)?;
    }
    Ok(outcome)
}

/// A reactor and what its handlers count.
struct Session {
    reactor: Reactor,
    totals: SharedTotals,
    interrupted: Arc<AtomicBool>,
    /// A signal asks for the table of connections.
    asked: Arc<AtomicBool>,
    /// The connection to be traced.
    traced: Option<usize>,
    start: Instant,
    /// For the report, if one is wanted.
    samples: Vec<Sample>,
    interval: Duration,
}

impl Session {
    fn new(options: &Options, interrupted: Arc<AtomicBool>) -> Result<Self, BoxError> {
        let mut builder = Reactor::builder();
        if options.report.is_some() {
            builder = builder.trace_capacity(report::trace_capacity(options.connections));
        }
        if options.trace.is_some() {
            builder = builder.trace_sink(|record: &Record| {
                if record.name() == TRACED {
                    render::print_dbg(&record.event, TRACED);
                }
            });
        }
        Ok(Self {
            start: Instant::now(),
            reactor: builder.build()?,
            totals: SharedTotals::default(),
            interrupted,
            asked: watch_for_usr1()?,
            traced: options.trace,
            samples: Vec::new(),
            interval: match options.report {
                Some(_) => SAMPLE_INTERVAL,
                None => VIEW_INTERVAL,
            },
        })
    }

    /// The request for connection `number`: one may be traced.
    fn request(&self, request: &Request, number: usize) -> Request {
        let request = request.clone();
        if self.traced == Some(number) {
            request.name(TRACED).trace(Level::Payload)
        } else {
            request
        }
    }

    fn connect_to_exchange(&mut self, count: usize, exchange: &Exchange) -> Result<(), BoxError> {
        let mut request = Request::new(exchange.url())?;
        if let Some(pem) = exchange.certificate_authority_pem() {
            let tls = TlsConfig::builder().root_certificates_pem(pem.as_bytes())?;
            request = request.tls(tls.build()?);
        }
        // The exchange accepts one connection after the other; the last waits for all others.
        request = request
            .connect_timeout(CONNECT_DEADLINE)
            .handshake_timeout(CONNECT_DEADLINE);
        let symbols = exchange::symbols();
        for connection in 0..count {
            let first = connection * INSTRUMENTS_PER_CONNECTION;
            let streams = (first..first + INSTRUMENTS_PER_CONNECTION).flat_map(|number| {
                let symbol = &symbols[number % symbols.len()];
                StreamKind::ALL.map(|kind| {
                    let name = symbol.to_lowercase() + kind.suffix();
                    (symbol.clone(), name)
                })
            });
            let feed = ExchangeFeed::new(&self.totals, exchange.clock(), streams);
            let request = self.request(&request, connection);
            self.reactor.connect(request, feed)?;
        }
        Ok(())
    }

    fn connect_to_venue(
        &mut self,
        count: usize,
        url: &str,
        subscribe: &[String],
    ) -> Result<(), BoxError> {
        let request = Request::new(url)?;
        let subscribe: Rc<[String]> = subscribe.into();
        for connection in 0..count {
            let feed = VenueFeed::new(&self.totals, &subscribe);
            let request = self.request(&request, connection);
            self.reactor.connect(request, feed)?;
        }
        Ok(())
    }

    /// Turns the reactor until `done`, until `deadline`, or until Ctrl-C.
    fn turn_until(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&SharedTotals) -> bool,
    ) -> Result<(), BoxError> {
        while !done(&self.totals) && !self.interrupted.load(Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.reactor.turn(Some(left.min(LONGEST_WAIT)))?;
            if self.asked.swap(false, Relaxed) {
                eprint!("{}", self.reactor.remote().connections());
            }
        }
        Ok(())
    }

    /// All connections are subscribed, or one has failed.
    fn wait_until_subscribed(&mut self, count: usize) -> Result<(), BoxError> {
        self.turn_until(Instant::now() + CONNECT_DEADLINE, |totals| {
            let totals = totals.borrow();
            totals.subscribed == count || totals.failures > 0
        })
    }

    fn measure(&mut self, duration: Duration, quiet: bool) -> Result<Span, BoxError> {
        let start = Instant::now();
        let end = start + duration;
        let mut view = LiveView::new(quiet);
        let mut meter = Meter::start(&mut self.totals.borrow_mut());
        let mut next = start + self.interval;
        let mut next_view = start + VIEW_INTERVAL;
        while next < end {
            self.turn_until(next, |_| false)?;
            if self.interrupted.load(Relaxed) {
                break;
            }
            let mut totals = self.totals.borrow_mut();
            let span = meter.tick(&mut totals);
            self.samples
                .push(Sample::new(self.start.elapsed(), &span, &totals));
            next += self.interval;
            if next > next_view {
                view.show(start.elapsed(), &span, &totals);
                next_view += VIEW_INTERVAL;
            }
        }
        self.turn_until(end, |_| false)?;
        Ok(meter.finish(&mut self.totals.borrow_mut()))
    }

    /// The market is closed: takes what is still on its way.
    fn drain(&mut self, exchange: &Exchange) -> Result<(), BoxError> {
        self.turn_until(Instant::now() + DRAIN_DEADLINE, |totals| {
            let totals = totals.borrow();
            totals.failures > 0 || totals.messages >= exchange.report().published
        })
    }

    /// Closes all connections in an orderly way.
    fn close(&mut self) -> Result<(), BoxError> {
        self.reactor.remote().shutdown(CLOSE_DEADLINE)?;
        self.reactor.run()?;
        Ok(())
    }
}

/// Says what to do while it is easy to say: halfway through a thousand connections it is not.
fn check_open_file_limit(options: &Options) -> Result<(), BoxError> {
    let ends = match options.source {
        Source::Exchange { .. } => 2,
        Source::Venue { .. } => 1,
    };
    let needed = options.connections * ends + OTHER_FILES;
    match system::open_file_limit() {
        Some(limit) if limit < needed => Err(format!(
            "{} connections need {needed} open files, and this process may have {limit}; \
             raise the limit (ulimit -n {needed}) or use fewer (--connections {})",
            options.connections,
            limit.saturating_sub(OTHER_FILES) / ends,
        )
        .into()),
        _ => Ok(()),
    }
}

/// The first Ctrl-C ends the run with its summary, the second ends it at once.
fn watch_for_ctrl_c() -> Result<Arc<AtomicBool>, BoxError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || {
        if flag.swap(true, Relaxed) {
            // The status that a shell gives to a program that SIGINT has ended.
            std::process::exit(130);
        }
    })?;
    Ok(interrupted)
}

/// The signal USR1, as programs that run for long have it to say what they are doing.
#[cfg(unix)]
fn watch_for_usr1() -> Result<Arc<AtomicBool>, BoxError> {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&asked))?;
    Ok(asked)
}

#[cfg(not(unix))]
fn watch_for_usr1() -> Result<Arc<AtomicBool>, BoxError> {
    Ok(Arc::default())
}
