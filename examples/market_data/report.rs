//! The report: one HTML page that needs nothing else, neither network nor scripts, with what was
//! measured as plots.
//!
//! [`plot`] draws curves, [`timeline`] draws the lives of connections from the reactor's trace.

mod plot;
mod timeline;

use super::Outcome;
use super::meter::Span;
use super::totals::Totals;
use plot::{Curve, Plot, Scale};
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Duration;
use websockex::stats::ReactorStats;
use websockex::trace::Ring;

/// What happened between two looks at the meter.
pub(crate) struct Sample {
    /// End of it, in seconds since the reactor was made.
    at: f64,
    messages_per_second: f64,
    mebibytes_per_second: f64,
    /// Median, 99th and 99.9th percentile of the latency in microseconds, where there is any.
    latency: Option<[f64; 3]>,
    open: usize,
    reconnects: u64,
}

impl Sample {
    pub(crate) fn new(at: Duration, span: &Span, totals: &Totals) -> Self {
        let latency = |quantile| Some(span.latency.quantile(quantile)? as f64 / 1e3);
        let all = || Some([latency(0.5)?, latency(0.99)?, latency(0.999)?]);
        Self {
            at: at.as_secs_f64(),
            messages_per_second: span.messages_per_second(),
            mebibytes_per_second: span.mebibytes_per_second(),
            latency: all(),
            open: totals.open,
            reconnects: totals.reconnects,
        }
    }
}

/// Events of a connection's whole life: eleven, one more with TLS, another if it had to wait for its turn to
/// connect; and some to spare for those that are opened again.
const EVENTS_PER_LIFE: usize = 20;
/// As many as the trace of a reactor keeps anyway.
const LEAST_EVENTS: usize = 8192;

/// How many events the trace must hold for the time lines to have every connection on them.
pub(crate) fn trace_capacity(connections: usize) -> usize {
    connections
        .saturating_mul(EVENTS_PER_LIFE)
        .max(LEAST_EVENTS)
}

/// Writes the page.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(
    path: &Path,
    outcome: &Outcome,
    samples: &[Sample],
    stats: &ReactorStats,
    trace: &Ring,
) -> io::Result<()> {
    std::fs::write(path, page(outcome, samples, stats, trace))
}

fn page(outcome: &Outcome, samples: &[Sample], stats: &ReactorStats, trace: &Ring) -> String {
    let mut page = String::from(HEAD);
    page += &summary(outcome, stats);
    let curve = |name, colour, value: &dyn Fn(&Sample) -> f64| Curve {
        name,
        colour,
        points: samples
            .iter()
            .map(|sample| (sample.at, value(sample)))
            .collect(),
    };
    page += &Plot {
        id: "throughput",
        title: "Throughput, messages per second",
        scale: Scale::Linear,
        curves: vec![curve("messages/s", BLUE, &|sample| {
            sample.messages_per_second
        })],
    }
    .figure();
    page += &Plot {
        id: "bytes",
        title: "Throughput, MiB of payload per second",
        scale: Scale::Linear,
        curves: vec![curve("MiB/s", BLUE, &|sample| sample.mebibytes_per_second)],
    }
    .figure();
    let percentile = |name, colour, index: usize| Curve {
        name,
        colour,
        points: samples
            .iter()
            .filter_map(|sample| Some((sample.at, sample.latency?[index])))
            .collect(),
    };
    page += &Plot {
        id: "latency",
        title: "One-way latency, microseconds",
        scale: Scale::Logarithmic,
        curves: vec![
            percentile("p99.9", RED, 2),
            percentile("p99", ORANGE, 1),
            percentile("p50", BLUE, 0),
        ],
    }
    .figure();
    page += &Plot {
        id: "reconnects",
        title: "Open connections, and reconnects so far",
        scale: Scale::Linear,
        curves: vec![
            curve("open", BLUE, &|sample| sample.open as f64),
            curve("reconnects", RED, &|sample| sample.reconnects as f64),
        ],
    }
    .figure();
    page += &timeline::connecting(trace, outcome.asked);
    page += &timeline::lives(trace, outcome.asked);
    page + "</main>\n</html>\n"
}

/// Colours that are told apart by those who see no red or no green, too.
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#e69f00";
const RED: &str = "#d55e00";

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>websockex market_data</title>
<style>
body { margin: 0; font: 15px/1.4 system-ui, sans-serif; color: #222; background: #fff }
main { max-width: 860px; margin: 0 auto; padding: 1em }
h1 { font-size: 1.4em; margin: .4em 0 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { text-align: left; padding: .15em 1.2em .15em 0; font-variant-numeric: tabular-nums }
th { font-weight: normal; color: #555 }
figure { margin: 1.4em 0 }
figcaption { font-weight: 600; margin-bottom: .3em }
svg { width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: #444 }
.axis { stroke: #999 }
.grid { stroke: #e4e4e4 }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round }
</style>
<main>
<h1>market_data</h1>
";

fn summary(outcome: &Outcome, stats: &ReactorStats) -> String {
    let span = &outcome.span;
    let micros = |quantile| {
        let nanoseconds = span.latency.quantile(quantile);
        nanoseconds.map_or("-".to_owned(), |time| {
            format!("{:.0} µs", time as f64 / 1e3)
        })
    };
    let time = |nanoseconds: u64| format!("{:.1?}", Duration::from_nanos(nanoseconds));
    let slowest = stats
        .slowest_handler
        .as_ref()
        .map_or("-".to_owned(), |slowest| {
            format!("{:.1?}, {}", slowest.took, slowest.callback.name())
        });
    let rows = [
        (
            "connections",
            format!("{} of {}", outcome.connected, outcome.asked),
        ),
        (
            "transport",
            (if outcome.tls { "wss" } else { "ws" }).to_owned(),
        ),
        ("messages", span.messages.to_string()),
        (
            "messages per second",
            format!("{:.0}", span.messages_per_second()),
        ),
        (
            "lost / repeated",
            format!("{} / {}", outcome.lost, outcome.repeated),
        ),
        ("reconnects", outcome.reconnects.to_string()),
        (
            "latency p50 / p99 / p99.9",
            format!("{} / {} / {}", micros(0.5), micros(0.99), micros(0.999)),
        ),
        (
            "connecting p50 / p99",
            format!(
                "{} / {}",
                time(stats.connect_ns.quantile(0.5)),
                time(stats.connect_ns.quantile(0.99))
            ),
        ),
        (
            "turn of the loop p50 / p99",
            format!(
                "{} / {}",
                time(stats.busy_ns.quantile(0.5)),
                time(stats.busy_ns.quantile(0.99))
            ),
        ),
        ("longest that a handler was at work", slowest),
    ];
    let mut table = String::from("<table id=\"summary\">\n");
    for (name, value) in rows {
        let _ = writeln!(table, "<tr><th scope=\"row\">{name}<td>{}", escaped(&value));
    }
    table + "</table>\n"
}

/// As text in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
