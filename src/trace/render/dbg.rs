//! `*DBG*` lines: one event, one sentence, in the words WebSockex uses.

use std::fmt::{self, Write};
use std::time::Duration;

use super::super::event::Event;
use super::super::kind::Kind;
use super::escape::{Delimiter, Escaped, Hex};
use super::{Id, Opcode, TlsVersion, is_cut, is_text_frame, shown};

/// An event as one `*DBG*` line, without the newline. `name` is the connection's name; where it has none (an
/// empty one) its id stands instead, as `slot#generation`.
///
/// The alternate form, `{:#}`, adds the time since the reactor's start.
///
/// ```
/// use websockex::trace::{Event, render::dbg_line};
///
/// let event = Event::close_received(2_000_000_000, 5 | 1 << 32, Some(1001), "maintenance");
/// assert_eq!(
///     dbg_line(&event, "trades").to_string(),
///     "*DBG* trades closing with the remote reason: 1001 \"maintenance\"",
/// );
/// assert_eq!(
///     format!("{:#}", dbg_line(&event, "")),
///     "*DBG* 5#1 closing with the remote reason: 1001 \"maintenance\" [+2.000000000 s]",
/// );
/// ```
#[must_use]
pub fn dbg_line<'a>(event: &'a Event, name: &'a str) -> DbgLine<'a> {
    DbgLine { event, name }
}

/// What [`dbg_line`] returns, to be displayed.
#[derive(Clone, Copy, Debug)]
pub struct DbgLine<'a> {
    event: &'a Event,
    name: &'a str,
}

impl fmt::Display for DbgLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        f.write_str("*DBG* ")?;
        if self.name.is_empty() {
            write!(f, "{}", Id(event.connection()))?;
        } else {
            write!(f, "{}", Escaped(self.name.as_bytes(), Delimiter::Bare))?;
        }
        f.write_char(' ')?;
        sentence(f, event)?;
        if f.alternate() {
            let time = Duration::from_nanos(event.time_ns());
            write!(f, " [+{}.{:09} s]", time.as_secs(), time.subsec_nanos())?;
        }
        Ok(())
    }
}

/// What a line says after the connection's name.
pub(super) struct Sentence<'a>(pub(super) &'a Event);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        sentence(f, self.0)
    }
}

/// What happened, in WebSockex's words where it has any.
fn sentence(f: &mut fmt::Formatter<'_>, event: &Event) -> fmt::Result {
    let (value, limit, code) = (event.value(), event.limit(), event.code());
    let (about, opcode, tls) = (
        event.subject().name(),
        Opcode(event.opcode()),
        TlsVersion(code),
    );
    let (text, more) = (Text(event), More(event));
    let (frame, close) = (FrameShown(event), CloseShown(event));
    match event.kind() {
        Kind::ConnectQueued => write!(
            f,
            "waiting to connect to {text} (number {value} in the queue)"
        ),
        Kind::Connecting => write!(f, "attempting to connect to {text} (attempt {value})"),
        Kind::Resolved => write!(f, "resolved the name to {value} addresses, first {text}"),
        Kind::TcpConnecting => write!(f, "opening a TCP connection to {text}"),
        Kind::TcpConnected => write!(f, "opened the TCP connection to {text}"),
        Kind::ProxyConnected => write!(f, "reached the server through the proxy {text}"),
        Kind::TlsEstablished if event.resumed() => write!(f, "resumed {tls}{more}"),
        Kind::TlsEstablished => write!(f, "established {tls}{more}"),
        Kind::TlsAlert if event.received() => write!(f, "received TLS alert {code}{more}"),
        Kind::TlsAlert => write!(f, "sent TLS alert {code}{more}"),
        Kind::Upgrading => write!(f, "sent the upgrade request to {text}"),
        Kind::Connected => write!(f, "successfully connected (epoch {value}){more}"),
        Kind::ConnectFailed if code == 0 => write!(f, "failed to connect at stage {about}{more}"),
        Kind::ConnectFailed => write!(f, "failed to connect at stage {about} (HTTP {code}){more}"),
        Kind::ReconnectScheduled => {
            write!(f, "reconnecting in {:?}{more}", Duration::from_nanos(value))
        }
        Kind::Reconnecting => write!(f, "attempting to reconnect to {text} (attempt {value})"),
        Kind::Reconnected => write!(f, "successfully reconnected (epoch {value}){more}"),

        Kind::FrameReceived => write!(f, "received frame: {frame}"),
        Kind::FragmentedCompleted => write!(f, "completed fragmented frame: {frame}"),
        Kind::CastReceived => write!(f, "received cast msg{more}"),
        Kind::Replying => write!(f, "replying from {about} with {frame}"),
        Kind::FrameSent => write!(f, "sending frame: {frame}"),
        Kind::HandlerTimerFired => write!(f, "fired the handler's timer {value}"),

        Kind::CloseSent => write!(f, "sending close frame: {close}"),
        Kind::ErrorCloseSent => write!(f, "sending error close frame: {close}"),
        Kind::CloseReceived => write!(f, "closing with the remote reason: {close}"),
        Kind::ClosingLocal => write!(f, "closing with local reason: {close}"),
        Kind::ClosingError if code == 0 => write!(f, "closing due to error{more}"),
        Kind::ClosingError => write!(f, "closing due to error{more} (close code {code})"),
        Kind::RemoteDropped => {
            write!(
                f,
                "had the connection closed unexpectedly by the remote server{more}"
            )
        }
        Kind::ClosedCleanly => f.write_str("closed the connection successfully"),
        Kind::ForcedClosed => f.write_str(
            "forcefully closed the connection because the server was taking too long to close.",
        ),

        Kind::TimerFired => write!(f, "fired {about}"),
        Kind::LimitHit => write!(f, "hit the limit {about}: {value} where {limit} is allowed"),
        Kind::QueueHighWater => write!(f, "queued {value} B of output, high-water mark {limit} B"),
        Kind::QueueDrained => f.write_str("drained the output queue"),
        Kind::SendDropped => write!(f, "dropped an outgoing {opcode} ({value} B){more}"),
        Kind::ReadingPaused => f.write_str("paused reading"),
        Kind::ReadingResumed => f.write_str("resumed reading"),
        Kind::HandlerReplaced => f.write_str("replaced the handler"),
        Kind::LevelChanged => write!(f, "changed the trace level to {about}"),

        Kind::HandlerFailed => write!(f, "failed in {about}{more}"),
        Kind::HandlerPanicked => write!(f, "panicked in {about}{more}"),
        Kind::Restarting => write!(f, "restarting, {value} of at most {limit} times"),
        Kind::Abandoned => write!(f, "dropped {value} that waited{more}"),
        Kind::Terminated => write!(f, "terminated{more}"),
    }
}

/// The event's text as it is, made safe; marked where it was cut.
struct Text<'a>(&'a Event);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(self.0.detail(), Delimiter::Bare))?;
        if is_cut(self.0) {
            write!(f, "… ({} B)", self.0.detail_total())
        } else {
            Ok(())
        }
    }
}

/// The event's text behind a colon; nothing where there is no text.
struct More<'a>(&'a Event);

impl fmt::Display for More<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.detail().is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", Text(self.0))
        }
    }
}

/// Close code and reason: `1001 "going away"`.
struct CloseShown<'a>(&'a Event);

impl fmt::Display for CloseShown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.code() {
            0 => f.write_str("no code")?,
            code => write!(f, "{code}")?,
        }
        if self.0.detail().is_empty() {
            return Ok(());
        }
        write!(f, " \"{}\"", Escaped(self.0.detail(), Delimiter::Quotes))?;
        if is_cut(self.0) {
            write!(f, "… ({} B)", self.0.detail_total())
        } else {
            Ok(())
        }
    }
}

/// A frame: `text (17 B): "hello"`, `binary, not final (3 B): 00ff10`, `…` behind what goes on.
struct FrameShown<'a>(&'a Event);

impl fmt::Display for FrameShown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        write!(f, "{}", Opcode(event.opcode()))?;
        f.write_str(if event.fin() { "" } else { ", not final" })?;
        f.write_str(if event.compressed() {
            ", compressed"
        } else {
            ""
        })?;
        write!(f, " ({} B)", event.value())?;
        let payload = shown(event);
        if payload.is_empty() {
            return Ok(());
        }
        if is_text_frame(event) || reads_as_text(event) {
            write!(f, ": \"{}\"", Escaped(payload, Delimiter::Quotes))?;
        } else {
            write!(f, ": {}", Hex(payload))?;
        }
        f.write_str(if is_cut(event) { "…" } else { "" })
    }
}

/// Continuations, pings and pongs do not say what they carry: shown as text when every byte is a visible one.
fn reads_as_text(event: &Event) -> bool {
    let visible = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    matches!(event.opcode(), 0 | 9 | 10)
        && !event.compressed()
        && event.detail().iter().all(visible)
}
