//! What a step does, in the few numbers that its time is fitted to.
//!
//! ```text
//! prefill_tokens  P = Σ new                               over the chunks of prompts
//! prefill_pairs   A = Σ new · cached + new · (new + 1) / 2   pairs of a new token and a token it attends to
//! decode_batch    B, decode_context C                     sequences that decode; their summed context, new tokens included
//! ```
//!
//! Forward-pass metrics have sums in place of chunks; with n chunks of P tokens over K cached ones the pairs are taken as
//! K·P/n + P²/(2n) + P/2, which is exact for equal chunks.

use engine::StepShape;

/// The work of one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// Chunks of prompts.
    pub prefill_chunks: u32,
    /// Tokens in them.
    pub prefill_tokens: u64,
    /// Pairs of a new token and one it attends to, itself included.
    pub prefill_pairs: f64,
    /// Sequences that decode one token.
    pub decode_batch: u32,
    /// Their summed context, new tokens included.
    pub decode_context: u64,
}

impl Work {
    /// The work of a planned step.
    #[must_use]
    pub fn of(shape: &StepShape<'_>) -> Work {
        let mut work = Work {
            decode_batch: shape.decode_batch,
            decode_context: shape.decode_context,
            ..Work::default()
        };
        for chunk in shape.prefill {
            work.add_chunk(chunk.new_tokens, chunk.cached_tokens);
        }
        work
    }

    /// Adds `new` tokens of a prompt behind `cached` ones.
    pub fn add_chunk(&mut self, new: u32, cached: u32) {
        self.prefill_chunks += 1;
        self.prefill_tokens += u64::from(new);
        self.prefill_pairs +=
            f64::from(new) * f64::from(cached) + f64::from(new) * (f64::from(new) + 1.0) / 2.0;
    }

    /// Adds a decode whose context, new token included, is `context`.
    pub fn add_decode(&mut self, context: u32) {
        self.decode_batch += 1;
        self.decode_context += u64::from(context);
    }

    /// Chunks known by their sums alone.
    #[must_use]
    pub fn from_sums(chunks: u32, tokens: u64, cached: u64) -> Work {
        let (n, p, k) = (f64::from(chunks.max(1)), tokens as f64, cached as f64);
        Work {
            prefill_chunks: chunks,
            prefill_tokens: tokens,
            prefill_pairs: k * p / n + p * p / (2.0 * n) + p / 2.0,
            ..Work::default()
        }
    }

    /// All tokens computed.
    #[must_use]
    pub fn new_tokens(&self) -> u64 {
        self.prefill_tokens + u64::from(self.decode_batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Chunk;

    #[test]
    fn pairs_are_counted_one_by_one() {
        let chunk = Chunk {
            new_tokens: 3,
            cached_tokens: 10,
        };
        let work = Work::of(&StepShape {
            prefill: &[chunk],
            decode_batch: 2,
            decode_context: 30,
        });
        // The three new tokens see 11, 12 and 13 tokens.
        assert_eq!(work.prefill_pairs, 36.0);
        assert_eq!(work.new_tokens(), 5);
        assert_eq!(
            Work::from_sums(1, 3, 10).prefill_pairs,
            36.0,
            "one chunk, known by its sums"
        );
        assert_eq!(
            Work::from_sums(2, 6, 20).prefill_pairs,
            72.0,
            "two equal chunks"
        );
    }
}
