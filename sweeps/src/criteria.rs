//! What is wanted of a deployment: two metrics to be good in, and constraints to be met.
//!
//! The SLA is met when at least a given share of *all* requests (90 % unless told otherwise; refused and unfinished ones
//! are misses) has both TTFT and TPOT within their bounds: the metric `goodput.share`. Percentiles of TTFT and TPOT are
//! quoted to say which of the two is the problem. Beside the SLA, at most 1 % of requests may be refused, none may be
//! left unfinished, and the caller may bound any metric (`latency.ttft_ms.p99<=500`, `throughput.gpus<=16`).

use crate::constraint::{Bound, Constraint};
use crate::frontier::Scores;
use crate::metric::{Objective, label, percent, short, value_text};
use crate::row::Row;
use crate::rows::{REJECTED_SHARE, SLA_SHARE, UNFINISHED};
use crate::sweep::Outcome;
use sim::Sla;
use std::fmt;

/// Share of requests that must meet the SLA unless told otherwise.
pub const DEFAULT_ATTAINMENT: f64 = 0.9;
/// Share of requests that may be refused unless told otherwise.
pub const DEFAULT_MAX_REJECTED: f64 = 0.01;

/// Why a point does not count.
#[derive(Debug, Clone, PartialEq)]
pub enum Miss {
    /// Too few requests within the SLA.
    Sla {
        /// Share of requests that met it.
        share: f64,
        /// Share asked for.
        asked: f64,
        /// The latencies that are the problem.
        latencies: Vec<LatencyMargin>,
    },
    /// Another bound.
    Constraint {
        /// The bound.
        constraint: Constraint,
        /// What the point has.
        value: f64,
    },
    /// The run has no value for a metric that is asked for: no request finished, for example.
    NoValue(String),
    /// There can be no such deployment.
    Impossible(String),
    /// The simulation broke.
    Failed(String),
}

impl Miss {
    /// Short stable name for tables.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Miss::Sla { .. } => "sla",
            Miss::Constraint { constraint, .. } if constraint.metric == REJECTED_SHARE => {
                "rejected"
            }
            Miss::Constraint { constraint, .. } if constraint.metric == UNFINISHED => "unfinished",
            Miss::Constraint { .. } => "constraint",
            Miss::NoValue(_) => "no_value",
            Miss::Impossible(_) => "impossible",
            Miss::Failed(_) => "failed",
        }
    }

    /// What points that miss like this are, by the name of the kind: `12 outside the SLA`.
    #[must_use]
    pub fn kind_in_words(kind: &str) -> &'static str {
        match kind {
            "sla" => "outside the SLA",
            "rejected" => "with too many rejected requests",
            "unfinished" => "with unfinished requests",
            "constraint" => "beyond a required bound",
            "no_value" => "without a value to judge by",
            "impossible" => "impossible",
            "failed" => "broken by a failed simulation",
            _ => "left out for another reason",
        }
    }

    /// How far from the bound, 0 at the bound, larger is worse; infinite where nothing can be measured.
    #[must_use]
    pub fn severity(&self) -> f64 {
        let relative = |value: f64, limit: f64| (value - limit).abs() / limit.abs().max(1e-9);
        match self {
            Miss::Sla { share, asked, .. } => relative(*share, *asked),
            Miss::Constraint { constraint, value } => match constraint.bound {
                Bound::AtMost(limit) | Bound::AtLeast(limit) => relative(*value, limit),
            },
            Miss::NoValue(_) | Miss::Impossible(_) | Miss::Failed(_) => f64::INFINITY,
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Sla {
                share,
                asked,
                latencies,
            } => {
                write!(
                    f,
                    "SLA met by {} of requests, {} asked",
                    percent(*share),
                    percent(*asked)
                )?;
                let parts: Vec<String> = latencies.iter().map(LatencyMargin::to_string).collect();
                if parts.is_empty() {
                    Ok(())
                } else {
                    write!(f, ": {}", parts.join(" and "))
                }
            }
            Miss::Constraint { constraint, value } => {
                write!(
                    f,
                    "{constraint}, found {}",
                    value_text(&constraint.metric, *value)
                )
            }
            Miss::NoValue(metric) => write!(f, "no value for {}", label(metric)),
            Miss::Impossible(reason) => write!(f, "impossible: {reason}"),
            Miss::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// A percentile of a latency against its bound in the SLA.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyMargin {
    /// `TTFT` or `TPOT`.
    pub name: &'static str,
    /// `p90`
    pub percentile: &'static str,
    /// What the point has, in milliseconds.
    pub value_ms: f64,
    /// What is allowed, in milliseconds.
    pub limit_ms: f64,
}

impl LatencyMargin {
    /// Value over bound: above 1 it is missed, and the greater of two is the tighter.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.value_ms / self.limit_ms
    }
}

impl fmt::Display for LatencyMargin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencyMargin {
            name,
            percentile,
            value_ms,
            limit_ms,
        } = self;
        write!(
            f,
            "{name} {percentile} is {} ms of {} ms allowed",
            short(*value_ms),
            short(*limit_ms)
        )
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Criteria {
    /// Abscissa of the frontier.
    pub x: Objective,
    /// Ordinate of the frontier; the winner is best in it.
    pub y: Objective,
    /// Bounds on TTFT and TPOT; with neither given there is no SLA.
    pub sla: Sla,
    /// Share of all requests that must meet the SLA.
    pub attainment: f64,
    /// Further bounds.
    pub constraints: Vec<Constraint>,
}

impl Criteria {
    /// tokens/s/GPU against tokens/s/user, the SLA at 90 % of requests, at most 1 % refused, none unfinished.
    #[must_use]
    pub fn new(sla: Sla) -> Criteria {
        let bound = |metric: &str, limit| Constraint {
            metric: metric.to_owned(),
            bound: Bound::AtMost(limit),
        };
        Criteria {
            x: Objective::per_user(),
            y: Objective::per_gpu(),
            sla,
            attainment: DEFAULT_ATTAINMENT,
            constraints: vec![
                bound(REJECTED_SHARE, DEFAULT_MAX_REJECTED),
                bound(UNFINISHED, 0.0),
            ],
        }
    }

    /// Whether any latency is bounded.
    #[must_use]
    pub fn has_sla(&self) -> bool {
        self.sla.ttft_ms.is_some() || self.sla.itl_ms.is_some()
    }

    /// The rule in words, for reports.
    #[must_use]
    pub fn rule(&self) -> String {
        let mut parts = Vec::new();
        if self.has_sla() {
            let bound = |name, limit: Option<f64>| {
                limit.map(|limit| format!("{name} within {} ms", short(limit)))
            };
            let bounds = [
                bound("TTFT", self.sla.ttft_ms),
                bound("TPOT", self.sla.itl_ms),
            ];
            let bounds: Vec<String> = bounds.into_iter().flatten().collect();
            parts.push(format!(
                "at least {} of requests have {}",
                percent(self.attainment),
                bounds.join(" and ")
            ));
        }
        parts.extend(self.constraints.iter().map(Constraint::to_string));
        parts.join(", ")
    }

    /// Everything that keeps a point from counting; empty when it is feasible.
    #[must_use]
    pub fn judge(&self, outcome: &Outcome) -> Vec<Miss> {
        let row = match outcome {
            Outcome::Done(run) => &run.row,
            Outcome::Impossible(reason) => return vec![Miss::Impossible(reason.clone())],
            Outcome::Failed(reason) => return vec![Miss::Failed(reason.clone())],
        };
        let mut misses: Vec<Miss> = self.judge_sla(row).into_iter().collect();
        for constraint in &self.constraints {
            match row.number(&constraint.metric) {
                Some(value) if constraint.is_met(value) => {}
                Some(value) => misses.push(Miss::Constraint {
                    constraint: constraint.clone(),
                    value,
                }),
                None => misses.push(Miss::NoValue(constraint.metric.clone())),
            }
        }
        let axes = [&self.y.metric, &self.x.metric].into_iter();
        let absent = axes
            .filter(|metric| row.number(metric).is_none())
            .map(|metric| Miss::NoValue(metric.clone()));
        misses.extend(absent);
        misses
    }

    fn judge_sla(&self, row: &Row) -> Option<Miss> {
        if !self.has_sla() {
            return None;
        }
        let Some(share) = row.number(SLA_SHARE) else {
            return Some(Miss::NoValue(SLA_SHARE.to_owned()));
        };
        if share >= self.attainment {
            return None;
        }
        let all = self.latency_margins(row);
        let missed: Vec<_> = all
            .iter()
            .filter(|margin| margin.load() > 1.0)
            .cloned()
            .collect();
        let latencies = if missed.is_empty() { all } else { missed };
        Some(Miss::Sla {
            share,
            asked: self.attainment,
            latencies,
        })
    }

    /// The percentile that goes with the share of requests asked for: `p90` for 90 %.
    #[must_use]
    pub fn percentile(&self) -> &'static str {
        let percentiles = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95)];
        let above = percentiles
            .into_iter()
            .find(|(_, share)| *share >= self.attainment);
        above.map_or("p99", |(name, _)| name)
    }

    /// The bounded latencies at [`Criteria::percentile`].
    #[must_use]
    pub fn latency_margins(&self, row: &Row) -> Vec<LatencyMargin> {
        let percentile = self.percentile();
        let bounds = [
            ("TTFT", "latency.ttft_ms", self.sla.ttft_ms),
            ("TPOT", "latency.tpot_ms", self.sla.itl_ms),
        ];
        let margin = |(name, metric, limit): (&'static str, &str, Option<f64>)| {
            let value_ms = row.number(&format!("{metric}.{percentile}"))?;
            Some(LatencyMargin {
                name,
                percentile,
                value_ms,
                limit_ms: limit?,
            })
        };
        bounds.into_iter().filter_map(margin).collect()
    }

    /// The two metrics of a simulated point, greater is better; `None` when it lacks one.
    #[must_use]
    pub fn scores(&self, outcome: &Outcome) -> Option<Scores> {
        let row = outcome.row()?;
        let score = |objective: &Objective| {
            row.number(&objective.metric)
                .map(|value| objective.direction.score(value))
        };
        Some(Scores {
            x: score(&self.x)?,
            y: score(&self.y)?,
        })
    }
}

/// Misses as one sentence part.
pub(crate) fn join(misses: &[Miss]) -> String {
    misses
        .iter()
        .map(Miss::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::row::Value;
    use crate::rows::{TOKENS_PER_S_PER_GPU, TOKENS_PER_S_PER_USER};
    use crate::sweep::Run;

    /// TTFT within 500 ms and TPOT within 30 ms.
    pub(crate) fn criteria(attainment: f64) -> Criteria {
        Criteria {
            attainment,
            ..Criteria::new(Sla {
                ttft_ms: Some(500.0),
                itl_ms: Some(30.0),
            })
        }
    }

    /// A simulated point with the given axes and share within the SLA.
    pub(crate) fn outcome(scores: Option<Scores>, share: f64) -> Outcome {
        outcome_with(scores, share, 0.0, [400.0, 20.0])
    }

    /// The same with the share rejected and the p90 of TTFT and TPOT.
    pub(crate) fn outcome_with(
        scores: Option<Scores>,
        share: f64,
        rejected: f64,
        p90: [f64; 2],
    ) -> Outcome {
        let axis = |pick: fn(Scores) -> f64| {
            scores.map_or(Value::Missing, |scores| Value::from(pick(scores)))
        };
        let cells = vec![
            (TOKENS_PER_S_PER_USER.into(), axis(|scores| scores.x)),
            (TOKENS_PER_S_PER_GPU.into(), axis(|scores| scores.y)),
            (SLA_SHARE.into(), Value::from(share)),
            (REJECTED_SHARE.into(), Value::from(rejected)),
            (UNFINISHED.into(), Value::from(0u64)),
            ("latency.ttft_ms.p90".into(), Value::from(p90[0])),
            ("latency.tpot_ms.p90".into(), Value::from(p90[1])),
        ];
        Outcome::Done(Run {
            row: Row::new(cells),
            ..Run::default()
        })
    }

    const SCORES: Option<Scores> = Some(Scores { x: 40.0, y: 800.0 });

    fn misses(outcome: &Outcome) -> Vec<String> {
        criteria(0.9)
            .judge(outcome)
            .iter()
            .map(|miss| format!("{}: {miss}", miss.kind()))
            .collect()
    }

    #[test]
    fn a_miss_names_the_latency_that_is_the_problem() {
        assert!(misses(&outcome_with(SCORES, 0.9, 0.01, [500.0, 30.0])).is_empty());
        assert_eq!(
            misses(&outcome_with(SCORES, 0.713, 0.0, [1203.0, 12.0])),
            [
                "sla: SLA met by 71.3 % of requests, 90 % asked: TTFT p90 is 1,203 ms of 500 ms allowed"
            ]
        );
        // Each bound alone is met by 90 % of requests, both together are not.
        assert_eq!(
            misses(&outcome_with(SCORES, 0.8999, 0.0, [480.0, 29.0])),
            [
                "sla: SLA met by 89.9 % of requests, 90 % asked: TTFT p90 is 480 ms of 500 ms allowed and TPOT p90 is 29 ms \
              of 30 ms allowed"
            ]
        );
        assert_eq!(
            misses(&outcome_with(SCORES, 0.95, 0.02, [480.0, 29.0])),
            ["rejected: rejected requests at most 1 %, found 2 %"]
        );
    }

    #[test]
    fn the_rule_is_stated() {
        let rule = criteria(0.95).rule();
        assert!(
            rule.starts_with(
                "at least 95 % of requests have TTFT within 500 ms and TPOT within 30 ms, "
            ),
            "{rule}"
        );
        assert!(!Criteria::new(Sla::default()).rule().contains("TTFT"));
    }
}
