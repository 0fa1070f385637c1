//! Small models, and a scheduler that drives an executor step by step.

use engine::vllm::{Scheduler, VllmConfig};
use engine::{
    Batch, Contents, Executor, NewRequest, RequestId, Run, Time, Tracking, Workload,
    WorkloadBuilder,
};
use executor::{CpuExecutor, CpuSettings, Model, ModelConfig, Tokens, WeightSource};
use std::sync::Arc;

/// Shared KV heads, normed queries and keys, an odd vocabulary.
pub const QWEN3: &str = r#"{"model_type": "qwen3", "num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 80, "vocab_size": 211, "rope_theta": 1000.0}"#;
/// Biases, tied embeddings.
pub const QWEN2: &str = r#"{"model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
    "num_key_value_heads": 4, "intermediate_size": 56, "vocab_size": 97, "tie_word_embeddings": true}"#;
/// Stretched waves.
pub const LLAMA: &str = r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 1, "intermediate_size": 96, "vocab_size": 128, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64}}"#;

pub const SEED: u64 = 11;

pub fn config(text: &str) -> ModelConfig {
    ModelConfig::parse("config.json", text).unwrap()
}

pub fn model(text: &str) -> Arc<Model> {
    Arc::new(Model::new(config(text), &WeightSource::Generated(SEED)).unwrap())
}

/// Requests with what their prompts consist of.
#[derive(Default)]
pub struct Requests {
    builder: WorkloadBuilder,
    contents: Contents,
}

impl Requests {
    pub fn push(&mut self, prompt: &[Run], output_tokens: u32) {
        self.builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt,
            output_tokens,
            priority: 0,
            session: 0,
            dependencies: &[],
        });
        self.contents.push(prompt);
    }

    pub fn finish(self) -> (Arc<Workload>, Contents) {
        (Arc::new(self.builder.finish()), self.contents)
    }
}

/// What happened on the way.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub hit_tokens: u32,
    pub chunks: u32,
    pub preemptions: usize,
    pub largest_batch: usize,
}

/// Serves requests with vLLM's scheduler and the executor, each submitted before the step of that number, and returns the
/// answers.
pub fn serve(
    model: &Arc<Model>,
    config: &VllmConfig,
    workload: &Arc<Workload>,
    tokens: Tokens,
    submissions: &[(usize, u32)],
    threads: usize,
) -> (Vec<Vec<u32>>, Seen) {
    let tokens = Arc::new(tokens);
    let settings = CpuSettings {
        num_gpu_blocks: config.num_gpu_blocks,
        block_size: config.block_size,
        threads,
    };
    let mut executor = CpuExecutor::new(model.clone(), tokens.clone(), settings).unwrap();
    let tracking = Tracking {
        block_ids: true,
        events: false,
    };
    let mut scheduler = Scheduler::new(config.clone(), workload.clone(), tracking);
    let mut in_flight = std::collections::VecDeque::new();
    let mut seen = Seen::default();
    let mut ended = Vec::new();
    for step in 0.. {
        for (_, id) in submissions.iter().filter(|(at, _)| *at == step) {
            scheduler.submit(RequestId(*id), Time(step as u64));
        }
        while in_flight.len() < config.depth() as usize {
            scheduler.stop_coasting();
            let Some(plan) = scheduler.plan() else { break };
            let plan = plan.clone();
            seen.preemptions += plan.preempted.len();
            seen.largest_batch = seen.largest_batch.max(plan.scheduled.len());
            seen.hit_tokens += plan.admitted.iter().map(|one| one.hit_tokens).sum::<u32>();
            if plan.scheduled.is_empty() {
                continue;
            }
            seen.chunks += plan.scheduled.iter().filter(|part| !part.samples).count() as u32;
            in_flight.push_back(Batch::of(&scheduler, &plan));
        }
        scheduler.stop_coasting();
        match in_flight.pop_front() {
            Some(batch) => {
                executor.run(&batch).unwrap();
                scheduler.finish(1, &mut ended);
            }
            None if submissions.iter().all(|(at, _)| *at <= step) => break,
            None => {}
        }
        assert!(step < 10_000, "it ends");
    }
    assert_eq!(ended.len(), submissions.len());
    (tokens.answers(), seen)
}
