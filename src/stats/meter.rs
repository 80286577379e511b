//! What the reactor publishes. One thread writes, so a counter is advanced by a plain load and a
//! plain store: no locked instruction, no lock, and readers never hold the writer up. Each number is
//! exact; two of them read together may be a turn apart.

use super::histogram::SharedHistogram;
use super::snapshot::{
    ConnectionStats, FrameCounts, ReactorStats, ReconnectCounts, RoundTrips, SlowHandler,
    StageTimes, Traffic,
};
use super::tally::{Flow, Mixed, Step, Tally};
use crate::protocol::url::Url;
use crate::trace::kind::Callback;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A number that one thread writes and all may read.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// For the one writer.
    #[inline]
    pub(crate) fn add(&self, number: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(number), Relaxed);
    }

    /// For the one writer.
    #[inline]
    pub(crate) fn set(&self, number: u64) {
        self.0.store(number, Relaxed);
    }

    /// For the one writer: keeps the larger of both.
    #[inline]
    pub(crate) fn raise(&self, number: u64) {
        if number > self.value() {
            self.set(number);
        }
    }

    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// For the one writer: as [`set`](Self::set), and whoever reads it with [`seen`](Self::seen) also sees what
    /// was written before.
    fn announce(&self, number: u64) {
        self.0.store(number, Release);
    }

    /// What was announced, before anything that is read later.
    fn seen(&self) -> u64 {
        self.0.load(Acquire)
    }

    fn time(&self) -> Option<Duration> {
        match self.value() {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }
}

/// A small number that one thread writes and all may read.
#[derive(Default)]
pub(crate) struct Small(AtomicU32);

impl Small {
    /// For the one writer.
    pub(crate) fn set(&self, number: u32) {
        self.0.store(number, Relaxed);
    }

    /// For the one writer.
    fn add(&self, number: u32) {
        self.set(self.value().wrapping_add(number));
    }

    pub(crate) fn value(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// A time that one thread writes and all may read: microseconds, rounded up, 71 minutes at most.
#[derive(Default)]
struct Micros(AtomicU32);

impl Micros {
    fn set(&self, nanoseconds: u64) {
        let micros = u32::try_from(nanoseconds.div_ceil(1000)).unwrap_or(u32::MAX);
        self.0.store(micros, Relaxed);
    }

    fn time(&self) -> Option<Duration> {
        match self.0.load(Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(u64::from(micros))),
        }
    }
}

/// Why a connection has to be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cause {
    ClosedByPeer,
    Dropped,
    Resolve,
    Tcp,
    Tls,
    Refused,
    Timeout,
    Protocol,
    Io,
    Other,
}

impl Cause {
    pub(crate) const ALL: [Cause; 10] = [
        Cause::ClosedByPeer,
        Cause::Dropped,
        Cause::Resolve,
        Cause::Tcp,
        Cause::Tls,
        Cause::Refused,
        Cause::Timeout,
        Cause::Protocol,
        Cause::Io,
        Cause::Other,
    ];
}

/// Opcodes that RFC 6455 defines; frames with others fail their connection.
const OPCODES: [usize; 6] = [0, 1, 2, 8, 9, 10];

#[derive(Default)]
struct FlowMeter {
    frames: [Counter; OPCODES.len()],
    frame_bytes: Counter,
    messages: Counter,
    message_bytes: Counter,
}

/// Where [`OPCODES`] has text and binary.
const TEXT: usize = 1;
const BINARY: usize = 2;

impl FlowMeter {
    /// Adds the frames and messages; the bytes through the socket are counted apart.
    #[inline]
    fn add(&self, flow: &Flow) {
        let whole = &flow.whole;
        self.frames[TEXT].add(u64::from(whole.text));
        if whole.binary > 0 {
            self.frames[BINARY].add(u64::from(whole.binary));
        }
        self.messages.add(whole.messages());
        self.message_bytes.add(whole.bytes);
        self.frame_bytes.add(whole.bytes);
        if flow.mixed {
            self.add_rest(&flow.rest);
        }
    }

    fn add_rest(&self, rest: &Mixed) {
        self.messages.add(rest.messages);
        self.message_bytes.add(rest.message_bytes);
        self.frame_bytes.add(rest.frame_bytes);
        for (counter, opcode) in self.frames.iter().zip(OPCODES) {
            let frames = rest.frames[opcode];
            if frames > 0 {
                counter.add(u64::from(frames));
            }
        }
    }

    /// Without the bytes through the socket.
    fn snapshot(&self) -> Traffic {
        let [continuation, text, binary, close, ping, pong] =
            [0, 1, 2, 3, 4, 5].map(|index: usize| self.frames[index].value());
        Traffic {
            messages: self.messages.value(),
            message_bytes: self.message_bytes.value(),
            frame_bytes: self.frame_bytes.value(),
            socket_bytes: 0,
            frames: FrameCounts {
                continuation,
                text,
                binary,
                close,
                ping,
                pong,
            },
        }
    }
}

/// What happens seldom, or never, to a connection; of the reactor as a whole it is kept likewise.
#[derive(Default)]
struct Rare {
    drops: Counter,
    reconnects: [Counter; Cause::ALL.len()],
    queued_high: Counter,
    round_trips: Counter,
    round_trip_sum: Counter,
    round_trip_last: Counter,
    /// The largest difference to [`u64::MAX`], so that 0 stands for none.
    round_trip_least: Counter,
    round_trip_most: Counter,
}

impl Rare {
    fn add(&self, tally: &Tally) {
        if let Some(cause) = tally.reconnect {
            self.reconnects[cause as usize].add(1);
        }
        if tally.drops > 0 {
            self.drops.add(tally.drops);
        }
        if let Some(round_trip) = tally.round_trip_ns {
            for (counter, value) in self.with_round_trip(round_trip) {
                counter.announce(value);
            }
        }
    }

    /// What the counters become with another round trip, in the order in which they must: who sees that it is
    /// counted sees the rest of it, too.
    fn with_round_trip(&self, round_trip: u64) -> [(&Counter, u64); 5] {
        let least = self.round_trip_least.value();
        let most = self.round_trip_most.value();
        let sum = self.round_trip_sum.value().wrapping_add(round_trip);
        [
            (&self.round_trip_sum, sum),
            (&self.round_trip_last, round_trip),
            (&self.round_trip_least, least.max(u64::MAX - round_trip)),
            (&self.round_trip_most, most.max(round_trip)),
            (&self.round_trips, self.round_trips.value() + 1),
        ]
    }

    fn round_trips(&self) -> Option<RoundTrips> {
        let nanoseconds = Duration::from_nanos;
        let count = self.round_trips.seen();
        let mean = self.round_trip_sum.value().checked_div(count)?;
        let least = u64::MAX - self.round_trip_least.value();
        let most = self.round_trip_most.value();
        Some(RoundTrips {
            count,
            last: nanoseconds(self.round_trip_last.value()),
            // The sum may hold more of them than were counted when this began.
            mean: nanoseconds(mean.max(least).min(most)),
            least: nanoseconds(least),
            most: nanoseconds(most),
        })
    }

    fn reconnects(&self) -> ReconnectCounts {
        let [
            closed_by_peer,
            dropped,
            resolve,
            tcp,
            tls,
            refused,
            timeout,
            protocol,
            io,
            other,
        ] = Cause::ALL.map(|cause| self.reconnects[cause as usize].value());
        ReconnectCounts {
            closed_by_peer,
            dropped,
            resolve,
            tcp,
            tls,
            refused,
            timeout,
            protocol,
            io,
            other,
        }
    }
}

/// Made when there is first something in it: a connection that nothing has happened to pays a
/// pointer for it.
struct Seldom<T>(OnceLock<Box<T>>);

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> Seldom<T> {
    fn make(&self) -> &T {
        self.0.get_or_init(Box::default)
    }

    fn get(&self) -> Option<&T> {
        self.0.get().map(|boxed| &**boxed)
    }
}

/// What there is to count of a connection once frames flow, or something out of the ordinary happens:
/// nearly always that frames come in, so these counters are not boxed once more.
#[derive(Default)]
struct Busy {
    inbound: FlowMeter,
    outbound: Seldom<FlowMeter>,
    rare: Seldom<Rare>,
}

/// What one connection publishes. There are very many, so it is small; and what changes with every
/// turn stands together in front.
#[repr(C)]
pub(crate) struct ConnectionMeter {
    /// How far the connection has come; the reactor's own number.
    pub(crate) state: Small,
    attempts: Small,
    queued: Counter,
    last_data: Counter,
    longest_handler: Counter,
    /// Through the socket. Of a connection that has seen no frame yet there is nothing else.
    received_bytes: Counter,
    sent_bytes: Counter,
    busy: Seldom<Busy>,
    opened_at: Counter,
    /// When the stage of connecting under way began, and when all of them did.
    stage_since: Counter,
    attempt_since: Counter,
    /// How long each step took, the last time it was taken.
    stage_times: [Micros; Step::ALL.len()],
    opens: Small,
    disconnects: Small,
    pub(crate) name: Option<Arc<str>>,
    /// Whom the connection is to. Behind a lock because a handler may ask for another; nobody else
    /// ever waits for it.
    url: Mutex<Url>,
}

impl ConnectionMeter {
    pub(crate) fn new(name: Option<Arc<str>>, url: Url) -> Self {
        Self {
            state: Small::default(),
            attempts: Small::default(),
            queued: Counter::new(),
            last_data: Counter::new(),
            longest_handler: Counter::new(),
            received_bytes: Counter::new(),
            sent_bytes: Counter::new(),
            busy: Seldom::default(),
            opened_at: Counter::new(),
            stage_since: Counter::new(),
            attempt_since: Counter::new(),
            stage_times: Default::default(),
            opens: Small::default(),
            disconnects: Small::default(),
            name,
            url: Mutex::new(url),
        }
    }

    /// From now on it is another server.
    pub(crate) fn set_url(&self, url: Url) {
        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// Host and port, as a `Host` header has them.
    pub(crate) fn server(&self) -> String {
        let url = self.url.lock().unwrap_or_else(PoisonError::into_inner);
        url.host_header().to_string()
    }

    /// Publishes a turn of this connection, here and in the reactor's meter, and empties the tally.
    #[inline]
    pub(crate) fn publish(
        &self,
        reactor: &ReactorMeter,
        tally: &mut Tally,
        now_ns: u64,
        queued: u64,
    ) {
        let Tally {
            inbound, outbound, ..
        } = &*tally;
        if inbound.socket_bytes > 0 {
            self.received_bytes.add(inbound.socket_bytes);
            reactor.received_bytes.add(inbound.socket_bytes);
        }
        if inbound.has_frames() {
            self.busy.make().inbound.add(inbound);
            reactor.inbound.add(inbound);
            if inbound.has_messages() {
                self.last_data.set(now_ns);
                reactor.last_data.set(now_ns);
            }
        }
        if outbound.socket_bytes > 0 {
            self.sent_bytes.add(outbound.socket_bytes);
            reactor.sent_bytes.add(outbound.socket_bytes);
        }
        // Frames written in this turn may reach the socket in a later one.
        if outbound.has_frames() {
            self.busy.make().outbound.make().add(outbound);
            reactor.outbound.add(outbound);
        }
        if queued != self.queued.value() {
            self.queued.set(queued);
            self.busy.make().rare.make().queued_high.raise(queued);
            reactor.rare.queued_high.raise(queued);
        }
        if tally.steps != 0 {
            self.take_steps(reactor, tally, now_ns);
        }
        if tally.has_rare() {
            let disconnects = tally.disconnects;
            self.disconnects
                .add(u32::try_from(disconnects).unwrap_or(u32::MAX));
            reactor.disconnects.add(disconnects);
            // Most end once, for good, and have nothing else to tell.
            if !tally.only_ends() {
                self.busy.make().rare.make().add(tally);
                reactor.rare.add(tally);
            }
            if let Some(round_trip) = tally.round_trip_ns {
                reactor.round_trips.record(round_trip);
            }
        }
        tally.clear();
    }

    #[cold]
    fn take_steps(&self, reactor: &ReactorMeter, tally: &Tally, now_ns: u64) {
        let (began, opened) = (tally.took(Step::Began), tally.took(Step::Opened));
        self.attempts.add(u32::from(began));
        self.opens.add(u32::from(opened));
        reactor.attempts.add(u64::from(began));
        reactor.opens.add(u64::from(opened));
        for step in Step::ALL.into_iter().filter(|step| tally.took(*step)) {
            if step == Step::Began {
                self.attempt_since.set(now_ns);
            } else {
                let took = now_ns - self.stage_since.value();
                self.stage_times[step as usize].set(took);
                reactor.stages[step as usize].record(took);
            }
            self.stage_since.set(now_ns);
        }
        if opened {
            let took = now_ns - self.attempt_since.value();
            self.stage_times[Step::Began as usize].set(took);
            reactor.stages[Step::Began as usize].record(took);
            self.opened_at.set(now_ns);
        }
    }

    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued.value()
    }

    pub(crate) fn snapshot(&self) -> ConnectionStats {
        let times = &self.stage_times;
        let nanoseconds = Duration::from_nanos;
        let nothing = Rare::default();
        let busy = self.busy.get();
        let rare = busy.and_then(|busy| busy.rare.get());
        let rare = rare.unwrap_or(&nothing);
        ConnectionStats {
            received: traffic(&self.received_bytes, busy.map(|busy| &busy.inbound)),
            sent: traffic(&self.sent_bytes, busy.and_then(|busy| busy.outbound.get())),
            attempts: u64::from(self.attempts.value()),
            opens: u64::from(self.opens.value()),
            disconnects: u64::from(self.disconnects.value()),
            reconnects: rare.reconnects(),
            drops: rare.drops.value(),
            queued_bytes: self.queued.value(),
            queued_bytes_high: rare.queued_high.value(),
            last_data: self.last_data.time(),
            opened_at: self.opened_at.time(),
            longest_handler: nanoseconds(self.longest_handler.value()),
            stages: StageTimes {
                admission: None,
                resolve: times[Step::Resolved as usize].time(),
                tcp: times[Step::TcpConnected as usize].time(),
                proxy: times[Step::ProxyConnected as usize].time(),
                tls: times[Step::TlsEstablished as usize].time(),
                upgrade: times[Step::Opened as usize].time(),
                total: times[Step::Began as usize].time(),
            },
            round_trips: rare.round_trips(),
        }
    }
}

fn traffic(bytes: &Counter, rest: Option<&FlowMeter>) -> Traffic {
    let rest = rest.map(FlowMeter::snapshot);
    Traffic {
        socket_bytes: bytes.value(),
        ..rest.unwrap_or_default()
    }
}

/// What a reactor publishes.
#[derive(Default)]
pub(crate) struct ReactorMeter {
    received_bytes: Counter,
    sent_bytes: Counter,
    inbound: FlowMeter,
    outbound: FlowMeter,
    last_data: Counter,
    attempts: Counter,
    opens: Counter,
    disconnects: Counter,
    rare: Rare,
    stages: [SharedHistogram; Step::ALL.len()],
    round_trips: SharedHistogram,
    turns: Counter,
    events_per_turn: SharedHistogram,
    /// From the end of the poll to the end of the turn.
    busy: SharedHistogram,
    handled: SharedHistogram,
    slowest_ns: Counter,
    slowest: Mutex<Option<SlowHandler>>,
}

impl ReactorMeter {
    /// Something was dropped that belongs to no connection any more.
    pub(crate) fn lost(&self) {
        self.rare.drops.add(1);
    }

    /// A turn of the loop is over.
    pub(crate) fn turn(&self, events: u64, busy_ns: u64) {
        self.turns.add(1);
        self.events_per_turn.record(events);
        self.busy.record(busy_ns);
    }

    /// A handler was at work, in a turn of its connection that took so long.
    #[inline]
    pub(crate) fn handled(
        &self,
        meter: &ConnectionMeter,
        id: u64,
        callback: Callback,
        at_ns: u64,
        took_ns: u64,
    ) {
        self.handled.record(took_ns);
        meter.longest_handler.raise(took_ns);
        if took_ns > self.slowest_ns.value() {
            self.slowest_ns.set(took_ns);
            self.name_slowest(SlowHandler {
                connection: id,
                name: meter.name.clone(),
                callback,
                at: Duration::from_nanos(at_ns),
                took: Duration::from_nanos(took_ns),
            });
        }
    }

    #[cold]
    fn name_slowest(&self, handler: SlowHandler) {
        // Only a reader can hold it, for as long as it takes to copy.
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = Some(handler);
    }

    /// All but what only the reactor knows.
    pub(crate) fn snapshot(&self) -> ReactorStats {
        let stage = |step: Step| self.stages[step as usize].snapshot();
        // On its own, for the lock to be held no longer: the reactor may be waiting for it.
        let slowest_handler = self
            .slowest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        ReactorStats {
            uptime: Duration::ZERO,
            connections: 0,
            open: 0,
            received: traffic(&self.received_bytes, Some(&self.inbound)),
            sent: traffic(&self.sent_bytes, Some(&self.outbound)),
            attempts: self.attempts.value(),
            opens: self.opens.value(),
            disconnects: self.disconnects.value(),
            reconnects: self.rare.reconnects(),
            drops: self.rare.drops.value(),
            queued_bytes: 0,
            queued_commands: 0,
            queued_bytes_high: self.rare.queued_high.value(),
            last_data: self.last_data.time(),
            resolve_ns: stage(Step::Resolved),
            tcp_ns: stage(Step::TcpConnected),
            proxy_ns: stage(Step::ProxyConnected),
            tls_ns: stage(Step::TlsEstablished),
            upgrade_ns: stage(Step::Opened),
            connect_ns: stage(Step::Began),
            round_trip_ns: self.round_trips.snapshot(),
            turns: self.turns.value(),
            events_per_turn: self.events_per_turn.snapshot(),
            busy_ns: self.busy.snapshot(),
            handler_ns: self.handled.snapshot(),
            slowest_handler,
            sinks: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::OpCode;
    use crate::trace::kind::Kind;

    fn meters() -> (ConnectionMeter, ReactorMeter, Tally) {
        (
            ConnectionMeter::new(
                Some("feed".into()),
                Url::parse("ws://host").expect("it is one"),
            ),
            ReactorMeter::default(),
            Tally::default(),
        )
    }

    #[test]
    fn a_turn_is_counted_here_and_there_and_once() {
        let (connection, reactor, mut tally) = meters();
        for now in [5, 6] {
            tally.inbound.socket_bytes = 100;
            tally.inbound.frame(1, 30);
            tally.inbound.message(50);
            tally.inbound.whole(OpCode::Binary, 10);
            tally.inbound.frame(9, 2);
            tally.outbound.frame(10, 2);
            tally.drops = 1;
            connection.publish(&reactor, &mut tally, now, 7 * now);
            connection.publish(&reactor, &mut tally, now + 10, 3);
        }
        let (own, all) = (connection.snapshot(), reactor.snapshot());
        assert_eq!((own.received, own.sent), (all.received, all.sent));
        assert_eq!(own.received.messages, 4);
        assert_eq!(
            (own.received.message_bytes, own.received.frame_bytes),
            (120, 84)
        );
        assert_eq!(own.received.socket_bytes, 200);
        let frames = own.received.frames;
        assert_eq!((frames.text, frames.binary, frames.ping), (2, 2, 2));
        assert_eq!((own.sent.frames.pong, own.sent.messages), (2, 0));
        assert_eq!((own.drops, all.drops), (2, 2));
        assert_eq!((own.queued_bytes, own.queued_bytes_high), (3, 42));
        assert_eq!(own.last_data, Some(Duration::from_nanos(6)));
    }

    /// Also where nothing out of the ordinary has the whole tally emptied.
    #[test]
    fn nothing_of_a_turn_is_left_for_the_next() {
        let (connection, reactor, mut tally) = meters();
        tally.inbound.socket_bytes = 100;
        tally.outbound.socket_bytes = 50;
        for flow in [&mut tally.inbound, &mut tally.outbound] {
            flow.frame(1, 30);
            flow.message(50);
            flow.whole(OpCode::Text, 10);
        }
        for now in [5, 6, 7] {
            connection.publish(&reactor, &mut tally, now, 0);
        }
        let (own, all) = (connection.snapshot(), reactor.snapshot());
        assert_eq!((own.received, own.sent), (all.received, all.sent));
        assert_eq!((own.received.messages, own.sent.messages), (2, 2));
        assert_eq!(
            (own.received.frame_bytes, own.received.frames.text),
            (40, 2)
        );
        assert_eq!(
            (own.received.socket_bytes, own.sent.socket_bytes),
            (100, 50)
        );
        assert_eq!(own.last_data, Some(Duration::from_nanos(5)));
    }

    #[test]
    fn a_connection_that_nothing_happens_to_is_small() {
        assert!(size_of::<ConnectionMeter>() <= 152);
        let (connection, reactor, mut tally) = meters();
        tally.outbound.socket_bytes = 200;
        tally.inbound.socket_bytes = 150;
        tally.note(Kind::Connected);
        connection.publish(&reactor, &mut tally, 1, 0);
        assert!(connection.busy.get().is_none());
        let stats = connection.snapshot();
        assert_eq!(
            (stats.sent.socket_bytes, stats.received.socket_bytes),
            (200, 150)
        );
        assert_eq!(stats.sent, reactor.snapshot().sent);
    }

    #[test]
    fn stages_are_timed() {
        let (connection, reactor, mut tally) = meters();
        for (kinds, now) in [
            (&[Kind::Connecting][..], 100_000),
            (&[Kind::Resolved], 130_000),
            (&[Kind::TcpConnected, Kind::TcpConnecting], 170_000),
            (&[Kind::TlsEstablished, Kind::Upgrading], 270_000),
            (&[Kind::Connected], 500_000),
            // The way again fails halfway, and then takes one turn.
            (&[Kind::Reconnecting, Kind::Resolved], 1_000_000),
            (&[Kind::Reconnecting], 2_000_000),
            (&[Kind::TcpConnected, Kind::Reconnected], 2_008_999),
        ] {
            for kind in kinds {
                tally.note(*kind);
            }
            connection.publish(&reactor, &mut tally, now, 0);
        }
        let (own, all) = (connection.snapshot(), reactor.snapshot());
        let micros = |time: Option<Duration>| time.map(|time| time.as_micros());
        assert_eq!((own.attempts, own.opens), (3, 2));
        assert_eq!(micros(own.stages.tcp), Some(9));
        assert_eq!(micros(own.stages.tls), Some(100));
        assert_eq!(micros(own.stages.total), Some(9));
        assert_eq!(micros(own.opened_at), Some(2008));
        assert_eq!(
            (all.connect_ns.count(), all.connect_ns.largest()),
            (2, 400_000)
        );
        assert_eq!(
            (all.resolve_ns.count(), all.resolve_ns.largest()),
            (2, 30_000)
        );
        assert_eq!(all.upgrade_ns.largest(), 230_000);
    }

    #[test]
    fn a_round_trip_is_never_seen_in_part() {
        let rare = Rare::default();
        let seen = || {
            let trips = rare.round_trips()?;
            let times = [trips.last, trips.mean, trips.least, trips.most];
            Some((trips.count, times.map(|time| time.as_nanos())))
        };
        // A reader that comes between two stores.
        for (counter, value) in rare.with_round_trip(700) {
            assert_eq!(seen(), None);
            counter.announce(value);
        }
        assert_eq!(seen(), Some((1, [700; 4])));
        for (counter, value) in rare.with_round_trip(900) {
            let (count, [last, mean, least, most]) = seen().unwrap();
            assert_eq!((count, least), (1, 700));
            assert!([700, 900].contains(&last) && (700..=900).contains(&mean));
            assert!([700, 900].contains(&most) && mean <= most);
            counter.announce(value);
        }
        assert_eq!(seen(), Some((2, [900, 800, 700, 900])));
    }

    #[test]
    fn losses_round_trips_and_slow_turns_are_told_apart() {
        let (connection, reactor, mut tally) = meters();
        tally.disconnected(Cause::Refused, true);
        connection.publish(&reactor, &mut tally, 1, 0);
        tally.disconnected(Cause::Dropped, false);
        connection.publish(&reactor, &mut tally, 2, 0);
        for nanoseconds in [30, 10, 20] {
            tally.round_trip(Duration::from_nanos(nanoseconds));
            connection.publish(&reactor, &mut tally, 3, 0);
        }
        reactor.handled(&connection, 7, Callback::OnMessage, 50, 1000);
        reactor.handled(&connection, 7, Callback::OnPing, 60, 900);
        let (own, all) = (connection.snapshot(), reactor.snapshot());
        assert_eq!((own.disconnects, own.reconnects.total()), (2, 1));
        assert_eq!((own.reconnects.refused, all.reconnects.refused), (1, 1));
        let trips = own.round_trips.expect("there were some");
        let [last, mean, least, most] =
            [trips.last, trips.mean, trips.least, trips.most].map(|time| time.as_nanos());
        assert_eq!((trips.count, last, mean, least, most), (3, 20, 20, 10, 30));
        assert_eq!(all.round_trip_ns.count(), 3);
        let slowest = all.slowest_handler.expect("there was one");
        assert_eq!(
            (slowest.connection, slowest.callback),
            (7, Callback::OnMessage)
        );
        assert_eq!(slowest.name.as_deref(), Some("feed"));
        assert_eq!(own.longest_handler, Duration::from_micros(1));
    }
}
