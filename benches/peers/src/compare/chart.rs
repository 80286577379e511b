//! The chart: for each row the ratios to the floor, as bars on a logarithmic axis, in SVG.

use super::results::Outcome;
use super::workloads::{Goal, Metric};
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 330.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;
const TOP: f64 = 40.0;
/// The axis begins at the floor and ends here; a longer bar is cut off, and its number says so.
const MOST: f64 = 12.0;
/// Ours first. All of them can be told apart on white and on black.
const COLOURS: [&str; 10] = [
    "#d9480f", "#1c7ed6", "#2f9e44", "#9c36b5", "#e8a200", "#0c8599", "#c2255c", "#6b7a12",
    "#7048e8", "#868e96",
];

/// Draws it; rows without a floor are not in it.
pub(crate) fn draw(outcomes: &[Outcome]) -> String {
    let mut body = String::new();
    let mut clients: Vec<&str> = Vec::new();
    let mut y = TOP;
    let x = |ratio: f64| {
        let share = ratio.clamp(1.0, MOST).ln() / MOST.ln();
        LABELS + share * (WIDTH - LABELS - 60.0)
    };
    for outcome in outcomes {
        for row in outcome.workload.rows {
            if matches!(row.metric, Metric::Rate | Metric::Peak) {
                continue;
            }
            let begin = y;
            for series in outcome
                .series
                .iter()
                .filter(|series| series.client != "floor")
            {
                let (_, Some(ratio)) = outcome.spreads(row, series) else {
                    continue;
                };
                let known = clients.iter().position(|name| *name == series.client);
                let index = known.unwrap_or_else(|| {
                    clients.push(&series.client);
                    clients.len() - 1
                });
                let colour = COLOURS[index % COLOURS.len()];
                let (end, low, high) = (x(ratio.median), x(ratio.min), x(ratio.max));
                let (middle, median) = (y + BAR / 2.0, ratio.median);
                let length = (end - LABELS).max(1.0);
                let _ = writeln!(
                    body,
                    "<rect x='{LABELS}' y='{y}' width='{length:.1}' height='{}' fill='{colour}'/>\
                     <path class='spread' d='M{low:.1} {middle}H{high:.1}'/>\
                     <text class='small' x='{:.1}' y='{:.1}'>{median:.2}</text>",
                    BAR - 1.0,
                    high.max(end) + 4.0,
                    y + BAR - 2.0,
                );
                y += BAR;
            }
            if y == begin {
                continue;
            }
            let middle = f64::midpoint(begin, y) + 4.0;
            let _ = writeln!(
                body,
                "<text x='8' y='{middle:.1}'>{}  {}</text>",
                row.id, row.what
            );
            if let Goal::Ratio(goal) = row.goal
                && !goal.is_nan()
            {
                let at = x(goal);
                let _ = writeln!(body, "<path class='goal' d='M{at:.1} {begin}V{y}'/>");
            }
            y += GAP;
        }
    }
    let mut legend = String::new();
    for (index, client) in clients.iter().enumerate() {
        let (column, line) = (index % 5, index / 5);
        let (left, top) = (8.0 + column as f64 * 178.0, y + 14.0 + line as f64 * 18.0);
        let colour = COLOURS[index % COLOURS.len()];
        let name = client.trim_start_matches("peer_");
        let _ = writeln!(
            legend,
            "<rect x='{left}' y='{}' width='10' height='10' fill='{colour}'/>\
             <text x='{}' y='{top}'>{name}</text>",
            top - 9.0,
            left + 15.0,
        );
    }
    let mut axis = String::new();
    for ratio in [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0] {
        let at = x(ratio);
        let _ = writeln!(
            axis,
            "<path class='axis' d='M{at:.1} {}V{y:.1}'/><text class='small' x='{:.1}' y='{}'>{ratio} ×</text>",
            TOP - 6.0,
            at - 8.0,
            TOP - 10.0,
        );
    }
    let height = y + 30.0 + clients.len().div_ceil(5) as f64 * 18.0;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' \
         font-family='sans-serif' font-size='12'>\n\
         <style>text{{fill:#333}}.small{{font-size:9.5px}}.axis{{stroke:#888;stroke-opacity:.35}}\
         .goal{{stroke:#111;stroke-width:1.5;stroke-dasharray:3 2}}.spread{{stroke:#111;stroke-opacity:.6}}\
         @media(prefers-color-scheme:dark){{text{{fill:#ccc}}.goal,.spread{{stroke:#eee}}}}</style>\n\
         <text x='8' y='18'>Times the floor of the same run; shorter is better. \
         Dashed: to be reached. Lines: from the least to the most.</text>\n\
         {axis}{body}{legend}</svg>\n"
    )
}
