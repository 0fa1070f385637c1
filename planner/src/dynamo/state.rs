//! What the scaling rules share: the inventory of workers, the engine models, what was last seen of cache and speculation, the
//! lower bounds that predicted traffic sets, and the budgets.

use super::config::{Capabilities, Mode, PlannerConfig};
use super::engine_model::{EngineLimits, EngineModel};
use crate::budget::{fit_directional, guard_pair, guard_single};
use crate::decision::{Diagnostics, Reason};
use crate::model::{ForwardPassModel, WorkerKind};
use crate::observe::{ForwardPass, PerRole, Role};

/// The workers as the planner is told of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Workers that serve; `None` leaves what was known.
    pub ready: PerRole<Option<u32>>,
    /// Workers there will be once all moves are done; `None` if nobody can say.
    pub expected: PerRole<Option<u32>>,
    /// Whether a move is still being carried out.
    pub is_scaling: PerRole<bool>,
    /// Workers verified to be starting with nothing else going on in the deployment: they may be cancelled.
    pub pending: PerRole<u32>,
}

impl Inventory {
    /// Whether workers are verified to be starting.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.pending.prefill > 0 || self.pending.decode > 0
    }
}

/// The last forward pass of every rank, by role.
pub type Passes = PerRole<Vec<ForwardPass>>;

/// Replicas that a rule asks for; roles without an opinion are `None`.
pub type Targets = PerRole<Option<u32>>;

/// The state that the rules work on.
#[derive(Debug, Clone)]
pub struct ScalingState {
    pub(super) config: PlannerConfig,
    pub(super) capabilities: PerRole<Capabilities>,
    pub(super) models: PerRole<Option<EngineModel>>,
    pub(super) ready: PerRole<u32>,
    pub(super) inventory: Inventory,
    pub(super) kv_hit_rate: Option<f64>,
    accept_length: f64,
    /// What this tick found out.
    pub(super) diagnostics: Diagnostics,
}

const DEFAULT_LIMITS: EngineLimits = EngineLimits {
    max_num_batched_tokens: 8192,
    max_num_seqs: 512,
    max_kv_tokens: 2_000_000,
};

impl ScalingState {
    /// Without any worker yet. The models say how long forward passes take; targets other than the SLA need none.
    #[must_use]
    pub fn new(
        config: PlannerConfig,
        capabilities: PerRole<Capabilities>,
        models: PerRole<Option<Box<dyn ForwardPassModel>>>,
    ) -> Self {
        let engine = |role: Role, passes: Option<Box<dyn ForwardPassModel>>| {
            let kind = match (config.mode, role) {
                (Mode::Aggregated, _) => WorkerKind::Aggregated,
                (_, Role::Prefill) => WorkerKind::Prefill,
                (_, Role::Decode) => WorkerKind::Decode,
            };
            Some(EngineModel::new(
                kind,
                limits(capabilities.get(role)),
                *config.attention_dp.get(role),
                config.max_num_fpm_samples,
                passes?,
            ))
        };
        let models = PerRole {
            prefill: engine(Role::Prefill, models.prefill),
            decode: engine(Role::Decode, models.decode),
        };
        ScalingState {
            config,
            capabilities,
            models,
            ready: PerRole::default(),
            inventory: Inventory::default(),
            kv_hit_rate: None,
            accept_length: 1.0,
            diagnostics: Diagnostics {
                throughput_lower_bound: PerRole {
                    prefill: 1,
                    decode: 1,
                },
                ..Diagnostics::default()
            },
        }
    }

    /// A new tick: what the last one found out is forgotten, the lower bounds stay.
    pub(super) fn begin_tick(&mut self, inventory: Inventory) {
        self.diagnostics = Diagnostics {
            throughput_lower_bound: self.diagnostics.throughput_lower_bound,
            ..Diagnostics::default()
        };
        for role in Role::BOTH {
            if let Some(ready) = *inventory.ready.get(role) {
                *self.ready.get_mut(role) = ready;
            }
        }
        self.inventory = inventory;
    }

    /// Forward passes for the engine models.
    pub(super) fn observe_passes(&mut self, passes: &Passes) {
        for &role in self.config.mode.roles() {
            let passes = passes.get(role);
            if let Some(model) = self.models.get_mut(role)
                && !passes.is_empty()
            {
                model.observe(passes);
            }
        }
    }

    /// What routers and engines report besides; what is not a number leaves the last value.
    pub(super) fn observe_runtime(&mut self, kv_hit_rate: Option<f64>, accept_length: Option<f64>) {
        if let Some(rate) = kv_hit_rate.filter(|rate| !rate.is_nan()) {
            self.kv_hit_rate = Some(rate);
        }
        if let Some(length) = accept_length.filter(|length| length.is_finite()) {
            self.accept_length = self.bounded_accept_length(length);
        }
    }

    /// Tokens per decode step and request.
    pub(super) fn accept_length(&self) -> f64 {
        self.bounded_accept_length(self.accept_length)
    }

    /// Between one token and one more than are proposed; one without speculative decoding.
    fn bounded_accept_length(&self, length: f64) -> f64 {
        let reported = self.capabilities.decode.speculative_nextn;
        let proposed = reported
            .filter(|&tokens| tokens > 0)
            .unwrap_or(self.config.speculative_nextn);
        length.clamp(1.0, f64::from(proposed) + 1.0)
    }

    pub(super) fn ready(&self, role: Role) -> u32 {
        *self.ready.get(role)
    }

    pub(super) fn pending(&self, role: Role) -> u32 {
        *self.inventory.pending.get(role)
    }

    pub(super) fn floor(&self, role: Role) -> u32 {
        self.config.floor(role)
    }

    pub(super) fn lower_bound(&self, role: Role) -> u32 {
        *self.diagnostics.throughput_lower_bound.get(role)
    }

    /// Whether load must not decide now: an earlier move of this role is still under way. Workers that are verified to be
    /// starting do not block; decisions are then limited to cancelling them.
    pub(super) fn is_blocked(&self, role: Role) -> bool {
        let expected = *self.inventory.expected.get(role);
        let is_moving = *self.inventory.is_scaling.get(role)
            || expected.is_some_and(|expected| expected != self.ready(role));
        is_moving && !self.inventory.is_starting()
    }

    /// A decision for one role within the budget; only under its ceiling if `ceiling_only`.
    pub(super) fn guard_role(
        &self,
        role: Role,
        wanted: u32,
        ceiling_only: bool,
    ) -> (u32, Option<Reason>) {
        let Some(mut budget) = self.config.single_budget(role, &self.capabilities) else {
            return (wanted, None);
        };
        if ceiling_only {
            budget.gpus = budget.gpus.ceiling_only();
        }
        guard_single(&budget, self.ready(role), wanted)
    }

    /// A decision for both roles within the budget.
    pub(super) fn guard_both(&self, wanted: PerRole<u32>) -> (PerRole<u32>, Option<Reason>) {
        let Some(budget) = self.config.pair_budget(&self.capabilities) else {
            return (wanted, None);
        };
        if self.is_below_floor() {
            // A floor is the operator's word: it may take from a role that nobody wanted to shrink.
            let repaired = budget.clamp(self.at_least_floors(wanted));
            return (repaired, Some(Reason::GpuBudgetReconcile));
        }
        guard_pair(&budget, self.ready, wanted)
    }

    /// Both roles under the ceiling of the budget.
    pub(super) fn fit_ceiling(&self, wanted: PerRole<u32>) -> PerRole<u32> {
        let Some(mut budget) = self.config.pair_budget(&self.capabilities) else {
            return wanted;
        };
        budget.gpus = budget.gpus.ceiling_only();
        if self.is_below_floor() {
            budget.clamp(self.at_least_floors(wanted))
        } else {
            fit_directional(&budget, self.ready, wanted)
        }
    }

    fn is_below_floor(&self) -> bool {
        Role::BOTH
            .iter()
            .any(|&role| self.ready(role) < self.floor(role))
    }

    pub(super) fn at_least_floors(&self, counts: PerRole<u32>) -> PerRole<u32> {
        PerRole {
            prefill: counts.prefill.max(self.floor(Role::Prefill)),
            decode: counts.decode.max(self.floor(Role::Decode)),
        }
    }
}

/// Limits of an engine, usual ones where it does not report them; `None` if it reports zero.
fn limits(capabilities: &Capabilities) -> Option<EngineLimits> {
    let or_default = |value: Option<u64>, default| match value {
        Some(0) => None,
        Some(value) => Some(value),
        None => Some(default),
    };
    Some(EngineLimits {
        max_num_batched_tokens: or_default(
            capabilities.max_num_batched_tokens,
            DEFAULT_LIMITS.max_num_batched_tokens,
        )?,
        max_num_seqs: or_default(capabilities.max_num_seqs, DEFAULT_LIMITS.max_num_seqs)?,
        max_kv_tokens: or_default(capabilities.max_kv_tokens, DEFAULT_LIMITS.max_kv_tokens)?,
    })
}
