//! A drawing surface in logical pixels, the same for bitmap and SVG: lines, dots, boxes, text with the built-in font.
//!
//! The bitmap is drawn at twice its size and averaged down, which gives every line and letter smooth edges.

use super::font::{Font, describe};
use image::codecs::png::PngEncoder;
use image::{ColorType, ImageEncoder, ImageError};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontTransform, RGBColor, ShapeStyle, TextStyle};
use std::io::{self, Write};

/// Logical width of every picture.
pub(super) const WIDTH: u32 = 1600;
/// Logical height of a picture of one chart; one of several panels is higher.
pub(super) const HEIGHT: u32 = 1000;
/// Bitmap pixels drawn per pixel kept, in each direction.
const OVERSAMPLING: u32 = 2;
/// SVG units per logical pixel: plotters rounds positions to whole units.
const SVG_PRECISION: u32 = 8;

/// A colour with its share of cover.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ink {
    pub rgb: (u8, u8, u8),
    pub alpha: f64,
}

impl Ink {
    pub const fn solid(r: u8, g: u8, b: u8) -> Ink {
        Ink {
            rgb: (r, g, b),
            alpha: 1.0,
        }
    }

    pub const fn faded(self, alpha: f64) -> Ink {
        Ink {
            rgb: self.rgb,
            alpha,
        }
    }

    fn style(self, width: f64) -> ShapeStyle {
        let (r, g, b) = self.rgb;
        let color = RGBColor(r, g, b).mix(self.alpha);
        ShapeStyle {
            color,
            filled: false,
            stroke_width: width.round().max(1.0) as u32,
        }
    }
}

/// Which point of a text stands at the given position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

/// What drawing returns.
pub(super) type Drawn<B> =
    Result<(), plotters::drawing::DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// The surface; positions are logical pixels from the top left.
pub(super) struct Canvas<B: DrawingBackend> {
    area: DrawingArea<B, Shift>,
    scale: f64,
    typesetting: Typesetting,
}

/// How a backend sets text where plotters' own measure is off, as multiples of the font size.
struct Typesetting {
    /// Makes letters as large as the bitmap's.
    magnification: f64,
    /// Moves text down, so that capitals and digits are centred on their position.
    drop: f64,
}

/// Roboto's capitals are 0.607 of its line height; plotters puts the baseline 0.097 below the middle.
const BITMAP_TYPE: Typesetting = Typesetting {
    magnification: 1.0,
    drop: 0.206,
};
/// plotters writes a font size 1.24 times smaller than asked for, the bitmap's em is 1.172 times smaller; `dy` is 0.5 ex.
const SVG_TYPE: Typesetting = Typesetting {
    magnification: 1.24 / 1.172,
    drop: 0.078,
};

impl<B: DrawingBackend> Canvas<B> {
    fn place(&self, (x, y): (f64, f64)) -> (i32, i32) {
        (
            (x * self.scale).round() as i32,
            (y * self.scale).round() as i32,
        )
    }

    /// A line through all points.
    pub fn line(&self, points: &[(f64, f64)], ink: Ink, width: f64) -> Drawn<B> {
        let placed: Vec<_> = without_tiny_steps(points)
            .iter()
            .map(|&point| self.place(point))
            .collect();
        if placed.len() < 2 || placed.iter().all(|&point| point == placed[0]) {
            return Ok(());
        }
        self.area
            .draw(&PathElement::new(placed, ink.style(width * self.scale)))
    }

    /// A dashed line through all points: `on` pixels drawn, `off` left out.
    pub fn dashes(&self, points: &[(f64, f64)], ink: Ink, width: f64) -> Drawn<B> {
        let (on, off) = (11.0, 7.0);
        let mut left = on;
        let mut is_on = true;
        for pair in points.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            let at = |way: f64| {
                (
                    from.0 + (to.0 - from.0) * way / length,
                    from.1 + (to.1 - from.1) * way / length,
                )
            };
            let mut way = 0.0;
            while way < length {
                let end = (way + left).min(length);
                if is_on {
                    self.line(&[at(way), at(end)], ink, width)?;
                }
                left -= end - way;
                way = end;
                if left < 1e-6 {
                    is_on = !is_on;
                    left = if is_on { on } else { off };
                }
            }
        }
        Ok(())
    }

    /// A filled disc.
    pub fn disc(&self, at: (f64, f64), radius: f64, ink: Ink) -> Drawn<B> {
        let style = ink.style(1.0).filled();
        self.area.draw(&Circle::new(
            self.place(at),
            (radius * self.scale).round() as i32,
            style,
        ))
    }

    /// A circle drawn as a closed path, so that its stroke is as wide in the bitmap as in the SVG.
    pub fn ring(&self, at: (f64, f64), radius: f64, ink: Ink, width: f64) -> Drawn<B> {
        let around = (0..=24).map(|step| {
            let (sin, cos) = (f64::from(step) * std::f64::consts::TAU / 24.0).sin_cos();
            (at.0 + radius * cos, at.1 + radius * sin)
        });
        self.line(&around.collect::<Vec<_>>(), ink, width)
    }

    /// A filled area.
    pub fn polygon(&self, points: &[(f64, f64)], ink: Ink) -> Drawn<B> {
        let placed: Vec<_> = points.iter().map(|&point| self.place(point)).collect();
        self.area
            .draw(&Polygon::new(placed, ink.style(1.0).filled()))
    }

    /// A filled box.
    pub fn fill(&self, corners: [(f64, f64); 2], ink: Ink) -> Drawn<B> {
        let corners = corners.map(|corner| self.place(corner));
        self.area
            .draw(&Rectangle::new(corners, ink.style(1.0).filled()))
    }

    /// One line of text, vertically centred on `at`.
    pub fn text(&self, text: &str, at: (f64, f64), anchor: Anchor, font: Font) -> Drawn<B> {
        let at = (at.0, at.1 + self.typesetting.drop * font.size);
        self.area.draw(&Text::new(
            text,
            self.place(at),
            self.text_style(anchor, font, FontTransform::None),
        ))
    }

    /// One line of text that reads upwards, centred on `at`.
    pub fn text_upwards(&self, text: &str, at: (f64, f64), font: Font) -> Drawn<B> {
        let at = (at.0 + self.typesetting.drop * font.size, at.1);
        let style = self.text_style(Anchor::Middle, font, FontTransform::Rotate270);
        self.area.draw(&Text::new(text, self.place(at), style))
    }

    fn text_style(
        &self,
        anchor: Anchor,
        font: Font,
        transform: FontTransform,
    ) -> TextStyle<'static> {
        let h_pos = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let (r, g, b) = font.ink.rgb;
        let size = font.size * self.scale * self.typesetting.magnification;
        let described = describe(size, font.is_bold).transform(transform);
        let color = RGBColor(r, g, b).mix(font.ink.alpha).to_backend_color();
        TextStyle {
            font: described,
            color,
            pos: Pos {
                h_pos,
                v_pos: VPos::Center,
            },
        }
    }
}

/// A line without the steps too short to see, which would only roughen it; both ends stay.
fn without_tiny_steps(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const TINY: f64 = 2.5;
    let mut kept: Vec<(f64, f64)> = Vec::with_capacity(points.len());
    for (index, &point) in points.iter().enumerate() {
        let is_far = kept
            .last()
            .is_none_or(|last| (point.0 - last.0).hypot(point.1 - last.1) >= TINY);
        if is_far || index == points.len() - 1 {
            kept.push(point);
        }
    }
    kept
}

/// Draws an SVG document.
pub(super) fn svg(
    height: u32,
    draw: impl FnOnce(&Canvas<SVGBackend<'_>>) -> Drawn<SVGBackend<'static>>,
) -> String {
    let mut document = String::new();
    let large = (WIDTH * SVG_PRECISION, height * SVG_PRECISION);
    let area = SVGBackend::with_string(&mut document, large).into_drawing_area();
    let canvas = Canvas {
        area,
        scale: f64::from(SVG_PRECISION),
        typesetting: SVG_TYPE,
    };
    draw(&canvas)
        .and_then(|()| canvas.area.present())
        .expect("writing to a string cannot fail");
    drop(canvas);
    let size = |width: u32, height: u32| format!("<svg width=\"{width}\" height=\"{height}\"");
    let drawn = size(large.0, large.1);
    assert!(
        document.starts_with(&drawn),
        "plotters opens the document with its size"
    );
    document.replacen(&drawn, &size(WIDTH, height), 1)
}

/// Draws a PNG file into `out`.
pub(super) fn png(
    out: impl Write,
    height: u32,
    draw: impl FnOnce(&Canvas<BitMapBackend<'_>>) -> Drawn<BitMapBackend<'static>>,
) -> io::Result<()> {
    let large = (WIDTH * OVERSAMPLING, height * OVERSAMPLING);
    let mut pixels = vec![255; (large.0 * large.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, large).into_drawing_area();
        let canvas = Canvas {
            area,
            scale: f64::from(OVERSAMPLING),
            typesetting: BITMAP_TYPE,
        };
        draw(&canvas)
            .and_then(|()| canvas.area.present())
            .expect("drawing into memory cannot fail");
    }
    let small = average_down(&pixels);
    PngEncoder::new(out)
        .write_image(&small, WIDTH, height, ColorType::Rgb8)
        .map_err(|error| match error {
            ImageError::IoError(error) => error,
            other => io::Error::other(other),
        })
}

/// Averages squares of `OVERSAMPLING` × `OVERSAMPLING` RGB pixels.
fn average_down(pixels: &[u8]) -> Vec<u8> {
    let factor = OVERSAMPLING as usize;
    let row = WIDTH as usize * factor * 3;
    let mut small = Vec::with_capacity(pixels.len() / (factor * factor));
    for rows in pixels.chunks_exact(row * factor) {
        for x in 0..WIDTH as usize {
            for channel in 0..3 {
                let square = (0..factor).flat_map(|dy| {
                    (0..factor).map(move |dx| dy * row + (x * factor + dx) * 3 + channel)
                });
                let sum: usize = square.map(|index| usize::from(rows[index])).sum();
                small.push((sum / (factor * factor)) as u8);
            }
        }
    }
    small
}
