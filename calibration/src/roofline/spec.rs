//! Efficiencies and overheads of the roofline.

use crate::error::{Problem, check_range};
use serde::Serialize;

/// Efficiencies and overheads. The defaults are medians of the ratio between the formulas of this module and
/// AIConfigurator 0.12's kernel tables for Llama-3.1-8B, -70B and Qwen3-32B on H100 and H200 SXM, unless the field says
/// otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RooflineSpec {
    /// Share of the peak bf16 rate that large GEMMs reach.
    pub gemm_bf16_efficiency: f64,
    /// Share of the peak fp8 rate that large GEMMs reach.
    pub gemm_fp8_efficiency: f64,
    /// Share of the memory bandwidth that GEMMs of few rows reach.
    pub gemm_memory_efficiency: f64,
    /// Share of the peak bf16 rate that prefill attention reaches.
    pub prefill_attention_efficiency: f64,
    /// Share of the memory bandwidth that decode attention reaches.
    pub decode_attention_efficiency: f64,
    /// Share of the memory bandwidth that elementwise kernels reach (AIConfigurator's own factor).
    pub elementwise_efficiency: f64,
    /// Share of the link bandwidth that collectives reach.
    pub link_efficiency: f64,
    /// Least time of a GEMM or elementwise kernel, microseconds (AIConfigurator's own constant).
    pub kernel_us: f64,
    /// Least time of attention over prefill chunks, per layer, microseconds.
    pub prefill_attention_us: f64,
    /// Least time of attention over decodes, per layer, microseconds.
    pub decode_attention_us: f64,
    /// Least time of a collective, microseconds.
    pub collective_us: f64,
    /// Further least time of a collective per GPU, microseconds.
    pub collective_per_gpu_us: f64,
    /// Host time per step that nothing hides (scheduling, input preparation, sampling), microseconds. Default: residual
    /// against the TPOT of 37 published vLLM runs on H100 and H200 at concurrency 8 or less, rounded.
    pub step_overhead_us: f64,
    /// Further host time per step when a worker spans several GPUs and hence processes, microseconds. Default: as above.
    pub multi_gpu_overhead_us: f64,
}

impl Default for RooflineSpec {
    fn default() -> Self {
        RooflineSpec {
            gemm_bf16_efficiency: 0.78,
            gemm_fp8_efficiency: 0.60,
            gemm_memory_efficiency: 0.84,
            prefill_attention_efficiency: 0.62,
            decode_attention_efficiency: 0.90,
            elementwise_efficiency: 0.80,
            link_efficiency: 0.65,
            kernel_us: 3.0,
            prefill_attention_us: 15.0,
            decode_attention_us: 11.5,
            collective_us: 2.0,
            collective_per_gpu_us: 0.4,
            step_overhead_us: 200.0,
            multi_gpu_overhead_us: 900.0,
        }
    }
}

impl RooflineSpec {
    /// Everything that is out of range.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (field, value) in [
            ("gemm_bf16_efficiency", self.gemm_bf16_efficiency),
            ("gemm_fp8_efficiency", self.gemm_fp8_efficiency),
            ("gemm_memory_efficiency", self.gemm_memory_efficiency),
            (
                "prefill_attention_efficiency",
                self.prefill_attention_efficiency,
            ),
            (
                "decode_attention_efficiency",
                self.decode_attention_efficiency,
            ),
            ("elementwise_efficiency", self.elementwise_efficiency),
            ("link_efficiency", self.link_efficiency),
        ] {
            check_range(&mut problems, field, value, 0.01..=1.0, "");
        }
        for (field, value) in [
            ("kernel_us", self.kernel_us),
            ("prefill_attention_us", self.prefill_attention_us),
            ("decode_attention_us", self.decode_attention_us),
            ("collective_us", self.collective_us),
            ("collective_per_gpu_us", self.collective_per_gpu_us),
            ("step_overhead_us", self.step_overhead_us),
            ("multi_gpu_overhead_us", self.multi_gpu_overhead_us),
        ] {
            check_range(&mut problems, field, value, 0.0..=1e6, " us");
        }
        problems
    }
}
