//! Thresholds with cool-downs, as deployment descriptions around llm-d state them.
//!
//! If utilisation or queue is over its upper threshold, grow; if both are under their lower ones, shrink: to the replicas that
//! would bring utilisation to its target, at least one more or one fewer. After growing, no move for the scale-up cool-down;
//! after shrinking, no shrinking for the scale-down one. Sources: an article's inference service (up at 0.90, down at 0.40, target
//! 0.80, cool-downs 60 and 300 s, 1 to 8 replicas) and a deployment description (up at 0.80 or 50 queued, down at 0.35 and 5
//! queued, cool-down 120 s). llm-d itself publishes goals for a variant autoscaler but no numbers.
//!
//! Model: utilisation is the share of the KV cache in use. The sources say GPU utilisation, which is near one for any busy
//! engine and tells little; how far a step goes is our reading of the three numbers.

use super::by_role::{Scaler, decide_each};
use super::hpa::{check_interval, check_replicas};
use super::metric::{Measured, Metric};
use crate::decision::{Decision, Planner, Reason};
use crate::observe::{ForwardPass, Observations, PerRole, Role};
use crate::problem::{ConfigProblem, Problems};
use engine::{Span, Time};

/// Thresholds of one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LlmDThresholds {
    /// Mean share of the KV caches in use.
    pub utilization: f64,
    /// Mean requests waiting per worker; `None` does not look at them.
    pub queue_depth: Option<f64>,
}

/// The settings of one role.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LlmDSpec {
    /// Either of them makes it grow.
    pub up: LlmDThresholds,
    /// All of them let it shrink.
    pub down: LlmDThresholds,
    /// Utilisation to come out at.
    pub target_utilization: f64,
    /// No move so long after growing.
    pub scale_up_cooldown: Span,
    /// No shrinking so long after shrinking.
    pub scale_down_cooldown: Span,
    /// Fewest workers.
    pub min_replicas: u32,
    /// Most workers.
    pub max_replicas: u32,
    /// Tokens that a rank's KV cache holds.
    pub max_kv_tokens: u64,
}

impl LlmDSpec {
    /// The article's numbers.
    #[must_use]
    pub fn inference_service(max_kv_tokens: u64) -> Self {
        let on_utilization = |utilization| LlmDThresholds {
            utilization,
            queue_depth: None,
        };
        LlmDSpec {
            up: on_utilization(0.90),
            down: on_utilization(0.40),
            target_utilization: 0.80,
            scale_up_cooldown: Span::from_s(60.0),
            scale_down_cooldown: Span::from_s(300.0),
            min_replicas: 1,
            max_replicas: 8,
            max_kv_tokens,
        }
    }
}

/// The autoscaler of a deployment.
#[derive(Debug, Clone)]
pub struct LlmD {
    interval: Span,
    roles: PerRole<Option<Thresholds>>,
}

#[derive(Debug, Clone)]
struct Thresholds {
    spec: LlmDSpec,
    known: Vec<ForwardPass>,
    grew: Option<Time>,
    shrank: Option<Time>,
}

impl LlmD {
    /// One per role that has settings, looked at every `interval`.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(
        interval: Span,
        roles: PerRole<Option<LlmDSpec>>,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let mut found = Problems::default();
        check_interval("interval", interval, &mut found);
        for spec in [roles.prefill, roles.decode].into_iter().flatten() {
            spec.check(&mut found);
        }
        let scaler = |spec| Thresholds {
            spec,
            known: Vec::new(),
            grew: None,
            shrank: None,
        };
        found.none_or(LlmD {
            interval,
            roles: roles.map(|spec| spec.map(scaler)),
        })
    }
}

impl LlmDSpec {
    fn check(&self, found: &mut Problems) {
        check_replicas(self.min_replicas, self.max_replicas, found);
        if self.max_kv_tokens == 0 {
            let what = "give the tokens that a worker's KV cache holds";
            found.add("max_kv_tokens", 0, "at least 1", what);
        }
        if self.target_utilization <= 0.0 || !self.target_utilization.is_finite() {
            let field = "target_utilization";
            found.add(
                field,
                self.target_utilization,
                "a share above zero",
                "0.80 is usual",
            );
        }
        let (up, down) = (&self.up, &self.down);
        if up.utilization <= down.utilization {
            let expected = format!("more than the lower threshold ({})", down.utilization);
            found.add(
                "up.utilization",
                up.utilization,
                &expected,
                "leave a gap, or it swings",
            );
        }
        if let (Some(up), Some(down)) = (up.queue_depth, down.queue_depth)
            && up <= down
        {
            let expected = format!("more than the lower threshold ({down})");
            found.add("up.queue_depth", up, &expected, "leave a gap, or it swings");
        }
    }
}

impl Planner for LlmD {
    fn name(&self) -> &'static str {
        "llm-d"
    }

    fn first_tick(&self) -> Option<Time> {
        Some(Time::ZERO + self.interval)
    }

    fn tick(&mut self, now: Time, seen: &Observations) -> Decision {
        decide_each(&mut self.roles, now, self.interval, seen)
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(self.clone())
    }
}

impl Scaler for Thresholds {
    fn decide(&mut self, now: Time, role: Role, seen: &Observations) -> (Option<u32>, Reason) {
        let pool = seen.pools.get(role);
        pool.update(&mut self.known);
        let current = pool.staying();
        let mean = |metric: Metric| match metric.measure(role, seen, &self.known) {
            Some(Measured::PerWorker(values)) if !values.is_empty() => {
                Some(values.iter().sum::<f64>() / values.len() as f64)
            }
            _ => None,
        };
        let spec = self.spec;
        let kv_use = mean(Metric::KvUse {
            max_kv_tokens: spec.max_kv_tokens,
        });
        let (Some(kv_use), Some(queue)) = (kv_use, mean(Metric::QueuedPerWorker)) else {
            return (None, Reason::NoMetric);
        };
        let is_over =
            kv_use > spec.up.utilization || spec.up.queue_depth.is_some_and(|depth| queue > depth);
        let is_under = kv_use < spec.down.utilization
            && spec.down.queue_depth.is_none_or(|depth| queue < depth);
        let on_target = (f64::from(current) * kv_use / spec.target_utilization).ceil() as u32;
        let (wanted, is_cooling) = match (is_over, is_under) {
            (true, _) => (
                on_target.max(current + 1),
                is_recent(self.grew, now, spec.scale_up_cooldown),
            ),
            (false, true) => (
                on_target.min(current.saturating_sub(1)),
                is_recent(self.grew, now, spec.scale_up_cooldown)
                    || is_recent(self.shrank, now, spec.scale_down_cooldown),
            ),
            (false, false) => return (None, Reason::NoChange),
        };
        let bounded = wanted.clamp(spec.min_replicas, spec.max_replicas);
        if bounded == current {
            return (None, Reason::AtLimit);
        }
        if is_cooling {
            return (None, Reason::RateLimited);
        }
        if bounded > current {
            self.grew = Some(now);
            (Some(bounded), Reason::ScaleUp)
        } else {
            self.shrank = Some(now);
            (Some(bounded), Reason::ScaleDown)
        }
    }
}

fn is_recent(last: Option<Time>, now: Time, cooldown: Span) -> bool {
    last.is_some_and(|last| now.since(last) < cooldown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Pool, Work, WorkerId};

    fn seen(workers: u32, tokens: u64) -> Observations {
        let pass = |worker| ForwardPass {
            worker: WorkerId(worker),
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
                    ready: (0..workers).map(WorkerId).collect(),
                    passes: (0..workers).map(pass).collect(),
                    ..Pool::default()
                },
            },
            ..Observations::default()
        }
    }

    fn at(seconds: u32) -> Time {
        Time::ZERO + Span::from_s(f64::from(seconds))
    }

    #[test]
    fn it_goes_to_its_target_and_then_cools_down() {
        let roles = PerRole {
            prefill: None,
            decode: Some(LlmDSpec::inference_service(100)),
        };
        let mut planner = LlmD::new(Span::from_s(15.0), roles).unwrap();
        let mut decide = |seconds: u32, workers: u32, tokens: u64| {
            let decision = planner.tick(at(seconds), &seen(workers, tokens));
            (decision.targets.decode, decision.reason)
        };
        // 4 workers at 96 %: ceil(4 x 0.96 / 0.8) = 5.
        assert_eq!(decide(15, 4, 96), (Some(5), Some(Reason::ScaleUp)));
        assert_eq!(decide(30, 5, 96), (None, Some(Reason::RateLimited)));
        assert_eq!(decide(75, 5, 70), (None, Some(Reason::NoChange)));
        // 5 workers at 20 %: ceil(5 x 0.2 / 0.8) = 2.
        assert_eq!(decide(90, 5, 20), (Some(2), Some(Reason::ScaleDown)));
        assert_eq!(decide(105, 2, 10), (None, Some(Reason::RateLimited)));
        assert_eq!(decide(390, 2, 10), (Some(1), Some(Reason::ScaleDown)));
        assert_eq!(decide(700, 1, 0), (None, Some(Reason::AtLimit)));
    }
}
