//! Distributions of lengths: positive whole numbers of tokens, turns or milliseconds.
//!
//! A distribution is plain data, so that a scenario file can carry it. Normal and lognormal draws are truncated to 1
//! and `max` by drawing again, which keeps the shape between the limits; `mean` and `stddev` are those before the
//! truncation. An empirical distribution is the quantile function of a sample in as few points as reproduce it.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, Geometric, LogNormal, Normal};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::quantiles::Quantiles;
use crate::random::{Purpose, stream};

/// Largest length where none is stated: 2^20.
pub const DEFAULT_MAX: u32 = 1 << 20;

/// Draws before a truncated distribution gives up and takes the nearer limit.
const TRIES: usize = 100;

/// A distribution of whole numbers from 1 on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Lengths {
    /// Always this.
    Fixed(u32),
    /// Every whole number from `min` to `max` alike.
    Uniform {
        /// Smallest, at least 1.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// Bell-shaped.
    Normal {
        /// Before truncation.
        mean: f64,
        /// Before truncation.
        stddev: f64,
        /// Longest that is drawn.
        #[serde(default = "default_max")]
        max: u32,
    },
    /// Bell-shaped on a logarithmic scale; mean and deviation are those of the lengths, not of their logarithms.
    Lognormal {
        /// Before truncation.
        mean: f64,
        /// Before truncation.
        stddev: f64,
        /// Longest that is drawn.
        #[serde(default = "default_max")]
        max: u32,
    },
    /// 1 with probability 1/mean, else one more, and so on: turns of a conversation that ends with the same probability
    /// after each.
    Geometric {
        /// At least 1.
        mean: f64,
        /// Longest that is drawn.
        #[serde(default = "default_max")]
        max: u32,
    },
    /// As in a sample.
    Empirical(Quantiles),
}

fn default_max() -> u32 {
    DEFAULT_MAX
}

impl Lengths {
    /// The distribution of a sample, which must not be empty.
    #[must_use]
    pub fn of_sample(sample: impl IntoIterator<Item = u32>) -> Lengths {
        Lengths::Empirical(Quantiles::of_sample(sample.into_iter().map(f64::from)))
    }

    /// A length.
    #[must_use]
    pub fn draw(&self, rng: &mut impl Rng) -> u32 {
        self.draw_real(rng).round() as u32
    }

    /// A length whose fraction, where the distribution has one, is rounded up or down at random, so that the mean
    /// stays true also where it lies between two small numbers.
    #[must_use]
    pub fn draw_unbiased(&self, rng: &mut impl Rng) -> u32 {
        let real = self.draw_real(rng);
        (real + rng.random::<f64>()).floor().max(1.0) as u32
    }

    /// `count` lengths in a row, independent of everything else that is drawn under `seed`.
    #[must_use]
    pub fn sample(&self, seed: u64, count: usize) -> Vec<u32> {
        (0..count as u64)
            .map(|entity| self.draw(&mut stream(seed, Purpose::Lengths, entity)))
            .collect()
    }

    /// A length; where the distribution is that of a sample, the one at probability `uniform`.
    pub(crate) fn draw_at(&self, uniform: f64, rng: &mut impl Rng) -> u32 {
        match self {
            Lengths::Empirical(quantiles) => quantiles.at(uniform).max(1.0).round() as u32,
            _ => self.draw(rng),
        }
    }

    /// A length before rounding, at least 1.
    fn draw_real(&self, rng: &mut impl Rng) -> f64 {
        match *self {
            Lengths::Fixed(length) => f64::from(length),
            Lengths::Uniform { min, max } => f64::from(rng.random_range(min..=max)),
            Lengths::Normal { mean, stddev, max } => {
                let normal = Normal::new(mean, stddev).expect("check() has seen finite parameters");
                truncated(&normal, max, rng)
            }
            Lengths::Lognormal { mean, stddev, max } => {
                let lognormal = LogNormal::from_mean_cv(mean, stddev / mean)
                    .expect("check() has seen a positive mean");
                truncated(&lognormal, max, rng)
            }
            Lengths::Geometric { mean, max } => {
                let failures =
                    Geometric::new(1.0 / mean).expect("check() has seen a mean of at least 1");
                1.0 + failures.sample(rng).min(u64::from(max) - 1) as f64
            }
            Lengths::Empirical(ref quantiles) => quantiles.at(rng.random()).max(1.0),
        }
    }

    /// The same shape with all lengths `factor` times as long; limits stay.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Lengths {
        self.stretched(|length| length * factor, factor)
    }

    /// The same shape with everything above 1 `factor` times as large: twice as many follow-ups, say, where the
    /// lengths are turns. Numbers that are no longer whole are rounded by [`Lengths::draw_unbiased`].
    #[must_use]
    pub fn scaled_above_one(&self, factor: f64) -> Lengths {
        self.stretched(|length| 1.0 + (length - 1.0) * factor, factor)
    }

    /// Every length as `map` says, which is linear and `factor` steep.
    fn stretched(&self, map: impl Fn(f64) -> f64, factor: f64) -> Lengths {
        let within = |mean: f64, max: u32| map(mean).clamp(1.0, f64::from(max));
        match *self {
            Lengths::Fixed(length) => {
                Lengths::Empirical(Quantiles::constant(map(f64::from(length))))
            }
            Lengths::Uniform { min, max } => {
                Lengths::Empirical(Quantiles::between(map(f64::from(min)), map(f64::from(max))))
            }
            Lengths::Normal { mean, stddev, max } => Lengths::Normal {
                mean: within(mean, max),
                stddev: stddev * factor,
                max,
            },
            Lengths::Lognormal { mean, stddev, max } => Lengths::Lognormal {
                mean: within(mean, max),
                stddev: stddev * factor,
                max,
            },
            Lengths::Geometric { mean, max } => Lengths::Geometric {
                mean: within(mean, max),
                max,
            },
            Lengths::Empirical(ref quantiles) => Lengths::Empirical(quantiles.map(map)),
        }
    }

    /// The longest length that can be drawn.
    #[must_use]
    pub fn longest(&self) -> u32 {
        match *self {
            Lengths::Fixed(length) => length,
            Lengths::Uniform { max, .. }
            | Lengths::Normal { max, .. }
            | Lengths::Lognormal { max, .. }
            | Lengths::Geometric { max, .. } => max,
            Lengths::Empirical(ref quantiles) => quantiles.at(1.0).max(1.0).round() as u32,
        }
    }

    /// What is wrong with the parameters, or nothing.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match *self {
            Lengths::Fixed(length) => {
                Fault::unless(length >= 1, || length.to_string(), "a length of at least 1")
            }
            Lengths::Uniform { min, max } => Fault::unless(
                1 <= min && min <= max,
                || format!("min {min}, max {max}"),
                "1 ≤ min ≤ max",
            ),
            Lengths::Normal { mean, stddev, max } | Lengths::Lognormal { mean, stddev, max } => {
                let is_fine =
                    mean >= 1.0 && mean <= f64::from(max) && stddev >= 0.0 && stddev.is_finite();
                let found = || format!("mean {mean}, stddev {stddev}, max {max}");
                Fault::unless(is_fine, found, "1 ≤ mean ≤ max and 0 ≤ stddev")
            }
            Lengths::Geometric { mean, max } => {
                let is_fine = mean >= 1.0 && mean.is_finite() && max >= 1;
                Fault::unless(
                    is_fine,
                    || format!("mean {mean}, max {max}"),
                    "1 ≤ mean and 1 ≤ max",
                )
            }
            Lengths::Empirical(ref quantiles) => quantiles.fault(),
        }
    }
}

fn truncated(distribution: &impl Distribution<f64>, max: u32, rng: &mut impl Rng) -> f64 {
    let max = f64::from(max);
    let mut value = 0.0;
    for _ in 0..TRIES {
        value = distribution.sample(rng);
        // Half a token below 1 and above the maximum still rounds to a length inside the limits.
        if value >= 0.5 && value < max + 0.5 {
            break;
        }
    }
    value.clamp(1.0, max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use statrs::statistics::Statistics;

    fn mean_and_stddev(lengths: &Lengths) -> (f64, f64) {
        let sample: Vec<f64> = lengths
            .sample(1, 40_000)
            .into_iter()
            .map(f64::from)
            .collect();
        ((&sample).mean(), sample.std_dev())
    }

    #[test]
    fn moments_are_those_asked_for_where_truncation_does_not_bite() {
        // Standard error of the mean of 40,000 draws: stddev / 200.
        let (mean, stddev) = mean_and_stddev(&Lengths::Normal {
            mean: 500.0,
            stddev: 50.0,
            max: 10_000,
        });
        assert!(
            (mean - 500.0).abs() < 1.0 && (stddev - 50.0).abs() < 1.0,
            "{mean} {stddev}"
        );
        let (mean, stddev) = mean_and_stddev(&Lengths::Lognormal {
            mean: 500.0,
            stddev: 250.0,
            max: DEFAULT_MAX,
        });
        assert!(
            (mean - 500.0).abs() < 5.0 && (stddev - 250.0).abs() < 12.0,
            "{mean} {stddev}"
        );
        // Geometric with mean 4: variance m(m-1) = 12.
        let (mean, stddev) = mean_and_stddev(&Lengths::Geometric {
            mean: 4.0,
            max: DEFAULT_MAX,
        });
        assert!(
            (mean - 4.0).abs() < 0.07 && (stddev - 12f64.sqrt()).abs() < 0.1,
            "{mean} {stddev}"
        );
        // Uniform on 1..=9: mean 5, variance (81 - 1) / 12.
        let (mean, stddev) = mean_and_stddev(&Lengths::Uniform { min: 1, max: 9 });
        assert!(
            (mean - 5.0).abs() < 0.05 && (stddev - (80.0f64 / 12.0).sqrt()).abs() < 0.03,
            "{mean} {stddev}"
        );
    }

    #[test]
    fn an_empirical_distribution_draws_what_its_sample_held() {
        // 60 % ones, 30 % twos, 10 % sevens: mean 1.9.
        let sample = (0..1000).map(|k| {
            if k < 600 {
                1
            } else if k < 900 {
                2
            } else {
                7
            }
        });
        let lengths = Lengths::of_sample(sample);
        let drawn = lengths.sample(3, 20_000);
        let share = |value| drawn.iter().filter(|&&v| v == value).count() as f64 / 20_000.0;
        assert!(
            (share(1) - 0.6).abs() < 0.012
                && (share(2) - 0.3).abs() < 0.012
                && (share(7) - 0.1).abs() < 0.012
        );
    }

    #[test]
    fn scaled_above_one_keeps_the_mean_between_whole_numbers() {
        // Two turns always, follow-ups halved: one or two turns, 1.5 on average.
        let turns = Lengths::Fixed(2).scaled_above_one(0.5);
        let drawn: Vec<u32> = (0..10_000)
            .map(|k| turns.draw_unbiased(&mut stream(1, Purpose::Turns, k)))
            .collect();
        assert!(drawn.iter().all(|&turns| turns == 1 || turns == 2));
        let mean = drawn.iter().sum::<u32>() as f64 / 10_000.0;
        assert!((mean - 1.5).abs() < 0.02, "{mean}");
    }

    #[test]
    fn faults_name_what_was_found() {
        assert_eq!(Lengths::Fixed(3).fault(), None);
        assert!(Lengths::Fixed(0).fault().is_some());
        assert!(
            Lengths::Normal {
                mean: f64::NAN,
                stddev: 1.0,
                max: 9
            }
            .fault()
            .is_some()
        );
        let fault = Lengths::Lognormal {
            mean: 900.0,
            stddev: 1.0,
            max: 512,
        }
        .fault()
        .expect("mean above max");
        assert_eq!(fault.found, "mean 900, stddev 1, max 512");
    }

    proptest! {
        #[test]
        fn draws_stay_between_one_and_the_maximum(
            mean in 1.0f64..2000.0, stddev in 0.0f64..5000.0, room in 0u32..100, seed: u64
        ) {
            let max = mean.ceil() as u32 + room;
            let shapes = [
                Lengths::Normal { mean, stddev, max },
                Lengths::Lognormal { mean, stddev, max },
                Lengths::Geometric { mean, max },
            ];
            for lengths in shapes {
                prop_assert_eq!(lengths.fault(), None);
                prop_assert!(lengths.sample(seed, 50).iter().all(|&length| (1..=max).contains(&length)));
            }
        }

        #[test]
        fn a_distribution_survives_the_file(thousandths in 1000u32..2_000_000, sample in prop::collection::vec(1u32..5000, 1..40)) {
            let mean = f64::from(thousandths) / 1000.0;
            for lengths in [Lengths::Lognormal { mean, stddev: 3.0, max: 9999 }, Lengths::of_sample(sample)] {
                let text = serde_json::to_string(&lengths).expect("plain data");
                prop_assert_eq!(serde_json::from_str::<Lengths>(&text).expect(&text), lengths);
            }
        }
    }
}
