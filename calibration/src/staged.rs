//! Step times of one stage of a pipeline.
//!
//! In words: a stage computes its share of the layers, so a step takes there what it takes on a worker with all layers,
//! divided by the stages. Between two stages hidden states and residuals of all tokens go over the link: `4 · hidden` bytes
//! a token (two vectors of 16-bit numbers), after a fixed latency.

// Model: everything is divided, the output head and the host's work too, which are the last stage's alone. A pipeline is as
// fast as its slowest stage, so real ones are slower by their head: some 5 % of a small model, 1 % of a large one.

use engine::{Piece, Span, StepShape, StepTime, TimingSource};
use std::sync::Arc;

/// Latency of a message from GPU to GPU: AIConfigurator's `p2p_latency` of its systems, 10 us.
const LATENCY: Span = Span(10_000_000);

/// Times per stage.
pub struct Staged {
    inner: Arc<dyn StepTime>,
    stages: u64,
    hop: Option<Hop>,
}

/// What goes from stage to stage, and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hop {
    /// Hidden size of the model.
    pub hidden: u32,
    /// The link of a GPU.
    pub bytes_per_s: f64,
}

impl Staged {
    /// Stages of a worker whose steps take `inner` if it holds all layers. Without a known hop it takes no time.
    #[must_use]
    pub fn new(inner: Arc<dyn StepTime>, stages: u32, hop: Option<Hop>) -> Staged {
        assert!(stages > 0, "a pipeline has a stage");
        Staged {
            inner,
            stages: u64::from(stages),
            hop,
        }
    }

    fn part(&self, time: Span) -> Span {
        Span((time.0 / self.stages).max(1))
    }
}

impl StepTime for Staged {
    fn decode(&self, batch: u32, context: u64) -> Piece {
        let piece = self.inner.decode(batch, context);
        // Priced step by step, so that pieces need not join.
        Piece {
            from: context,
            until: context + 1,
            at: self.part(piece.time(context)),
            slope_ps: 0,
        }
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        self.part(self.inner.mixed(shape))
    }

    fn hop(&self, tokens: u64) -> Span {
        self.hop.map_or(Span::ZERO, |hop| {
            let bytes = 4 * u64::from(hop.hidden) * tokens;
            LATENCY + Span((bytes as f64 / hop.bytes_per_s * 1e12).round() as u64)
        })
    }

    fn is_extrapolated(&self, shape: &StepShape<'_>) -> bool {
        self.inner.is_extrapolated(shape)
    }

    fn source(&self) -> TimingSource {
        let mut source = self.inner.source();
        source.detail = format!("{}, in {} stages", source.detail, self.stages);
        source
            .guesses
            .push("no run in stages was compared with: all are priced alike".to_owned());
        if self.hop.is_none() {
            source.guesses.push(
                "hops between pipeline stages take no time, as neither model nor gpu is given"
                    .to_owned(),
            );
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::Linear;

    #[test]
    fn stages_share_the_time_and_pay_the_hop() {
        let inner = Arc::new(Linear::from_ns(8_000, 20, 1));
        let hop = Hop {
            hidden: 8_192,
            bytes_per_s: 450e9,
        };
        let staged = Staged::new(inner.clone(), 4, Some(hop));
        // 8,000 + 2 · 20 + 100 ns in four parts.
        assert_eq!(staged.decode(2, 100).time(100), Span(8_140_000 / 4));
        // 1,000 tokens of 32,768 bytes at 450 bytes a nanosecond are 72,818 ns.
        assert_eq!(staged.hop(1_000), Span(10_000_000 + 72_817_778));
        let free = Staged::new(inner, 4, None);
        assert_eq!(free.hop(1_000), Span::ZERO);
        assert_eq!(free.source().guesses.len(), 2);
    }
}
