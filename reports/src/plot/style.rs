//! Colours, fonts and margins of all pictures.

use super::Hue;
use super::canvas::Ink;
use super::font::{Font, text_width};

pub(super) const TEXT: Ink = Ink::solid(38, 38, 38);
pub(super) const FAINT_TEXT: Ink = Ink::solid(105, 105, 105);
pub(super) const GRID: Ink = Ink::solid(228, 228, 228);
pub(super) const AXIS: Ink = Ink::solid(120, 120, 120);
pub(super) const WHITE: Ink = Ink::solid(255, 255, 255);

pub(super) const TITLE: Font = Font {
    size: 42.0,
    is_bold: true,
    ink: TEXT,
};
pub(super) const SUBTITLE: Font = Font {
    size: 27.0,
    is_bold: false,
    ink: FAINT_TEXT,
};
pub(super) const LEGEND: Font = Font {
    size: 27.0,
    is_bold: false,
    ink: TEXT,
};
pub(super) const AXIS_TITLE: Font = Font {
    size: 29.0,
    is_bold: false,
    ink: TEXT,
};
pub(super) const TICK: Font = Font {
    size: 26.0,
    is_bold: false,
    ink: TEXT,
};
pub(super) const NOTE_NAME: Font = Font {
    size: 27.0,
    is_bold: true,
    ink: TEXT,
};
pub(super) const NOTE: Font = Font {
    size: 24.0,
    is_bold: false,
    ink: TEXT,
};
pub(super) const FOOTER: Font = Font {
    size: 20.0,
    is_bold: false,
    ink: FAINT_TEXT,
};

/// Room at the left and right edge of the picture.
pub(super) const MARGIN: f64 = 44.0;

impl Hue {
    pub(super) const fn ink(self) -> Ink {
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

/// The text, cut with an ellipsis where it would be too wide.
pub(super) fn fitting(text: &str, room: f64, font: Font) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

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
