//! Step times with speculative decoding: every step also makes the drafts for the next.
//!
//! In words: a draft pass takes a share x of a step of the model, for k drafts k of them. Where x = 1/L, one layer of L, that is
//! how AIConfigurator counts the passes of MTP heads (`nextn`): decode steps times (L + k)/L. A step with prompts is passed once
//! more by the drafting layer as a whole; the other k − 1 drafts are made for what decodes. What a step verifies stands in its
//! shape: as many tokens as sequences and drafts.

// Model: drafts are made one after the other, each at the price of a step with all drafted tokens in it; in memory-bound
// steps that is the same, in large batches up to k/2 times too much of the share x. The drafting layer's own output head
// (a tenth of a small model's time) is not counted beside x.

use engine::{Piece, Span, StepShape, StepTime, TimingSource};
use std::sync::Arc;

/// Times of steps that verify drafts and make new ones.
pub struct Drafting {
    inner: Arc<dyn StepTime>,
    drafts: u32,
    share: f64,
}

impl Drafting {
    /// Steps that take `inner` without drafting, and `share` of that for each of `drafts` passes.
    #[must_use]
    pub fn new(inner: Arc<dyn StepTime>, drafts: u32, share: f64) -> Drafting {
        assert!(
            drafts > 0 && share >= 0.0 && share.is_finite(),
            "drafts take time or none"
        );
        Drafting {
            inner,
            drafts,
            share,
        }
    }
}

fn times(time: Span, factor: f64) -> Span {
    Span((time.0 as f64 * factor).round() as u64)
}

impl StepTime for Drafting {
    fn decode(&self, batch: u32, context: u64) -> Piece {
        let factor = 1.0 + f64::from(self.drafts) * self.share;
        let piece = self.inner.decode(batch, context);
        Piece {
            at: times(piece.at, factor),
            slope_ps: (piece.slope_ps as f64 * factor).round() as i64,
            ..piece
        }
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        let whole = times(self.inner.mixed(shape), 1.0 + self.share);
        if shape.decode_batch == 0 {
            return whole;
        }
        let decodes = self.inner.decode(shape.decode_batch, shape.decode_context);
        let further = f64::from(self.drafts - 1) * self.share;
        whole + times(decodes.time(shape.decode_context), further)
    }

    fn together(&self, tokens: u64) -> Span {
        let factor = 1.0 + f64::from(self.drafts) * self.share;
        times(self.inner.together(tokens), factor)
    }

    fn is_extrapolated(&self, shape: &StepShape<'_>) -> bool {
        self.inner.is_extrapolated(shape)
    }

    fn source(&self) -> TimingSource {
        let mut source = self.inner.source();
        source.detail = format!(
            "{}, and {:.4} of a step for each of {} drafts",
            source.detail, self.share, self.drafts
        );
        source
            .guesses
            .push("no run with drafts was compared with: verifying is priced as a larger batch, and acceptance is as given".to_owned());
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::Linear;
    use engine::Chunk;

    #[test]
    fn drafts_of_one_layer_scale_as_layers_do() {
        let drafting = Drafting::new(Arc::new(Linear::from_ns(6_100, 0, 10)), 3, 1.0 / 61.0);
        // (61 + 3) / 61 of 6,100 + 10 · 100 ns.
        let piece = drafting.decode(8, 100);
        assert_eq!(piece.at, Span(6_400_000));
        assert_eq!(piece.slope_ps, 10_492);
        let shape = StepShape {
            prefill: &[Chunk {
                new_tokens: 50,
                cached_tokens: 0,
            }],
            decode_batch: 8,
            decode_context: 122,
        };
        // 6,100 + 10 · 172 = 7,820 ns and a 61st of it; 2/61 of the decodes' 7,320 ns.
        let expected = 7_820_000.0 * 62.0 / 61.0 + 240_000.0;
        assert!((drafting.mixed(&shape).0 as f64 - expected).abs() <= 1.0);
    }
}
