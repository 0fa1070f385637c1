//! The least value that passes, or the greatest, by bisection over full simulations.
//!
//! Starting from a guess, the value is doubled or halved until one passes and the next does not; bisection closes in on
//! the edge between them, to the next whole number or to a relative tolerance. That is right when passing is monotone:
//! more workers never hurt, a higher rate never helps. Real systems can break this (more workers dilute a prefix cache),
//! so some values on both sides of the answer are tried as well, and every evaluated pair in the wrong order gives a
//! warning. All evaluated points are returned as a curve.

use std::collections::BTreeMap;

/// Which edge is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The least value that passes; greater values are expected to pass, too.
    Least,
    /// The greatest value that passes; lesser values are expected to pass, too.
    Greatest,
}

/// What values there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Whole numbers.
    Whole,
    /// Positive numbers; the edge is wanted to this share of its value.
    Real {
        /// For example 0.02.
        tolerance: f64,
    },
}

/// What is searched and where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Which edge.
    pub edge: Edge,
    /// Over which values.
    pub scale: Scale,
    /// Where to begin, within the limits.
    pub start: f64,
    /// Least value to try, above 0.
    pub least: f64,
    /// Greatest value to try.
    pub greatest: f64,
}

/// One simulation: whether it passed and what it gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation<T> {
    /// All constraints are met.
    pub passes: bool,
    /// Whatever the caller wants on the curve.
    pub result: T,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// The edge.
    At(f64),
    /// Even the hardest value allowed passes: the edge lies beyond.
    PassesAtLimit(f64),
    /// Not even the easiest value allowed passes.
    FailsAtLimit(f64),
}

/// The answer and everything evaluated on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<T> {
    /// The edge, if there is one within the limits.
    pub answer: Answer,
    /// All evaluated values in rising order.
    pub curve: Vec<(f64, Evaluation<T>)>,
    /// Pairs (passes, fails) of evaluated values in the wrong order: passing is not monotone.
    pub inversions: Vec<(f64, f64)>,
}

impl Search {
    /// Fewest workers, from a guess up to a limit.
    #[must_use]
    pub fn min_workers(start: u32, greatest: u32) -> Search {
        let (start, greatest) = (f64::from(start), f64::from(greatest));
        Search {
            edge: Edge::Least,
            scale: Scale::Whole,
            start,
            least: 1.0,
            greatest,
        }
    }

    /// Highest rate, from a guess up to 1/1000 and 1000 times of it.
    #[must_use]
    pub fn max_rate(start: f64, tolerance: f64) -> Search {
        let (least, greatest) = (start / 1000.0, start * 1000.0);
        Search {
            edge: Edge::Greatest,
            scale: Scale::Real { tolerance },
            start,
            least,
            greatest,
        }
    }

    /// Runs the search.
    ///
    /// # Errors
    /// The first error of `evaluate`, which ends the search.
    ///
    /// # Panics
    /// When the limits do not hold the start.
    pub fn run<T, E>(
        &self,
        evaluate: impl FnMut(f64) -> Result<Evaluation<T>, E>,
    ) -> Result<Found<T>, E> {
        let is_sound = 0.0 < self.least && self.least <= self.start && self.start <= self.greatest;
        assert!(is_sound, "a search starts within its limits");
        let mut curve = Curve {
            evaluate,
            points: BTreeMap::new(),
        };
        let answer = match self.bracket(&mut curve)? {
            Bracket::Limit(answer) => answer,
            Bracket::Between { passing, failing } => {
                Answer::At(self.bisect(&mut curve, passing, failing)?)
            }
        };
        if let Answer::At(edge) = answer {
            self.probe(&mut curve, edge)?;
        }
        let points = curve
            .points
            .into_iter()
            .map(|(bits, evaluation)| (f64::from_bits(bits), evaluation));
        let points: Vec<_> = points.collect();
        let inversions = self.inversions(&points);
        Ok(Found {
            answer,
            curve: points,
            inversions,
        })
    }

    fn bracket<T, E, F>(&self, curve: &mut Curve<T, F>) -> Result<Bracket, E>
    where
        F: FnMut(f64) -> Result<Evaluation<T>, E>,
    {
        let started_passing = curve.passes(self.start)?;
        let mut last = self.start;
        loop {
            // Towards harder values as long as they pass, towards easier ones as long as they fail.
            let next = if started_passing {
                self.harder(last)
            } else {
                self.easier(last)
            };
            if next == last {
                let hardest_is_answer =
                    started_passing && self.edge == Edge::Least && self.scale == Scale::Whole;
                return Ok(Bracket::Limit(
                    match (started_passing, hardest_is_answer && last == 1.0) {
                        (_, true) => Answer::At(last),
                        (true, _) => Answer::PassesAtLimit(last),
                        (false, _) => Answer::FailsAtLimit(last),
                    },
                ));
            }
            match (started_passing, curve.passes(next)?) {
                (true, false) => {
                    return Ok(Bracket::Between {
                        passing: last,
                        failing: next,
                    });
                }
                (false, true) => {
                    return Ok(Bracket::Between {
                        passing: next,
                        failing: last,
                    });
                }
                _ => last = next,
            }
        }
    }

    fn bisect<T, E, F>(
        &self,
        curve: &mut Curve<T, F>,
        mut passing: f64,
        mut failing: f64,
    ) -> Result<f64, E>
    where
        F: FnMut(f64) -> Result<Evaluation<T>, E>,
    {
        loop {
            let gap = (passing - failing).abs();
            let is_close = match self.scale {
                Scale::Whole => gap <= 1.0,
                Scale::Real { tolerance } => gap <= tolerance * passing.max(failing),
            };
            let middle = self.snap((passing + failing) / 2.0);
            if is_close || middle == passing || middle == failing {
                return Ok(passing);
            }
            if curve.passes(middle)? {
                passing = middle;
            } else {
                failing = middle;
            }
        }
    }

    /// Tries a few values beyond and behind the edge that bisection had no reason to look at.
    fn probe<T, E, F>(&self, curve: &mut Curve<T, F>, edge: f64) -> Result<(), E>
    where
        F: FnMut(f64) -> Result<Evaluation<T>, E>,
    {
        for share in [0.5, 0.75, 1.25, 1.5] {
            let value = match (self.scale, share < 1.0) {
                (Scale::Whole, true) => (edge * share).floor(),
                (Scale::Whole, false) => (edge * share).ceil(),
                (Scale::Real { .. }, _) => edge * share,
            };
            if (self.least..=self.greatest).contains(&value) {
                curve.passes(value)?;
            }
        }
        Ok(())
    }

    fn harder(&self, value: f64) -> f64 {
        match self.edge {
            Edge::Least => self.snap(value / 2.0),
            Edge::Greatest => self.snap(value * 2.0),
        }
    }

    fn easier(&self, value: f64) -> f64 {
        match self.edge {
            Edge::Least => self.snap(value * 2.0),
            Edge::Greatest => self.snap(value / 2.0),
        }
    }

    /// Onto the scale and within the limits.
    fn snap(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Whole => value.floor(),
            Scale::Real { .. } => value,
        };
        value.clamp(self.least, self.greatest)
    }

    /// Every passing value beside a failing one that should be harder to fail.
    fn inversions<T>(&self, points: &[(f64, Evaluation<T>)]) -> Vec<(f64, f64)> {
        let expects_pass_first = self.edge == Edge::Greatest;
        let neighbours = points
            .windows(2)
            .filter(|pair| pair[0].1.passes != pair[1].1.passes);
        let wrong = neighbours.filter(|pair| pair[0].1.passes != expects_pass_first);
        wrong
            .map(|pair| {
                if pair[0].1.passes {
                    (pair[0].0, pair[1].0)
                } else {
                    (pair[1].0, pair[0].0)
                }
            })
            .collect()
    }
}

enum Bracket {
    Between { passing: f64, failing: f64 },
    Limit(Answer),
}

/// Evaluated values by their bits, which order positive floats as their values do; nothing is evaluated twice.
struct Curve<T, F> {
    evaluate: F,
    points: BTreeMap<u64, Evaluation<T>>,
}

impl<T, E, F: FnMut(f64) -> Result<Evaluation<T>, E>> Curve<T, F> {
    fn passes(&mut self, value: f64) -> Result<bool, E> {
        if let Some(known) = self.points.get(&value.to_bits()) {
            return Ok(known.passes);
        }
        let evaluation = (self.evaluate)(value)?;
        let passes = evaluation.passes;
        self.points.insert(value.to_bits(), evaluation);
        Ok(passes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn run(search: Search, passes: impl Fn(f64) -> bool) -> Found<()> {
        let evaluate = |value| {
            Ok::<_, Infallible>(Evaluation {
                passes: passes(value),
                result: (),
            })
        };
        match search.run(evaluate) {
            Ok(found) => found,
        }
    }

    proptest! {
        #[test]
        fn fewest_workers_is_exact_from_any_start(edge in 1u32..2000, start in 1u32..1024) {
            let found = run(Search::min_workers(start, 1024), |workers| workers >= f64::from(edge));
            let expected = if edge <= 1024 { Answer::At(f64::from(edge)) } else { Answer::FailsAtLimit(1024.0) };
            prop_assert_eq!(found.answer, expected);
            prop_assert!(found.inversions.is_empty());
            prop_assert!(found.curve.len() <= 26, "{} simulations", found.curve.len());
            prop_assert!(found.curve.is_sorted_by(|left, right| left.0 < right.0));
        }

        #[test]
        fn the_highest_rate_is_within_the_tolerance(edge in 0.02f64..900.0, start in 1.0f64..10.0) {
            let found = run(Search::max_rate(start, 0.02), |rate| rate <= edge);
            match found.answer {
                Answer::At(rate) => prop_assert!(rate <= edge && edge <= rate * 1.0205, "{} of {}", rate, edge),
                other => prop_assert!(false, "{other:?}"),
            }
            prop_assert!(found.inversions.is_empty());
        }
    }

    #[test]
    fn limits_are_reported_as_limits() {
        assert_eq!(
            run(Search::max_rate(2.0, 0.02), |_| true).answer,
            Answer::PassesAtLimit(2000.0)
        );
        assert_eq!(
            run(Search::max_rate(2.0, 0.02), |_| false).answer,
            Answer::FailsAtLimit(0.002)
        );
        assert_eq!(
            run(Search::min_workers(8, 64), |_| true).answer,
            Answer::At(1.0)
        );
        let from_four = Search {
            least: 4.0,
            ..Search::min_workers(8, 64)
        };
        assert_eq!(run(from_four, |_| true).answer, Answer::PassesAtLimit(4.0));
    }

    #[test]
    fn an_inversion_among_evaluated_points_is_seen() {
        // 6 passes by luck, 7 to 11 fail, 12 and more pass: 8 fails, 16 passes, 12 is found, the probes see 6 and 9.
        let found = run(Search::min_workers(8, 64), |workers| {
            workers == 6.0 || workers >= 12.0
        });
        assert_eq!(found.answer, Answer::At(12.0));
        assert_eq!(found.inversions, [(6.0, 8.0)]);
        // Too many workers hurt.
        let found = run(Search::min_workers(4, 64), |workers| {
            (6.0..9.0).contains(&workers)
        });
        assert_eq!(found.answer, Answer::At(6.0));
        assert_eq!(found.inversions, [(8.0, 9.0)]);
        // A higher rate helps: 4 fails, 3.25 is found, the probe at 1.25 times that passes.
        let found = run(Search::max_rate(1.0, 0.1), |rate| {
            rate < 3.3 || (4.03..4.5).contains(&rate)
        });
        assert_eq!(found.answer, Answer::At(3.25));
        assert_eq!(found.inversions, [(4.0625, 4.0)]);
    }

    #[test]
    fn nothing_is_evaluated_twice_and_an_error_ends_the_search() {
        let mut seen = Vec::new();
        let evaluate = |value: f64| {
            assert!(!seen.contains(&value), "{value} again");
            seen.push(value);
            if seen.len() == 5 {
                Err("broken")
            } else {
                Ok(Evaluation {
                    passes: value >= 100.0,
                    result: (),
                })
            }
        };
        assert_eq!(Search::min_workers(3, 1024).run(evaluate), Err("broken"));
        assert_eq!(seen, [3.0, 6.0, 12.0, 24.0, 48.0]);
    }
}
