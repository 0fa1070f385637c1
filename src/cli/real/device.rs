//! What computes real steps: the processor in f32, or a GPU in bf16.

use crate::cli::Failure;
use clap::ValueEnum;
use engine::vllm::VllmConfig;
use executor::cuda::{self, Device as Gpu};
#[cfg(feature = "cuda")]
use executor::cuda::{CudaExecutor, CudaSettings};
use executor::worker::Worker;
use executor::{CpuExecutor, CpuSettings, Model, ModelConfig, Tokens, WeightSource};
use std::sync::Arc;
#[cfg(feature = "cuda")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// What computes the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// This machine's processor, in f32
    Cpu,
    /// NVIDIA GPUs, in bf16, a worker each; needs a program built with --features cuda
    Cuda,
}

impl Device {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        }
    }

    /// The GPU, if it is one that can be used.
    ///
    /// # Errors
    /// Why not, as a problem of the caller's.
    pub fn probe(self) -> Result<Option<Gpu>, Failure> {
        match self {
            Device::Cpu => Ok(None),
            Device::Cuda => cuda::probe(0)
                .map(Some)
                .map_err(|failure| Failure::input([format!("--real cuda: {failure}")])),
        }
    }
}

/// A model where it is computed.
pub enum Loaded {
    /// Weights in memory, shared by all workers.
    Cpu { model: Arc<Model>, threads: usize },
    /// Weights are made on each GPU.
    #[cfg(feature = "cuda")]
    Cuda {
        gpu: Gpu,
        model: Box<ModelConfig>,
        source: WeightSource,
        /// Workers so far; they take the GPUs in turn.
        workers: AtomicUsize,
    },
}

impl Loaded {
    /// Takes a model to a device.
    ///
    /// # Errors
    /// All that is wrong with its weights.
    pub fn new(
        gpu: Option<Gpu>,
        config: ModelConfig,
        source: WeightSource,
        threads: usize,
    ) -> Result<Loaded, Failure> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = gpu {
            return Ok(Loaded::Cuda {
                gpu,
                model: Box::new(config),
                source,
                workers: AtomicUsize::new(0),
            });
        }
        #[cfg(not(feature = "cuda"))]
        assert!(gpu.is_none(), "a program without CUDA finds no GPU");
        let model = Model::new(config, &source);
        Ok(Loaded::Cpu {
            model: Arc::new(model.map_err(|error| Failure::input([error.to_string()]))?),
            threads,
        })
    }

    /// The shape.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Loaded::Cpu { model, .. } => model.config(),
            #[cfg(feature = "cuda")]
            Loaded::Cuda { model, .. } => model,
        }
    }

    /// A worker.
    ///
    /// # Errors
    /// Memory or threads that cannot be had; a model that the GPU's kernels do not take.
    pub fn worker(&self, engine: &VllmConfig, tokens: &Arc<Tokens>) -> Result<Worker, Failure> {
        match self {
            Loaded::Cpu { model, threads } => {
                let settings = CpuSettings {
                    num_gpu_blocks: engine.num_gpu_blocks,
                    block_size: engine.block_size,
                    threads: *threads,
                };
                CpuExecutor::new(model.clone(), tokens.clone(), settings)
                    .map(|executor| Worker::Cpu(Box::new(executor)))
                    .map_err(|error| Failure::run(format!("--real: {error}")))
            }
            #[cfg(feature = "cuda")]
            Loaded::Cuda {
                gpu,
                model,
                source,
                workers,
            } => {
                let pool = engine.num_gpu_blocks.saturating_mul(engine.block_size);
                let settings = CudaSettings {
                    device: workers.fetch_add(1, Ordering::Relaxed) % gpu.count,
                    num_gpu_blocks: engine.num_gpu_blocks,
                    block_size: engine.block_size,
                    max_step_tokens: engine.max_num_batched_tokens,
                    max_rows: engine.max_num_seqs.min(engine.max_num_batched_tokens),
                    // A table of angles by position is kept: 128 MiB for as many.
                    max_positions: engine.max_model_len.min(pool).min(1 << 18),
                    has_graphs: true,
                };
                CudaExecutor::new(model, source, tokens.clone(), settings)
                    .map(|executor| Worker::Cuda(Box::new(executor)))
                    .map_err(|error| Failure::input([format!("--real cuda: {error}")]))
            }
        }
    }

    /// Precision and hardware in a few words.
    pub fn in_words(&self) -> String {
        match self {
            Loaded::Cpu { threads: 1, .. } => "f32, 1 thread per worker".to_owned(),
            Loaded::Cpu { threads, .. } => format!("f32, {threads} threads per worker"),
            #[cfg(feature = "cuda")]
            Loaded::Cuda { gpu, .. } => {
                let (major, minor) = (gpu.driver / 1000, gpu.driver % 1000 / 10);
                format!("bf16, {}, driver for CUDA {major}.{minor}", gpu.name)
            }
        }
    }
}
