//! Estimates against the SLA: one worker more if *every* worker's estimate is over it, one fewer if those left would keep it.
//!
//! With n workers, one fewer gives those left n/(n-1) of the load. Prefill: the wait that queues cause, beyond the time the next
//! request takes by itself, must stay within the sensitivity's share of what the SLA leaves for waiting. Decode: the KV
//! cache must hold it, and ITL must stay within the sensitivity's share of the SLA. On aggregated workers prefill takes all
//! decode along, queued too, and queued prompts count as decode context. One worker that would not keep it is enough to refuse.

use super::super::config::Mode;
use super::super::engine_model::Change;
use super::super::state::ScalingState;
use super::Opinion;
use crate::decision::Reason;
use crate::observe::{ForwardPass, Role};

/// Whether those left would cope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remainder {
    Copes,
    /// Or nobody knows.
    Unknown,
    Fails,
}

impl ScalingState {
    /// What the estimates say of prefill-only or decode-only workers.
    pub(super) fn latency_opinion(&mut self, role: Role, passes: &[ForwardPass]) -> Opinion {
        let is_ready = self
            .models
            .get(role)
            .as_ref()
            .is_some_and(|model| model.is_ready());
        let budget = self.capabilities.get(role).max_num_batched_tokens;
        let needs_budget = role == Role::Prefill && budget.is_none_or(|tokens| tokens == 0);
        if !is_ready || self.ready(role) == 0 || needs_budget {
            return Opinion::none(Reason::InsufficientData);
        }
        self.estimate_and_judge(role, role, passes)
    }

    /// The same for aggregated workers, as prefill or as decode workers. A refusal is an opinion: to stay.
    pub(super) fn aggregated_opinion(&mut self, part: Role, passes: &[ForwardPass]) -> Opinion {
        let budget = self.capabilities.decode.max_num_batched_tokens;
        if part == Role::Prefill && budget.is_none_or(|tokens| tokens == 0) {
            return Opinion::default();
        }
        let mut opinion = self.estimate_and_judge(part, Role::Decode, passes);
        if opinion.reason == Some(Reason::ScaleDownRefusedConsolidation) {
            opinion.target = Some(self.ready(Role::Decode));
        }
        opinion
    }

    /// `part` is what is estimated (TTFT or ITL), `role` whose workers they are.
    fn estimate_and_judge(&mut self, part: Role, role: Role, passes: &[ForwardPass]) -> Opinion {
        let ready = self.ready(role);
        let sla_ms = match part {
            Role::Prefill => self.config.ttft_ms,
            Role::Decode => self.config.itl_ms,
        };
        let model = self
            .models
            .get(role)
            .as_ref()
            .expect("a role of the mode has a model");
        let mut estimates: Vec<f64> = Vec::new();
        let mut may_shrink = ready > 1 || self.pending(role) > 0;
        let mut is_refused = false;
        for group in model.groups(passes) {
            estimates.extend(self.estimate_ms(part, role, &group, Change::NONE));
            if !may_shrink {
                continue;
            }
            let remainder = match part {
                Role::Prefill => self.prefill_remainder(role, &group),
                Role::Decode => self.decode_remainder(role, &group),
            };
            may_shrink = remainder == Remainder::Copes;
            is_refused |= remainder == Remainder::Fails;
        }
        let longest = estimates.iter().copied().reduce(f64::max);
        let Some(longest) = longest else {
            return Opinion::none(if is_refused {
                Reason::ScaleDownRefusedConsolidation
            } else {
                Reason::InsufficientData
            });
        };
        match part {
            Role::Prefill => self.diagnostics.estimated_ttft_ms = Some(longest),
            Role::Decode => self.diagnostics.estimated_itl_ms = Some(longest),
        }
        if estimates.iter().all(|&estimate| estimate > sla_ms) {
            Opinion::target(ready + 1)
        } else if may_shrink {
            Opinion::target(ready.saturating_sub(1).max(self.floor(role)))
        } else if is_refused {
            Opinion::none(Reason::ScaleDownRefusedConsolidation)
        } else {
            Opinion::none(Reason::NoChange)
        }
    }

    /// TTFT or ITL of the next request in milliseconds.
    fn estimate_ms(
        &self,
        part: Role,
        role: Role,
        group: &[ForwardPass],
        change: Change,
    ) -> Option<f64> {
        let model = self.models.get(role).as_ref()?;
        match part {
            Role::Prefill => Some(model.ttft_s(group, self.kv_hit_rate, change)? * 1000.0),
            Role::Decode => {
                let change = Change {
                    with_queued_decode: true,
                    ..change
                };
                Some(model.itl_s(group, change)? * 1000.0 / self.accept_length())
            }
        }
    }

    /// The factor on those left.
    fn consolidation(&self, role: Role) -> f64 {
        let ready = self.ready(role);
        if ready > 1 {
            f64::from(ready) / f64::from(ready - 1)
        } else {
            1.0
        }
    }

    fn sensitivity(&self) -> f64 {
        self.config.load_scaling_down_sensitivity / 100.0
    }

    fn prefill_remainder(&self, role: Role, group: &[ForwardPass]) -> Remainder {
        let factor = self.consolidation(role);
        let is_aggregated = self.config.mode == Mode::Aggregated;
        let left = |queue: f64| Change {
            queue,
            decode: if is_aggregated { factor } else { 1.0 },
            with_queued_decode: is_aggregated,
            with_queued_prefill: false,
        };
        let estimate = |queue| self.estimate_ms(Role::Prefill, role, group, left(queue));
        let Some(alone_ms) = estimate(0.0) else {
            return Remainder::Unknown;
        };
        let spare_ms = (self.config.ttft_ms - alone_ms) * self.sensitivity();
        if spare_ms <= 0.0 && !is_aggregated {
            return Remainder::Fails;
        }
        match estimate(factor) {
            None => Remainder::Unknown,
            Some(queued_ms) if spare_ms <= 0.0 || queued_ms - alone_ms >= spare_ms => {
                Remainder::Fails
            }
            Some(_) => Remainder::Copes,
        }
    }

    fn decode_remainder(&self, role: Role, group: &[ForwardPass]) -> Remainder {
        let factor = self.consolidation(role);
        let is_aggregated = self.config.mode == Mode::Aggregated;
        let most =
            |tokens: &dyn Fn(&ForwardPass) -> u64| group.iter().map(tokens).max().unwrap_or(0);
        let mut context = most(&|pass| pass.scheduled.decode_kv_tokens)
            + most(&|pass| pass.queued.decode_kv_tokens);
        if is_aggregated {
            context += most(&|pass| pass.queued.prefill_tokens);
        }
        let cache = self.capabilities.decode.max_kv_tokens.unwrap_or(0);
        if cache > 0 && (context as f64 * factor) as u64 >= cache {
            return Remainder::Fails;
        }
        let left = Change {
            decode: factor,
            with_queued_prefill: is_aggregated,
            ..Change::NONE
        };
        match self.estimate_ms(Role::Decode, role, group, left) {
            None => Remainder::Unknown,
            Some(itl_ms) if itl_ms >= self.config.itl_ms * self.sensitivity() => Remainder::Fails,
            Some(_) => Remainder::Copes,
        }
    }
}
