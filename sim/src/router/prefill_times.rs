//! How long the prefill of one request should take on each rank: what a router's load model is told.
//!
//! The real router asks a performance model of one engine about a forward pass over one request alone: what it computes
//! behind what it finds cached. Here the rank's own timing model is asked the same question, so that a fleet of several
//! GPUs is judged GPU by GPU. Stages of a pipeline are passed one behind the other; ranks that step together take the time
//! of what they compute together for this request's tokens too. Source: dynamo-kv-router 1.6, prefill load estimator.

// Model: the real estimator is an AIConfigurator model that is configured apart from the engines; here its numbers are
// those by which the simulated engines run, so that it never errs on a prefill alone. A prompt longer than a step is priced
// as one step, as in the real one; per further chunk that leaves out some milliseconds of weights read again.

use super::indexer::Rank;
use engine::{Chunk, Span, StepShape, StepTime};
use std::fmt;
use std::sync::Arc;

/// Timing models by rank.
#[derive(Clone)]
pub struct PrefillTimes {
    by_rank: Arc<[RankTimes]>,
}

/// The timing model of a rank.
#[derive(Clone)]
pub struct RankTimes {
    /// Of each stage, if there are several.
    pub timing: Arc<dyn StepTime>,
    /// Stages that a prefill passes, at least 1.
    pub stages: u32,
}

impl fmt::Debug for PrefillTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "times of {} ranks", self.by_rank.len())
    }
}

impl PrefillTimes {
    /// Of these ranks, in order.
    #[must_use]
    pub fn new(by_rank: Vec<RankTimes>) -> Self {
        PrefillTimes {
            by_rank: by_rank.into(),
        }
    }

    /// The time to compute `tokens` behind `cached` ones, at least one, with nothing beside.
    #[must_use]
    pub fn of(&self, rank: Rank, tokens: u64, cached: u64) -> Span {
        let RankTimes { timing, stages } = &self.by_rank[rank as usize];
        let count = |tokens: u64| u32::try_from(tokens).expect("prompts are below 2^31");
        let prefill = [Chunk {
            new_tokens: count(tokens),
            cached_tokens: count(cached),
        }];
        let step = timing.mixed(&StepShape {
            prefill: &prefill,
            decode_batch: 0,
            decode_context: 0,
        });
        let stages = u64::from(*stages);
        let hops = (stages - 1) * timing.hop(tokens).0;
        Span(stages * step.0 + hops + timing.together(tokens).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Basis, Piece, TimingSource};

    /// 10 ns a new token, 1 ns a cached one; 100 ns a hop, 1,000 ns together.
    struct Plain;

    impl StepTime for Plain {
        fn decode(&self, _batch: u32, _context: u64) -> Piece {
            unreachable!("a prefill alone is asked about")
        }

        fn mixed(&self, shape: &StepShape<'_>) -> Span {
            assert_eq!((shape.decode_batch, shape.decode_context), (0, 0));
            let [chunk] = shape.prefill else {
                panic!("one request alone")
            };
            Span::from_ns(u64::from(10 * chunk.new_tokens + chunk.cached_tokens))
        }

        fn hop(&self, tokens: u64) -> Span {
            assert_eq!(tokens, 7);
            Span::from_ns(100)
        }

        fn together(&self, tokens: u64) -> Span {
            assert_eq!(tokens, 7);
            Span::from_ns(1_000)
        }

        fn source(&self) -> TimingSource {
            TimingSource {
                name: "plain".to_owned(),
                basis: Basis::Given,
                detail: String::new(),
                guesses: Vec::new(),
            }
        }
    }

    #[test]
    fn a_prefill_passes_all_stages() {
        let rank = |stages| RankTimes {
            timing: Arc::new(Plain),
            stages,
        };
        let times = PrefillTimes::new(vec![rank(1), rank(3)]);
        // 7 new behind 5 cached: 75 ns; three stages and two hops: 225 + 200.
        assert_eq!(times.of(0, 7, 5), Span::from_ns(75 + 1_000));
        assert_eq!(times.of(1, 7, 5), Span::from_ns(425 + 1_000));
    }
}
