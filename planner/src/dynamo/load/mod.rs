//! Load scaling: one replica more or one fewer, by what the engines' last forward passes say.
//!
//! Asked at every load interval. It does not decide while an earlier move is under way, without forward passes, or when
//! the engines that report are not exactly the workers that serve. Then each role has its say: thresholds on queues and
//! KV use ([`threshold`]), or estimates against the SLA ([`latency`]). Aggregated workers are asked twice, as prefill and
//! as decode workers: either may ask for one more; for one fewer both must, or decode alone where prefill cannot be
//! estimated. Floors, the lower bounds from predicted traffic and the GPU budget come after. Prefill and decode workers
//! move together: if either moves, both targets are stated.

mod latency;
mod threshold;

use super::config::Mode;
use super::startup::Source;
use super::state::{Passes, ScalingState, Targets};
use crate::decision::{Reason, Reasons};
use crate::observe::{ForwardPass, PerRole, Role, WorkerId};
use std::collections::BTreeMap;

/// What a rule thinks of a role: replicas, if it has an opinion, and why, if it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Opinion {
    target: Option<u32>,
    reason: Option<Reason>,
}

impl Opinion {
    fn target(replicas: u32) -> Self {
        Opinion {
            target: Some(replicas),
            reason: None,
        }
    }

    fn none(reason: Reason) -> Self {
        Opinion {
            target: None,
            reason: Some(reason),
        }
    }
}

impl ScalingState {
    /// Targets by load, if any are to be stated.
    pub(super) fn advance_load(&mut self, passes: &Passes) -> Option<Targets> {
        if !self.config.scales_by_load() {
            self.diagnostics.load.overall = Some(Reason::Disabled);
            return None;
        }
        let targets = match self.config.mode {
            Mode::Disaggregated => self.load_pair(passes),
            Mode::Aggregated => self.load_aggregated(&passes.decode),
            Mode::Prefill => self.load_role(Role::Prefill, &passes.prefill),
            Mode::Decode => self.load_role(Role::Decode, &passes.decode),
        }?;
        if !self.inventory.is_starting() {
            return Some(targets);
        }
        let reduced = PerRole {
            prefill: self.reduction(Role::Prefill, targets.prefill),
            decode: self.reduction(Role::Decode, targets.decode),
        };
        (reduced != Targets::default()).then_some(reduced)
    }

    /// Why a role cannot be judged, if it cannot.
    fn obstacle(&self, role: Role, passes: &[ForwardPass]) -> Option<Reason> {
        if self.is_blocked(role) {
            Some(Reason::ScalingInProgress)
        } else if passes.is_empty() {
            Some(Reason::NoForwardPasses)
        } else if !has_all_workers(passes, self.ready(role)) {
            Some(Reason::WorkerCountMismatch)
        } else {
            None
        }
    }

    fn judge(&mut self, role: Role, passes: &[ForwardPass]) -> Opinion {
        if self.config.is_sla() {
            self.latency_opinion(role, passes)
        } else {
            self.threshold_opinion(role, passes)
        }
    }

    /// Only prefill or only decode workers.
    fn load_role(&mut self, role: Role, passes: &[ForwardPass]) -> Option<Targets> {
        if let Some(reason) = self.obstacle(role, passes) {
            self.diagnostics.load.overall = Some(reason);
            return None;
        }
        let opinion = self.judge(role, passes);
        self.diagnostics.load.overall = opinion.reason;
        let ready = self.ready(role);
        let wanted = opinion.target.unwrap_or(ready);
        if self.inventory.is_starting() && wanted > ready {
            return None;
        }
        let floored = wanted.max(self.floor(role));
        let (fitted, budget) = self.guard_role(role, self.at_least_bound(role, floored), false);
        if opinion.target.is_none() && fitted == ready {
            if budget.is_some() {
                self.diagnostics.load.overall = budget;
            }
            return None;
        }
        let move_reason = self.move_reason(role, fitted, fitted > floored);
        self.diagnostics.load.overall = Some(budget.unwrap_or(move_reason));
        Some(only(role, fitted))
    }

    fn load_aggregated(&mut self, passes: &[ForwardPass]) -> Option<Targets> {
        // Without a forward pass it says so, even while a move is under way.
        let role = Role::Decode;
        let none = passes.is_empty().then_some(Reason::NoForwardPasses);
        if let Some(reason) = none.or_else(|| self.obstacle(role, passes)) {
            self.diagnostics.load.overall = Some(reason);
            return None;
        }
        if self.config.is_sla() {
            return self.load_aggregated_sla(passes);
        }
        let opinion = self.threshold_opinion(role, passes);
        self.diagnostics.load.overall = opinion.reason;
        let (ready, wanted) = (self.ready(role), opinion.target?);
        if self.inventory.is_starting() && wanted > ready {
            return None;
        }
        let floored = self.at_least_bound(role, wanted.max(self.floor(role)));
        let (fitted, budget) = self.guard_role(role, floored, false);
        let move_reason = self.move_reason(role, fitted, fitted > wanted);
        self.diagnostics.load.overall = Some(budget.unwrap_or(move_reason));
        Some(only(role, fitted))
    }

    fn load_aggregated_sla(&mut self, passes: &[ForwardPass]) -> Option<Targets> {
        let role = Role::Decode;
        let ready = self.ready(role);
        let is_ready = self
            .models
            .decode
            .as_ref()
            .is_some_and(|model| model.is_ready());
        if !is_ready {
            self.diagnostics.load.overall = Some(Reason::InsufficientData);
            return None;
        }
        let prefill = self.aggregated_opinion(Role::Prefill, passes);
        let decode = self.aggregated_opinion(Role::Decode, passes);
        self.diagnostics.load.overall = decode.reason.or(prefill.reason);
        let refused = Some(Reason::ScaleDownRefusedConsolidation);
        let is_refused = prefill.reason == refused || decode.reason == refused;

        let more = |opinion: Opinion| opinion.target.filter(|&target| target > ready);
        let fewer = |opinion: Opinion| opinion.target.filter(|&target| target < ready);
        let wanted = match (fewer(prefill), fewer(decode)) {
            _ if more(prefill).or(more(decode)).is_some() => more(prefill).or(more(decode))?,
            (None, Some(target)) if prefill.target.is_none() => target,
            (Some(prefill), Some(decode)) => prefill.max(decode),
            _ => ready,
        };
        if self.inventory.is_starting() && wanted > ready {
            return None;
        }
        let floored = self.at_least_bound(role, wanted.max(self.floor(role)));
        let (fitted, budget) = self.guard_role(role, floored, false);
        let is_capped = fitted > wanted && wanted < ready;
        let allows = |opinion: Opinion| opinion.target.is_some_and(|target| target <= ready);
        let cancels = !is_refused && self.pending(role) > 0 && allows(prefill) && allows(decode);
        if fitted == ready && !cancels {
            let quiet = match (is_capped, is_refused) {
                (true, _) => Reason::ScaleDownCappedByThroughput,
                (false, true) => Reason::ScaleDownRefusedConsolidation,
                (false, false) => Reason::NoChange,
            };
            self.diagnostics.load.overall = Some(budget.unwrap_or(quiet));
            return None;
        }
        let move_reason = self.move_reason(role, fitted, is_capped);
        self.diagnostics.load.overall = Some(budget.unwrap_or(move_reason));
        Some(only(role, fitted))
    }

    fn load_pair(&mut self, passes: &Passes) -> Option<Targets> {
        if let Some(reason) = self.pair_obstacle(passes) {
            self.diagnostics.load = Reasons::all(reason);
            return None;
        }
        let opinions = PerRole {
            prefill: self.judge_reported(Role::Prefill, passes),
            decode: self.judge_reported(Role::Decode, passes),
        };
        let said_last = if passes.decode.is_empty() {
            opinions.prefill
        } else {
            opinions.decode
        };
        self.diagnostics.load.overall = said_last.reason;
        let is_starting = self.inventory.is_starting();
        let own = |state: &Self, role: Role| {
            let target = opinions.get(role).target;
            target.filter(|&target| !is_starting || target <= state.ready(role))
        };
        let wanted = PerRole {
            prefill: own(self, Role::Prefill).unwrap_or(self.ready.prefill),
            decode: own(self, Role::Decode).unwrap_or(self.ready.decode),
        };
        let bounded = PerRole {
            prefill: self.at_least_bound(Role::Prefill, wanted.prefill),
            decode: self.at_least_bound(Role::Decode, wanted.decode),
        };
        let mut fitted = self.at_least_floors(bounded);
        if is_starting {
            let cancelled = PerRole {
                prefill: own(self, Role::Prefill).map(|_| fitted.prefill),
                decode: own(self, Role::Decode).map(|_| fitted.decode),
            };
            return self.cancel_starting(cancelled, Source::Load);
        }
        if bounded != wanted {
            fitted = self.fit_ceiling(fitted);
        }
        let (fitted, budget) = self.guard_both(fitted);
        let role_reason = |role: Role| {
            let (current, wanted) = (self.ready(role), *wanted.get(role));
            let is_capped = *bounded.get(role) > wanted && wanted < current;
            match fitted.get(role).cmp(&current) {
                std::cmp::Ordering::Greater => Reason::ScaleUp,
                _ if is_capped => Reason::ScaleDownCappedByThroughput,
                std::cmp::Ordering::Less => Reason::ScaleDown,
                std::cmp::Ordering::Equal => Reason::NoChange,
            }
        };
        let role = PerRole {
            prefill: role_reason(Role::Prefill),
            decode: role_reason(Role::Decode),
        };
        let overall = if weight(role.decode) > weight(role.prefill) {
            role.decode
        } else {
            role.prefill
        };
        self.diagnostics.load = Reasons {
            overall: Some(budget.unwrap_or(overall)),
            role: role.map(Some),
        };
        if fitted != self.ready {
            return Some(fitted.map(Some));
        }
        self.restore_role_reasons(&opinions, budget.is_none());
        None
    }

    fn pair_obstacle(&self, passes: &Passes) -> Option<Reason> {
        if passes.prefill.is_empty() && passes.decode.is_empty() {
            return Some(Reason::NoForwardPasses);
        }
        if Role::BOTH.iter().any(|&role| self.is_blocked(role)) {
            return Some(Reason::ScalingInProgress);
        }
        let is_odd = |role: Role| {
            let passes = passes.get(role);
            !passes.is_empty() && !has_all_workers(passes, self.ready(role))
        };
        let is_any_odd = Role::BOTH.into_iter().any(is_odd);
        is_any_odd.then_some(Reason::WorkerCountMismatch)
    }

    /// A role of which nothing is reported is held.
    fn judge_reported(&mut self, role: Role, passes: &Passes) -> Opinion {
        let passes = passes.get(role);
        if passes.is_empty() {
            return Opinion::default();
        }
        self.judge(role, passes)
    }

    /// Where nothing moves, what kept each role from moving says more than that nothing changed.
    fn restore_role_reasons(&mut self, opinions: &PerRole<Opinion>, with_overall: bool) {
        let said = opinions.map(|opinion| opinion.reason.filter(|&why| why != Reason::NoChange));
        for role in Role::BOTH {
            if let Some(reason) = *said.get(role) {
                *self.diagnostics.load.role.get_mut(role) = Some(reason);
            }
        }
        if with_overall && let Some(reason) = said.prefill.or(said.decode) {
            self.diagnostics.load.overall = Some(reason);
        }
    }

    /// Not below what the predicted traffic needs.
    fn at_least_bound(&self, role: Role, wanted: u32) -> u32 {
        if self.config.scales_by_throughput() {
            wanted.max(self.lower_bound(role))
        } else {
            wanted
        }
    }

    fn move_reason(&self, role: Role, target: u32, is_capped: bool) -> Reason {
        if target < self.ready(role) + self.pending(role) {
            if is_capped {
                Reason::ScaleDownCappedByThroughput
            } else {
                Reason::ScaleDown
            }
        } else if target > self.ready(role) {
            Reason::ScaleUp
        } else {
            Reason::NoChange
        }
    }
}

/// Of two roles' reasons the weightier one speaks for both.
fn weight(reason: Reason) -> u8 {
    match reason {
        Reason::ScaleUp => 3,
        Reason::ScaleDownCappedByThroughput => 2,
        Reason::ScaleDown => 1,
        _ => 0,
    }
}

fn only(role: Role, replicas: u32) -> Targets {
    let mut targets = Targets::default();
    *targets.get_mut(role) = Some(replicas);
    targets
}

/// Whether exactly so many workers report, each with as many ranks as the others.
fn has_all_workers(passes: &[ForwardPass], workers: u32) -> bool {
    let mut ranks: BTreeMap<WorkerId, usize> = BTreeMap::new();
    for pass in passes {
        *ranks.entry(pass.worker).or_default() += 1;
    }
    let mut counts = ranks.values();
    let first = counts.next();
    ranks.len() == workers as usize && counts.all(|count| Some(count) == first)
}
