//! Commands from other threads: a bounded queue that wakes the reactor once for many.

use super::casts::{Cast, discard};
use super::resolver::Answer;
use super::slots::{Availability, Slots};
use crate::error::{Error, SendError};
use crate::handler::{ConnectionId, Handler};
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::request::{IntoRequest, Request};
use crate::sinks::{Roster, Tap};
use crate::stats::meter::ReactorMeter;
use crate::trace::{Event, Level, Sink, SinkId, SinkStats};
use mio::Waker;
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// A message that owns its bytes, to be sent from another thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedMessage {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

impl From<String> for OwnedMessage {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for OwnedMessage {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for OwnedMessage {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

impl From<&[u8]> for OwnedMessage {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(bytes.to_owned())
    }
}

/// What another thread asks of the reactor.
pub(super) enum Command {
    Connect {
        id: ConnectionId,
        request: Request,
        handler: Box<dyn Handler + Send>,
        /// Told when the connection has opened, or will not.
        opened: Option<Opened>,
    },
    Send {
        id: ConnectionId,
        message: OwnedMessage,
        written: Option<Written>,
    },
    Pause {
        id: ConnectionId,
        paused: bool,
    },
    Cast {
        id: ConnectionId,
        cast: Cast,
    },
    Close {
        id: ConnectionId,
        code: CloseCode,
        reason: String,
    },
    Abort {
        id: ConnectionId,
    },
    Trace {
        /// All of them, if none is named.
        id: Option<ConnectionId>,
        level: Level,
    },
    Print(bool),
    LastEvents {
        /// Those of all, if none is named.
        id: Option<ConnectionId>,
        answer: SyncSender<Vec<Event>>,
    },
    AddSink(Tap),
    RemoveSink(SinkId),
    WithHandler {
        id: ConnectionId,
        call: HandlerCall,
    },
    Replace {
        id: ConnectionId,
        handler: Box<dyn Handler + Send>,
    },
    Resolved {
        host: String,
        answer: Answer,
    },
    Shutdown {
        deadline: Duration,
    },
}

/// What another thread runs on a handler.
pub(super) type HandlerCall = Box<dyn FnOnce(&mut dyn Handler) + Send>;

/// Somebody who waits until a message is written.
pub(super) type Written = SyncSender<Result<(), SendError>>;

/// Somebody who waits for a connection to open.
pub(super) type Opened = SyncSender<Result<(), Error>>;

/// How many reactors there were.
static REACTORS: AtomicU64 = AtomicU64::new(0);

/// What the reactor and its remotes share.
pub(super) struct Central {
    queue: Mutex<Queue>,
    slots: Mutex<Slots>,
    /// Tells this reactor from all others of the process.
    number: u64,
    /// Where it was made, which it never leaves.
    thread: ThreadId,
    /// What times since the start are counted from.
    pub(super) start: Instant,
    pub(super) meter: ReactorMeter,
    /// Of the trace.
    pub(super) sinks: Roster,
    waker: Waker,
    /// The reactor was woken and has not looked yet: no need to wake it again.
    pub(super) woken: AtomicBool,
    /// Commands that may wait.
    capacity: usize,
}

struct Queue {
    commands: VecDeque<Command>,
    /// The reactor is there to take them.
    open: bool,
}

impl Central {
    pub(super) fn new(waker: Waker, start: Instant, capacity: usize) -> Self {
        Self {
            queue: Mutex::new(Queue {
                commands: VecDeque::new(),
                open: true,
            }),
            slots: Mutex::new(Slots::default()),
            number: REACTORS.fetch_add(1, Ordering::Relaxed) + 1,
            thread: thread::current().id(),
            start,
            meter: ReactorMeter::default(),
            sinks: Roster::default(),
            waker,
            woken: AtomicBool::new(false),
            capacity,
        }
    }

    /// Can this reactor pace as the request asks? A pacer counts the time of one reactor.
    pub(super) fn paces(&self, request: &Request) -> bool {
        let pacer = request.target.options.pacer.as_ref();
        pacer.is_none_or(|pacer| pacer.belongs_to(self.number))
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        // A panic of another thread cannot have left them in disorder: nothing of a user's runs
        // while they are locked.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue().commands.len()
    }

    /// Posts what must not be refused.
    pub(super) fn post(&self, command: Command) {
        self.queue().commands.push_back(command);
        self.wake();
    }

    /// Posts what may be refused when too much waits already.
    fn offer(&self, command: Command) -> Result<(), SendError> {
        let mut queue = self.queue();
        if !queue.open {
            return Err(SendError::Gone);
        }
        let queued = queue.commands.len();
        if queued >= self.capacity {
            let limit = self.capacity;
            return Err(SendError::Full { queued, limit });
        }
        queue.commands.push_back(command);
        drop(queue);
        self.wake();
        Ok(())
    }

    /// Is this the thread that would have to do what is waited for?
    fn is_own_thread(&self) -> bool {
        thread::current().id() == self.thread && self.queue().open
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // It fails only when the poll is gone, and then there is nobody to wake.
            let _ = self.waker.wake();
        }
    }

    /// Exchanges what waits for `empty`, which keeps its memory.
    pub(super) fn take(&self, empty: &mut VecDeque<Command>) {
        // Before looking: a command that comes after the look wakes the reactor again.
        self.woken.store(false, Ordering::Release);
        std::mem::swap(&mut self.queue().commands, empty);
    }

    /// Takes no more commands if no connection is left, and says whether that is so. One that another
    /// thread has just begun counts: its command is in the queue, or comes.
    pub(super) fn shut_if_empty(&self) -> bool {
        let queue = self.queue();
        if self.slots().occupied() > 0 {
            return false;
        }
        self.shut_queue(queue);
        true
    }

    /// The reactor is gone, and all its connections.
    pub(super) fn shut(&self) {
        self.shut_queue(self.queue());
        *self.slots() = Slots::default();
    }

    fn shut_queue(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.open = false;
        // Dropped outside the lock: handlers are in there, and dropping them runs their code.
        let commands = std::mem::take(&mut queue.commands);
        drop(queue);
        commands.into_iter().for_each(discard);
    }
}

/// A reactor as other threads see it, and handlers that want more than their own connection. Cheap
/// to clone; dropping the last one does not stop the reactor.
///
/// What takes a timeout waits for the reactor, and so does
/// [`connect_blocking`](Self::connect_blocking); on the reactor's own thread these are refused, so
/// nothing can deadlock with it. All else returns at once.
///
/// Commands of one thread are carried out in the order they were given.
#[derive(Clone)]
pub struct Remote {
    pub(super) central: Arc<Central>,
}

impl Remote {
    /// Connects, as [`Reactor::connect`](crate::Reactor::connect) does, from another thread. The
    /// returned id is valid at once.
    ///
    /// # Errors
    /// A request that cannot be used; a reactor that is gone or whose command queue is full.
    pub fn connect(
        &self,
        request: impl IntoRequest,
        handler: impl Handler + Send,
    ) -> Result<ConnectionId, Error> {
        let request = request.into_request()?;
        self.post_connect(request, Box::new(handler), None)
    }

    fn post_connect(
        &self,
        request: Request,
        handler: Box<dyn Handler + Send>,
        opened: Option<Opened>,
    ) -> Result<ConnectionId, Error> {
        super::check_request(&self.central, &request)?;
        let name = request.target.options.name.clone();
        let id = self.central.slots().reserve_for(&request)?;
        let command = Command::Connect {
            id,
            request,
            handler,
            opened,
        };
        self.central.offer(command).map_err(|error| {
            self.central.slots().release(id, name.as_deref());
            // For as long as the slot was taken, the reactor may have thought that it has to go on.
            self.central.wake();
            Error::Refused(match error {
                SendError::Full { .. } => "the reactor's command queue is full",
                _ => "the reactor is gone",
            })
        })?;
        Ok(id)
    }

    /// Connects and waits until the connection is open, or will not be. If it will not, the handler's
    /// [`on_terminate`](Handler::on_terminate) has been told before this returns, and can show the
    /// [last events](crate::Termination::last_events).
    ///
    /// # Errors
    /// As [`connect`](Self::connect); why the connection has ended without having been open; on the
    /// reactor's own thread, which would wait for itself.
    pub fn connect_blocking(
        &self,
        request: impl IntoRequest,
        handler: impl Handler + Send,
    ) -> Result<ConnectionId, Error> {
        if self.central.is_own_thread() {
            return Err(Error::Refused(
                "the reactor's own thread cannot wait for it",
            ));
        }
        let request = request.into_request()?;
        let (sender, receiver) = sync_channel(1);
        let id = self.post_connect(request, Box::new(handler), Some(sender))?;
        // The other end is dropped, unused, only with the reactor.
        receiver
            .recv()
            .unwrap_or(Err(Error::Refused("the reactor is gone")))?;
        Ok(id)
    }

    /// The connection that has this name.
    pub fn find(&self, name: &str) -> Option<ConnectionId> {
        self.central.slots().find(name)
    }

    /// Sends a message and waits until the operating system has all of it; what was sent behind it
    /// may still wait.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::TimedOut`]; [`SendError::OwnThread`]; what became of
    /// the message if the connection stopped being open before its turn came.
    pub fn send_and_wait(
        &self,
        id: ConnectionId,
        message: impl Into<OwnedMessage>,
        timeout: Duration,
    ) -> Result<(), SendError> {
        self.check_sendable(id)?;
        if self.central.is_own_thread() {
            return Err(SendError::OwnThread);
        }
        let (sender, receiver) = sync_channel(1);
        self.post_send(id, message.into(), Some(sender))?;
        answer(&receiver, timeout)?
    }

    /// Reads no more from a connection, as
    /// [`Context::pause_reading`](crate::Context::pause_reading) does.
    ///
    /// # Errors
    /// [`SendError::Gone`], [`SendError::Full`].
    pub fn pause_reading(&self, id: ConnectionId) -> Result<(), SendError> {
        self.central.offer(Command::Pause { id, paused: true })
    }

    /// Goes on reading.
    ///
    /// # Errors
    /// [`SendError::Gone`], [`SendError::Full`].
    pub fn resume_reading(&self, id: ConnectionId) -> Result<(), SendError> {
        self.central.offer(Command::Pause { id, paused: false })
    }

    /// Sends a message on a connection. `Ok` means that the reactor has it in its queue; should the
    /// connection stop being open before its turn comes, the trace records what became of it. With
    /// [`Request::hold_sends`] it is held then, and while the connection is not open.
    ///
    /// # Errors
    /// [`SendError`] tells a connection that is not open, closing or gone from a full queue.
    pub fn send(
        &self,
        id: ConnectionId,
        message: impl Into<OwnedMessage>,
    ) -> Result<(), SendError> {
        self.post_send(id, message.into(), None)
    }

    fn post_send(
        &self,
        id: ConnectionId,
        message: OwnedMessage,
        written: Option<Written>,
    ) -> Result<(), SendError> {
        self.check_sendable(id)?;
        self.central.offer(Command::Send {
            id,
            message,
            written,
        })
    }

    /// Can messages be sent on it, or held, as far as is known here?
    fn check_sendable(&self, id: ConnectionId) -> Result<(), SendError> {
        match self.central.slots().availability(id) {
            Some(Availability::Open | Availability::Holding) => Ok(()),
            Some(Availability::HoldFull) => Err(SendError::HoldFull),
            Some(Availability::NotOpen) => Err(SendError::NotOpen),
            Some(Availability::Closing) => Err(SendError::Closing),
            None => Err(SendError::Gone),
        }
    }

    /// Hands `message` to the handler's [`on_cast`](Handler::on_cast), now or when the connection
    /// opens next, over a supervised restart too. 65,536 may wait for a connection; those beyond are
    /// dropped, counted in [`ConnectionStats::drops`](crate::stats::ConnectionStats::drops), and the
    /// trace records the first. So it does with the number of those that wait when the connection
    /// ends for good. Of those that the handler gets it records the name of the type.
    ///
    /// # Errors
    /// [`SendError::Gone`], or [`SendError::Full`] when the reactor does not keep up.
    pub fn cast(&self, id: ConnectionId, message: impl Any + Send) -> Result<(), SendError> {
        if self.central.slots().availability(id).is_none() {
            return Err(SendError::Gone);
        }
        let cast = Cast::new(message);
        self.central.offer(Command::Cast { id, cast })
    }

    /// Closes a connection, as [`Context::close_with`](crate::Context::close_with) does.
    ///
    /// # Errors
    /// A code or reason that must not be sent; [`SendError::Gone`]; [`SendError::Full`].
    pub fn close(&self, id: ConnectionId, code: CloseCode, reason: &str) -> Result<(), SendError> {
        CloseFrame { code, reason }.encode(&mut [0; 125])?;
        if self.central.slots().availability(id).is_none() {
            return Err(SendError::Gone);
        }
        let reason = reason.to_owned();
        self.central.offer(Command::Close { id, code, reason })
    }

    /// Ends a connection without the closing handshake, as [`Context::abort`](crate::Context::abort)
    /// does.
    ///
    /// # Errors
    /// [`SendError::Gone`]; [`SendError::Full`].
    pub fn abort(&self, id: ConnectionId) -> Result<(), SendError> {
        if self.central.slots().availability(id).is_none() {
            return Err(SendError::Gone);
        }
        self.central.offer(Command::Abort { id })
    }

    /// Sets how much the trace records, of one connection or of all: those that there are, and those to come
    /// whose request does not say ([`Request::trace`](crate::Request::trace)). A level that the environment has
    /// set stays, see [`VARIABLE`](crate::sinks::VARIABLE).
    ///
    /// # Errors
    /// [`SendError::Gone`], [`SendError::Full`].
    pub fn set_trace(&self, id: Option<ConnectionId>, level: Level) -> Result<(), SendError> {
        self.central.offer(Command::Trace { id, level })
    }

    /// Prints each recorded event to standard error as a `*DBG*` line, or stops doing so.
    ///
    /// # Errors
    /// [`SendError::Gone`], [`SendError::Full`].
    pub fn print_trace(&self, print: bool) -> Result<(), SendError> {
        self.central.offer(Command::Print(print))
    }

    /// The flight recorder from outside: the events that the trace still holds of one connection, which may
    /// have ended, or of all, oldest first. The reactor's thread copies them, 128 bytes each.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use websockex::{Remote, SendError};
    /// use websockex::trace::render;
    ///
    /// # fn show(remote: &Remote) -> Result<(), Box<dyn std::error::Error>> {
    /// // For ui.perfetto.dev, where each connection is a track on a time line.
    /// let events = remote.last_events(None, Duration::from_secs(1))?;
    /// std::fs::write("trace.json", render::chrome(&events, |_| None).to_string())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SendError::TimedOut`]; [`SendError::OwnThread`]; [`SendError::Full`]; [`SendError::Gone`]: the
    /// reactor is gone.
    pub fn last_events(
        &self,
        id: Option<ConnectionId>,
        timeout: Duration,
    ) -> Result<Vec<Event>, SendError> {
        if self.central.is_own_thread() {
            return Err(SendError::OwnThread);
        }
        let (sender, receiver) = sync_channel(1);
        self.central
            .offer(Command::LastEvents { id, answer: sender })?;
        answer(&receiver, timeout)
    }

    /// Runs `call` on a connection's handler, on the reactor's thread and between two of its callbacks,
    /// and waits for what it returns: to look at a live handler, or to mend it.
    ///
    /// ```no_run
    /// # use std::{any::Any, time::Duration};
    /// # use websockex::{ConnectionId, Handler, Remote, SendError};
    /// struct Trades {
    ///     seen: u64,
    /// }
    ///
    /// impl Handler for Trades {}
    ///
    /// # fn seen(remote: &Remote, id: ConnectionId) -> Result<Option<u64>, SendError> {
    /// remote.with_handler(id, Duration::from_secs(1), |handler| {
    ///     let handler: &mut dyn Any = handler;
    ///     handler.downcast_ref::<Trades>().map(|trades| trades.seen)
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SendError::TimedOut`], and then it may still run; [`SendError::OwnThread`];
    /// [`SendError::Full`]; [`SendError::Gone`], also if `call` panicked, which the connection does
    /// not survive.
    pub fn with_handler<R: Send + 'static>(
        &self,
        id: ConnectionId,
        timeout: Duration,
        call: impl FnOnce(&mut dyn Handler) -> R + Send + 'static,
    ) -> Result<R, SendError> {
        if self.central.is_own_thread() {
            return Err(SendError::OwnThread);
        }
        if self.central.slots().availability(id).is_none() {
            return Err(SendError::Gone);
        }
        let (sender, receiver) = sync_channel(1);
        let call: HandlerCall = Box::new(move |handler| {
            // Whoever asked may have stopped waiting.
            let _ = sender.send(call(handler));
        });
        self.central.offer(Command::WithHandler { id, call })?;
        answer(&receiver, timeout)
    }

    /// Puts `handler` in the place of a connection's handler, which is dropped. The connection goes on
    /// as it is: the new one gets the callbacks from here on, and no `on_open` of its own.
    ///
    /// # Errors
    /// [`SendError::Gone`], [`SendError::Full`].
    pub fn replace_handler(
        &self,
        id: ConnectionId,
        handler: impl Handler + Send,
    ) -> Result<(), SendError> {
        if self.central.slots().availability(id).is_none() {
            return Err(SendError::Gone);
        }
        let handler = Box::new(handler);
        self.central.offer(Command::Replace { id, handler })
    }

    /// Sends each event that is recorded from now on to `sink` as well, until the reactor ends or the
    /// sink is removed. As [`ReactorBuilder::trace_sink`](crate::ReactorBuilder::trace_sink) otherwise.
    ///
    /// ```
    /// use std::time::Duration;
    /// use websockex::trace::Record;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = websockex::Client::start()?;
    /// # let remote = client.remote();
    /// // Something is odd: for a while, let us see what.
    /// let sink = remote.add_trace_sink(|record: &Record| println!("{:?}", record.event))?;
    /// // ...
    /// let stats = remote.remove_trace_sink(sink, Duration::from_secs(1))?;
    /// println!("{} events, {} missed", stats.written, stats.dropped);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SendError::Gone`], [`SendError::Full`].
    ///
    /// # Panics
    /// If the operating system gives no thread, as [`std::thread::spawn`] does.
    pub fn add_trace_sink(&self, sink: impl Sink + 'static) -> Result<SinkId, SendError> {
        let tap = self.central.sinks.tap(sink);
        let tap = tap.expect("the operating system gives a thread");
        let meter = Arc::clone(&tap.meter);
        let id = meter.id;
        self.central.offer(Command::AddSink(tap))?;
        self.central.sinks.add(meter);
        Ok(id)
    }

    /// Removes a sink of the trace, whether it was there from the start or was added. It gets what was
    /// recorded so far; this waits until it has taken that, was flushed and is dropped, and returns what
    /// became of its events. [`ReactorStats::sinks`](crate::stats::ReactorStats::sinks) has the ids, and
    /// this one no more.
    ///
    /// # Errors
    /// [`SendError::TimedOut`]: the reactor, or the sink, is not that far; it is being removed all the
    /// same, and asking again goes on waiting. [`SendError::OwnThread`]; [`SendError::Full`];
    /// [`SendError::Gone`]: there is no such sink, or the reactor is gone.
    pub fn remove_trace_sink(&self, id: SinkId, timeout: Duration) -> Result<SinkStats, SendError> {
        if self.central.is_own_thread() {
            return Err(SendError::OwnThread);
        }
        let meter = self.central.sinks.find(id).ok_or(SendError::Gone)?;
        self.central.offer(Command::RemoveSink(id))?;
        if !meter.wait_for_end(timeout) {
            return Err(SendError::TimedOut);
        }
        self.central.sinks.remove(id);
        Ok(meter.snapshot())
    }

    /// Ends the reactor: all connections are closed with 1001, those that are not closed after
    /// `deadline` are dropped, every handler gets its last callbacks, and
    /// [`Reactor::run`](crate::Reactor::run) returns.
    ///
    /// # Errors
    /// [`SendError::Gone`]: it has ended already.
    pub fn shutdown(&self, deadline: Duration) -> Result<(), SendError> {
        let mut queue = self.central.queue();
        if !queue.open {
            return Err(SendError::Gone);
        }
        // Whatever waits: a program that wants to end must not be told to try again.
        queue.commands.push_back(Command::Shutdown { deadline });
        drop(queue);
        self.central.wake();
        Ok(())
    }
}

/// Waits for what the reactor answers.
fn answer<R>(receiver: &Receiver<R>, timeout: Duration) -> Result<R, SendError> {
    receiver.recv_timeout(timeout).map_err(|error| match error {
        RecvTimeoutError::Timeout => SendError::TimedOut,
        RecvTimeoutError::Disconnected => SendError::Gone,
    })
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
