//! Draws a chart on a canvas: head, grid and axes, data, limits, notes.

use super::callouts::{draw_limits, draw_notes};
use super::canvas::{Anchor, Canvas, Drawn, HEIGHT, WIDTH};
use super::font::Font;
use super::frame::{Frame, lay_out};
use super::labels::{Area, Obstacles};
use super::style::{AXIS, FAINT_TEXT, GRID, TICK, TITLE, WHITE};
use super::{Chart, Mark, Series, head};
use plotters::backend::DrawingBackend;

/// The picture.
pub(super) fn chart<B: DrawingBackend>(chart: &Chart, canvas: &Canvas<B>) -> Drawn<B> {
    canvas.fill([(0.0, 0.0), (f64::from(WIDTH), f64::from(HEIGHT))], WHITE)?;
    let legend = head::Legend::of(chart);
    let frame = lay_out(chart, legend.height());
    head::draw(chart, &legend, &frame, canvas)?;
    draw_axes(&frame, canvas)?;
    for series in &chart.series {
        draw_series(series, &frame, canvas)?;
    }
    let mut obstacles = obstacles(chart, &frame);
    draw_limits(chart, &frame, &mut obstacles, canvas)?;
    draw_notes(chart, &frame, &obstacles, canvas)?;
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

pub(super) fn draw_axes<B: DrawingBackend>(frame: &Frame, canvas: &Canvas<B>) -> Drawn<B> {
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
        if !label.is_empty() {
            canvas.text(label, (x, area.bottom + 28.0), Anchor::Middle, TICK)?;
        }
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

pub(super) fn draw_series<B: DrawingBackend>(
    series: &Series,
    frame: &Frame,
    canvas: &Canvas<B>,
) -> Drawn<B> {
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
pub(super) fn obstacles(chart: &Chart, frame: &Frame) -> Obstacles {
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
