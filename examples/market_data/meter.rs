//! The measuring window: from the totals, which only grow, to what happened per second and in all.

use super::histogram::Histogram;
use super::system;
use super::totals::Totals;
use std::time::{Duration, Instant};

/// How many of the busiest instruments are named: what fits into a line of 80 characters, as a longer
/// one would be wrapped, and could not be drawn over.
const BUSIEST: usize = 4;

/// Reads the totals at the start, in between, and at the end.
pub(crate) struct Meter {
    start: Reading,
    last: Reading,
    latency: Histogram,
    seen_per_instrument: Vec<u64>,
}

/// What stood where at a moment.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    messages: u64,
    bytes: u64,
    thread_cpu: Option<Duration>,
    process_cpu: Option<Duration>,
}

/// What happened between two readings.
pub(crate) struct Span {
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// CPU time of the reactor's thread, in seconds.
    pub(crate) thread_cpu: Option<f64>,
    /// CPU time of all threads, in seconds.
    pub(crate) process_cpu: Option<f64>,
    /// One-way latency in nanoseconds.
    pub(crate) latency: Histogram,
    /// The busiest instruments and their messages.
    pub(crate) busiest: Vec<(String, u64)>,
}

impl Span {
    pub(crate) fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    pub(crate) fn mebibytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds / f64::from(1 << 20)
    }
}

impl Reading {
    fn take(totals: &Totals) -> Self {
        Self {
            at: Instant::now(),
            messages: totals.messages,
            bytes: totals.bytes,
            thread_cpu: system::thread_cpu_time(),
            process_cpu: system::process_cpu_time(),
        }
    }

    /// From `self` to `end`.
    fn until(&self, end: &Self, latency: Histogram, busiest: Vec<(String, u64)>) -> Span {
        let spent = |end: Option<Duration>, start: Option<Duration>| {
            Some(end?.saturating_sub(start?).as_secs_f64())
        };
        Span {
            seconds: (end.at - self.at).as_secs_f64(),
            messages: end.messages - self.messages,
            bytes: end.bytes - self.bytes,
            thread_cpu: spent(end.thread_cpu, self.thread_cpu),
            process_cpu: spent(end.process_cpu, self.process_cpu),
            latency,
            busiest,
        }
    }
}

impl Meter {
    /// Begins measuring; to be called on the reactor's thread, as all of this.
    pub(crate) fn start(totals: &mut Totals) -> Self {
        totals.latency.clear();
        let start = Reading::take(totals);
        let mut meter = Self {
            start,
            last: start,
            latency: Histogram::default(),
            seen_per_instrument: Vec::new(),
        };
        meter.busiest(totals);
        meter
    }

    /// What happened since the last call, or since the start.
    pub(crate) fn tick(&mut self, totals: &mut Totals) -> Span {
        let now = Reading::take(totals);
        let latency = totals.latency.clone();
        totals.latency.clear();
        self.latency.add(&latency);
        let busiest = self.busiest(totals);
        let span = self.last.until(&now, latency, busiest);
        self.last = now;
        span
    }

    /// What happened since the start.
    pub(crate) fn finish(mut self, totals: &mut Totals) -> Span {
        self.tick(totals);
        self.seen_per_instrument.clear();
        let busiest = self.busiest(totals);
        self.start.until(&self.last, self.latency, busiest)
    }

    /// The instruments with the most messages since the last call.
    fn busiest(&mut self, totals: &Totals) -> Vec<(String, u64)> {
        let instruments = &totals.instruments;
        self.seen_per_instrument.resize(instruments.len(), 0);
        let mut counts: Vec<(usize, u64)> = Vec::with_capacity(instruments.len());
        for (number, seen) in self.seen_per_instrument.iter_mut().enumerate() {
            let messages = instruments[number].messages;
            counts.push((number, messages - *seen));
            *seen = messages;
        }
        counts.retain(|&(_, count)| count > 0);
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        counts.truncate(BUSIEST);
        counts
            .iter()
            .map(|&(number, count)| (instruments[number].name.clone(), count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up() {
        let mut totals = Totals::default();
        let (a, b) = (totals.instrument("A"), totals.instrument("B"));
        totals.count(Some(a), 1_000);
        let mut meter = Meter::start(&mut totals);

        totals.count(Some(a), 10);
        totals.latency.record(5);
        let first = meter.tick(&mut totals);
        assert_eq!((first.messages, first.bytes), (1, 10));
        assert_eq!(first.latency.quantile(1.0), Some(5));
        assert_eq!(first.busiest, [("A".to_owned(), 1)]);

        totals.count(Some(b), 20);
        totals.count(Some(b), 20);
        totals.count(None, 30);
        totals.latency.record(9);
        let second = meter.tick(&mut totals);
        assert_eq!((second.messages, second.bytes), (3, 70));
        assert_eq!(second.latency.quantile(0.0), Some(9));
        assert_eq!(second.busiest, [("B".to_owned(), 2)]);

        let all = meter.finish(&mut totals);
        assert_eq!((all.messages, all.bytes), (4, 80));
        assert_eq!(all.latency.quantile(0.5), Some(5));
        assert_eq!(all.latency.max(), Some(9));
        assert!(all.seconds >= first.seconds + second.seconds);
    }
}
