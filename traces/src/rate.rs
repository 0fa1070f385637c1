//! Arrivals per second over time, and the integral by which arrivals are placed.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Arrivals per second over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rate {
    /// Always the same.
    Constant {
        /// Arrivals per second.
        per_s: f64,
    },
    /// From one rate to another along a straight line, and constant from then on.
    Ramp {
        /// At the start.
        from_per_s: f64,
        /// At the end.
        to_per_s: f64,
        /// How long it takes, in seconds.
        over_s: f64,
    },
    /// A sine, as days are: mean · (1 + swing · cos(2π (t − peak) / period)).
    Diurnal {
        /// Average over a period.
        mean_per_s: f64,
        /// From 0 (constant) to 1 (falls to nothing, rises to twice the mean).
        swing: f64,
        /// Length of a day, in seconds.
        period_s: f64,
        /// When the rate is highest, in seconds after the start.
        peak_at_s: f64,
    },
    /// Measured: constant in each window; after the last window it begins again.
    Windows {
        /// Length of a window, in seconds.
        window_s: f64,
        /// Rate in each window.
        per_s: Vec<f64>,
    },
}

impl Rate {
    /// Expected number of arrivals from the start to `t_s`: the integral of the rate.
    #[must_use]
    pub fn expected_by(&self, t_s: f64) -> f64 {
        match *self {
            Rate::Constant { per_s } => per_s * t_s,
            Rate::Ramp {
                from_per_s,
                to_per_s,
                over_s,
            } => {
                let t = t_s.min(over_s);
                from_per_s * t
                    + (to_per_s - from_per_s) * t * t / (2.0 * over_s)
                    + to_per_s * (t_s - t)
            }
            Rate::Diurnal {
                mean_per_s,
                swing,
                period_s,
                peak_at_s,
            } => {
                let sine = |t: f64| (TAU * (t - peak_at_s) / period_s).sin();
                mean_per_s * (t_s + swing * period_s / TAU * (sine(t_s) - sine(0.0)))
            }
            Rate::Windows {
                window_s,
                ref per_s,
            } => {
                let round_s = window_s * per_s.len() as f64;
                let rounds = (t_s / round_s).floor();
                let mut left_s = t_s - rounds * round_s;
                let mut expected = rounds * window_s * per_s.iter().sum::<f64>();
                for rate in per_s {
                    expected += rate * left_s.min(window_s);
                    left_s = (left_s - window_s).max(0.0);
                }
                expected
            }
        }
    }

    /// When so many arrivals are expected, in seconds: the inverse of [`Rate::expected_by`].
    #[must_use]
    pub fn when_expected(&self, expected: f64) -> f64 {
        match *self {
            Rate::Constant { per_s } => expected / per_s,
            Rate::Ramp { .. } if expected <= 0.0 => 0.0,
            Rate::Ramp {
                from_per_s,
                to_per_s,
                over_s,
            } => {
                let by_then = (from_per_s + to_per_s) * over_s / 2.0;
                if expected >= by_then {
                    return over_s + (expected - by_then) / to_per_s;
                }
                // from · t + slope · t² / 2 = expected, in the form that also holds for slope 0.
                let slope = (to_per_s - from_per_s) / over_s;
                2.0 * expected
                    / (from_per_s
                        + (from_per_s * from_per_s + 2.0 * slope * expected)
                            .max(0.0)
                            .sqrt())
            }
            Rate::Diurnal {
                mean_per_s,
                swing,
                period_s,
                ..
            } => {
                // The sine shifts the integral by at most this much to either side.
                let middle = expected / mean_per_s;
                let reach = swing * period_s / TAU * 2.0;
                self.bisect(expected, (middle - reach).max(0.0), middle + reach)
            }
            Rate::Windows {
                window_s,
                ref per_s,
            } => {
                let per_round = window_s * per_s.iter().sum::<f64>();
                let rounds = (expected / per_round).floor();
                let mut left = expected - rounds * per_round;
                let mut t = rounds * window_s * per_s.len() as f64;
                for rate in per_s {
                    if left <= rate * window_s && *rate > 0.0 {
                        return t + left / rate;
                    }
                    left -= rate * window_s;
                    t += window_s;
                }
                t
            }
        }
    }

    /// `t` between `low` and `high` with `expected_by(t) = expected`.
    fn bisect(&self, expected: f64, mut low: f64, mut high: f64) -> f64 {
        // 64 halvings leave less than a nanosecond of any interval that a run can span.
        for _ in 0..64 {
            let middle = f64::midpoint(low, high);
            if self.expected_by(middle) < expected {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// What is wrong with the parameters, or nothing.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let not_negative = |value: f64| value >= 0.0 && value.is_finite();
        match *self {
            Rate::Constant { per_s } => Fault::unless(
                positive(per_s),
                || format!("per_s {per_s}"),
                "a rate above 0",
            ),
            Rate::Ramp {
                from_per_s,
                to_per_s,
                over_s,
            } => {
                let is_fine = not_negative(from_per_s) && positive(to_per_s) && positive(over_s);
                let found =
                    || format!("from_per_s {from_per_s}, to_per_s {to_per_s}, over_s {over_s}");
                Fault::unless(
                    is_fine,
                    found,
                    "from_per_s of at least 0, to_per_s and over_s above 0",
                )
            }
            Rate::Diurnal {
                mean_per_s,
                swing,
                period_s,
                peak_at_s,
            } => {
                let is_fine = positive(mean_per_s)
                    && (0.0..=1.0).contains(&swing)
                    && positive(period_s)
                    && peak_at_s.is_finite();
                let found =
                    || format!("mean_per_s {mean_per_s}, swing {swing}, period_s {period_s}");
                Fault::unless(
                    is_fine,
                    found,
                    "mean_per_s and period_s above 0, swing from 0 to 1",
                )
            }
            Rate::Windows {
                window_s,
                ref per_s,
            } => {
                let is_fine = positive(window_s)
                    && per_s.iter().all(|&rate| not_negative(rate))
                    && per_s.iter().any(|&rate| rate > 0.0);
                let found = || format!("window_s {window_s}, {} windows", per_s.len());
                Fault::unless(
                    is_fine,
                    found,
                    "window_s above 0, rates of at least 0, one of them above 0",
                )
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ramp_delivers_the_area_under_it() {
        // From 1/s to 3/s over 10 s: 20 arrivals by then.
        let rate = Rate::Ramp {
            from_per_s: 1.0,
            to_per_s: 3.0,
            over_s: 10.0,
        };
        assert_eq!(rate.expected_by(10.0), 20.0);
        assert_eq!(rate.expected_by(12.0), 26.0);
        // t + t²/10 = 7.5 at t = 5.
        assert!((rate.when_expected(7.5) - 5.0).abs() < 1e-12);
        assert!((rate.when_expected(26.0) - 12.0).abs() < 1e-12);
    }

    pub(crate) fn rates() -> impl Strategy<Value = Rate> {
        prop_oneof![
            (0.01f64..9.0).prop_map(|per_s| Rate::Constant { per_s }),
            (0.0f64..9.0, 0.01f64..9.0, 1.0f64..500.0).prop_map(
                |(from_per_s, to_per_s, over_s)| Rate::Ramp {
                    from_per_s,
                    to_per_s,
                    over_s
                }
            ),
            (0.01f64..9.0, 0.0f64..1.0, 1.0f64..500.0, 0.0f64..500.0).prop_map(
                |(mean_per_s, swing, period_s, peak_at_s)| Rate::Diurnal {
                    mean_per_s,
                    swing,
                    period_s,
                    peak_at_s
                }
            ),
            (1.0f64..50.0, prop::collection::vec(0.0f64..9.0, 1..8)).prop_map(
                |(window_s, mut per_s)| {
                    per_s.push(1.0);
                    Rate::Windows { window_s, per_s }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn stretching_inverts_the_integral(rate in rates(), expected in 0.0f64..2000.0) {
            prop_assert_eq!(rate.fault(), None);
            let there_and_back = rate.expected_by(rate.when_expected(expected));
            prop_assert!((there_and_back - expected).abs() <= 1e-6 * expected.max(1.0), "{}", there_and_back);
        }
    }
}
