//! The shape of a decoder as a composition needs it: sizes of its attention and of its FFN.
//!
//! Every [`Model`] has one. The models with experts and latent attention that reference values exist for are here.

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
        match [qwen3_30b_a3b(), deepseek_v3()]
            .into_iter()
            .find(|shape| shape.id.eq_ignore_ascii_case(name))
        {
            Some(shape) => Ok(shape),
            None => Ok(Shape::from(&Model::find(name)?)),
        }
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
            attention: AttentionShape::Grouped {
                kv_heads: model.kv_heads,
                head_dim: model.head_dim,
                has_qk_norm: model.has_qk_norm,
            },
            ffn: FfnShape::Gated {
                intermediate: model.intermediate,
            },
        }
    }
}

/// <https://huggingface.co/Qwen/Qwen3-30B-A3B>; AIConfigurator spreads its tokens by a power law of 1.2.
fn qwen3_30b_a3b() -> Shape {
    Shape {
        id: "Qwen/Qwen3-30B-A3B".to_owned(),
        layers: 48,
        hidden: 2_048,
        vocab: 151_936,
        heads: 32,
        attention: AttentionShape::Grouped {
            kv_heads: 4,
            head_dim: 128,
            has_qk_norm: true,
        },
        ffn: FfnShape::Experts {
            experts: 128,
            top_k: 8,
            intermediate: 768,
            shared: 0,
            load: Load::PowerLaw(120),
        },
    }
}

/// <https://huggingface.co/deepseek-ai/DeepSeek-V3>. The three layers with one FFN are taken for layers with experts, as
/// AIConfigurator does, and its tokens spread by a power law of 1.01.
fn deepseek_v3() -> Shape {
    Shape {
        id: "deepseek-ai/DeepSeek-V3".to_owned(),
        layers: 61,
        hidden: 7_168,
        vocab: 129_280,
        heads: 128,
        attention: AttentionShape::Latent {
            q_rank: 1_536,
            kv_rank: 512,
            nope_dim: 128,
            rope_dim: 64,
            value_dim: 128,
        },
        ffn: FfnShape::Experts {
            experts: 256,
            top_k: 8,
            intermediate: 2_048,
            shared: 1,
            load: Load::PowerLaw(101),
        },
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
