//! Curves over time, as SVG.

use std::fmt::Write;

/// Size of the drawing, and of its margins: left for numbers, below for times.
const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 112.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) colour: &'static str,
    /// Seconds and values.
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) struct Plot {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) scale: Scale,
    pub(super) curves: Vec<Curve>,
}

/// From a value to a place.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    /// Values for labels.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = round_step((self.high - self.low) / 5.0);
                let first = (self.low / step).ceil() * step;
                let tick = |number: i32| first + f64::from(number) * step;
                (0..)
                    .map(tick)
                    .take_while(|tick| *tick <= self.high)
                    .collect()
            }
            Scale::Logarithmic => {
                let tick = |number: i32| self.low * 10_f64.powi(number);
                (0..)
                    .map(tick)
                    .take_while(|tick| *tick <= self.high * 1.001)
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 with noughts, and not below `least`.
pub(super) fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let fits = |factor: &&f64| **factor * power >= least * 0.999;
    factors.iter().find(fits).unwrap_or(&10.0) * power
}

impl Plot {
    pub(super) fn figure(&self) -> String {
        let (id, title) = (self.id, self.title);
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        if points().count() < 2 {
            return format!(
                "<figure id=\"{id}\"><figcaption>{title}</figcaption><p>Nothing was measured.</p></figure>\n"
            );
        }
        let fold = |start: f64, choose: fn(f64, f64) -> f64, of: fn(&(f64, f64)) -> f64| {
            points().map(of).fold(start, choose)
        };
        let x = Axis {
            scale: Scale::Linear,
            low: fold(f64::MAX, f64::min, |point| point.0),
            high: fold(f64::MIN, f64::max, |point| point.0),
        };
        let (least, most) = (
            fold(f64::MAX, f64::min, |point| point.1),
            fold(0.0, f64::max, |point| point.1),
        );
        let y = match self.scale {
            Scale::Linear => Axis {
                scale: Scale::Linear,
                low: 0.0,
                high: if most > 0.0 { most * 1.05 } else { 1.0 },
            },
            Scale::Logarithmic => Axis {
                scale: Scale::Logarithmic,
                low: 10_f64.powf(least.max(0.1).log10().floor()),
                high: 10_f64.powf(most.max(0.2).log10().floor() + 1.0),
            },
        };
        let mut svg = format!(
            "<figure id=\"{id}\"><figcaption>{title}</figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n"
        );
        axes(&mut svg, &x, &y);
        for (index, curve) in self.curves.iter().enumerate() {
            draw(&mut svg, curve, index, &x, &y);
        }
        svg + "</svg></figure>\n"
    }
}

fn place(x: &Axis, y: &Axis, (at, value): (f64, f64)) -> (f64, f64) {
    let value = if y.scale == Scale::Logarithmic {
        value.max(y.low)
    } else {
        value
    };
    (
        LEFT + x.share(at) * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM),
    )
}

fn axes(svg: &mut String, x: &Axis, y: &Axis) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in y.ticks() {
        let (_, at) = place(x, y, (x.low, tick));
        let (label, below, left) = (number(tick), at + 4.0, LEFT - 6.0);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text x=\"{left}\" y=\"{below:.1}\" text-anchor=\"end\">{label}</text>"
        );
    }
    for tick in x.ticks() {
        let (at, _) = place(x, y, (tick, y.low));
        let (label, below) = (number(tick), HEIGHT - 8.0);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label} s</text>"
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>"
    );
}

fn draw(svg: &mut String, curve: &Curve, index: usize, x: &Axis, y: &Axis) {
    let (name, colour) = (curve.name, curve.colour);
    let points = curve.points.iter().map(|point| {
        let (at, value) = place(x, y, *point);
        format!("{at:.1},{value:.1}")
    });
    let points: Vec<String> = points.collect();
    let _ = writeln!(
        svg,
        "<polyline class=\"curve\" stroke=\"{colour}\" points=\"{}\"><title>{name}</title></polyline>",
        points.join(" ")
    );
    // The legend, beside the curves and in their order.
    let (left, down) = (WIDTH - RIGHT + 12.0, TOP + 12.0 + 18.0 * index as f64);
    let (end, text, middle) = (left + 16.0, left + 21.0, down - 4.0);
    let _ = writeln!(
        svg,
        "<line stroke=\"{colour}\" stroke-width=\"3\" x1=\"{left}\" y1=\"{middle}\" x2=\"{end}\" y2=\"{middle}\"/>\
         <text x=\"{text}\" y=\"{down}\">{name}</text>"
    );
}

/// A number as short as it can be.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1e6 => format!("{:.1}M", value / 1e6),
        large if large >= 1e4 => format!("{:.0}k", value / 1e3),
        whole if (whole - whole.round()).abs() < 1e-6 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, points: &[(f64, f64)]) -> String {
        let curves = vec![Curve {
            name: "curve",
            colour: "#123456",
            points: points.to_vec(),
        }];
        let (id, title) = ("id", "Title");
        Plot {
            id,
            title,
            scale,
            curves,
        }
        .figure()
    }

    #[test]
    fn steps_are_round() {
        for (least, step) in [
            (0.011, 0.02),
            (0.1, 0.1),
            (0.9, 1.0),
            (3.0, 5.0),
            (6.0, 10.0),
            (1200.0, 2000.0),
        ] {
            assert!((round_step(least) - step).abs() < 1e-9, "{least}");
        }
    }

    #[test]
    fn every_point_lies_inside() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let figure = plot(scale, &[(1.0, 0.0), (2.0, 500.0), (3.0, 12.0)]);
            let points = figure
                .split("points=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap();
            let places: Vec<(f64, f64)> = points
                .split(' ')
                .map(|point| {
                    let (x, y) = point.split_once(',').unwrap();
                    (x.parse().unwrap(), y.parse().unwrap())
                })
                .collect();
            assert_eq!(places.len(), 3);
            for (x, y) in &places {
                assert!((LEFT..=WIDTH - RIGHT).contains(x) && (TOP..=HEIGHT - BOTTOM).contains(y));
            }
            // Larger is higher.
            assert!(places[1].1 < places[2].1 && places[2].1 <= places[0].1);
        }
    }

    #[test]
    fn one_point_is_no_curve() {
        assert!(plot(Scale::Linear, &[(1.0, 1.0)]).contains("Nothing was measured."));
        let flat = plot(Scale::Linear, &[(1.0, 0.0), (2.0, 0.0)]);
        assert!(flat.contains("<polyline") && !flat.contains("NaN"));
    }
}
