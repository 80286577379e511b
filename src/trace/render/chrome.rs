//! Events as a Chrome trace, which Perfetto (ui.perfetto.dev) and chrome://tracing show on a time line.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

use super::super::event::Event;
use super::super::kind::Kind;
use super::escape::JsonString;
use super::{Id, dbg};

/// Events, in the order they happened, as one JSON document in the Chrome trace format. `name` gives the name of
/// a connection, `None` or an empty one for none.
///
/// Each connection is a track of its own. Its life is shown as slices inside each other: `connecting` with
/// `resolve`, `tcp`, `proxy`, `tls` and `upgrade`, then `open` with `closing` at its end, then `back-off`; every
/// event is a mark with the words of its `*DBG*` line. What had no end when the trace was taken ends with it, and
/// what began before it is not shown.
///
/// ```
/// use websockex::trace::{Event, Ring, render};
///
/// let mut ring = Ring::with_capacity(64);
/// ring.record(Event::connecting(0, 1, 1, "stream.example.com:443"));
/// ring.record(Event::connected(9_000, 1, 1, ""));
/// let json = render::chrome(ring.iter(), |_| Some("trades")).to_string();
/// assert!(json.contains(r#"{"name":"connecting","ph":"X","ts":0.000,"dur":9.000,"pid":1,"tid":1"#));
/// ```
pub fn chrome<'a, 'n>(
    events: impl IntoIterator<Item = &'a Event>,
    name: impl Fn(u64) -> Option<&'n str>,
) -> ChromeTrace<'a, 'n> {
    let mut tracks: BTreeMap<u64, Track<'a, 'n>> = BTreeMap::new();
    for event in events {
        let connection = event.connection();
        let number = tracks.len() + 1;
        let track = tracks.entry(connection).or_insert_with(|| Track {
            number,
            name: name(connection).unwrap_or(""),
            events: Vec::new(),
        });
        track.events.push(event);
    }
    ChromeTrace { tracks }
}

/// What [`chrome`] returns, to be displayed.
#[derive(Clone, Debug)]
pub struct ChromeTrace<'a, 'n> {
    tracks: BTreeMap<u64, Track<'a, 'n>>,
}

#[derive(Clone, Debug)]
struct Track<'a, 'n> {
    number: usize,
    name: &'n str,
    events: Vec<&'a Event>,
}

impl Display for ChromeTrace<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.tracks.values().filter_map(|track| track.events.last());
        let end = last.map(|event| event.time_ns()).max().unwrap_or(0);
        f.write_str("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        for (index, (connection, track)) in self.tracks.iter().enumerate() {
            f.write_str(if index == 0 { "\n" } else { ",\n" })?;
            let (number, id) = (track.number, Id(*connection));
            let label = match track.name {
                "" => id.to_string(),
                name => format!("{name} ({id})"),
            };
            let label = JsonString(label.as_bytes());
            write!(
                f,
                "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":{number},\"args\":{{\"name\":{label}}}}}"
            )?;
            let mut slices = Slices::new(f, number);
            for event in &track.events {
                slices.take(event)?;
            }
            slices.end_all(end)?;
        }
        f.write_str("\n]}\n")
    }
}

/// The slices of one connection: where each of those that are open began.
struct Slices<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    track: usize,
    attempt: Option<u64>,
    /// The stage of the attempt that is under way.
    stage: Option<u64>,
    open: Option<u64>,
    closing: Option<u64>,
    back_off: Option<u64>,
}

impl<'a, 'f> Slices<'a, 'f> {
    fn new(f: &'a mut fmt::Formatter<'f>, track: usize) -> Self {
        Self {
            f,
            track,
            attempt: None,
            stage: None,
            open: None,
            closing: None,
            back_off: None,
        }
    }

    fn take(&mut self, event: &Event) -> fmt::Result {
        let now = event.time_ns();
        match event.kind() {
            Kind::Connecting | Kind::Reconnecting => {
                self.end_all(now)?;
                (self.attempt, self.stage) = (Some(now), Some(now));
            }
            Kind::Resolved => self.end_stage("resolve", now)?,
            Kind::TcpConnecting | Kind::Upgrading => self.stage = Some(now),
            Kind::TcpConnected => self.end_stage("tcp", now)?,
            Kind::ProxyConnected => self.end_stage("proxy", now)?,
            Kind::TlsEstablished => self.end_stage("tls", now)?,
            Kind::Connected | Kind::Reconnected => {
                self.end_stage("upgrade", now)?;
                let began = self.attempt.take();
                (self.stage, self.open) = (None, Some(now));
                self.slice("connecting", began, now)?;
            }
            Kind::ConnectFailed => {
                self.end_stage(event.subject().name(), now)?;
                let began = self.attempt.take();
                self.stage = None;
                self.slice("connecting (failed)", began, now)?;
            }
            Kind::ClosingLocal | Kind::ClosingError | Kind::CloseReceived => {
                self.closing.get_or_insert(now);
            }
            Kind::RemoteDropped | Kind::ClosedCleanly | Kind::ForcedClosed | Kind::Terminated => {
                self.end_all(now)?;
            }
            Kind::ReconnectScheduled => {
                self.end_all(now)?;
                self.back_off = Some(now);
            }
            _ => {}
        }
        self.mark(event)
    }

    /// Ends the stage under way; the next one begins.
    fn end_stage(&mut self, name: &str, now: u64) -> fmt::Result {
        let began = self.stage.replace(now);
        self.slice(name, began, now)
    }

    fn end_all(&mut self, now: u64) -> fmt::Result {
        self.stage = None;
        for (name, began) in [
            ("connecting", self.attempt.take()),
            ("closing", self.closing.take()),
            ("open", self.open.take()),
            ("back-off", self.back_off.take()),
        ] {
            self.slice(name, began, now)?;
        }
        Ok(())
    }

    /// A slice that has ended; nothing if its beginning is not known.
    fn slice(&mut self, name: &str, began: Option<u64>, end: u64) -> fmt::Result {
        let Some(began) = began else {
            return Ok(());
        };
        let (start, duration, track) =
            (Micros(began), Micros(end.saturating_sub(began)), self.track);
        write!(
            self.f,
            ",\n{{\"name\":\"{name}\",\"ph\":\"X\",\"ts\":{start},\"dur\":{duration},\"pid\":1,\"tid\":{track}}}"
        )
    }

    /// The event itself, in words.
    fn mark(&mut self, event: &Event) -> fmt::Result {
        let (name, time, track) = (event.kind().name(), Micros(event.time_ns()), self.track);
        let mut words = String::new();
        write!(words, "{}", dbg::Sentence(event))?;
        let words = JsonString(words.as_bytes());
        write!(
            self.f,
            ",\n{{\"name\":\"{name}\",\"ph\":\"i\",\"s\":\"t\",\"ts\":{time},\"pid\":1,\"tid\":{track},\
             \"args\":{{\"what\":{words}}}}}"
        )
    }
}

/// Nanoseconds as the microseconds that the format wants.
struct Micros(u64);

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Stage;

    /// The slices of a document: track, name, beginning and duration.
    fn slices(json: &str) -> Vec<(u64, String, String, String)> {
        let member = |line: &str, key: &str| {
            let rest = line.split(&format!("\"{key}\":")).nth(1).unwrap();
            rest.split([',', '}'])
                .next()
                .unwrap()
                .trim_matches('"')
                .to_owned()
        };
        let complete = json.lines().filter(|line| line.contains("\"ph\":\"X\""));
        complete
            .map(|line| {
                let track = member(line, "tid").parse().unwrap();
                (
                    track,
                    member(line, "name"),
                    member(line, "ts"),
                    member(line, "dur"),
                )
            })
            .collect()
    }

    #[test]
    fn a_life_is_nested_slices() {
        let life = [
            Event::connecting(0, 9, 1, "host:443"),
            Event::resolved(1_000, 9, 2, "a"),
            Event::tcp_connecting(1_000, 9, "a"),
            Event::tcp_connected(3_500, 9, "a"),
            Event::tls_established(7_000, 9, 0x0304, ""),
            Event::upgrading(7_000, 9, "host:443"),
            Event::connected(10_000, 9, 1, ""),
            Event::close_received(50_000, 9, Some(1001), "bye \"now\""),
            Event::closed_cleanly(60_000, 9),
            Event::reconnect_scheduled(60_000, 9, 5, "r"),
            Event::reconnecting(70_000, 9, 1, "host:443"),
            Event::connect_failed(72_000, 9, Stage::Tcp, None, "refused"),
            // Another one, whose beginning is not held any more, and which is still open.
            Event::connected(20_000, 4, 1, ""),
            Event::closing_local(71_000, 4, None, ""),
        ];
        let json = chrome(&life, |id| (id == 9).then_some("feed")).to_string();
        let slice = |track, name: &str, start: &str, duration: &str| {
            (
                track,
                name.to_owned(),
                start.to_owned(),
                duration.to_owned(),
            )
        };
        assert_eq!(
            slices(&json),
            [
                slice(2, "closing", "71.000", "1.000"),
                slice(2, "open", "20.000", "52.000"),
                slice(1, "resolve", "0.000", "1.000"),
                slice(1, "tcp", "1.000", "2.500"),
                slice(1, "tls", "3.500", "3.500"),
                slice(1, "upgrade", "7.000", "3.000"),
                slice(1, "connecting", "0.000", "10.000"),
                slice(1, "closing", "50.000", "10.000"),
                slice(1, "open", "10.000", "50.000"),
                slice(1, "back-off", "60.000", "10.000"),
                slice(1, "tcp", "70.000", "2.000"),
                slice(1, "connecting (failed)", "70.000", "2.000"),
            ]
        );
        assert!(
            json.contains(r#""tid":1,"args":{"name":"feed (9#0)"}}"#),
            "{json}"
        );
        assert!(json.contains(r#""tid":2,"args":{"name":"4#0"}}"#), "{json}");
        assert!(
            json.contains(r#""what":"closing with the remote reason: 1001 \u0022bye "#),
            "{json}"
        );
        assert_eq!(json.matches("\"ph\":\"i\"").count(), life.len());
        // One object per line, each but the last followed by a comma.
        let lines: Vec<&str> = json.trim_end().lines().collect();
        let (inner, objects) = (&lines[1..lines.len() - 1], lines.len() - 2);
        assert!(
            inner[..objects - 1]
                .iter()
                .all(|line| line.starts_with('{') && line.ends_with("},"))
        );
        assert!(inner[objects - 1].ends_with("}}") || inner[objects - 1].ends_with('}'));
        assert_eq!(json.matches('{').count(), json.matches('}').count());
    }

    #[test]
    fn nothing_is_a_document_too() {
        let json = chrome([], |_| None).to_string();
        assert_eq!(json, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n]}\n");
    }
}
