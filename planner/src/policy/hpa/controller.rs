//! One role's autoscaler with its memory: recommend, stabilise, limit the rate. The rules are in the module above.

use super::super::metric::{Measured, MetricTarget};
use super::{HpaSpec, RateLimit, SelectPolicy};
use crate::decision::Reason;
use crate::observe::{ForwardPass, Observations, Role};
use engine::Time;

/// One role's controller with its memory.
#[derive(Debug, Clone)]
pub(in super::super) struct Controller {
    spec: HpaSpec,
    known: Vec<ForwardPass>,
    recommendations: Vec<(Time, u32)>,
    /// Replicas added (or, negative, removed) and when.
    moves: Vec<(Time, i64)>,
}

impl Controller {
    pub(in super::super) fn new(spec: HpaSpec) -> Self {
        Controller {
            spec,
            known: Vec::new(),
            recommendations: Vec::new(),
            moves: Vec::new(),
        }
    }

    /// The metric now.
    pub(in super::super) fn measure(
        &mut self,
        role: Role,
        seen: &Observations,
    ) -> Option<Measured> {
        seen.pools.get(role).update(&mut self.known);
        self.spec.metric.measure(role, seen, &self.known)
    }

    /// A target, if it is not what there is, and why.
    pub(in super::super) fn sync(
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
    use super::super::super::metric::Metric;
    use super::*;
    use crate::observe::{PerRole, Pool, Work, WorkerId};
    use engine::Span;

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
