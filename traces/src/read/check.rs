//! Single values: what is a possible length, time or priority, and what is said about one that is not.

use super::collect::{Collector, Spot};
use super::number::{self, Unit, Wrong};

/// Prompt and answer together stay below 2^31, so that positions in a request fit an `i32` everywhere.
const LONGEST_REQUEST: u64 = (1 << 31) - 1;

impl Collector {
    /// A number of tokens, at least 1.
    pub(crate) fn tokens(&mut self, spot: Spot, text: &str) -> Option<u32> {
        match number::count(text) {
            Ok(0) => self.wrong_tokens(spot, text, "leave requests without tokens out"),
            Ok(tokens @ 1..=LONGEST_REQUEST) => return Some(tokens as u32),
            Ok(_) | Err(Wrong::TooLarge) => {
                self.wrong_tokens(spot, text, "check the unit of the column")
            }
            Err(Wrong::Fraction) => {
                self.wrong_tokens(spot, text, "round it when the trace is written")
            }
            Err(Wrong::Negative | Wrong::NotANumber) => {
                self.wrong_tokens(spot, text, "repair or remove the row")
            }
        }
        None
    }

    fn wrong_tokens(&mut self, spot: Spot, text: &str, suggestion: &'static str) {
        self.problem(
            spot,
            excerpt(text.as_bytes()),
            "a whole number of tokens from 1 to 2147483647",
            suggestion,
        );
    }

    /// A time or span in nanoseconds.
    pub(crate) fn nanoseconds(&mut self, spot: Spot, text: &str, unit: Unit) -> Option<u64> {
        let suggestion = match number::nanoseconds(text, unit) {
            Ok(ns) if ns < u64::MAX => return Some(ns),
            Ok(_) | Err(Wrong::TooLarge) => "check the unit of the column",
            Err(Wrong::Negative) => "shift all times so that none is negative",
            Err(Wrong::Fraction | Wrong::NotANumber) => "write it as a plain number without quotes",
        };
        let expected = match unit {
            Unit::Nanoseconds => "a number of nanoseconds, 0 or more",
            Unit::Microseconds => "a number of microseconds, 0 or more",
            Unit::Milliseconds => "a number of milliseconds, 0 or more",
            Unit::Seconds => "a number of seconds, 0 or more",
        };
        self.problem(spot, excerpt(text.as_bytes()), expected, suggestion);
        None
    }

    /// A priority of either sign.
    pub(crate) fn priority(&mut self, spot: Spot, text: &str) -> Option<i32> {
        let priority = number::signed(text).ok();
        if priority.is_none() {
            let expected = "a whole number from -2147483648 to 2147483647";
            self.problem(
                spot,
                excerpt(text.as_bytes()),
                expected,
                "use small whole numbers as priorities",
            );
        }
        priority
    }

    /// Whether prompt and answer together are a possible request.
    pub(crate) fn fits(&mut self, line: u32, input_tokens: u64, output_tokens: u64) -> bool {
        let is_possible = input_tokens + output_tokens <= LONGEST_REQUEST;
        if !is_possible {
            let found = format!("{input_tokens} + {output_tokens} tokens");
            let spot = Spot { line, field: "" };
            self.problem(
                spot,
                found,
                "prompt and answer of at most 2147483647 tokens together",
                "remove the row",
            );
        }
        is_possible
    }
}

/// The first bytes of something, fit to be printed, in backquotes.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "nothing".to_owned()
    } else {
        format!("`{}`", printable(bytes))
    }
}

/// The first bytes of something without control characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    const LONGEST: usize = 40;
    let (shown, dots) = if bytes.len() > LONGEST {
        (&bytes[..LONGEST], "...")
    } else {
        (bytes, "")
    };
    let mut text = String::new();
    for chunk in shown.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default())
            } else {
                text.push(c)
            }
        }
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    text + dots
}
