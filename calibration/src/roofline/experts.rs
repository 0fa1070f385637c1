//! The routed experts of a mixture on one GPU.
//!
//! A token goes to k of E experts. T tokens touch, if the router has no favourites,
//!
//! ```text
//! E · (1 − (1 − k/E)^T)
//! ```
//!
//! of them on average, and the weights of those are read; a GPU holds E / ep experts and computes T · k / ep rows, each
//! expert split over tp / ep GPUs. Reading and computing add up: an expert's rows are too few to hide its weights behind.
//!
//! The two shares below are fitted to the 263 readings of routed experts in AIConfigurator 0.12's reference values
//! (Qwen3-30B-A3B in bf16 and DeepSeek-V3 in fp8 on H100 and H200, three engines): median error 13 to 19 %, 90th percentile
//! 50 %. The tables were measured under a router with favourites (a power law), which is in the shares.
// Model: the GPUs of a worker are loaded alike, and the format of the weights changes what is read but not the arithmetic.

use super::{Deployment, RooflineSpec};
use crate::model::{ExpertStorage, Experts as Shape, Widths};

/// Share of the dense bf16 rate that grouped products of experts reach, in bf16 and in fp8.
const COMPUTE_SHARE: f64 = 0.27;
/// Share of the memory bandwidth at which the weights of the experts touched are read.
const MEMORY_SHARE: f64 = 0.9;

#[derive(Debug, Clone, Copy)]
pub(super) struct Experts {
    layers: f64,
    /// Those that a GPU holds.
    held: f64,
    /// The share of tokens that pass an expert by.
    passed_by: f64,
    /// Rows of the GPU per token of the step.
    rows_per_token: f64,
    /// Seconds per row, and per expert touched.
    per_row: f64,
    per_expert: f64,
}

impl Experts {
    /// `widths` of the GPUs that share the experts.
    pub(super) fn new(
        spec: &RooflineSpec,
        deployment: &Deployment<'_>,
        widths: Widths,
        shape: Shape,
    ) -> Experts {
        let (model, gpu) = (deployment.model, deployment.gpu);
        let weight_bytes = match shape.storage {
            ExpertStorage::AsProjections => model.weights.bytes() as f64,
            ExpertStorage::Mxfp4 => 17.0 / 32.0,
        };
        let hidden = f64::from(model.hidden);
        let size = f64::from(shape.intermediate) / f64::from(widths.tensor / widths.expert);
        let [count, per_token, groups] =
            [shape.count, shape.per_token, widths.expert].map(f64::from);
        let numbers = 3.0 * hidden * size;
        // Hidden states in and out of both products, in 16 bits.
        let activation_bytes = 2.0 * (2.0 * hidden + 3.0 * size);
        let bandwidth = gpu.memory_bytes_per_s.value;
        Experts {
            layers: f64::from(model.layers - shape.dense_layers),
            held: count / groups,
            passed_by: 1.0 - per_token / count,
            rows_per_token: per_token / groups,
            per_row: 2.0 * numbers / (gpu.bf16_flops.value * COMPUTE_SHARE)
                + activation_bytes / (bandwidth * spec.elementwise_efficiency),
            per_expert: weight_bytes * numbers / (bandwidth * MEMORY_SHARE),
        }
    }

    /// All layers, over the tokens of a step.
    pub(super) fn seconds(&self, tokens: f64) -> f64 {
        let rows = self.rows_per_token * tokens;
        self.layers * (self.per_row * rows + self.per_expert * self.touched(tokens))
    }

    /// How many of the experts of a GPU have a token, on average.
    fn touched(&self, tokens: f64) -> f64 {
        self.held * (1.0 - self.passed_by.powf(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Gpu;
    use crate::model::{Model, Precision};

    #[test]
    fn few_tokens_touch_few_experts() {
        let model = Model::find("Qwen/Qwen3-30B-A3B").expect("embedded");
        let deployment = |tensor_parallel, expert_parallel| Deployment {
            model: &model,
            gpu: Gpu::find("h100_sxm").expect("known"),
            tensor_parallel,
            expert_parallel,
            kv_cache: Precision::Bf16,
        };
        let shape = model.experts.expect("a mixture");
        let whole = Experts::new(
            &RooflineSpec::default(),
            &deployment(1, 1),
            deployment(1, 1).widths(),
            shape,
        );
        // 8 of 128; two tokens share 8 · 8 / 128 = half an expert on average.
        assert!((whole.touched(1.0) - 8.0).abs() < 1e-9);
        assert!((whole.touched(2.0) - 15.5).abs() < 1e-9);
        assert!((whole.touched(1e4) - 128.0).abs() < 1e-9);
        let dealt_out = Experts::new(
            &RooflineSpec::default(),
            &deployment(8, 8),
            deployment(8, 8).widths(),
            shape,
        );
        assert!((dealt_out.touched(1.0) - 1.0).abs() < 1e-9);
        assert!(dealt_out.seconds(64.0) < whole.seconds(64.0));
    }
}
