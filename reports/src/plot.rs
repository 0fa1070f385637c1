//! Pictures: a chart is plain data, drawn as PNG or SVG at slide quality, or in the terminal (`crate::terminal`).
//!
//! ```text
//! Frontier | Curves | Distributions  →  Chart  →  draw on a canvas  →  .png, .svg
//!                                             └→  braille dots      →  terminal
//! ```
//!
//! Anything that is not one of the ready-made pictures is a [`Chart`] filled in by hand. Colours are those of Okabe and
//! Ito, which people who cannot tell red from green still tell apart; the font is built in, so that a picture has the
//! same bytes on every machine.

mod axis;
mod callouts;
mod canvas;
mod curves;
mod draw;
mod font;
mod frame;
mod frontier;
mod head;
mod labels;
mod panels;
mod style;

pub use curves::{Curves, Distributions};
pub use frontier::{Frontier, FrontierPoint};
pub use panels::Panels;

pub(crate) use axis::{Settled, tick_labels};

use crate::files::{Error, write_atomically};
use std::io::{self, Write};
use std::path::Path;

/// A picture of numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// The message, in a few words.
    pub title: String,
    /// What was run, in one line; may be empty.
    pub subtitle: String,
    /// One line of small print at the bottom: where the numbers come from; may be empty.
    pub footer: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, first to last. Values that are not finite (or not positive on a logarithmic axis) are left out and
    /// interrupt a line.
    pub series: Vec<Series>,
    /// Straight lines across the whole picture: limits.
    pub limits: Vec<Limit>,
    /// Points with a name.
    pub notes: Vec<Note>,
}

/// An axis. Its range covers the data unless given.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Axis {
    /// What it shows, with its unit: `output tokens/s/GPU`.
    pub label: String,
    /// How values are spaced.
    pub scale: Scale,
    /// Where it starts.
    pub from: Option<f64>,
    /// Where it ends.
    pub to: Option<f64>,
}

/// How values are spaced along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By their logarithm.
    Log,
}

/// Values that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend; a series without one is not listed.
    pub name: String,
    /// (x, y), in the order in which a line joins them.
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub mark: Mark,
    /// In which colour.
    pub hue: Hue,
}

/// How the values of a series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    Line,
    /// A dashed line.
    Dashes,
    /// A line with a dot at every value.
    LineAndDots,
    /// Light dots, fit for thousands of values.
    Dots,
    /// Hollow dots: what was ruled out.
    Rings,
    /// The area between a line and the horizontal axis, lightly filled.
    Area,
}

/// The colours that keep apart (Okabe and Ito, 2008).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Hue {
    Blue,
    Vermillion,
    Green,
    Purple,
    Orange,
    Sky,
    Grey,
    Black,
}

impl Hue {
    /// The colour of the `index`-th line of several; after six they repeat.
    #[must_use]
    pub const fn nth(index: usize) -> Hue {
        [
            Hue::Blue,
            Hue::Vermillion,
            Hue::Green,
            Hue::Purple,
            Hue::Orange,
            Hue::Sky,
        ][index % 6]
    }
}

/// A dashed line across the whole picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// Which axis it crosses: `X` stands upright.
    pub across: Direction,
    /// Where.
    pub at: f64,
    /// Written beside it.
    pub label: String,
}

/// One of the two axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The horizontal axis.
    X,
    /// The vertical axis.
    Y,
}

/// A point with a name, placed where it hides least.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// The point.
    pub at: (f64, f64),
    /// Its name; further lines are printed smaller.
    pub text: String,
    /// The colour of its dot.
    pub hue: Hue,
}

impl Chart {
    /// Writes the picture, 1600 × 1000 pixels, in the format that the extension names: `.png` or `.svg`.
    ///
    /// # Errors
    /// Another extension, or a file that cannot be written; nothing half-written is left.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let png = |out: &mut dyn Write| {
            canvas::png(out, canvas::HEIGHT, |canvas| draw::chart(self, canvas))
        };
        write_picture(path, png, || self.svg())
    }

    /// The picture as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        canvas::svg(canvas::HEIGHT, |canvas| draw::chart(self, canvas))
    }

    /// The axes with their ranges over everything drawn. A limit far from the data does not stretch a range.
    pub(crate) fn settle(&self, most_x_ticks: usize, most_y_ticks: usize) -> (Settled, Settled) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let drawn = || points().chain(self.notes.iter().map(|note| &note.at));
        let xs: Vec<f64> = drawn()
            .map(|point| point.0)
            .chain(self.near_limits(Direction::X))
            .collect();
        let ys: Vec<f64> = drawn()
            .map(|point| point.1)
            .chain(self.near_limits(Direction::Y))
            .collect();
        (
            self.x.settle(&xs, most_x_ticks),
            self.y.settle(&ys, most_y_ticks),
        )
    }

    /// The limits across an axis that lie within three times the largest value.
    fn near_limits(&self, across: Direction) -> impl Iterator<Item = f64> {
        let value = move |point: &(f64, f64)| {
            if across == Direction::X {
                point.0
            } else {
                point.1
            }
        };
        let values = self
            .series
            .iter()
            .flat_map(|series| &series.points)
            .map(value);
        let largest = values
            .filter(|value| value.is_finite())
            .fold(f64::NEG_INFINITY, f64::max);
        let limits = self
            .limits
            .iter()
            .filter(move |limit| limit.across == across)
            .map(|limit| limit.at);
        limits.filter(move |&limit| largest == f64::NEG_INFINITY || limit <= 3.0 * largest)
    }
}

/// Writes a picture in the format that the extension names.
fn write_picture(
    path: &Path,
    png: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    svg: impl FnOnce() -> String,
) -> Result<(), Error> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("png") => write_atomically(path, |out| png(out)),
        Some("svg") => write_atomically(path, |out| out.write_all(svg().as_bytes())),
        _ => Err(Error::new(
            path,
            "write",
            &"a picture is a .png or a .svg file",
        )),
    }
}
