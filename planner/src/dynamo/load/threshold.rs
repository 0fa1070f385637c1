//! Thresholds: one worker more if *any* rank is over the upper one, one fewer if *all* are under the lower one.
//!
//! | target | prefill: queued prompt tokens | decode: KV tokens, scheduled and queued |
//! |---|---|---|
//! | throughput | up at one context length, down below 0.1 | up above 100 % of the cache, down below 60 % |
//! | latency | up at 0.1 context lengths, down at none | up above 40 %, down below 10 % |
//! | load | up at the caller's tokens, down at the caller's | the same in per cent of the cache |
//!
//! On aggregated workers queued prompts count as KV tokens. A worker does not go if the fullest rank's load, dealt out to those
//! left, would be over the upper threshold again.

use super::super::config::{Mode, Target};
use super::super::state::ScalingState;
use super::Opinion;
use crate::decision::Reason;
use crate::observe::{ForwardPass, Role};

#[derive(Debug, Clone, Copy)]
struct Thresholds {
    up: f64,
    down: f64,
    is_up_at: bool,
    is_down_at: bool,
}

impl Thresholds {
    fn is_over(&self, value: f64) -> bool {
        value > self.up || (self.is_up_at && value == self.up)
    }

    fn is_under(&self, value: f64) -> bool {
        value < self.down || (self.is_down_at && value == self.down)
    }
}

impl ScalingState {
    /// What the thresholds say of a role.
    pub(super) fn threshold_opinion(&self, role: Role, passes: &[ForwardPass]) -> Opinion {
        let ready = self.ready(role);
        let measured = match role {
            Role::Prefill => self.queues(passes),
            Role::Decode => self.kv_use(passes),
        };
        let Some((values, thresholds)) = measured.filter(|_| ready > 0) else {
            return Opinion::none(Reason::InsufficientData);
        };
        if values.iter().any(|&value| thresholds.is_over(value)) {
            return Opinion::target(ready + 1);
        }
        let may_shrink = ready > 1 || self.pending(role) > 0;
        if !may_shrink || !values.iter().all(|&value| thresholds.is_under(value)) {
            return Opinion::none(Reason::NoChange);
        }
        let fewer = (ready - 1).max(self.floor(role));
        let fullest = values.iter().copied().fold(0.0, f64::max);
        let is_unsafe = 0 < fewer
            && fewer < ready
            && fullest * f64::from(ready) / f64::from(fewer) >= thresholds.up;
        Opinion::target(if is_unsafe { ready } else { fewer })
    }

    /// Queued prompts of each rank: in tokens, or in context lengths.
    fn queues(&self, passes: &[ForwardPass]) -> Option<(Vec<f64>, Thresholds)> {
        let config = &self.config.thresholds;
        let context = self.capabilities.prefill.context_length;
        let context = context
            .filter(|&tokens| tokens > 0)
            .map(|tokens| tokens as f64);
        let (unit, up, down, is_down_at) = match self.config.optimization_target {
            Target::Load => (
                1.0,
                config.prefill_scale_up_queue_tokens?,
                config.prefill_scale_down_queue_tokens?,
                true,
            ),
            Target::Latency => (context?, 0.1, 0.0, true),
            Target::Throughput | Target::Sla => (context?, 1.0, 0.1, false),
        };
        let thresholds = Thresholds {
            up,
            down,
            is_up_at: true,
            is_down_at,
        };
        let queue = |pass: &ForwardPass| pass.queued.prefill_tokens as f64 / unit;
        Some((passes.iter().map(queue).collect(), thresholds))
    }

    /// KV use of each rank as a share of the cache.
    fn kv_use(&self, passes: &[ForwardPass]) -> Option<(Vec<f64>, Thresholds)> {
        let config = &self.config.thresholds;
        let cache = self
            .capabilities
            .decode
            .max_kv_tokens
            .filter(|&tokens| tokens > 0)?;
        let (up, down, is_at) = match self.config.optimization_target {
            Target::Load => (
                config.decode_scale_up_kv_rate? / 100.0,
                config.decode_scale_down_kv_rate? / 100.0,
                true,
            ),
            Target::Latency => (0.4, 0.1, false),
            Target::Throughput | Target::Sla => (1.0, 0.6, false),
        };
        let thresholds = Thresholds {
            up,
            down,
            is_up_at: is_at,
            is_down_at: is_at,
        };
        let counts_prompts = self.config.mode == Mode::Aggregated;
        let share = |pass: &ForwardPass| {
            let prompts = if counts_prompts {
                pass.queued.prefill_tokens
            } else {
                0
            };
            let tokens = pass.scheduled.decode_kv_tokens + pass.queued.decode_kv_tokens + prompts;
            tokens as f64 / cache as f64
        };
        Some((passes.iter().map(share).collect(), thresholds))
    }
}
