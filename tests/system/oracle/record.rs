//! What a run leaves behind: one record per request, one per worker and, if asked for, one per step.

use super::pool::{BlockId, KvEvent};
use super::sequence::Batch;

/// What became of a run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// By request.
    pub requests: Vec<RequestRecord>,
    /// By worker.
    pub workers: Vec<WorkerRecord>,
    /// Last instant at which anything happened.
    pub end_ns: u64,
    /// Given up: nothing more would ever finish.
    pub is_endless: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestRecord {
    /// When the front end got it or, if it was refused because it waited for a refused one, gave it up. `None` if it
    /// never was sent.
    pub sent_ns: Option<u64>,
    /// Why it was refused, at that time.
    pub rejected: Option<Rejection>,
    pub worker: Option<usize>,
    /// Prompt tokens that a KV router believed to be cached there.
    pub router_overlap_tokens: usize,
    /// When the first batch that it was part of began.
    pub first_scheduled_ns: Option<u64>,
    /// Tokens found in the cache when it was first admitted.
    pub cached_tokens: Option<usize>,
    pub preemptions: usize,
    /// When each output token arrived.
    pub token_ns: Vec<u64>,
    pub finish_ns: Option<u64>,
}

/// Why the front end refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    PromptTooLong,
    PromptExceedsKvCache,
    OutputExceedsKvCache,
    DependencyRejected,
}

/// What a worker did.
#[derive(Debug, Clone, Default)]
pub struct WorkerRecord {
    /// Requests placed on it.
    pub requests: usize,
    /// Steps with something in them.
    pub steps: usize,
    pub busy_ps: u64,
    pub preemptions: usize,
    /// Most blocks in use right after a decision.
    pub peak_blocks: usize,
    /// Prompt and output tokens of admissions, resumed ones included, and the hits among them.
    pub admitted_tokens: usize,
    pub hit_tokens: usize,
    /// Evictions from the cache.
    pub evictions: usize,
    /// Every step that scheduled or preempted, if asked for.
    pub log: Vec<Step>,
}

/// One step as it is recorded when it is over.
#[derive(Debug, Clone, Default)]
pub struct Step {
    pub batch: Batch,
    /// Tables of the scheduled requests, right after the decision.
    pub tables: Vec<(usize, Vec<BlockId>)>,
    pub decided_ns: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    pub finished: Vec<usize>,
    /// The rest is the state after delivery.
    pub free_queue: Vec<BlockId>,
    pub distinct_contents: usize,
    /// Since the last recorded step.
    pub events: Vec<KvEvent>,
}
