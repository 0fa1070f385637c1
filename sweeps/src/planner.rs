//! The planner of a scenario: its settings as plain data, and the planner that they make for the pools there are.

mod oracle;

pub use oracle::OracleSpec;

use crate::scenario::{Pool, Role as PoolRole};
use engine::{EngineConfig, Span, StepTime, Workload};
use planner::dynamo::{Capabilities, DynamoPlanner, PlannerConfig};
use planner::model::{ForwardPassModel, Profile, Regression, RegressionConfig, WorkerKind};
use planner::policy::{
    Fixed, Hpa, HpaSpec, Keda, KedaSpec, LlmD, LlmDSpec, Metric, Schedule, ScheduleEntry,
};
use planner::{ConfigProblem, PerRole, Planner, Role};
use sim::links::{NetworkSpec, Topology};
use sim::scaling::{LifecycleSpec, fit_at_once};
use sim::{PoolScaling, ScalingSpec, Startup};
use std::sync::Arc;

/// Who says how many workers there are, and how long new ones take.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannerSpec {
    /// Who decides.
    pub policy: Policy,
    /// How long the parts of a start take.
    pub startup: Startup,
    /// Whether nobody said how long.
    pub is_startup_guessed: bool,
    /// GPUs of all pools together; `None` for as many as the policy asks for.
    pub gpus: Option<u32>,
    /// What else becomes of workers.
    pub lifecycle: LifecycleSpec,
    /// How long a worker that drains may take over what it has.
    pub drain_limit: Option<Span>,
    /// Weights that ready workers send to those that start.
    pub weights: Option<WeightsSpec>,
}

/// Weights that ready workers send to those that start.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightsSpec {
    /// By pool: bytes of a worker's.
    pub bytes: Vec<u64>,
    /// Over which they go where nothing else is handed over; its topology has a place for each worker that there may be.
    pub network: Option<(NetworkSpec, Option<Topology>)>,
}

/// Who decides, with all settings.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// Nobody.
    Static,
    /// A calendar.
    Schedule(Vec<ScheduleEntry>),
    /// A calendar made by who knows every request to come.
    Oracle(OracleSpec),
    /// Dynamo's planner.
    Dynamo {
        /// Its settings.
        config: PlannerConfig,
        /// What its estimates stand on.
        perf_model: PerfModel,
    },
    /// Kubernetes' autoscaler.
    Hpa {
        /// Time between ticks.
        sync_period: Span,
        /// By role.
        roles: PerRole<Option<HpaSpec>>,
    },
    /// KEDA's.
    Keda {
        /// Time between ticks.
        polling_interval: Span,
        /// By role.
        roles: PerRole<Option<KedaSpec>>,
    },
    /// Thresholds with cool-downs.
    LlmD {
        /// Time between ticks.
        interval: Span,
        /// By role.
        roles: PerRole<Option<LlmDSpec>>,
    },
}

/// What estimates of forward passes stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerfModel {
    /// The timing model of the pool.
    Timing,
    /// A regression over the passes that workers report.
    FpmRegression,
}

impl Policy {
    /// The name in scenario files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Policy::Static => "static",
            Policy::Schedule(_) => "schedule",
            Policy::Oracle(_) => "oracle",
            Policy::Dynamo { .. } => "dynamo",
            Policy::Hpa { .. } => "hpa",
            Policy::Keda { .. } => "keda",
            Policy::LlmD { .. } => "llm-d",
        }
    }

    /// Most workers of a role that it may ask for; `None` without a bound.
    fn most(&self, role: Role, pools: &[Pool]) -> Option<u32> {
        let workers = || pool_of(role, pools).map_or(0, |pool| pool.workers);
        match self {
            Policy::Static => Some(workers()),
            Policy::Schedule(entries) => {
                let counts = entries.iter().filter_map(|entry| *entry.workers.get(role));
                counts.chain([workers()]).max()
            }
            Policy::Oracle(spec) => Some(spec.max_replicas),
            Policy::Dynamo { config, .. } => {
                let gpus = |role| pool_of(role, pools).map_or(1, Pool::gpus_per_worker);
                let others = Role::BOTH.into_iter().filter(|&other| other != role);
                let others = others.filter(|&other| config.mode.has(other));
                let taken: u32 = others.map(|other| config.floor(other) * gpus(other)).sum();
                let max = config.gpu_budget.max?;
                Some(max.saturating_sub(taken) / gpus(role))
            }
            Policy::Hpa { roles, .. } => roles.get(role).as_ref().map(|it| it.max_replicas),
            Policy::Keda { roles, .. } => roles.get(role).as_ref().map(|it| it.hpa.max_replicas),
            Policy::LlmD { roles, .. } => roles.get(role).as_ref().map(|it| it.max_replicas),
        }
    }

    /// Whether it looks at trailing latencies.
    fn looks_at_latencies(&self) -> bool {
        let is_latency = |metric: Metric| matches!(metric, Metric::TtftP95 | Metric::ItlP95);
        match self {
            Policy::Hpa { roles, .. } => [&roles.prefill, &roles.decode]
                .into_iter()
                .flatten()
                .any(|spec| is_latency(spec.metric)),
            Policy::Keda { roles, .. } => [&roles.prefill, &roles.decode]
                .into_iter()
                .flatten()
                .any(|spec| is_latency(spec.hpa.metric)),
            _ => false,
        }
    }
}

/// What a pool is to a planner: aggregated workers count as decode.
#[must_use]
pub const fn role_of(pool: &Pool) -> Role {
    match pool.role {
        PoolRole::Prefill => Role::Prefill,
        PoolRole::Decode | PoolRole::Aggregated => Role::Decode,
    }
}

fn pool_of(role: Role, pools: &[Pool]) -> Option<&Pool> {
    pools.iter().find(|pool| role_of(pool) == role)
}

/// What workers of a pool can do, as their engine would report it.
#[must_use]
pub fn capabilities(pool: &Pool) -> Capabilities {
    let engine = &pool.engine;
    let seats = match engine {
        EngineConfig::Vllm(config) => config.max_num_seqs,
        EngineConfig::Sglang(config) => config.max_running_requests,
        EngineConfig::Trtllm(config) => config.max_batch_size,
    };
    let kv = engine.usable_tokens();
    Capabilities {
        num_gpu: Some(pool.gpus_per_worker()),
        max_num_batched_tokens: Some(u64::from(engine.max_num_batched_tokens())),
        max_num_seqs: Some(u64::from(seats)),
        // Without a limit of its own an engine serves what its KV cache holds.
        context_length: Some(engine.longest_sequence().map_or(kv, u64::from)),
        max_kv_tokens: Some(kv),
        speculative_nextn: None,
    }
}

impl PlannerSpec {
    /// What is wrong with it for these pools; the timing models do not matter.
    #[must_use]
    pub fn problems(&self, pools: &[Pool]) -> Vec<ConfigProblem> {
        match &self.policy {
            Policy::Dynamo { config, .. } => {
                config.problems(&self.of_pools(pools, |_, pool| capabilities(pool)))
            }
            Policy::Oracle(spec) => spec.problems(),
            _ => {
                let nothing = Workload::default();
                self.planner(pools, &[], &nothing).err().unwrap_or_default()
            }
        }
    }

    /// By pool, how many workers there may be at once, those that drain included: twice as many as the policy may ask for, and
    /// spares and those that are too many during an update, as far as there are GPUs. `None` where neither bounds them.
    #[must_use]
    pub fn places(&self, pools: &[Pool]) -> Option<Vec<u32>> {
        let places = pools.iter().map(|pool| {
            let most = self.policy.most(role_of(pool), pools);
            let fit = self.gpus.map(|gpus| gpus / pool.gpus_per_worker());
            let spares = self.lifecycle.spares.count;
            let update = self.lifecycle.update;
            let twice = most.map(|most| {
                let surge = update.map_or(0, |update| update.allowances(most).0);
                most.saturating_mul(2)
                    .saturating_add(spares)
                    .saturating_add(surge)
            });
            let places = match (twice, fit) {
                (Some(twice), Some(fit)) => twice.min(fit),
                (one, other) => one.or(other)?,
            };
            Some(places.max(pool.workers + spares))
        });
        places.collect()
    }

    /// GPUs of the workers at the start and of their spares, and whether they fit into those that there are.
    #[must_use]
    pub fn first_gpus(&self, pools: &[Pool]) -> (u64, bool) {
        let spares = self.lifecycle.spares.count;
        let of = |pool: &Pool, workers: u32| {
            std::iter::repeat_n(pool.gpus_per_worker(), workers as usize)
        };
        let workers = pools.iter().flat_map(|pool| of(pool, pool.workers));
        let gpus: Vec<u32> = workers
            .chain(pools.iter().flat_map(|pool| of(pool, spares)))
            .collect();
        let sum = gpus.iter().map(|&gpus| u64::from(gpus)).sum();
        (
            sum,
            fit_at_once(self.gpus, self.lifecycle.gpus_per_node, &gpus),
        )
    }

    /// The planner in a deployment of these pools; `timing` holds one model per pool. The workload is for the oracle alone.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn scaling(
        &self,
        pools: &[Pool],
        timing: &[Arc<dyn StepTime>],
        workload: &Workload,
    ) -> Result<ScalingSpec, Vec<ConfigProblem>> {
        Ok(ScalingSpec {
            planner: self.planner(pools, timing, workload)?,
            pools: pools
                .iter()
                .enumerate()
                .map(|(index, pool)| PoolScaling {
                    role: role_of(pool),
                    initial: pool.workers,
                    startup: Startup {
                        weights: self.weights.as_ref().map(|it| it.bytes[index]),
                        ..self.startup
                    },
                })
                .collect(),
            gpus: self.gpus,
            lifecycle: self.lifecycle,
            network: self.weights.as_ref().and_then(|it| it.network.clone()),
            keeps_latencies: self.policy.looks_at_latencies(),
        })
    }

    fn planner(
        &self,
        pools: &[Pool],
        timing: &[Arc<dyn StepTime>],
        workload: &Workload,
    ) -> Result<Box<dyn Planner>, Vec<ConfigProblem>> {
        Ok(match &self.policy {
            Policy::Static => Box::new(Fixed),
            Policy::Schedule(entries) => Box::new(Schedule::new(entries.clone())?),
            Policy::Oracle(spec) => {
                let entries = spec.schedule(pools, timing, workload, &self.startup);
                Box::new(Schedule::new(entries)?)
            }
            Policy::Dynamo { config, perf_model } => {
                let capabilities = self.of_pools(pools, |_, pool| capabilities(pool));
                let models = self.of_pools(pools, |index, pool| match perf_model {
                    PerfModel::Timing => {
                        let model: Box<dyn ForwardPassModel> =
                            Box::new(Profile(timing[index].clone()));
                        model
                    }
                    PerfModel::FpmRegression => Box::new(regression(config, pool)),
                });
                Box::new(DynamoPlanner::new(
                    config.clone(),
                    capabilities,
                    models,
                    &[],
                )?)
            }
            Policy::Hpa { sync_period, roles } => Box::new(Hpa::new(*sync_period, roles.clone())?),
            Policy::Keda {
                polling_interval,
                roles,
            } => Box::new(Keda::new(*polling_interval, roles.clone())?),
            Policy::LlmD { interval, roles } => Box::new(LlmD::new(*interval, *roles)?),
        })
    }

    /// By role, something of its pool.
    fn of_pools<T>(&self, pools: &[Pool], of: impl Fn(usize, &Pool) -> T) -> PerRole<Option<T>> {
        let mut found = PerRole {
            prefill: None,
            decode: None,
        };
        for (index, pool) in pools.iter().enumerate() {
            *found.get_mut(role_of(pool)) = Some(of(index, pool));
        }
        found
    }

    /// What its results stand on that nobody said.
    #[must_use]
    pub fn guesses(&self) -> Option<String> {
        (self.is_startup_guessed && !matches!(self.policy, Policy::Static)).then(|| {
            let total = self.startup.total(false).as_s();
            format!("new workers take {total} s to start, a preset (lifecycle.startup: cold), as lifecycle does not say")
        })
    }
}

fn regression(config: &PlannerConfig, pool: &Pool) -> Regression {
    let kind = match pool.role {
        PoolRole::Prefill => WorkerKind::Prefill,
        PoolRole::Decode => WorkerKind::Decode,
        PoolRole::Aggregated => WorkerKind::Aggregated,
    };
    let config = RegressionConfig {
        min_observations: config.load_min_observations,
        max_observations: config.max_num_fpm_samples,
        buckets: config.fpm_sample_bucket_size,
    };
    Regression::new(kind, config)
}
