//! What a reactor is made of, and what may be said about it before.

use super::connect::Approaches;
use super::kernel::Stamps;
use super::link::Spare;
use super::polling::{Polling, Vigil};
use super::receive::ReceiveBuffer;
use super::remote::Central;
use super::resolver::{self, Resolver};
use super::system::{Clock, Network};
use super::timers::Timers;
use super::{Reactor, Shared, Turn, WAKER};
use crate::error::Error;
use crate::protocol::buffer::Buffer;
use crate::protocol::decoder::Pool;
use crate::protocol::deflate::Deflaters;
use crate::protocol::mask;
use crate::session::admission::{Admission, Gate};
use crate::session::chacha::Stretch;
use crate::session::{Entropy, Time};
use crate::sinks::{self, FileSink, Wishes};
use crate::stats::tally::Tally;
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;
use crate::trace::recorder::Recorder;
use crate::trace::{Level, Sink};
use mio::{Events, Poll, Waker};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, io};

/// Events taken from the kernel at a time.
pub(super) const EVENTS: usize = 1024;

/// The shared receive buffer, in bytes. TLS needs room for a whole handshake message with its
/// records, which may have 64 KiB (a long chain of certificates) and a bit; beyond that, size saves
/// system calls until the second-level cache is full.
const RECEIVE_BUFFER: usize = 256 * 1024;
const LEAST_RECEIVE_BUFFER: usize = 80 * 1024;

/// Events that the trace keeps: for a thousand connections the whole way to an open one.
const TRACE_CAPACITY: usize = 8192;

/// Commands of other threads that may wait.
const COMMAND_CAPACITY: usize = 65_536;

/// Sets a [`Reactor`] up.
pub struct ReactorBuilder {
    stay_alive: bool,
    polling: Polling,
    core: Option<usize>,
    level: Level,
    trace_capacity: usize,
    print_trace: bool,
    sinks: Vec<Box<dyn Sink>>,
    receive_buffer: usize,
    command_capacity: usize,
    dns_cache: Duration,
    admission: Admission,
    #[cfg(feature = "tls")]
    tls: Option<TlsConfig>,
}

impl ReactorBuilder {
    pub(super) fn new() -> Self {
        Self {
            stay_alive: false,
            polling: Polling::default(),
            core: None,
            level: Level::default(),
            trace_capacity: TRACE_CAPACITY,
            print_trace: false,
            sinks: Vec::new(),
            receive_buffer: RECEIVE_BUFFER,
            command_capacity: COMMAND_CAPACITY,
            dns_cache: resolver::ANSWER_LIFE,
            admission: Admission::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Goes on running with no connections, until [`Remote::shutdown`](super::Remote::shutdown). Off by default.
    #[must_use]
    pub fn stay_alive(mut self, stay: bool) -> Self {
        self.stay_alive = stay;
        self
    }

    /// How the reactor waits when there is nothing to do: asleep, by default. To stay awake makes round
    /// trips shorter and costs up to a whole core; [`Polling`] says when that pays.
    #[must_use]
    pub fn polling(mut self, polling: Polling) -> Self {
        self.polling = polling;
        self
    }

    /// Keeps the thread that calls [`Reactor::run`], or that of a [`Client`](super::Client), on the
    /// core of this number, counted as `taskset` and `/proc/cpuinfo` count them; for good, also when
    /// `run` has returned. Off by default. Linux only.
    ///
    /// The core's caches stay warm, and the scheduler cannot move the thread to a slower one. It
    /// cannot move it to an idle one either, so it pays only where the core is left to this thread
    /// (`isolcpus`, cgroups, or the other threads pinned elsewhere), and two reactors on one core halve
    /// each other. The threads that look names up and those of trace sinks stay where they were;
    /// threads that *handlers* begin are kept on the core too, as is usual on Linux.
    ///
    /// With a loop of your own, around [`Reactor::turn`], pin your thread yourself.
    #[must_use]
    pub fn pin_to(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// How much the trace records of connections whose request does not say;
    /// [`Level::Lifecycle`] by default.
    #[must_use]
    pub fn trace(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// How many lifecycle events the trace keeps, of all connections together and each with its fair
    /// part, and how many frame events; 8,192 of both by default, 128 bytes each and some more to
    /// find them. Zero switches the trace off. See [`Ring`](crate::trace::Ring).
    #[must_use]
    pub fn trace_capacity(mut self, events: usize) -> Self {
        self.trace_capacity = events;
        self
    }

    /// Prints each event to standard error as it is recorded, one `*DBG*` line each. Off by default.
    #[must_use]
    pub fn print_trace(mut self, print: bool) -> Self {
        self.print_trace = print;
        self
    }

    /// Sends each recorded event to `sink` as well, on a thread of its own. A sink that is slow or
    /// fails never holds the reactor up: what finds its queue full is dropped, and counted in
    /// [`ReactorStats::sinks`](crate::stats::ReactorStats::sinks), which also names it for
    /// [`Remote::remove_trace_sink`](super::Remote::remove_trace_sink). The queue has room for 8,192
    /// events, in 2 MiB, unless the sink says otherwise; [`Queued`](crate::sinks::Queued) says it for any.
    #[must_use]
    pub fn trace_sink(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// The size of the one receive buffer that all connections share, in bytes; 256 KiB by default,
    /// 80 KiB at least.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes.max(LEAST_RECEIVE_BUFFER);
        self
    }

    /// How many commands of other threads may wait; 65,536 by default. Beyond that a [`Remote`](super::Remote) is
    /// told that the queue is full.
    #[must_use]
    pub fn command_capacity(mut self, commands: usize) -> Self {
        self.command_capacity = commands.max(1);
        self
    }

    /// How long the addresses of a name are kept, 10 s by default; zero looks each up anew. Equal
    /// look-ups that are under way at the same time are always joined.
    #[must_use]
    pub fn dns_cache(mut self, life: Duration) -> Self {
        self.dns_cache = life;
        self
    }

    /// How many connections may be on their way at the same time, and how fast they may begin;
    /// [`Admission`] has the defaults.
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// The TLS configuration of connections whose request has none of its own.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The trace as this builder and the environment want it.
    fn recorder(&mut self, central: &Central) -> io::Result<Recorder> {
        let wishes = std::env::var_os(sinks::VARIABLE).unwrap_or_default();
        let wishes = Wishes::parse(&wishes);
        if let Some(word) = wishes.unknown {
            let variable = sinks::VARIABLE;
            eprintln!("websockex: {variable} has {word:?}, which means nothing");
        }
        if let Some(path) = wishes.file {
            let sink = FileSink::unshared(&path)?.format(wishes.format);
            self.sinks.push(Box::new(sink));
        }
        let print = self.print_trace || wishes.print;
        let mut trace = Recorder::new(self.trace_capacity, print, SystemTime::now());
        trace.force_level(wishes.level);
        for sink in self.sinks.drain(..) {
            let tap = central.sinks.tap(sink)?;
            central.sinks.add(Arc::clone(&tap.meter));
            trace.add_outlet(Box::new(tap));
        }
        Ok(trace)
    }

    /// The reactor. What the environment variable `WEBSOCKEX_TRACE` says of the trace's level overrules
    /// builder, requests, handlers and [`Remote::set_trace`](super::Remote::set_trace), for programs that
    /// nobody can recompile; [`VARIABLE`](crate::sinks::VARIABLE) has the words.
    ///
    /// # Errors
    /// [`Error::Reactor`]: the operating system gives no poll, no waker, no entropy, or no thread for
    /// a sink; the file that the environment names cannot be opened.
    pub fn build(mut self) -> Result<Reactor, Error> {
        let poll = Poll::new().map_err(Error::Reactor)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(Error::Reactor)?;
        let start = Instant::now();
        let central = Arc::new(Central::new(waker, start, self.command_capacity));
        let trace = self.recorder(&central).map_err(Error::Reactor)?;
        let system = |bytes: &mut [u8]| getrandom::fill(bytes).map_err(io::Error::other);
        let mut stretch = Stretch::new(Box::new(system));
        let source = move |bytes: &mut [u8]| stretch.fill(bytes);
        let turn = Turn {
            central: Arc::clone(&central),
            clock: Clock::starting_at(start),
            began: Time::ZERO,
            polled: Time::ZERO,
            now: Time::ZERO,
            tally: Tally::default(),
            lap: Time::ZERO,
            handling: false,
            is_lone: false,
            frames: Buffer::new(),
            entropy: Box::new(Entropy::new(Box::new(source)).map_err(Error::Reactor)?),
            masking: mask::Implementation::for_copies(),
            trace,
            pool: Pool::default(),
            deflaters: Deflaters::default(),
        };
        let shared = Shared {
            network: Network::new(poll.registry().try_clone().map_err(Error::Reactor)?),
            resolver: Resolver::new(&central, self.dns_cache),
            central,
            turn,
            spare: Spare::default(),
            receive: ReceiveBuffer::new(self.receive_buffer),
            stamps: Stamps::default(),
            timers: Timers::default(),
            gate: Gate::new(self.admission),
            approaches: Approaches::default(),
            #[cfg(feature = "tls")]
            handshakes: VecDeque::new(),
            ready: Vec::new(),
            level: self.level,
            sockets: 0,
            lookups: 0,
            shutdown: None,
            escalated: VecDeque::new(),
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        Ok(Reactor {
            vigil: Vigil::new(self.polling, poll.registry()),
            poll,
            events: Events::with_capacity(EVENTS),
            connections: Vec::new(),
            shared,
            commands: VecDeque::new(),
            ready: Vec::new(),
            stay_alive: self.stay_alive,
            core: self.core,
        })
    }
}

impl fmt::Debug for ReactorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorBuilder")
            .field("stay_alive", &self.stay_alive)
            .field("polling", &self.polling)
            .field("core", &self.core)
            .field("level", &self.level)
            .field("trace_capacity", &self.trace_capacity)
            .field("admission", &self.admission)
            .finish_non_exhaustive()
    }
}
