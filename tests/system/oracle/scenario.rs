//! What is simulated: engine settings, step cost, workers, router, load, requests. Plain data.
//!
//! The form on disk is that of a recorded case (`NAME.case.json`), with more keys where a recorded case has no need of
//! them: `vllm`, `workers`, `router`, `seed`, `concurrency`, `duration_ns`, `warmup_requests`, `reject_what_cannot_fit` and, per
//! request, `session` and `after`.

use serde_json::{Value, json};

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

    /// As a JSON object.
    pub fn to_json(&self) -> Value {
        let e = &self.engine;
        json!({
            "name": self.name,
            "vllm": match e.version { Version::V0_32 => "0.32.0", Version::V0_33 => "0.33.0" },
            "engine": {
                "block_size": e.block_size, "num_gpu_blocks": e.num_gpu_blocks, "max_num_seqs": e.max_num_seqs,
                "max_num_batched_tokens": e.max_num_batched_tokens, "max_model_len": e.max_model_len,
                "enable_prefix_caching": e.enable_prefix_caching, "enable_chunked_prefill": e.enable_chunked_prefill,
                "long_prefill_token_threshold": e.long_prefill_token_threshold,
                "long_prefill_token_threshold_adaptive": e.long_prefill_token_threshold_adaptive,
                "scheduler_reserve_full_isl": e.scheduler_reserve_full_isl,
                "max_num_active_seqs": e.max_num_active_seqs,
                "policy": match e.policy { Policy::Fcfs => "fcfs", Policy::Priority => "priority" },
                "watermark": e.watermark, "async_scheduling": e.async_scheduling,
            },
            "step_time": { "a": self.cost.a, "b": self.cost.b, "c": self.cost.c },
            "workers": self.workers,
            "router": self.router.to_json(),
            "seed": self.seed,
            "concurrency": self.concurrency,
            "duration_ns": self.duration_ns,
            "warmup_requests": self.warmup_requests,
            "reject_what_cannot_fit": self.reject_what_cannot_fit,
            "requests": self.requests.iter().map(Request::to_json).collect::<Vec<_>>(),
        })
    }

    /// Reads [`Scenario::to_json`]'s form and, with the defaults of the recording, a recorded case. `engine` is the
    /// complete list of settings. Panics on anything else: the files are our own.
    pub fn from_json(case: &Value, engine: &Value, version: Version) -> Scenario {
        let cost = &case["step_time"];
        Scenario {
            name: text(&case["name"]).to_owned(),
            engine: Engine::from_json(engine, version),
            cost: StepCost {
                a: number(&cost["a"]),
                b: number(&cost["b"]),
                c: number(&cost["c"]),
            },
            workers: optional(&case["workers"]).unwrap_or(1),
            router: Router::from_json(&case["router"]),
            seed: case["seed"].as_u64().unwrap_or(0),
            concurrency: optional(&case["concurrency"]),
            duration_ns: case["duration_ns"].as_u64(),
            warmup_requests: optional(&case["warmup_requests"]).unwrap_or(0),
            reject_what_cannot_fit: case["reject_what_cannot_fit"].as_bool().unwrap_or(false),
            requests: list(&case["requests"])
                .iter()
                .enumerate()
                .map(|(index, request)| Request::from_json(index, request))
                .collect(),
        }
    }
}

impl Router {
    fn to_json(self) -> Value {
        match self {
            Router::RoundRobin => json!("round-robin"),
            Router::LeastLoaded => json!("least-loaded"),
            Router::Random => json!("random"),
            Router::PowerOfTwo => json!("power-of-two"),
            Router::Kv { credit, scale } => json!({ "credit": credit, "scale": scale }),
        }
    }

    fn from_json(router: &Value) -> Router {
        let number = |value: &Value| value.as_f64().expect("a weight is a number");
        match (router, router.as_str()) {
            (Value::Null, _) | (_, Some("round-robin")) => Router::RoundRobin,
            (_, Some("least-loaded")) => Router::LeastLoaded,
            (_, Some("random")) => Router::Random,
            (_, Some("power-of-two")) => Router::PowerOfTwo,
            _ => Router::Kv {
                credit: number(&router["credit"]),
                scale: number(&router["scale"]),
            },
        }
    }
}

impl Engine {
    /// How many batches are scheduled ahead: with asynchronous scheduling one more than the one that runs.
    pub fn depth(&self) -> usize {
        if self.async_scheduling { 2 } else { 1 }
    }

    /// Blocks that can hold tokens: block 0 is never used (R6).
    pub fn usable_blocks(&self) -> usize {
        self.num_gpu_blocks - 1
    }

    fn from_json(e: &Value, version: Version) -> Engine {
        Engine {
            version,
            block_size: size(&e["block_size"]),
            num_gpu_blocks: size(&e["num_gpu_blocks"]),
            max_num_seqs: size(&e["max_num_seqs"]),
            max_num_batched_tokens: size(&e["max_num_batched_tokens"]),
            max_model_len: size(&e["max_model_len"]),
            enable_prefix_caching: flag(&e["enable_prefix_caching"]),
            enable_chunked_prefill: flag(&e["enable_chunked_prefill"]),
            long_prefill_token_threshold: size(&e["long_prefill_token_threshold"]),
            long_prefill_token_threshold_adaptive: flag(
                &e["long_prefill_token_threshold_adaptive"],
            ),
            scheduler_reserve_full_isl: flag(&e["scheduler_reserve_full_isl"]),
            max_num_active_seqs: optional(&e["max_num_active_seqs"]),
            policy: match text(&e["policy"]) {
                "fcfs" => Policy::Fcfs,
                "priority" => Policy::Priority,
                other => panic!("policy `{other}`"),
            },
            watermark: e["watermark"].as_f64().expect("watermark is a number"),
            async_scheduling: flag(&e["async_scheduling"]),
        }
    }
}

impl Request {
    /// Number of prompt tokens.
    pub fn prompt_len(&self) -> usize {
        self.prompt.iter().map(|segment| segment.len()).sum()
    }

    fn to_json(&self) -> Value {
        let after = self.after.iter().map(|d| {
            json!([
                d.on,
                match d.moment {
                    Moment::Sent => "sent",
                    Moment::Finished => "finished",
                },
                d.delay_ns
            ])
        });
        json!({
            "arrival_ns": self.arrival_ns,
            "prompt": self.prompt.iter().map(|segment| match *segment {
                Segment::Content { id, len } => json!(["b", id, len]),
                Segment::Output { request, len } => json!(["o", request, len]),
            }).collect::<Vec<_>>(),
            "output_len": self.output_len,
            "priority": self.priority,
            "session": self.session,
            "after": after.collect::<Vec<_>>(),
        })
    }

    /// A request without a session has one of its own.
    fn from_json(index: usize, request: &Value) -> Request {
        Request {
            arrival_ns: number(&request["arrival_ns"]),
            prompt: list(&request["prompt"])
                .iter()
                .map(|segment| match text(&segment[0]) {
                    "b" => Segment::Content {
                        id: number(&segment[1]),
                        len: size(&segment[2]),
                    },
                    "o" => Segment::Output {
                        request: size(&segment[1]),
                        len: size(&segment[2]),
                    },
                    other => panic!("segment `{other}`"),
                })
                .collect(),
            output_len: size(&request["output_len"]),
            priority: request["priority"].as_i64().unwrap_or(0),
            session: optional(&request["session"]).unwrap_or(index),
            after: request["after"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|d| Dependency {
                    on: size(&d[0]),
                    moment: match text(&d[1]) {
                        "sent" => Moment::Sent,
                        "finished" => Moment::Finished,
                        other => panic!("moment `{other}`"),
                    },
                    delay_ns: number(&d[2]),
                })
                .collect(),
        }
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

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is not a whole number"))
}

fn size(value: &Value) -> usize {
    number(value) as usize
}

fn optional(value: &Value) -> Option<usize> {
    (!value.is_null()).then(|| size(value))
}

fn flag(value: &Value) -> bool {
    value
        .as_bool()
        .unwrap_or_else(|| panic!("{value} is not true or false"))
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not a string"))
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is not a list"))
}
