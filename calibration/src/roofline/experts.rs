//! The routed experts of a mixture on one GPU.
//!
//! A token goes to k of E experts. T tokens touch, if the router has no favourites,
//!
//! ```text
//! E · (1 − (1 − k/E)^T)
//! ```
//!
//! of them on average, and the weights of those are read; a GPU holds E / ep experts and computes T · k / ep rows, each
//! expert split over tp / ep GPUs.
// Model: the router has no favourites and the GPUs of a worker are loaded alike. With the power law that AIConfigurator
// measures (exponent 1.2) the fullest of 8 groups has up to twice the mean load, which costs in prefill.

use super::gemm::{Format, Gemm, gemm};
use super::{Deployment, RooflineSpec};
use crate::model::{ExpertStorage, Experts as Shape, Precision};

#[derive(Debug, Clone, Copy)]
pub(super) struct Experts {
    layers: f64,
    /// Those that a GPU holds.
    held: f64,
    /// The share of tokens that pass an expert by.
    passed_by: f64,
    /// Rows of the GPU per token of the step.
    rows_per_token: f64,
    up: Gemm,
    down: Gemm,
}

impl Experts {
    pub(super) fn new(spec: &RooflineSpec, deployment: &Deployment<'_>, shape: Shape) -> Experts {
        let widths = deployment.widths();
        let model = deployment.model;
        let format = match shape.storage {
            ExpertStorage::AsProjections => Format::of(model.weights),
            ExpertStorage::Mxfp4 => Format {
                arithmetic: Precision::Bf16,
                weight_bytes: 17.0 / 32.0,
            },
        };
        let hidden = f64::from(model.hidden);
        let size = f64::from(shape.intermediate) / f64::from(widths.tensor / widths.expert);
        let [count, per_token, groups] =
            [shape.count, shape.per_token, widths.expert].map(f64::from);
        Experts {
            layers: f64::from(model.layers - shape.dense_layers),
            held: count / groups,
            passed_by: 1.0 - per_token / count,
            rows_per_token: per_token / groups,
            up: gemm(spec, deployment, format, [hidden, 2.0 * size]),
            down: gemm(spec, deployment, format, [size, hidden]),
        }
    }

    /// All layers, over the tokens of a step.
    pub(super) fn seconds(&self, tokens: f64) -> f64 {
        let touched = self.touched(tokens);
        let rows = self.rows_per_token * tokens;
        let layer = self.up.seconds_over(rows, touched) + self.down.seconds_over(rows, touched);
        self.layers * layer
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
    use crate::model::Model;

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
        let whole = Experts::new(&RooflineSpec::default(), &deployment(1, 1), shape);
        // 8 of 128; two tokens share 8 · 8 / 128 = half an expert on average.
        assert!((whole.touched(1.0) - 8.0).abs() < 1e-9);
        assert!((whole.touched(2.0) - 15.5).abs() < 1e-9);
        assert!((whole.touched(1e4) - 128.0).abs() < 1e-9);
        let dealt_out = Experts::new(&RooflineSpec::default(), &deployment(8, 8), shape);
        assert!((dealt_out.touched(1.0) - 1.0).abs() < 1e-9);
        assert!(dealt_out.seconds(64.0) < whole.seconds(64.0));
    }
}
