//! What the reactor publishes of itself and its connections at the end of every turn, and how other
//! threads look at it, which never holds the reactor up.

use super::connection::{Connection, Fate};
use super::{OwnedMessage, Remote, Shared, Turn};
use crate::error::DisconnectReason;
use crate::error::{Error, SendError};
use crate::handler::ConnectionId;
use crate::protocol::frame::OpCode;
use crate::session::Stage;
use crate::stats::meter::{Cause, ConnectionMeter};
use crate::stats::{ConnectionStats, ReactorStats};
use crate::trace::event::Event;
use crate::trace::kind::{Callback, Kind, Level};
use crate::trace::render;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Connections whose numbers are looked up at a time, while the reactor may wait to publish a change
/// of one: some microseconds.
const CHUNK: usize = 256;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Its first attempt has not begun, or it waits for the next one.
    Waiting,
    /// Its attempt is due and waits to be admitted; see [`Admission`](crate::Admission).
    Queued,
    /// The host's name is looked up.
    Resolving,
    /// The TCP handshake is under way.
    Connecting,
    /// The proxy is asked for the way.
    Tunnelling,
    /// The TLS handshake is under way.
    Securing,
    /// The opening handshake is under way.
    Upgrading,
    /// Messages flow.
    Open,
    /// It is being closed, from whichever side.
    Closing,
}

impl ConnectionState {
    const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Queued,
        Self::Resolving,
        Self::Connecting,
        Self::Tunnelling,
        Self::Securing,
        Self::Upgrading,
        Self::Open,
        Self::Closing,
    ];

    fn of(stage: Stage) -> Self {
        match stage {
            Stage::BackOff | Stage::Ended => Self::Waiting,
            Stage::Queued => Self::Queued,
            Stage::Resolving => Self::Resolving,
            Stage::Connecting => Self::Connecting,
            Stage::Tunnelling => Self::Tunnelling,
            Stage::Securing => Self::Securing,
            Stage::Upgrading => Self::Upgrading,
            Stage::Open => Self::Open,
            Stage::Closing | Stage::Closed | Stage::Failing | Stage::Over => Self::Closing,
        }
    }

    fn of_meter(meter: &ConnectionMeter) -> Self {
        let number = meter.state.value();
        let is_it = |state: &&Self| **state as u32 == number;
        *Self::ALL.iter().find(is_it).unwrap_or(&Self::Waiting)
    }

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Resolving => "resolving",
            Self::Connecting => "connecting",
            Self::Tunnelling => "tunnelling",
            Self::Securing => "securing",
            Self::Upgrading => "upgrading",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One connection as other threads see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Which one.
    pub id: ConnectionId,
    /// The name that its request gave it.
    pub name: Option<Arc<str>>,
    /// Host and port that it connects to.
    pub server: String,
    /// How far it has come.
    pub state: ConnectionState,
    /// When this was read, since the reactor's start; the times in `stats` count from there too.
    pub now: Duration,
    /// What it has done.
    pub stats: ConnectionStats,
}

impl ConnectionStatus {
    fn read(id: ConnectionId, meter: &ConnectionMeter, now: Duration) -> Self {
        Self {
            id,
            name: meter.name.clone(),
            server: meter.server(),
            state: ConnectionState::of_meter(meter),
            now,
            stats: meter.snapshot(),
        }
    }

    /// How long ago the last message arrived.
    pub fn since_last_data(&self) -> Option<Duration> {
        let last = self.stats.last_data?;
        Some(self.now.saturating_sub(last))
    }
}

/// All connections of a reactor at one moment. Its `Display` is a table, a line per connection.
#[derive(Clone, Debug, Default)]
pub struct Connections(Vec<ConnectionStatus>);

impl Deref for Connections {
    type Target = [ConnectionStatus];

    fn deref(&self) -> &[ConnectionStatus] {
        &self.0
    }
}

impl IntoIterator for Connections {
    type Item = ConnectionStatus;
    type IntoIter = std::vec::IntoIter<ConnectionStatus>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |status: &ConnectionStatus| match &status.name {
            Some(name) => format!("{}@{}", render::visible(name), status.server),
            None => status.server.clone(),
        };
        let labels: Vec<String> = self.0.iter().map(label).collect();
        let width = labels.iter().map(|label| label.chars().count()).max();
        let width = width.unwrap_or(0).max(10);
        writeln!(
            f,
            "{:<8} {:<width$} {:<10} {:>6} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>9}",
            "id",
            "connection",
            "state",
            "opened",
            "msgs in",
            "bytes in",
            "msgs out",
            "bytes out",
            "queued",
            "data ago",
            "rtt",
        )?;
        for (status, label) in self.0.iter().zip(labels) {
            let stats = &status.stats;
            writeln!(
                f,
                "{:<8} {label:<width$} {:<10} {:>6} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>9}",
                status.id.to_string(),
                status.state,
                stats.opens,
                stats.received.messages,
                stats.received.socket_bytes,
                stats.sent.messages,
                stats.sent.socket_bytes,
                stats.queued_bytes,
                shown(status.since_last_data()),
                shown(stats.round_trips.map(|trips| trips.last)),
            )?;
        }
        Ok(())
    }
}

/// A time in three digits or so; a dash for none.
fn shown(time: Option<Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time.as_secs() >= 10 => format!("{} s", time.as_secs()),
        Some(time) if time.as_millis() >= 10 => format!("{} ms", time.as_millis()),
        Some(time) => format!("{} us", time.as_micros()),
    }
}

impl Remote {
    /// The reactor's numbers at this moment, read without holding it up.
    pub fn stats(&self) -> ReactorStats {
        let mut stats = self.central.meter.snapshot();
        let mut start = 0;
        loop {
            let slots = self.central.slots();
            for (_, meter) in slots.meters(start..start + CHUNK) {
                stats.connections += 1;
                stats.queued_bytes += meter.queued_bytes();
                stats.open += u64::from(ConnectionState::of_meter(meter) == ConnectionState::Open);
            }
            start += CHUNK;
            if start >= slots.len() {
                break;
            }
        }
        stats.uptime = self.central.start.elapsed();
        stats.queued_commands = self.central.waiting() as u64;
        stats.sinks = self.central.sinks.stats();
        stats
    }

    /// How one connection is at this moment, read without holding the reactor up. `None`: it has
    /// ended, or the reactor has not taken it in yet.
    pub fn status(&self, id: ConnectionId) -> Option<ConnectionStatus> {
        let meter = self.central.slots().meter(id)?;
        Some(ConnectionStatus::read(
            id,
            &meter,
            self.central.start.elapsed(),
        ))
    }

    /// How all connections are at this moment, read without holding the reactor up.
    ///
    /// ```
    /// # let reactor = websockex::Reactor::new().unwrap();
    /// println!("{}", reactor.remote().connections());
    /// ```
    pub fn connections(&self) -> Connections {
        let mut meters = Vec::new();
        let mut start = 0;
        loop {
            // Grown outside the lock.
            meters.reserve(CHUNK);
            let slots = self.central.slots();
            let found = slots.meters(start..start + CHUNK);
            meters.extend(found.map(|(id, meter)| (id, Arc::clone(meter))));
            start += CHUNK;
            if start >= slots.len() {
                break;
            }
        }
        let now = self.central.start.elapsed();
        let read = |(id, meter): &(ConnectionId, Arc<ConnectionMeter>)| {
            ConnectionStatus::read(*id, meter, now)
        };
        Connections(meters.iter().map(read).collect())
    }
}

impl Connection {
    /// Ends a turn: settles what it has come to, and publishes what it has brought.
    pub(super) fn end_turn(&mut self, shared: &mut Shared) -> Fate {
        let fate = self.settle(shared);
        // benches/trace.rs compares with a build that publishes nothing.
        if cfg!(websockex_no_stats) {
            return fate;
        }
        let turn = &mut shared.turn;
        turn.tally.outbound.socket_bytes += std::mem::take(&mut shared.spare.written);
        let life = &mut self.core.session.life;
        let meter = &*self.core.meter;
        meter.state.set(ConnectionState::of(life.stage) as u32);
        let now = turn.now.nanoseconds();
        meter.publish(
            &shared.central.meter,
            &mut turn.tally,
            now,
            (life.queued + life.waiting_bytes()) as u64,
        );
        let before = turn.now;
        turn.end_handling(meter, life.id, life.callback);
        // What a handler has kept the others waiting is no part of its own timers' time.
        life.timers.postpone(before, turn.now);
        fate
    }
}

impl Turn {
    /// A handler is at work in this connection's turn: its time counts from the turn's beginning, which
    /// asks the clock no more than without.
    #[inline]
    pub(super) fn begin_handling(&mut self) {
        if !self.handling {
            self.handling = true;
            self.lap = self.now;
        }
    }

    /// The turn of a connection is over, and with it the work of its handler, if that had any. What it
    /// has kept the others waiting is no part of their time.
    #[inline]
    pub(super) fn end_handling(&mut self, meter: &ConnectionMeter, id: u64, callback: Callback) {
        let now = self.clock.now();
        if std::mem::take(&mut self.handling) {
            let took = now.nanoseconds().saturating_sub(self.lap.nanoseconds());
            let reactor = &self.central.meter;
            reactor.handled(meter, id, callback, now.nanoseconds(), took);
        }
        (self.lap, self.now) = (now, now);
    }

    /// A message was accepted for a connection that has ended since.
    pub(super) fn lose(&mut self, id: ConnectionId, level: Level, message: &OwnedMessage) {
        self.central.meter.lost();
        if !level.records(Kind::SendDropped) {
            return;
        }
        let (opcode, length) = match message {
            OwnedMessage::Text(text) => (OpCode::Text, text.len()),
            OwnedMessage::Binary(bytes) => (OpCode::Binary, bytes.len()),
        };
        let (now, error) = (self.now.nanoseconds(), SendError::Gone);
        let mut event = Event::send_dropped(now, id.0, opcode as u8, length as u64, error);
        self.trace.record(&mut event, None);
    }

    /// A turn of the loop is over, which had so many events.
    pub(super) fn end(&mut self, events: u64) {
        let busy = self.lap.since(self.began);
        let busy = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.central.meter.turn(events, busy);
    }
}

/// What the statistics call a reason.
pub(super) fn cause(reason: &DisconnectReason) -> Cause {
    match reason {
        DisconnectReason::Remote { .. } => Cause::ClosedByPeer,
        DisconnectReason::Dropped => Cause::Dropped,
        DisconnectReason::Silent { .. } => Cause::Timeout,
        DisconnectReason::ConnectFailed(error) | DisconnectReason::Failed(error) => match error {
            Error::Resolve { .. } => Cause::Resolve,
            Error::Connect { .. } => Cause::Tcp,
            Error::Tls(_) => Cause::Tls,
            Error::Proxy(_) => Cause::Refused,
            Error::Handshake(_) => Cause::Refused,
            Error::Timeout { .. } => Cause::Timeout,
            Error::Protocol(_) => Cause::Protocol,
            Error::Io(_) => Cause::Io,
            _ => Cause::Other,
        },
        _ => Cause::Other,
    }
}
