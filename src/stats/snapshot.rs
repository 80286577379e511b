//! What is read: plain numbers of one moment.

use super::histogram::Histogram;
use super::prometheus::Prometheus;
use crate::trace::SinkStats;
use crate::trace::kind::Callback;
use std::sync::Arc;
use std::time::Duration;

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Whole messages.
    pub messages: u64,
    /// Bytes of these messages, as the application sees them: inflated.
    pub message_bytes: u64,
    /// Payload bytes of all frames, as on the wire: deflated, and those of control frames.
    pub frame_bytes: u64,
    /// Bytes through the socket: frame headers, the opening handshake and TLS included.
    pub socket_bytes: u64,
    /// Frames by opcode.
    pub frames: FrameCounts,
}

/// Frames by opcode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are those of RFC 6455, section 5.2")]
pub struct FrameCounts {
    pub continuation: u64,
    pub text: u64,
    pub binary: u64,
    pub close: u64,
    pub ping: u64,
    pub pong: u64,
}

/// How often it was decided to connect again, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReconnectCounts {
    /// The peer sent a Close frame.
    pub closed_by_peer: u64,
    /// The peer ended the TCP connection without one.
    pub dropped: u64,
    /// The host's name was not found.
    pub resolve: u64,
    /// No TCP connection came about.
    pub tcp: u64,
    /// TLS failed.
    pub tls: u64,
    /// The opening handshake failed: a refusal, or an answer that is none.
    pub refused: u64,
    /// Something took too long.
    pub timeout: u64,
    /// The peer broke the protocol or a limit.
    pub protocol: u64,
    /// The socket failed.
    pub io: u64,
    /// Anything else.
    pub other: u64,
}

impl ReconnectCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("closed_by_peer", self.closed_by_peer),
            ("dropped", self.dropped),
            ("resolve", self.resolve),
            ("tcp", self.tcp),
            ("tls", self.tls),
            ("refused", self.refused),
            ("timeout", self.timeout),
            ("protocol", self.protocol),
            ("io", self.io),
            ("other", self.other),
        ]
    }
}

impl FrameCounts {
    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("continuation", self.continuation),
            ("text", self.text),
            ("binary", self.binary),
            ("close", self.close),
            ("ping", self.ping),
            ("pong", self.pong),
        ]
    }
}

/// How long the stages of connecting took. Of an attempt: `None` for those that it did not come to,
/// or had no need of. In the statistics of a connection: when they were last taken, in whichever
/// attempt that was, rounded up to microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageTimes {
    /// Waiting to be admitted (see [`Admission`](crate::Admission)), before the attempt began: no part
    /// of `total`, and told of attempts only, not kept in the statistics.
    pub admission: Option<Duration>,
    /// Looking up the name.
    pub resolve: Option<Duration>,
    /// The TCP handshake, with all addresses that were tried before it succeeded.
    pub tcp: Option<Duration>,
    /// Asking a proxy for the way.
    pub proxy: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// The opening handshake of RFC 6455.
    pub upgrade: Option<Duration>,
    /// All of them together, redirects included, if the attempt has succeeded.
    pub total: Option<Duration>,
}

/// How long pings took to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoundTrips {
    /// How many were.
    pub count: u64,
    /// The last one.
    pub last: Duration,
    /// Their mean.
    pub mean: Duration,
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
}

/// The numbers of one connection, over all its reconnects.
///
/// Each is exact; two of them may be a turn of the connection apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// From the peer.
    pub received: Traffic,
    /// To the peer.
    pub sent: Traffic,
    /// Attempts to connect.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub opens: u64,
    /// How often it was lost, or an attempt failed.
    pub disconnects: u64,
    /// How often it was decided to connect again.
    pub reconnects: ReconnectCounts,
    /// Messages that were not sent: the queue was full, or the connection no longer open.
    pub drops: u64,
    /// Bytes that wait for the socket.
    pub queued_bytes: u64,
    /// The most that ever waited at the end of a turn.
    pub queued_bytes_high: u64,
    /// When the last message arrived, since the reactor's start.
    pub last_data: Option<Duration>,
    /// When it last opened, since the reactor's start.
    pub opened_at: Option<Duration>,
    /// The longest that its handler has held up the others at a time; see [`SlowHandler::took`].
    pub longest_handler: Duration,
    /// The way to an open connection.
    pub stages: StageTimes,
    /// Pings and their answers.
    pub round_trips: Option<RoundTrips>,
}

/// The handler that has held up all others the longest at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowHandler {
    /// The connection's id, as in trace events.
    pub connection: u64,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// The callback that ran then, the last of several. `on_message` stands for a run of messages that
    /// were read together, with the `on_batch_end` behind them.
    pub callback: Callback,
    /// When it ended, since the reactor's start.
    pub at: Duration,
    /// The whole turn of the connection, in which the handler was called: reading, decrypting and
    /// decoding, the callbacks, and writing what they sent.
    pub took: Duration,
}

/// The numbers of a reactor, over all its connections, those that have ended included.
///
/// Each is exact; two of them may be a turn apart. Histograms whose names end in `_ns` count
/// nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReactorStats {
    /// Time since the reactor's start.
    pub uptime: Duration,
    /// Connections that there are now: connecting, open, or waiting for their next attempt.
    pub connections: u64,
    /// Those of them that are open.
    pub open: u64,
    /// From the peers.
    pub received: Traffic,
    /// To the peers.
    pub sent: Traffic,
    /// Attempts to connect.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub opens: u64,
    /// How often a connection was lost or an attempt failed.
    pub disconnects: u64,
    /// How often it was decided to connect again.
    pub reconnects: ReconnectCounts,
    /// Messages that were not sent: the queue was full, or the connection no longer open.
    pub drops: u64,
    /// Bytes that wait for the sockets, of all connections.
    pub queued_bytes: u64,
    /// Commands of other threads that wait for the reactor.
    pub queued_commands: u64,
    /// The most bytes that ever waited on one connection.
    pub queued_bytes_high: u64,
    /// When the last message arrived, since the reactor's start.
    pub last_data: Option<Duration>,
    /// Looking up names.
    pub resolve_ns: Histogram,
    /// TCP handshakes.
    pub tcp_ns: Histogram,
    /// Ways through proxies.
    pub proxy_ns: Histogram,
    /// TLS handshakes.
    pub tls_ns: Histogram,
    /// Opening handshakes of RFC 6455.
    pub upgrade_ns: Histogram,
    /// Whole ways to open connections.
    pub connect_ns: Histogram,
    /// From pings to their pongs.
    pub round_trip_ns: Histogram,
    /// Turns of the loop.
    pub turns: u64,
    /// Sockets that had news, per turn of the loop.
    pub events_per_turn: Histogram,
    /// From the end of the wait for news to the end of the turn: the time in which no news is seen.
    pub busy_ns: Histogram,
    /// How long handlers were at work at a time, as [`SlowHandler::took`] says.
    pub handler_ns: Histogram,
    /// The longest of these times.
    pub slowest_handler: Option<SlowHandler>,
    /// Where trace events go, in the order in which the sinks were added.
    pub sinks: Vec<SinkStats>,
}

impl ReactorStats {
    /// The numbers in the text format that Prometheus scrapes; serve it as
    /// `text/plain; version=0.0.4`. Those of several reactors: [`prometheus`](super::prometheus()).
    #[must_use]
    pub fn prometheus(&self) -> Prometheus<'_> {
        Prometheus::new(self)
    }
}
