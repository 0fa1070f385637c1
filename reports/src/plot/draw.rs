//! Draws a chart on a canvas: head (title, subtitle, legend), grid and axes, data, limits, notes, small print.

use super::axis::{Settled, tick_labels};
use super::canvas::{Anchor, Canvas, Font, HEIGHT, Ink, WIDTH, text_width};
use super::labels::{Area, Obstacles};
use super::{Chart, Direction, Hue, Mark, Series};
use plotters::backend::DrawingBackend;
use plotters::drawing::DrawingAreaErrorKind;

const TEXT: Ink = Ink::solid(38, 38, 38);
const FAINT_TEXT: Ink = Ink::solid(105, 105, 105);
const GRID: Ink = Ink::solid(228, 228, 228);
const AXIS: Ink = Ink::solid(120, 120, 120);
const WHITE: Ink = Ink::solid(255, 255, 255);

const TITLE: Font = Font {
    size: 42.0,
    is_bold: true,
    ink: TEXT,
};
const SUBTITLE: Font = Font {
    size: 27.0,
    is_bold: false,
    ink: FAINT_TEXT,
};
const LEGEND: Font = Font {
    size: 27.0,
    is_bold: false,
    ink: TEXT,
};
const AXIS_TITLE: Font = Font {
    size: 29.0,
    is_bold: false,
    ink: TEXT,
};
const TICK: Font = Font {
    size: 26.0,
    is_bold: false,
    ink: TEXT,
};
const NOTE_NAME: Font = Font {
    size: 27.0,
    is_bold: true,
    ink: TEXT,
};
const NOTE: Font = Font {
    size: 24.0,
    is_bold: false,
    ink: TEXT,
};
const FOOTER: Font = Font {
    size: 20.0,
    is_bold: false,
    ink: FAINT_TEXT,
};

/// Room at the left and right edge of the picture.
const MARGIN: f64 = 44.0;

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl Hue {
    const fn ink(self) -> Ink {
        match self {
            Hue::Blue => Ink::solid(0, 114, 178),
            Hue::Vermillion => Ink::solid(213, 94, 0),
            Hue::Green => Ink::solid(0, 158, 115),
            Hue::Purple => Ink::solid(204, 121, 167),
            Hue::Orange => Ink::solid(230, 159, 0),
            Hue::Sky => Ink::solid(86, 180, 233),
            Hue::Grey => Ink::solid(130, 130, 130),
            Hue::Black => TEXT,
        }
    }
}

/// Where things stand: the plot's area and its axes.
struct Frame {
    area: Area,
    x: Settled,
    y: Settled,
    x_labels: Vec<String>,
    y_labels: Vec<String>,
}

impl Frame {
    /// The pixel of a value; `None` where it cannot be drawn.
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let (right, up) = (self.x.share(x)?, self.y.share(y)?);
        // Far outside is clipped anyway; the bound keeps pixels within integers.
        let (right, up) = (right.clamp(-50.0, 50.0), up.clamp(-50.0, 50.0));
        Some((
            self.area.left + right * self.area.width(),
            self.area.bottom - up * self.area.height(),
        ))
    }

    /// The visible lines of a series: interrupted by values that cannot be drawn, cut at the plot's border.
    fn lines(&self, series: &Series) -> Vec<Vec<(f64, f64)>> {
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
    fn dots(&self, series: &Series) -> impl Iterator<Item = (f64, f64)> {
        let edge = self.area.grown(0.5);
        series
            .points
            .iter()
            .filter_map(|&point| self.place(point))
            .filter(move |&dot| edge.contains(dot))
    }
}

/// The picture.
pub(super) fn chart<B: DrawingBackend>(chart: &Chart, canvas: &Canvas<B>) -> Drawn<B> {
    canvas.fill([(0.0, 0.0), (f64::from(WIDTH), f64::from(HEIGHT))], WHITE)?;
    let rows = legend_rows(chart);
    let frame = lay_out(chart, rows.len());
    draw_head(chart, &rows, &frame, canvas)?;
    draw_axes(&frame, canvas)?;
    for series in &chart.series {
        draw_series(series, &frame, canvas)?;
    }
    let mut obstacles = obstacles(chart, &frame);
    draw_limits(chart, &frame, &mut obstacles, canvas)?;
    draw_notes(chart, &frame, &mut obstacles, canvas)?;
    if chart
        .series
        .iter()
        .all(|series| frame.dots(series).next().is_none())
    {
        let middle = (
            (frame.area.left + frame.area.right) / 2.0,
            (frame.area.top + frame.area.bottom) / 2.0,
        );
        canvas.text(
            "no data",
            middle,
            Anchor::Middle,
            Font {
                ink: FAINT_TEXT,
                ..TITLE
            },
        )?;
    }
    Ok(())
}

/// Settles both axes: as many ticks as fit without their labels touching.
fn lay_out(chart: &Chart, legend_rows: usize) -> Frame {
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

const LEGEND_KEY: f64 = 44.0;
const LEGEND_GAP: f64 = 40.0;

fn legend_width(series: &Series) -> f64 {
    LEGEND_KEY + 12.0 + text_width(&series.name, LEGEND)
}

/// The named series, as many to a row as fit; none when there is nothing to tell apart.
fn legend_rows(chart: &Chart) -> Vec<Vec<&Series>> {
    let named: Vec<&Series> = chart
        .series
        .iter()
        .filter(|series| !series.name.is_empty())
        .collect();
    let mut rows: Vec<Vec<&Series>> = Vec::new();
    let mut left = 0.0;
    for series in named {
        let width = legend_width(series) + LEGEND_GAP;
        if rows.is_empty() || left < width {
            rows.push(Vec::new());
            left = f64::from(WIDTH) - 2.0 * MARGIN;
        }
        left -= width;
        rows.last_mut().expect("a row was pushed").push(series);
    }
    rows
}

fn draw_head<B: DrawingBackend>(
    chart: &Chart,
    rows: &[Vec<&Series>],
    frame: &Frame,
    canvas: &Canvas<B>,
) -> Drawn<B> {
    let room = f64::from(WIDTH) - 2.0 * MARGIN;
    let mut y = 52.0;
    canvas.text(
        &fitting(&chart.title, room, TITLE),
        (MARGIN, y),
        Anchor::Left,
        TITLE,
    )?;
    if !chart.subtitle.is_empty() {
        y += 44.0;
        canvas.text(
            &fitting(&chart.subtitle, room, SUBTITLE),
            (MARGIN, y),
            Anchor::Left,
            SUBTITLE,
        )?;
    }
    for row in rows {
        y += 44.0;
        let mut x = MARGIN;
        for series in row {
            draw_key(series, (x, y), canvas)?;
            canvas.text(
                &series.name,
                (x + LEGEND_KEY + 12.0, y),
                Anchor::Left,
                LEGEND,
            )?;
            x += legend_width(series) + LEGEND_GAP;
        }
    }
    let below = f64::from(HEIGHT) - 24.0;
    canvas.text(
        &fitting(&chart.footer, room, FOOTER),
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
fn draw_key<B: DrawingBackend>(
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

fn draw_axes<B: DrawingBackend>(frame: &Frame, canvas: &Canvas<B>) -> Drawn<B> {
    let area = &frame.area;
    for (&tick, label) in frame.y.ticks.iter().zip(&frame.y_labels) {
        let y = area.bottom - frame.y.share(tick).unwrap_or(0.0) * area.height();
        canvas.line(&[(area.left, y), (area.right, y)], GRID, 1.0)?;
        canvas.text(label, (area.left - 14.0, y), Anchor::Right, TICK)?;
    }
    for (&tick, label) in frame.x.ticks.iter().zip(&frame.x_labels) {
        let x = area.left + frame.x.share(tick).unwrap_or(0.0) * area.width();
        canvas.line(&[(x, area.top), (x, area.bottom)], GRID, 1.0)?;
        canvas.line(&[(x, area.bottom), (x, area.bottom + 7.0)], AXIS, 2.0)?;
        canvas.text(label, (x, area.bottom + 28.0), Anchor::Middle, TICK)?;
    }
    canvas.line(
        &[(area.left, area.top), (area.left, area.bottom)],
        AXIS,
        2.0,
    )?;
    canvas.line(
        &[(area.left, area.bottom), (area.right, area.bottom)],
        AXIS,
        2.0,
    )?;
    Ok(())
}

fn draw_series<B: DrawingBackend>(series: &Series, frame: &Frame, canvas: &Canvas<B>) -> Drawn<B> {
    let ink = series.hue.ink();
    match series.mark {
        Mark::Line => frame
            .lines(series)
            .iter()
            .try_for_each(|line| canvas.line(line, ink, 4.0)),
        Mark::Dashes => frame
            .lines(series)
            .iter()
            .try_for_each(|line| canvas.dashes(line, ink, 3.0)),
        Mark::LineAndDots => {
            frame
                .lines(series)
                .iter()
                .try_for_each(|line| canvas.line(line, ink, 4.0))?;
            frame
                .dots(series)
                .try_for_each(|dot| canvas.disc(dot, 7.0, ink))
        }
        Mark::Dots => {
            let alpha = if series.points.len() > 2000 {
                0.35
            } else {
                0.6
            };
            frame
                .dots(series)
                .try_for_each(|dot| canvas.disc(dot, 6.0, ink.faded(alpha)))
        }
        Mark::Rings => frame
            .dots(series)
            .try_for_each(|dot| canvas.ring(dot, 6.0, ink.faded(0.8), 2.0)),
        Mark::Area => frame.lines(series).iter().try_for_each(|line| {
            let (first, last) = (line[0], line[line.len() - 1]);
            let mut around = line.clone();
            around.extend([(last.0, frame.area.bottom), (first.0, frame.area.bottom)]);
            canvas.polygon(&around, ink.faded(0.25))?;
            canvas.line(line, ink, 3.0)
        }),
    }
}

/// Everything that labels should keep off.
fn obstacles(chart: &Chart, frame: &Frame) -> Obstacles {
    let mut obstacles = Obstacles::default();
    for series in &chart.series {
        match series.mark {
            Mark::Dots | Mark::Rings => obstacles.dots.extend(frame.dots(series)),
            Mark::Line | Mark::Dashes | Mark::LineAndDots | Mark::Area => {
                // A line weighs more than the dots around it.
                for line in frame.lines(series) {
                    obstacles.add_line(&line);
                    obstacles.add_line(&line);
                }
            }
        }
    }
    for note in &chart.notes {
        if let Some((x, y)) = frame.place(note.at) {
            obstacles.texts.push(Area {
                left: x - 10.0,
                top: y - 10.0,
                right: x + 10.0,
                bottom: y + 10.0,
            });
        }
    }
    obstacles
}

fn draw_limits<B: DrawingBackend>(
    chart: &Chart,
    frame: &Frame,
    obstacles: &mut Obstacles,
    canvas: &Canvas<B>,
) -> Drawn<B> {
    let (area, ink) = (&frame.area, Hue::Black.ink());
    for limit in &chart.limits {
        let font = Font { ink, ..NOTE };
        let width = text_width(&limit.label, font) + 12.0;
        let height = 32.0;
        let share = match limit.across {
            Direction::X => frame.x.share(limit.at),
            Direction::Y => frame.y.share(limit.at),
        };
        let Some(share) = share.filter(|share| (0.0..=1.0).contains(share)) else {
            continue;
        };
        let boxed = |left: f64, top: f64| Area {
            left,
            top,
            right: left + width,
            bottom: top + height,
        };
        let (line, places) = match limit.across {
            Direction::X => {
                let x = area.left + share * area.width();
                let (top, bottom) = (area.top + 4.0, area.bottom - height - 4.0);
                let places = [
                    boxed(x + 8.0, top),
                    boxed(x - 8.0 - width, top),
                    boxed(x + 8.0, bottom),
                    boxed(x - 8.0 - width, bottom),
                ];
                ([(x, area.top), (x, area.bottom)], places)
            }
            Direction::Y => {
                let y = area.bottom - share * area.height();
                let (left, right) = (area.left + 8.0, area.right - width - 8.0);
                let places = [
                    boxed(right, y - height - 3.0),
                    boxed(left, y - height - 3.0),
                    boxed(right, y + 3.0),
                    boxed(left, y + 3.0),
                ];
                ([(area.left, y), (area.right, y)], places)
            }
        };
        canvas.dashes(&line, ink, 2.5)?;
        let place = places[obstacles.best_of(&places, area)];
        canvas.fill(
            [(place.left, place.top), (place.right, place.bottom)],
            WHITE.faded(0.8),
        )?;
        canvas.text(
            &limit.label,
            (place.left + 6.0, place.top + height / 2.0),
            Anchor::Left,
            font,
        )?;
        obstacles.texts.push(place);
        obstacles.add_line(&line);
    }
    Ok(())
}

fn draw_notes<B: DrawingBackend>(
    chart: &Chart,
    frame: &Frame,
    obstacles: &mut Obstacles,
    canvas: &Canvas<B>,
) -> Drawn<B> {
    const ROW: f64 = 32.0;
    const PADDING: f64 = 12.0;
    for note in &chart.notes {
        let Some(at) = frame
            .place(note.at)
            .filter(|&at| frame.area.grown(0.5).contains(at))
        else {
            continue;
        };
        let room = frame.area.width() * 0.45;
        let font = |row: usize| if row == 0 { NOTE_NAME } else { NOTE };
        let rows: Vec<String> = note
            .text
            .lines()
            .enumerate()
            .map(|(row, text)| fitting(text, room, font(row)))
            .collect();
        let widest = rows
            .iter()
            .enumerate()
            .map(|(row, text)| text_width(text, font(row)))
            .fold(0.0, f64::max);
        let size = (widest + 2.0 * PADDING, rows.len() as f64 * ROW + PADDING);
        let place = obstacles.place(at, size, &frame.area);
        let ink = note.hue.ink();
        canvas.line(&[at, place.nearest(at)], ink, 2.0)?;
        canvas.fill(
            [(place.left, place.top), (place.right, place.bottom)],
            WHITE.faded(0.92),
        )?;
        let (left, top, right, bottom) = (place.left, place.top, place.right, place.bottom);
        canvas.line(
            &[
                (left, top),
                (right, top),
                (right, bottom),
                (left, bottom),
                (left, top),
            ],
            ink,
            2.0,
        )?;
        for (row, text) in rows.iter().enumerate() {
            let middle = place.top + PADDING / 2.0 + (row as f64 + 0.5) * ROW;
            canvas.text(
                text,
                (place.left + PADDING, middle),
                Anchor::Left,
                font(row),
            )?;
        }
        canvas.disc(at, 11.0, WHITE)?;
        canvas.disc(at, 9.0, ink)?;
        obstacles.texts.push(place);
    }
    Ok(())
}

/// The text, cut with an ellipsis where it would be too wide.
fn fitting(text: &str, room: f64, font: Font) -> String {
    if text_width(text, font) <= room {
        return text.to_owned();
    }
    let mut short: String = text.to_owned();
    while short.pop().is_some() {
        let candidate = format!("{}…", short.trim_end());
        if text_width(&candidate, font) <= room {
            return candidate;
        }
    }
    short
}

/// The part of a segment inside the box (Liang and Barsky).
fn clip(from: (f64, f64), to: (f64, f64), area: &Area) -> Option<((f64, f64), (f64, f64))> {
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

    #[test]
    fn long_texts_are_cut_with_an_ellipsis() {
        let cut = fitting(&"a long title ".repeat(30), 400.0, TITLE);
        assert!(
            cut.ends_with('…') && text_width(&cut, TITLE) <= 400.0,
            "{cut}"
        );
        assert_eq!(fitting("short", 400.0, TITLE), "short");
    }
}
