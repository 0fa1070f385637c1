//! What runs steps for real: the seam between a scheduler's plan and a model that computes it.
//!
//! A driver turns the newest plan into a [`Batch`] while its block tables are current, and hands it to the [`Executor`]
//! of the worker. Up to the scheduler's `depth` batches are handed over before the first is done, so a batch says which
//! positions are computed and where their KV lies, but not which tokens were sampled before: an executor keeps those.

use crate::kv_cache::BlockId;
use crate::plan::StepPlan;
use crate::vllm;
use crate::workload::RequestId;
use std::fmt;

/// One forward pass, self-contained: it can go to another thread.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// In the engine's batch order.
    pub rows: Vec<Row>,
}

/// A sequence's part in a forward pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The request.
    pub request: RequestId,
    /// Tokens computed in this pass, at least 1.
    pub new_tokens: u32,
    /// Tokens whose KV is in the blocks before it, or is written by rows of this pass that share those blocks.
    pub computed_before: u32,
    /// Whether a token is sampled at its end.
    pub samples: bool,
    /// The block table: position `p` lies in block `p / block_size`, slot `p % block_size`. Covers all tokens above.
    pub blocks: Vec<BlockId>,
}

impl Batch {
    /// The batch of a plan that `scheduler` has just handed out. Its block ids must be tracked.
    #[must_use]
    pub fn of(scheduler: &vllm::Scheduler, plan: &StepPlan) -> Batch {
        let row = |part: &crate::plan::Scheduled| Row {
            request: part.request,
            new_tokens: part.new_tokens,
            computed_before: part.computed_before,
            samples: part.samples,
            blocks: scheduler.block_table(part),
        };
        Batch {
            rows: plan.scheduled.iter().map(row).collect(),
        }
    }

    /// Tokens computed.
    #[must_use]
    pub fn new_tokens(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.new_tokens)).sum()
    }
}

/// Computes batches, one after the other, on a thread of its own.
pub trait Executor: Send {
    /// Runs a batch to the end and returns the sampled tokens, one for each row that samples, in order.
    ///
    /// # Errors
    /// The batch could not be computed; nothing can be run afterwards.
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError>;
}

/// Why an executor gave up, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorError(pub String);

impl fmt::Display for ExecutorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ExecutorError {}
