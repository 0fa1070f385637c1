//! One tick: what is seen becomes targets, or nothing.
//!
//! 1. Take in the inventory, then, on the load loop and against the SLA, the forward passes.
//! 2. If the throughput loop is due, take in the traffic window and predict the next.
//! 3. Propose: throughput scaling first, so that its lower bounds are in place, then load scaling. With both on, only load
//!    scaling states targets.
//! 4. Merge over the workers that serve; load scaling's word counts before throughput scaling's.
//! 5. Mend what floors and the GPU budget do not allow, whether or not anything was proposed, but not while a move is under way.
//!    What equals the workers that serve is no decision.
//!
//! Source: Dynamo 1.6.1, the planner's pipeline with its built-in plugins.

use super::config::{Capabilities, Mode, PlannerConfig};
use super::forecast::{Forecast, Traffic};
use super::merge::merge;
use super::schedule::{Schedule, ScheduledTick};
use super::startup::{Candidate, Heard};
use super::state::{Inventory, Passes, ScalingState, Targets};
use super::throughput::Prediction;
use crate::decision::{Diagnostics, Reason};
use crate::model::ForwardPassModel;
use crate::observe::{PerRole, Role};
use engine::Time;

/// What the planner sees at a tick. Parts that the tick does not need may be left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TickInput {
    /// The workers.
    pub inventory: Inventory,
    /// The traffic window since it was last read; `None` if it has no length.
    pub traffic: Option<Traffic>,
    /// The last forward pass of every rank.
    pub passes: Passes,
}

/// Dynamo's planner without what surrounds it: told an inventory, it says targets.
#[derive(Debug, Clone)]
pub struct ScalingCore {
    state: ScalingState,
    forecast: Forecast,
    schedule: Schedule,
    candidate: Option<Candidate>,
}

impl ScalingCore {
    /// For a run that starts at time zero. `history` warms the predictors up.
    #[must_use]
    pub fn new(
        config: PlannerConfig,
        capabilities: PerRole<Capabilities>,
        models: PerRole<Option<Box<dyn ForwardPassModel>>>,
        history: &[Traffic],
    ) -> Self {
        let mut forecast = Forecast::new(config.load_predictor);
        if config.is_sla() {
            forecast.warm_up(history);
        }
        ScalingCore {
            forecast,
            schedule: Schedule::new(Time::ZERO),
            candidate: None,
            state: ScalingState::new(config, capabilities, models),
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &PlannerConfig {
        &self.state.config
    }

    /// The tick to come.
    #[must_use]
    pub fn next_tick(&self) -> ScheduledTick {
        self.schedule.next(&self.state.config)
    }

    /// What the last tick found out.
    #[must_use]
    pub fn diagnostics(&self) -> &Diagnostics {
        &self.state.diagnostics
    }

    /// Runs the tick to come: replicas by role, if they are to change.
    pub fn tick(&mut self, input: &TickInput) -> Option<Targets> {
        let tick = self.next_tick();
        self.state.begin_tick(input.inventory);
        if tick.runs_load && self.state.config.is_sla() {
            self.state.observe_passes(&input.passes);
        }
        let prediction = self.predict(&tick, input);
        let heard = self.propose(&tick, input, prediction.as_ref());
        self.schedule.ran(&tick, heard.throughput.is_some());
        self.report(&tick, input, prediction.as_ref());
        let present = input.inventory.ready;
        let merged = merge(&heard.proposals(), present, true)?.counts();
        if input.inventory.is_starting() {
            let (state, candidate) = (&self.state, &mut self.candidate);
            return state.confirmed_cancellation(candidate, merged, &heard, tick.at);
        }
        self.candidate = None;
        self.state.projected(&input.inventory, merged, &heard)
    }

    fn predict(&mut self, tick: &ScheduledTick, input: &TickInput) -> Option<Prediction> {
        let window = input.traffic.as_ref()?;
        if tick.runs_throughput {
            self.forecast.next(window)
        } else {
            None
        }
    }

    fn propose(
        &mut self,
        tick: &ScheduledTick,
        input: &TickInput,
        prediction: Option<&Prediction>,
    ) -> Heard {
        let mut heard = Heard::default();
        let state = &mut self.state;
        if let (Some(prediction), Some(window)) = (prediction, &input.traffic) {
            heard.throughput = Some(state.advance_throughput(prediction, window.duration_s));
        }
        if tick.runs_load && state.config.scales_by_load() {
            if !state.config.scales_by_throughput()
                && let Some(window) = &input.traffic
            {
                state.observe_runtime(window.kv_hit_rate, window.accept_length);
            }
            heard.load = Some(state.advance_load(&input.passes));
        }
        heard
    }

    /// Fills in what the rules did not report themselves.
    fn report(&mut self, tick: &ScheduledTick, input: &TickInput, prediction: Option<&Prediction>) {
        let found = &mut self.state.diagnostics;
        if let Some(prediction) = prediction {
            found.predicted_requests = Some(prediction.requests);
            found.predicted_isl = Some(prediction.isl);
            found.predicted_osl = Some(prediction.osl);
            found.predicted_kv_hit_rate = prediction.kv_hit_rate;
        } else if tick.runs_throughput && found.throughput.overall.is_none() {
            found.throughput.overall = Some(match input.traffic {
                Some(_) => Reason::PredictFailed,
                None => Reason::NoTrafficData,
            });
        }
        if tick.runs_load && !self.state.config.scales_by_load() {
            found.load.overall = Some(Reason::Disabled);
        }
    }
}

impl ScalingState {
    /// The merged counts as targets, within floors and budget; `None` if they are the workers that serve.
    fn projected(&self, inventory: &Inventory, merged: Targets, heard: &Heard) -> Option<Targets> {
        let ready = inventory.ready;
        let is_moving = Role::BOTH.into_iter().any(|role| {
            let (ready, expected) = (ready.get(role), inventory.expected.get(role));
            *inventory.is_scaling.get(role)
                || matches!((ready, expected), (Some(ready), Some(expected)) if ready != expected)
        });
        let is_below = |role: Role| {
            let ready = *ready.get(role);
            self.config.mode.has(role)
                && !is_moving
                && ready.is_some_and(|ready| ready < self.floor(role))
        };
        let mut wanted = merged;
        for role in Role::BOTH.into_iter().filter(|&role| is_below(role)) {
            let target = wanted.get_mut(role);
            *target = Some(target.unwrap_or(0).max(self.floor(role)));
        }
        let is_unchanged = |targets: Targets| {
            Role::BOTH.into_iter().all(|role| {
                let target = targets.get(role);
                target.is_none() || target == ready.get(role)
            })
        };
        let breaks_budget = !is_moving && self.breaks_budget(inventory);
        if is_unchanged(wanted) && !breaks_budget {
            return None;
        }
        let mut fitted = self.within_final_budget(wanted, ready);
        let is_repair = Role::BOTH.into_iter().any(is_below);
        if self.config.mode == Mode::Disaggregated && is_repair {
            for role in Role::BOTH {
                let target = fitted.get_mut(role);
                // A role that nobody named and that did not have to give way is not mentioned.
                if target == ready.get(role) && !heard.names(role) && !is_below(role) {
                    *target = None;
                }
            }
        }
        (!is_unchanged(fitted)).then_some(fitted)
    }

    fn breaks_budget(&self, inventory: &Inventory) -> bool {
        let replicas: Option<Vec<(u32, u32)>> = self
            .config
            .mode
            .roles()
            .iter()
            .map(|&role| {
                let cost = self
                    .capabilities
                    .get(role)
                    .num_gpu
                    .filter(|&gpus| gpus > 0)?;
                Some(((*inventory.ready.get(role))?, cost))
            })
            .collect();
        replicas.is_some_and(|replicas| !self.config.gpu_budget.allows(&replicas))
    }

    /// Floors and the budget's band, whatever was proposed.
    fn within_final_budget(&self, wanted: Targets, ready: Targets) -> Targets {
        let single = |role: Role| {
            let target = (*wanted.get(role))?.max(self.floor(role));
            let budget = self.config.single_budget(role, &self.capabilities);
            Some(budget.map_or(target, |budget| budget.clamp(target)))
        };
        let mut fitted = wanted;
        if self.config.mode != Mode::Disaggregated {
            for &role in self.config.mode.roles() {
                *fitted.get_mut(role) = single(role);
            }
            return fitted;
        }
        let both = (
            wanted.prefill.or(ready.prefill),
            wanted.decode.or(ready.decode),
        );
        let (Some(prefill), Some(decode)) = both else {
            return PerRole {
                prefill: single(Role::Prefill),
                decode: single(Role::Decode),
            };
        };
        let floored = self.at_least_floors(PerRole { prefill, decode });
        let clamped = match self.config.pair_budget(&self.capabilities) {
            Some(budget) => budget.clamp(floored),
            None => floored,
        };
        PerRole {
            prefill: wanted.prefill.map(|_| clamped.prefill),
            decode: wanted.decode.map(|_| clamped.decode),
        }
    }
}
