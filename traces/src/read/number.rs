//! Numbers as they stand in a file, read exactly: no detour over floating point.
//!
//! Counts are whole. Times are decimals in any unit, turned into whole nanoseconds, halves up. JSON numbers and CSV
//! fields go through the same two functions, so that both kinds of file accept and refuse the same things.

/// Why a text is not the number that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Not a decimal number at all, or infinite, or NaN.
    NotANumber,
    /// Below zero.
    Negative,
    /// A count with a fraction.
    Fraction,
    /// Does not fit.
    TooLarge,
}

/// Units of time, as powers of ten of a nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds = 0,
    Microseconds = 3,
    Milliseconds = 6,
    Seconds = 9,
}

/// Digits beyond this do not count: 10^38 is about the largest `u128`.
const DIGITS: u32 = 30;

/// A whole number of things: `12`, also `12.0`.
pub(crate) fn count(text: &str) -> Result<u64, Wrong> {
    if let 1..=19 = text.len()
        && text.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Ok(text
            .bytes()
            .fold(0, |value, byte| value * 10 + u64::from(byte - b'0')));
    }
    let decimal = Decimal::parse(text)?;
    match decimal.scaled(0)? {
        (whole, true) => Ok(whole),
        (_, false) => Err(Wrong::Fraction),
    }
}

/// A time or a span in whole nanoseconds.
pub(crate) fn nanoseconds(text: &str, unit: Unit) -> Result<u64, Wrong> {
    Ok(Decimal::parse(text)?.scaled(unit as i64)?.0)
}

/// A whole number of either sign that fits an `i32`.
pub(crate) fn signed(text: &str) -> Result<i32, Wrong> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let whole = i64::try_from(count(digits)?).map_err(|_| Wrong::TooLarge)?;
    i32::try_from(sign * whole).map_err(|_| Wrong::TooLarge)
}

/// `digits` times ten to the `exponent`.
struct Decimal {
    digits: u128,
    exponent: i64,
    is_exact: bool,
}

impl Decimal {
    /// Reads `[-+]digits[.digits][e[-+]digits]`; a negative zero is zero.
    fn parse(text: &str) -> Result<Decimal, Wrong> {
        let is_negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let mut decimal = Decimal {
            digits: 0,
            exponent,
            is_exact: true,
        };
        let (mut kept, mut has_digit, mut after_point) = (0, false, false);
        for byte in mantissa.bytes() {
            match byte {
                b'.' if !after_point => after_point = true,
                b'0'..=b'9' => {
                    has_digit = true;
                    let digit = u128::from(byte - b'0');
                    if kept < DIGITS {
                        decimal.digits = decimal.digits * 10 + digit;
                        kept += u32::from(decimal.digits > 0);
                        decimal.exponent -= i64::from(after_point);
                    } else {
                        decimal.is_exact &= digit == 0;
                        decimal.exponent += i64::from(!after_point);
                    }
                }
                _ => return Err(Wrong::NotANumber),
            }
        }
        match (has_digit, is_negative && decimal.digits > 0) {
            (false, _) => Err(Wrong::NotANumber),
            (true, true) => Err(Wrong::Negative),
            (true, false) => Ok(decimal),
        }
    }

    /// The value times ten to the `power`, rounded to the nearest whole number, and whether that is exact.
    fn scaled(&self, power: i64) -> Result<(u64, bool), Wrong> {
        let shift = self.exponent.saturating_add(power);
        if self.digits == 0 {
            return Ok((0, true));
        }
        let (whole, is_exact) = if shift >= 0 {
            let factor = u32::try_from(shift)
                .ok()
                .and_then(|shift| 10u128.checked_pow(shift));
            let whole = factor.and_then(|factor| self.digits.checked_mul(factor));
            (whole.ok_or(Wrong::TooLarge)?, true)
        } else {
            match u32::try_from(-shift)
                .ok()
                .and_then(|shift| 10u128.checked_pow(shift))
            {
                Some(part) => {
                    let (whole, rest) = (self.digits / part, self.digits % part);
                    (
                        whole + u128::from(rest >= part - rest && rest > 0),
                        rest == 0,
                    )
                }
                None => (0, false),
            }
        };
        let whole = u64::try_from(whole).map_err(|_| Wrong::TooLarge)?;
        Ok((whole, is_exact && self.is_exact))
    }
}

/// A decimal exponent; one with very many digits is as good as ±10^9.
fn exponent(text: &str) -> Result<i64, Wrong> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NotANumber);
    }
    Ok(sign * digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_are_whole() {
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count("6758"), Ok(6758));
        assert_eq!(count("1024.0"), Ok(1024));
        assert_eq!(count("1.5e3"), Ok(1500));
        assert_eq!(count("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(count("18446744073709551616"), Err(Wrong::TooLarge));
        assert_eq!(count("1e400"), Err(Wrong::TooLarge));
        assert_eq!(count("1.5"), Err(Wrong::Fraction));
        assert_eq!(count("1e-400"), Err(Wrong::Fraction));
        assert_eq!(count("-3"), Err(Wrong::Negative));
        for text in [
            "", ".", "-", "NaN", "inf", "1.2.3", "0x10", "1e", "1e+", "1 2", "\"7\"", "null",
        ] {
            assert_eq!(count(text), Err(Wrong::NotANumber), "{text}");
        }
    }

    #[test]
    fn times_become_whole_nanoseconds() {
        assert_eq!(nanoseconds("27482", Unit::Milliseconds), Ok(27_482_000_000));
        assert_eq!(nanoseconds("0.1234567", Unit::Milliseconds), Ok(123_457));
        assert_eq!(nanoseconds("61.114", Unit::Seconds), Ok(61_114_000_000));
        assert_eq!(nanoseconds("-0.0", Unit::Seconds), Ok(0));
        assert_eq!(nanoseconds("-1e-12", Unit::Seconds), Err(Wrong::Negative));
        assert_eq!(nanoseconds("0.5", Unit::Nanoseconds), Ok(1));
        assert_eq!(nanoseconds("0.4999", Unit::Nanoseconds), Ok(0));
        assert_eq!(
            nanoseconds("1753780607550317897", Unit::Nanoseconds),
            Ok(1_753_780_607_550_317_897)
        );
        assert_eq!(nanoseconds("1e30", Unit::Seconds), Err(Wrong::TooLarge));
        assert_eq!(nanoseconds("0e999999999999", Unit::Seconds), Ok(0));
    }

    #[test]
    fn priorities_have_a_sign() {
        assert_eq!(signed("-7"), Ok(-7));
        assert_eq!(signed("2147483647"), Ok(i32::MAX));
        assert_eq!(signed("-2147483648"), Ok(i32::MIN));
        assert_eq!(signed("2147483648"), Err(Wrong::TooLarge));
        assert_eq!(signed("--1"), Err(Wrong::Negative));
    }

    proptest! {
        #[test]
        fn fixed_point_text_is_read_back_exactly(ns in 0u64..1 << 60) {
            let text = format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
            prop_assert_eq!(nanoseconds(&text, Unit::Milliseconds), Ok(ns));
        }

        #[test]
        fn no_text_panics(text in "[-+.eE0-9]{0,40}") {
            let _ = (count(&text), nanoseconds(&text, Unit::Seconds), signed(&text));
        }
    }
}
