//! What a scheduler wants done in one step.

use crate::timing::{Chunk, StepShape};
use crate::workload::RequestId;

/// One forward pass: which sequences take part and with how many tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepPlan {
    /// In the engine's batch order.
    pub scheduled: Vec<Scheduled>,
    /// Sequences that started or resumed in this step, in order.
    pub admitted: Vec<Admitted>,
    /// Sequences that lost their blocks while this step was planned, in order.
    pub preempted: Vec<RequestId>,
    /// Sequences that were computed elsewhere and got room for their KV while this step was planned, in order.
    pub reserved: Vec<Reserved>,
    /// Sequences that start with KV from elsewhere: their first token comes out of this step.
    pub arrived: Vec<RequestId>,
    /// Sequences that start with KV and first token from elsewhere: that token is out now.
    pub begun: Vec<RequestId>,
    /// The prefill part of the batch, as timing models see it.
    pub prefill: Vec<Chunk>,
    /// Number of sequences that decode one token.
    pub decode_batch: u32,
    /// Sum of their context lengths, the new tokens included.
    pub decode_context: u64,
    /// What they verify beside that one token, in speculative decoding.
    pub drafts: Drafts,
    /// What moves between the GPUs and the engine's own host memory as a part of the step.
    pub copies: HostCopies,
    /// How many steps with this very batch may be run in a row, each one token further, before the scheduler has to
    /// be asked again. 1 unless the batch only decodes and nothing but time can change it.
    pub up_to: u32,
}

/// KV that a step waits for on its way to or from [host memory](crate::host_pool). All 0 without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostCopies {
    /// Tokens brought up to the GPUs.
    pub loaded_tokens: u32,
    /// Tokens written down before the step can begin.
    pub written_tokens: u32,
}

/// What the decoding part of a step verifies, and how far that brings it. All 0 without speculation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drafts {
    /// Drafted tokens of all sequences together.
    pub tokens: u32,
    /// Tokens that each sequence gains per step in expected acceptance, in [parts](crate::speculation::PARTS); 0 where
    /// that is drawn.
    pub pace: u32,
    /// What the sequences have of their next tokens together, in parts: their context is by so much longer.
    pub fractions: u64,
}

/// A sequence's part in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// The request.
    pub request: RequestId,
    /// The scheduler's name for the running sequence.
    pub sequence: u32,
    /// Tokens computed in this step.
    pub new_tokens: u32,
    /// Tokens computed (or found in the cache) before it.
    pub computed_before: u32,
    /// Whether a token is sampled at its end.
    pub samples: bool,
}

/// A sequence that started or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The request.
    pub request: RequestId,
    /// Tokens it has: the prompt, after a preemption also what it generated before.
    pub known_tokens: u32,
    /// Of these, tokens found in the KV cache.
    pub hit_tokens: u32,
    /// And tokens that this step brings up from the engine's own host memory.
    pub loaded_tokens: u32,
    /// Of these, tokens that a storage gave.
    pub stored_tokens: u32,
    /// Whether it ran before and was preempted.
    pub is_resumed: bool,
}

/// A sequence whose blocks are there and whose KV is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    /// The request.
    pub request: RequestId,
    /// Tokens of its prompt that the worker has already: whole blocks.
    pub hit_tokens: u32,
    /// Tokens of the blocks that are to be filled.
    pub missing_tokens: u32,
}

impl StepPlan {
    /// The plan as timing models see it.
    #[must_use]
    pub fn shape(&self) -> StepShape<'_> {
        StepShape {
            prefill: &self.prefill,
            // Model: a sequence that verifies drafts costs what one token each of so many sequences does, that share its
            // context. Attention reads that context once, as real kernels do; the table's point has shorter sequences, and
            // more of them, which costs some per cent of attention.
            decode_batch: self.decode_batch + self.drafts.tokens,
            decode_context: self.decode_context,
        }
    }

    /// Tokens computed in prefill.
    #[must_use]
    pub fn prefill_tokens(&self) -> u64 {
        self.prefill
            .iter()
            .map(|chunk| u64::from(chunk.new_tokens))
            .sum()
    }

    /// Context of the whole batch at the end of the first step: tokens held in the KV cache by its sequences.
    #[must_use]
    pub fn held_tokens(&self) -> u64 {
        let chunks = self
            .prefill
            .iter()
            .map(|chunk| u64::from(chunk.new_tokens) + u64::from(chunk.cached_tokens));
        self.decode_context + chunks.sum::<u64>()
    }

    pub(crate) fn clear(&mut self) {
        self.scheduled.clear();
        self.admitted.clear();
        self.preempted.clear();
        self.reserved.clear();
        self.arrived.clear();
        self.begun.clear();
        self.prefill.clear();
        self.decode_batch = 0;
        self.decode_context = 0;
        self.drafts = Drafts::default();
        self.copies = HostCopies::default();
        self.up_to = 1;
    }
}
