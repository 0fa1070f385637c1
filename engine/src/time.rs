//! Simulated time: whole picoseconds in a `u64`, which spans 213 days.
//!
//! A picosecond is fine enough that the price of one more token of context stays an integer (a B200 reads a
//! cached token of Llama-3.1-8B in about 16 000 ps), so that k steps can be summed in closed form without rounding.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};

/// A point in simulated time: picoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

/// A length of simulated time in picoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

const PS_PER_NS: u64 = 1_000;
const PS_PER_MS: u64 = 1_000_000_000;
const PS_PER_S: u64 = 1_000_000_000_000;

impl Time {
    /// The start of the run.
    pub const ZERO: Time = Time(0);
    /// Later than every event.
    pub const MAX: Time = Time(u64::MAX);

    /// From whole nanoseconds.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Time {
        Time(ns * PS_PER_NS)
    }

    /// From milliseconds, rounded to the nearest picosecond.
    #[must_use]
    pub fn from_ms(ms: f64) -> Time {
        Time(Span::from_ms(ms).0)
    }

    /// The time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds since the start of the run.
    #[must_use]
    pub fn as_ms(self) -> f64 {
        Span(self.0).as_ms()
    }

    /// Seconds since the start of the run.
    #[must_use]
    pub fn as_s(self) -> f64 {
        Span(self.0).as_s()
    }

    /// Whole nanoseconds since the start of the run, rounded down.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0 / PS_PER_NS
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// From whole nanoseconds.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Span {
        Span(ns * PS_PER_NS)
    }

    /// From milliseconds, rounded to the nearest picosecond.
    #[must_use]
    pub fn from_ms(ms: f64) -> Span {
        Span((ms * PS_PER_MS as f64).round() as u64)
    }

    /// From seconds, rounded to the nearest picosecond.
    #[must_use]
    pub fn from_s(s: f64) -> Span {
        Span((s * PS_PER_S as f64).round() as u64)
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_ms(self) -> f64 {
        self.0 as f64 / PS_PER_MS as f64
    }

    /// In seconds.
    #[must_use]
    pub fn as_s(self) -> f64 {
        self.0 as f64 / PS_PER_S as f64
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0 + span.0)
    }
}

impl AddAssign<Span> for Time {
    fn add_assign(&mut self, span: Span) {
        self.0 += span.0;
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0 + other.0)
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, other: Span) {
        self.0 += other.0;
    }
}

impl Sub for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        Span(self.0 - other.0)
    }
}

impl Mul<u64> for Span {
    type Output = Span;
    fn mul(self, times: u64) -> Span {
        Span(self.0 * times)
    }
}

impl Sum for Span {
    fn sum<I: Iterator<Item = Span>>(spans: I) -> Span {
        spans.fold(Span::ZERO, Add::add)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0).fmt(f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..PS_PER_NS => write!(f, "{} ps", self.0),
            PS_PER_NS..PS_PER_MS => write!(f, "{:.3} us", self.0 as f64 / 1e6),
            PS_PER_MS..PS_PER_S => write!(f, "{:.3} ms", self.as_ms()),
            _ => write!(f, "{:.3} s", self.as_s()),
        }
    }
}
