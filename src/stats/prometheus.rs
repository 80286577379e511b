//! The text format of Prometheus, version 0.0.4: a `# HELP` and a `# TYPE` line per metric, then a
//! line per series.

use super::histogram::Histogram;
use super::snapshot::{ReactorStats, Traffic};
use crate::trace::render;
use std::fmt::{self, Display, Write};

/// The numbers of several reactors in the text format that Prometheus scrapes, as one page: each metric
/// comes once, and each of its series has a label `reactor`, which is the place in `reactors` from 0. (Pages of
/// [`ReactorStats::prometheus`], one behind the other, are not valid.)
///
/// ```no_run
/// # use websockex::{Remote, stats};
/// fn page(remotes: &[Remote]) -> String {
///     let reactors: Vec<_> = remotes.iter().map(Remote::stats).collect();
///     stats::prometheus(&reactors).to_string()
/// }
/// ```
#[must_use]
pub fn prometheus(reactors: &[ReactorStats]) -> Prometheus<'_> {
    Prometheus {
        reactors,
        labelled: true,
    }
}

/// What [`ReactorStats::prometheus`] and [`prometheus`] return, to be displayed.
#[derive(Clone, Copy, Debug)]
pub struct Prometheus<'a> {
    reactors: &'a [ReactorStats],
    /// There is a label that tells them apart.
    labelled: bool,
}

impl<'a> Prometheus<'a> {
    pub(super) fn new(stats: &'a ReactorStats) -> Self {
        Self {
            reactors: std::slice::from_ref(stats),
            labelled: false,
        }
    }
}

/// Bounds of times, as powers of two of a nanosecond: from a microsecond to half a minute.
const TIME_EXPONENTS: [u32; 13] = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 35];
/// Bounds of numbers of events.
const COUNT_EXPONENTS: [u32; 7] = [1, 2, 3, 4, 6, 8, 10];

impl Display for Prometheus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |number: usize| match self.labelled {
            true => format!("reactor=\"{number}\""),
            false => String::new(),
        };
        let reactors = self.reactors.iter().enumerate();
        let reactors: Vec<_> = reactors
            .map(|(number, stats)| (label(number), stats))
            .collect();
        let reactors = &reactors;
        let mut page = Page { f, reactors };
        page.traffic()?;
        page.connections()?;
        page.queues_and_times()?;
        page.histograms()?;
        page.slowest_handlers()?;
        page.sinks()
    }
}

/// Writes metrics, each for all reactors before the next one.
struct Page<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    /// Each with its label, which is empty where there is but one.
    reactors: &'a [(String, &'a ReactorStats)],
}

impl Page<'_, '_> {
    fn traffic(&mut self) -> fmt::Result {
        fn both(stats: &ReactorStats) -> [(&'static str, &Traffic); 2] {
            [("in", &stats.received), ("out", &stats.sent)]
        }
        type Number = fn(&Traffic) -> u64;
        let numbers: [(_, _, Number); 4] = [
            ("messages_total", "Whole messages.", |traffic| {
                traffic.messages
            }),
            (
                "message_bytes_total",
                "Bytes of messages as the application sees them.",
                |traffic| traffic.message_bytes,
            ),
            (
                "frame_bytes_total",
                "Payload bytes of frames as on the wire.",
                |traffic| traffic.frame_bytes,
            ),
            (
                "socket_bytes_total",
                "Bytes through the sockets.",
                |traffic| traffic.socket_bytes,
            ),
        ];
        for (name, help, number) in numbers {
            self.counters(name, help, |stats, series| {
                both(stats)
                    .into_iter()
                    .try_for_each(|(direction, traffic)| {
                        series.count(&[("direction", direction)], number(traffic))
                    })
            })?;
        }
        self.counters("frames_total", "Frames by opcode.", |stats, series| {
            for (direction, traffic) in both(stats) {
                for (opcode, count) in traffic.frames.named() {
                    series.count(&[("direction", direction), ("opcode", opcode)], count)?;
                }
            }
            Ok(())
        })
    }

    fn connections(&mut self) -> fmt::Result {
        self.gauge("connections", "Connections there are.", |stats| {
            stats.connections
        })?;
        self.gauge("open_connections", "Connections that are open.", |stats| {
            stats.open
        })?;
        self.counter("attempts_total", "Attempts to connect.", |stats| {
            stats.attempts
        })?;
        self.counter("opens_total", "Attempts that succeeded.", |stats| {
            stats.opens
        })?;
        self.counter(
            "disconnects_total",
            "Connections lost and attempts failed.",
            |stats| stats.disconnects,
        )?;
        self.counters(
            "reconnects_total",
            "Decisions to connect again.",
            |stats, series| {
                let reasons = stats.reconnects.named();
                let mut reasons = reasons.into_iter();
                reasons.try_for_each(|(reason, count)| series.count(&[("reason", reason)], count))
            },
        )
    }

    fn queues_and_times(&mut self) -> fmt::Result {
        self.counter(
            "send_drops_total",
            "Messages that were not sent.",
            |stats| stats.drops,
        )?;
        self.gauge(
            "queued_bytes",
            "Bytes that wait for the sockets.",
            |stats| stats.queued_bytes,
        )?;
        self.gauge(
            "queued_commands",
            "Commands of other threads that wait for the reactor.",
            |stats| stats.queued_commands,
        )?;
        self.gauge(
            "queued_bytes_high",
            "Most bytes that ever waited on one connection.",
            |stats| stats.queued_bytes_high,
        )?;
        self.gauge(
            "last_data_age_seconds",
            "Time since the last message.",
            |stats| {
                let age = |time| stats.uptime.saturating_sub(time).as_secs_f64();
                Number(stats.last_data.map_or(f64::NAN, age))
            },
        )?;
        self.gauge("uptime_seconds", "Time since the start.", |stats| {
            Number(stats.uptime.as_secs_f64())
        })?;
        self.counter("turns_total", "Turns of the loop.", |stats| stats.turns)
    }

    fn histograms(&mut self) -> fmt::Result {
        let (name, help) = (
            "connect_stage_seconds",
            "Times of the stages of connecting.",
        );
        self.metric(name, help, "histogram", |stats, series| {
            for (stage, histogram) in [
                ("resolve", &stats.resolve_ns),
                ("tcp", &stats.tcp_ns),
                ("proxy", &stats.proxy_ns),
                ("tls", &stats.tls_ns),
                ("upgrade", &stats.upgrade_ns),
                ("total", &stats.connect_ns),
            ] {
                series.histogram(&[("stage", stage)], histogram, &TIME_EXPONENTS, 1e9)?;
            }
            Ok(())
        })?;
        type Times = fn(&ReactorStats) -> &Histogram;
        let times: [(_, _, Times); 3] = [
            ("round_trip_seconds", "From ping to pong.", |stats| {
                &stats.round_trip_ns
            }),
            (
                "turn_busy_seconds",
                "Turns of the loop without the wait.",
                |stats| &stats.busy_ns,
            ),
            (
                "handler_seconds",
                "Handlers at work: decoding, callbacks, writing.",
                |stats| &stats.handler_ns,
            ),
        ];
        for (name, help, times) in times {
            self.metric(name, help, "histogram", |stats, series| {
                series.histogram(&[], times(stats), &TIME_EXPONENTS, 1e9)
            })?;
        }
        self.metric(
            "events_per_turn",
            "Sockets with news per turn of the loop.",
            "histogram",
            |stats, series| series.histogram(&[], &stats.events_per_turn, &COUNT_EXPONENTS, 1.0),
        )
    }

    /// The time is one series per reactor; whose it was are the labels of another metric, for a label that
    /// changes with a value makes a new series each time.
    fn slowest_handlers(&mut self) -> fmt::Result {
        self.metric(
            "slowest_handler_seconds",
            "The longest that a handler was at work at a time.",
            "gauge",
            |stats, series| {
                let took = stats.slowest_handler.as_ref().map(|slowest| slowest.took);
                took.map_or(Ok(()), |took| {
                    series.sample("", &[], Number(took.as_secs_f64()))
                })
            },
        )?;
        self.metric(
            "slowest_handler_info",
            "Which handler that was.",
            "gauge",
            |stats, series| {
                let Some(slowest) = &stats.slowest_handler else {
                    return Ok(());
                };
                let connection = render::Id(slowest.connection).to_string();
                let labels = [
                    ("connection", connection.as_str()),
                    ("name", slowest.name.as_deref().unwrap_or("")),
                    ("callback", slowest.callback.name()),
                ];
                series.count(&labels, 1)
            },
        )
    }

    fn sinks(&mut self) -> fmt::Result {
        if self
            .reactors
            .iter()
            .all(|(_, stats)| stats.sinks.is_empty())
        {
            return Ok(());
        }
        let help = "Trace events by what became of them.";
        self.counters("trace_sink_events_total", help, |stats, series| {
            for sink in &stats.sinks {
                let id = sink.id.to_string();
                for (fate, count) in [
                    ("written", sink.written),
                    ("dropped", sink.dropped),
                    ("failed", sink.failed),
                ] {
                    series.count(&[("sink", &id), ("fate", fate)], count)?;
                }
            }
            Ok(())
        })
    }

    /// A metric: what it is, and then of each reactor the series that `write` writes.
    fn metric(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        write: impl Fn(&ReactorStats, &mut Series<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        writeln!(self.f, "# HELP websockex_{name} {help}")?;
        writeln!(self.f, "# TYPE websockex_{name} {kind}")?;
        for (reactor, stats) in self.reactors {
            let f = &mut *self.f;
            write(stats, &mut Series { f, name, reactor })?;
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        write: impl Fn(&ReactorStats, &mut Series<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        self.metric(name, help, "counter", write)
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&ReactorStats) -> u64,
    ) -> fmt::Result {
        self.counters(name, help, |stats, series| series.count(&[], value(stats)))
    }

    fn gauge<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&ReactorStats) -> V,
    ) -> fmt::Result {
        self.metric(name, help, "gauge", |stats, series| {
            series.sample("", &[], value(stats))
        })
    }
}

/// Names of labels, with their values.
type Labels<'a> = [(&'a str, &'a str)];

/// Writes the series that a metric has of one reactor.
struct Series<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    name: &'a str,
    reactor: &'a str,
}

impl Series<'_, '_> {
    fn count(&mut self, labels: &Labels<'_>, count: u64) -> fmt::Result {
        self.sample("", labels, count)
    }

    /// `suffix` is that of the metric's name.
    fn sample(&mut self, suffix: &str, labels: &Labels<'_>, value: impl Display) -> fmt::Result {
        write!(self.f, "websockex_{}{suffix}", self.name)?;
        let mut before = '{';
        if !self.reactor.is_empty() {
            write!(self.f, "{before}{}", self.reactor)?;
            before = ',';
        }
        for (label, text) in labels {
            write!(self.f, "{before}{label}=\"{}\"", Escaped(text))?;
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        writeln!(self.f, "{end} {value}")
    }

    /// `unit` is how many of the histogram's are one of the metric's.
    fn histogram(
        &mut self,
        labels: &Labels<'_>,
        histogram: &Histogram,
        exponents: &[u32],
        unit: f64,
    ) -> fmt::Result {
        let mut bucket = |bound: &str, count: u64| {
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
            self.sample("_bucket", &labels, count)
        };
        for exponent in exponents {
            // Integers below a power of two are integers up to one less.
            #[expect(clippy::cast_precision_loss, reason = "at most 35 bits")]
            let bound = Number(((1_u64 << exponent) - 1) as f64 / unit);
            let count = histogram.below_power_of_two(*exponent);
            bucket(&bound.to_string(), count)?;
        }
        bucket("+Inf", histogram.count())?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum of so many digits needs no more"
        )]
        let sum = Number(histogram.sum() as f64 / unit);
        self.sample("_sum", labels, sum)?;
        self.sample("_count", labels, histogram.count())
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
    use crate::trace::kind::Callback;
    use crate::trace::{SinkId, SinkStats};
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn stats() -> ReactorStats {
        let reactor = ReactorMeter::default();
        let connection = ConnectionMeter::new(
            Some("a \"b\" \\ \n".into()),
            crate::protocol::url::Url::parse("ws://host").expect("it is one"),
        );
        reactor.turn(3, 1500);
        reactor.handled(&connection, 5 | 1 << 32, Callback::OnTimer, 0, 2500);
        let mut stats = reactor.snapshot();
        stats.uptime = Duration::from_millis(1500);
        stats.sinks.push(SinkStats {
            id: SinkId(3),
            written: 0,
            dropped: 7,
            failed: 0,
            last_error: None,
        });
        stats
    }

    /// Every line is a comment or a sample, every metric has its head first and once and all its samples
    /// behind it, names and values are what the format allows, and no series comes twice.
    fn check(page: &str) {
        let (mut declared, mut series) = (BTreeSet::new(), BTreeSet::new());
        let mut current = String::new();
        for line in page.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(declared.insert(name.to_owned()), "{line}");
                name.clone_into(&mut current);
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
            assert!(name == current || base == Some(&current), "{line}");
        }
        assert!(series.len() > 100);
    }

    #[test]
    fn every_line_is_well_formed() {
        check(&stats().prometheus().to_string());
    }

    #[test]
    fn several_reactors_are_one_page() {
        let mut second = stats();
        (second.slowest_handler, second.turns) = (None, 9);
        second.sinks.clear();
        let reactors = [stats(), second];
        let page = prometheus(&reactors).to_string();
        check(&page);
        for line in [
            "websockex_turns_total{reactor=\"0\"} 1",
            "websockex_turns_total{reactor=\"1\"} 9",
            "websockex_messages_total{reactor=\"1\",direction=\"in\"} 0",
            "websockex_connect_stage_seconds_bucket{reactor=\"1\",stage=\"tls\",le=\"+Inf\"} 0",
            "websockex_slowest_handler_seconds{reactor=\"0\"} 0.0000025",
            "websockex_trace_sink_events_total{reactor=\"0\",sink=\"3\",fate=\"dropped\"} 7",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
        assert!(!reactors[0].prometheus().to_string().contains("reactor="));
    }

    #[test]
    fn values_are_those_of_the_snapshot() {
        let page = stats().prometheus().to_string();
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
            "websockex_slowest_handler_seconds 0.0000025",
            "websockex_slowest_handler_info{connection=\"5#1\",name=\"a \\\"b\\\" \\\\ \\n\",callback=\"on_timer\"} 1",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
    }
}
