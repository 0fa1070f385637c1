//! The Pareto frontier of two metrics, who wins on it, and why the other points are not on it.
//!
//! A point is *feasible* when it was simulated and meets all constraints ([`Criteria`]). Among feasible points one is on
//! the frontier when no other is at least as good in both metrics and better in one; of points equal in both the first
//! in the grid's order is. When no point is feasible the frontier is drawn through all that were simulated and there is
//! no winner.
//!
//! The winner is the feasible point that is best in `y` (tokens/s/GPU by default); ties go to the better `x`, then to the
//! grid's order. Points within 1 % of it in both metrics are its *twins*: what they do differently makes no difference.
//! The runner-up is the next by the same rule that is no twin.

use crate::criteria::{Criteria, Miss, join};
use crate::sweep::Outcome;
use std::cmp::Ordering;

/// Where a point stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// No other point is better in both metrics.
    Frontier,
    /// The frontier point named is at least as good in both metrics.
    Behind(usize),
    /// It does not count.
    Infeasible(Vec<Miss>),
}

impl Standing {
    /// Short stable name for tables: `frontier`, `behind`, or the kind of the first miss.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Standing::Frontier => "frontier",
            Standing::Behind(_) => "behind",
            Standing::Infeasible(misses) => misses.first().map_or("behind", Miss::kind),
        }
    }

    /// Why it is infeasible, in words; empty when it is not.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Standing::Infeasible(misses) => join(misses),
            Standing::Frontier | Standing::Behind(_) => String::new(),
        }
    }
}

/// The ranking of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// By point.
    pub standings: Vec<Standing>,
    /// Points on the frontier, best `y` first.
    pub frontier: Vec<usize>,
    /// The frontier holds feasible points; otherwise it is of all that were simulated.
    pub is_feasible: bool,
    /// Feasible points from best to worst.
    pub ranked: Vec<usize>,
    /// Feasible points within [`TWIN`] of the winner in both metrics, best first.
    pub twins: Vec<usize>,
    /// The best feasible point that is neither the winner nor a twin of it.
    pub runner_up: Option<usize>,
}

/// Share within which two points are as good as each other.
pub const TWIN: f64 = 0.01;

impl Ranking {
    /// Ranks all points of a sweep.
    #[must_use]
    pub fn new<'a>(outcomes: impl Iterator<Item = &'a Outcome>, criteria: &Criteria) -> Ranking {
        let (mut standings, mut simulated, mut feasible) = (Vec::new(), Vec::new(), Vec::new());
        for outcome in outcomes {
            let misses = criteria.judge(outcome);
            let scores = criteria.scores(outcome);
            feasible.push(scores.filter(|_| misses.is_empty()));
            simulated.push(scores);
            standings.push(Standing::Infeasible(misses));
        }
        let is_feasible = feasible.iter().any(Option::is_some);
        let places = pareto(if is_feasible { &feasible } else { &simulated });
        let mut frontier = Vec::new();
        for (index, place) in places.into_iter().enumerate() {
            if place == Some(Place::Frontier) {
                frontier.push(index);
            }
            match place {
                Some(Place::Frontier) if is_feasible => standings[index] = Standing::Frontier,
                Some(Place::Behind(by)) if is_feasible => standings[index] = Standing::Behind(by),
                _ => {}
            }
        }
        let scores = if is_feasible { &feasible } else { &simulated };
        frontier.sort_by(|&left, &right| by_rank(scores, left, right));
        let mut ranked: Vec<usize> = (0..feasible.len())
            .filter(|&index| feasible[index].is_some())
            .collect();
        ranked.sort_by(|&left, &right| by_rank(&feasible, left, right));
        let mut others = ranked.iter().skip(1).copied();
        let is_twin = |&index: &usize| {
            feasible[index]
                .zip(feasible[ranked[0]])
                .is_some_and(|(own, best)| own.is_near(&best))
        };
        let twins = others.clone().filter(is_twin).collect();
        let runner_up = others.find(|index| !is_twin(index));
        Ranking {
            standings,
            frontier,
            is_feasible,
            ranked,
            twins,
            runner_up,
        }
    }

    /// The best feasible point.
    #[must_use]
    pub fn winner(&self) -> Option<usize> {
        self.ranked.first().copied()
    }
}

/// A point's two metrics on scales where greater is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Abscissa.
    pub x: f64,
    /// Ordinate.
    pub y: f64,
}

impl Scores {
    fn is_near(&self, other: &Scores) -> bool {
        let is_near = |own: f64, other: f64| (own - other).abs() <= TWIN * other.abs();
        is_near(self.x, other.x) && is_near(self.y, other.y)
    }
}

/// Best `y`, then best `x`, then the grid's order.
fn by_rank(scores: &[Option<Scores>], left: usize, right: usize) -> Ordering {
    let at = |index: usize| scores[index].expect("only points with scores are ranked");
    let (a, b) = (at(left), at(right));
    b.y.total_cmp(&a.y)
        .then(b.x.total_cmp(&a.x))
        .then(left.cmp(&right))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Frontier,
    Behind(usize),
}

/// Who is on the frontier, in O(n log n): walk the points from the best `x` down and keep the best `y` seen; a point that
/// does not raise it is behind the one that holds it.
fn pareto(scores: &[Option<Scores>]) -> Vec<Option<Place>> {
    let at = |index: usize| scores[index].expect("points without scores were left out");
    let mut order: Vec<usize> = (0..scores.len())
        .filter(|&index| scores[index].is_some())
        .collect();
    order.sort_by(|&left, &right| {
        let (a, b) = (at(left), at(right));
        b.x.total_cmp(&a.x)
            .then(b.y.total_cmp(&a.y))
            .then(left.cmp(&right))
    });
    let mut places = vec![None; scores.len()];
    let mut holder: Option<usize> = None;
    for index in order {
        places[index] = match holder {
            Some(best) if at(index).y <= at(best).y => Some(Place::Behind(best)),
            _ => {
                holder = Some(index);
                Some(Place::Frontier)
            }
        };
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criteria::tests::{criteria, outcome};
    use proptest::prelude::*;

    /// Straight from the definition, O(n²).
    fn is_on_frontier(scores: &[Option<Scores>], index: usize) -> bool {
        let Some(own) = scores[index] else {
            return false;
        };
        !scores.iter().enumerate().any(|(other, scores)| {
            scores.is_some_and(|scores| {
                let as_good = scores.x >= own.x && scores.y >= own.y;
                as_good && (scores != own || other < index)
            })
        })
    }

    fn scores() -> impl Strategy<Value = Vec<Option<Scores>>> {
        // A coarse lattice, so that ties and equal points are common.
        let score = (-4i8..5, -4i8..5).prop_map(|(x, y)| Scores {
            x: f64::from(x),
            y: f64::from(y) / 3.0,
        });
        prop::collection::vec(prop::option::weighted(0.9, score), 0..60)
    }

    proptest! {
        #[test]
        fn the_frontier_is_that_of_the_definition(scores in scores()) {
            let places = pareto(&scores);
            for (index, place) in places.iter().enumerate() {
                prop_assert_eq!(*place == Some(Place::Frontier), is_on_frontier(&scores, index));
                prop_assert_eq!(place.is_some(), scores[index].is_some());
                if let Some(Place::Behind(by)) = *place {
                    let (own, better) = (scores[index].unwrap(), scores[by].unwrap());
                    prop_assert!(better.x >= own.x && better.y >= own.y && by != index);
                    prop_assert_eq!(places[by], Some(Place::Frontier));
                }
            }
        }

        #[test]
        fn the_winner_is_on_the_frontier_and_no_feasible_point_beats_it(scores in scores()) {
            let outcomes: Vec<_> = scores.iter().map(|scores| outcome(*scores, 1.0)).collect();
            let ranking = Ranking::new(outcomes.iter(), &criteria(0.9));
            prop_assert_eq!(ranking.winner(), ranking.frontier.first().copied());
            if let Some(winner) = ranking.winner() {
                prop_assert_eq!(&ranking.standings[winner], &Standing::Frontier);
                let best = scores.iter().flatten().map(|scores| scores.y).fold(f64::NEG_INFINITY, f64::max);
                prop_assert_eq!(scores[winner].unwrap().y, best);
            }
        }
    }

    fn point(x: f64, y: f64) -> Option<Scores> {
        Some(Scores { x, y })
    }

    #[test]
    fn equal_points_go_to_the_first_in_grid_order() {
        let outcomes = [
            point(1.0, 5.0),
            point(2.0, 5.0),
            point(2.0, 5.0),
            point(3.0, 1.0),
        ]
        .map(|at| outcome(at, 1.0));
        let ranking = Ranking::new(outcomes.iter(), &criteria(0.9));
        assert_eq!(ranking.ranked, [1, 2, 0, 3]);
        assert_eq!(ranking.frontier, [1, 3]);
        assert_eq!(
            (ranking.twins.as_slice(), ranking.runner_up),
            (&[2][..], Some(0))
        );
        assert_eq!(ranking.standings[2], Standing::Behind(1));
    }

    #[test]
    fn points_that_miss_a_constraint_stay_with_their_reasons() {
        let outcomes = [
            outcome(point(9.0, 9.0), 0.5),
            outcome(point(1.0, 1.0), 0.95),
            outcome(None, 1.0),
            Outcome::Impossible("does not fit".to_owned()),
        ];
        let ranking = Ranking::new(outcomes.iter(), &criteria(0.9));
        assert_eq!(
            (ranking.winner(), ranking.runner_up, ranking.is_feasible),
            (Some(1), None, true)
        );
        let reasons = ranking.standings.iter().map(|standing| match standing {
            Standing::Infeasible(misses) => misses
                .iter()
                .map(Miss::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            _ => String::new(),
        });
        let reasons: Vec<_> = reasons.collect();
        assert!(
            reasons[0].starts_with("SLA met by 50 % of requests, 90 % asked"),
            "{}",
            reasons[0]
        );
        assert_eq!(reasons[1], "");
        assert!(
            reasons[2].starts_with("no value for tokens/s/GPU"),
            "{}",
            reasons[2]
        );
        assert_eq!(reasons[3], "impossible: does not fit");
    }

    #[test]
    fn without_a_feasible_point_the_frontier_is_of_all_that_ran() {
        let outcomes =
            [point(1.0, 2.0), point(2.0, 1.0), point(0.0, 0.0)].map(|at| outcome(at, 0.1));
        let ranking = Ranking::new(outcomes.iter(), &criteria(0.9));
        assert_eq!(ranking.frontier, [0, 1]);
        assert!(!ranking.is_feasible && ranking.winner().is_none());
        assert!(
            ranking
                .standings
                .iter()
                .all(|standing| matches!(standing, Standing::Infeasible(_)))
        );
    }
}
