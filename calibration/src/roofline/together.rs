//! What ranks compute together: the experts over the tokens of all of them, and the way there and back.
//!
//! In words: attention is a rank's own, on its own GPUs; experts are dealt out or split over the GPUs of all ranks. In every layer with
//! experts each GPU gathers the hidden states of all tokens before them and gets its part of the sum after them, over a ring of n GPUs:
//!
//! ```text
//! per layer and token  2 · 2 h bytes · (n − 1)/n over the link        per layer  2 collectives' floors
//! ```
//!
//! Source: AIConfigurator 0.12 counts tokens and messages of experts likewise, all tokens of all ranks.
// Model: every GPU gathers all tokens, as without a token-wise all-to-all (DeepEP and the like), which sends less where ranks are many.

use super::experts::Experts;
use super::{Deployment, RooflineSpec};
use crate::model::Widths;

#[derive(Debug, Clone, Copy)]
pub(super) struct Together {
    experts: Experts,
    per_token: f64,
    floor: f64,
}

impl Together {
    /// Of a mixture; `None` without experts.
    pub(super) fn new(
        spec: &RooflineSpec,
        deployment: &Deployment<'_>,
        widths: Widths,
    ) -> Option<Together> {
        let (model, gpu) = (deployment.model, deployment.gpu);
        let shape = model.experts?;
        let layers = f64::from(model.layers - shape.dense_layers);
        let gpus = f64::from(widths.tensor);
        let bandwidth = gpu.link_bytes_per_s.value * spec.link_efficiency;
        let passed_on = (gpus - 1.0) / gpus;
        let collective = spec.collective_us + spec.collective_per_gpu_us * gpus;
        Some(Together {
            experts: Experts::new(spec, deployment, widths, shape),
            per_token: layers * 2.0 * passed_on * 2.0 * f64::from(model.hidden) / bandwidth,
            floor: layers * 2.0 * collective * 1e-6,
        })
    }

    /// All layers, over the tokens of all ranks.
    pub(super) fn seconds(&self, tokens: f64) -> f64 {
        self.experts.seconds(tokens) + self.per_token * tokens + self.floor
    }
}
