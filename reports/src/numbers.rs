//! Numbers as people read them: thousands separators, a unit prefix for the large, no more digits than matter.

/// A number with a fixed count of decimals and separated thousands: `12,300.50`, `−3`.
#[must_use]
pub(crate) fn separated(value: f64, decimals: usize) -> String {
    let plain = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut text = String::new();
    if value < 0.0 && plain.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
        text.push('−');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A count with separated thousands.
#[must_use]
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let first = digits.len() % 3;
    let groups = digits.as_bytes()[first..]
        .chunks(3)
        .map(|group| std::str::from_utf8(group).expect("digits are ASCII"));
    let head = (first > 0).then(|| &digits[..first]);
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

/// A number with about three significant digits: `0.5`, `12.3`, `12,300`, `1.2M`.
#[must_use]
pub(crate) fn short(value: f64) -> String {
    let (unit, suffix) = unit_of(value.abs());
    let scaled = value / unit;
    if scaled == 0.0 {
        return "0".to_owned();
    }
    let decimals = (2.0 - scaled.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    let text = separated(scaled, decimals);
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    text.to_owned() + suffix
}

/// The unit prefix in which a scale up to `largest` is labelled, as a factor and a suffix.
#[must_use]
pub(crate) fn unit_of(largest: f64) -> (f64, &'static str) {
    match largest {
        _ if largest >= 1e9 => (1e9, "G"),
        _ if largest >= 1e6 => (1e6, "M"),
        _ => (1.0, ""),
    }
}

/// A share in per cent: `8.2 %`.
#[must_use]
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A count with its noun, which takes an `s` unless it is one: `1 request`, `2,000 requests`.
#[must_use]
pub(crate) fn counted(value: u64, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        count(value),
        if value == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        let short_ones = [
            0.0, 0.123_45, 3.0, 12.34, 1234.6, 123_456.0, 2.5e6, 3.2e10, -0.5,
        ]
        .map(short);
        assert_eq!(
            short_ones,
            [
                "0", "0.123", "3", "12.3", "1,235", "123,456", "2.5M", "32G", "−0.5"
            ]
        );
        assert_eq!(
            [0, 12, 123, 1234, 123_456, 1_234_567].map(count),
            ["0", "12", "123", "1,234", "123,456", "1,234,567"]
        );
        assert_eq!(separated(-1_234_567.891, 1), "−1,234,567.9");
        assert_eq!(separated(-0.001, 2), "0.00");
        assert_eq!(percent(0.0823), "8.2 %");
        assert_eq!(
            [counted(1, "guess"), counted(1000, "request")],
            ["1 guess", "1,000 requests"]
        );
    }
}
