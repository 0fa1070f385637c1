//! The kernels of `executor/kernels`, compiled for a model and a GPU when they are needed.

use super::Failure;
use super::device::{Gpu, Grid, failed};
use crate::config::ModelConfig;
use cudarc::driver::CudaFunction;
use cudarc::driver::sys::CUfunction_attribute;
use cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};

/// In the order of `executor/kernels/order`.
const SOURCES: [(&str, &str); 11] = [
    (
        "primitives.cuh",
        include_str!("../../kernels/primitives.cuh"),
    ),
    ("common.cuh", include_str!("../../kernels/common.cuh")),
    ("weights.cu", include_str!("../../kernels/weights.cu")),
    ("embed.cu", include_str!("../../kernels/embed.cu")),
    ("norm.cu", include_str!("../../kernels/norm.cu")),
    ("rotary.cu", include_str!("../../kernels/rotary.cu")),
    ("gate.cu", include_str!("../../kernels/gate.cu")),
    ("argmax.cu", include_str!("../../kernels/argmax.cu")),
    ("blocks.cu", include_str!("../../kernels/blocks.cu")),
    (
        "decode_attention.cu",
        include_str!("../../kernels/decode_attention.cu"),
    ),
    (
        "prefill_attention.cu",
        include_str!("../../kernels/prefill_attention.cu"),
    ),
];

/// One field per kernel, of its name.
pub struct Kernels {
    pub random_weights: CudaFunction,
    pub constant_weights: CudaFunction,
    pub embed: CudaFunction,
    pub rms_norm: CudaFunction,
    pub rotary_and_store: CudaFunction,
    pub gated: CudaFunction,
    pub argmax: CudaFunction,
    pub copy_blocks: CudaFunction,
    pub decode_attention: CudaFunction,
    pub reduce_splits: CudaFunction,
    pub prefill_attention: CudaFunction,
    attention_bytes: u32,
}

impl Kernels {
    /// Compiles them. `block_size` in tokens.
    pub fn new(gpu: &Gpu, model: &ModelConfig, block_size: u32) -> Result<Kernels, Failure> {
        let source = source();
        let capability = gpu.context.compute_capability();
        let (major, minor) = capability.map_err(failed("asking the device"))?;
        if major < 8 {
            let found = format!("found compute capability {major}.{minor}");
            return Err(Failure(format!(
                "{found}, expected 8.0 or newer: kernels are in bf16"
            )));
        }
        // Prefill: 128 queries, twice 64 keys and 64 values. Decode: four warps, three stages, 16 keys and 16 values. Both
        // 384 rows of bf16, padded by 8 numbers: 102 KiB where heads have 128 numbers, as A100 and H100 have and many
        // smaller GPUs have not.
        let attention_bytes = 384 * (model.head_dim as u32 + 8) * 2;
        let most = gpu.most_shared_bytes()?;
        if attention_bytes > most {
            return Err(Failure(format!(
                "found a GPU with {most} bytes of shared memory per block, expected {attention_bytes} for heads of {} numbers",
                model.head_dim
            )));
        }
        // 9.0 has features of its own.
        let feature = if (major, minor) == (9, 0) { "a" } else { "" };
        let options = CompileOptions {
            options: vec![
                format!("--gpu-architecture=compute_{major}{minor}{feature}"),
                "--std=c++17".to_owned(),
                format!("-DHEAD_DIM={}", model.head_dim),
                format!("-DBLOCK_SIZE={block_size}"),
                format!("-DGROUP={}", model.heads / model.kv_heads),
            ],
            ..CompileOptions::default()
        };
        let ptx = compile_ptx_with_opts(source, options).map_err(|error| match error {
            CompileError::CompileError { log, .. } => {
                Failure(format!("compiling the kernels: {}", log.to_string_lossy()))
            }
            _ => Failure("compiling the kernels: NVRTC failed".to_owned()),
        })?;
        let module = gpu
            .context
            .load_module(ptx)
            .map_err(failed("loading the kernels"))?;
        let get = |name| module.load_function(name).map_err(failed(name));
        let kernels = Kernels {
            random_weights: get("random_weights")?,
            constant_weights: get("constant_weights")?,
            embed: get("embed")?,
            rms_norm: get("rms_norm")?,
            rotary_and_store: get("rotary_and_store")?,
            gated: get("gated")?,
            argmax: get("argmax")?,
            copy_blocks: get("copy_blocks")?,
            decode_attention: get("decode_attention")?,
            reduce_splits: get("reduce_splits")?,
            prefill_attention: get("prefill_attention")?,
            attention_bytes,
        };
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        for function in [&kernels.decode_attention, &kernels.prefill_attention] {
            let set = function.set_attribute(attribute, kernels.attention_bytes as i32);
            set.map_err(failed("shared memory for attention"))?;
        }
        Ok(kernels)
    }

    /// A grid of an attention kernel.
    pub const fn attention_grid(&self, blocks: (u32, u32, u32)) -> Grid {
        Grid {
            blocks,
            threads: 128,
            shared_bytes: self.attention_bytes,
        }
    }
}

fn source() -> String {
    let parts = SOURCES
        .iter()
        .map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n"));
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_are_those_that_are_checked() {
        let order = include_str!("../../kernels/order");
        let names = SOURCES.map(|(name, _)| name);
        assert_eq!(order.split_whitespace().collect::<Vec<_>>(), names);
        for word in ["\nKERNEL(128) prefill_attention", "#line 1 \"common.cuh\""] {
            assert!(source().contains(word), "{word}");
        }
    }
}
