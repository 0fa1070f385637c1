//! The shape of a decoder as a composition needs it: sizes of its attention and of its FFN.
//!
//! Every [`Model`] has one.

use crate::error::CalibrationError;
use crate::model::Model;
use crate::tables::Load;

/// A decoder's sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Hugging Face id.
    pub id: String,
    /// Decoder layers.
    pub layers: u32,
    /// Hidden size.
    pub hidden: u32,
    /// Vocabulary.
    pub vocab: u32,
    /// Query heads.
    pub heads: u32,
    /// How it attends.
    pub attention: AttentionShape,
    /// What follows attention in a layer.
    pub ffn: FfnShape,
}

/// How a decoder attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionShape {
    /// Groups of query heads share a key and value head.
    Grouped {
        /// Key and value heads.
        kv_heads: u32,
        /// Size of a head.
        head_dim: u32,
        /// Queries and keys are normed per head.
        has_qk_norm: bool,
    },
    /// All heads read one latent vector per token (MLA).
    Latent {
        /// Size of the compressed query.
        q_rank: u32,
        /// Size of the latent vector.
        kv_rank: u32,
        /// Size of the part of a head without position.
        nope_dim: u32,
        /// Size of the part with position (RoPE).
        rope_dim: u32,
        /// Size of a value head.
        value_dim: u32,
    },
}

/// What follows attention in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FfnShape {
    /// One gated FFN.
    Gated {
        /// Its size.
        intermediate: u32,
    },
    /// A router and gated experts.
    Experts {
        /// Experts of a layer.
        experts: u32,
        /// Experts a token goes to.
        top_k: u32,
        /// FFN size of an expert.
        intermediate: u32,
        /// Experts that every token goes to besides.
        shared: u32,
        /// How evenly the router loads them.
        load: Load,
    },
}

impl Shape {
    /// The shape of the model with this id or at this path.
    ///
    /// # Errors
    /// Those of [`Model::find`].
    pub fn find(name: &str) -> Result<Shape, CalibrationError> {
        Ok(Shape::from(&Model::find(name)?))
    }

    /// Whether it can be split over `gpus` GPUs with `expert_parallel` groups of experts; if not, why, in words that
    /// follow "a width that".
    ///
    /// # Errors
    /// Heads, FFN or experts that do not divide.
    pub fn check(&self, gpus: u32, expert_parallel: u32) -> Result<(), String> {
        if gpus == 0 {
            return Err("is at least 1".to_owned());
        }
        if !self.heads.is_multiple_of(gpus) {
            return Err(format!("divides the {} attention heads", self.heads));
        }
        if let AttentionShape::Grouped { kv_heads, .. } = self.attention
            && !kv_heads.is_multiple_of(gpus)
            && !gpus.is_multiple_of(kv_heads)
        {
            return Err(format!(
                "divides, or is a multiple of, the {kv_heads} KV heads"
            ));
        }
        match self.ffn {
            FfnShape::Gated { intermediate } if !intermediate.is_multiple_of(gpus) => {
                Err(format!("divides the FFN size {intermediate}"))
            }
            FfnShape::Gated { .. } => Ok(()),
            FfnShape::Experts {
                experts,
                intermediate,
                ..
            } => {
                if expert_parallel == 0 || !gpus.is_multiple_of(expert_parallel) {
                    return Err(format!("{expert_parallel} groups of experts divide"));
                }
                if !experts.is_multiple_of(expert_parallel) {
                    return Err(format!("has groups that divide the {experts} experts"));
                }
                if !intermediate.is_multiple_of(gpus / expert_parallel) {
                    let groups = "leaves each group of experts a divisor";
                    return Err(format!("{groups} of their FFN size {intermediate}"));
                }
                Ok(())
            }
        }
    }
}

impl From<&Model> for Shape {
    fn from(model: &Model) -> Shape {
        Shape {
            id: model.id.clone(),
            layers: model.layers,
            hidden: model.hidden,
            vocab: model.vocab,
            heads: model.heads,
            attention: attention(model),
            ffn: ffn(model),
        }
    }
}

fn attention(model: &Model) -> AttentionShape {
    match model.latent {
        None => AttentionShape::Grouped {
            kv_heads: model.kv_heads,
            head_dim: model.head_dim,
            has_qk_norm: model.has_qk_norm,
        },
        Some(latent) => AttentionShape::Latent {
            q_rank: latent.q_rank,
            kv_rank: latent.kv_rank,
            nope_dim: latent.nope_dim,
            rope_dim: latent.rope_dim,
            value_dim: latent.value_dim,
        },
    }
}

/// The first layers with one FFN are taken for layers with experts, as AIConfigurator does.
fn ffn(model: &Model) -> FfnShape {
    match model.experts {
        None => FfnShape::Gated {
            intermediate: model.intermediate,
        },
        Some(experts) => FfnShape::Experts {
            experts: experts.count,
            top_k: experts.per_token,
            intermediate: experts.intermediate,
            shared: experts.shared,
            load: load(model),
        },
    }
}

/// How unevenly AIConfigurator has the router load the experts: a power law of 1.2 for Qwen3 and Mixtral, 1.01 for others.
fn load(model: &Model) -> Load {
    let id = model.id.to_lowercase();
    if id.contains("qwen3") || id.contains("mixtral") {
        Load::PowerLaw(120)
    } else {
        Load::PowerLaw(101)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_that_do_not_divide_are_refused() {
        let moe = Shape::find("qwen/qwen3-30b-a3b").expect("here");
        assert_eq!(moe.check(8, 8), Ok(()));
        assert_eq!(moe.check(8, 1), Ok(()));
        for (gpus, groups, part) in [
            (0, 1, "at least 1"),
            (3, 1, "32 attention heads"),
            (8, 3, "3 groups"),
            (8, 0, "0 groups"),
        ] {
            let why = moe.check(gpus, groups).expect_err("illegal");
            assert!(why.contains(part), "{why}");
        }
        let dense = Shape::find("meta-llama/Llama-3.1-8B").expect("embedded");
        assert!(matches!(
            dense.ffn,
            FfnShape::Gated {
                intermediate: 14_336
            }
        ));
        assert_eq!(dense.check(8, 1), Ok(()));
        assert!(Shape::find("no/model").is_err());
    }
}
