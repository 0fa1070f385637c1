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
        self.seconds_over(rows, 1.0)
    }

    /// The rows spread over so many matrices of this size.
    pub(super) fn seconds_over(&self, rows: f64, matrices: f64) -> f64 {
        (self.compute * rows).max(self.weights * matrices + self.activations * rows)
    }
}

/// How weights are stored and multiplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    /// The units that multiply, and the storage of inputs.
    pub(super) arithmetic: Precision,
    /// Bytes of a weight, scales included.
    pub(super) weight_bytes: f64,
}

impl Format {
    /// Weights and arithmetic of one kind.
    pub(super) fn of(precision: Precision) -> Format {
        Format {
            arithmetic: precision,
            weight_bytes: precision.bytes() as f64,
        }
    }
}

/// A GEMM with weights `inputs` x `outputs`.
pub(super) fn gemm(
    spec: &RooflineSpec,
    deployment: &Deployment<'_>,
    format: Format,
    [inputs, outputs]: [f64; 2],
) -> Gemm {
    let gpu = deployment.gpu;
    let rate = match (format.arithmetic, gpu.fp8_flops) {
        (Precision::Fp8, Some(fp8)) => fp8.value * spec.gemm_fp8_efficiency,
        // Model: without fp8 units, and with weights of 4 bits, the weights are widened on the fly, at no cost.
        _ => gpu.bf16_flops.value * spec.gemm_bf16_efficiency,
    };
    let bandwidth = gpu.memory_bytes_per_s.value * spec.gemm_memory_efficiency;
    let input_bytes = format.arithmetic.bytes() as f64;
    Gemm {
        compute: 2.0 * inputs * outputs / rate,
        weights: format.weight_bytes * inputs * outputs / bandwidth,
        // Model: inputs in the precision of the arithmetic, outputs in 16 bits, both through memory.
        activations: (input_bytes * inputs + 2.0 * outputs) / bandwidth,
    }
}
