//! One benchmark, one simulation.
//!
//! A worker of the row's engine on the row's GPUs, clients in a closed loop, prompts that share nothing. Step times are
//! those of measured tables with the engine's host times; KV blocks are computed from the GPU's memory. vLLM has the
//! settings that benchmarks give it; SGLang decides by its GPUs, as its server does; TensorRT-LLM has its defaults.
// Model: SGLang and TensorRT-LLM are scheduled without overlap.

use super::recipe::{Harness, REQUESTS_PER_CLIENT, Recipe, Source, format_of};
use super::rows::{Pair, Row};
use calibration::measured::{HostTimes, Measured, MeasuredSpec};
use calibration::roofline::Deployment;
use calibration::tables::{Backend, Dtype};
use calibration::{CalibrationError, Gpu, KvQuestion, Model, Precision, kv_capacity};
use engine::sglang::SglangConfig;
use engine::trtllm::TrtllmConfig;
use engine::vllm::VllmConfig;
use engine::{EngineConfig, NewRequest, Run, Span, StepTime, Time, Workload, WorkloadBuilder};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use sim::{
    Cluster, ClusterSpec, FrontendSpec, LoadSpec, PoolSpec, RouterSpec, summarize, virtual_clock,
};
use std::path::Path;
use std::sync::Arc;
use sweeps::sglang_server::{Hardware, SglangOptions};
use sweeps::trtllm_server::TrtllmOptions;

/// Tokens of a step and sequences at once, the defaults of vLLM servers that run benchmarks.
const MAX_BATCHED_TOKENS: u32 = 8_192;
const MAX_SEQUENCES: u32 = 1_024;
const BLOCK_SIZE: u32 = 16;

/// What a simulation of a row stands on.
pub struct Subject {
    /// Where the row is from.
    pub source: Source,
    /// Whether the model is neither a mixture of experts nor has latent attention.
    pub is_dense: bool,
    engine: EngineConfig,
    timing: Measured,
}

/// What a simulation gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Means over all requests.
    pub pair: Pair,
    /// Share of the step time that lies beyond the measurements.
    pub extrapolated: f64,
}

impl Subject {
    /// What must be known of a row before it can be simulated.
    ///
    /// # Errors
    /// Why it cannot be: an unknown model, GPU or engine, formats that the GPU has no units for, widths that cannot be,
    /// weights that leave no room.
    pub fn of(row: &Row, tables: Option<&Path>) -> Result<Subject, String> {
        let text = |error: CalibrationError| error.to_string();
        let backend = Backend::find(&row.backend).map_err(text)?;
        let gpu = Gpu::find(&row.gpu).map_err(text)?;
        let format = |name: &Option<String>| match name {
            None => Ok(Dtype::Bfloat16),
            Some(name) => {
                Dtype::find(name).ok_or_else(|| format!("the format `{name}` is not known"))
            }
        };
        let labels = (format(&row.gemm)?, format(&row.experts)?);
        let storage = match labels.0 {
            Dtype::Bfloat16 => Precision::Bf16,
            Dtype::Fp8 | Dtype::Fp8Block => Precision::Fp8,
            other => return Err(format!("no {} kernels on {}", other.name(), gpu.name)),
        };
        if row.pp * row.attention_dp > 1 {
            return Err("pipeline and attention data parallelism are not modelled yet".to_owned());
        }
        // SGLang keeps KV in the model's own 16 bits unless told otherwise.
        let kv_cache = if backend == Backend::Sglang {
            Precision::Bf16
        } else {
            storage
        };
        let mut model = Model::find(&row.model).map_err(text)?;
        model.weights = storage;
        if model.experts.is_some() && row.moe_tp * row.moe_ep != row.tp {
            return Err("experts on other widths than attention are not modelled yet".to_owned());
        }
        let expert_parallel = if model.experts.is_some() {
            row.moe_ep
        } else {
            1
        };
        let hardware = Hardware {
            model: &model,
            gpu,
            tensor_parallel: row.tp,
            expert_parallel,
            kv_cache,
        };
        let engine = match backend {
            Backend::Sglang => sglang(&hardware),
            Backend::Trtllm => trtllm(&hardware, row),
            Backend::Vllm => vllm(&hardware),
        };
        let engine = engine.map_err(text)?;
        if !fits(row, &engine) {
            return Err("a single request does not fit into the KV cache".to_owned());
        }
        let deployment = Deployment {
            model: &model,
            gpu,
            tensor_parallel: row.tp,
            expert_parallel,
            kv_cache,
        };
        let capacity = engine.usable_tokens();
        let priced = |(gemm, experts)| {
            let spec = MeasuredSpec {
                folder: tables.map(Path::to_owned),
                gemm: Some(gemm),
                experts: Some(experts),
                host: HostTimes::ZERO,
                ..MeasuredSpec::of(backend)
            };
            Measured::new(&spec, deployment, capacity)
        };
        let checkpoint = (
            format_of(&row.model, labels.0),
            format_of(&row.model, labels.1),
        );
        // Model: where the checkpoint's own format was not measured at this width, the row's label stands for it.
        let timing = priced(checkpoint).or_else(|_| priced(labels));
        Ok(Subject {
            source: Source::of(row, backend),
            is_dense: model.beyond_dense().is_none(),
            engine,
            timing: timing.map_err(text)?,
        })
    }

    /// Simulates the row.
    #[must_use]
    pub fn run(&self, row: &Row, host: HostTimes, recipe: Recipe) -> Prediction {
        let us = |us: f64| Span((us * 1e6).round() as u64);
        let cluster = ClusterSpec {
            pools: vec![PoolSpec {
                name: "agg".to_owned(),
                workers: 1,
                gpus_per_worker: row.tp,
                engine: self.engine(row, recipe),
            }],
            router: RouterSpec::RoundRobin,
            load: LoadSpec {
                concurrency: Some(row.concurrency),
                warmup_requests: 0,
                duration: None,
            },
            frontend: FrontendSpec {
                per_request: us(host.request_us + recipe.entry_us),
                per_input_token: us(host.prompt_token_us),
                latency: Span::ZERO,
            },
            seed: 0,
            coasting: true,
            disaggregation: None,
            track_block_ids: false,
        };
        let timing: Arc<dyn StepTime> = Arc::new(self.timing.with_host(host));
        let workload = Arc::new(workload(row, recipe));
        let recording = virtual_clock::run(Cluster::new(&cluster, workload), &[timing]);
        let latency = summarize(&recording, &["agg".to_owned()], None).latency;
        let worker = recording.workers[0];
        Prediction {
            pair: Pair {
                ttft_ms: latency.ttft_ms.mean,
                tpot_ms: latency.tpot_ms.mean,
            },
            extrapolated: worker.extrapolated.0 as f64 / worker.busy.0.max(1) as f64,
        }
    }

    /// The engine as the recipe has it.
    fn engine(&self, row: &Row, recipe: Recipe) -> EngineConfig {
        let budget = (recipe.prompts_per_step > 0.0)
            .then(|| (f64::from(row.isl) * recipe.prompts_per_step) as u32);
        // Where prompts share nothing, looking for hits would find none.
        let has_hits = recipe.distinct_prompts > 0;
        match self.engine.clone() {
            EngineConfig::Vllm(config) => EngineConfig::Vllm(VllmConfig {
                max_num_batched_tokens: budget.map_or(config.max_num_batched_tokens, |tokens| {
                    tokens.max(MAX_SEQUENCES)
                }),
                enable_prefix_caching: has_hits,
                ..config
            }),
            EngineConfig::Sglang(config) => EngineConfig::Sglang(SglangConfig {
                chunked_prefill_size: budget.or(config.chunked_prefill_size),
                ..config
            }),
            EngineConfig::Trtllm(config) => EngineConfig::Trtllm(TrtllmConfig {
                max_num_tokens: budget.unwrap_or(config.max_num_tokens),
                enable_chunked_prefill: self.source.harness == Harness::Aiperf,
                enable_block_reuse: has_hits,
                ..config
            }),
        }
    }
}

/// Whether an idle worker can take one of the row's requests.
fn fits(row: &Row, engine: &EngineConfig) -> bool {
    let has_admission = match engine {
        EngineConfig::Vllm(_) => true,
        EngineConfig::Sglang(config) => config.can_admit(row.isl, row.osl),
        EngineConfig::Trtllm(config) => config.can_serve(row.isl, row.osl),
    };
    has_admission && u64::from(row.isl) + u64::from(row.osl) <= engine.usable_tokens()
}

fn vllm(hardware: &Hardware<'_>) -> Result<EngineConfig, CalibrationError> {
    let capacity = kv_capacity(&KvQuestion {
        model: hardware.model,
        gpu: hardware.gpu,
        tensor_parallel: hardware.tensor_parallel,
        kv_cache: hardware.kv_cache,
        block_size: BLOCK_SIZE,
        expert_parallel: hardware.expert_parallel,
        backend: Backend::Vllm,
        memory_fraction: Some(0.9),
        max_num_batched_tokens: MAX_BATCHED_TOKENS,
        max_num_seqs: MAX_SEQUENCES,
    })?;
    Ok(EngineConfig::Vllm(VllmConfig {
        block_size: BLOCK_SIZE,
        num_gpu_blocks: u32::try_from(capacity.blocks).unwrap_or(u32::MAX),
        max_num_seqs: MAX_SEQUENCES,
        max_num_batched_tokens: MAX_BATCHED_TOKENS,
        enable_prefix_caching: false,
        ..VllmConfig::default()
    }))
}

/// Benchmarks tell requests to ignore the end of the sequence.
fn sglang(hardware: &Hardware<'_>) -> Result<EngineConfig, CalibrationError> {
    let options = SglangOptions::new(SglangConfig {
        context_length: hardware.model.max_position_embeddings,
        ignore_eos: true,
        ..SglangConfig::default()
    });
    let (config, _) = options.on(hardware)?;
    Ok(config.into())
}

/// A server's defaults, with steps that take a whole prompt beside a decode of every client: prompts are not cut, and a
/// smaller budget would let nobody start while others decode, which no benchmark is run with.
fn trtllm(hardware: &Hardware<'_>, row: &Row) -> Result<EngineConfig, CalibrationError> {
    let default = TrtllmConfig::default();
    let options = TrtllmOptions::new(TrtllmConfig {
        max_num_tokens: default.max_num_tokens.max(row.isl + row.concurrency),
        max_seq_len: hardware.model.max_position_embeddings,
        enable_block_reuse: false,
        ..default
    });
    let (config, _) = options.on(hardware)?;
    Ok(config.into())
}

/// The requests of a benchmark: each from a session of its own, lengths by the recipe, the same draws for every row.
fn workload(row: &Row, recipe: Recipe) -> Workload {
    let mut random = Pcg64Mcg::seed_from_u64(0);
    let mut draw = |length: u32| {
        let share = recipe.shortest + (1.0 - recipe.shortest) * random.random_range(0.0..=1.0);
        ((f64::from(length) * share).round() as u32).max(1)
    };
    let requests = row.concurrency * REQUESTS_PER_CLIENT;
    let sizes: Vec<(u32, u32)> = (0..requests)
        .map(|_| (draw(row.isl), draw(row.osl)))
        .collect();
    let mut builder = WorkloadBuilder::new();
    for session in 0..requests {
        let entry = match recipe.distinct_prompts {
            0 => session,
            count => session % count,
        };
        let prompt = Run {
            first: WorkloadBuilder::private_token(entry, 0),
            len: sizes[entry as usize].0,
        };
        builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt: &[prompt],
            output_tokens: sizes[session as usize].1,
            priority: 0,
            session,
            dependencies: &[],
        });
    }
    builder.finish()
}
