//! The form of a scenario on disk: that of a recorded case (`NAME.case.json`), with more keys where a recorded case has
//! no need of them: `vllm`, `workers`, `router`, `seed`, `concurrency`, `duration_ns`, `warmup_requests`,
//! `reject_what_cannot_fit` and, per request, `session` and `after`.

use serde_json::{Value, json};

use super::scenario::{
    Dependency, Engine, Moment, Policy, Request, Router, Scenario, Segment, StepCost, Version,
};

impl Scenario {
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
            stages: 1,
            ranks: 1,
            speculation: None,
        }
    }
}

impl Request {
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
