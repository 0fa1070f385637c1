//! KEDA: event-driven scaling on a latency or a queue, down to zero.
//!
//! Between one worker and many it is the Kubernetes autoscaler fed with an external metric: by default the metric divided by the
//! threshold, rounded up, is the number of replicas. To and from zero it decides itself: a metric above the activation threshold
//! starts the first worker; once the metric has not been above it for `cooldown_period`, all go. Source: the KEDA
//! documentation of scaled objects; presets from Dynamo's deployment guide (poll 15 s, cool-down 60 s, TTFT p95 0.5 s with
//! activation at 0.1 s, queue 10).
//!
//! Model: one clock for KEDA's polling and the autoscaler's sync, the polling interval; in a cluster the two run apart by up to
//! 15 s.

use super::by_role::{Scaler, decide_each};
use super::hpa::{Controller, HpaSpec, check_interval, check_replicas};
use super::metric::{Measured, Metric, MetricTarget};
use crate::decision::{Decision, Planner, Reason};
use crate::observe::{Observations, PerRole, Role};
use crate::problem::{ConfigProblem, Problems};
use engine::{Span, Time};

/// The settings of one role.
#[derive(Debug, Clone, PartialEq)]
pub struct KedaSpec {
    /// What is looked at, its threshold, and how counts follow. `min_replicas` may be zero.
    pub hpa: HpaSpec,
    /// Above this the first worker starts.
    pub activation_threshold: f64,
    /// How long after the last activity the last worker goes.
    pub cooldown_period: Span,
}

impl KedaSpec {
    /// On the 95th percentile of TTFT, in seconds.
    #[must_use]
    pub fn on_ttft(threshold_s: f64, replicas: std::ops::RangeInclusive<u32>) -> Self {
        let target = MetricTarget::AveragePerWorker(threshold_s);
        KedaSpec {
            hpa: HpaSpec::new(Metric::TtftP95, target, replicas),
            activation_threshold: 0.1,
            cooldown_period: Span::from_s(60.0),
        }
    }

    /// On the requests that wait.
    #[must_use]
    pub fn on_queue(threshold: f64, replicas: std::ops::RangeInclusive<u32>) -> Self {
        let target = MetricTarget::AveragePerWorker(threshold);
        KedaSpec {
            hpa: HpaSpec::new(Metric::Queued, target, replicas),
            activation_threshold: 0.0,
            cooldown_period: Span::from_s(60.0),
        }
    }
}

/// KEDA's scaled objects of a deployment.
#[derive(Debug, Clone)]
pub struct Keda {
    polling_interval: Span,
    roles: PerRole<Option<ScaledObject>>,
}

impl Keda {
    /// One per role that has settings; Dynamo's guide polls every 15 s, KEDA's default is 30 s.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(
        polling_interval: Span,
        roles: PerRole<Option<KedaSpec>>,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let mut found = Problems::default();
        check_interval("polling_interval", polling_interval, &mut found);
        for spec in [&roles.prefill, &roles.decode].into_iter().flatten() {
            spec.hpa.check(&mut found);
            check_replicas(spec.hpa.min_replicas, spec.hpa.max_replicas, &mut found);
            if spec.activation_threshold < 0.0 || !spec.activation_threshold.is_finite() {
                let field = "activation_threshold";
                found.add(
                    field,
                    spec.activation_threshold,
                    "zero or more",
                    "0 is KEDA's default",
                );
            }
        }
        found.none_or(Keda {
            polling_interval,
            roles: roles.map(|spec| spec.map(ScaledObject::new)),
        })
    }
}

#[derive(Debug, Clone)]
struct ScaledObject {
    controller: Controller,
    /// KEDA's own lower bound; the autoscaler below it has one of at least one.
    min_replicas: u32,
    activation_threshold: f64,
    cooldown_period: Span,
    last_active: Time,
}

impl Planner for Keda {
    fn name(&self) -> &'static str {
        "keda"
    }

    fn first_tick(&self) -> Option<Time> {
        Some(Time::ZERO + self.polling_interval)
    }

    fn tick(&mut self, now: Time, seen: &Observations) -> Decision {
        decide_each(&mut self.roles, now, self.polling_interval, seen)
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(self.clone())
    }
}

impl ScaledObject {
    fn new(spec: KedaSpec) -> Self {
        let min_replicas = spec.hpa.min_replicas;
        let hpa = HpaSpec {
            min_replicas: min_replicas.max(1),
            ..spec.hpa
        };
        ScaledObject {
            controller: Controller::new(hpa),
            min_replicas,
            activation_threshold: spec.activation_threshold,
            cooldown_period: spec.cooldown_period,
            last_active: Time::ZERO,
        }
    }
}

impl Scaler for ScaledObject {
    fn decide(&mut self, now: Time, role: Role, seen: &Observations) -> (Option<u32>, Reason) {
        let current = seen.pools.get(role).staying();
        let is_active = match self.controller.measure(role, seen) {
            Some(Measured::Whole(value)) => value > self.activation_threshold,
            Some(Measured::PerWorker(values)) => values
                .iter()
                .any(|&value| value > self.activation_threshold),
            // Where no worker is there to report, arrivals are the only sign of life.
            None => current == 0 && seen.traffic.requests > 0.0,
        };
        if is_active {
            self.last_active = now;
        }
        if current == 0 {
            let first = self.min_replicas.max(1);
            return match is_active || self.min_replicas > 0 {
                true => (Some(first), Reason::ScaleUp),
                false => (None, Reason::NoChange),
            };
        }
        if self.min_replicas == 0 && !is_active {
            if now.since(self.last_active) >= self.cooldown_period {
                return (Some(0), Reason::ScaleDown);
            }
            return (None, Reason::RateLimited);
        }
        self.controller.sync(now, role, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Pool, TrailingLatency, WorkerId};
    use crate::traffic::TrafficWindow;

    fn seen(workers: u32, ttft_p95_ms: Option<f64>, requests: f64) -> Observations {
        Observations {
            pools: PerRole {
                prefill: Pool::default(),
                decode: Pool {
                    ready: (0..workers).map(WorkerId).collect(),
                    ..Pool::default()
                },
            },
            traffic: TrafficWindow {
                duration_s: 15.0,
                requests,
                ..TrafficWindow::default()
            },
            latency: TrailingLatency {
                ttft_p95_ms,
                itl_p95_ms: None,
            },
            waiting_in_front: 0,
        }
    }

    fn at(seconds: u32) -> Time {
        Time::ZERO + Span::from_s(f64::from(seconds))
    }

    #[test]
    fn latency_over_threshold_is_the_number_of_replicas() {
        let mut scaler = ScaledObject::new(KedaSpec::on_ttft(0.5, 1..=10));
        // 1.2 s over 0.5 s, rounded up.
        assert_eq!(
            scaler.decide(at(15), Role::Decode, &seen(1, Some(1200.0), 5.0)),
            (Some(3), Reason::ScaleUp)
        );
    }

    #[test]
    fn the_last_worker_goes_after_the_cool_down_and_comes_back_with_traffic() {
        let mut scaler = ScaledObject::new(KedaSpec::on_ttft(0.5, 0..=10));
        scaler.decide(at(15), Role::Decode, &seen(1, Some(400.0), 5.0));
        let idle = seen(1, Some(50.0), 0.0);
        assert_eq!(scaler.decide(at(60), Role::Decode, &idle).0, None);
        assert_eq!(
            scaler.decide(at(75), Role::Decode, &idle),
            (Some(0), Reason::ScaleDown)
        );
        assert_eq!(
            scaler.decide(at(90), Role::Decode, &seen(0, None, 0.0)).0,
            None
        );
        assert_eq!(
            scaler.decide(at(105), Role::Decode, &seen(0, None, 1.0)),
            (Some(1), Reason::ScaleUp)
        );
    }
}
