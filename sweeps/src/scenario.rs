//! What is simulated: model, pools of workers, router, workload, service levels. Plain data, resolved and checked.
//!
//! The reader of scenario files makes it; nothing in it has to be looked up again. Defaults are those of the real
//! systems where they have one, and stand here.

use crate::planner::{PlannerSpec, Policy};
use calibration::{Gpu, Hop, KvCapacity, Model, Precision, TimingSpec, WorkerContext};
use engine::vllm::Eviction;
use engine::{EngineConfig, Span};
use sim::costs::{CostSpec, EnergySpec};
use sim::kvbm::spec::{Medium, OffloadPolicy};
use sim::{
    AdversitySpec, DisaggregationSpec, HostSpec, KvbmSpec, LoadSpec, PoolSpec, RouterSpec, Sla,
};
use std::path::PathBuf;
use traces::{Format, SessionClass, SynthSpec, WorkerNames};

/// vLLM's default share of the GPU memory it may use.
pub const DEFAULT_GPU_MEMORY_UTILIZATION: f64 = 0.9;

/// Everything that a simulation needs but the contents of its trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Groups of equal workers, at least one.
    pub pools: Vec<Pool>,
    /// How KV moves from pools that prefill to pools that decode; none where all pools do both.
    pub disaggregation: Option<DisaggregationSpec>,
    /// What goes wrong.
    pub adversity: AdversitySpec,
    /// Who gets which request.
    pub router: RouterSpec,
    /// Requests and how they are sent.
    pub workload: WorkloadSpec,
    /// Bounds for goodput; none where none are given.
    pub sla: Option<Sla>,
    /// Who says how many workers there are; none where that never changes.
    pub planner: Option<PlannerSpec>,
    /// What GPU time costs; none where nobody says.
    pub costs: Option<CostSpec>,
    /// How the energy of its GPUs is estimated; none where nobody asks.
    pub energy: Option<EnergySpec>,
    /// Seed of everything random.
    pub seed: u64,
}

/// A group of equal workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name, unique.
    pub name: String,
    /// What its workers do.
    pub role: Role,
    /// How many there are, at least one; with a planner, how many there are at the start.
    pub workers: u32,
    /// How a worker spreads over GPUs.
    pub parallel: Parallel,
    /// The model served, where the scenario says it.
    pub model: Option<Model>,
    /// The GPU, where the scenario says it.
    pub gpu: Option<Gpu>,
    /// Scheduler settings, KV blocks included.
    pub engine: EngineConfig,
    /// Where the number of KV blocks comes from.
    pub kv_blocks: KvBlocks,
    /// Storage of the KV cache.
    pub kv_cache: Precision,
    /// How long steps take.
    pub timing: TimingSpec,
    /// Share of a step that a draft takes to make; 0 without speculation.
    pub draft_share: f64,
    /// Why the roofline prices it and not measured tables, where nobody chose; absent otherwise.
    pub unmeasured: Option<String>,
    /// Tiers below its workers' KV caches; none where it has none.
    pub kvbm: Option<KvbmSpec>,
    /// Labels of its workers, in order, each once.
    pub taints: Vec<String>,
    /// Host memory that its engines use themselves; none where it has none.
    pub host: Option<HostSpec>,
}

/// What workers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Prefill and decode.
    Aggregated,
    /// Prompts only, for decode pools.
    Prefill,
    /// What comes after the prompt.
    Decode,
}

/// How a worker spreads over GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallel {
    /// GPUs that share every layer.
    pub tensor: u32,
    /// Groups of them over which whole experts are dealt out: 1, or as many as GPUs.
    pub expert: u32,
    /// Stages that each hold a part of the layers.
    pub pipeline: u32,
    /// Ranks that each hold attention and KV, and share the experts.
    pub data: u32,
}

/// Where the number of KV blocks comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvBlocks {
    /// The scenario says it.
    Given,
    /// From the memory of the GPU.
    Computed(KvCapacity),
    /// Neither is known: the default of the engine, a guess.
    Guessed,
}

/// Requests and how they are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadSpec {
    /// Where they come from.
    pub source: Source,
    /// What requests say about themselves where their source does not.
    pub annotations: Vec<SessionClass>,
    /// The workers that requests may name; absent where the router reads no names.
    pub workers: Option<WorkerNames>,
    /// How they are sent.
    pub load: Load,
}

/// Where requests come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A file.
    Trace(TraceSource),
    /// The generator.
    Synth(SynthSource),
}

/// A trace file and the part of it that is used.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSource {
    /// The file.
    pub path: PathBuf,
    /// Its format; `None` looks at the first line.
    pub format: Option<Format>,
    /// Tokens per content block; `None` takes the format's usual one.
    pub block_size: Option<u32>,
    /// Warnings are errors.
    pub is_strict: bool,
    /// Leave out what arrives before this time of the file.
    pub start: Option<Span>,
    /// Leave out what arrives at or after this time of the file.
    pub end: Option<Span>,
    /// Keep this share of the sessions.
    pub fraction: Option<f64>,
    /// Keep at most so many requests.
    pub limit: Option<u32>,
}

/// A made-up workload.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthSource {
    /// Its parameters.
    pub spec: SynthSpec,
    /// Prefix reuse to aim for, as a share of the blocks; `None` takes what comes.
    pub reuse: Option<f64>,
}

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Arrivals so many times faster than the source says.
    pub arrival_speedup_ratio: f64,
    /// Sessions in flight at once (closed loop); `None` sends at the source's times.
    pub concurrency: Option<u32>,
    /// Requests at the start that are served and not counted.
    pub warmup_requests: u32,
    /// No request is sent later than this.
    pub duration: Option<Span>,
}

impl WorkloadSpec {
    /// The traffic in one line: `trace.jsonl, at most 1000 requests; arrivals 2 times as fast`.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!("{}{}", self.source.in_words(), self.load.in_words())
    }
}

impl Source {
    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Source::Trace(trace) => trace.path.display().to_string(),
            Source::Synth(_) => "the generated requests".to_owned(),
        }
    }

    fn in_words(&self) -> String {
        match self {
            Source::Trace(trace) => {
                let parts = [
                    trace.start.map(|start| format!("from {} s", start.as_s())),
                    trace.end.map(|end| format!("to {} s", end.as_s())),
                    trace
                        .fraction
                        .map(|share| format!("{} % of its sessions", 100.0 * share)),
                    trace.limit.map(|most| format!("at most {most} requests")),
                ];
                let path = Some(trace.path.display().to_string());
                let all: Vec<String> = std::iter::once(path).chain(parts).flatten().collect();
                all.join(", ")
            }
            Source::Synth(SynthSource { spec, reuse }) => {
                let reuse = reuse.map_or(String::new(), |share| {
                    format!(" that reuse {} % of their blocks", 100.0 * share)
                });
                format!("{} generated requests{reuse}", spec.requests)
            }
        }
    }
}

impl Load {
    /// What differs from sending everything at the source's times, behind semicolons.
    fn in_words(&self) -> String {
        let ratio = self.arrival_speedup_ratio;
        let parts = [
            (ratio != 1.0).then(|| format!("arrivals {ratio} times as fast")),
            self.concurrency
                .map(|sessions| format!("closed loop of {sessions} sessions")),
            (self.warmup_requests > 0).then(|| format!("{} to warm up", self.warmup_requests)),
            self.duration
                .map(|end| format!("sent for {} s", end.as_s())),
        ];
        parts
            .into_iter()
            .flatten()
            .map(|part| format!("; {part}"))
            .collect()
    }
}

impl Default for Load {
    fn default() -> Self {
        Load {
            arrival_speedup_ratio: 1.0,
            concurrency: None,
            warmup_requests: 0,
            duration: None,
        }
    }
}

impl Scenario {
    /// Canonical text: equal for equal scenarios, different for different ones. For digests.
    #[must_use]
    pub fn canonical(&self) -> String {
        format!("{self:?}")
    }

    /// GPUs of the whole deployment.
    #[must_use]
    pub fn gpus(&self) -> u64 {
        self.pools
            .iter()
            .map(|pool| u64::from(pool.workers) * u64::from(pool.gpus_per_worker()))
            .sum()
    }

    /// What the numbers stand on that nobody said, one sentence each; timing models add their own.
    #[must_use]
    pub fn guesses(&self) -> Vec<String> {
        let pools = self.pools.iter().flat_map(Pool::guesses);
        let startup = self.planner.iter().filter_map(PlannerSpec::guesses);
        pools.chain(self.oracles()).chain(startup).collect()
    }

    /// Whether something knows more than a real system can.
    #[must_use]
    pub fn has_oracle(&self) -> bool {
        !self.oracles().is_empty()
    }

    /// What knows more than a real system can, one sentence each.
    #[must_use]
    pub fn oracles(&self) -> Vec<String> {
        let evicts = |pool: &&Pool| match &pool.engine {
            EngineConfig::Vllm(config) => config.eviction == Eviction::Belady,
            EngineConfig::Sglang(_) | EngineConfig::Trtllm(_) => false,
        };
        let eviction = self.pools.iter().filter(evicts).map(|pool| {
            let name = &pool.name;
            format!("pool {name}: an oracle evicts (belady): it knows all requests to come")
        });
        let router = (self.router == RouterSpec::Clairvoyant).then(|| {
            "an oracle routes (clairvoyant): it tries every worker before it chooses".to_owned()
        });
        let plans = |planner: &PlannerSpec| matches!(planner.policy, Policy::Oracle(_));
        let planner = self.planner.as_ref().filter(|planner| plans(planner));
        let planner = planner
            .map(|_| "an oracle plans (planner.policy: oracle): it knows all requests to come");
        let planner = planner.map(str::to_owned);
        eviction.chain(router).chain(planner).collect()
    }
}

impl Pool {
    /// GPUs of each worker.
    #[must_use]
    pub const fn gpus_per_worker(&self) -> u32 {
        let Parallel {
            tensor,
            pipeline,
            data,
            ..
        } = self.parallel;
        tensor * pipeline * data
    }

    /// As the cluster wants it.
    #[must_use]
    pub fn spec(&self) -> PoolSpec {
        PoolSpec {
            name: self.name.clone(),
            workers: self.workers,
            gpus_per_worker: self.gpus_per_worker(),
            engine: self.engine.clone(),
        }
    }

    /// The same, drafts accepted by the draws of `seed` where they are drawn.
    #[must_use]
    pub fn spec_with_draws(&self, seed: u64) -> PoolSpec {
        PoolSpec {
            engine: self.engine.clone().with_draws(seed),
            ..self.spec()
        }
    }

    /// What its timing model needs to know.
    #[must_use]
    pub fn context(&self) -> WorkerContext<'_> {
        WorkerContext {
            capacity_tokens: self.kv_blocks_as_counted().0 * u64::from(self.engine.block_size()),
            model: self.model.as_ref(),
            gpu: self.gpu.as_ref(),
            tensor_parallel: self.parallel.tensor,
            expert_parallel: self.parallel.expert,
            kv_cache: self.kv_cache,
            ranks: self.parallel.data,
        }
    }

    /// What moves between its stages, where that is known.
    #[must_use]
    pub fn hop(&self) -> Option<Hop> {
        let (model, gpu) = self.model.as_ref().zip(self.gpu.as_ref())?;
        Some(Hop {
            hidden: model.hidden,
            bytes_per_s: gpu.link_bytes_per_s.value,
        })
    }

    fn guesses(&self) -> impl Iterator<Item = String> {
        let unmeasured = self.unmeasured.as_ref().map(|why| {
            let name = &self.name;
            format!("pool {name}: not in the measured tables, so a roofline prices it: {why}")
        });
        unmeasured.into_iter().chain(self.guessed_blocks())
    }

    /// Tiers that bring nothing, one sentence each: KVBM wants each tier to be larger than the one above.
    #[must_use]
    pub fn useless_tiers(&self) -> Vec<String> {
        let mut above = (u64::from(self.engine.usable_blocks()), "the GPU's KV cache");
        let mut useless = Vec::new();
        // What is copied on eviction is not above any more.
        let written_through = self
            .kvbm
            .iter()
            .filter(|kvbm| kvbm.offload == OffloadPolicy::WriteThrough);
        for tier in written_through.flat_map(|kvbm| &kvbm.tiers) {
            let (name, workers) = (tier.medium.name(), u64::from(self.workers));
            // The object store is every worker's.
            let share = match tier.medium {
                Medium::Object(_) => above.0 * workers,
                Medium::Host | Medium::Disk(_) => above.0,
            };
            if tier.blocks <= share {
                useless.push(format!(
                    "pool {}: the {name} tier of {} blocks is no larger than {} of {share}: it brings next to nothing",
                    self.name, tier.blocks, above.1
                ));
            }
            above = (tier.blocks, name);
        }
        useless
    }

    /// KV blocks as the engine counts them, and what it calls that number.
    #[must_use]
    pub fn kv_blocks_as_counted(&self) -> (u64, &'static str) {
        match &self.engine {
            // The null block included.
            EngineConfig::Vllm(config) => (u64::from(config.num_gpu_blocks), "num_gpu_blocks"),
            EngineConfig::Sglang(_) => (u64::from(self.engine.usable_blocks()), "max_total_tokens"),
            EngineConfig::Trtllm(config) => (u64::from(config.num_blocks), "max_tokens"),
        }
    }

    fn guessed_blocks(&self) -> Option<String> {
        let (blocks, field) = self.kv_blocks_as_counted();
        let (name, tokens) = (&self.name, self.engine.block_size());
        let what = match (&self.engine, tokens) {
            (EngineConfig::Vllm(_) | EngineConfig::Trtllm(_), _) => {
                format!("{blocks} KV blocks of {tokens} tokens")
            }
            (EngineConfig::Sglang(_), 1) => format!("{blocks} tokens of KV"),
            (EngineConfig::Sglang(_), _) => format!("{blocks} KV pages of {tokens} tokens"),
        };
        match &self.kv_blocks {
            KvBlocks::Given => None,
            KvBlocks::Computed(_) => Some(format!(
                "pool {name}: {what} computed from GPU memory; an engine's own profile differs by a few per cent"
            )),
            KvBlocks::Guessed => Some(format!(
                "pool {name}: {what}, a default, as neither {field} nor model and gpu are given"
            )),
        }
    }
}

impl Load {
    /// As the cluster wants it; the arrival speed-up is applied to the trace.
    #[must_use]
    pub const fn spec(&self) -> LoadSpec {
        LoadSpec {
            concurrency: self.concurrency,
            warmup_requests: self.warmup_requests,
            duration: self.duration,
        }
    }
}
