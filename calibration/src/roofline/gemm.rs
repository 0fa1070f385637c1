//! A matrix product on one GPU.

use super::{Deployment, RooflineSpec};
use crate::model::Precision;

/// A GEMM over m rows takes the longer of `compute · m` and `weights + activations · m`, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gemm {
    compute: f64,
    weights: f64,
    activations: f64,
}

impl Gemm {
    pub(super) fn seconds(&self, rows: f64) -> f64 {
        (self.compute * rows).max(self.weights + self.activations * rows)
    }
}

/// A GEMM with weights `inputs` x `outputs`.
pub(super) fn gemm(
    spec: &RooflineSpec,
    deployment: &Deployment<'_>,
    weights: Precision,
    [inputs, outputs]: [f64; 2],
) -> Gemm {
    let gpu = deployment.gpu;
    let rate = match (weights, gpu.fp8_flops) {
        (Precision::Fp8, Some(fp8)) => fp8.value * spec.gemm_fp8_efficiency,
        // Model: without fp8 units the weights are widened on the fly, at no cost.
        _ => gpu.bf16_flops.value * spec.gemm_bf16_efficiency,
    };
    let bandwidth = gpu.memory_bytes_per_s.value * spec.gemm_memory_efficiency;
    let bytes = weights.bytes() as f64;
    Gemm {
        compute: 2.0 * inputs * outputs / rate,
        weights: bytes * inputs * outputs / bandwidth,
        // Model: inputs in the precision of the weights, outputs in 16 bits, both through memory.
        activations: (bytes * inputs + 2.0 * outputs) / bandwidth,
    }
}
