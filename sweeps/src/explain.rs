//! One paragraph on a ranking: who won and by how much, what the runner-up does differently, which constraint kept better
//! points out, and where the sweep ended before the answer did.

use crate::criteria::{Criteria, Miss, join};
use crate::digest::Digest;
use crate::frontier::{Ranking, Standing};
use crate::metric::{Objective, label, percent, short, value_text};
use crate::row::Row;
use crate::rows::SLA_SHARE;
use crate::space::{Override, describe, short_names};
use crate::sweep::Finished;
use std::collections::{BTreeMap, BTreeSet};

/// Changes below this share are called equal.
const NOTICEABLE: f64 = 5e-4;

/// Explains the ranking of the points of a sweep.
#[must_use]
pub fn explain(points: &[Finished], ranking: &Ranking, criteria: &Criteria) -> String {
    let story = Story {
        points,
        ranking,
        criteria,
    };
    let sentences = match ranking.winner() {
        Some(winner) => vec![
            story.winner(winner),
            story.margins(winner),
            story.twins(winner),
            story.runner_up(winner),
            story.left_out(winner),
            story.edges(winner),
            story.traffic(),
        ],
        None => vec![story.no_winner()],
    };
    let sentences: Vec<String> = sentences
        .into_iter()
        .filter(|sentence| !sentence.is_empty())
        .collect();
    sentences.join(" ")
}

struct Story<'a> {
    points: &'a [Finished],
    ranking: &'a Ranking,
    criteria: &'a Criteria,
}

impl Story<'_> {
    fn row(&self, index: usize) -> &Row {
        self.points[index]
            .outcome
            .row()
            .expect("ranked points were simulated")
    }

    fn overrides(&self, index: usize) -> &[Override] {
        &self.points[index].point.overrides
    }

    fn value(&self, index: usize, objective: &Objective) -> f64 {
        self.row(index)
            .number(&objective.metric)
            .expect("ranked points have both metrics of the frontier")
    }

    fn winner(&self, winner: usize) -> String {
        let axis = |objective: &Objective| {
            format!(
                "{} {}",
                value_text(&objective.metric, self.value(winner, objective)),
                label(&objective.metric)
            )
        };
        let gpus = self.row(winner).number("throughput.gpus");
        let gpus = gpus.map_or(String::new(), |gpus| {
            format!(
                " on {} GPU{}",
                short(gpus),
                if gpus == 1.0 { "" } else { "s" }
            )
        });
        let Criteria { x, y, .. } = self.criteria;
        format!(
            "Winner: point {winner} ({}) with {} and {}{gpus}.",
            describe(self.overrides(winner)),
            axis(y),
            axis(x)
        )
    }

    fn margins(&self, winner: usize) -> String {
        if !self.criteria.has_sla() {
            return format!(
                "No SLA was given, so it is the best in {} alone.",
                label(&self.criteria.y.metric)
            );
        }
        let share = self
            .row(winner)
            .number(SLA_SHARE)
            .expect("a feasible point has a share within the SLA");
        let margins = self.criteria.latency_margins(self.row(winner));
        let latencies: Vec<String> = margins.iter().map(|margin| format!("; {margin}")).collect();
        let asked = percent(self.criteria.attainment);
        format!(
            "{} of its requests are within the SLA ({asked} asked){}.",
            percent(share),
            latencies.concat()
        )
    }

    /// Fields in which points as good as the winner differ from it.
    fn twins(&self, winner: usize) -> String {
        let twins = &self.ranking.twins;
        let mut fields: Vec<&str> = Vec::new();
        for set in twins.iter().flat_map(|&twin| self.overrides(twin)) {
            if !fields.contains(&set.field.as_str()) && !self.overrides(winner).contains(set) {
                fields.push(&set.field);
            }
        }
        let others = match twins.len() {
            0 => return String::new(),
            1 => "1 point is".to_owned(),
            more => format!("{more} points are"),
        };
        format!(
            "{others} within 1 % of it in both, whatever their {}.",
            fields.join(", ")
        )
    }

    fn runner_up(&self, winner: usize) -> String {
        let Some(second) = self.ranking.runner_up else {
            return "No other point meets all constraints.".to_owned();
        };
        let differences = differences(self.overrides(winner), self.overrides(second));
        format!(
            "Runner-up: point {second}, with {differences}: {}.",
            self.changes(winner, second).join(", ")
        )
    }

    /// What is noticeably different at `other`: the axes, the bounded latencies, GPUs.
    fn changes(&self, winner: usize, other: usize) -> Vec<String> {
        let Criteria { x, y, .. } = self.criteria;
        let mut metrics = vec![
            y.metric.clone(),
            x.metric.clone(),
            "throughput.gpus".to_owned(),
        ];
        for margin in self.criteria.latency_margins(self.row(winner)) {
            metrics.push(format!(
                "latency.{}_ms.{}",
                margin.name.to_lowercase(),
                margin.percentile
            ));
        }
        if !self.criteria.has_sla() {
            metrics.extend(["latency.ttft_ms.p99", "latency.tpot_ms.p99"].map(str::to_owned));
        }
        let mut seen = Vec::new();
        metrics.retain(|metric| {
            !seen.contains(metric) && {
                seen.push(metric.clone());
                true
            }
        });
        let change = |metric: &String| {
            let (from, to) = (
                self.row(winner).number(metric)?,
                self.row(other).number(metric)?,
            );
            change(from, to).map(|change| format!("{} {change}", label(metric)))
        };
        metrics.iter().filter_map(change).collect()
    }

    /// The constraint that binds: what the best of the points that beat the winner in `y` misses.
    fn left_out(&self, winner: usize) -> String {
        let y = &self.criteria.y;
        let own = y.direction.score(self.value(winner, y));
        let score = |index: usize| {
            let value = self.points[index].outcome.row()?.number(&y.metric)?;
            Some(y.direction.score(value)).filter(|score| *score > own)
        };
        let better: Vec<(usize, f64)> = (0..self.points.len())
            .filter_map(|index| Some((index, score(index)?)))
            .collect();
        // The one that differs in the fewest fields, then the next above the winner: the first step that is one too far.
        let changed = |index: usize| {
            let own = self.overrides(winner);
            self.overrides(index)
                .iter()
                .filter(|set| !own.contains(set))
                .count()
        };
        let nearest = better.iter().min_by(|left, right| {
            changed(left.0)
                .cmp(&changed(right.0))
                .then(left.1.total_cmp(&right.1))
        });
        let Some(&(next, _)) = nearest else {
            return format!(
                "No constraint binds: no point that was simulated is better in {}.",
                label(&y.metric)
            );
        };
        let Standing::Infeasible(misses) = &self.ranking.standings[next] else {
            unreachable!("a feasible point does not beat the winner")
        };
        let others = if better.len() == 1 {
            "One point is".to_owned()
        } else {
            format!("{} points are", better.len())
        };
        format!(
            "What binds: {others} better in {} but miss a constraint; the nearest, point {next} with {}, does not count: {}.",
            label(&y.metric),
            differences(self.overrides(winner), self.overrides(next)),
            join(misses),
        )
    }

    /// Numeric fields whose least or greatest swept value won and matters: more might be had beyond.
    fn edges(&self, winner: usize) -> String {
        let edge = |set: &Override| {
            let value = set.value.parse::<f64>().ok()?;
            let others = self.along(winner, &set.field);
            let below = others.iter().rev().find(|(other, _)| *other < value);
            let above = others.iter().find(|(other, _)| *other > value);
            let (inner, side) = match (below, above) {
                // One worker, or none of something, cannot be undercut.
                (None, Some(above)) if value > 1.0 => (above.1, "least"),
                (Some(below), None) => (below.1, "greatest"),
                _ => return None,
            };
            let is_twin = self.ranking.twins.contains(&inner);
            (!is_twin).then(|| format!("{} is the {side} value tried of {}", set.value, set.field))
        };
        let edges: Vec<String> = self.overrides(winner).iter().filter_map(edge).collect();
        if edges.is_empty() {
            return String::new();
        }
        format!(
            "At the edge of the sweep: {}; a better point may lie beyond.",
            edges.join(", ")
        )
    }

    /// Points that differ from the winner in one numeric field alone, by rising value.
    fn along(&self, winner: usize, field: &str) -> Vec<(f64, usize)> {
        let rest = |index: usize| -> Vec<&Override> {
            self.overrides(index)
                .iter()
                .filter(|set| set.field != field)
                .collect()
        };
        let value = |index: usize| {
            let set = self
                .overrides(index)
                .iter()
                .find(|set| set.field == field)?;
            set.value.parse::<f64>().ok()
        };
        let own = rest(winner);
        let others = (0..self.points.len()).filter(|&index| rest(index) == own);
        let mut others: Vec<(f64, usize)> = others
            .filter_map(|index| Some((value(index)?, index)))
            .collect();
        others.sort_by(|left, right| left.0.total_cmp(&right.0));
        others
    }

    /// A ranking over different traffic is no ranking of deployments alone.
    fn traffic(&self) -> String {
        let served = self
            .points
            .iter()
            .filter_map(|point| point.outcome.run())
            .map(|run| run.workload);
        let served: BTreeSet<Digest> = served.collect();
        if served.len() < 2 {
            return String::new();
        }
        format!(
            "Points serve {} different workloads, so this ranks traffic as well as deployments.",
            served.len()
        )
    }

    fn no_winner(&self) -> String {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let misses = |index: usize| match &self.ranking.standings[index] {
            Standing::Infeasible(misses) => misses.as_slice(),
            Standing::Frontier | Standing::Behind(_) => {
                unreachable!("without a winner no point is feasible")
            }
        };
        for index in 0..self.points.len() {
            *kinds
                .entry(misses(index).first().map_or("other", Miss::kind))
                .or_default() += 1;
        }
        let kinds: Vec<String> = kinds
            .iter()
            .map(|(kind, count)| format!("{count} {}", Miss::kind_in_words(kind)))
            .collect();
        let severity = |index: usize| misses(index).iter().map(Miss::severity).fold(0.0, f64::max);
        let none = match self.points.len() {
            1 => "The only point does not meet",
            _ => "No point meets",
        };
        let head = format!(
            "{none} all constraints ({}): {}.",
            self.criteria.rule(),
            kinds.join(", ")
        );
        match (0..self.points.len())
            .min_by(|&left, &right| severity(left).total_cmp(&severity(right)))
        {
            Some(nearest) => {
                let at = describe(self.overrides(nearest));
                format!(
                    "{head} Nearest: point {nearest} ({at}), but {}.",
                    join(misses(nearest))
                )
            }
            None => head,
        }
    }
}

/// `workers 4 instead of 8, block_size 16 instead of the scenario's`.
fn differences(of: &[Override], other: &[Override]) -> String {
    let value = |sets: &'_ [Override], field: &str| {
        sets.iter()
            .find(|set| set.field == field)
            .map_or("the scenario's".to_owned(), |set| set.value.clone())
    };
    let mut fields: Vec<&str> = Vec::new();
    for set in of.iter().chain(other) {
        if !fields.contains(&set.field.as_str()) {
            fields.push(&set.field);
        }
    }
    let names = short_names(&fields);
    let parts = fields.iter().zip(&names).filter_map(|(field, name)| {
        let (from, to) = (value(of, field), value(other, field));
        (from != to).then(|| format!("{name} {to} instead of {from}"))
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        "the same configuration".to_owned()
    } else {
        parts.join(", ")
    }
}

/// `23.1 % lower`; nothing when too small to speak of.
fn change(from: f64, to: f64) -> Option<String> {
    if from == 0.0 {
        return (to != 0.0).then(|| format!("{} instead of 0", short(to)));
    }
    let share = (to - from) / from.abs();
    let word = if share > 0.0 { "higher" } else { "lower" };
    (share.abs() >= NOTICEABLE)
        .then(|| format!("{} % {word}", short((share.abs() * 1000.0).round() / 10.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criteria::tests::{criteria, outcome_with};
    use crate::digest::digest_parts;
    use crate::frontier::Scores;
    use crate::space::Space;
    use crate::sweep::{Outcome, Run};

    fn story(axes: &[&str], outcomes: Vec<Outcome>) -> String {
        let mut space = Space::default();
        axes.iter().for_each(|axis| space.vary(axis).unwrap());
        let points = space.points().zip(outcomes);
        let points: Vec<Finished> = points
            .map(|(point, outcome)| Finished {
                point,
                outcome,
                is_resumed: false,
            })
            .collect();
        let criteria = criteria(0.9);
        let ranking = Ranking::new(points.iter().map(|point| &point.outcome), &criteria);
        explain(&points, &ranking, &criteria)
    }

    fn at(x: f64, y: f64, share: f64, ttft: f64) -> Outcome {
        outcome_with(Some(Scores { x, y }), share, 0.0, [ttft, 20.0])
    }

    #[test]
    fn winner_runner_up_and_the_constraint_that_binds() {
        let outcomes = vec![
            Outcome::Impossible("weights need 2 GPUs".to_owned()),
            at(30.0, 1600.0, 0.40, 2000.0),
            at(38.0, 1200.0, 0.85, 900.0),
            at(40.0, 1000.0, 0.97, 400.0),
            at(44.0, 800.0, 0.99, 300.0),
        ];
        assert_eq!(
            story(&["pools.agg.workers=1..5"], outcomes),
            "Winner: point 3 (pools.agg.workers=4) with 1,000 tokens/s/GPU and 40 tokens/s/user. 97 % of its requests are \
             within the SLA (90 % asked); TTFT p90 is 400 ms of 500 ms allowed; TPOT p90 is 20 ms of 30 ms allowed. \
             Runner-up: point 4, with workers 5 instead of 4: tokens/s/GPU 20 % lower, tokens/s/user 10 % \
             higher, TTFT p90 (ms) 25 % lower. What binds: 2 points are better in tokens/s/GPU but miss a constraint; the \
             nearest, point 2 with workers 3 instead of 4, does not count: SLA met by 85 % of requests, 90 % \
             asked: TTFT p90 is 900 ms of 500 ms allowed."
        );
    }

    #[test]
    fn an_axis_without_effect_and_the_edge_of_the_sweep_are_named() {
        let pair = || [at(40.0, 10.0, 1.0, 9.0), at(50.0, 5.0, 1.0, 8.0)];
        let story = story(
            &["block_size=16,32", "workers=2,4"],
            [pair(), pair()].concat(),
        );
        assert!(
            story.contains("1 point is within 1 % of it in both, whatever their block_size."),
            "{story}"
        );
        assert!(
            story.contains(
                "Runner-up: point 1, with workers 4 instead of 2: tokens/s/GPU 50 % lower"
            ),
            "{story}"
        );
        assert!(story.contains("No constraint binds"), "{story}");
        assert!(
            story.contains(
                "At the edge of the sweep: 2 is the least value tried of workers; a better"
            ),
            "{story}"
        );
    }

    #[test]
    fn different_traffic_is_named() {
        let serving = |name: &[u8]| {
            let Outcome::Done(run) = at(1.0, 2.0, 1.0, 9.0) else {
                unreachable!("it is done")
            };
            Outcome::Done(Run {
                workload: digest_parts("workload", &[name]),
                ..run
            })
        };
        let same = story(&["workers=1,2"], vec![serving(b"a"), serving(b"a")]);
        assert!(!same.contains("different workloads"), "{same}");
        let other = story(&["workers=1,2"], vec![serving(b"a"), serving(b"b")]);
        assert!(other.ends_with(
            "Points serve 2 different workloads, so this ranks traffic as well as deployments."
        ));
    }

    #[test]
    fn without_a_winner_the_nearest_miss_is_named() {
        let outcomes = vec![
            at(1.0, 2.0, 0.2, 900.0),
            at(1.0, 1.0, 0.8, 600.0),
            Outcome::Failed("boom".to_owned()),
        ];
        let story = story(&["workers=1,2,3"], outcomes);
        assert!(
            story
                .starts_with("No point meets all constraints (at least 90 % of requests have TTFT"),
            "{story}"
        );
        assert!(
            story.contains(
                "): 1 broken by a failed simulation, 2 outside the SLA. Nearest: point 1 (workers=2), but SLA met by 80 %"
            ),
            "{story}"
        );
    }
}
