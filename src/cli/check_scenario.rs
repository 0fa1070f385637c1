//! `dynosim check-scenario`: all that is wrong with a scenario, or all that follows from it.
//!
//! Judged are the deployment, its traffic (the trace is read, the generator run) and every value of the section `sweep`.
//! Nothing is simulated.

mod adversity;
mod costs;
mod disaggregation;
mod host_memory;
mod kvbm;
mod planner;

use super::replay::{FieldArgs, load_scenario};
use super::sweep::count_points;
use super::{Failure, print};
use clap::Args;
use engine::sglang::{SglangConfig, SglangPolicy};
use engine::trtllm::{CapacityPolicy, TrtllmConfig};
use engine::vllm::{Eviction, VllmConfig};
use engine::{EngineConfig, Speculation, TimingSource};
use serde_json::{Value, json};
use sim::RouterSpec;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use sweeps::scenario::{KvBlocks, Pool, Role, Scenario};
use sweeps::simulate::{Simulation, Steps};
use sweeps::workloads::{self, Loaded};

/// Judge a scenario and print what follows from it: KV blocks, timing, traffic, guesses.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dynosim check-scenario scenario.yaml --workers 4")]
pub struct CheckArgs {
    /// Scenario file (YAML)
    scenario: PathBuf,
    #[command(flatten)]
    fields: FieldArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What follows from a scenario.
struct Resolved {
    scenario: Scenario,
    traffic: Loaded,
    /// By pool.
    timing: Vec<TimingSource>,
    guesses: Vec<String>,
    /// Points of the section `sweep`.
    points: usize,
}

pub fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let resolved = resolve(args)?;
    let name = args.scenario.display().to_string();
    print(&if args.json {
        format!("{:#}\n", resolved.json(&name))
    } else {
        resolved.text(&name)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reads everything; what several readers find is told once.
fn resolve(args: &CheckArgs) -> Result<Resolved, Failure> {
    let scenario = args
        .fields
        .overrides()
        .and_then(|overrides| load_scenario(&args.scenario, &overrides));
    let points = count_points(&args.scenario, &args.fields);
    let traffic = match &scenario {
        Ok(scenario) => workloads::make(&scenario.workload, scenario.seed).map_err(Failure::input),
        Err(_) => Err(Failure::input([])),
    };
    let (scenario, points, traffic) = match (scenario, points, traffic) {
        (Ok(scenario), Ok(points), Ok(traffic)) => (scenario, points, traffic),
        (scenario, points, traffic) => {
            let failures = [scenario.err(), points.err(), traffic.err()];
            let mut told: Vec<String> = Vec::new();
            for message in failures.into_iter().flatten().flat_map(|one| one.messages) {
                for line in message.lines() {
                    if told.iter().all(|other| other != line) {
                        told.push(line.to_owned());
                    }
                }
            }
            return Err(Failure::input(told));
        }
    };
    let failed = |error: calibration::CalibrationError| Failure::input([error.to_string()]);
    let simulation = Simulation::new(&scenario, &traffic, Steps::Coasting).map_err(failed)?;
    let timing = |pool: &Pool| Ok(pool.timing.compile(&pool.context())?.source());
    let timing: Result<_, _> = scenario.pools.iter().map(timing).collect();
    Ok(Resolved {
        timing: timing.map_err(failed)?,
        guesses: simulation.timing_source().guesses.clone(),
        scenario,
        traffic,
        points,
    })
}

impl Resolved {
    fn text(&self, name: &str) -> String {
        let mut text = format!("{name}: nothing is wrong with it\n\n");
        let mut line = |topic: &str, words: String| {
            writeln!(text, "{topic:<16}{words}").expect("writing to a string cannot fail");
        };
        let requests = self.traffic.workload.of_clients();
        let traffic = self.scenario.workload.in_words();
        line("Workload", format!("{traffic} ({requests} requests)"));
        for (pool, timing) in self.scenario.pools.iter().zip(&self.timing) {
            line(&format!("Pool {}", pool.name), hardware(pool));
            line("  Engine", engine(&pool.engine));
            if let Some(words) = spread(pool) {
                line("  Steps", words);
            }
            line("  KV cache", kv_cache(pool));
            if let Some(spec) = &pool.kvbm {
                line("  KVBM", kvbm::in_words(spec));
            }
            if let Some(spec) = &pool.host {
                line("  Host memory", host_memory::in_words(spec));
            }
            if !pool.taints.is_empty() {
                line("  Taints", pool.taints.join(", "));
            }
            let TimingSource { name, detail, .. } = timing;
            let basis = timing.basis.name();
            line("  Timing", format!("{name} ({basis}): {detail}"));
        }
        line("GPUs", self.scenario.gpus().to_string());
        line("Router", router(&self.scenario.router));
        if let Some(spec) = &self.scenario.disaggregation {
            line("Handover", disaggregation::handover(spec));
            line("Network", disaggregation::network(spec));
        }
        for (topic, words) in adversity::in_words(&self.scenario.adversity) {
            line(topic, words);
        }
        if let Some(spec) = &self.scenario.planner {
            line("Planner", planner::in_words(spec, &self.scenario.pools));
            line("Start-up", planner::startup(spec));
        }
        if let Some(spec) = &self.scenario.costs {
            line("Prices", costs::in_words(spec));
        }
        if let Some(spec) = &self.scenario.energy {
            let names = self.scenario.pools.iter().map(|pool| pool.name.as_str());
            line("Energy", costs::power(spec, &names.collect::<Vec<_>>()));
        }
        line("SLA", sla(&self.scenario));
        line("Seed", self.scenario.seed.to_string());
        line("Sweep", format!("{} points", self.points));
        for warning in self.scenario.pools.iter().flat_map(Pool::useless_tiers) {
            line("Warning", warning);
        }
        for guess in &self.guesses {
            line("Stands on", guess.clone());
        }
        text
    }

    fn json(&self, name: &str) -> Value {
        let pool = |(pool, timing): (&Pool, &TimingSource)| {
            let (source, basis) = (&timing.name, timing.basis.name());
            let mut json = json!({
                "name": pool.name, "role": role(pool), "workers": pool.workers, "gpus_per_worker": pool.gpus_per_worker(),
                "model": pool.model.as_ref().map(|model| &model.id), "gpu": pool.gpu.map(|gpu| gpu.name),
                "backend": pool.engine.backend(), "kv_tokens": pool.engine.usable_tokens(),
                "kvbm": pool.kvbm.as_ref().map(kvbm::json), "taints": pool.taints,
                "host_memory": pool.host.as_ref().map(host_memory::json),
                "timing": { "source": source, "basis": basis, "detail": timing.detail },
            });
            let own = engine_json(pool);
            let (Value::Object(all), Value::Object(own)) = (&mut json, own) else {
                unreachable!("both are written as objects");
            };
            all.extend(own);
            json
        };
        let pools = self.scenario.pools.iter().zip(&self.timing);
        json!({
            "scenario": name, "workload": self.scenario.workload.in_words(),
            "requests": self.traffic.workload.of_clients(), "workload_digest": self.traffic.digest.to_string(),
            "warnings": self.traffic.warnings,
            "useless_tiers": self.scenario.pools.iter().flat_map(Pool::useless_tiers).collect::<Vec<_>>(), "pools": pools.map(pool).collect::<Vec<_>>(),
            "disaggregation": self.scenario.disaggregation.as_ref().map(disaggregation::json),
            "adversity": adversity::json(&self.scenario.adversity),
            "planner": self.scenario.planner.as_ref().map(|spec| planner::json(spec, &self.scenario.pools)),
            "costs": self.scenario.costs.as_ref().map(costs::json), "energy": self.scenario.energy.as_ref().map(costs::energy_json),
            "gpus": self.scenario.gpus(), "router": router(&self.scenario.router),
            "ttft_ms": self.scenario.sla.and_then(|sla| sla.ttft_ms), "itl_ms": self.scenario.sla.and_then(|sla| sla.itl_ms),
            "seed": self.scenario.seed, "sweep_points": self.points, "guesses": self.guesses,
        })
    }
}

fn counted(count: u32, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn hardware(pool: &Pool) -> String {
    let gpu = pool.gpu.map_or("GPU not named", |gpu| gpu.name);
    let worker = match pool.role {
        Role::Aggregated => "worker",
        Role::Prefill => "prefill worker",
        Role::Decode => "decode worker",
    };
    let model = pool.model.as_ref().map(|model| model.id.as_str());
    format!(
        "{} of {} ({gpu}), {}",
        counted(pool.workers, worker),
        counted(pool.gpus_per_worker(), "GPU"),
        model.unwrap_or("model not named")
    )
}

/// Stages, ranks and drafts, if there are any.
fn spread(pool: &Pool) -> Option<String> {
    let drafts = |speculation: &Speculation| {
        format!(
            "{} of which {:.2} tokens come on the mean, each made in {:.4} of a step",
            counted(speculation.num_speculative_tokens, "draft"),
            speculation.acceptance_length(),
            pool.draft_share
        )
    };
    let (stages, ranks) = (pool.engine.stages(), pool.engine.ranks());
    let parts = [
        (stages > 1).then(|| format!("{stages} stages")),
        (ranks > 1).then(|| format!("{ranks} ranks with such a KV cache each")),
        pool.engine.speculation().map(drafts),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Settings under the names of the engine's own options.
fn engine_json(pool: &Pool) -> Value {
    let longest = pool.engine.longest_sequence();
    match &pool.engine {
        EngineConfig::Vllm(config) => json!({
            "block_size": config.block_size, "num_gpu_blocks": config.num_gpu_blocks,
            "num_gpu_blocks_from": blocks_from(pool),
            "max_num_seqs": config.max_num_seqs, "max_num_batched_tokens": config.max_num_batched_tokens,
            "max_model_len": longest,
        }),
        EngineConfig::Sglang(config) => json!({
            "page_size": config.page_size, "max_total_tokens": config.max_total_tokens,
            "max_total_tokens_from": blocks_from(pool),
            "max_running_requests": config.max_running_requests,
            "chunked_prefill_size": config.chunked_prefill_size, "max_prefill_tokens": config.max_prefill_tokens,
            "schedule_policy": policy(config), "context_length": longest,
        }),
        EngineConfig::Trtllm(config) => json!({
            "tokens_per_block": config.tokens_per_block, "max_tokens": pool.engine.usable_tokens(),
            "max_tokens_from": blocks_from(pool),
            "max_batch_size": config.max_batch_size, "max_num_tokens": config.max_num_tokens,
            "capacity_scheduler_policy": capacity_policy(config), "max_seq_len": longest,
        }),
    }
}

fn engine(config: &EngineConfig) -> String {
    let length = config.longest_sequence();
    let length = length.map_or("none".to_owned(), |length| length.to_string());
    match config {
        EngineConfig::Vllm(config) => vllm(config, &length),
        EngineConfig::Sglang(config) => sglang(config, &length),
        EngineConfig::Trtllm(config) => trtllm(config, &length),
    }
}

fn on(flag: bool) -> &'static str {
    if flag { "on" } else { "off" }
}

fn vllm(config: &VllmConfig, length: &str) -> String {
    let oracle = match config.eviction {
        Eviction::Lru => "",
        Eviction::Belady => ", evicting as Belady, an oracle",
    };
    format!(
        "vLLM: block_size {}, max_num_seqs {}, max_num_batched_tokens {}, max_model_len {length}, prefix caching {}, \
         chunked prefill {}, asynchronous {}{oracle}",
        config.block_size,
        config.max_num_seqs,
        config.max_num_batched_tokens,
        on(config.enable_prefix_caching),
        on(config.enable_chunked_prefill),
        on(config.async_scheduling),
    )
}

fn sglang(config: &SglangConfig, length: &str) -> String {
    let chunk = config.chunked_prefill_size;
    format!(
        "SGLang: page_size {}, max_running_requests {}, chunked_prefill_size {}, max_prefill_tokens {}, context_length \
         {length}, schedule_policy {}, radix cache {}, mixed chunks {}, overlap off",
        config.page_size,
        config.max_running_requests,
        chunk.map_or("off".to_owned(), |size| size.to_string()),
        config.max_prefill_tokens,
        policy(config),
        on(!config.disable_radix_cache),
        on(config.mixed_chunk),
    )
}

fn trtllm(config: &TrtllmConfig, length: &str) -> String {
    format!(
        "TensorRT-LLM: tokens_per_block {}, max_batch_size {}, max_num_tokens {}, max_seq_len {length}, {}, block reuse {}, \
         chunked prefill {}, overlap off",
        config.tokens_per_block,
        config.max_batch_size,
        config.max_num_tokens,
        capacity_policy(config),
        on(config.enable_block_reuse),
        on(config.enable_chunked_prefill),
    )
}

fn capacity_policy(config: &TrtllmConfig) -> &'static str {
    match config.capacity_scheduler_policy {
        CapacityPolicy::GuaranteedNoEvict => "GUARANTEED_NO_EVICT",
        CapacityPolicy::MaxUtilization => "MAX_UTILIZATION",
    }
}

fn policy(config: &SglangConfig) -> &'static str {
    match config.schedule_policy {
        SglangPolicy::Fcfs => "fcfs",
        SglangPolicy::Lpm => "lpm",
        SglangPolicy::DfsWeight => "dfs-weight",
    }
}

fn blocks_from(pool: &Pool) -> &'static str {
    match pool.kv_blocks {
        KvBlocks::Given => "given",
        KvBlocks::Computed(_) => "computed from the GPU's memory",
        KvBlocks::Guessed => "the engine's default, a guess",
    }
}

fn kv_cache(pool: &Pool) -> String {
    let (tokens, blocks) = (pool.engine.usable_tokens(), pool.engine.usable_blocks());
    let from = blocks_from(pool);
    match &pool.engine {
        EngineConfig::Vllm(_) => {
            format!("{tokens} tokens in {blocks} blocks and the null block ({from})")
        }
        EngineConfig::Trtllm(_) => format!("{tokens} tokens in {blocks} blocks ({from})"),
        EngineConfig::Sglang(config) => {
            format!("{tokens} tokens in pages of {} ({from})", config.page_size)
        }
    }
}

fn role(pool: &Pool) -> &'static str {
    match pool.role {
        Role::Aggregated => "aggregated",
        Role::Prefill => "prefill",
        Role::Decode => "decode",
    }
}

fn router(spec: &RouterSpec) -> String {
    match spec {
        RouterSpec::RoundRobin => "round-robin".to_owned(),
        RouterSpec::Random => "random".to_owned(),
        RouterSpec::LeastLoaded => "least-loaded".to_owned(),
        RouterSpec::PowerOfTwo => "power-of-two".to_owned(),
        RouterSpec::DeviceAwareWeighted { ratio } => {
            format!("device-aware-weighted, GPU workers count {ratio} times")
        }
        RouterSpec::SessionAffinity { ttl } => {
            format!("session-affinity for {} s", ttl.0 / 1_000_000_000_000)
        }
        RouterSpec::Direct => "direct: requests name their workers".to_owned(),
        RouterSpec::Clairvoyant => "clairvoyant, an oracle".to_owned(),
        RouterSpec::Kv(kv) => format!(
            "kv, overlap_score_credit {}, prefill_load_scale {}",
            kv.weights.overlap_score_credit, kv.weights.prefill_load_scale
        ),
    }
}

fn sla(scenario: &Scenario) -> String {
    let Some(sla) = scenario.sla else {
        return "none".to_owned();
    };
    let bound = |name: &str, ms: Option<f64>| ms.map(|ms| format!("{name} within {ms} ms"));
    let bounds = [bound("TTFT", sla.ttft_ms), bound("TPOT", sla.itl_ms)];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    bounds.join(", ")
}
