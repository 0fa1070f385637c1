//! The values of one axis as text: lists, ranges, powers.
//!
//! ```text
//! 1,2,4              a list; commas inside brackets, braces or quotes do not separate
//! 1..8               whole steps, both ends included
//! 1..16:2            1, 3, ... 15; a step may be a fraction: 0.5..2:0.25
//! log 1..64 x2       1, 2, 4, ... 64
//! 1,8..16:4,64       parts may be mixed
//! ```
//!
//! Ranges count in decimal, not in binary: `0.1..0.3:0.1` is exactly `0.1, 0.2, 0.3`. A value is text, because only the
//! scenario knows what a field holds.

use thiserror::Error;

/// Most values that one range may give.
pub const MAX_VALUES: usize = 1_000_000;

/// A list of values that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Nothing between two commas, or no value at all.
    #[error("found an empty value in `{text}`, expected values separated by single commas")]
    Empty {
        /// The whole list.
        text: String,
    },
    /// Something like a range that is none.
    #[error("found `{text}`, expected {expected}")]
    Range {
        /// The part that was read.
        text: String,
        /// What it should have looked like.
        expected: &'static str,
    },
    /// More values than anyone can mean.
    #[error("`{text}` gives more than {MAX_VALUES} values, expected fewer: widen the step")]
    TooMany {
        /// The part that was read.
        text: String,
    },
}

/// Reads the values of an axis.
///
/// # Errors
/// The first part that cannot be read.
pub fn parse(text: &str) -> Result<Vec<String>, ValueError> {
    let mut values = Vec::new();
    for part in split(text) {
        let part = part.trim();
        if part.is_empty() {
            return Err(ValueError::Empty {
                text: text.to_owned(),
            });
        }
        if let Some(range) = part.strip_prefix("log ") {
            powers(part, range.trim(), &mut values)?;
        } else if let Some((from, until)) = part
            .split_once("..")
            .filter(|(from, _)| Decimal::parse(from).is_some())
        {
            range(part, from, until, &mut values)?;
        } else {
            values.push(part.to_owned());
        }
    }
    Ok(values)
}

/// Splits at commas outside brackets, braces and quotes.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut quote) = (0, 0i32, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[' | '{' | '(') => depth += 1,
            (None, ']' | '}' | ')') => depth -= 1,
            (None, ',') if depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn range(part: &str, from: &str, until: &str, values: &mut Vec<String>) -> Result<(), ValueError> {
    let error = |expected| ValueError::Range {
        text: part.to_owned(),
        expected,
    };
    let (until, step) = until.split_once(':').unwrap_or((until, "1"));
    let numbers = (
        Decimal::parse(from),
        Decimal::parse(until),
        Decimal::parse(step),
    );
    let (Some(from), Some(until), Some(step)) = numbers else {
        return Err(error("a range of numbers like `1..8` or `1..16:2`"));
    };
    let scale = from.scale.max(until.scale).max(step.scale);
    let [from, until, step] = [from, until, step].map(|number| number.at_scale(scale));
    if step <= 0 || from > until {
        return Err(error("a rising range with a step above 0"));
    }
    if (until - from) / step >= MAX_VALUES as i128 {
        return Err(ValueError::TooMany {
            text: part.to_owned(),
        });
    }
    let mut mantissa = from;
    while mantissa <= until {
        values.push(Decimal { mantissa, scale }.to_string());
        mantissa += step;
    }
    Ok(())
}

/// `A..B xF`: A, A·F, A·F², ... up to B. Products that leave the integers keep six significant digits.
fn powers(part: &str, text: &str, values: &mut Vec<String>) -> Result<(), ValueError> {
    const EXPECTED: &str = "powers like `log 1..64 x2`, rising from above 0 by a factor above 1";
    let error = || ValueError::Range {
        text: part.to_owned(),
        expected: EXPECTED,
    };
    let (ends, factor) = text.split_once(" x").ok_or_else(error)?;
    let (from, until) = ends.split_once("..").ok_or_else(error)?;
    let numbers = [from, until, factor].map(|number| Decimal::parse(number.trim()));
    let [Some(from), Some(until), Some(factor)] = numbers else {
        return Err(error());
    };
    let (first, last, factor) = (from.as_f64(), until.as_f64(), factor.as_f64());
    if first <= 0.0 || first > last || factor <= 1.0 {
        return Err(error());
    }
    for exponent in 0.. {
        let value = first * factor.powi(exponent);
        if value > last * (1.0 + 1e-9) {
            break;
        }
        if exponent as usize == MAX_VALUES {
            return Err(ValueError::TooMany {
                text: part.to_owned(),
            });
        }
        values.push(six_digits(value));
    }
    Ok(())
}

/// An integer as it is (below 2^53), anything else with six significant digits.
fn six_digits(value: f64) -> String {
    if value.fract() == 0.0 && value < 9e15 {
        return format!("{value:.0}");
    }
    let decimals = (5 - value.abs().log10().floor() as i32).clamp(0, 17) as usize;
    let text = format!("{value:.decimals$}");
    if decimals == 0 {
        text
    } else {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// `mantissa / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    mantissa: i128,
    scale: u32,
}

impl Decimal {
    /// At most 15 digits before and 12 behind the point, no exponent.
    fn parse(text: &str) -> Option<Decimal> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let sizes = (1..=15).contains(&whole.len()) && fraction.len() <= 12;
        if !sizes || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let sign = if text.starts_with('-') { -1 } else { 1 };
        Some(Decimal {
            mantissa: sign * mantissa,
            scale: fraction.len() as u32,
        })
    }

    fn at_scale(self, scale: u32) -> i128 {
        self.mantissa * 10i128.pow(scale - self.scale)
    }

    fn as_f64(self) -> f64 {
        self.mantissa as f64 / 10f64.powi(self.scale as i32)
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Decimal {
            mut mantissa,
            mut scale,
        } = *self;
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        if scale == 0 {
            return write!(f, "{mantissa}");
        }
        let unit = 10i128.pow(scale);
        let sign = if mantissa < 0 { "-" } else { "" };
        let (whole, fraction) = (mantissa.abs() / unit, mantissa.abs() % unit);
        write!(
            f,
            "{sign}{whole}.{fraction:0width$}",
            width = scale as usize
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> String {
        parse(text).map_or_else(|error| format!("error: {error}"), |values| values.join(" "))
    }

    #[test]
    fn lists_ranges_and_powers() {
        for (text, expected) in [
            ("1,2,4", "1 2 4"),
            ("round-robin, kv", "round-robin kv"),
            ("1..8", "1 2 3 4 5 6 7 8"),
            ("1..16:2", "1 3 5 7 9 11 13 15"),
            ("0.1..0.3:0.1", "0.1 0.2 0.3"),
            ("0.5..2:0.75", "0.5 1.25 2"),
            ("-1..1:0.5", "-1 -0.5 0 0.5 1"),
            ("3..3", "3"),
            ("log 1..64 x2", "1 2 4 8 16 32 64"),
            ("log 1..100 x10", "1 10 100"),
            ("log 0.001..1 x10", "0.001 0.01 0.1 1"),
            ("log 1..4 x1.5", "1 1.5 2.25 3.375"),
            ("1,8..16:4,log 32..64 x2", "1 8 12 16 32 64"),
            ("[1,2],{a: 1, b: 2},\"x,y\"", "[1,2] {a: 1, b: 2} \"x,y\""),
            ("../a.jsonl,b..c", "../a.jsonl b..c"),
            ("0.5", "0.5"),
        ] {
            assert_eq!(values(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_says_what_is_expected() {
        for (text, expected) in [
            ("", "found an empty value"),
            ("1,,2", "found an empty value"),
            ("1..x", "a range of numbers"),
            ("8..1", "a rising range"),
            ("1..8:0", "a rising range"),
            ("1..8:-1", "a rising range"),
            ("1..999999999999", "more than 1000000 values"),
            ("log 0..8 x2", "powers like"),
            ("log 1..8 x1", "powers like"),
            ("log 1..8", "powers like"),
            ("log 1..999999999999 x1.000001", "more than"),
        ] {
            assert!(values(text).contains(expected), "{text}: {}", values(text));
        }
    }
}
