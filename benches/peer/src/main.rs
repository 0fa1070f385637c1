//! Replays a Mooncake trace with dynamo-mocker 1.6.1 (vLLM, aggregated workers) and prints its report as JSON.
//!
//! All options but those of [`USAGE`] keep the reference's defaults: polynomial timing, 256 sequences, 8192 batched
//! tokens, prefix caching and chunked prefill on.

use dynamo_mocker::config::MockerConfig;
use dynamo_mocker::loadgen::{Trace, TraceFileFormat};
use dynamo_mocker::replay::{
    ReplayRouterMode, SlaThresholds, TraceSimulationReport,
    simulate_loaded_trace_with_router_mode_and_options,
    simulate_trace_file_with_router_mode_and_format,
};
use serde_json::json;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

const USAGE: &str = "peer --trace FILE [--workers 8] [--router round-robin|kv] [--block-size 512] \
                     [--num-gpu-blocks 2048] [--arrival-speedup-ratio 1] [--compact]";

/// Tokens per block of the Mooncake traces.
const TRACE_BLOCK_SIZE: usize = 512;

struct Options {
    trace: PathBuf,
    workers: usize,
    router: ReplayRouterMode,
    block_size: usize,
    num_gpu_blocks: usize,
    arrival_speedup_ratio: f64,
    /// Load the trace first and hand it over, which spares the tokens of all prompts; slower and much smaller.
    is_compact: bool,
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            trace: PathBuf::new(),
            workers: 8,
            router: ReplayRouterMode::RoundRobin,
            block_size: 512,
            num_gpu_blocks: 2048,
            arrival_speedup_ratio: 1.0,
            is_compact: false,
        };
        while let Some(flag) = words.next() {
            if flag == "--compact" {
                options.is_compact = true;
                continue;
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{flag}: expected a value"))?;
            match flag.as_str() {
                "--trace" => options.trace = value.into(),
                "--workers" => options.workers = number(&flag, &value)?,
                "--block-size" => options.block_size = number(&flag, &value)?,
                "--num-gpu-blocks" => options.num_gpu_blocks = number(&flag, &value)?,
                "--arrival-speedup-ratio" => options.arrival_speedup_ratio = number(&flag, &value)?,
                "--router" => options.router = router(&value)?,
                _ => return Err(format!("{flag}: unknown option")),
            }
        }
        if options.trace.as_os_str().is_empty() {
            return Err("--trace: missing".to_owned());
        }
        Ok(options)
    }
}

fn number<T: FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{flag}: found {value}, expected a number"))
}

fn router(value: &str) -> Result<ReplayRouterMode, String> {
    match value {
        "round-robin" => Ok(ReplayRouterMode::RoundRobin),
        "kv" => Ok(ReplayRouterMode::KvRouter),
        _ => Err(format!(
            "--router: found {value}, expected round-robin or kv"
        )),
    }
}

fn run(options: &Options) -> Result<String, Box<dyn Error>> {
    let engine = MockerConfig::from_value(json!({ "engine": {
        "backend": "vllm",
        "block_size": options.block_size,
        "num_gpu_blocks": options.num_gpu_blocks,
    } }))?;
    let report = if options.is_compact {
        replay_loaded(engine, options, &options.trace)?
    } else {
        replay_file(engine, options, &options.trace)?
    };
    Ok(serde_json::to_string(&report)?)
}

fn replay_file(
    engine: MockerConfig,
    options: &Options,
    trace: &Path,
) -> Result<TraceSimulationReport, Box<dyn Error>> {
    let (router_config, prefill_load_estimator) = (None, None);
    let (shared_prefix_ratio, prefix_groups) = (0.0, 0);
    let (record_per_request, max_sim_time_ms) = (false, None);
    Ok(simulate_trace_file_with_router_mode_and_format(
        engine,
        router_config,
        prefill_load_estimator,
        trace,
        TRACE_BLOCK_SIZE,
        options.workers,
        options.arrival_speedup_ratio,
        options.router,
        TraceFileFormat::Mooncake,
        shared_prefix_ratio,
        prefix_groups,
        record_per_request,
        max_sim_time_ms,
        SlaThresholds::default(),
    )?)
}

fn replay_loaded(
    engine: MockerConfig,
    options: &Options,
    trace: &Path,
) -> Result<TraceSimulationReport, Box<dyn Error>> {
    let (router_config, prefill_load_estimator) = (None, None);
    let (record_per_request, max_sim_time_ms) = (false, None);
    let trace = Trace::from_mooncake(trace, TRACE_BLOCK_SIZE)?.normalize_session_starts()?;
    Ok(simulate_loaded_trace_with_router_mode_and_options(
        engine,
        router_config,
        prefill_load_estimator,
        trace,
        options.workers,
        options.arrival_speedup_ratio,
        options.router,
        record_per_request,
        max_sim_time_ms,
        SlaThresholds::default(),
    )?)
}
