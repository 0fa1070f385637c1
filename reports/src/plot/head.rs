//! Above and below the plot: title, subtitle, legend, names of the axes, small print.

use super::canvas::{Anchor, Canvas, Drawn, HEIGHT, WIDTH};
use super::font::text_width;
use super::frame::Frame;
use super::style::{AXIS_TITLE, FOOTER, LEGEND, MARGIN, SUBTITLE, TITLE, fitting};
use super::{Chart, Mark, Series};
use plotters::backend::DrawingBackend;

pub(super) const LEGEND_KEY: f64 = 44.0;
pub(super) const LEGEND_GAP: f64 = 40.0;
/// From margin to margin.
pub(super) const ROOM: f64 = WIDTH as f64 - 2.0 * MARGIN;

/// More rows would leave no room for the plot.
const MOST_ROWS: usize = 6;

/// The named series, as many to a row as fit.
pub(super) struct Legend<'a> {
    rows: Vec<Vec<&'a Series>>,
    /// Series for which there is no room.
    left_out: usize,
}

impl<'a> Legend<'a> {
    /// Empty when there is nothing to tell apart.
    pub fn of(chart: &'a Chart) -> Legend<'a> {
        let named = chart.series.iter().filter(|series| !series.name.is_empty());
        let mut rows: Vec<Vec<&Series>> = Vec::new();
        let mut left = 0.0;
        for series in named {
            let width = legend_width(series) + LEGEND_GAP;
            if rows.is_empty() || left < width {
                rows.push(Vec::new());
                left = ROOM;
            }
            left -= width;
            rows.last_mut().expect("a row was pushed").push(series);
        }
        // The last row is needed to say how many are not listed.
        let kept = if rows.len() > MOST_ROWS {
            MOST_ROWS - 1
        } else {
            rows.len()
        };
        let left_out = rows.drain(kept..).map(|row| row.len()).sum();
        Legend { rows, left_out }
    }

    /// Lines that it takes.
    pub fn height(&self) -> usize {
        self.rows.len() + usize::from(self.left_out > 0)
    }
}

pub(super) fn legend_width(series: &Series) -> f64 {
    LEGEND_KEY + 12.0 + text_width(&legend_name(series), LEGEND)
}

fn legend_name(series: &Series) -> String {
    fitting(&series.name, ROOM - LEGEND_KEY - LEGEND_GAP - 12.0, LEGEND)
}

pub(super) fn draw<B: DrawingBackend>(
    chart: &Chart,
    legend: &Legend<'_>,
    frame: &Frame,
    canvas: &Canvas<B>,
) -> Drawn<B> {
    let mut y = 52.0;
    canvas.text(
        &fitting(&chart.title, ROOM, TITLE),
        (MARGIN, y),
        Anchor::Left,
        TITLE,
    )?;
    if !chart.subtitle.is_empty() {
        y += 44.0;
        canvas.text(
            &fitting(&chart.subtitle, ROOM, SUBTITLE),
            (MARGIN, y),
            Anchor::Left,
            SUBTITLE,
        )?;
    }
    for row in &legend.rows {
        y += 44.0;
        let mut x = MARGIN;
        for series in row {
            draw_key(series, (x, y), canvas)?;
            canvas.text(
                &legend_name(series),
                (x + LEGEND_KEY + 12.0, y),
                Anchor::Left,
                LEGEND,
            )?;
            x += legend_width(series) + LEGEND_GAP;
        }
    }
    if legend.left_out > 0 {
        let more = format!("and {} more", legend.left_out);
        canvas.text(&more, (MARGIN, y + 44.0), Anchor::Left, LEGEND)?;
    }
    let below = f64::from(HEIGHT) - 24.0;
    canvas.text(
        &fitting(&chart.footer, ROOM, FOOTER),
        (MARGIN, below),
        Anchor::Left,
        FOOTER,
    )?;
    let middle_x = (frame.area.left + frame.area.right) / 2.0;
    let middle_y = (frame.area.top + frame.area.bottom) / 2.0;
    canvas.text(
        &chart.x.label,
        (middle_x, frame.area.bottom + 72.0),
        Anchor::Middle,
        AXIS_TITLE,
    )?;
    canvas.text_upwards(&chart.y.label, (MARGIN, middle_y), AXIS_TITLE)
}

/// The sample of a series in the legend, centred on `y`.
pub(super) fn draw_key<B: DrawingBackend>(
    series: &Series,
    (x, y): (f64, f64),
    canvas: &Canvas<B>,
) -> Drawn<B> {
    let ink = series.hue.ink();
    let (line, middle) = ([(x, y), (x + LEGEND_KEY, y)], (x + LEGEND_KEY / 2.0, y));
    match series.mark {
        Mark::Line => canvas.line(&line, ink, 4.0),
        Mark::Dashes => canvas.dashes(&line, ink, 3.0),
        Mark::LineAndDots => {
            canvas.line(&line, ink, 4.0)?;
            canvas.disc(middle, 7.0, ink)
        }
        Mark::Dots => canvas.disc(middle, 7.0, ink),
        Mark::Rings => canvas.ring(middle, 6.0, ink, 2.0),
        Mark::Area => canvas.fill([(x, y - 9.0), (x + LEGEND_KEY, y + 9.0)], ink.faded(0.35)),
    }
}
