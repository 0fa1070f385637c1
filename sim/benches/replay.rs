//! The cost of a replay on the virtual clock: an hour of traffic in long prompts, in the settings where it differs.
//!
//! `cargo bench -p sim --bench replay`
//!
//! Before the clock runs, a table of counts is printed that do not depend on the machine: events the driver handled,
//! engine steps they stand for, tokens generated. Cost follows the events. A made-up workload serves, and the Mooncake
//! conversation trace where a folder `shared/data/traces` lies beside the repository.

use calibration::{Polynomial, PolynomialSpec};
use divan::Bencher;
use divan::counter::ItemsCount;
use engine::sglang::{SglangConfig, SglangPolicy};
use engine::vllm::VllmConfig;
use engine::{EngineConfig, Span, StepTime, Time, Workload};
use sim::disaggregation::{DisaggregationSpec, HandoffOrder, Overlap, Role};
use sim::event::Event;
use sim::links::{NetworkSpec, Transport};
use sim::router::KvRouterSpec;
use sim::{Cluster, ClusterSpec, LoadSpec, PoolSpec, Recording, RouterSpec, virtual_clock};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use traces::{ReadOptions, SynthSpec};

/// Tokens of KV cache per worker, unless a case says less.
const POOL_TOKENS: u32 = 1 << 20;
const SEED: u64 = 1;

fn main() {
    for (name, workload) in [
        ("made-up", Some(&*MADE_UP)),
        ("conversation", TRACE.as_ref()),
    ] {
        match workload {
            Some(workload) => print_counts(name, workload),
            None => println!("{name}: no such file beside the repository, skipped\n"),
        }
    }
    divan::main();
}

static MADE_UP: LazyLock<Arc<Workload>> = LazyLock::new(|| {
    let trace = SynthSpec::conversation()
        .generate(SEED)
        .expect("the preset is a good one");
    Arc::new(trace.workload())
});

static TRACE: LazyLock<Option<Arc<Workload>>> = LazyLock::new(|| {
    let file = "../../shared/data/traces/mooncake_conversation_trace.jsonl";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let loaded = path
        .exists()
        .then(|| traces::read(&path, &ReadOptions::default()));
    loaded.map(|loaded| {
        Arc::new(
            loaded
                .expect("the public trace is well-formed")
                .trace
                .workload(),
        )
    })
});

/// One setting: a deployment and how fast requests come.
#[derive(Debug, Clone)]
struct Case {
    name: &'static str,
    workers: u32,
    block_size: u32,
    pool_tokens: u32,
    /// Arrivals come so many times faster.
    speedup: u64,
    router: RouterSpec,
    /// Workers run SGLang in this order, else vLLM.
    sglang: Option<SglangPolicy>,
    /// Half of the workers prefill, the other half decode.
    is_disaggregated: bool,
}

const BASE: Case = Case {
    name: "block 512",
    workers: 8,
    block_size: 512,
    pool_tokens: POOL_TOKENS,
    speedup: 1,
    router: RouterSpec::RoundRobin,
    sglang: None,
    is_disaggregated: false,
};

const SGLANG: Case = Case {
    name: "SGLang",
    block_size: 1,
    sglang: Some(SglangPolicy::Fcfs),
    ..BASE
};

impl Case {
    fn engine(&self) -> EngineConfig {
        match self.sglang {
            Some(schedule_policy) => EngineConfig::Sglang(SglangConfig {
                max_total_tokens: self.pool_tokens,
                page_size: self.block_size,
                schedule_policy,
                ..SglangConfig::default()
            }),
            None => EngineConfig::Vllm(VllmConfig {
                block_size: self.block_size,
                num_gpu_blocks: self.pool_tokens / self.block_size,
                async_scheduling: false,
                ..VllmConfig::default()
            }),
        }
    }
}

fn cases() -> [Case; 14] {
    let kv = RouterSpec::Kv(KvRouterSpec::default());
    [
        BASE,
        Case {
            name: "block 16",
            block_size: 16,
            ..BASE
        },
        Case {
            name: "2 workers",
            workers: 2,
            ..BASE
        },
        Case {
            name: "overloaded",
            speedup: 8,
            ..BASE
        },
        Case {
            name: "preempting",
            speedup: 8,
            pool_tokens: POOL_TOKENS / 8,
            ..BASE
        },
        Case {
            name: "kv router",
            router: kv.clone(),
            ..BASE
        },
        Case {
            name: "kv router, block 16",
            router: kv.clone(),
            block_size: 16,
            ..BASE
        },
        Case {
            name: "disaggregated",
            is_disaggregated: true,
            ..BASE
        },
        Case {
            name: "disaggregated, kv",
            is_disaggregated: true,
            router: kv.clone(),
            ..BASE
        },
        SGLANG,
        Case {
            name: "SGLang, lpm",
            sglang: Some(SglangPolicy::Lpm),
            ..SGLANG
        },
        Case {
            name: "SGLang, overloaded",
            speedup: 8,
            ..SGLANG
        },
        Case {
            name: "SGLang, lpm, overloaded",
            speedup: 8,
            sglang: Some(SglangPolicy::Lpm),
            ..SGLANG
        },
        Case {
            name: "SGLang, kv router, page 16",
            router: kv.clone(),
            block_size: 16,
            ..SGLANG
        },
    ]
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A case ready to run, as often as wanted.
struct Replay {
    cluster: Cluster,
    /// By pool.
    timing: Vec<Arc<dyn StepTime>>,
}

impl Replay {
    fn new(case: &Case, workload: &Arc<Workload>) -> Replay {
        let timing = Polynomial::new(PolynomialSpec::default(), u64::from(case.pool_tokens));
        let pool = |name: &str, workers: u32| PoolSpec {
            name: name.to_owned(),
            workers,
            gpus_per_worker: 1,
            engine: case.engine(),
        };
        let half = case.workers / 2;
        let spec = ClusterSpec {
            pools: match case.is_disaggregated {
                false => vec![pool("aggregated", case.workers)],
                true => vec![pool("prefill", half), pool("decode", half)],
            },
            router: case.router.clone(),
            load: LoadSpec::default(),
            frontend: sim::FrontendSpec::default(),
            seed: SEED,
            coasting: true,
            disaggregation: case.is_disaggregated.then(handover),
            track_block_ids: false,
        };
        let timing: Arc<dyn StepTime> =
            Arc::new(timing.expect("the default curve fits every pool of the cases"));
        Replay {
            cluster: Cluster::new(&spec, sped_up(workload, case.speedup)),
            timing: vec![timing; spec.pools.len()],
        }
    }
}

/// vLLM's order over one port of InfiniBand NDR each; KV of Llama-3.1-8B.
fn handover() -> DisaggregationSpec {
    let transport = Transport::InfinibandNdr.preset();
    DisaggregationSpec {
        roles: vec![Role::Prefill, Role::Decode],
        order: HandoffOrder::SourceFirst,
        conditional: None,
        network: NetworkSpec {
            bytes_per_s: transport.bytes_per_s,
            per_gpu: false,
            core_bytes_per_s: None,
            latency: transport.latency,
            setup: Span::ZERO,
        },
        overlap: Overlap::Chunk,
        topology: None,
        domain: None,
        kv_bytes_per_token: 131_072,
        failure_rate: 0.0,
    }
}

fn sped_up(workload: &Arc<Workload>, speedup: u64) -> Arc<Workload> {
    let mut workload = workload.clone();
    if speedup != 1 {
        for request in &mut Arc::make_mut(&mut workload).requests {
            request.arrival = Time(request.arrival.0 / speedup);
        }
    }
    workload
}

#[divan::bench(args = cases())]
fn made_up(bencher: Bencher<'_, '_>, case: &Case) {
    measure(bencher, case, &MADE_UP);
}

#[divan::bench(args = TRACE.iter().flat_map(|_| cases()))]
fn conversation_trace(bencher: Bencher<'_, '_>, case: &Case) {
    let workload = TRACE
        .as_ref()
        .expect("there are no cases without the trace");
    measure(bencher, case, workload);
}

fn measure(bencher: Bencher<'_, '_>, case: &Case, workload: &Arc<Workload>) {
    let replay = Replay::new(case, workload);
    bencher
        .counter(ItemsCount::new(workload.requests.len()))
        .with_inputs(|| replay.cluster.clone())
        .bench_local_values(|cluster| virtual_clock::run(cluster, &replay.timing));
}

/// What a replay amounts to; the same on every machine.
#[derive(Debug, Default)]
struct Counts {
    arrivals: u64,
    plans: u64,
    /// Ends of runs of steps.
    runs: u64,
    steps: u64,
}

impl Counts {
    fn of(replay: &Replay) -> (Counts, Recording) {
        let mut counts = Counts::default();
        let recording =
            virtual_clock::run_observed(replay.cluster.clone(), &replay.timing, |_, event, _| {
                match event {
                    Event::Arrival { .. } => counts.arrivals += 1,
                    Event::Received { .. }
                    | Event::Links
                    | Event::Began { .. }
                    | Event::Worker { .. }
                    | Event::Fault { .. }
                    | Event::Patience { .. }
                    | Event::Tick
                    | Event::Update => {}
                    Event::Plan { .. } => counts.plans += 1,
                    Event::Ran(ran) => {
                        counts.runs += 1;
                        counts.steps += u64::from(ran.steps);
                    }
                }
            });
        (counts, recording)
    }
}

fn print_counts(name: &str, workload: &Arc<Workload>) {
    println!("{name}: {} requests", workload.requests.len());
    println!(
        "{:>20} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>10} {:>8}",
        "", "arrivals", "plans", "runs", "events", "steps", "tokens", "preempted", "refused"
    );
    for case in cases() {
        let (counts, recording) = Counts::of(&Replay::new(&case, workload));
        let Counts {
            arrivals,
            plans,
            runs,
            steps,
        } = counts;
        let tokens: u64 = recording
            .requests
            .iter()
            .map(|record| u64::from(record.output_tokens))
            .sum();
        let preemptions: u64 = recording
            .requests
            .iter()
            .map(|record| u64::from(record.preemptions))
            .sum();
        let is_refused =
            |record: &&sim::RequestRecord| matches!(record.outcome, sim::Outcome::Rejected(_));
        let refused = recording.requests.iter().filter(is_refused).count();
        let events = arrivals + plans + runs;
        println!(
            "{:>20} {arrivals:>9} {plans:>9} {runs:>9} {events:>9} {steps:>10} {tokens:>10} {preemptions:>10} {refused:>8}",
            case.name
        );
    }
    println!();
}
