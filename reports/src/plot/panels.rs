//! Several charts below each other that share the horizontal axis: what happened at one moment stands in one column.
//!
//! All panels are as wide and as high as each other. The range of the horizontal axis covers the data of all; only the last
//! panel names its ticks. Each has its own vertical axis, its name and its legend above it.

use super::callouts::{draw_limits, draw_notes};
use super::canvas::{self, Anchor, Canvas, Drawn, WIDTH};
use super::draw::{draw_axes, draw_series, obstacles};
use super::font::text_width;
use super::frame::Frame;
use super::head::{LEGEND_GAP, LEGEND_KEY, ROOM, draw_key, legend_width};
use super::labels::Area;
use super::style::{
    AXIS_TITLE, FOOTER, LEGEND, MARGIN, NOTE_NAME, SUBTITLE, TICK, TITLE, WHITE, fitting,
};
use super::{Axis, Chart, Settled, tick_labels, write_picture};
use crate::files::Error;
use plotters::backend::DrawingBackend;
use std::io::Write;
use std::path::Path;

/// A picture of several charts over one horizontal axis. Of a chart its title, vertical axis, series, limits and notes count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Panels {
    /// The message, in a few words.
    pub title: String,
    /// What was run, in one line; may be empty.
    pub subtitle: String,
    /// One line of small print at the bottom; may be empty.
    pub footer: String,
    /// The horizontal axis of all.
    pub x: Axis,
    /// From top to bottom.
    pub charts: Vec<Chart>,
}

/// Of the title and subtitle.
const HEAD: f64 = 120.0;
/// Of a panel's name and legend.
const NAME: f64 = 66.0;
/// Of a panel's plot.
const PLOT: f64 = 260.0;
/// Between two panels.
const GAP: f64 = 22.0;
/// Of the names below the last panel.
const FOOT: f64 = 130.0;

impl Panels {
    /// Writes the picture, 1600 pixels wide, in the format that the extension names: `.png` or `.svg`.
    ///
    /// # Errors
    /// Another extension, or a file that cannot be written; nothing half-written is left.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let png = |out: &mut dyn Write| canvas::png(out, self.height(), |canvas| self.draw(canvas));
        write_picture(path, png, || self.svg())
    }

    /// The picture as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        canvas::svg(self.height(), |canvas| self.draw(canvas))
    }

    fn height(&self) -> u32 {
        let panels = self.charts.len() as f64 * (NAME + PLOT + GAP);
        (HEAD + panels + FOOT) as u32
    }

    /// The frames of all panels: as many ticks of the horizontal axis as fit without their labels touching.
    fn frames(&self) -> Vec<Frame> {
        let series = self.charts.iter().flat_map(|chart| &chart.series);
        let xs: Vec<f64> = series
            .flat_map(|series| &series.points)
            .map(|point| point.0)
            .collect();
        let ys: Vec<(Settled, Vec<String>)> = self.charts.iter().map(y_axis).collect();
        let widest = |labels: &[String]| {
            let widths = labels.iter().map(|label| text_width(label, TICK));
            widths.fold(0.0, f64::max)
        };
        let labels = ys.iter().map(|(_, labels)| widest(labels));
        let left = MARGIN + 44.0 + labels.fold(0.0, f64::max) + 16.0;
        let right = f64::from(WIDTH) - MARGIN - 20.0;
        let mut most_ticks = 14;
        let (x, x_labels) = loop {
            let x = self.x.settle(&xs, most_ticks);
            let labels = tick_labels(&x.ticks, self.x.scale);
            let room = (right - left) / x.ticks.len().max(1) as f64;
            if room >= widest(&labels) + 28.0 || most_ticks == 2 {
                break (x, labels);
            }
            most_ticks -= 1;
        };
        let last = ys.len().saturating_sub(1);
        let frame = |(index, (y, y_labels)): (usize, (Settled, Vec<String>))| {
            let top = HEAD + index as f64 * (NAME + PLOT + GAP) + NAME;
            let silent = || vec![String::new(); x_labels.len()];
            Frame {
                area: Area {
                    left,
                    top,
                    right,
                    bottom: top + PLOT,
                },
                x: x.clone(),
                y,
                x_labels: if index == last {
                    x_labels.clone()
                } else {
                    silent()
                },
                y_labels,
            }
        };
        ys.into_iter().enumerate().map(frame).collect()
    }

    fn draw<B: DrawingBackend>(&self, canvas: &Canvas<B>) -> Drawn<B> {
        let height = f64::from(self.height());
        canvas.fill([(0.0, 0.0), (f64::from(WIDTH), height)], WHITE)?;
        let line = |text: &str, y: f64, font| {
            canvas.text(&fitting(text, ROOM, font), (MARGIN, y), Anchor::Left, font)
        };
        line(&self.title, 52.0, TITLE)?;
        line(&self.subtitle, 96.0, SUBTITLE)?;
        line(&self.footer, height - 24.0, FOOTER)?;
        let frames = self.frames();
        for (chart, frame) in self.charts.iter().zip(&frames) {
            panel(chart, frame, canvas)?;
        }
        let Some(last) = frames.last() else {
            return Ok(());
        };
        let middle = (last.area.left + last.area.right) / 2.0;
        let below = (middle, last.area.bottom + 68.0);
        canvas.text(&self.x.label, below, Anchor::Middle, AXIS_TITLE)
    }
}

/// The range and labels of a panel's own axis.
fn y_axis(chart: &Chart) -> (Settled, Vec<String>) {
    let (_, y) = chart.settle(2, (PLOT / 55.0) as usize);
    let labels = tick_labels(&y.ticks, chart.y.scale);
    (y, labels)
}

fn panel<B: DrawingBackend>(chart: &Chart, frame: &Frame, canvas: &Canvas<B>) -> Drawn<B> {
    let y = frame.area.top - 28.0;
    canvas.text(&chart.title, (MARGIN, y), Anchor::Left, NOTE_NAME)?;
    // The legend stands at the right, its last entry at the border of the plot.
    let named = chart.series.iter().filter(|series| !series.name.is_empty());
    let mut right = f64::from(WIDTH) - MARGIN;
    let start = MARGIN + text_width(&chart.title, NOTE_NAME) + LEGEND_GAP;
    for series in named.collect::<Vec<_>>().into_iter().rev() {
        let x = right - legend_width(series);
        if x < start {
            break;
        }
        draw_key(series, (x, y), canvas)?;
        let text = (x + LEGEND_KEY + 12.0, y);
        canvas.text(&series.name, text, Anchor::Left, LEGEND)?;
        right = x - LEGEND_GAP;
    }
    let middle = (frame.area.top + frame.area.bottom) / 2.0;
    canvas.text_upwards(&chart.y.label, (MARGIN, middle), AXIS_TITLE)?;
    draw_axes(frame, canvas)?;
    for series in &chart.series {
        draw_series(series, frame, canvas)?;
    }
    let mut obstacles = obstacles(chart, frame);
    draw_limits(chart, frame, &mut obstacles, canvas)?;
    draw_notes(chart, frame, &obstacles, canvas)
}

#[cfg(test)]
mod tests {
    use super::super::{Hue, Mark, Series};
    use super::*;

    fn chart(title: &str, points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: title.to_owned(),
            series: vec![Series {
                name: format!("line of {title}"),
                points,
                mark: Mark::Line,
                hue: Hue::Blue,
            }],
            ..Chart::default()
        }
    }

    #[test]
    fn a_moment_stands_in_one_column_of_all_panels() {
        let panels = Panels {
            charts: vec![
                chart("first", vec![(0.0, 1.0), (50.0, 2.0)]),
                chart("second", vec![(0.0, 1000.0), (100.0, 20_000.0)]),
            ],
            ..Panels::default()
        };
        let frames = panels.frames();
        let column = |frame: &Frame, y: f64| frame.place((50.0, y)).expect("it is inside").0;
        assert_eq!(column(&frames[0], 2.0), column(&frames[1], 1000.0));
        assert!(frames[0].area.bottom < frames[1].area.top);
        // Only the last names its ticks.
        assert!(frames[0].x_labels.iter().all(String::is_empty));
        assert!(frames[1].x_labels.iter().any(|label| label == "50"));
        let svg = panels.svg();
        for text in ["first", "line of second"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
