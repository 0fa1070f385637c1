//! Where things stand: the plot's area, its axes, and what of a series is visible.

use super::axis::{Settled, tick_labels};
use super::canvas::{HEIGHT, WIDTH};
use super::font::text_width;
use super::labels::{Area, Point};
use super::style::{MARGIN, TICK};
use super::{Chart, Series};

/// The plot's area and its axes.
pub(super) struct Frame {
    pub area: Area,
    pub x: Settled,
    pub y: Settled,
    pub x_labels: Vec<String>,
    pub y_labels: Vec<String>,
}

impl Frame {
    /// The pixel of a value; `None` where it cannot be drawn.
    pub fn place(&self, (x, y): Point) -> Option<Point> {
        let (right, up) = (self.x.share(x)?, self.y.share(y)?);
        // Far outside is clipped anyway; the bound keeps pixels within integers.
        let (right, up) = (right.clamp(-50.0, 50.0), up.clamp(-50.0, 50.0));
        Some((
            self.area.left + right * self.area.width(),
            self.area.bottom - up * self.area.height(),
        ))
    }

    /// The visible lines of a series: interrupted by values that cannot be drawn, cut at the plot's border.
    pub fn lines(&self, series: &Series) -> Vec<Vec<Point>> {
        let mut lines = vec![Vec::new()];
        let mut previous = None;
        for point in series.points.iter().map(|&point| self.place(point)) {
            let visible = previous
                .zip(point)
                .and_then(|(from, to)| clip(from, to, &self.area));
            previous = point;
            let Some((from, to)) = visible else { continue };
            let line = lines.last_mut().expect("there is always a line");
            if line.last() == Some(&from) {
                line.push(to);
            } else {
                lines.push(vec![from, to]);
            }
        }
        lines.retain(|line| line.len() > 1);
        lines
    }

    /// The visible values of a series.
    pub fn dots(&self, series: &Series) -> impl Iterator<Item = Point> {
        let edge = self.area.grown(0.5);
        series
            .points
            .iter()
            .filter_map(|&point| self.place(point))
            .filter(move |&dot| edge.contains(dot))
    }
}

/// Settles both axes: as many ticks as fit without their labels touching.
pub(super) fn lay_out(chart: &Chart, legend_rows: usize) -> Frame {
    let mut top = 84.0;
    if !chart.subtitle.is_empty() {
        top += 42.0;
    }
    top += 42.0 * legend_rows as f64 + 16.0;
    let bottom = f64::from(HEIGHT)
        - if chart.footer.is_empty() {
            100.0
        } else {
            134.0
        };
    let right = f64::from(WIDTH) - MARGIN - 20.0;
    let y_ticks = ((bottom - top) / 75.0) as usize;
    let mut x_ticks = 14;
    loop {
        let (x, y) = chart.settle(x_ticks, y_ticks);
        let x_labels = tick_labels(&x.ticks, chart.x.scale);
        let y_labels = tick_labels(&y.ticks, chart.y.scale);
        let widest = |labels: &[String]| {
            labels
                .iter()
                .map(|label| text_width(label, TICK))
                .fold(0.0, f64::max)
        };
        let left = MARGIN + 44.0 + widest(&y_labels) + 16.0;
        let area = Area {
            left,
            top,
            right,
            bottom,
        };
        let places: Vec<f64> = x.ticks.iter().filter_map(|&tick| x.share(tick)).collect();
        let narrowest = places
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .fold(1.0, f64::min)
            * area.width();
        if narrowest >= widest(&x_labels) + 28.0 || x_ticks == 2 {
            return Frame {
                area,
                x,
                y,
                x_labels,
                y_labels,
            };
        }
        x_ticks -= 1;
    }
}

/// The part of a segment inside the box (Liang and Barsky).
fn clip(from: Point, to: Point, area: &Area) -> Option<(Point, Point)> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut start, mut end) = (0.0f64, 1.0f64);
    // Each border as: how fast the segment leaves through it, how much room there is.
    for (speed, room) in [
        (-dx, from.0 - area.left),
        (dx, area.right - from.0),
        (-dy, from.1 - area.top),
        (dy, area.bottom - from.1),
    ] {
        if speed == 0.0 {
            if room < -1e-6 {
                return None;
            }
        } else if speed < 0.0 {
            start = start.max(room / speed);
        } else {
            end = end.min(room / speed);
        }
    }
    let at = |way: f64| (from.0 + way * dx, from.1 + way * dy);
    let first = if start == 0.0 { from } else { at(start) };
    let last = if end == 1.0 { to } else { at(end) };
    (start <= end).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area {
        left: 0.0,
        top: 0.0,
        right: 10.0,
        bottom: 10.0,
    };

    #[test]
    fn segments_are_cut_at_the_border() {
        assert_eq!(
            clip((1.0, 1.0), (2.0, 3.0), &AREA),
            Some(((1.0, 1.0), (2.0, 3.0)))
        );
        assert_eq!(
            clip((-10.0, 5.0), (20.0, 5.0), &AREA),
            Some(((0.0, 5.0), (10.0, 5.0)))
        );
        assert_eq!(
            clip((5.0, 5.0), (5.0, 15.0), &AREA),
            Some(((5.0, 5.0), (5.0, 10.0)))
        );
        assert_eq!(clip((-5.0, 5.0), (-1.0, 5.0), &AREA), None);
        assert_eq!(clip((20.0, 0.0), (0.0, 40.0), &AREA), None);
    }
}
