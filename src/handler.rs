//! What a user implements, and what the callbacks are given.
//!
//! Between the session, below, and the reactor, above, which calls the callbacks. A handler talks
//! to its own connection through [`Context`], directly: what it sends goes into the output buffer
//! of the turn, and leaves with everything else of that turn in one write.

use crate::error::DisconnectReason;
use crate::error::{BoxError, SendError};
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::encoder::SHORT;
use crate::protocol::frame::OpCode;
use crate::protocol::handshake::Response;
use crate::request::Request;
use crate::session::aside::{Before, Comeback};
use crate::session::life::Life;
use crate::session::outbound::{Compression, Fragment, Output};
use crate::session::timers::TimerId;
use crate::stats::StageTimes;
use crate::trace::ring::Events;
use crate::trace::{self, LastEvents, Level};
use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// What a callback returns. An `Err` closes the connection with 1011 and ends it; the other
/// connections go on.
pub type HandlerResult = Result<(), BoxError>;

/// Names a connection of one reactor, for as long as it lives, over all its reconnects. Never used
/// again for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(crate) u64);

impl ConnectionId {
    pub(crate) fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    // Both halves are 32 bits long; the casts take them apart.
    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn slot(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl From<ConnectionId> for u64 {
    /// As [`trace::Event::connection`] has it, and [`trace::Ring::of`] takes it.
    fn from(id: ConnectionId) -> Self {
        id.0
    }
}

impl fmt::Display for ConnectionId {
    /// As in the trace: the slot, and which of its users this is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.slot(), self.generation())
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

/// A complete message, borrowed from where it was received. Copy what must outlive the callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message (RFC 6455 §5.6); UTF-8, validated.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The bytes, whichever kind it is.
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    pub(crate) fn opcode(&self) -> OpCode {
        match self {
            Self::Text(_) => OpCode::Text,
            Self::Binary(_) => OpCode::Binary,
        }
    }
}

/// A connection has opened, for the first time or again.
#[derive(Debug)]
#[non_exhaustive]
pub struct Open<'a> {
    /// How often this connection has been opened, this time included. Whatever was known from an
    /// earlier epoch may have a gap now.
    pub epoch: u64,
    /// Why it has opened now, and with that whether data was missed.
    pub reason: OpenReason<'a>,
    /// Attempts it took, from 1.
    pub attempts: u32,
    /// How long the stages of the last attempt took.
    pub times: StageTimes,
    /// The server's answer: its headers and the subprotocol.
    pub response: &'a Response,
    /// The address of the peer.
    pub peer: SocketAddr,
}

/// Why a connection has opened. Anything but [`First`](Self::First) means that what the peer sent in
/// between was missed, and the reason in it says what ended the time before.
///
/// ```
/// use websockex::{Context, Handler, HandlerResult, Open};
///
/// struct Book {
///     gaps: Vec<String>,
/// }
///
/// impl Handler for Book {
///     fn on_open(&mut self, _cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
///         if let Some(why) = open.reason.disconnect() {
///             self.gaps.push(format!("before epoch {}: {why}", open.epoch));
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum OpenReason<'a> {
    /// It had not been open before, however many attempts it took.
    First,
    /// It had been open, and that ended for this reason. What failed attempts in between came to
    /// [`on_disconnect`](Handler::on_disconnect) was told.
    Reconnected(&'a DisconnectReason),
    /// `on_disconnect` has named another request with [`Reconnect::To`]. The reason is why the
    /// connection was last open no more; if it never was, why the attempt failed that led to it.
    Changed(&'a DisconnectReason),
    /// Supervision has begun the connection anew, with a fresh handler and the epoch 1, after one of
    /// the same [`ConnectionId`] had ended for this reason.
    Restarted(&'a DisconnectReason),
}

impl<'a> OpenReason<'a> {
    pub(crate) fn new(before: Option<&'a Before>) -> Self {
        let Some(Before { step, reason }) = before else {
            return Self::First;
        };
        match step {
            Comeback::Again => Self::Reconnected(reason),
            Comeback::Elsewhere => Self::Changed(reason),
            Comeback::Anew => Self::Restarted(reason),
        }
    }

    /// What ended the time before; `None` for the first time.
    pub fn disconnect(&self) -> Option<&'a DisconnectReason> {
        match self {
            Self::First => None,
            Self::Reconnected(reason) | Self::Changed(reason) | Self::Restarted(reason) => {
                Some(reason)
            }
        }
    }
}

/// A connection has ended, or an attempt to open it has failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: &'a DisconnectReason,
    /// How many attempts in a row have failed, this one included; 0 if the connection was open.
    pub attempt: u32,
    /// How often this connection has been opened so far.
    pub epoch: u64,
    /// Both Close frames were exchanged (RFC 6455 §7.1.4: "closed _cleanly_").
    pub clean: bool,
    /// How long the stages of the failed attempt took; all `None` if the connection was open.
    pub times: StageTimes,
    /// What [`Reconnect::ByPolicy`] would do: connect again after this time, or never.
    pub policy: Option<Duration>,
    pub(crate) story: Story<'a>,
}

impl Disconnect<'_> {
    /// The flight recorder: the last events of this connection, oldest first, up to this one.
    pub fn last_events(&self) -> LastEvents<'_> {
        self.story.last_events()
    }

    /// Was the connection open, or was this an attempt to open it?
    pub fn was_open(&self) -> bool {
        self.attempt == 0
    }
}

/// What comes after a disconnect.
#[derive(Debug, Default)]
pub enum Reconnect {
    /// This was the end.
    Never,
    /// What the request's [`ReconnectPolicy`](crate::ReconnectPolicy) says.
    #[default]
    ByPolicy,
    /// Connect again after this time.
    After(Duration),
    /// Connect at once, with another request: another URL, other headers, and all its other settings
    /// in the place of the former ones, such as [`Request::linked`], the policy, which begins anew, and
    /// what is held. Only the name stays. [`Request::fail_first`] is without meaning here: it has not been
    /// the first. Two servers that both refuse, and a handler that goes to and fro between them without
    /// looking, keep the reactor busy; [`Admission`](crate::Admission) can hold that back.
    To(Box<Request>),
}

/// The end of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Termination<'a> {
    /// The connection that is no more.
    pub id: ConnectionId,
    /// Why it ended for good.
    pub reason: &'a DisconnectReason,
    /// How often it was open.
    pub epoch: u64,
    pub(crate) story: Story<'a>,
}

impl Termination<'_> {
    /// The flight recorder: the last events of the connection, oldest first, to its end.
    pub fn last_events(&self) -> LastEvents<'_> {
        self.story.last_events()
    }
}

/// A disconnect is its reason; the alternate form, `{:#}`, adds the last events, a line each.
impl fmt::Display for Disconnect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.story.display(self.reason, f)
    }
}

/// An end is its reason; the alternate form, `{:#}`, adds the last events, a line each.
impl fmt::Display for Termination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.story.display(self.reason, f)
    }
}

/// What came before an end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story<'a> {
    pub(crate) events: LastOnes<'a>,
    pub(crate) name: Option<&'a str>,
}

/// Where the last events of a connection are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LastOnes<'a> {
    /// In a copy, because the callback that is told of them may cause others.
    Copied(&'a [trace::Event]),
    /// Where they were recorded, those of this connection; with its frames, if it had any recorded.
    In(&'a trace::Ring, u64, bool),
}

impl Story<'_> {
    fn last_events(&self) -> LastEvents<'_> {
        let events = match self.events {
            LastOnes::Copied(events) => Events::sorted(events.iter()),
            LastOnes::In(ring, connection, true) => ring.of(connection),
            LastOnes::In(ring, connection, false) => Events::sorted(ring.lifecycle_of(connection)),
        };
        LastEvents::new(events, self.name)
    }

    fn display(&self, reason: &DisconnectReason, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{reason}")?;
        if !f.alternate() {
            return Ok(());
        }
        let events = self.last_events();
        if events.iter().len() > 0 {
            write!(f, "\n{events}")?;
        }
        Ok(())
    }
}

/// The callbacks of a connection. All have defaults; a handler implements what it needs.
///
/// The order is a contract. One [`on_open`](Self::on_open) for each time the connection opens, then
/// messages and the rest, then exactly one [`on_disconnect`](Self::on_disconnect) for it. An attempt
/// that fails gives an `on_disconnect` too, without an `on_open`. [`on_terminate`](Self::on_terminate)
/// comes exactly once, last. A callback that returns `Err` or panics closes its own connection with
/// 1011 and ends it for good, whatever the policy; `on_disconnect` and `on_terminate` still come.
///
/// All callbacks run on the reactor's thread: one that takes long holds up every connection.
///
/// A handler is [`Any`], so that [`Remote::with_handler`](crate::Remote::with_handler) can find out which
/// one it is.
pub trait Handler: Any {
    /// The connection is open; whatever is sent here is the first the peer gets.
    ///
    /// # Errors
    /// As [`HandlerResult`] says; so for all callbacks.
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        let _ = (cx, open);
        Ok(())
    }

    /// A complete message has arrived.
    #[allow(clippy::missing_errors_doc)]
    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        let _ = (cx, message);
        Ok(())
    }

    /// The peer asks for a pong. The default sends it; without that, none is sent.
    #[allow(clippy::missing_errors_doc)]
    fn on_ping(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> HandlerResult {
        match cx.send_pong(payload) {
            // RFC 6455 §5.5.2: a Pong is owed "unless it already received a Close frame"; once
            // closing has begun, and when the queue is full, it is not worth the connection.
            Ok(()) | Err(SendError::Closing | SendError::Full { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The answer to a ping, or a heartbeat of the peer's.
    #[allow(clippy::missing_errors_doc)]
    fn on_pong(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> HandlerResult {
        let _ = (cx, payload);
        Ok(())
    }

    /// Something sent with [`Remote::cast`](crate::Remote::cast). Casts that come while there is no
    /// open connection wait for the next `on_open`.
    #[allow(clippy::missing_errors_doc)]
    fn on_cast(&mut self, cx: &mut Context<'_>, message: Box<dyn Any + Send>) -> HandlerResult {
        let _ = (cx, message);
        Ok(())
    }

    /// A timer set with [`Context::set_timer`] is due. Timers run whether the connection is open or
    /// not.
    #[allow(clippy::missing_errors_doc)]
    fn on_timer(&mut self, cx: &mut Context<'_>, timer: TimerId) -> HandlerResult {
        let _ = (cx, timer);
        Ok(())
    }

    /// The last message of a read was delivered: the moment for work that is worth doing once per
    /// batch. If the connection's end was in the same read, this comes before it.
    #[allow(clippy::missing_errors_doc)]
    fn on_batch_end(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// So much had waited for the socket that the high-water mark was reached, and it has fallen to
    /// the low one again; see [`Request::water_marks`]. By default: the socket had refused to take
    /// more, and has now taken all that waited.
    #[allow(clippy::missing_errors_doc)]
    fn on_drained(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// The connection has ended, or an attempt to open it failed: what now?
    ///
    /// Its socket is closed when this turn of the reactor ends at the latest, or before another one is
    /// opened.
    fn on_disconnect(&mut self, cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        let _ = (cx, disconnect);
        Reconnect::ByPolicy
    }

    /// The end; nothing is called after this, and the handler is given back.
    fn on_terminate(self: Box<Self>, termination: &Termination<'_>) {
        let _ = termination;
    }
}

/// A handler's hold on its own connection, for the length of one callback.
pub struct Context<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) life: &'a mut Life,
    pub(crate) output: Output<'a>,
}

impl Context<'_> {
    /// The connection's name in its reactor.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// How often the connection has been opened so far.
    pub fn epoch(&self) -> u64 {
        self.life.epoch()
    }

    /// Bytes of output that wait: what the socket did not take, what may not leave yet because of a
    /// [`Pacer`](crate::Pacer), and what this turn has sent so far.
    pub fn queued(&self) -> usize {
        self.life.queued + self.life.waiting_bytes() + self.output.frames.len()
    }

    /// The round trip of the last ping of the request's heartbeat that was answered.
    pub fn round_trip(&self) -> Option<Duration> {
        self.life.round_trip()
    }

    /// When the bytes arrived at this machine's kernel that this callback is about, by the kernel's
    /// `CLOCK_REALTIME`, which is that of [`SystemTime::now`]: the difference to that is what the
    /// message has waited, for the reactor and in it. That clock may be set back or forth meanwhile.
    ///
    /// It is the stamp of the last read that the callback needed, and of the last packet in it. So it
    /// is that of a message's *end*, whatever number of reads the message came in, and messages of one
    /// read have one stamp; [`ReceiveTimestamps`](crate::ReceiveTimestamps) says how to make reads
    /// smaller. With TLS it is that of the record's end.
    ///
    /// `None`: the request does not ask for it with
    /// [`SocketOptions::receive_timestamps`](crate::SocketOptions::receive_timestamps); the operating
    /// system is not Linux; the callback is not about bytes, such as `on_timer`, `on_cast` and
    /// `on_disconnect`; or these were the first packets after a machine began to stamp, which takes
    /// the kernel a moment.
    pub fn received_at(&self) -> Option<SystemTime> {
        self.output.tally.received_at
    }

    /// Reads no more from this connection for now, so that TCP holds the peer back. What was read
    /// already is still delivered. Watchdogs and heartbeats rest meanwhile, and the end of the
    /// connection goes unnoticed. Opening anew, or closing, resumes it.
    pub fn pause_reading(&mut self) {
        self.life.pause(&mut self.output, true);
    }

    /// Goes on reading.
    pub fn resume_reading(&mut self) {
        self.life.pause(&mut self.output, false);
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// [`SendError`] says why nothing was sent: not open (unless the request
    /// [holds sends](Request::hold_sends)), closing, queue full, or a fragmented message is under way.
    #[inline]
    pub fn send_text(&mut self, text: &str) -> Result<(), SendError> {
        self.send_whole(OpCode::Text, Compression::BySize, text.as_bytes())
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    #[inline]
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.send_whole(OpCode::Binary, Compression::BySize, bytes)
    }

    /// Sends a message of either kind.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    #[inline]
    pub fn send(&mut self, message: Message<'_>) -> Result<(), SendError> {
        self.send_with(message, Compression::BySize)
    }

    /// Sends a message, deflated or not as asked for. Without permessage-deflate it makes no
    /// difference.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text).
    #[inline]
    pub fn send_with(
        &mut self,
        message: Message<'_>,
        compression: Compression,
    ) -> Result<(), SendError> {
        self.send_whole(message.opcode(), compression, message.as_bytes())
    }

    /// What all of these come to. No `Result` from the ordinary ways: it would go through memory.
    #[inline(always)]
    fn send_whole(
        &mut self,
        opcode: OpCode,
        compression: Compression,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let is_sent = match opcode {
            OpCode::Binary => self.send_ordinary_binary(payload),
            _ => self.send_ordinary_text(payload),
        };
        if is_sent {
            return Ok(());
        }
        self.send_any(opcode, compression, payload)
    }

    /// An ordinary message, if it is one. Once for each kind, so that the opcode is a constant; and not
    /// inlined, because of what is inlined here.
    #[inline(never)]
    fn send_ordinary_text(&mut self, payload: &[u8]) -> bool {
        let masking = self.output.masking;
        masking.run(self, payload, |cx, payload| {
            cx.send_ordinary(OpCode::Text, payload)
        })
    }

    #[inline(never)]
    fn send_ordinary_binary(&mut self, payload: &[u8]) -> bool {
        let masking = self.output.masking;
        masking.run(self, payload, |cx, payload| {
            cx.send_ordinary(OpCode::Binary, payload)
        })
    }

    #[inline(always)]
    fn send_ordinary(&mut self, opcode: OpCode, payload: &[u8]) -> bool {
        if payload.len() > SHORT {
            return self.send_longer(payload, opcode);
        }
        self.life.send_short(&mut self.output, opcode, payload)
    }

    /// With the arguments where they are already, so that it is a jump and leaves the registers to the
    /// short ones.
    #[inline(never)]
    fn send_longer(&mut self, payload: &[u8], opcode: OpCode) -> bool {
        self.life.send_ordinary(&mut self.output, opcode, payload)
    }

    /// A message that is not ordinary, or not known to be.
    #[inline(never)]
    fn send_any(
        &mut self,
        opcode: OpCode,
        compression: Compression,
        payload: &[u8],
    ) -> Result<(), SendError> {
        let callback = Some(self.life.callback);
        self.life
            .send(&mut self.output, callback, compression, opcode, payload)
    }

    /// Sends one fragment of a message, all fragments of one kind (RFC 6455 §5.4). Control frames
    /// may be sent in between, other messages not.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text); [`SendError::FragmentOrder`] for a first fragment inside
    /// a message, a further one outside, or one of the other kind.
    pub fn send_fragment(
        &mut self,
        message: Message<'_>,
        fragment: Fragment,
    ) -> Result<(), SendError> {
        let (opcode, payload) = (message.opcode(), message.as_bytes());
        let callback = Some(self.life.callback);
        self.life
            .send_fragment(&mut self.output, callback, opcode, fragment, payload)
    }

    /// Sends a ping with a payload of at most 125 bytes.
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text), and for a longer payload.
    pub fn send_ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        let callback = Some(self.life.callback);
        self.life
            .send_control(&mut self.output, callback, OpCode::Ping, payload)
    }

    /// Sends a pong with a payload of at most 125 bytes. While the socket takes nothing only the
    /// newest pong is kept (RFC 6455 §5.5.3 allows that).
    ///
    /// # Errors
    /// As [`send_text`](Self::send_text), and for a longer payload.
    pub fn send_pong(&mut self, payload: &[u8]) -> Result<(), SendError> {
        let callback = Some(self.life.callback);
        self.life
            .send_control(&mut self.output, callback, OpCode::Pong, payload)
    }

    /// Closes with [`CloseCode::NORMAL`]: sends the Close frame, waits for the peer's until the
    /// close timeout, then drops the TCP connection. Messages that the peer sent before it answers
    /// are still delivered. A connection closed from this side is not opened again by policy.
    ///
    /// While the connection is not open, the attempt or the wait for the next one is given up. A
    /// second call changes nothing.
    pub fn close(&mut self) {
        // Refused only when it is closing or over already, which is what was wanted.
        let _ = self.close_with(CloseCode::NORMAL, "");
    }

    /// Closes with a code and a reason of at most 123 bytes.
    ///
    /// # Errors
    /// A code that must not be sent, a reason that is too long, a connection that is closing
    /// already or over.
    pub fn close_with(&mut self, code: CloseCode, reason: &str) -> Result<(), SendError> {
        let close = CloseFrame { code, reason };
        self.life.close(&mut self.output, Some(close))
    }

    /// Ends the connection at once, without the closing handshake: the TCP connection is closed, when this
    /// turn of the reactor ends at the latest, and the peer finds that it has ended without a Close frame, which it calls 1006 (RFC 6455 §7.1.5). For a
    /// peer that is not worth waiting for; everywhere else [`close`](Self::close) is better manners.
    ///
    /// Lost are output that waits, what this turn has sent, and messages that were read already but not
    /// delivered. The next callback is [`on_disconnect`](Handler::on_disconnect), with
    /// [`DisconnectReason::Local`] and no code; of a connection that was closing it is the reason that it
    /// was closing for. A connection aborted from this side is not opened again by policy.
    ///
    /// While the connection is not open, this is `close`.
    ///
    /// ```
    /// use websockex::{Context, Handler, HandlerResult, Message};
    ///
    /// struct First;
    ///
    /// impl Handler for First {
    ///     fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
    ///         println!("{message:?}");
    ///         // One was wanted; whatever came with it is not delivered.
    ///         cx.abort();
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn abort(&mut self) {
        self.life.abort(&mut self.output);
    }

    /// Arms a timer: [`Handler::on_timer`] is called once, not before `delay` has passed. Arming it
    /// again moves it.
    pub fn set_timer(&mut self, timer: TimerId, delay: Duration) {
        self.life.timers.set(timer, self.output.now.after(delay));
    }

    /// Disarms a timer; true if it was armed.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.life.timers.cancel(timer)
    }

    /// Sets how much of this connection is recorded from now on, unless the environment has said it, see
    /// [`VARIABLE`](crate::sinks::VARIABLE).
    pub fn set_trace(&mut self, level: Level) {
        self.life.set_level(&mut self.output, level);
    }

    /// The flight recorder: the events of this connection that the trace still holds, oldest first.
    /// Print them as they are, or have [`trace::render`](crate::trace::render) make lines of them.
    pub fn last_events(&self) -> LastEvents<'_> {
        let name = self.life.name().map(|name| &**name);
        LastEvents::new(self.output.trace.ring().of(self.id.0), name)
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id)
            .field("stage", &self.life.stage)
            .finish_non_exhaustive()
    }
}
