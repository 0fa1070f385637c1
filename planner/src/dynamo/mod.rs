//! Dynamo 1.6's planner, decision for decision.
//!
//! Two loops share one tick. *Throughput scaling* ([`throughput`], slow) predicts the next traffic window, asks how much
//! of it one engine sustains at the SLA ([`capacity`]) and sizes the roles. *Load scaling* ([`load`], fast) looks at the
//! engines' last forward passes and moves by one. Either may be off; targets other than the SLA have load scaling alone,
//! on static thresholds. GPU budgets and floors bound both. [`tick`] has the order of things, [`schedule`] the times,
//! [`startup`] what may be cancelled while workers start.
//!
//! [`DynamoPlanner`] is the planner as a simulated deployment sees it: it adds up traffic windows between reads, keeps
//! the last forward pass of every rank, remembers what it asked for until it is there, and states absolute targets.
//! [`ScalingCore`] is what decides inside. Both are compared with recorded decisions by `dynosim conform planner`.
//!
//! Not modelled: external plugins, power budgets inside a tick (the clamp itself is [`fit_power`](crate::budget::fit_power)),
//! the global planner over several deployments.

mod capacity;
mod check;
mod config;
mod engine_model;
mod forecast;
mod load;
pub mod merge;
mod schedule;
mod startup;
mod state;
mod throughput;
mod tick;

pub use capacity::{Capacity, CapacityRequest};
pub use config::{Capabilities, LoadThresholds, Mode, PlannerConfig, Target};
pub use engine_model::{Change, EngineLimits, EngineModel};
pub use forecast::Traffic;
pub use schedule::ScheduledTick;
pub use state::{Inventory, Passes, Targets};
pub use tick::{ScalingCore, TickInput};

use crate::decision::{Decision, Planner, Reason};
use crate::model::ForwardPassModel;
use crate::observe::{Observations, PerRole, Pool, Role};
use crate::problem::ConfigProblem;
use crate::traffic::TrafficWindow;
use engine::Time;

/// Dynamo's planner in a deployment.
#[derive(Debug, Clone)]
pub struct DynamoPlanner {
    core: ScalingCore,
    last_passes: Passes,
    window: Option<TrafficWindow>,
    /// Targets that workers have not reached yet.
    outstanding: Targets,
}

/// A tick with all that went into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What was due.
    pub scheduled: ScheduledTick,
    /// What the core was told.
    pub input: TickInput,
    /// What the core said: replicas by role, if they are to change.
    pub scale_to: Option<Targets>,
    /// What comes of it in this deployment.
    pub decision: Decision,
}

impl DynamoPlanner {
    /// For a run that starts at time zero. `models` say how long forward passes take, by role; targets other than the SLA need
    /// none. `history` are windows as long as the throughput interval that warm the predictors up.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn new(
        config: PlannerConfig,
        capabilities: PerRole<Option<Capabilities>>,
        models: PerRole<Option<Box<dyn ForwardPassModel>>>,
        history: &[Traffic],
    ) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = config.problems(&capabilities);
        for &role in config.mode.roles() {
            if config.is_sla() && models.get(role).is_none() {
                problems.push(ConfigProblem {
                    field: "performance model",
                    found: "none".to_owned(),
                    expected: "one for every role".to_owned(),
                    suggestion: "optimization_target: sla estimates TTFT and ITL; throughput, latency and load do not",
                });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let capabilities = capabilities.map(Option::unwrap_or_default);
        Ok(DynamoPlanner {
            core: ScalingCore::new(config, capabilities, models, history),
            last_passes: Passes::default(),
            window: None,
            outstanding: Targets::default(),
        })
    }

    /// The tick to come.
    #[must_use]
    pub fn next_tick(&self) -> ScheduledTick {
        self.core.next_tick()
    }

    /// Runs the tick to come and says what went into it.
    pub fn step(&mut self, seen: &Observations) -> Step {
        let scheduled = self.core.next_tick();
        let input = self.read(seen);
        let scale_to = self.core.tick(&input);
        let targets = self.absolute(scale_to, &seen.pools);
        let diagnostics = self.core.diagnostics().clone();
        let (load, throughput) = (diagnostics.load.overall, diagnostics.throughput.overall);
        let decision = Decision {
            targets,
            reason: load
                .filter(|&reason| reason != Reason::Disabled)
                .or(throughput)
                .or(load),
            next_tick: Some(self.core.next_tick().at),
            diagnostics,
        };
        Step {
            scheduled,
            input,
            scale_to,
            decision,
        }
    }

    /// What the core is told. Reading a traffic window begins a new one.
    fn read(&mut self, seen: &Observations) -> TickInput {
        let tick = self.core.next_tick();
        for role in Role::BOTH {
            seen.pools.get(role).update(self.last_passes.get_mut(role));
        }
        self.window = Some(match self.window {
            Some(window) => window.merged(&seen.traffic),
            None => seen.traffic,
        });
        let window = if tick.needs_traffic {
            self.window.take().filter(|window| window.duration_s > 0.0)
        } else {
            None
        };
        TickInput {
            inventory: self.inventory(&seen.pools),
            traffic: window.map(|window| Traffic {
                duration_s: window.duration_s,
                requests: window.requests,
                isl: window.isl,
                osl: window.osl,
                kv_hit_rate: window.kv_hit_rate,
                accept_length: window.accept_length,
            }),
            passes: if tick.needs_passes {
                self.last_passes.clone()
            } else {
                Passes::default()
            },
        }
    }

    /// Ready are the workers that serve; expected what was asked for, as long as it is not there, else what serves or starts.
    fn inventory(&self, pools: &PerRole<Pool>) -> Inventory {
        let mode = self.core.config().mode;
        let mut inventory = Inventory::default();
        for role in Role::BOTH.into_iter().filter(|&role| mode.has(role)) {
            let (pool, outstanding) = (pools.get(role), *self.outstanding.get(role));
            let staying = pool.staying();
            *inventory.ready.get_mut(role) = Some(pool.ready_count());
            *inventory.expected.get_mut(role) = Some(outstanding.unwrap_or(staying));
            *inventory.is_scaling.get_mut(role) =
                outstanding.is_some_and(|target| target != staying);
        }
        inventory
    }

    /// Absolute targets against what serves or starts; `None` if they are that.
    fn absolute(&mut self, targets: Option<Targets>, pools: &PerRole<Pool>) -> Targets {
        let staying = PerRole {
            prefill: pools.prefill.staying(),
            decode: pools.decode.staying(),
        };
        for role in Role::BOTH {
            let outstanding = self.outstanding.get_mut(role);
            if *outstanding == Some(*staying.get(role)) {
                *outstanding = None;
            }
        }
        let Some(targets) = targets else {
            return Targets::default();
        };
        let wanted = PerRole {
            prefill: targets.prefill.unwrap_or(staying.prefill),
            decode: targets.decode.unwrap_or(staying.decode),
        };
        if wanted == staying {
            return Targets::default();
        }
        for role in Role::BOTH {
            if wanted.get(role) != staying.get(role) {
                *self.outstanding.get_mut(role) = Some(*wanted.get(role));
            }
        }
        wanted.map(Some)
    }
}

impl Planner for DynamoPlanner {
    fn name(&self) -> &'static str {
        "dynamo"
    }

    fn first_tick(&self) -> Option<Time> {
        Some(self.core.next_tick().at)
    }

    fn tick(&mut self, now: Time, seen: &Observations) -> Decision {
        let scheduled = self.core.next_tick().at;
        assert!(
            now == scheduled,
            "a planner is asked when it asked to be: {scheduled:?}, not {now:?}"
        );
        self.step(seen).decision
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(self.clone())
    }
}
