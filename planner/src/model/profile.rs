//! The timing profile of a simulation: the very model that prices the steps of its workers.
//!
//! Estimates are then as good as a planner's can be; what remains wrong with them is the batch that is asked for, not its time.

use super::ForwardPassModel;
use crate::observe::Work;
use engine::{Chunk, StepShape, StepTime};
use std::fmt;
use std::sync::Arc;

/// Requests of a pass beyond this many are priced as this many: enough for every batch of prompts.
const MOST_CHUNKS: u64 = 4096;

/// Step times of one rank.
// Model: prompts of a pass are taken to be equally long, and equally cached; attention over unequal prompts takes some per
// cent longer. With several ranks the slowest one counts.
#[derive(Clone)]
pub struct Profile(pub Arc<dyn StepTime>);

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Profile")
            .field(&self.0.source().name)
            .finish()
    }
}

impl Profile {
    fn rank_ms(&self, work: &Work) -> f64 {
        if work.is_idle() {
            return 0.0;
        }
        let shape = StepShape {
            prefill: &chunks(work),
            decode_batch: u32::try_from(work.decode_requests).unwrap_or(u32::MAX),
            decode_context: work.decode_kv_tokens.max(work.decode_requests),
        };
        self.0.step(&shape).as_ms()
    }
}

impl ForwardPassModel for Profile {
    fn estimate_ms(&self, ranks: &[Work]) -> Option<f64> {
        Some(
            ranks
                .iter()
                .map(|work| self.rank_ms(work))
                .fold(0.0, f64::max),
        )
    }

    fn boxed(&self) -> Box<dyn ForwardPassModel> {
        Box::new(self.clone())
    }
}

/// The prompts of a pass, the remainders on the first of them.
fn chunks(work: &Work) -> Vec<Chunk> {
    let tokens = work.prefill_tokens;
    let count = work.prefill_requests.clamp(1, MOST_CHUNKS).min(tokens);
    let part = |total: u64, at: u64| {
        let even = total / count + u64::from(at < total % count);
        u32::try_from(even).unwrap_or(u32::MAX)
    };
    let chunk = |at| Chunk {
        new_tokens: part(tokens, at),
        cached_tokens: part(work.prefill_kv_tokens, at),
    };
    (0..count).map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_spread_over_the_prompts_of_a_pass() {
        let work = Work {
            prefill_requests: 3,
            prefill_tokens: 100,
            prefill_kv_tokens: 64,
            ..Work::default()
        };
        let pieces: Vec<_> = chunks(&work)
            .iter()
            .map(|chunk| (chunk.new_tokens, chunk.cached_tokens))
            .collect();
        assert_eq!(pieces, [(34, 22), (33, 21), (33, 21)]);
        assert!(chunks(&Work::default()).is_empty());
    }
}
