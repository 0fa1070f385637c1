//! Axes: which range to show, where the ticks stand, what they are called.
//!
//! Ticks are multiples of 1, 2 or 5 times a power of ten, as many as fit without touching; a logarithmic axis has ticks
//! at 1, 2, 5 times every power of ten, or at the powers alone when the range is wide.

use super::{Axis, Scale};
use crate::numbers::{separated, short, unit_of};

/// Values beyond this (or, on a logarithmic axis, below its inverse) are not drawn: ranges must not overflow.
const LARGEST: f64 = 1e250;

/// No axis has room for more ticks.
const MOST_TICKS: usize = 100;

/// An axis with its range settled: maps values to `0..=1` along it.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    scale: Scale,
    from: f64,
    to: f64,
    /// Positions that get a grid line and a label.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// Settles the range over `values` with about `most_ticks` ticks, of which there is room for 2 to [`MOST_TICKS`].
    pub(super) fn settle(&self, values: &[f64], most_ticks: usize) -> Settled {
        let most_ticks = most_ticks.clamp(2, MOST_TICKS);
        let is_usable = |value: &f64| match self.scale {
            Scale::Linear => value.abs() <= LARGEST,
            Scale::Log => (1.0 / LARGEST..=LARGEST).contains(value),
        };
        let mut low = f64::INFINITY;
        let mut high = f64::NEG_INFINITY;
        for value in values
            .iter()
            .copied()
            .filter(is_usable)
            .chain(self.from)
            .chain(self.to)
        {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = if self.scale == Scale::Log {
                (1.0, 10.0)
            } else {
                (0.0, 1.0)
            };
        }
        let settled = match self.scale {
            Scale::Linear => linear(low, high, self.from, most_ticks),
            Scale::Log => logarithmic(low, high, most_ticks),
        };
        Settled {
            from: self.from.filter(is_usable).unwrap_or(settled.from),
            to: self.to.filter(is_usable).unwrap_or(settled.to),
            ..settled
        }
        .without_ticks_outside()
    }
}

impl Settled {
    /// Where a value lies: 0 at the start of the axis, 1 at its end; `None` where it cannot be drawn.
    pub fn share(&self, value: f64) -> Option<f64> {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        share.is_finite().then_some(share)
    }

    fn without_ticks_outside(mut self) -> Settled {
        let slack = (self.to - self.from) * 1e-9;
        let (from, to) = (self.from - slack, self.to + slack);
        self.ticks.retain(|&tick| from <= tick && tick <= to);
        self
    }
}

/// A linear range from and to whole ticks. It starts at zero when that wastes less than half of the axis.
fn linear(mut low: f64, mut high: f64, from: Option<f64>, most_ticks: usize) -> Settled {
    if from.is_none() && low > 0.0 && low < 0.6 * high {
        low = 0.0;
    }
    if high - low <= high.abs().max(low.abs()) * 1e-9 {
        let margin = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
        (low, high) = (low - margin, high + margin);
    }
    let step = round_step((high - low) / (most_ticks - 1) as f64);
    let first = (low / step + 1e-9).floor();
    let last = (high / step - 1e-9).ceil();
    let ticks = (0..=(last - first) as usize)
        .map(|n| (first + n as f64) * step)
        .collect();
    Settled {
        scale: Scale::Linear,
        from: first * step,
        to: last * step,
        ticks,
    }
}

/// A logarithmic range with a little air at both ends.
fn logarithmic(low: f64, high: f64, most_ticks: usize) -> Settled {
    let air = (high / low).powf(0.04).max(1.05);
    let (from, to) = (low / air, high * air);
    let (first, last) = (from.log10().floor() as i32, to.log10().ceil() as i32);
    let inside = |tick: &f64| from <= *tick && *tick <= to;
    let at = |factors: &'static [f64]| {
        (first..=last)
            .flat_map(move |power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
    };
    let fine: Vec<f64> = at(&[1.0, 2.0, 5.0]).filter(inside).collect();
    let ticks = if fine.len() <= most_ticks {
        fine
    } else {
        let powers: Vec<f64> = at(&[1.0]).filter(inside).collect();
        let every = powers.len().div_ceil(most_ticks);
        powers.into_iter().step_by(every).collect()
    };
    if ticks.len() >= 2 {
        return Settled {
            scale: Scale::Log,
            from,
            to,
            ticks,
        };
    }
    // Less than half a decade: ticks of a linear axis fit better than powers.
    let ticks = linear(from, to, Some(from), most_ticks)
        .ticks
        .into_iter()
        .filter(|tick| *tick > 0.0)
        .collect();
    Settled {
        scale: Scale::Log,
        from,
        to,
        ticks,
    }
}

/// The least of 1, 2, 5 times a power of ten that is not below `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999_999)
        .unwrap_or(10.0 * power)
}

/// The labels of ticks: all with the same number of decimals, with a thousands separator or `k`, `M`, `G`.
pub(crate) fn tick_labels(ticks: &[f64], scale: Scale) -> Vec<String> {
    if scale == Scale::Log {
        return ticks.iter().map(|&tick| short(tick)).collect();
    }
    let largest = ticks
        .iter()
        .fold(0.0f64, |largest, tick| largest.max(tick.abs()));
    let (unit, suffix) = unit_of(largest);
    let step = ticks
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .fold(f64::INFINITY, f64::min)
        / unit;
    let decimals = if step.is_finite() && step > 0.0 {
        (-(step * 1.000_001).log10().floor()).max(0.0) as usize
    } else {
        2
    };
    ticks
        .iter()
        .map(|tick| {
            let label = separated(tick / unit, decimals);
            if *tick == 0.0 { label } else { label + suffix }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, values: &[f64]) -> Vec<String> {
        let settled = Axis {
            scale,
            ..Axis::default()
        }
        .settle(values, 8);
        tick_labels(&settled.ticks, scale)
    }

    #[test]
    fn ticks_are_round_and_labelled_alike() {
        assert_eq!(
            labels(Scale::Linear, &[3.0, 95.0]),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            labels(Scale::Linear, &[0.0, 0.31]),
            [
                "0.00", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30", "0.35"
            ]
        );
        assert_eq!(
            labels(Scale::Linear, &[100.0, 12_000.0]),
            ["0", "2,000", "4,000", "6,000", "8,000", "10,000", "12,000"]
        );
        assert_eq!(
            labels(Scale::Linear, &[980.0, 1000.0]),
            ["980", "985", "990", "995", "1,000"]
        );
        assert_eq!(
            labels(Scale::Linear, &[0.0, 2.9e6]),
            ["0.0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M", "3.0M"]
        );
        assert_eq!(
            labels(Scale::Linear, &[-3.0, 3.0]),
            ["−3", "−2", "−1", "0", "1", "2", "3"]
        );
        assert_eq!(
            labels(Scale::Log, &[1.0, 60.0]),
            ["1", "2", "5", "10", "20", "50"]
        );
        assert_eq!(
            labels(Scale::Log, &[0.01, 1e5]),
            [
                "0.01", "0.1", "1", "10", "100", "1,000", "10,000", "100,000"
            ]
        );
    }

    #[test]
    fn the_number_of_ticks_is_bounded_however_little_room_there_is() {
        for most_ticks in [0, 1, 2, usize::MAX] {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = Axis {
                    scale,
                    ..Axis::default()
                };
                let ticks = axis.settle(&[1.0, 3.0, 950.0], most_ticks).ticks;
                assert!((2..=400).contains(&ticks.len()), "{most_ticks}: {ticks:?}");
                assert!(ticks.iter().all(|tick| tick.is_finite()), "{ticks:?}");
            }
        }
    }

    #[test]
    fn degenerate_ranges_still_have_an_axis() {
        for values in [
            &[][..],
            &[0.0],
            &[5.0],
            &[-2.0, -2.0],
            &[f64::NAN, f64::INFINITY],
            &[1e-300],
            &[1e300, 1.0],
        ] {
            for scale in [Scale::Linear, Scale::Log] {
                let settled = Axis {
                    scale,
                    ..Axis::default()
                }
                .settle(values, 6);
                assert!(
                    settled.ticks.len() >= 2,
                    "{values:?} {scale:?}: {settled:?}"
                );
                let shares: Vec<_> = settled
                    .ticks
                    .iter()
                    .map(|&tick| settled.share(tick).unwrap())
                    .collect();
                assert!(
                    shares
                        .iter()
                        .all(|share| (-1e-6..=1.000_001).contains(share)),
                    "{values:?}: {shares:?}"
                );
                assert!(shares.is_sorted(), "{values:?}: {shares:?}");
            }
        }
    }
}
