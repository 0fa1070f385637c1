//! A step log's requests through the simulator, with a timing model in place of the logged durations.
//!
//! The requests arrive as the log says, the scheduler has the log's settings, and what comes out is set beside what the
//! log shows: the first token of a request is there at the end of the step that sampled it, the last one at the end of its
//! last step. Nothing is fitted here; this is the honest use of a fit to *another* log.

use crate::outcome::Outcome;
use calibration::CalibrationError;
use calibration::step_log::{Prompts, VllmLog};
use engine::vllm::{VllmConfig, VllmVersion};
use engine::{Span, StepTime};
use sim::{Cluster, ClusterSpec, FrontendSpec, LoadSpec, PoolSpec, RouterSpec, virtual_clock};
use std::sync::Arc;

/// The requests of a log, predicted and logged; those that the log does not see ending are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReplay {
    /// As simulated.
    pub predicted: Vec<Outcome>,
    /// As logged, in the same order.
    pub measured: Vec<Outcome>,
}

/// Simulates a log.
///
/// # Errors
/// Prompts that do not fit the log.
pub fn replay(
    log: &VllmLog,
    prompts: &Prompts,
    timing: Arc<dyn StepTime>,
) -> Result<StepReplay, CalibrationError> {
    let workload = Arc::new(log.workload(prompts)?);
    let settings = log.settings;
    let engine = VllmConfig {
        version: VllmVersion::V0_32,
        block_size: settings.block_size,
        num_gpu_blocks: settings.num_gpu_blocks,
        max_num_seqs: settings.max_num_seqs,
        max_num_batched_tokens: settings.max_num_batched_tokens,
        enable_prefix_caching: settings.prefix_caching,
        async_scheduling: settings.async_scheduling,
        ..VllmConfig::default()
    };
    let spec = ClusterSpec {
        pools: vec![PoolSpec {
            name: "engine".to_owned(),
            workers: 1,
            gpus_per_worker: 1,
            engine: engine.into(),
        }],
        router: RouterSpec::RoundRobin,
        load: LoadSpec::default(),
        frontend: FrontendSpec::default(),
        seed: 0,
        coasting: true,
        disaggregation: None,
        track_block_ids: false,
    };
    let recording = virtual_clock::run(Cluster::new(&spec, workload), &[timing]);
    let mut replay = StepReplay {
        predicted: Vec::new(),
        measured: Vec::new(),
    };
    for (logged, record) in measured(log).into_iter().zip(&recording.requests) {
        if let (Some(logged), Some(simulated)) = (logged, Outcome::of(record)) {
            replay.measured.push(logged);
            replay.predicted.push(simulated);
        }
    }
    Ok(replay)
}

/// What became of each request of the log, if it ended.
#[must_use]
pub fn measured(log: &VllmLog) -> Vec<Option<Outcome>> {
    // By request: ends of the steps that sampled its first and its last token, and how many it has.
    let mut seen: Vec<(u64, u64, u32)> = vec![(0, 0, 0); log.adds.len()];
    for step in &log.steps {
        for part in &step.parts {
            let add = &log.adds[part.request];
            let (first, last, tokens) = &mut seen[part.request];
            if part.computed_before + part.new_tokens == add.prompt_tokens + *tokens {
                if *tokens == 0 {
                    *first = step.end_ns;
                }
                *last = step.end_ns;
                *tokens += 1;
            }
        }
    }
    let outcome = |(add, (first, last, tokens)): (&calibration::step_log::Add, (u64, u64, u32))| {
        (tokens == add.max_tokens).then(|| Outcome {
            ttft: Span::from_ns(first - add.at_ns),
            e2e: Span::from_ns(last - add.at_ns),
            output_tokens: tokens,
        })
    };
    log.adds.iter().zip(seen).map(outcome).collect()
}
