//! The chart, in SVG: for each row the ratios to the floor, as bars on an axis that begins at 0; and
//! below them, in a panel of its own, memory, as what it is.

use super::results::{Outcome, Series, Spread};
use super::workloads::{Goal, Metric, Row};
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 330.0;
/// Where the longest bar ends; its number stands behind it.
const END: f64 = WIDTH - 70.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;
const TOP: f64 = 40.0;
/// The axis of the ratios ends here; a longer bar is cut off, and its number says so.
const MOST: f64 = 8.0;
/// Ours first. All of them can be told apart on white and on black.
pub(super) const COLOURS: [&str; 9] = [
    "#d9480f", "#1c7ed6", "#2f9e44", "#9c36b5", "#e8a200", "#0c8599", "#c2255c", "#6b7a12",
    "#7048e8",
];
pub(super) const FLOOR_COLOUR: &str = "#868e96";
const BARE_COLOUR: &str = "#adb5bd";
pub(super) const STYLE: &str = "<style>text{fill:#333}.small{font-size:9.5px}\
    .axis{stroke:#888;stroke-opacity:.35}.floor{stroke:#888}\
    .goal{stroke:#111;stroke-width:1.5;stroke-dasharray:3 2}.spread{stroke:#111;stroke-opacity:.6}\
    @media(prefers-color-scheme:dark){text{fill:#ccc}.goal,.spread{stroke:#eee}}</style>";

/// A picture that grows downwards.
struct Chart<'a> {
    body: String,
    /// In the order of their colours.
    clients: Vec<&'a str>,
    y: f64,
}

/// Draws it; rows without a floor and rates are not in it.
pub(crate) fn draw(outcomes: &[&Outcome]) -> String {
    let mut chart = Chart {
        body: String::new(),
        clients: Vec::new(),
        y: TOP,
    };
    let rows = |metrics: &'static [Metric]| {
        let all = outcomes.iter().flat_map(|outcome| {
            let rows = outcome.workload.rows.iter();
            rows.map(move |row| (*outcome, row))
        });
        all.filter(|(_, row)| metrics.contains(&row.metric))
    };
    for (outcome, row) in rows(&[Metric::Cpu, Metric::P50, Metric::P99]) {
        chart.add_ratios(outcome, row);
    }
    let axis = chart.ratio_axis();
    let mut is_first = true;
    for (outcome, row) in rows(&[Metric::Resident, Metric::Heap, Metric::Peak]) {
        if std::mem::take(&mut is_first) {
            chart.y += GAP;
            let _ = writeln!(
                chart.body,
                "<text x='8' y='{}'>Memory, each row on an axis of its own; shorter is better.</text>",
                chart.y + 8.0
            );
            chart.y += 2.0 * GAP;
        }
        chart.add_memory(outcome, row);
    }
    let legend = chart.legend();
    let height = chart.y + 30.0 + (chart.clients.len() + 2).div_ceil(5) as f64 * 18.0;
    let body = &chart.body;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' \
         font-family='sans-serif' font-size='12'>\n{STYLE}\n\
         <text x='8' y='18'>Times the floor of the same round; shorter is better. \
         Dashed: to be reached. Lines: from the least to the most.</text>\n\
         {axis}{body}{legend}</svg>\n"
    )
}

/// Where on the axis of the ratios.
fn ratio_x(ratio: f64) -> f64 {
    LABELS + ratio.clamp(0.0, MOST) / MOST * (END - LABELS)
}

impl<'a> Chart<'a> {
    fn add_ratios(&mut self, outcome: &'a Outcome, row: &Row) {
        let begin = self.y;
        for series in &outcome.series {
            let (_, Some(ratio)) = outcome.spreads(row, series) else {
                continue;
            };
            if series.client != "floor" {
                let label = format!("{:.2}", ratio.median);
                self.add_bar(series, ratio, ratio_x, &label);
            }
        }
        let goal = match row.goal {
            Goal::Ratio(goal) if !goal.is_nan() => Some(ratio_x(goal)),
            _ => None,
        };
        self.end_row(row, begin, goal);
    }

    fn add_memory(&mut self, outcome: &'a Outcome, row: &Row) {
        let begin = self.y;
        let goal = match row.goal {
            Goal::Bytes(bytes) => Some(bytes),
            _ => None,
        };
        let all = || {
            let series = outcome.series.iter();
            series.filter_map(|series| Some((series, outcome.spreads(row, series).0?)))
        };
        let most = all()
            .map(|(_, value)| value.max)
            .fold(goal.unwrap_or(1.0), f64::max);
        let x = |bytes: f64| LABELS + bytes.max(0.0) / most * (END - LABELS);
        for (series, value) in all() {
            self.add_bar(series, value, x, &row.metric.show(value.median));
        }
        self.end_row(row, begin, goal.map(x));
    }

    fn add_bar(&mut self, series: &'a Series, spread: Spread, x: impl Fn(f64) -> f64, label: &str) {
        let colour = self.colour(&series.client);
        let (end, low, high) = (x(spread.median), x(spread.min), x(spread.max));
        let y = self.y;
        let _ = writeln!(
            self.body,
            "<rect x='{LABELS}' y='{y}' width='{:.1}' height='{}' fill='{colour}'/>\
             <path class='spread' d='M{low:.1} {}H{high:.1}'/>\
             <text class='small' x='{:.1}' y='{:.1}'>{label}</text>",
            end - LABELS,
            BAR - 1.0,
            y + BAR / 2.0,
            high.max(end) + 4.0,
            y + BAR - 2.0,
        );
        self.y += BAR;
    }

    fn end_row(&mut self, row: &Row, begin: f64, goal: Option<f64>) {
        if self.y == begin {
            return;
        }
        let middle = f64::midpoint(begin, self.y) + 4.0;
        let _ = writeln!(
            self.body,
            "<text x='8' y='{middle:.1}'>{}  {}</text>",
            row.id, row.what
        );
        if let Some(at) = goal {
            let _ = writeln!(
                self.body,
                "<path class='goal' d='M{at:.1} {begin}V{}'/>",
                self.y
            );
        }
        self.y += GAP;
    }

    fn colour(&mut self, client: &'a str) -> &'static str {
        match client {
            "floor" => return FLOOR_COLOUR,
            crate::BARE_CLIENT => return BARE_COLOUR,
            _ => {}
        }
        let known = self.clients.iter().position(|name| *name == client);
        let index = known.unwrap_or_else(|| {
            self.clients.push(client);
            self.clients.len() - 1
        });
        COLOURS[index % COLOURS.len()]
    }

    /// For all that is drawn so far, and nothing if that is nothing.
    fn ratio_axis(&self) -> String {
        let mut axis = String::new();
        if self.y == TOP {
            return axis;
        }
        for ratio in 0..=MOST as usize {
            let at = ratio_x(ratio as f64);
            let class = if ratio == 1 { "floor" } else { "axis" };
            let _ = writeln!(
                axis,
                "<path class='{class}' d='M{at:.1} {}V{:.1}'/>\
                 <text class='small' x='{:.1}' y='{}'>{ratio}</text>",
                TOP - 6.0,
                self.y,
                at - 3.0,
                TOP - 10.0,
            );
        }
        axis
    }

    fn legend(&self) -> String {
        let mut legend = String::new();
        let others = [("floor", FLOOR_COLOUR), ("bare client", BARE_COLOUR)];
        let clients = self.clients.iter().copied();
        for (index, (client, colour)) in clients.zip(COLOURS).chain(others).enumerate() {
            let (column, line) = (index % 5, index / 5);
            let (left, top) = (
                8.0 + column as f64 * 178.0,
                self.y + 14.0 + line as f64 * 18.0,
            );
            let name = client.trim_start_matches("peer_");
            let _ = writeln!(
                legend,
                "<rect x='{left}' y='{}' width='10' height='10' fill='{colour}'/>\
                 <text x='{}' y='{top}'>{name}</text>",
                top - 9.0,
                left + 15.0,
            );
        }
        legend
    }
}
