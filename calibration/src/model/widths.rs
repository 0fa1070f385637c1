//! How a model may be split over the GPUs of a worker.
//!
//! Tensor parallelism splits the heads of attention and every FFN over all GPUs. Experts are split like everything else,
//! or (expert parallelism) whole experts are dealt out to groups of GPUs and split only within a group: with `tensor` GPUs
//! and `expert` groups a GPU holds `experts / expert` experts, each split over `tensor / expert` GPUs. vLLM knows the two
//! ends of this, one group or as many as GPUs (`--enable-expert-parallel`).

use super::{Experts, Model, SlidingWindow};

/// GPUs of a worker, and how experts are dealt out to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// GPUs over which every layer is split.
    pub tensor: u32,
    /// Groups of GPUs over which whole experts are dealt out; 1: every expert is split over all GPUs.
    pub expert: u32,
}

impl Widths {
    /// Everything split over so many GPUs.
    #[must_use]
    pub const fn tensor(tensor: u32) -> Widths {
        Widths { tensor, expert: 1 }
    }
}

impl Model {
    /// Whether the model can be split over `tp` GPUs, its experts in one way or another; if not, why, in words that
    /// follow "tp".
    ///
    /// # Errors
    /// `tp` is 0 or does not divide the heads or the FFN, or neither divides nor is a multiple of the KV heads.
    pub fn check_tensor_parallel(&self, tp: u32) -> Result<(), String> {
        if tp == 0 {
            return Err("must be at least 1".to_owned());
        }
        if !self.heads.is_multiple_of(tp) {
            return Err(format!("must divide the {} attention heads", self.heads));
        }
        let has_kv_heads = self.latent.is_none();
        if has_kv_heads && !self.kv_heads.is_multiple_of(tp) && !tp.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "must divide, or be a multiple of, the {} KV heads",
                self.kv_heads
            ));
        }
        let has_ffn = self.experts.is_none_or(|experts| experts.dense_layers > 0);
        if has_ffn && !self.intermediate.is_multiple_of(tp) {
            return Err(format!("must divide the FFN size {}", self.intermediate));
        }
        if let Some(experts) = self.experts
            && !experts.intermediate.is_multiple_of(tp)
            && !experts.count.is_multiple_of(tp)
        {
            let Experts {
                count,
                intermediate,
                ..
            } = experts;
            return Err(format!(
                "must divide the {count} experts or their FFN size {intermediate}"
            ));
        }
        Ok(())
    }

    /// Whether the experts can be dealt out as asked; if not, why, in words that follow "ep".
    ///
    /// # Errors
    /// No experts to deal out, groups that do not divide the GPUs or are more than there are experts, or a group over
    /// whose GPUs an expert cannot be split.
    pub fn check_expert_parallel(&self, widths: Widths) -> Result<(), String> {
        let Widths { tensor, expert } = widths;
        let Some(experts) = self.experts else {
            return match expert {
                1 => Ok(()),
                _ => Err(format!("must be 1: {} has no experts", self.id)),
            };
        };
        if expert == 0 || !tensor.is_multiple_of(expert) {
            return Err(format!("must divide tp, {tensor}"));
        }
        if expert > experts.count {
            return Err(format!("must be at most the {} experts", experts.count));
        }
        let gpus = tensor / expert;
        if !experts.intermediate.is_multiple_of(gpus) {
            return Err(format!(
                "must leave each expert a number of GPUs, here {gpus}, that divides its FFN size {}",
                experts.intermediate
            ));
        }
        Ok(())
    }

    /// The largest of `stages` stages of a pipeline, as a model of its own.
    // Model: it has both embedding and output head, which are on the first and the last stage; its memory is so much too large,
    // 1 GB for a vocabulary of 128k and a hidden size of 4k. Layers without experts are taken to be on the first stage.
    #[must_use]
    pub fn stage(&self, stages: u32) -> Model {
        let share = |layers: u32| layers.div_ceil(stages);
        Model {
            layers: share(self.layers),
            experts: self.experts.map(|experts| Experts {
                dense_layers: if stages == 1 { experts.dense_layers } else { 0 },
                ..experts
            }),
            window: self.window.map(|window| SlidingWindow {
                // Rounded so that no layer too many is taken to forget.
                layers: window.layers / stages,
                ..window
            }),
            ..self.clone()
        }
    }

    /// The widths up to `most` that [`Model::check_tensor_parallel`] accepts.
    pub fn legal_tensor_parallel(&self, most: u32) -> impl Iterator<Item = u32> {
        (1..=most).filter(|&tp| self.check_tensor_parallel(tp).is_ok())
    }

    /// The groups of experts that [`Model::check_expert_parallel`] accepts on `tensor` GPUs.
    pub fn legal_expert_parallel(&self, tensor: u32) -> impl Iterator<Item = u32> {
        (1..=tensor).filter(move |&expert| {
            self.check_expert_parallel(Widths { tensor, expert })
                .is_ok()
        })
    }
}
