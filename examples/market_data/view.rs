//! What is shown: a line per second, or on a terminal a few lines that are drawn over; and the
//! summary, for people or as JSON.

use super::Outcome;
use super::histogram::Histogram;
use super::meter::Span;
use super::totals::Totals;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

/// The live view, on standard error.
pub(crate) struct LiveView {
    style: Style,
    /// Lines drawn last time.
    drawn: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Draw over what was drawn last time.
    Terminal,
    /// One line each time.
    Lines,
    Nothing,
}

impl LiveView {
    /// `quiet`: show nothing unless there is a terminal to watch it on.
    pub(crate) fn new(quiet: bool) -> Self {
        let style = match (io::stderr().is_terminal(), quiet) {
            (true, _) => Style::Terminal,
            (false, false) => Style::Lines,
            (false, true) => Style::Nothing,
        };
        Self { style, drawn: 0 }
    }

    /// Shows what happened in `span`, which ended `elapsed` after the start.
    pub(crate) fn show(&mut self, elapsed: Duration, span: &Span, totals: &Totals) {
        let text = match self.style {
            Style::Nothing => return,
            Style::Lines => line(elapsed, span, totals),
            Style::Terminal => {
                let block = block(elapsed, span, totals);
                let lines = block.lines().count();
                let up = std::mem::replace(&mut self.drawn, lines);
                // Up to where the last block began, and clear from there to the end.
                let back = if up > 0 {
                    format!("\x1b[{up}F\x1b[J")
                } else {
                    String::new()
                };
                back + &block
            }
        };
        // A view that nobody can see is no reason to stop.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

fn line(elapsed: Duration, span: &Span, totals: &Totals) -> String {
    let [p50, p99, p999] = quantiles(&span.latency).map(microseconds);
    format!(
        "{:>4.0} s  {:>9.0} msg/s  {:>7.1} MiB/s  p50 {p50}  p99 {p99}  p99.9 {p999}  cpu {}  \
         open {}  reconnects {}  lost {}  {}\n",
        elapsed.as_secs_f64(),
        span.messages_per_second(),
        span.mebibytes_per_second(),
        percent(span.thread_cpu, span.seconds),
        totals.open,
        totals.reconnects,
        totals.lost,
        busiest(span),
    )
}

fn block(elapsed: Duration, span: &Span, totals: &Totals) -> String {
    let [p50, p99, p999] = quantiles(&span.latency).map(microseconds);
    let (reactor, process) = (
        percent(span.thread_cpu, span.seconds),
        percent(span.process_cpu, span.seconds),
    );
    format!(
        "{:.0} s   {} connections open, {} reconnects, {} lost\n\
         messages  {:>10.0} /s   {:.1} MiB/s\n\
         latency   p50 {p50}   p99 {p99}   p99.9 {p999}\n\
         cpu       reactor {reactor}   process {process}\n\
         busiest   {}\n",
        elapsed.as_secs_f64(),
        totals.open,
        totals.reconnects,
        totals.lost,
        span.messages_per_second(),
        span.mebibytes_per_second(),
        busiest(span),
    )
}

fn busiest(span: &Span) -> String {
    let mut text = String::new();
    for (name, messages) in &span.busiest {
        let per_second = *messages as f64 / span.seconds;
        // A venue's own text: what would move the cursor of a terminal, or worse, must not get there. Writing to
        // a string cannot fail.
        let _ = write!(text, "{} {per_second:.0}/s  ", name.escape_debug());
    }
    text.truncate(text.trim_end().len());
    text
}

/// p50, p99 and p99.9 in microseconds.
fn quantiles(latency: &Histogram) -> [Option<f64>; 3] {
    [0.5, 0.99, 0.999].map(|quantile| latency.quantile(quantile).map(|ns| ns as f64 / 1000.0))
}

fn microseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |us| format!("{us:.0} us"))
}

fn percent(cpu_seconds: Option<f64>, seconds: f64) -> String {
    cpu_seconds.map_or_else(
        || "-".to_owned(),
        |cpu| format!("{:.0} %", 100.0 * cpu / seconds),
    )
}

/// The summary for people.
pub(crate) fn summary(outcome: &Outcome) -> String {
    let span = &outcome.span;
    let [p50, p99, p999] = quantiles(&span.latency).map(microseconds);
    let max = microseconds(span.latency.max().map(|ns| ns as f64 / 1000.0));
    let mut text = format!(
        "connections  {} of {} in {:.2} s, {} reconnects\n\
         messages     {} in {:.2} s: {:.0} /s, {:.1} MiB/s\n\
         lost         {}\n\
         latency      p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}\n\
         cpu          reactor {}, process {}\n\
         busiest      {}\n",
        outcome.connected,
        outcome.asked,
        outcome.connect_time.as_secs_f64(),
        outcome.reconnects,
        span.messages,
        span.seconds,
        span.messages_per_second(),
        span.mebibytes_per_second(),
        outcome.lost,
        percent(span.thread_cpu, span.seconds),
        percent(span.process_cpu, span.seconds),
        busiest(span),
    );
    if let Some(report) = &outcome.exchange
        && report.held_back > 0
    {
        let held_back = report.held_back;
        let _ = writeln!(
            text,
            "held back    {held_back} messages, by the exchange, from connections that did not keep up"
        );
    }
    text
}

/// The summary as one line of JSON. What is not known is `null`: a venue's messages carry neither
/// a time nor a sequence number that could be relied on.
pub(crate) fn json(outcome: &Outcome) -> String {
    let span = &outcome.span;
    let [p50, p99, p999] = quantiles(&span.latency);
    let max = span.latency.max().map(|ns| ns as f64 / 1000.0);
    let own = outcome.exchange.as_ref();
    let fields: [(&str, String); 21] = [
        ("connections", outcome.asked.to_string()),
        ("connected", outcome.connected.to_string()),
        (
            "connect_seconds",
            number(Some(outcome.connect_time.as_secs_f64())),
        ),
        ("tls", outcome.tls.to_string()),
        ("rate", number(outcome.rate)),
        ("messages", span.messages.to_string()),
        (
            "messages_per_second",
            number(Some(span.messages_per_second())),
        ),
        ("bytes", span.bytes.to_string()),
        ("lost", or_null(own.map(|_| outcome.lost))),
        ("repeated", or_null(own.map(|_| outcome.repeated))),
        ("reconnects", outcome.reconnects.to_string()),
        ("failures", outcome.failures.to_string()),
        ("held_back", or_null(own.map(|report| report.held_back))),
        ("stalls", or_null(own.map(|report| report.stalls))),
        ("seconds", number(Some(span.seconds))),
        ("p50_us", number(p50)),
        ("p99_us", number(p99)),
        ("p999_us", number(p999)),
        ("max_us", number(max)),
        ("cpu_seconds", number(span.thread_cpu)),
        ("process_cpu_seconds", number(span.process_cpu)),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn number(value: Option<f64>) -> String {
    or_null(
        value
            .filter(|value| value.is_finite())
            .map(|value| format!("{value:.3}")),
    )
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::meter::Meter;
    use super::super::scan;
    use super::*;

    #[test]
    fn nothing_of_a_venue_commands_the_terminal() {
        let message = "{\"symbol\":\"\x1b]0;owned\x07BTC\u{202e}\",\"price\":1}";
        let mut totals = Totals::default();
        let mut meter = Meter::start(&mut totals);
        let number = totals.instrument(scan::instrument(message).unwrap());
        totals.count(Some(number), message.len());
        let span = meter.tick(&mut totals);
        for text in [
            line(Duration::from_secs(1), &span, &totals),
            block(Duration::from_secs(1), &span, &totals),
        ] {
            let odd = text
                .chars()
                .find(|character| character.is_control() && *character != '\n');
            assert_eq!(odd, None, "{text:?}");
            assert!(
                text.contains("BTC") && !text.contains('\u{202e}'),
                "{text:?}"
            );
        }
    }
}
