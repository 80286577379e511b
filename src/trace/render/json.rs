//! JSON lines: one event, one object, for programs.

use std::fmt::{self, Display};

use super::super::event::Event;
use super::super::kind::Kind;
use super::escape::{Hex, JsonString};
use super::{Id, Opcode, TlsVersion, is_cut, is_text_frame, shown};

/// An event as one JSON object on one line, without the newline. `name` is the connection's name.
///
/// # Schema
///
/// Every object begins with these members; integers are unsigned and up to 64 bits wide.
///
/// | member | |
/// | --- | --- |
/// | `time_ns` | nanoseconds since the reactor's start |
/// | `sequence` | place among all recorded events, without gaps |
/// | `ordinal` | place among the events recorded of its connection, from 0 |
/// | `connection` | id as a string, `"slot#generation"` |
/// | `name` | the connection's name, empty for none |
/// | `event` | [`Kind::name`] |
///
/// What follows depends on the event. Strings are always present, even if empty; members with a `?` only where
/// there is something to say. Where a text or payload is only the beginning of a longer one, `"truncated": true`
/// ends the object.
///
/// | `event` | further members |
/// | --- | --- |
/// | `connect_queued` | `waiting`, `server` |
/// | `connecting`, `reconnecting` | `attempt`, `server` |
/// | `resolved` | `addresses` (their number), `address` (the first) |
/// | `tcp_connecting`, `tcp_connected` | `address` |
/// | `proxy_connected` | `proxy` |
/// | `tls_established` | `version`, `resumed`, `negotiated` |
/// | `tls_alert` | `alert`, `received` (else sent), `description` |
/// | `upgrading` | `server` |
/// | `connected`, `reconnected` | `epoch`, `agreed` |
/// | `connect_failed` | `stage`, `status`?, `error` |
/// | `reconnect_scheduled` | `delay_ns`, `reason` |
/// | `frame_received`, `fragmented_completed`, `frame_sent` | `opcode`, `fin`, `compressed`, `length`, then `payload_text`? or `payload_hex`? |
/// | `replying` | `callback`, then as `frame_sent` |
/// | `cast_received` | `label` |
/// | `handler_timer_fired` | `token` |
/// | `close_sent`, `error_close_sent`, `close_received`, `closing_local` | `code`?, `reason` |
/// | `closing_error` | `code`?, `error` |
/// | `remote_dropped` | `error` |
/// | `timer_fired` | `timer` |
/// | `limit_hit` | `limit`, `value`, `allowed` |
/// | `queue_high_water` | `queued_bytes`, `mark_bytes` |
/// | `send_dropped` | `opcode`, `length`, `reason` |
/// | `level_changed` | `level` |
/// | `handler_failed` | `callback`, `error` |
/// | `handler_panicked` | `callback`, `message` |
/// | `restarting` | `restart`, `allowed` |
/// | `abandoned` | `count`, `what` |
/// | `terminated` | `reason` |
/// | `closed_cleanly`, `forced_closed`, `queue_drained`, `reading_paused`, `reading_resumed`, `handler_replaced` | none |
///
/// `opcode` is a name: `continuation`, `text`, `binary`, `close`, `ping`, `pong`, or `opcode 0xb` and the like
/// for reserved ones. `payload_text` is there for uncompressed text frames whose bytes are UTF-8, `payload_hex`
/// for all others, neither where no payload was recorded.
///
/// In the files of a [`FileSink`](crate::sinks::FileSink) there is one more sort of line, where events of that
/// sink's were dropped: `event` is `missing` and `events` says how many, with neither a connection nor the
/// other members above.
#[must_use]
pub fn json_line<'a>(event: &'a Event, name: &'a str) -> JsonLine<'a> {
    JsonLine { event, name }
}

/// What [`json_line`] returns, to be displayed.
#[derive(Clone, Copy, Debug)]
pub struct JsonLine<'a> {
    event: &'a Event,
    name: &'a str,
}

impl Display for JsonLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        write!(
            f,
            "{{\"time_ns\":{},\"sequence\":{},\"ordinal\":{}",
            event.time_ns(),
            event.sequence(),
            event.ordinal()
        )?;
        write!(f, ",\"connection\":\"{}\"", Id(event.connection()))?;
        write!(f, ",\"name\":{}", JsonString(self.name.as_bytes()))?;
        write!(f, ",\"event\":\"{}\"", event.kind().name())?;
        Members { f, event }.of_kind()?;
        // Without recorded payload there is nothing that could be truncated.
        f.write_str(if is_cut(event) && !event.detail().is_empty() {
            ",\"truncated\":true}"
        } else {
            "}"
        })
    }
}

/// Writes the members that depend on the kind. Keys are names of our own and need no escaping.
struct Members<'a, 'f, 'o> {
    f: &'a mut fmt::Formatter<'f>,
    event: &'o Event,
}

impl Members<'_, '_, '_> {
    fn of_kind(mut self) -> fmt::Result {
        let (value, limit, about) = (
            self.event.value(),
            self.event.limit(),
            self.event.subject().name(),
        );
        match self.event.kind() {
            Kind::ConnectQueued => self.bare("waiting", value)?.text("server"),
            Kind::Connecting | Kind::Reconnecting => self.bare("attempt", value)?.text("server"),
            Kind::Resolved => self.bare("addresses", value)?.text("address"),
            Kind::TcpConnecting | Kind::TcpConnected => self.text("address"),
            Kind::ProxyConnected => self.text("proxy"),
            Kind::TlsEstablished => {
                let (version, resumed) = (TlsVersion(self.event.code()), self.event.resumed());
                self.quoted("version", version)?
                    .bare("resumed", resumed)?
                    .text("negotiated")
            }
            Kind::TlsAlert => {
                let (alert, received) = (self.event.code(), self.event.received());
                self.bare("alert", alert)?
                    .bare("received", received)?
                    .text("description")
            }
            Kind::Upgrading => self.text("server"),
            Kind::Connected | Kind::Reconnected => self.bare("epoch", value)?.text("agreed"),
            Kind::ConnectFailed => self.quoted("stage", about)?.code("status")?.text("error"),
            Kind::ReconnectScheduled => self.bare("delay_ns", value)?.text("reason"),

            Kind::FrameReceived | Kind::FragmentedCompleted | Kind::FrameSent => self.frame(),
            Kind::Replying => self.quoted("callback", about)?.frame(),
            Kind::CastReceived => self.text("label"),
            Kind::HandlerTimerFired => self.bare("token", value).map(|_| ()),

            Kind::CloseSent | Kind::ErrorCloseSent | Kind::CloseReceived | Kind::ClosingLocal => {
                self.code("code")?.text("reason")
            }
            Kind::ClosingError => self.code("code")?.text("error"),
            Kind::RemoteDropped => self.text("error"),

            Kind::TimerFired => self.quoted("timer", about).map(|_| ()),
            Kind::LimitHit => self
                .quoted("limit", about)?
                .bare("value", value)?
                .bare("allowed", limit)
                .map(|_| ()),
            Kind::QueueHighWater => self
                .bare("queued_bytes", value)?
                .bare("mark_bytes", limit)
                .map(|_| ()),
            Kind::SendDropped => {
                let opcode = Opcode(self.event.opcode());
                self.quoted("opcode", opcode)?
                    .bare("length", value)?
                    .text("reason")
            }
            Kind::LevelChanged => self.quoted("level", about).map(|_| ()),

            Kind::HandlerFailed => self.quoted("callback", about)?.text("error"),
            Kind::HandlerPanicked => self.quoted("callback", about)?.text("message"),
            Kind::Restarting => self
                .bare("restart", value)?
                .bare("allowed", limit)
                .map(|_| ()),
            Kind::Abandoned => self.bare("count", value)?.text("what"),
            Kind::Terminated => self.text("reason"),

            Kind::ClosedCleanly
            | Kind::ForcedClosed
            | Kind::QueueDrained
            | Kind::ReadingPaused
            | Kind::ReadingResumed
            | Kind::HandlerReplaced => Ok(()),
        }
    }

    fn frame(&mut self) -> fmt::Result {
        let event = self.event;
        self.quoted("opcode", Opcode(event.opcode()))?
            .bare("fin", event.fin())?
            .bare("compressed", event.compressed())?
            .bare("length", event.value())?;
        let payload = shown(event);
        if payload.is_empty() {
            Ok(())
        } else if is_text_frame(event) && str::from_utf8(payload).is_ok() {
            write!(self.f, ",\"payload_text\":{}", JsonString(payload))
        } else {
            write!(self.f, ",\"payload_hex\":\"{}\"", Hex(payload))
        }
    }

    /// A number or a boolean.
    fn bare(&mut self, key: &str, value: impl Display) -> Result<&mut Self, fmt::Error> {
        write!(self.f, ",\"{key}\":{value}")?;
        Ok(self)
    }

    /// A name of our own, which needs no escaping.
    fn quoted(&mut self, key: &str, name: impl Display) -> Result<&mut Self, fmt::Error> {
        write!(self.f, ",\"{key}\":\"{name}\"")?;
        Ok(self)
    }

    /// The event's code, unless it has none.
    fn code(&mut self, key: &str) -> Result<&mut Self, fmt::Error> {
        match self.event.code() {
            0 => Ok(self),
            code => self.bare(key, code),
        }
    }

    /// The event's text, which comes last.
    fn text(&mut self, key: &str) -> fmt::Result {
        write!(self.f, ",\"{key}\":{}", JsonString(self.event.detail()))
    }
}
