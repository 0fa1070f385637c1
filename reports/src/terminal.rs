//! Charts in the terminal: braille dots, 2 × 4 to a character, without colours.
//!
//! Values are rasterised on the fine grid of dots; what has to be told apart gets a character of its own on top: `o` for
//! what was ruled out, a letter for each of several lines, `1`, `2`, ... for named points. The legend below explains them.

use crate::numbers::short;
use crate::plot::{Chart, Direction, Mark, Series, tick_labels};
use std::fmt::Write;

/// How large a chart may be, in characters; the legend comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line, labels included; at least 30 are used.
    pub width: usize,
    /// Lines of the plot without title and axis; at least 4 are used.
    pub height: usize,
}

impl Default for Size {
    fn default() -> Self {
        Size {
            width: 96,
            height: 22,
        }
    }
}

/// Values of the only line of a chart.
const DOT: char = '•';

/// A plot area in characters.
struct Cells {
    columns: usize,
    lines: usize,
    /// The braille bits of each character.
    dots: Vec<u8>,
    /// What is written over the dots.
    letters: Vec<Option<char>>,
    /// Where a ring shows unless something else does.
    rings: Vec<bool>,
}

impl Cells {
    /// Bit of the dot at (column, line) of a character.
    const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

    fn new(columns: usize, lines: usize) -> Cells {
        Cells {
            columns,
            lines,
            dots: vec![0; columns * lines],
            letters: vec![None; columns * lines],
            rings: vec![false; columns * lines],
        }
    }

    /// The dot at shares of the axes, from the top left.
    fn dot_at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (
            x * (2 * self.columns - 1) as f64,
            (1.0 - y) * (4 * self.lines - 1) as f64,
        )
    }

    fn cell_of(&self, share: (f64, f64)) -> Option<usize> {
        let (x, y) = self.dot_at(share);
        let is_inside = (-0.5..2.0 * self.columns as f64 - 0.5).contains(&x)
            && (-0.5..4.0 * self.lines as f64 - 0.5).contains(&y);
        is_inside.then(|| {
            (y.round().max(0.0) as usize / 4) * self.columns + x.round().max(0.0) as usize / 2
        })
    }

    fn set(&mut self, share: (f64, f64)) {
        let Some(cell) = self.cell_of(share) else {
            return;
        };
        let (x, y) = self.dot_at(share);
        self.dots[cell] |=
            Self::BITS[x.round().max(0.0) as usize % 2][y.round().max(0.0) as usize % 4];
    }

    /// A line of dots; `every` 1 is solid, more is dotted.
    fn line(&mut self, from: (f64, f64), to: (f64, f64), every: usize) {
        let (a, b) = (self.dot_at(from), self.dot_at(to));
        let steps = (b.0 - a.0)
            .abs()
            .max((b.1 - a.1).abs())
            .ceil()
            .clamp(1.0, 10_000.0) as usize;
        for step in (0..=steps).step_by(every) {
            let way = step as f64 / steps as f64;
            self.set((
                from.0 + (to.0 - from.0) * way,
                from.1 + (to.1 - from.1) * way,
            ));
        }
    }

    fn write(&mut self, share: (f64, f64), letter: char) {
        if let Some(cell) = self.cell_of(share) {
            self.letters[cell] = Some(letter);
        }
    }

    fn ring(&mut self, share: (f64, f64)) {
        if let Some(cell) = self.cell_of(share) {
            self.rings[cell] = true;
        }
    }

    fn text(&self, line: usize) -> String {
        let cells = line * self.columns..(line + 1) * self.columns;
        let character = |cell: usize| match (self.letters[cell], self.dots[cell]) {
            (Some(letter), _) => letter,
            (None, 0) if self.rings[cell] => 'o',
            (None, 0) => ' ',
            (None, bits) => {
                char::from_u32(0x2800 + u32::from(bits)).expect("all 256 patterns are characters")
            }
        };
        cells
            .map(character)
            .collect::<String>()
            .trim_end()
            .to_owned()
    }
}

/// The chart as lines of text, each at most `size.width` characters wide.
#[must_use]
pub fn draw(chart: &Chart, size: Size) -> String {
    let (width, height) = (size.width.max(30), size.height.max(4));
    let (x, y) = chart.settle((width / 14).max(2), (height / 4).max(2));
    let y_labels = tick_labels(&y.ticks, chart.y.scale);
    let margin = y_labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0)
        .min(width / 3);
    let mut cells = Cells::new(width - margin - 2, height);
    let share = |point: (f64, f64)| Some((x.share(point.0)?, y.share(point.1)?));
    for limit in &chart.limits {
        let (from, to) = match (limit.across, x.share(limit.at), y.share(limit.at)) {
            (Direction::X, Some(at), _) => ((at, 0.0), (at, 1.0)),
            (Direction::Y, _, Some(at)) => ((0.0, at), (1.0, at)),
            _ => continue,
        };
        cells.line(from, to, 3);
    }
    let letters = letters(&chart.series);
    for (series, letter) in chart.series.iter().zip(&letters) {
        let points: Vec<_> = series.points.iter().map(|&point| share(point)).collect();
        if !matches!(series.mark, Mark::Dots | Mark::Rings) {
            for pair in points.windows(2) {
                if let (Some(from), Some(to)) = (pair[0], pair[1]) {
                    cells.line(from, to, if series.mark == Mark::Dashes { 2 } else { 1 });
                }
            }
        }
        let places = points.iter().flatten();
        match (series.mark, letter) {
            (Mark::Rings, _) => places.for_each(|&place| cells.ring(place)),
            (_, None) => places.for_each(|&place| cells.set(place)),
            (_, Some(DOT)) => places.for_each(|&place| cells.write(place, DOT)),
            // A letter every so often keeps long lines apart.
            (_, Some(letter)) => places
                .step_by(1 + points.len() / 8)
                .for_each(|&place| cells.write(place, *letter)),
        }
    }
    for (note, name) in chart.notes.iter().zip('1'..='9') {
        share(note.at)
            .into_iter()
            .for_each(|place| cells.write(place, name));
    }
    let line_of = |tick: f64| {
        y.share(tick)
            .map(|share| ((1.0 - share) * (height - 1) as f64).round() as usize)
    };
    let mut out = String::new();
    let mut push = |text: &str| {
        out.extend(
            text.chars()
                .take(width)
                .collect::<String>()
                .trim_end()
                .chars()
                .chain(['\n']),
        );
    };
    push(&chart.title);
    push(&format!(
        "{}{}",
        " ".repeat(margin.saturating_sub(chart.y.label.chars().count() / 2)),
        chart.y.label
    ));
    for line in 0..height {
        let tick = y.ticks.iter().position(|&tick| line_of(tick) == Some(line));
        let (label, edge) = tick.map_or(("", '│'), |tick| (y_labels[tick].as_str(), '┤'));
        push(&format!("{label:>margin$} {edge}{}", cells.text(line)));
    }
    push(&format!("{:margin$} └{}", "", "─".repeat(cells.columns)));
    let labels = tick_labels(&x.ticks, chart.x.scale);
    let columns = x.ticks.iter().map(|&tick| {
        x.share(tick)
            .map_or(0.0, |share| share * (cells.columns - 1) as f64)
    });
    push(&row_of_labels(
        columns
            .map(|column| column + margin as f64 + 2.0)
            .zip(labels),
        width,
    ));
    push(&format!(
        "{:>1$}",
        chart.x.label,
        margin + 2 + cells.columns.midpoint(chart.x.label.chars().count())
    ));
    legend(chart, &letters).iter().for_each(|line| push(line));
    out
}

/// Labels centred on their columns; one that would touch the previous is left out.
fn row_of_labels(labels: impl Iterator<Item = (f64, String)>, width: usize) -> String {
    let mut row = String::new();
    for (column, label) in labels {
        let length = label.chars().count();
        let start = ((column - length as f64 / 2.0).round().max(0.0) as usize)
            .min(width.saturating_sub(length));
        let used = row.chars().count();
        if used == 0 || start > used {
            let _ = write!(row, "{}{label}", " ".repeat(start - used));
        }
    }
    row
}

/// A character for each series that needs one: `o` for rings, letters when several lines share the plot.
fn letters(series: &[Series]) -> Vec<Option<char>> {
    let is_line = |series: &Series| !matches!(series.mark, Mark::Dots | Mark::Rings);
    let lines = series.iter().filter(|series| is_line(series)).count();
    let mut names = ('a'..='z').filter(|letter| *letter != 'o').cycle();
    let letter = |series: &Series| match series.mark {
        Mark::Rings => Some('o'),
        Mark::Dots => None,
        _ if lines > 1 => names.next(),
        Mark::LineAndDots => Some(DOT),
        _ => None,
    };
    series.iter().map(letter).collect()
}

fn legend(chart: &Chart, letters: &[Option<char>]) -> Vec<String> {
    let named = chart
        .series
        .iter()
        .zip(letters)
        .filter(|(series, _)| !series.name.is_empty());
    let series =
        named.map(|(series, letter)| format!("  {} {}", letter.unwrap_or('⠶'), series.name));
    let limits = chart
        .limits
        .iter()
        .filter(|limit| limit.at.is_finite())
        .map(|limit| format!("  ⡇ {} ({})", limit.label, short(limit.at)));
    let notes = chart.notes.iter().zip('1'..='9').flat_map(|(note, name)| {
        let rows = note.text.lines().enumerate();
        rows.map(move |(row, text)| {
            if row == 0 {
                format!("  {name} {text}")
            } else {
                format!("    {text}")
            }
        })
    });
    series.chain(limits).chain(notes).collect()
}
