//! The curve: processor time per message over the number of connections, a line for each client.

use super::chart::{COLOURS, FLOOR_COLOUR, STYLE};
use super::results::Outcome;
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
/// On the right there is room for the names.
const RIGHT: f64 = 720.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 370.0;
/// Lines across, beside the one at 0.
const LINES: usize = 5;
const NAME_HEIGHT: f64 = 18.0;

/// Draws it; the connections on a logarithmic axis, the time on a linear one that begins at 0.
pub(crate) fn draw(outcomes: &[&Outcome]) -> String {
    let lines = lines(outcomes);
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = points().map(|&(_, ns)| ns).fold(1.0, f64::max);
    let widest = points().map(|&(count, _)| count).fold(10.0, f64::max);
    let x = |count: f64| LEFT + count.log10() / widest.log10() * (RIGHT - LEFT);
    let y = |ns: f64| BOTTOM - ns / most * (BOTTOM - TOP);
    let mut body = String::new();
    for step in 0..=LINES {
        let ns = most * step as f64 / LINES as f64;
        let at = y(ns);
        let _ = writeln!(
            body,
            "<path class='axis' d='M{LEFT} {at:.1}H{RIGHT}'/>\
             <text class='small' x='8' y='{:.1}'>{ns:.0} ns</text>",
            at + 3.0,
        );
    }
    for outcome in outcomes {
        let count = outcome.workload.connections;
        let at = x(count as f64);
        let _ = writeln!(
            body,
            "<path class='axis' d='M{at:.1} {TOP}V{BOTTOM}'/>\
             <text class='small' x='{:.1}' y='{}'>{count}</text>",
            at - 8.0,
            BOTTOM + 16.0,
        );
    }
    let mut peers = COLOURS.iter().cycle();
    for (index, (client, points)) in lines.iter().enumerate() {
        let colour = match client.as_str() {
            "floor" => FLOOR_COLOUR,
            _ => peers.next().unwrap_or(&FLOOR_COLOUR),
        };
        let mut path = String::new();
        for &(count, ns) in points {
            let _ = write!(path, "{:.1},{:.1} ", x(count), y(ns));
        }
        let name = client.trim_start_matches("peer_");
        let top = TOP + 10.0 + index as f64 * NAME_HEIGHT;
        let _ = writeln!(
            body,
            "<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>\
             <rect x='{}' y='{}' width='10' height='10' fill='{colour}'/>\
             <text x='{}' y='{top}'>{name}</text>",
            RIGHT + 20.0,
            top - 9.0,
            RIGHT + 35.0,
        );
    }
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' \
         font-family='sans-serif' font-size='12'>\n{STYLE}\n\
         <text x='8' y='18'>Processor time per message at one total rate, over the number of \
         connections; medians, lower is better.</text>\n{body}</svg>\n"
    )
}

/// A client, and of it the connections and the nanoseconds per message.
type Line = (String, Vec<(f64, f64)>);

fn lines(outcomes: &[&Outcome]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for outcome in outcomes {
        let Some(row) = outcome.workload.rows.first() else {
            continue;
        };
        for series in &outcome.series {
            let (Some(value), _) = outcome.spreads(row, series) else {
                continue;
            };
            let point = (outcome.workload.connections as f64, value.median);
            match lines
                .iter_mut()
                .find(|(client, _)| *client == series.client)
            {
                Some((_, points)) => points.push(point),
                None => lines.push((series.client.clone(), vec![point])),
            }
        }
    }
    lines
}
