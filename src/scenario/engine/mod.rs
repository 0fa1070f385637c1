//! `engine`: which engine serves, and the settings of its scheduler under that engine's own names.
//!
//! Each backend has a reader of its own, with its fields, their defaults, what it does not model and what does not go
//! together. A field that only another backend has is a conflict: none is silently ignored, and a sweep over backends can
//! go on with the points that can be. What both have in common (`dtype`, `kv_cache_dtype`, `quantization`) is read here.

mod sglang;
mod speculation;
mod trtllm;
mod vllm;

use super::section::Section;
use ::engine::vllm::VllmConfig;
use ::engine::{DraftMethod, EngineConfig};
use calibration::tables::Backend;
use calibration::{CalibrationError, KvQuestion, Model, Precision, kv_capacity};
use sweeps::scenario::{KvBlocks, Parallel};
use sweeps::sglang_server::{Hardware, SglangOptions};
use sweeps::trtllm_server::TrtllmOptions;

const BACKENDS: [(&str, Backend); 4] = [
    ("vllm", Backend::Vllm),
    ("sglang", Backend::Sglang),
    ("trtllm", Backend::Trtllm),
    ("tensorrt-llm", Backend::Trtllm),
];
/// Fields of each backend.
const FIELDS: [(Backend, &[&str]); 3] = [
    (Backend::Vllm, &vllm::FIELDS),
    (Backend::Sglang, &sglang::FIELDS),
    (Backend::Trtllm, &trtllm::FIELDS),
];
/// What says the same in vLLM, SGLang and TensorRT-LLM.
const SAME: [[&str; 3]; 10] = [
    ["block_size", "page_size", "tokens_per_block"],
    ["num_gpu_blocks", "max_total_tokens", "max_tokens"],
    [
        "gpu_memory_utilization",
        "mem_fraction_static",
        "free_gpu_memory_fraction",
    ],
    ["max_num_seqs", "max_running_requests", "max_batch_size"],
    [
        "max_num_batched_tokens",
        "chunked_prefill_size",
        "max_num_tokens",
    ],
    [
        "max_num_batched_tokens",
        "max_prefill_tokens",
        "max_num_tokens",
    ],
    ["max_model_len", "context_length", "max_seq_len"],
    [
        "enable_prefix_caching",
        "disable_radix_cache",
        "enable_block_reuse",
    ],
    ["scheduling_policy", "schedule_policy", ""],
    [
        "async_scheduling",
        "disable_overlap_schedule",
        "disable_overlap_scheduler",
    ],
];
const QUANTIZATIONS: [(&str, Precision); 1] = [("fp8", Precision::Fp8)];
const KV_DTYPES: [(&str, Precision); 7] = [
    ("auto", Precision::Bf16),
    ("bfloat16", Precision::Bf16),
    ("float16", Precision::Bf16),
    ("bf16", Precision::Bf16),
    ("fp8", Precision::Fp8),
    ("fp8_e4m3", Precision::Fp8),
    ("fp8_e5m2", Precision::Fp8),
];
const DTYPES: [(&str, ()); 5] = [
    ("auto", ()),
    ("bfloat16", ()),
    ("float16", ()),
    ("bf16", ()),
    ("half", ()),
];

/// What an engine section says.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineFields {
    settings: Settings,
    /// Storage of the KV cache.
    pub kv_cache: Precision,
    /// Storage of the weights where it is not the model's own.
    pub weights: Option<Precision>,
    /// Share of a step that a draft takes, where it is written.
    draft_share: Option<f64>,
}

/// Settings of a scheduler, with what follows from the hardware still open.
#[derive(Debug, Clone, PartialEq)]
enum Settings {
    Vllm {
        /// `num_gpu_blocks` holds the default where it is not written.
        config: VllmConfig,
        has_blocks: bool,
        gpu_memory_utilization: f64,
    },
    Sglang(SglangOptions),
    Trtllm(TrtllmOptions),
}

/// Reads the section: a pool's over the scenario's. `model_len` is the model's longest context.
pub fn read(section: &Section<'_>, model_len: Option<u32>) -> EngineFields {
    let backend = backend(section);
    refuse_fields_of_others(section, backend);
    read_as(backend, section, model_len)
}

/// Reads the scenario's section for mistakes; what does not fit a backend is told by the pools that have it.
pub fn read_common(section: &Section<'_>) {
    for name in FIELDS.iter().flat_map(|(_, fields)| *fields) {
        section.has_foreign(name);
    }
    read_as(backend(section), section, None);
}

fn read_as(backend: Backend, section: &Section<'_>, model_len: Option<u32>) -> EngineFields {
    let (settings, draft_share) = match backend {
        Backend::Sglang => {
            let (options, share) = sglang::read(section, model_len);
            (Settings::Sglang(options), share)
        }
        Backend::Trtllm => {
            let (options, share) = trtllm::read(section, model_len);
            (Settings::Trtllm(options), share)
        }
        Backend::Vllm => vllm::read(section, model_len),
    };
    let _ = section.choice("dtype", &DTYPES);
    EngineFields {
        settings,
        draft_share,
        kv_cache: section
            .choice("kv_cache_dtype", &KV_DTYPES)
            .unwrap_or(Precision::Bf16),
        weights: section.choice("quantization", &QUANTIZATIONS),
    }
}

fn backend(section: &Section<'_>) -> Backend {
    section
        .choice("backend", &BACKENDS)
        .unwrap_or(Backend::Vllm)
}

/// Reports the fields that only other backends have. Each comes with what the chosen one calls the same thing.
fn refuse_fields_of_others(section: &Section<'_>, backend: Backend) {
    let has = |(_, fields): &&(Backend, &[&str]), name| fields.contains(name);
    let is_own = |name| FIELDS.iter().any(|all| all.0 == backend && has(&all, name));
    let mut told: Vec<&str> = Vec::new();
    for name in FIELDS.iter().flat_map(|(_, fields)| *fields) {
        if is_own(name) || told.contains(name) || !section.has_foreign(name) {
            continue;
        }
        told.push(name);
        let owners = FIELDS.iter().filter(|all| has(all, name));
        let owners: Vec<&str> = owners.map(|(owner, _)| owner.name()).collect();
        let owners = owners.join(" and ");
        let chosen = backend.name();
        let hint = match counterparts(name, backend) {
            same if same.is_empty() => format!("set backend to {owners}, or remove it"),
            same => format!("{chosen} has {same}"),
        };
        let found = format!("a field of the backend {owners}");
        section.conflict(name, found, format!("fields of {chosen}"), &hint);
    }
}

/// What a backend calls the same thing; empty where it has nothing like it.
fn counterparts(name: &str, backend: Backend) -> String {
    let column = FIELDS.iter().position(|(other, _)| *other == backend);
    let column = column.expect("every backend has fields");
    let mut found: Vec<&str> = Vec::new();
    for row in SAME.iter().filter(|row| row.contains(&name)) {
        if !row[column].is_empty() && !found.contains(&row[column]) {
            found.push(row[column]);
        }
    }
    found.join(" and ")
}

impl EngineFields {
    /// Whose settings they are.
    pub fn backend(&self) -> Backend {
        match self.settings {
            Settings::Vllm { .. } => Backend::Vllm,
            Settings::Sglang(_) => Backend::Sglang,
            Settings::Trtllm(_) => Backend::Trtllm,
        }
    }

    /// Spreads the worker over stages and ranks, and plans synchronously where that is all there is. Reports what does not
    /// go together.
    pub fn spread(&mut self, parallel: Parallel, engine: &Section<'_>, widths: &Section<'_>) {
        let Parallel {
            pipeline: stages,
            data: ranks,
            ..
        } = parallel;
        let speculates = match &mut self.settings {
            Settings::Vllm { config, .. } => {
                config.pipeline_parallel_size = stages;
                config.data_parallel_size = ranks;
                config.speculation.is_some()
            }
            Settings::Sglang(options) => {
                options.config.pp_size = stages;
                options.config.dp_size = ranks;
                options.config.speculation.is_some()
            }
            Settings::Trtllm(options) => {
                options.config.pipeline_parallel_size = stages;
                options.config.attention_dp_size = ranks;
                trtllm::spread(&options.config, parallel, engine, widths);
                options.config.speculation.is_some()
            }
        };
        if stages > 1 && (ranks > 1 || speculates) {
            let found = format!("{stages} stages beside ranks or drafts");
            let expected = "1 with dp or drafts: together they are not modelled yet";
            widths.conflict("pp", found, expected, "leave out one of them");
        }
        if let Settings::Vllm { config, .. } = &mut self.settings
            && (stages > 1 || ranks > 1 || speculates)
        {
            if config.async_scheduling && engine.has("async_scheduling") {
                engine.conflict(
                    "async_scheduling",
                    "true beside pp, dp or speculative_config",
                    "false: only one step ahead is modelled, and they take its place",
                    "remove it",
                );
            }
            config.async_scheduling = false;
        }
    }

    /// Share of a step that a draft takes to make: that of a layer unless something else is written. 0 without drafts.
    pub fn draft_share(&self, model: Option<&Model>, engine: &Section<'_>) -> f64 {
        let (speculation, name, hint) = match &self.settings {
            Settings::Vllm { config, .. } => (
                config.speculation.as_ref(),
                "speculative_config",
                "draft_share",
            ),
            Settings::Trtllm(options) => (
                options.config.speculation.as_ref(),
                "speculative_config",
                "draft_share",
            ),
            Settings::Sglang(options) => (
                options
                    .config
                    .speculation
                    .as_ref()
                    .map(|it| &it.speculation),
                "speculative_algorithm",
                "speculative_draft_share",
            ),
        };
        match (speculation, self.draft_share, model) {
            (None, _, _) => 0.0,
            (Some(_), Some(share), _) => share,
            (Some(it), None, _) if it.method == DraftMethod::Ngram => 0.0,
            (Some(_), None, Some(model)) => 1.0 / f64::from(model.layers),
            (Some(_), None, None) => {
                engine.conflict(
                    name,
                    "drafts of a layer of an unknown model",
                    format!("{hint}, the time of a draft as a share of a step, or a model"),
                    &format!("for example `{hint}: 0.02`"),
                );
                0.0
            }
        }
    }

    /// Whether the scenario says how many KV blocks there are.
    pub fn has_blocks(&self) -> bool {
        match &self.settings {
            Settings::Vllm { has_blocks, .. } => *has_blocks,
            Settings::Sglang(options) => options.max_total_tokens.is_some(),
            Settings::Trtllm(options) => options.max_tokens.is_some(),
        }
    }

    /// The settings, and where the size of the KV cache comes from, on hardware that is not known.
    pub fn without_hardware(&self) -> (EngineConfig, KvBlocks) {
        match &self.settings {
            Settings::Vllm {
                config, has_blocks, ..
            } => {
                let from = if *has_blocks {
                    KvBlocks::Given
                } else {
                    KvBlocks::Guessed
                };
                (config.clone().into(), from)
            }
            Settings::Sglang(options) => {
                let (config, from) = options.without_hardware();
                (config.into(), from)
            }
            Settings::Trtllm(options) => {
                let (config, from) = options.without_hardware();
                (config.into(), from)
            }
        }
    }

    /// The same on this hardware.
    ///
    /// # Errors
    /// The model does not fit.
    pub fn on(
        &self,
        hardware: &Hardware<'_>,
    ) -> Result<(EngineConfig, KvBlocks), CalibrationError> {
        match &self.settings {
            Settings::Vllm {
                has_blocks: true, ..
            } => Ok(self.without_hardware()),
            Settings::Vllm {
                config,
                gpu_memory_utilization,
                ..
            } => {
                let capacity = kv_capacity(&KvQuestion {
                    model: hardware.model,
                    gpu: hardware.gpu,
                    tensor_parallel: hardware.tensor_parallel,
                    kv_cache: hardware.kv_cache,
                    block_size: config.block_size,
                    backend: Backend::Vllm,
                    expert_parallel: hardware.expert_parallel,
                    memory_fraction: Some(*gpu_memory_utilization),
                    max_num_batched_tokens: config.max_num_batched_tokens,
                    max_num_seqs: config.max_num_seqs,
                })?;
                let most = u64::from(VllmConfig::UNLIMITED);
                let config = VllmConfig {
                    // vLLM's count too holds the block that is never used.
                    num_gpu_blocks: capacity.blocks.clamp(2, most) as u32,
                    ..config.clone()
                };
                Ok((config.into(), KvBlocks::Computed(capacity)))
            }
            Settings::Sglang(options) => {
                let (config, from) = options.on(hardware)?;
                Ok((config.into(), from))
            }
            Settings::Trtllm(options) => {
                let (config, from) = options.on(hardware)?;
                Ok((config.into(), from))
            }
        }
    }

    /// The field that says the share of the memory, and the one that says the size of the KV cache instead.
    pub fn memory_fields(&self) -> (&'static str, &'static str) {
        match self.settings {
            Settings::Vllm { .. } => ("gpu_memory_utilization", "num_gpu_blocks"),
            Settings::Sglang(_) => ("mem_fraction_static", "max_total_tokens"),
            Settings::Trtllm(_) => ("free_gpu_memory_fraction", "max_tokens"),
        }
    }
}

/// Combinations that the engine refuses, or that could never schedule anything.
pub fn conflicts(section: &Section<'_>, config: &EngineConfig) {
    match config {
        EngineConfig::Vllm(config) => vllm::conflicts(section, config),
        EngineConfig::Sglang(config) => sglang::conflicts(section, config),
        EngineConfig::Trtllm(config) => trtllm::conflicts(section, config),
    }
}
