//! The text format of Prometheus, version 0.0.4: a `# HELP` and a `# TYPE` line per metric, then a
//! line per series.

use super::histogram::Histogram;
use super::snapshot::ReactorStats;
use crate::trace::SinkStats;
use std::fmt::{self, Display, Write};

/// What [`ReactorStats::prometheus`] returns, to be displayed.
#[derive(Clone, Copy, Debug)]
pub struct Prometheus<'a> {
    stats: &'a ReactorStats,
}

impl<'a> Prometheus<'a> {
    pub(super) fn new(stats: &'a ReactorStats) -> Self {
        Self { stats }
    }
}

/// Bounds of times, as powers of two of a nanosecond: from a microsecond to half a minute.
const TIME_EXPONENTS: [u32; 13] = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 35];
/// Bounds of numbers of events.
const COUNT_EXPONENTS: [u32; 7] = [1, 2, 3, 4, 6, 8, 10];

impl Display for Prometheus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = Page { f };
        page.traffic(self.stats)?;
        page.connections(self.stats)?;
        page.times(self.stats)?;
        page.sinks(&self.stats.sinks)
    }
}

struct Page<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
}

impl Page<'_, '_> {
    fn traffic(&mut self, stats: &ReactorStats) -> fmt::Result {
        let both = [("in", &stats.received), ("out", &stats.sent)];
        let by = |of: fn(&super::Traffic) -> u64| {
            both.map(|(direction, traffic)| (Label("direction", direction), of(traffic)))
        };
        self.counters(
            "messages_total",
            "Whole messages.",
            &by(|traffic| traffic.messages),
        )?;
        self.counters(
            "message_bytes_total",
            "Bytes of messages as the application sees them.",
            &by(|traffic| traffic.message_bytes),
        )?;
        self.counters(
            "frame_bytes_total",
            "Payload bytes of frames as on the wire.",
            &by(|traffic| traffic.frame_bytes),
        )?;
        self.counters(
            "socket_bytes_total",
            "Bytes through the sockets.",
            &by(|traffic| traffic.socket_bytes),
        )?;
        self.head("frames_total", "Frames by opcode.", "counter")?;
        for (direction, traffic) in both {
            for (opcode, count) in traffic.frames.named() {
                let labels = format_args!("{{direction=\"{direction}\",opcode=\"{opcode}\"}}");
                self.sample("frames_total", labels, count)?;
            }
        }
        Ok(())
    }

    fn connections(&mut self, stats: &ReactorStats) -> fmt::Result {
        self.single(
            "connections",
            "Connections there are.",
            "gauge",
            stats.connections,
        )?;
        self.single(
            "open_connections",
            "Connections that are open.",
            "gauge",
            stats.open,
        )?;
        let counter = "counter";
        self.single(
            "attempts_total",
            "Attempts to connect.",
            counter,
            stats.attempts,
        )?;
        self.single(
            "opens_total",
            "Attempts that succeeded.",
            counter,
            stats.opens,
        )?;
        self.single(
            "disconnects_total",
            "Connections lost and attempts failed.",
            counter,
            stats.disconnects,
        )?;
        let reconnects = stats
            .reconnects
            .named()
            .map(|(reason, count)| (Label("reason", reason), count));
        self.counters(
            "reconnects_total",
            "Decisions to connect again.",
            &reconnects,
        )?;
        self.single(
            "send_drops_total",
            "Messages that were not sent.",
            counter,
            stats.drops,
        )?;
        self.single(
            "queued_bytes",
            "Bytes that wait for the sockets.",
            "gauge",
            stats.queued_bytes,
        )?;
        self.single(
            "queued_commands",
            "Commands of other threads that wait for the reactor.",
            "gauge",
            stats.queued_commands,
        )?;
        self.single(
            "queued_bytes_high",
            "Most bytes that ever waited on one connection.",
            "gauge",
            stats.queued_bytes_high,
        )?;
        let seconds = stats.last_data.map_or(f64::NAN, |time| {
            (stats.uptime.saturating_sub(time)).as_secs_f64()
        });
        self.single(
            "last_data_age_seconds",
            "Time since the last message.",
            "gauge",
            Number(seconds),
        )?;
        let uptime = Number(stats.uptime.as_secs_f64());
        self.single("uptime_seconds", "Time since the start.", "gauge", uptime)
    }

    fn times(&mut self, stats: &ReactorStats) -> fmt::Result {
        self.head(
            "connect_stage_seconds",
            "Times of the stages of connecting.",
            "histogram",
        )?;
        for (stage, histogram) in [
            ("resolve", &stats.resolve_ns),
            ("tcp", &stats.tcp_ns),
            ("proxy", &stats.proxy_ns),
            ("tls", &stats.tls_ns),
            ("upgrade", &stats.upgrade_ns),
            ("total", &stats.connect_ns),
        ] {
            let label = format!("stage=\"{stage}\",");
            self.histogram(
                "connect_stage_seconds",
                &label,
                histogram,
                &TIME_EXPONENTS,
                1e9,
            )?;
        }
        self.single("turns_total", "Turns of the loop.", "counter", stats.turns)?;
        for (name, help, histogram) in [
            (
                "round_trip_seconds",
                "From ping to pong.",
                &stats.round_trip_ns,
            ),
            (
                "turn_busy_seconds",
                "Turns of the loop without the wait.",
                &stats.busy_ns,
            ),
            (
                "connection_turn_seconds",
                "Turns of single connections: reading, handlers, writing.",
                &stats.connection_turn_ns,
            ),
        ] {
            self.head(name, help, "histogram")?;
            self.histogram(name, "", histogram, &TIME_EXPONENTS, 1e9)?;
        }
        self.head(
            "events_per_turn",
            "Sockets with news per turn of the loop.",
            "histogram",
        )?;
        self.histogram(
            "events_per_turn",
            "",
            &stats.events_per_turn,
            &COUNT_EXPONENTS,
            1.0,
        )?;
        let Some(slowest) = &stats.slowest_turn else {
            return Ok(());
        };
        self.head(
            "slowest_turn_seconds",
            "The longest turn of a connection.",
            "gauge",
        )?;
        let name = Escaped(slowest.name.as_deref().unwrap_or(""));
        let (slot, generation) = (
            slowest.connection & u64::from(u32::MAX),
            slowest.connection >> 32,
        );
        let callback = slowest.callback.name();
        let labels = format_args!(
            "{{connection=\"{slot}#{generation}\",name=\"{name}\",callback=\"{callback}\"}}"
        );
        self.sample(
            "slowest_turn_seconds",
            labels,
            Number(slowest.took.as_secs_f64()),
        )
    }

    fn sinks(&mut self, sinks: &[SinkStats]) -> fmt::Result {
        if sinks.is_empty() {
            return Ok(());
        }
        self.head(
            "trace_sink_events_total",
            "Trace events by what became of them.",
            "counter",
        )?;
        for sink in sinks {
            let fates = [
                ("written", sink.written),
                ("dropped", sink.dropped),
                ("failed", sink.failed),
            ];
            for (fate, count) in fates {
                let labels = format_args!("{{sink=\"{}\",fate=\"{fate}\"}}", sink.id);
                self.sample("trace_sink_events_total", labels, count)?;
            }
        }
        Ok(())
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) -> fmt::Result {
        writeln!(self.f, "# HELP websockex_{name} {help}")?;
        writeln!(self.f, "# TYPE websockex_{name} {kind}")
    }

    fn sample(&mut self, name: &str, labels: impl Display, value: impl Display) -> fmt::Result {
        writeln!(self.f, "websockex_{name}{labels} {value}")
    }

    fn single(&mut self, name: &str, help: &str, kind: &str, value: impl Display) -> fmt::Result {
        self.head(name, help, kind)?;
        self.sample(name, "", value)
    }

    fn counters(&mut self, name: &str, help: &str, series: &[(Label, u64)]) -> fmt::Result {
        self.head(name, help, "counter")?;
        series
            .iter()
            .try_for_each(|(label, value)| self.sample(name, label, *value))
    }

    /// `label` ends in a comma if it is not empty.
    fn histogram(
        &mut self,
        name: &str,
        label: &str,
        histogram: &Histogram,
        exponents: &[u32],
        unit: f64,
    ) -> fmt::Result {
        for exponent in exponents {
            // Integers below a power of two are integers up to one less.
            #[expect(clippy::cast_precision_loss, reason = "at most 35 bits")]
            let bound = Number(((1_u64 << exponent) - 1) as f64 / unit);
            let count = histogram.below_power_of_two(*exponent);
            writeln!(
                self.f,
                "websockex_{name}_bucket{{{label}le=\"{bound}\"}} {count}"
            )?;
        }
        let count = histogram.count();
        writeln!(
            self.f,
            "websockex_{name}_bucket{{{label}le=\"+Inf\"}} {count}"
        )?;
        let label = label.trim_end_matches(',');
        let label = if label.is_empty() {
            String::new()
        } else {
            format!("{{{label}}}")
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum of so many digits needs no more"
        )]
        let sum = Number(histogram.sum() as f64 / unit);
        writeln!(self.f, "websockex_{name}_sum{label} {sum}")?;
        writeln!(self.f, "websockex_{name}_count{label} {count}")
    }
}

/// A label whose value is one of our own names.
struct Label(&'static str, &'static str);

impl Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}=\"{}\"}}", self.0, self.1)
    }
}

/// A number as the format wants it; what is not one is `NaN`.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_nan() {
            f.write_str("NaN")
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// A label's value: "label_value can be any sequence of UTF-8 characters, but the backslash (\),
/// double-quote ("), and line feed (\n) characters have to be escaped".
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::meter::{ConnectionMeter, ReactorMeter};
    use super::*;
    use crate::trace::SinkId;
    use crate::trace::kind::Callback;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn page() -> String {
        let reactor = ReactorMeter::default();
        let connection = ConnectionMeter::new(
            Some("a \"b\" \\ \n".into()),
            crate::protocol::url::Url::parse("ws://host").expect("it is one"),
        );
        reactor.turn(3, 1500);
        reactor.connection_turn(&connection, 5 | 1 << 32, Callback::OnTimer, 0, 2500);
        let mut stats = reactor.snapshot();
        stats.uptime = Duration::from_millis(1500);
        stats.sinks.push(SinkStats {
            id: SinkId(3),
            written: 0,
            dropped: 7,
            failed: 0,
            last_error: None,
        });
        stats.prometheus().to_string()
    }

    /// Every line is a comment or a sample, every metric has its head first and once, names and
    /// values are what the format allows, and no series comes twice.
    #[test]
    fn every_line_is_well_formed() {
        let (mut declared, mut series) = (BTreeSet::new(), BTreeSet::new());
        for line in page().lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(declared.insert(name.to_owned()), "{line}");
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (key, value) = line.rsplit_once(' ').unwrap();
            assert!(value == "NaN" || value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(key.to_owned()), "{line}");
            let name = key.split('{').next().unwrap();
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            assert!(
                declared.contains(name) || declared.contains(base.unwrap_or("")),
                "{line}"
            );
        }
        assert!(series.len() > 100);
    }

    #[test]
    fn values_are_those_of_the_snapshot() {
        let page = page();
        for line in [
            "websockex_messages_total{direction=\"in\"} 0",
            "websockex_uptime_seconds 1.5",
            "websockex_last_data_age_seconds NaN",
            "websockex_turns_total 1",
            "websockex_turn_busy_seconds_bucket{le=\"0.000001023\"} 0",
            "websockex_turn_busy_seconds_bucket{le=\"0.000004095\"} 1",
            "websockex_turn_busy_seconds_sum 0.0000015",
            "websockex_events_per_turn_bucket{le=\"1\"} 0",
            "websockex_events_per_turn_bucket{le=\"3\"} 1",
            "websockex_connect_stage_seconds_bucket{stage=\"tls\",le=\"+Inf\"} 0",
            "websockex_connect_stage_seconds_count{stage=\"total\"} 0",
            "websockex_trace_sink_events_total{sink=\"3\",fate=\"dropped\"} 7",
            "websockex_slowest_turn_seconds{connection=\"5#1\",name=\"a \\\"b\\\" \\\\ \\n\",callback=\"on_timer\"} 0.0000025",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
    }
}
