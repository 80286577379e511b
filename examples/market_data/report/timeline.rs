//! The lives of connections, from the reactor's trace: a lane each, with the stages of connecting,
//! the time it was open, and what came after.

use super::plot::round_step;
use super::{BLUE, ORANGE, RED, escaped};
use std::collections::BTreeMap;
use std::fmt::Write;
use websockex::trace::{Event, Kind, Ring, render};

/// More lanes than this nobody looks at.
const LANES: usize = 40;
const LANE_HEIGHT: f64 = 14.0;
const WIDTH: f64 = 820.0;
const LEFT: f64 = 64.0;
/// Half a label of the times stands there.
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 24.0;

/// What a connection does for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Resolving,
    Tcp,
    Tls,
    Upgrading,
    Open,
    Closing,
    Waiting,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Resolving,
        Self::Tcp,
        Self::Tls,
        Self::Upgrading,
        Self::Open,
        Self::Closing,
        Self::Waiting,
    ];

    fn look(self) -> (&'static str, &'static str) {
        match self {
            Self::Resolving => ("looking up", "#999999"),
            Self::Tcp => ("tcp", ORANGE),
            Self::Tls => ("tls", "#cc79a7"),
            Self::Upgrading => ("upgrade", "#f0e442"),
            Self::Open => ("open", BLUE),
            Self::Closing => ("closing", "#009e73"),
            Self::Waiting => ("waiting", "#dddddd"),
        }
    }

    /// What begins with an event; `None` if nothing does, `Some(None)` if something ends.
    fn after(kind: Kind) -> Option<Option<Self>> {
        Some(Some(match kind {
            Kind::Connecting | Kind::Reconnecting => Self::Resolving,
            Kind::TcpConnecting => Self::Tcp,
            Kind::TcpConnected => Self::Tls,
            Kind::Upgrading => Self::Upgrading,
            Kind::Connected | Kind::Reconnected => Self::Open,
            Kind::ClosingLocal | Kind::ClosingError | Kind::CloseReceived => Self::Closing,
            Kind::ReconnectScheduled => Self::Waiting,
            Kind::ConnectFailed | Kind::RemoteDropped | Kind::ClosedCleanly => return Some(None),
            Kind::ForcedClosed | Kind::Terminated => return Some(None),
            _ => return None,
        }))
    }
}

struct Lane<'a> {
    connection: u64,
    events: Vec<&'a Event>,
    /// What went wrong, which is what people look for.
    troubles: usize,
}

impl Lane<'_> {
    /// Phases with their beginnings and ends.
    fn phases(&self, end: u64) -> Vec<(Phase, u64, u64)> {
        let mut phases = Vec::new();
        let mut current: Option<(Phase, u64)> = None;
        let mut encrypted = false;
        for event in &self.events {
            match event.kind() {
                Kind::TcpConnected => encrypted = false,
                Kind::TlsEstablished => encrypted = true,
                // Without TLS the opening handshake comes at once, and what was taken for the other one is none.
                Kind::Upgrading if !encrypted => {
                    current = current.filter(|(phase, _)| *phase != Phase::Tls);
                }
                _ => {}
            }
            let Some(next) = Phase::after(event.kind()) else {
                continue;
            };
            if let Some((phase, since)) = current {
                // A second sign of closing changes nothing.
                if next == Some(phase) {
                    continue;
                }
                phases.push((phase, since, event.time_ns()));
            }
            current = next.map(|phase| (phase, event.time_ns()));
        }
        phases.extend(current.map(|(phase, since)| (phase, since, end)));
        phases
    }
}

fn is_trouble(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ConnectFailed
            | Kind::RemoteDropped
            | Kind::ClosingError
            | Kind::ForcedClosed
            | Kind::LimitHit
    )
}

/// The lanes that are worth a look: those with trouble first, and then in the order of connecting.
fn lanes(trace: &Ring) -> Vec<Lane<'_>> {
    let mut by_connection: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
    for event in trace.iter() {
        by_connection
            .entry(event.connection())
            .or_default()
            .push(event);
    }
    let mut lanes: Vec<Lane<'_>> = by_connection
        .into_iter()
        .map(|(connection, events)| Lane {
            troubles: events
                .iter()
                .filter(|event| is_trouble(event.kind()))
                .count(),
            connection,
            events,
        })
        .collect();
    lanes.sort_by_key(|lane| std::cmp::Reverse(lane.troubles));
    lanes.truncate(LANES);
    lanes.sort_by_key(|lane| lane.connection);
    lanes
}

/// The whole run, some of `all` connections.
pub(super) fn lives(trace: &Ring, all: usize) -> String {
    let end = trace.iter().next_back().map_or(1, Event::time_ns);
    figure(trace, all, ("timeline", "Connections over time"), end)
}

/// The beginning, until the last connection has opened for the first time.
pub(super) fn connecting(trace: &Ring, all: usize) -> String {
    let opened = trace.iter().filter(|event| event.kind() == Kind::Connected);
    let end = opened.map(Event::time_ns).max().unwrap_or(1);
    figure(trace, all, ("connecting", "Connecting"), end + end / 20)
}

/// What happened before `end`.
fn figure(trace: &Ring, all: usize, (id, title): (&str, &str), end: u64) -> String {
    let lanes = lanes(trace);
    let end = end.max(1);
    let bottom = LANE_HEIGHT * lanes.len() as f64;
    let height = bottom + BOTTOM + 18.0;
    let mut svg = format!(
        "<figure id=\"{id}\"><figcaption>{title}, {} of {all}</figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">\n",
        lanes.len()
    );
    for (index, lane) in lanes.iter().enumerate() {
        draw(&mut svg, lane, LANE_HEIGHT * index as f64, end);
    }
    times(&mut svg, end, bottom + 15.0);
    legend(&mut svg, height - 4.0);
    svg + "</svg></figure>\n"
}

fn place(time: u64, end: u64) -> f64 {
    LEFT + time as f64 / end as f64 * (WIDTH - LEFT - RIGHT)
}

fn draw(svg: &mut String, lane: &Lane<'_>, top: f64, end: u64) {
    let (slot, text) = (lane.connection & u64::from(u32::MAX), top + 11.0);
    let left = LEFT - 6.0;
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{text}\" text-anchor=\"end\">{slot}</text>"
    );
    for (phase, since, until) in lane.phases(end) {
        if since >= end {
            break;
        }
        let (name, colour) = phase.look();
        let x = place(since, end);
        // What took no time at this scale is still there to be seen.
        let width = (place(until.min(end), end) - x).max(0.7);
        let milliseconds = until.saturating_sub(since) as f64 / 1e6;
        let _ = writeln!(
            svg,
            "<rect class=\"phase\" x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"10\" fill=\"{colour}\">\
             <title>{slot}: {name}, {milliseconds:.3} ms</title></rect>",
            top + 2.0
        );
    }
    for event in &lane.events {
        if !is_trouble(event.kind()) || event.time_ns() > end {
            continue;
        }
        let (x, middle) = (place(event.time_ns(), end), top + 7.0);
        let line = escaped(&render::dbg_line(event, "").to_string());
        let _ = writeln!(
            svg,
            "<circle class=\"trouble\" cx=\"{x:.2}\" cy=\"{middle:.1}\" r=\"3.5\" fill=\"{RED}\"><title>{line}</title></circle>"
        );
    }
}

fn times(svg: &mut String, end: u64, down: f64) {
    let (unit, name) = if end < 1_000_000_000 {
        (1e6, "ms")
    } else {
        (1e9, "s")
    };
    let whole = end as f64 / unit;
    let step = round_step(whole / 8.0);
    for number in 0..=8 {
        let tick = step * f64::from(number);
        if tick <= whole {
            let x = LEFT + tick / whole * (WIDTH - LEFT - RIGHT);
            let label = (tick * 1000.0).round() / 1000.0;
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{down}\" text-anchor=\"middle\">{label} {name}</text>"
            );
        }
    }
}

fn legend(svg: &mut String, down: f64) {
    for (index, phase) in Phase::ALL.iter().enumerate() {
        let (name, colour) = phase.look();
        let x = LEFT + 100.0 * index as f64;
        let (top, text) = (down - 10.0, x + 15.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{top}\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{text}\" y=\"{down}\">{name}</text>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(events: &[Event]) -> Ring {
        let mut ring = Ring::with_capacity(8192);
        for event in events {
            ring.record(*event);
        }
        ring
    }

    #[test]
    fn phases_follow_each_other_without_gaps() {
        let ring = ring(&[
            Event::connecting(0, 1, 1, "h:1"),
            Event::tcp_connecting(10, 1, "a"),
            Event::tcp_connected(20, 1, "a"),
            Event::tls_established(30, 1, 0x0304, ""),
            Event::upgrading(30, 1, "h:1"),
            Event::connected(40, 1, 1, ""),
            Event::remote_dropped(50, 1, ""),
            Event::reconnect_scheduled(50, 1, 5, ""),
            Event::reconnecting(60, 1, 1, "h:1"),
        ]);
        let lanes = lanes(&ring);
        assert_eq!((lanes.len(), lanes[0].troubles), (1, 1));
        assert_eq!(
            lanes[0].phases(70),
            [
                (Phase::Resolving, 0, 10),
                (Phase::Tcp, 10, 20),
                (Phase::Tls, 20, 30),
                (Phase::Upgrading, 30, 40),
                (Phase::Open, 40, 50),
                (Phase::Waiting, 50, 60),
                (Phase::Resolving, 60, 70),
            ]
        );
        let figure = lives(&ring, 1);
        assert_eq!(figure.matches("class=\"phase\"").count(), 6);
        assert_eq!(figure.matches("class=\"trouble\"").count(), 1);
        // Until a twentieth after the opening.
        let beginning = connecting(&ring, 1);
        assert_eq!(beginning.matches("class=\"phase\"").count(), 5);
    }

    #[test]
    fn without_tls_there_is_no_time_for_it() {
        let ring = ring(&[
            Event::connecting(0, 1, 1, "h:1"),
            Event::tcp_connecting(10, 1, "a"),
            Event::tcp_connected(20, 1, "a"),
            Event::upgrading(20, 1, "h:1"),
            Event::connected(40, 1, 1, ""),
        ]);
        let phases: Vec<_> = lanes(&ring)[0]
            .phases(50)
            .into_iter()
            .map(|(phase, ..)| phase)
            .collect();
        let expected = [Phase::Resolving, Phase::Tcp, Phase::Upgrading, Phase::Open];
        assert_eq!(phases, expected);
        assert!(!lives(&ring, 1).contains("1: tls,"));
    }

    /// With as many connections as by default, and what is recorded of each.
    #[test]
    fn the_whole_life_of_every_connection_is_there() {
        let connections = 1000;
        let mut ring = Ring::with_capacity(super::super::trace_capacity(connections));
        let server = "127.0.0.1:1";
        for step in 0..13 {
            for id in 0..connections as u64 {
                let now = step * 1000 + id;
                ring.record(match step {
                    0 => Event::connecting(now, id, 1, server),
                    5 => Event::connected(now, id, 1, ""),
                    12 => Event::terminated(now, id, ""),
                    _ => Event::upgrading(now, id, server),
                });
            }
        }
        assert_eq!(ring.overwritten(), 0);
        assert_eq!(ring.iter().count(), 13 * connections);
        let figure = lives(&ring, connections);
        assert!(figure.contains("Connections over time, 40 of 1000<"));
        // What was never connected counts too.
        assert!(lives(&ring, 1001).contains("40 of 1001<"));
    }

    #[test]
    fn those_in_trouble_are_shown() {
        let mut events: Vec<Event> = (0..200)
            .map(|id| Event::connecting(id, id, 1, "h:1"))
            .collect();
        events.push(Event::remote_dropped(300, 150, "<gone>"));
        let ring = ring(&events);
        let lanes = lanes(&ring);
        assert_eq!(lanes.len(), LANES);
        assert_eq!(lanes.last().unwrap().connection, 150);
        assert!(lives(&ring, 200).contains("&lt;gone>"));
    }
}
