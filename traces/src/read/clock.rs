//! Date and time of day as one number: nanoseconds since 1970, Gregorian calendar, no leap seconds.

use super::number::{self, Unit};

/// Reads `2023-11-16 18:15:46.6805900`, with a space or `T` between, any number of decimals, and optionally `Z` or an
/// offset like `+01:30` behind, which is taken off. `None` for anything else and for times before 1970.
pub(super) fn nanoseconds(text: &str) -> Option<u64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let (time, offset_minutes) = split_offset(time)?;
    let mut parts = time.splitn(3, ':');
    let hour = whole(parts.next()?, 0, 23)?;
    let minute = whole(parts.next()?, 0, 59)?;
    let second = parts.next()?;
    let is_plain = second
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let second_ns = number::nanoseconds(second, Unit::Seconds)
        .ok()
        .filter(|&ns| is_plain && ns < 60_000_000_000)?;
    let minutes = (days_since_1970(date)? * 24 + hour) * 60 + minute - offset_minutes;
    u64::try_from(minutes)
        .ok()?
        .checked_mul(60_000_000_000)?
        .checked_add(second_ns)
}

/// Cuts `Z` or `±hh:mm` off, which is in minutes.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, 0));
    }
    let Some(at) = time.find(['+', '-']) else {
        return Some((time, 0));
    };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let minutes = whole(hours, 0, 23)? * 60 + whole(minutes, 0, 59)?;
    Some((
        &time[..at],
        if time.as_bytes()[at] == b'-' {
            -minutes
        } else {
            minutes
        },
    ))
}

fn days_since_1970(date: &str) -> Option<i64> {
    const DAYS_BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    const DAYS: [i64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut parts = date.splitn(3, '-');
    let year = whole(parts.next()?, 1970, 2500)?;
    let month = whole(parts.next()?, 1, 12)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = if month == 2 && !is_leap {
        28
    } else {
        DAYS[month as usize - 1]
    };
    let day = whole(parts.next()?, 1, last)?;
    let leap_days_before = |year: i64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let this_leap_day = i64::from(is_leap && month > 2);
    let leap_days = leap_days_before(year) - leap_days_before(1970) + this_leap_day;
    Some((year - 1970) * 365 + leap_days + DAYS_BEFORE[month as usize - 1] + day - 1)
}

fn whole(text: &str, least: i64, most: i64) -> Option<i64> {
    let is_plain = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = is_plain.then(|| text.parse().ok()).flatten()?;
    (least..=most).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        let second = 1_000_000_000;
        assert_eq!(nanoseconds("1970-01-01 00:00:00"), Some(0));
        assert_eq!(
            nanoseconds("2000-02-29T12:00:00Z"),
            Some(951_825_600 * second)
        );
        assert_eq!(
            nanoseconds("2000-03-01 00:00:00"),
            Some(951_868_800 * second)
        );
        assert_eq!(
            nanoseconds("2023-11-16 18:17:03.9799600"),
            Some(1_700_158_623 * second + 979_960_000)
        );
        assert_eq!(
            nanoseconds("2024-05-10 00:00:00.009930+00:00"),
            Some(1_715_299_200 * second + 9_930_000)
        );
        assert_eq!(
            nanoseconds("2024-05-10 01:30:00+01:30"),
            Some(1_715_299_200 * second)
        );
        assert_eq!(
            nanoseconds("2024-05-09 20:00:00-04:00"),
            Some(1_715_299_200 * second)
        );
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2023-11-16",
            "16.11.2023 18:17:03",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-11-16 24:00:00",
            "2023-11-16 18:17:60",
            "2023-11-16 18:17",
            "2023-11-16 18:17:-3",
            "2023-11-16 18:17:1e1",
            "1969-12-31 23:59:59",
            "1970-01-01 00:00:00+01:00",
            "99999-01-01 00:00:00",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }
}
