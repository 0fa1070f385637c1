//! Writing inside the plot: what a limit means, and the names of points.

use super::canvas::{Anchor, Canvas, Drawn, Ink};
use super::font::{Font, text_width};
use super::frame::Frame;
use super::labels::{Area, Obstacles, Point, Wanted};
use super::style::{NOTE, NOTE_NAME, WHITE, fitting};
use super::{Axis, Chart, Direction, Hue, Limit, Note};
use crate::numbers::short;
use plotters::backend::DrawingBackend;

/// Draws the limits as dashed lines with their labels, which later texts avoid.
pub(super) fn draw_limits<B: DrawingBackend>(
    chart: &Chart,
    frame: &Frame,
    obstacles: &mut Obstacles,
    canvas: &Canvas<B>,
) -> Drawn<B> {
    let (area, ink) = (&frame.area, Hue::Black.ink());
    for limit in &chart.limits {
        let (share, axis) = match limit.across {
            Direction::X => (frame.x.share(limit.at), &chart.x),
            Direction::Y => (frame.y.share(limit.at), &chart.y),
        };
        let Some(share) = share else { continue };
        let is_inside = (0.0..=1.0).contains(&share);
        let label = if is_inside {
            limit.label.clone()
        } else {
            off_the_scale(limit, axis)
        };
        let line = limit_line(limit.across, share.clamp(0.0, 1.0), area);
        let size = (text_width(&label, NOTE) + 12.0, 32.0);
        let places = beside(limit.across, line, size);
        if is_inside {
            canvas.dashes(&line, ink, 2.5)?;
        }
        let place = places[obstacles.best_of(&places, area)];
        canvas.fill(
            [(place.left, place.top), (place.right, place.bottom)],
            WHITE.faded(0.8),
        )?;
        canvas.text(
            &label,
            (place.left + 6.0, (place.top + place.bottom) / 2.0),
            Anchor::Left,
            NOTE,
        )?;
        obstacles.texts.push(place);
        obstacles.add_line(&line);
    }
    Ok(())
}

/// Words for a limit that lies outside the picture.
fn off_the_scale(limit: &Limit, axis: &Axis) -> String {
    format!(
        "{} (off the scale: {} {})",
        limit.label,
        short(limit.at),
        axis.label
    )
}

/// The line across the plot at a share of the axis.
fn limit_line(across: Direction, share: f64, area: &Area) -> [Point; 2] {
    match across {
        Direction::X => {
            let x = area.left + share * area.width();
            [(x, area.top), (x, area.bottom)]
        }
        Direction::Y => {
            let y = area.bottom - share * area.height();
            [(area.left, y), (area.right, y)]
        }
    }
}

/// The places for a label of this size beside a line: on both sides, at both ends.
fn beside(across: Direction, line: [Point; 2], (width, height): (f64, f64)) -> [Area; 4] {
    let boxed = |left: f64, top: f64| Area {
        left,
        top,
        right: left + width,
        bottom: top + height,
    };
    let [start, end] = line;
    match across {
        Direction::X => {
            let (right, left) = (start.0 + 8.0, start.0 - 8.0 - width);
            let (top, bottom) = (start.1 + 4.0, end.1 - height - 4.0);
            [
                boxed(right, top),
                boxed(left, top),
                boxed(right, bottom),
                boxed(left, bottom),
            ]
        }
        Direction::Y => {
            let (above, below) = (start.1 - height - 3.0, start.1 + 3.0);
            let (left, right) = (start.0 + 8.0, end.0 - width - 8.0);
            [
                boxed(right, above),
                boxed(left, above),
                boxed(right, below),
                boxed(left, below),
            ]
        }
    }
}

/// A note as it will be drawn.
struct Callout {
    wanted: Wanted,
    rows: Vec<String>,
    ink: Ink,
}

const ROW: f64 = 32.0;
const PADDING: f64 = 12.0;

const fn font(row: usize) -> Font {
    if row == 0 { NOTE_NAME } else { NOTE }
}

impl Callout {
    /// `None` for a note outside the plot.
    fn of(note: &Note, frame: &Frame) -> Option<Callout> {
        let at = frame
            .place(note.at)
            .filter(|&at| frame.area.grown(0.5).contains(at))?;
        let room = frame.area.width() * 0.45;
        let lines = note.text.lines().enumerate();
        let rows: Vec<String> = lines
            .map(|(row, text)| fitting(text, room, font(row)))
            .collect();
        let widths = rows
            .iter()
            .enumerate()
            .map(|(row, text)| text_width(text, font(row)));
        let size = (
            widths.fold(0.0, f64::max) + 2.0 * PADDING,
            rows.len() as f64 * ROW + PADDING,
        );
        Some(Callout {
            wanted: Wanted { at, size },
            rows,
            ink: note.hue.ink(),
        })
    }

    fn draw_box<B: DrawingBackend>(&self, place: &Area, canvas: &Canvas<B>) -> Drawn<B> {
        let Area {
            left,
            top,
            right,
            bottom,
        } = *place;
        canvas.line(
            &[self.wanted.at, place.nearest(self.wanted.at)],
            self.ink,
            2.0,
        )?;
        canvas.fill([(left, top), (right, bottom)], WHITE.faded(0.92))?;
        let around = [
            (left, top),
            (right, top),
            (right, bottom),
            (left, bottom),
            (left, top),
        ];
        canvas.line(&around, self.ink, 2.0)?;
        for (row, text) in self.rows.iter().enumerate() {
            let middle = top + PADDING / 2.0 + (row as f64 + 0.5) * ROW;
            canvas.text(text, (left + PADDING, middle), Anchor::Left, font(row))?;
        }
        Ok(())
    }

    fn draw_dot<B: DrawingBackend>(&self, canvas: &Canvas<B>) -> Drawn<B> {
        canvas.disc(self.wanted.at, 11.0, WHITE)?;
        canvas.disc(self.wanted.at, 9.0, self.ink)
    }
}

/// Names the points of interest where that hides least.
pub(super) fn draw_notes<B: DrawingBackend>(
    chart: &Chart,
    frame: &Frame,
    obstacles: &Obstacles,
    canvas: &Canvas<B>,
) -> Drawn<B> {
    let callouts: Vec<Callout> = chart
        .notes
        .iter()
        .filter_map(|note| Callout::of(note, frame))
        .collect();
    let wanted: Vec<Wanted> = callouts.iter().map(|callout| callout.wanted).collect();
    let places = obstacles.place_all(&wanted, &frame.area);
    for (callout, place) in callouts.iter().zip(&places) {
        callout.draw_box(place, canvas)?;
    }
    callouts
        .iter()
        .try_for_each(|callout| callout.draw_dot(canvas))
}
