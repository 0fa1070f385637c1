//! The simulator under test on the oracle's scenarios.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use calibration::Linear;
use engine::vllm::{Eviction, SchedulingPolicy, VllmConfig, VllmVersion};
use engine::{
    AcceptanceMode, Dependency, DraftMethod, NewAhead, NewRequest, RequestId, Run, Span,
    Speculation, StepTime, Time, Trigger, Workload, WorkloadBuilder,
};
use sim::event::{Action, Event};
use sim::journal::{Entry, Journal};
use sim::router::KvRouterSpec;
use sim::router::cost::CostWeights;
use sim::{
    AdversitySpec, Cluster, ClusterSpec, GapRun, HostSpec, KvbmSpec, LoadSpec, PoolSpec, Recording,
    RouterSpec, ScalingSpec, virtual_clock,
};

use crate::oracle;
use crate::oracle::dice::Dice;
use crate::oracle::scenario::{
    Engine, Moment, Policy, Request, Router, Scenario, Segment, Version,
};

/// More events than any of our scenarios can have.
const TOO_MANY_EVENTS: u64 = 5_000_000;

/// All that a run needs.
#[derive(Clone)]
pub struct Case {
    pub spec: ClusterSpec,
    pub workload: Arc<Workload>,
    /// By pool.
    pub timing: Vec<Arc<dyn StepTime>>,
    /// By pool: tiers below the GPUs; empty where no pool has any.
    pub kvbm: Vec<Option<KvbmSpec>>,
    /// By pool: labels of its workers; empty where no pool has any.
    pub taints: Vec<Vec<String>>,
    /// By pool: host memory that SGLang uses; empty where no pool has any.
    pub hosts: Vec<Option<HostSpec>>,
    /// What goes wrong.
    pub adversity: AdversitySpec,
    /// A planner; the workers of the pools are then places.
    pub scaling: Option<ScalingSpec>,
}

impl Case {
    /// A scenario of the oracle, coasting.
    pub fn of(scenario: &Scenario) -> Case {
        Case {
            kvbm: Vec::new(),
            taints: Vec::new(),
            hosts: Vec::new(),
            adversity: AdversitySpec::default(),
            scaling: None,
            spec: spec(scenario),
            workload: workload(scenario),
            timing: vec![timing(scenario)],
        }
    }

    /// The same without coasting.
    pub fn stepping(&self) -> Case {
        let mut case = self.clone();
        case.spec.coasting = false;
        case
    }

    /// Before the start.
    pub fn cluster(&self) -> Cluster {
        let pools = self.spec.pools.len();
        let mut kvbm = self.kvbm.clone();
        kvbm.resize(pools, None);
        let mut hosts = self.hosts.clone();
        hosts.resize(pools, None);
        let workload = self.workload.clone();
        let cluster = if self.adversity.is_nothing() {
            Cluster::with_tiers(&self.spec, &kvbm, &hosts, workload)
        } else {
            Cluster::with_adversity(&self.spec, &kvbm, &self.adversity, workload)
        };
        let cluster = match self.taints.is_empty() {
            true => cluster,
            false => cluster.tainted(&self.taints),
        };
        let cluster = cluster.timed(&self.timing);
        match &self.scaling {
            Some(scaling) => cluster.scaled(scaling.clone(), &self.spec.router),
            None => cluster,
        }
    }

    /// Runs to the end; panics rather than run for ever.
    pub fn run(&self) -> Recording {
        self.run_observed(|_, _, _| {})
    }

    /// The same, keeping every event.
    pub fn journal(&self) -> (Journal, Recording) {
        let mut journal = Journal::default();
        self.cluster().start(&mut journal.opening);
        let recording = self.run_observed(|time, event, actions| {
            journal.entries.push(Entry {
                time,
                event,
                actions: actions.to_vec(),
            });
        });
        (journal, recording)
    }

    /// The same, calling `observe` with every event and the actions it led to.
    pub fn run_observed(&self, mut observe: impl FnMut(Time, Event, &[Action])) -> Recording {
        let mut events = 0;
        virtual_clock::run_observed(self.cluster(), &self.timing, |now, event, actions| {
            events += 1;
            assert!(events < TOO_MANY_EVENTS, "the run has an end");
            observe(now, event, actions);
        })
    }
}

/// The deployment and the load.
fn spec(scenario: &Scenario) -> ClusterSpec {
    ClusterSpec {
        pools: vec![PoolSpec {
            name: "all".to_owned(),
            workers: scenario.workers as u32,
            gpus_per_worker: (scenario.engine.stages * scenario.engine.ranks) as u32,
            engine: config(&scenario.engine).into(),
        }],
        router: match scenario.router {
            Router::RoundRobin => RouterSpec::RoundRobin,
            Router::LeastLoaded => RouterSpec::LeastLoaded,
            Router::Random => RouterSpec::Random,
            Router::PowerOfTwo => RouterSpec::PowerOfTwo,
            Router::Kv { credit, scale } => RouterSpec::Kv(KvRouterSpec {
                weights: CostWeights {
                    overlap_score_credit: credit,
                    prefill_load_scale: scale,
                    ..CostWeights::default()
                },
                ..KvRouterSpec::default()
            }),
        },
        load: LoadSpec {
            concurrency: scenario.concurrency.map(|sessions| sessions as u32),
            warmup_requests: scenario.warmup_requests as u32,
            duration: scenario.duration_ns.map(Span::from_ns),
        },
        frontend: sim::FrontendSpec::default(),
        seed: scenario.seed,
        coasting: true,
        disaggregation: None,
        track_block_ids: false,
    }
}

/// Settings of a worker.
pub fn config(engine: &Engine) -> VllmConfig {
    VllmConfig {
        version: match engine.version {
            Version::V0_32 => VllmVersion::V0_32,
            Version::V0_33 => VllmVersion::V0_33,
        },
        block_size: engine.block_size as u32,
        num_gpu_blocks: engine.num_gpu_blocks as u32,
        max_num_seqs: engine.max_num_seqs as u32,
        max_num_batched_tokens: engine.max_num_batched_tokens as u32,
        max_model_len: engine.max_model_len as u32,
        enable_prefix_caching: engine.enable_prefix_caching,
        enable_chunked_prefill: engine.enable_chunked_prefill,
        long_prefill_token_threshold: engine.long_prefill_token_threshold as u32,
        long_prefill_token_threshold_adaptive: engine.long_prefill_token_threshold_adaptive,
        scheduler_reserve_full_isl: engine.scheduler_reserve_full_isl,
        max_num_active_seqs: engine.max_num_active_seqs.map(|sequences| sequences as u32),
        policy: match engine.policy {
            Policy::Fcfs => SchedulingPolicy::Fcfs,
            Policy::Priority => SchedulingPolicy::Priority,
        },
        watermark: engine.watermark,
        async_scheduling: engine.async_scheduling,
        pipeline_parallel_size: engine.stages as u32,
        data_parallel_size: engine.ranks as u32,
        speculation: engine.speculation.as_ref().map(speculation),
        eviction: Eviction::Lru,
    }
}

fn speculation(speculation: &oracle::scenario::Speculation) -> Speculation {
    Speculation {
        method: match (speculation.reads_hidden_states, speculation.has_kv) {
            (true, _) => DraftMethod::Eagle,
            (false, true) => DraftMethod::DraftModel,
            (false, false) => DraftMethod::Ngram,
        },
        num_speculative_tokens: speculation.rates.len() as u32,
        acceptance_rates: speculation.rates.clone(),
        mode: if speculation.is_expected {
            AcceptanceMode::Expected
        } else {
            AcceptanceMode::Sampled {
                seed: speculation.seed,
            }
        },
    }
}

/// How long a step takes.
fn timing(scenario: &Scenario) -> Arc<dyn StepTime> {
    let cost = scenario.cost;
    Arc::new(Linear::from_ns(cost.a, cost.b, cost.c))
}

/// The requests; they keep their numbers.
fn workload(scenario: &Scenario) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    for request in &scenario.requests {
        push(&mut builder, request);
    }
    assert!(
        scenario
            .requests
            .is_sorted_by_key(|request| request.arrival_ns),
        "a workload is sorted by arrival, and requests are to keep their numbers"
    );
    Arc::new(builder.finish())
}

/// The same, and after some answers the front end sends the prompt and the answer ahead of the first who waits for it.
pub fn workload_sent_ahead(scenario: &Scenario, dice: &mut Dice) -> Arc<Workload> {
    let mut builder = WorkloadBuilder::new();
    let mut prompts = Vec::new();
    for request in &scenario.requests {
        prompts.push(push(&mut builder, request));
    }
    for (of, request) in (0u32..).zip(&scenario.requests) {
        if dice.chance(40) {
            prompts[of as usize].push(Run {
                first: WorkloadBuilder::output_token(of, 0),
                len: request.output_len as u32,
            });
            let waits = |request: &Request| request.after.iter().any(|it| it.on == of as usize);
            let next = scenario.requests.iter().position(waits);
            builder.push_ahead(NewAhead {
                of,
                next: next.map(|next| next as u32),
                prompt: &prompts[of as usize],
            });
        }
    }
    Arc::new(builder.finish())
}

fn push(builder: &mut WorkloadBuilder, request: &Request) -> Vec<Run> {
    let run = |segment: &Segment| match *segment {
        Segment::Content { id, len } => Run {
            first: WorkloadBuilder::block_token(id as u32, 0),
            len: len as u32,
        },
        Segment::Output { request, len } => Run {
            first: WorkloadBuilder::output_token(request as u32, 0),
            len: len as u32,
        },
    };
    let prompt: Vec<Run> = request.prompt.iter().map(run).collect();
    let dependencies: Vec<Dependency> = request
        .after
        .iter()
        .map(|dependency| Dependency {
            on: RequestId(dependency.on as u32),
            trigger: match dependency.moment {
                Moment::Sent => Trigger::Dispatch,
                Moment::Finished => Trigger::Completion,
            },
            delay: Span::from_ns(dependency.delay_ns),
        })
        .collect();
    builder.push(NewRequest {
        arrival: Time::from_ns(request.arrival_ns),
        prompt: &prompt,
        output_tokens: request.output_len as u32,
        priority: i32::try_from(request.priority).expect("priorities are small"),
        session: request.session as u32,
        dependencies: &dependencies,
    });
    prompt
}

/// How often each gap between two tokens of a request occurred.
pub fn gap_counts(gaps: &[GapRun]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for run in gaps {
        for step in 0..i64::from(run.steps) {
            let gap = run.first.0 as i64 + run.slope_ps * step;
            *counts.entry(gap as u64).or_default() += u64::from(run.sequences);
        }
    }
    counts
}

/// The first difference between two recordings, however their gaps are cut into runs.
pub fn difference(a: &Recording, b: &Recording) -> Option<String> {
    let (gaps_a, gaps_b) = (gap_counts(&a.gaps), gap_counts(&b.gaps));
    first_difference("request", &a.requests, &b.requests)
        .or_else(|| first_difference("request of the front end", &a.ahead, &b.ahead))
        .or_else(|| first_difference("worker", &a.workers, &b.workers))
        .or_else(|| first_difference("transfer", &a.transfers, &b.transfers))
        .or_else(|| (a.kvbm != b.kvbm).then(|| format!("tiers: {:?} or {:?}", a.kvbm, b.kvbm)))
        .or_else(|| {
            let differ = a.adversity != b.adversity;
            differ.then(|| format!("adversity: {:?} or {:?}", a.adversity, b.adversity))
        })
        .or_else(|| {
            let [a, b] = [&a.scaling, &b.scaling];
            (a != b).then(|| format!("scaling:\n  {a:?}\n  {b:?}"))
        })
        .or_else(|| {
            (gaps_a != gaps_b).then(|| format!("gaps (ps: count):\n  {gaps_a:?}\n  {gaps_b:?}"))
        })
}

/// The first place at which two lists of equal length differ.
pub fn first_difference<T: PartialEq + Debug>(what: &str, a: &[T], b: &[T]) -> Option<String> {
    assert!(a.len() == b.len(), "as many of each on both sides");
    let index = (0..a.len()).find(|&index| a[index] != b[index])?;
    Some(format!(
        "{what} {index}:\n  {:?}\n  {:?}",
        a[index], b[index]
    ))
}
