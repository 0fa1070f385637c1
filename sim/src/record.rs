//! What a run leaves behind: one record per request, one per worker, and the gaps between tokens.
//!
//! Everything printed later is a function of these, so that a summary cannot differ between stepping and coasting
//! unless the records do.

use crate::adversity::record::AdversityRecord;
use crate::disaggregation::TransferRecord;
use crate::kvbm::KvbmRecord;
use crate::links::LinkUse;
use crate::scaling::ScalingRecord;
use engine::{Drafted, RequestId, Span, Time};

/// The life of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRecord {
    /// When the client sent it.
    pub arrival: Time,
    /// When a worker was chosen. `Time::MAX` while that has not happened, as in the fields below.
    pub placed: Time,
    /// Start of the first step it took part in.
    pub first_scheduled: Time,
    /// End of the step that produced its first token.
    pub first_token: Time,
    /// End of the step that produced its last token; for a request without an answer, when it was given up.
    pub finish: Time,
    /// Index of its worker, `u32::MAX` if it never got one.
    pub worker: u32,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Tokens generated so far.
    pub output_tokens: u32,
    /// Prompt tokens found in the KV cache when it was first admitted.
    pub cached_tokens: u32,
    /// Prompt tokens the router believed to be cached on the chosen worker.
    pub router_overlap_tokens: u32,
    /// How often it lost its blocks and had to start again.
    pub preemptions: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Excluded from latency and throughput statistics (warm-up).
    pub is_warmup: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Not ended when the run did.
    Unfinished,
    /// All tokens delivered.
    Completed,
    /// Refused at the front end.
    Rejected(Rejection),
    /// Its client did not want it any more.
    Cancelled,
    /// Given up by its client or lost by the system, after all retries.
    Failed(Failure),
}

/// Why a request that was accepted has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// The first token did not come in time.
    TtftTimeout,
    /// The last token did not come in time.
    Timeout,
    /// Its worker was lost, and no other went on with it.
    WorkerLost,
}

impl Failure {
    /// Stable name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Failure::TtftTimeout => "ttft_timeout",
            Failure::Timeout => "timeout",
            Failure::WorkerLost => "worker_lost",
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejection {
    /// The prompt has `max_model_len` tokens or more.
    PromptTooLong,
    /// The prompt alone needs more KV blocks than a worker has.
    PromptExceedsKvCache,
    /// The prompt fits, prompt and output together do not.
    OutputExceedsKvCache,
    /// No worker of the domain that it is bound to can take it on.
    NoWorkerInDomain,
    /// A request it waited for was refused, so its prompt cannot exist.
    DependencyRejected,
    /// No worker that could hold it has all taints that it requires.
    RequiredTaintsUnmet,
    /// All workers that could take it are busy.
    Overloaded,
    /// All workers that could take it are gone.
    NoWorker,
}

impl Rejection {
    /// Stable name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Rejection::PromptTooLong => "prompt_too_long",
            Rejection::PromptExceedsKvCache => "prompt_exceeds_kv_cache",
            Rejection::OutputExceedsKvCache => "output_exceeds_kv_cache",
            Rejection::NoWorkerInDomain => "no_worker_in_domain",
            Rejection::DependencyRejected => "dependency_rejected",
            Rejection::RequiredTaintsUnmet => "required_taints_unmet",
            Rejection::Overloaded => "overloaded",
            Rejection::NoWorker => "no_worker",
        }
    }
}

/// Gaps between tokens that form an arithmetic progression: `first, first + slope, ...`, `steps` of them, each seen by
/// `sequences` sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapRun {
    /// The first gap.
    pub first: Span,
    /// Change from one gap to the next, in picoseconds.
    pub slope_ps: i64,
    /// Number of gaps.
    pub steps: u32,
    /// How many sequences saw each of them.
    pub sequences: u32,
}

/// What one worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerRecord {
    /// Index of its pool.
    pub pool: u32,
    /// GPUs it occupies.
    pub gpus: u32,
    /// Requests placed on it.
    pub requests: u64,
    /// Steps run.
    pub steps: u64,
    /// Time spent in steps.
    pub busy: Span,
    /// Of that, steps that computed prompt tokens, alone or beside decoding.
    pub prefill_busy: Span,
    /// Of `busy`, steps whose time lies beyond what their timing model was measured at.
    pub extrapolated: Span,
    /// Tokens computed in prefill (recomputation after preemption included).
    pub prefill_tokens: u64,
    /// Tokens generated by decode steps.
    pub decode_tokens: u64,
    /// What speculation did in them.
    pub drafted: Drafted,
    /// Admissions: first ones and those after a preemption.
    pub admissions: u64,
    /// Prompt tokens of admissions (first ones and those after a preemption).
    pub admitted_tokens: u64,
    /// Of those, tokens found in the KV cache.
    pub hit_tokens: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// KV blocks it has.
    pub kv_blocks: u64,
    /// Tokens per block.
    pub block_size: u32,
    /// Most blocks in use at once.
    pub peak_blocks: u64,
    /// Integral over busy time of the tokens held by running sequences: token-picoseconds.
    pub held_token_ps: u128,
}

/// The life of a request that the front end sent itself, ahead of the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AheadRecord {
    /// As of any other request. A warm-up if its answer was one.
    pub life: RequestRecord,
    /// Whose answer it followed.
    pub of: RequestId,
    /// The next turn, if there is one.
    pub next: Option<RequestId>,
}

/// Everything a run leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// By request index, those that clients sent.
    pub requests: Vec<RequestRecord>,
    /// The front end's own; their indices follow.
    pub ahead: Vec<AheadRecord>,
    /// By worker index.
    pub workers: Vec<WorkerRecord>,
    /// All gaps between consecutive tokens of a request, warm-up requests left out.
    pub gaps: Vec<GapRun>,
    /// In the order of requests, those that one worker prefilled for another.
    pub transfers: Vec<TransferRecord>,
    /// What each link between workers did, one entry for each direction.
    pub links: Vec<LinkUse>,
    /// What happened below the GPUs' caches, where workers have such tiers.
    pub kvbm: Option<KvbmRecord>,
    /// What went wrong, where something can.
    pub adversity: Option<AdversityRecord>,
    /// What a planner decided and what became of the workers, where there is one.
    pub scaling: Option<ScalingRecord>,
}

impl RequestRecord {
    /// False for a request that was never due: the run's duration or a stuck worker ended it before. It is not part of
    /// the run.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.arrival != Time::MAX
    }
}

impl Recording {
    /// The requests that were part of the run, with their indices.
    pub fn sent(&self) -> impl Iterator<Item = (usize, &RequestRecord)> {
        let requests = self.requests.iter().enumerate();
        requests.filter(|(_, request)| request.was_sent())
    }

    /// The record of a request.
    #[must_use]
    pub fn request(&self, id: RequestId) -> &RequestRecord {
        let index = id.0 as usize;
        match index.checked_sub(self.requests.len()) {
            Some(ahead) => &self.ahead[ahead].life,
            None => &self.requests[index],
        }
    }
}
