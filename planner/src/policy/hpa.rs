//! Kubernetes' Horizontal Pod Autoscaler (autoscaling/v2).
//!
//! Every `sync_period`, by role:
//!
//! 1. *Recommend*: replicas in proportion to metric over target, rounded up; none within the tolerance. Workers that are
//!    starting count as using nothing when the rest would grow, workers that do not report as being on target when it would shrink and as
//!    using nothing when it would grow; if that turns the direction round, nothing changes.
//! 2. *Stabilise*: never above the smallest recommendation of the scale-up window, never below the largest of the scale-down
//!    window (300 s by default).
//! 3. *Limit the rate*: replicas added or removed per period, by numbers or per cents; several limits, the most or least
//!    permissive of which counts.
//! 4. Between `min_replicas` and `max_replicas`.
//!
//! Source: the Kubernetes documentation of horizontal pod autoscaling and its controller's replica calculator.
//!
//! Model: metrics are those of the tick itself; a metrics pipeline adds 15 to 60 s of delay. Pods' initial readiness delay is
//! left to the deployment's start-up.

use super::metric::{Measured, Metric, MetricTarget};
use crate::decision::{Decision, Planner, Reason};
use crate::observe::{ForwardPass, Observations, PerRole, Role};
use engine::{Span, Time};

/// The settings of one role; names are those of the Kubernetes object.
#[derive(Debug, Clone, PartialEq)]
pub struct HpaSpec {
    /// What is looked at.
    pub metric: Metric,
    /// What it should be.
    pub target: MetricTarget,
    /// Fewest workers.
    pub min_replicas: u32,
    /// Most workers.
    pub max_replicas: u32,
    /// Relative distance from the target within which nothing happens; 0.1 in Kubernetes.
    pub tolerance: f64,
    /// How it grows.
    pub scale_up: Behavior,
    /// How it shrinks.
    pub scale_down: Behavior,
}

/// Stabilisation and rates of one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Behavior {
    /// How far back recommendations count.
    pub stabilization_window: Span,
    /// Limits; none is no limit.
    pub policies: Vec<RateLimit>,
    /// Which of them counts.
    pub select_policy: SelectPolicy,
}

/// A limit on replicas per period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RateLimit {
    /// So many.
    Pods {
        /// Replicas.
        value: u32,
        /// Per this time.
        period: Span,
    },
    /// So many of a hundred.
    Percent {
        /// Per cent of the replicas at the start of the period.
        value: u32,
        /// Per this time.
        period: Span,
    },
}

/// Which of several limits counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The most permissive.
    Max,
    /// The least permissive.
    Min,
    /// No move in this direction.
    Disabled,
}

impl HpaSpec {
    /// Kubernetes' defaults around a metric: up by four or double per 15 s, whichever is more, down as far as it likes after 300 s.
    #[must_use]
    pub fn new(
        metric: Metric,
        target: MetricTarget,
        replicas: std::ops::RangeInclusive<u32>,
    ) -> Self {
        let period = Span::from_s(15.0);
        HpaSpec {
            metric,
            target,
            min_replicas: *replicas.start(),
            max_replicas: *replicas.end(),
            tolerance: 0.1,
            scale_up: Behavior {
                stabilization_window: Span::ZERO,
                policies: vec![
                    RateLimit::Pods { value: 4, period },
                    RateLimit::Percent { value: 100, period },
                ],
                select_policy: SelectPolicy::Max,
            },
            scale_down: Behavior {
                stabilization_window: Span::from_s(300.0),
                policies: vec![RateLimit::Percent { value: 100, period }],
                select_policy: SelectPolicy::Max,
            },
        }
    }
}

/// The autoscaler of a deployment.
#[derive(Debug, Clone)]
pub struct Hpa {
    sync_period: Span,
    roles: PerRole<Option<Controller>>,
}

impl Hpa {
    /// One per role that has settings; Kubernetes syncs every 15 s.
    #[must_use]
    pub fn new(sync_period: Span, roles: PerRole<Option<HpaSpec>>) -> Self {
        Hpa {
            sync_period,
            roles: roles.map(|spec| spec.map(Controller::new)),
        }
    }
}

impl Planner for Hpa {
    fn name(&self) -> &'static str {
        "hpa"
    }

    fn first_tick(&self) -> Option<Time> {
        Some(Time::ZERO + self.sync_period)
    }

    fn tick(&mut self, now: Time, seen: &Observations) -> Decision {
        let mut decision = Decision {
            next_tick: Some(now + self.sync_period),
            ..Decision::default()
        };
        for role in Role::BOTH {
            if let Some(controller) = self.roles.get_mut(role) {
                let (target, reason) = controller.sync(now, role, seen);
                *decision.targets.get_mut(role) = target;
                // Of two roles the one that moves says why.
                if decision.reason.is_none() || target.is_some() {
                    decision.reason = Some(reason);
                }
            }
        }
        decision
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(self.clone())
    }
}

/// One role's controller with its memory.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    pub(super) spec: HpaSpec,
    known: Vec<ForwardPass>,
    recommendations: Vec<(Time, u32)>,
    /// Replicas added (or, negative, removed) and when.
    moves: Vec<(Time, i64)>,
}

impl Controller {
    pub(super) fn new(spec: HpaSpec) -> Self {
        Controller {
            spec,
            known: Vec::new(),
            recommendations: Vec::new(),
            moves: Vec::new(),
        }
    }

    /// The metric now.
    pub(super) fn measure(&mut self, role: Role, seen: &Observations) -> Option<Measured> {
        seen.pools.get(role).update(&mut self.known);
        self.spec.metric.measure(role, seen, &self.known)
    }

    /// A target, if it is not what there is, and why.
    pub(super) fn sync(
        &mut self,
        now: Time,
        role: Role,
        seen: &Observations,
    ) -> (Option<u32>, Reason) {
        let (ready, current) = {
            let pool = seen.pools.get(role);
            (pool.ready_count(), pool.staying())
        };
        let recommended = match self.measure(role, seen) {
            Some(measured) => self.recommend(&measured, ready, current),
            None => None,
        };
        let Some(recommended) = recommended else {
            return (None, Reason::NoMetric);
        };
        let stabilized = self.stabilize(now, current, recommended);
        let limited = self.limit_rate(now, current, stabilized);
        let bounded = limited.clamp(self.spec.min_replicas, self.spec.max_replicas);
        if bounded != current {
            self.moves
                .push((now, i64::from(bounded) - i64::from(current)));
            let is_up = bounded > current;
            return (
                Some(bounded),
                if is_up {
                    Reason::ScaleUp
                } else {
                    Reason::ScaleDown
                },
            );
        }
        let reason = match (
            recommended == current,
            stabilized == current,
            limited == current,
        ) {
            (true, ..) => Reason::WithinTolerance,
            (false, true, _) => Reason::Stabilized,
            (false, false, true) => Reason::RateLimited,
            _ => Reason::AtLimit,
        };
        (None, reason)
    }

    /// Replicas for the metric; `None` if no worker reports.
    fn recommend(&self, measured: &Measured, ready: u32, current: u32) -> Option<u32> {
        let is_near = |ratio: f64| (ratio - 1.0).abs() <= self.spec.tolerance;
        let value = match (measured, self.spec.target) {
            (
                Measured::PerWorker(values),
                MetricTarget::Value(target) | MetricTarget::AveragePerWorker(target),
            ) => return self.recommend_per_worker(values, target, ready, current),
            (Measured::Whole(value), _) => *value,
        };
        Some(match self.spec.target {
            MetricTarget::Value(target) => {
                let ratio = value / target;
                if is_near(ratio) {
                    current
                } else {
                    (ratio * f64::from(ready)).ceil() as u32
                }
            }
            MetricTarget::AveragePerWorker(target) => {
                if is_near(value / (target * f64::from(current))) {
                    current
                } else {
                    (value / target).ceil() as u32
                }
            }
        })
    }

    fn recommend_per_worker(
        &self,
        values: &[f64],
        target: f64,
        ready: u32,
        current: u32,
    ) -> Option<u32> {
        let reporting = values.len() as u32;
        if reporting == 0 {
            return None;
        }
        let is_near = |ratio: f64| (ratio - 1.0).abs() <= self.spec.tolerance;
        let sum: f64 = values.iter().sum();
        let ratio = sum / f64::from(reporting) / target;
        let silent = ready.saturating_sub(reporting);
        let starting = current.saturating_sub(ready);
        let is_up = ratio > 1.0;
        if silent == 0 && !(is_up && starting > 0) {
            return Some(if is_near(ratio) {
                current
            } else {
                (ratio * f64::from(ready)).ceil() as u32
            });
        }
        // Doubt counts against the move.
        let (sum, workers) = if is_up {
            (sum, reporting + silent + starting)
        } else {
            (sum + f64::from(silent) * target, reporting + silent)
        };
        let cautious = sum / f64::from(workers) / target;
        if is_near(cautious) || (cautious > 1.0) != is_up {
            return Some(current);
        }
        let wanted = (cautious * f64::from(workers)).ceil() as u32;
        let is_against = if is_up {
            wanted < current
        } else {
            wanted > current
        };
        Some(if is_against { current } else { wanted })
    }

    /// The current count, moved only as far as every recommendation of the windows agrees.
    fn stabilize(&mut self, now: Time, current: u32, recommended: u32) -> u32 {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
        let (up, down) = (
            self.spec.scale_up.stabilization_window,
            self.spec.scale_down.stabilization_window,
        );
        let (mut most, mut least) = (recommended, recommended);
        for &(at, earlier) in &self.recommendations {
            if now.since(at) < up {
                most = most.min(earlier);
            }
            if now.since(at) < down {
                least = least.max(earlier);
            }
        }
        self.recommendations.push((now, recommended));
        let longest = up.max(down);
        self.recommendations
            .retain(|&(at, _)| now.since(at) <= longest);
        if current < most {
            most
        } else if current > least {
            least
        } else {
            current
        }
    }

    fn limit_rate(&mut self, now: Time, current: u32, wanted: u32) -> u32 {
        if wanted == current {
            return current;
        }
        let is_up = wanted > current;
        let behavior = if is_up {
            &self.spec.scale_up
        } else {
            &self.spec.scale_down
        };
        let limits = behavior.policies.iter().map(|policy| {
            let (RateLimit::Pods { period, .. } | RateLimit::Percent { period, .. }) = *policy;
            let moved: i64 = self
                .moves
                .iter()
                .filter(|(at, _)| now.since(*at) < period)
                .map(|(_, change)| change)
                .sum();
            let before = (i64::from(current) - moved) as f64;
            let change = match *policy {
                RateLimit::Pods { value, .. } => f64::from(value),
                RateLimit::Percent { value, .. } => before * f64::from(value) / 100.0,
            };
            if is_up {
                (before + change).ceil().max(0.0) as u32
            } else {
                (before - change).max(0.0) as u32
            }
        });
        let is_furthest = behavior.select_policy == SelectPolicy::Max;
        let limit = match behavior.select_policy {
            SelectPolicy::Disabled => Some(current),
            _ if is_up == is_furthest => limits.max(),
            _ => limits.min(),
        };
        match limit {
            None => wanted,
            // What earlier moves used up does not turn this one round.
            Some(limit) if is_up => wanted.min(limit.max(current)),
            Some(limit) => wanted.max(limit.min(current)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Pool, Work, WorkerId};

    fn seen(uses: &[u64], starting: u32) -> Observations {
        let pass = |(at, &tokens): (usize, &u64)| ForwardPass {
            worker: WorkerId(at as u32),
            rank: 0,
            wall_time_s: 0.1,
            scheduled: Work {
                decode_kv_tokens: tokens,
                ..Work::default()
            },
            queued: Work::default(),
        };
        Observations {
            pools: PerRole {
                prefill: Pool::default(),
                decode: Pool {
                    ready: (0..uses.len() as u32).map(WorkerId).collect(),
                    starting,
                    draining: 0,
                    passes: uses.iter().enumerate().map(pass).collect(),
                },
            },
            ..Observations::default()
        }
    }

    fn half_full() -> HpaSpec {
        let metric = Metric::KvUse { max_kv_tokens: 100 };
        HpaSpec::new(metric, MetricTarget::Value(0.5), 1..=10)
    }

    fn at(seconds: u32) -> Time {
        Time::ZERO + Span::from_s(f64::from(seconds))
    }

    #[test]
    fn replicas_follow_the_ratio_beyond_the_tolerance() {
        let mut controller = Controller::new(half_full());
        // 54 % is within 10 % of 50 %; 80 % of two workers is ceil(1.6 x 2) = 4.
        assert_eq!(
            controller.sync(at(15), Role::Decode, &seen(&[54, 54], 0)),
            (None, Reason::WithinTolerance)
        );
        assert_eq!(
            controller.sync(at(30), Role::Decode, &seen(&[80, 80], 0)),
            (Some(4), Reason::ScaleUp)
        );
    }

    #[test]
    fn starting_workers_damp_growth() {
        let mut controller = Controller::new(half_full());
        // (80 + 80 + 0 + 0) / 4 = 40 %: it would shrink, so it waits.
        assert_eq!(
            controller.sync(at(15), Role::Decode, &seen(&[80, 80], 2)),
            (None, Reason::WithinTolerance)
        );
    }

    #[test]
    fn it_shrinks_only_when_five_minutes_agree() {
        let mut controller = Controller::new(half_full());
        let quiet = seen(&[10, 10, 10, 10], 0);
        let mut shrunk = None;
        for tick in 1..=30 {
            let (target, reason) = controller.sync(at(15 * tick), Role::Decode, &quiet);
            if let Some(target) = target {
                shrunk = Some((15 * tick, target));
                break;
            }
            assert_eq!(reason, Reason::Stabilized);
        }
        // The first recommendation (4) was made at 15 s and counts until 315 s; ceil(0.2 x 4) = 1.
        assert_eq!(shrunk, Some((315, 1)));
    }

    #[test]
    fn growth_is_limited_per_period() {
        let mut spec = half_full();
        spec.max_replicas = 100;
        spec.scale_up.policies = vec![RateLimit::Pods {
            value: 2,
            period: Span::from_s(30.0),
        }];
        let mut controller = Controller::new(spec);
        let full = |workers: usize| seen(&vec![100; workers], 0);
        assert_eq!(controller.sync(at(15), Role::Decode, &full(2)).0, Some(4));
        // Two were added in this period already.
        assert_eq!(
            controller.sync(at(30), Role::Decode, &full(4)),
            (None, Reason::RateLimited)
        );
        assert_eq!(controller.sync(at(45), Role::Decode, &full(4)).0, Some(6));
    }

    #[test]
    fn a_silent_worker_counts_against_the_move() {
        let mut controller = Controller::new(half_full());
        let mut half_silent = seen(&[80, 80], 0);
        half_silent.pools.decode.passes.pop();
        // 80 % and nothing: 40 % on average, not more than the target.
        assert_eq!(
            controller.sync(at(15), Role::Decode, &half_silent),
            (None, Reason::WithinTolerance)
        );
    }
}
