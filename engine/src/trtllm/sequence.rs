//! A request's life inside a worker.

use crate::kv_cache::{Stretch, Table};
use crate::workload::RequestId;

/// Index of a sequence in the scheduler.
pub(super) type SequenceId = u32;

/// A request inside a worker.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub request: RequestId,
    /// Outputs after which it ends.
    pub output_goal: u32,
    /// Outputs delivered.
    pub outputs: u32,
    /// Tokens to be prefilled: the prompt, after a pause with the outputs before it.
    pub prompt: u32,
    /// Outputs delivered when it was last paused; they are part of `prompt`.
    pub outputs_in_prompt: u32,
    /// Tokens whose KV is in the cache or computed by a step in flight.
    pub computed: u32,
    /// It has blocks.
    pub is_started: bool,
    pub was_paused: bool,
    /// It is part of a plan in flight.
    pub is_in_flight: bool,
    /// Parts of its next token that it has by expected acceptance.
    pub fraction: u32,
    pub table: Table,
    pub path: Vec<Stretch>,
}

impl Sequence {
    /// True if its next step decodes.
    pub fn decodes(&self) -> bool {
        self.is_started && self.computed >= self.prompt
    }

    /// Outputs it lacks.
    pub fn missing(&self) -> u32 {
        self.output_goal - self.outputs
    }

    pub fn is_finished(&self) -> bool {
        self.outputs >= self.output_goal
    }

    /// Prompt and all outputs it will have.
    pub fn tokens_at_end(&self) -> u32 {
        self.prompt - self.outputs_in_prompt + self.output_goal
    }
}
