//! What came of the runs: medians with their spread, as a table and as JSON.

use super::workloads::{Goal, Metric, Row, Workload};
use serde_json::{Value, json};
use std::fmt::Write;
use websockex_peers::Report;

/// Median, least and most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let half = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[half - 1], values[half]),
            _ => values[half],
        };
        Some(Self { median, min, max })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// The runs of one client, one per round.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) client: String,
    /// `Err` says why there is none.
    pub(crate) rounds: Vec<Result<Report, String>>,
}

/// All runs of one workload.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) workload: Workload,
    pub(crate) series: Vec<Series>,
    /// The load average of the machine, before and after.
    pub(crate) load: (String, String),
}

impl Metric {
    fn of(self, report: &Report) -> f64 {
        let messages = report.messages.max(1) as f64;
        let latency = report.latency.unwrap_or_default();
        match self {
            Self::Cpu => report.cpu_ns as f64 / messages,
            Self::P50 => latency.p50 as f64,
            Self::P99 => latency.p99 as f64,
            Self::Rate => messages / (report.wall_ns.max(1) as f64 / 1e9),
            Self::Resident => report.resident_per_connection,
            Self::Heap => report.heap_per_connection,
            Self::Peak => report.peak_resident as f64,
        }
    }

    /// A value with its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Cpu | Self::P50 | Self::P99 if value < 1e4 => format!("{value:.1} ns"),
            Self::Cpu | Self::P50 | Self::P99 => format!("{:.1} µs", value / 1e3),
            Self::Rate => format!("{value:.0}/s"),
            Self::Resident | Self::Heap => format!("{:.2} KiB", value / 1024.0),
            Self::Peak => format!("{:.1} MiB", value / 1024.0 / 1024.0),
        }
    }
}

impl Outcome {
    /// Of one client: the values, and the ratios to the floor of the same round.
    pub(crate) fn spreads(&self, row: &Row, series: &Series) -> (Option<Spread>, Option<Spread>) {
        let floor = self.series.iter().find(|series| series.client == "floor");
        let mut values = Vec::new();
        let mut ratios = Vec::new();
        for (round, report) in series.rounds.iter().enumerate() {
            let Ok(report) = report else { continue };
            let value = row.metric.of(report);
            values.push(value);
            if let Some(Ok(floor)) = floor.and_then(|floor| floor.rounds.get(round)) {
                ratios.push(value / row.metric.of(floor));
            }
        }
        (Spread::of(values), Spread::of(ratios))
    }

    fn why(series: &Series) -> String {
        let why = series.rounds.iter().find_map(|round| round.as_ref().err());
        why.cloned().unwrap_or_default()
    }

    /// One point of the curve over the number of connections?
    pub(crate) fn is_growth(&self) -> bool {
        let mut rows = self.workload.rows.iter();
        rows.any(|row| row.id.starts_with("growth"))
    }

    /// Of the handshakes of a client, by the server's count, the part that took a session up again.
    /// `None` where none should.
    fn resumed_share(&self, series: &Series) -> Option<f64> {
        if !self.workload.is_resumed() {
            return None;
        }
        let reports = series.rounds.iter().flatten();
        let (resumed, all) = reports.fold((0, 0), |(resumed, all), report| {
            let granted = report.granted;
            (resumed + granted.resumed, all + granted.upgrades)
        });
        (all > 0).then(|| resumed as f64 / all as f64)
    }

    /// A few lines for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for row in self.workload.rows {
            let goal = match row.goal {
                Goal::Ratio(ratio) if ratio.is_nan() => String::new(),
                Goal::Ratio(ratio) => format!(", to reach: {ratio} x floor"),
                Goal::Bytes(bytes) => format!(", to reach: {}", row.metric.show(bytes)),
                Goal::First => ", to reach: ahead of every peer".to_owned(),
            };
            let (before, after) = &self.load;
            let connections = self.workload.connections;
            let arguments = self.workload.arguments.join(" ");
            let _ = writeln!(
                text,
                "{}  {}{goal}  [connections {connections}; {arguments}; load {before} to {after}]",
                row.id, row.what
            );
            for series in &self.series {
                let name = series.client.trim_start_matches("peer_");
                let (Some(value), ratio) = self.spreads(row, series) else {
                    let _ = writeln!(text, "  {name:<18} –  {}", Self::why(series));
                    continue;
                };
                let show = |value| row.metric.show(value);
                let (median, min, max) = (show(value.median), show(value.min), show(value.max));
                let _ = write!(text, "  {name:<18} {median:>11}  ({min} to {max})");
                if let Some(ratio) = ratio {
                    let Spread { median, min, max } = ratio;
                    let _ = write!(text, "   {median:.3} x floor  ({min:.3} to {max:.3})");
                }
                if let Some(share) = self.resumed_share(series) {
                    let _ = write!(text, "   {:.1} % resumed", share * 100.0);
                }
                let failed = series.rounds.iter().filter(|round| round.is_err()).count();
                if failed > 0 {
                    let _ = write!(text, "   {failed} failed: {}", Self::why(series));
                }
                text.push('\n');
            }
        }
        text
    }

    /// Everything, the reports included.
    pub(crate) fn json(&self) -> Value {
        let rows = self.workload.rows.iter().map(|row| {
            let clients = self.series.iter().map(|series| {
                let (value, ratio) = self.spreads(row, series);
                json!({
                    "client": series.client,
                    "value": value.map(Spread::json),
                    "ratio": ratio.map(Spread::json),
                    "resumed_share": self.resumed_share(series),
                    "why_not": Self::why(series),
                })
            });
            json!({
                "row": row.id,
                "what": row.what,
                "metric": format!("{:?}", row.metric),
                "goal": format!("{:?}", row.goal),
                "clients": clients.collect::<Vec<_>>(),
            })
        });
        let reports = self.series.iter().flat_map(|series| &series.rounds);
        let reports = reports.filter_map(|round| round.as_ref().ok());
        json!({
            "connections": self.workload.connections,
            "load": [self.load.0, self.load.1],
            "rows": rows.collect::<Vec<_>>(),
            "reports": reports.collect::<Vec<_>>(),
        })
    }
}
