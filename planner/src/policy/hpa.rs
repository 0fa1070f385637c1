//! Kubernetes' Horizontal Pod Autoscaler (autoscaling/v2).
//!
//! Every `sync_period`, by role:
//!
//! 1. *Recommend*: replicas in proportion to metric over target, rounded up; none within the tolerance. Workers that are
//!    starting count as using nothing when the rest would grow, workers that do not report as being on target when it
//!    would shrink and as using nothing when it would grow; if that turns the direction round, nothing changes.
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

mod controller;

pub(super) use controller::Controller;

use super::by_role::{Scaler, decide_each};
use super::metric::{Metric, MetricTarget};
use crate::decision::{Decision, Planner, Reason};
use crate::observe::{Observations, PerRole, Role};
use crate::problem::{ConfigProblem, Problems};
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
    /// Kubernetes' defaults around a metric: up by four or double per 15 s, whichever is more, down as far as it likes
    /// after 300 s.
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
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(
        sync_period: Span,
        roles: PerRole<Option<HpaSpec>>,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let mut found = Problems::default();
        check_interval("sync_period", sync_period, &mut found);
        for spec in [&roles.prefill, &roles.decode].into_iter().flatten() {
            spec.check(&mut found);
            check_replicas(spec.min_replicas, spec.max_replicas, &mut found);
            if spec.min_replicas == 0 {
                found.add("min_replicas", 0, "at least 1", "KEDA scales to zero");
            }
        }
        found.none_or(Hpa {
            sync_period,
            roles: roles.map(|spec| spec.map(Controller::new)),
        })
    }
}

/// Settings that all autoscalers with an interval have.
pub(super) fn check_interval(field: &'static str, interval: Span, found: &mut Problems) {
    if interval == Span::ZERO {
        found.add(field, "0 s", "a time above zero", "15 s is usual");
    }
}

/// Settings that all autoscalers with bounds have.
pub(super) fn check_replicas(min: u32, max: u32, found: &mut Problems) {
    if max == 0 {
        found.add(
            "max_replicas",
            0,
            "at least 1",
            "give the most workers there may be",
        );
    }
    if min > max {
        let expected = format!("at most max_replicas ({max})");
        found.add(
            "min_replicas",
            min,
            &expected,
            "lower one or raise the other",
        );
    }
}

impl HpaSpec {
    /// What is wrong with metric, target and tolerance.
    pub(super) fn check(&self, found: &mut Problems) {
        let (MetricTarget::Value(target) | MetricTarget::AveragePerWorker(target)) = self.target;
        if target <= 0.0 || !target.is_finite() {
            found.add(
                "target",
                target,
                "a number above zero",
                "replicas are in proportion to metric over target",
            );
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            found.add(
                "tolerance",
                self.tolerance,
                "from 0 to below 1",
                "0.1 is Kubernetes' default",
            );
        }
        if self.metric == (Metric::KvUse { max_kv_tokens: 0 }) {
            found.add(
                "max_kv_tokens",
                0,
                "at least 1",
                "give the tokens that a worker's KV cache holds",
            );
        }
    }
}

impl Scaler for Controller {
    fn decide(&mut self, now: Time, role: Role, seen: &Observations) -> (Option<u32>, Reason) {
        self.sync(now, role, seen)
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
        decide_each(&mut self.roles, now, self.sync_period, seen)
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_reported_at_once() {
        let metric = Metric::KvUse { max_kv_tokens: 0 };
        let spec = HpaSpec {
            min_replicas: 5,
            ..HpaSpec::new(metric, MetricTarget::Value(0.0), 1..=3)
        };
        let roles = PerRole {
            prefill: None,
            decode: Some(spec),
        };
        let problems = Hpa::new(Span::ZERO, roles).unwrap_err();
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field).collect();
        assert_eq!(
            fields,
            ["sync_period", "target", "max_kv_tokens", "min_replicas"]
        );
    }
}
