//! The built-in font: Roboto, so that a picture has the same bytes on every machine.

use super::canvas::Ink;
use plotters::style::{FontDesc, FontFamily, FontStyle};
use std::sync::OnceLock;

/// The names an SVG viewer tries in turn; the bitmap font is registered under the whole list.
const FAMILY: &str = "Roboto, Helvetica, Arial, sans-serif";
static REGULAR: &[u8] = include_bytes!("../../fonts/Roboto-Regular.ttf");
static BOLD: &[u8] = include_bytes!("../../fonts/Roboto-Bold.ttf");

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Font {
    pub size: f64,
    pub is_bold: bool,
    pub ink: Ink,
}

/// A font of plotters of this size in pixels.
pub(super) fn describe(size: f64, is_bold: bool) -> FontDesc<'static> {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        for (style, bytes) in [(FontStyle::Normal, REGULAR), (FontStyle::Bold, BOLD)] {
            let registered = plotters::style::register_font(FAMILY, style, bytes);
            assert!(
                registered.is_ok(),
                "the built-in font is a valid TrueType file"
            );
        }
    });
    let style = if is_bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    FontDesc::new(FontFamily::Name(FAMILY), size, style)
}

/// Width of a text in logical pixels.
pub(super) fn text_width(text: &str, font: Font) -> f64 {
    // Measured large and scaled down, because plotters rounds to whole pixels.
    let ((left, _), (right, _)) = describe(font.size * 8.0, font.is_bold)
        .layout_box(text)
        .expect("the font is registered");
    f64::from(right - left) / 8.0
}
