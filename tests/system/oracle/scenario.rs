//! What is simulated: engine settings, step cost, workers, router, load, requests. Plain data.

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Name, or the seed it was drawn from.
    pub name: String,
    /// Settings of every worker's engine.
    pub engine: Engine,
    /// How long a step takes.
    pub cost: StepCost,
    /// Number of workers.
    pub workers: usize,
    /// Who gets which request.
    pub router: Router,
    /// Of what the router draws.
    pub seed: u64,
    /// Closed loop: how many conversations may be open. `None`: requests are sent by their times.
    pub concurrency: Option<usize>,
    /// Nothing is sent after this time.
    pub duration_ns: Option<u64>,
    /// That many requests, the first of the list, are left out of the statistics; changes nothing else.
    pub warmup_requests: usize,
    /// The front end refuses what can never fit a worker's KV cache.
    pub reject_what_cannot_fit: bool,
    /// In order of arrival; a request is known by its index.
    pub requests: Vec<Request>,
}

/// vLLM's settings, by vLLM's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Engine {
    pub version: Version,
    pub block_size: usize,
    pub num_gpu_blocks: usize,
    pub max_num_seqs: usize,
    pub max_num_batched_tokens: usize,
    pub max_model_len: usize,
    pub enable_prefix_caching: bool,
    pub enable_chunked_prefill: bool,
    pub long_prefill_token_threshold: usize,
    pub long_prefill_token_threshold_adaptive: bool,
    pub scheduler_reserve_full_isl: bool,
    pub max_num_active_seqs: Option<usize>,
    pub policy: Policy,
    pub watermark: f64,
    pub async_scheduling: bool,
    /// Stages that batches pass one behind the other.
    pub stages: usize,
    /// Schedulers that step together.
    pub ranks: usize,
    pub speculation: Option<Speculation>,
}

/// Drafts that are verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Speculation {
    /// How often the draft at each place is accepted if those before it are.
    pub rates: Vec<f64>,
    /// Every step brings the mean, and what it lacks of a token is kept; else acceptance is drawn.
    pub is_expected: bool,
    pub seed: u64,
    /// The last block of a prefix hit is computed again.
    pub reads_hidden_states: bool,
    /// As many slots as drafts are set aside behind them.
    pub has_kv: bool,
}

/// Releases that decide differently (R9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V0_32,
    V0_33,
}

/// Order of the waiting queue and choice of the preemption victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Fcfs,
    Priority,
}

/// `a + b * new tokens + c * (computed before + new tokens)` nanoseconds, summed over the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCost {
    pub a: u64,
    pub b: u64,
    pub c: u64,
}

/// How a worker is chosen; the rules are in `router.rs`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Router {
    RoundRobin,
    LeastLoaded,
    Random,
    PowerOfTwo,
    Kv {
        /// Blocks of prefill that an overlapping block saves.
        credit: f64,
        /// Weight of prefill against blocks held.
        scale: f64,
    },
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Not sent before; ignored in a closed loop.
    pub arrival_ns: u64,
    pub prompt: Vec<Segment>,
    pub output_len: usize,
    /// Smaller is served first.
    pub priority: i64,
    /// Requests of one session share a slot of a closed loop; counts there only.
    pub session: usize,
    /// Requests it waits for, in no circle.
    pub after: Vec<Dependency>,
}

/// A run of prompt tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The first `len` (at most 4096) tokens of content `id`.
    Content { id: u64, len: usize },
    /// The first `len` output tokens of `request`.
    Output { request: usize, len: usize },
}

/// A moment in another request's life plus a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    pub on: usize,
    pub moment: Moment,
    pub delay_ns: u64,
}

/// The moment a dependent request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Sent,
    Finished,
}

impl Scenario {
    /// Prompt tokens, then all output tokens that `request` can have.
    pub fn tokens(&self, request: usize) -> Vec<u64> {
        let output = Segment::Output {
            request,
            len: self.requests[request].output_len,
        };
        self.requests[request]
            .prompt
            .iter()
            .chain([&output])
            .flat_map(|segment| segment.tokens())
            .collect()
    }
}

impl Engine {
    /// How many batches are scheduled ahead: with asynchronous scheduling one more than the one that runs.
    pub fn depth(&self) -> usize {
        if self.async_scheduling {
            2
        } else {
            self.stages
        }
    }

    /// Drafts of a step.
    pub fn drafts(&self) -> usize {
        let drafts = |speculation: &Speculation| speculation.rates.len();
        self.speculation.as_ref().map_or(0, drafts)
    }

    /// Slots behind them.
    pub fn lookahead(&self) -> usize {
        let has_kv = self.speculation.as_ref().is_some_and(|it| it.has_kv);
        if has_kv { self.drafts() } else { 0 }
    }

    /// Blocks that can hold tokens: block 0 is never used (R6).
    pub fn usable_blocks(&self) -> usize {
        self.num_gpu_blocks - 1
    }
}

impl Request {
    /// Number of prompt tokens.
    pub fn prompt_len(&self) -> usize {
        self.prompt.iter().map(|segment| segment.len()).sum()
    }
}

impl Segment {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        match *self {
            Segment::Content { len, .. } | Segment::Output { len, .. } => len,
        }
    }

    /// Token ids as in the recorded cases.
    fn tokens(&self) -> impl Iterator<Item = u64> + use<> {
        let (first, len) = match *self {
            Segment::Content { id, len } => (id * 4096, len),
            Segment::Output { request, len } => ((1 << 40) + ((request as u64) << 20), len),
        };
        (0..len as u64).map(move |k| first + k)
    }
}
