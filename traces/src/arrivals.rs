//! When requests arrive: a rate that may change over time, and how regular or bursty the arrivals are around it.
//!
//! Gaps of mean 1 are drawn first (all equal, exponential, or gamma with a chosen coefficient of variation) and added
//! up in *operational time*, in which the rate is always 1. Then operational time is stretched to real time by the
//! inverse of the rate's integral. So every process can follow every rate; with exponential gaps the result is exactly
//! the Poisson process of that rate (Çinlar 1975, section 4.7). The first request arrives at time 0.

use engine::Time;
use rand_distr::{Distribution, Exp1, Gamma};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Faults};
use crate::random::{Purpose, stream};
use crate::rate::Rate;

/// The end of simulated time; later arrivals (a vanishing rate) are taken to be then.
const LATEST_NS: u64 = u64::MAX / 1000;

/// Times at which requests arrive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrivals {
    /// How arrivals vary around the rate.
    #[serde(default)]
    pub process: Process,
    /// Arrivals per second.
    pub rate: Rate,
}

/// How arrivals vary around their rate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Process {
    /// At equal gaps (of operational time).
    Constant,
    /// Independent of one another: exponential gaps.
    #[default]
    Poisson,
    /// Gamma-distributed gaps.
    Gamma {
        /// Coefficient of variation of the gaps: 0 is constant, 1 is Poisson, above 1 is burstier.
        cv: f64,
    },
}

impl Arrivals {
    /// Independent arrivals at a constant rate.
    #[must_use]
    pub fn poisson(per_s: f64) -> Arrivals {
        Arrivals {
            process: Process::Poisson,
            rate: Rate::Constant { per_s },
        }
    }

    /// The first `count` arrivals.
    #[must_use]
    pub fn times(&self, seed: u64, count: usize) -> Vec<Time> {
        self.stretched(self.operational(seed, count), 1.0)
    }

    /// `count` arrivals, the first at 0 and the last at `duration_s`: the rate's shape with another level. A Poisson
    /// process with a known number of arrivals in a known time is exactly this.
    #[must_use]
    pub fn times_within(&self, seed: u64, count: usize, duration_s: f64) -> Vec<Time> {
        let operational = self.operational(seed, count);
        let last = operational.last().copied().unwrap_or_default();
        let stretch = if last > 0.0 {
            self.rate.expected_by(duration_s) / last
        } else {
            1.0
        };
        self.stretched(operational, stretch)
    }

    /// Arrivals in operational time, the first at 0.
    fn operational(&self, seed: u64, count: usize) -> Vec<f64> {
        let gap = self.process.gaps();
        let mut now = 0.0;
        let mut times = Vec::with_capacity(count);
        for entity in 0..count as u64 {
            if entity > 0 {
                now += gap.draw(seed, entity);
            }
            times.push(now);
        }
        times
    }

    fn stretched(&self, operational: Vec<f64>, stretch: f64) -> Vec<Time> {
        let at = |expected: f64| self.rate.when_expected(expected * stretch);
        operational
            .into_iter()
            .map(|expected| Time::from_ns(((at(expected) * 1e9).round() as u64).min(LATEST_NS)))
            .collect()
    }

    /// Adds what is wrong to `faults`.
    pub(crate) fn check(&self, field: &str, faults: &mut Faults<'_>) {
        faults.add(format!("{field}.process"), self.process.fault());
        faults.add(format!("{field}.rate"), self.rate.fault());
    }
}

/// The gap distribution of a process, ready to draw.
enum Gaps {
    Constant,
    Exponential,
    Gamma(Gamma<f64>),
}

impl Gaps {
    fn draw(&self, seed: u64, entity: u64) -> f64 {
        let mut rng = stream(seed, Purpose::Gap, entity);
        match self {
            Gaps::Constant => 1.0,
            Gaps::Exponential => Exp1.sample(&mut rng),
            Gaps::Gamma(gamma) => gamma.sample(&mut rng),
        }
    }
}

impl Process {
    fn gaps(self) -> Gaps {
        match self {
            Process::Constant => Gaps::Constant,
            Process::Poisson => Gaps::Exponential,
            Process::Gamma { cv: 0.0 } => Gaps::Constant,
            // Mean shape · scale = 1 and variance shape · scale² = cv².
            Process::Gamma { cv } => Gaps::Gamma(
                Gamma::new(1.0 / (cv * cv), cv * cv).expect("check() has seen a positive cv"),
            ),
        }
    }

    /// What is wrong with the parameters, or nothing.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        let Process::Gamma { cv } = self else {
            return None;
        };
        Fault::unless(
            (0.0..=100.0).contains(&cv),
            || format!("cv {cv}"),
            "a coefficient of variation from 0 to 100",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use statrs::statistics::Statistics;

    fn gaps_s(arrivals: &Arrivals, count: usize) -> Vec<f64> {
        let times = arrivals.times(11, count);
        times.windows(2).map(|w| w[1].since(w[0]).as_s()).collect()
    }

    #[test]
    fn constant_arrivals_are_a_grid() {
        let arrivals = Arrivals {
            process: Process::Constant,
            rate: Rate::Constant { per_s: 4.0 },
        };
        let ms: Vec<f64> = arrivals.times(0, 4).iter().map(|t| t.as_ms()).collect();
        assert_eq!(ms, [0.0, 250.0, 500.0, 750.0]);
    }

    #[test]
    fn gaps_have_the_mean_and_the_variation_asked_for() {
        // 40,000 gaps: standard error of the mean is cv / 200 of it.
        for (process, cv) in [
            (Process::Poisson, 1.0),
            (Process::Gamma { cv: 0.5 }, 0.5),
            (Process::Gamma { cv: 3.0 }, 3.0),
            (Process::Gamma { cv: 0.0 }, 0.0),
        ] {
            let gaps = gaps_s(
                &Arrivals {
                    process,
                    rate: Rate::Constant { per_s: 2.0 },
                },
                40_001,
            );
            let (mean, stddev) = ((&gaps).mean(), gaps.std_dev());
            assert!(
                (mean - 0.5).abs() <= 0.5 * cv * 4.0 / 200.0 + 1e-9,
                "{process:?}: mean {mean}"
            );
            assert!(
                (stddev / mean - cv).abs() <= 0.1 * cv + 1e-9,
                "{process:?}: cv {}",
                stddev / mean
            );
        }
    }

    #[test]
    fn a_day_peaks_where_it_should() {
        let rate = Rate::Diurnal {
            mean_per_s: 2.0,
            swing: 0.8,
            period_s: 1000.0,
            peak_at_s: 250.0,
        };
        let arrivals = Arrivals {
            process: Process::Poisson,
            rate,
        };
        let times = arrivals.times(5, 20_000);
        let phase = |t: &Time| t.as_s() % 1000.0;
        let day = times.iter().filter(|t| phase(t) < 500.0).count() as f64;
        // Over the half period around the peak: 1/2 + swing / π = 0.7546; 20,000 draws scatter by 0.003.
        assert!(
            (day / 20_000.0 - 0.7546).abs() < 0.012,
            "{}",
            day / 20_000.0
        );
    }

    #[test]
    fn a_given_duration_is_met_exactly() {
        let times = Arrivals::poisson(3.0).times_within(9, 500, 77.5);
        assert_eq!(
            (times.len(), times[0], times[499].as_ms()),
            (500, Time::ZERO, 77_500.0)
        );
    }

    #[test]
    fn more_arrivals_only_add_to_the_end() {
        let arrivals = Arrivals {
            process: Process::Gamma { cv: 2.0 },
            rate: Rate::Constant { per_s: 1.0 },
        };
        assert_eq!(arrivals.times(4, 1000)[..300], arrivals.times(4, 300));
    }

    proptest! {
        #[test]
        fn times_never_fall(rate in crate::rate::tests::rates(), cv in 0.0f64..4.0, seed: u64) {
            let times = Arrivals { process: Process::Gamma { cv }, rate }.times(seed, 200);
            prop_assert!(times.is_sorted());
            prop_assert_eq!(times[0], Time::ZERO);
        }
    }
}
