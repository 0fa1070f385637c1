//! Throughput scaling: as many replicas as the predicted traffic needs.
//!
//! Replicas = predicted requests per second over what one engine sustains at the SLA, rounded up. A decision moves a role by at
//! most `max_throughput_scaling_replicas`, then floors, then the ceiling of the GPU budget. With load scaling on the result only
//! bounds load scaling from below; alone it decides, within the whole budget. An engine that cannot be sized holds its role, and
//! in disaggregated serving the other role with it. While workers are verified to be starting, only fewer replicas are asked for.

use super::capacity::CapacityRequest;
use super::config::Mode;
use super::startup::Source;
use super::state::{ScalingState, Targets};
use crate::decision::{Reason, Reasons};
use crate::observe::{PerRole, Role};

/// Predicted traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prediction {
    pub requests: f64,
    pub isl: f64,
    pub osl: f64,
    pub kv_hit_rate: Option<f64>,
    pub accept_length: f64,
}

impl ScalingState {
    /// Replicas for the predicted traffic of a window as long as the last, if they are to change.
    pub(super) fn advance_throughput(
        &mut self,
        prediction: &Prediction,
        duration_s: f64,
    ) -> Option<Targets> {
        self.observe_runtime(prediction.kv_hit_rate, Some(prediction.accept_length));
        if duration_s <= 0.0 {
            self.diagnostics.throughput.overall = Some(Reason::NoTrafficData);
            return None;
        }
        let demand_rps = prediction.requests / duration_s;
        match self.config.mode {
            Mode::Disaggregated => self.throughput_pair(demand_rps, prediction),
            Mode::Prefill => self.throughput_role(Role::Prefill, demand_rps, prediction),
            Mode::Decode | Mode::Aggregated => {
                self.throughput_role(Role::Decode, demand_rps, prediction)
            }
        }
    }

    fn throughput_role(
        &mut self,
        role: Role,
        demand_rps: f64,
        prediction: &Prediction,
    ) -> Option<Targets> {
        let sized = self.replicas(role, demand_rps, prediction);
        let current = self.ready(role);
        let capped = self.capped(role, sized.unwrap_or(current));
        let requested = capped.max(self.floor(role));
        let (wanted, ceiling) = self.guard_role(role, requested, true);
        let unsized_or = |reason| match sized {
            None => Reason::ModelNotReady,
            Some(_) => reason,
        };
        if self.config.scales_by_load() {
            *self.diagnostics.throughput_lower_bound.get_mut(role) = wanted;
            let hold = ceiling.filter(|&reason| reason == Reason::GpuBudgetGuardHold);
            let reason = hold.unwrap_or(Reason::SetLowerBound);
            self.diagnostics.throughput.overall = Some(unsized_or(reason));
            return None;
        }
        if self.inventory.is_starting() && (sized.is_none() || requested > current) {
            return None;
        }
        let (wanted, budget) = self.guard_role(role, wanted, false);
        if wanted == current && self.pending(role) == 0 {
            let reason = budget.or(ceiling).unwrap_or(Reason::NoChange);
            self.diagnostics.throughput.overall = Some(unsized_or(reason));
            return None;
        }
        self.diagnostics.throughput.overall = Some(unsized_or(Reason::Scale));
        let mut targets = Targets::default();
        *targets.get_mut(role) = Some(wanted);
        Some(targets)
    }

    fn throughput_pair(&mut self, demand_rps: f64, prediction: &Prediction) -> Option<Targets> {
        let sized = PerRole {
            prefill: self.replicas(Role::Prefill, demand_rps, prediction),
            decode: self.replicas(Role::Decode, demand_rps, prediction),
        };
        let is_sized = sized.prefill.is_some() && sized.decode.is_some();
        if !is_sized {
            self.diagnostics.throughput.role = sized.map(|count| {
                Some(match count {
                    None => Reason::ModelNotReady,
                    Some(_) => Reason::PartnerNotReady,
                })
            });
        }
        let needed = |role: Role| match is_sized {
            true => sized.get(role).expect("both roles are sized"),
            false => self.ready(role),
        };
        let bounded = self.at_least_floors(PerRole {
            prefill: self.capped(Role::Prefill, needed(Role::Prefill)),
            decode: self.capped(Role::Decode, needed(Role::Decode)),
        });
        if self.inventory.is_starting() && !self.config.scales_by_load() {
            if !is_sized {
                self.diagnostics.throughput.overall = Some(Reason::ModelNotReady);
                return None;
            }
            return self.cancel_starting(bounded.map(Some), Source::Throughput);
        }
        let fitted = self.fit_ceiling(bounded);
        let is_held = fitted == self.ready && bounded != self.ready;
        if self.config.scales_by_load() {
            self.bound_load(fitted, is_sized, is_held);
            return None;
        }
        let (wanted, budget) = self.guard_both(fitted);
        let reason = if wanted != self.ready {
            Reason::Scale
        } else if is_held {
            budget.unwrap_or(Reason::GpuBudgetGuardHold)
        } else {
            budget.unwrap_or(Reason::NoChange)
        };
        if is_sized {
            self.diagnostics.throughput = Reasons::all(reason);
        } else {
            self.diagnostics.throughput.overall = Some(Reason::ModelNotReady);
        }
        (wanted != self.ready).then(|| wanted.map(Some))
    }

    /// The lower bounds of load scaling.
    fn bound_load(&mut self, bounds: PerRole<u32>, is_sized: bool, is_held: bool) {
        self.diagnostics.throughput_lower_bound = bounds;
        let found = &mut self.diagnostics.throughput;
        let reason = if is_held {
            Reason::GpuBudgetGuardHold
        } else {
            Reason::SetLowerBound
        };
        if is_sized {
            *found = Reasons::all(reason);
        } else {
            found.overall = Some(Reason::ModelNotReady);
        }
    }

    /// Replicas of a role for the demand, at least its floor; `None` if its engine cannot be sized.
    fn replicas(&mut self, role: Role, demand_rps: f64, prediction: &Prediction) -> Option<u32> {
        let rps = self.engine_rps(role, prediction).filter(|&rps| rps > 0.0);
        let Some(rps) = rps else {
            self.diagnostics.throughput.overall = Some(Reason::ModelNotReady);
            return None;
        };
        if self.config.mode == Mode::Aggregated {
            self.diagnostics.engine_rps.prefill = Some(rps);
        }
        *self.diagnostics.engine_rps.get_mut(role) = Some(rps);
        let needed = (demand_rps / rps).ceil() as u32;
        Some(needed.max(self.floor(role)))
    }

    fn engine_rps(&self, role: Role, prediction: &Prediction) -> Option<f64> {
        let model = self.models.get(role).as_ref()?;
        let budget = self.capabilities.get(role).max_num_batched_tokens;
        if self.config.mode == Mode::Aggregated && budget.is_none_or(|tokens| tokens == 0) {
            return None;
        }
        let decodes = role == Role::Decode;
        let prefills = role == Role::Prefill || self.config.mode == Mode::Aggregated;
        if prediction.isl <= 0.0 || (decodes && prediction.osl <= 0.0) {
            return None;
        }
        let capacity = model.capacity(&CapacityRequest {
            isl: prediction.isl.ceil() as u64,
            osl: (prediction.osl.ceil() as u64).max(1),
            ttft_sla_s: prefills.then_some(self.config.ttft_ms / 1000.0),
            itl_sla_s: decodes.then_some(self.config.itl_ms / 1000.0),
            accept_length: if decodes { self.accept_length() } else { 1.0 },
            kv_hit_rate: prediction.kv_hit_rate.filter(|_| prefills),
        });
        capacity.map(|capacity| capacity.rps)
    }

    /// At most so many replicas away from those that are ready.
    fn capped(&self, role: Role, wanted: u32) -> u32 {
        let (ready, most) = (
            self.ready(role),
            self.config.max_throughput_scaling_replicas,
        );
        wanted.clamp(ready.saturating_sub(most), ready.saturating_add(most))
    }
}
