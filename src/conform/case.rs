//! The files of a recorded case: what was served, and what the real scheduler did, step by step.
//!
//! The format is described in `tests/golden/vllm/README.md`.

use engine::vllm::{SchedulingPolicy, VllmConfig, VllmVersion};
use engine::{NewRequest, Run, Time, Workload, WorkloadBuilder};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// `NAME.case.json.gz`.
#[derive(Debug, Deserialize)]
pub struct Case {
    pub name: String,
    pub step_time: LinearTime,
    pub max_steps: u64,
    pub requests: Vec<CaseRequest>,
}

/// Step time in ns: `a + b * new tokens + c * (tokens before + new tokens)`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct LinearTime {
    pub a: u64,
    pub b: u64,
    pub c: u64,
}

/// A request of a case.
#[derive(Debug, Deserialize)]
pub struct CaseRequest {
    pub arrival_ns: u64,
    pub prompt: Vec<(String, u64, u32)>,
    pub output_len: u32,
    #[serde(default)]
    pub priority: i32,
}

impl CaseRequest {
    pub fn prompt_len(&self) -> u32 {
        self.prompt.iter().map(|segment| segment.2).sum()
    }
}

/// `NAME.steps.jsonl.gz`.
#[derive(Debug)]
pub struct Recording {
    pub config: VllmConfig,
    pub steps: Vec<Step>,
    pub requests: Vec<RequestLine>,
    pub end: End,
}

/// The header line of a recording.
#[derive(Deserialize)]
struct Header {
    vllm: String,
    engine: EngineLine,
}

#[derive(Deserialize)]
struct EngineLine {
    block_size: u32,
    num_gpu_blocks: u32,
    max_num_seqs: u32,
    max_num_batched_tokens: u32,
    max_model_len: u32,
    enable_prefix_caching: bool,
    enable_chunked_prefill: bool,
    long_prefill_token_threshold: u32,
    long_prefill_token_threshold_adaptive: bool,
    scheduler_reserve_full_isl: bool,
    max_num_active_seqs: Option<u32>,
    policy: String,
    watermark: f64,
    async_scheduling: bool,
}

/// One step. Field names are those of the files.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Step {
    pub step: u64,
    pub sched_ns: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    pub scheduled: Vec<(u32, u32, u32)>,
    pub admitted: Vec<(u32, u32, u32)>,
    pub preempted: Vec<u32>,
    pub sampled: Vec<u32>,
    pub finished: Vec<u32>,
    pub n_running: u64,
    pub n_waiting: u64,
    pub free_after_sched: u64,
    pub free_blocks: u64,
    pub cached_hashes: u64,
    pub n_stored: u64,
    pub n_removed: u64,
    pub tables: Option<BTreeMap<u32, Vec<u32>>>,
    pub free_queue: Option<Vec<u32>>,
    pub events: Option<Vec<Value>>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RequestLine {
    pub id: u32,
    pub first_sched_ns: Option<u64>,
    pub first_token_ns: Option<u64>,
    pub finish_ns: Option<u64>,
    pub num_preemptions: u64,
    pub cached_tokens: Option<u64>,
    pub n_output: u64,
    pub finish_reason: Option<String>,
    pub rejected: Option<String>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct End {
    pub steps: u64,
    pub end_ns: u64,
    pub stuck: Vec<u32>,
    pub truncated: bool,
    pub preemptions: u64,
    pub cached_tokens: u64,
    pub prompt_tokens: u64,
}

impl Case {
    pub fn read(path: &Path) -> Result<Case, String> {
        let mut text = String::new();
        open(path)?
            .read_to_string(&mut text)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The requests as a workload. Token ids: content segment `["b", id, n]` is tokens `id * 4096 ..`, segment
    /// `["o", r, n]` the first outputs of request r.
    pub fn workload(&self) -> Result<Workload, String> {
        let mut builder = WorkloadBuilder::new();
        for (index, request) in self.requests.iter().enumerate() {
            let mut prompt = Vec::new();
            for (kind, id, len) in &request.prompt {
                let first = match kind.as_str() {
                    "b" => (1 << 62) + id * 4096,
                    "o" => WorkloadBuilder::output_token(*id as u32, 0),
                    other => {
                        return Err(format!(
                            "{}: request {index}: unknown segment kind '{other}'",
                            self.name
                        ));
                    }
                };
                if *len > 0 {
                    prompt.push(Run { first, len: *len });
                }
            }
            if prompt.is_empty() || request.output_len == 0 {
                return Err(format!(
                    "{}: request {index} has an empty prompt or no output",
                    self.name
                ));
            }
            builder.push(NewRequest {
                arrival: Time::from_ns(request.arrival_ns),
                prompt: &prompt,
                output_tokens: request.output_len,
                priority: request.priority,
                session: index as u32,
                dependencies: &[],
            });
        }
        if !self.requests.is_sorted_by_key(|request| request.arrival_ns) {
            return Err(format!(
                "{}: requests are not in order of arrival",
                self.name
            ));
        }
        Ok(builder.finish())
    }
}

impl Recording {
    pub fn read(path: &Path) -> Result<Recording, String> {
        let (mut header, mut steps, mut requests, mut end) = (None, Vec::new(), Vec::new(), None);
        each_line(path, |kind, value| {
            match kind {
                "header" => header = Some(parse::<Header>(value)?),
                "step" => steps.push(parse::<Step>(value)?),
                "req" => requests.push(parse::<RequestLine>(value)?),
                "end" => end = Some(parse::<End>(value)?),
                other => return Err(format!("unknown kind of line '{other}'")),
            }
            Ok(())
        })?;
        let header = header.ok_or_else(|| format!("{}: no header line", path.display()))?;
        let end = end.ok_or_else(|| format!("{}: no end line (truncated?)", path.display()))?;
        let config = config(&header).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Recording {
            config,
            steps,
            requests,
            end,
        })
    }
}

/// Hands the lines of a recording to `take` with their kinds; errors get the place.
pub fn each_line(
    path: &Path,
    mut take: impl FnMut(&str, Value) -> Result<(), String>,
) -> Result<(), String> {
    for (index, line) in BufReader::new(open(path)?).lines().enumerate() {
        let place = |error: String| format!("{}:{}: {error}", path.display(), index + 1);
        let line = line.map_err(|error| place(error.to_string()))?;
        let value: Value = parse_text(&line).map_err(place)?;
        let kind = value.get("kind").and_then(Value::as_str);
        let kind = kind.unwrap_or("step").to_owned();
        take(&kind, value).map_err(place)?;
    }
    Ok(())
}

fn parse_text(line: &str) -> Result<Value, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

/// A line as what its kind says it is.
pub fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// A file, unpacked if it ends in `.gz`.
fn open(path: &Path) -> Result<Box<dyn Read>, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(
        if path.extension().is_some_and(|extension| extension == "gz") {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        },
    )
}

fn config(header: &Header) -> Result<VllmConfig, String> {
    let engine = &header.engine;
    let policy = match engine.policy.as_str() {
        "fcfs" => SchedulingPolicy::Fcfs,
        "priority" => SchedulingPolicy::Priority,
        other => return Err(format!("unknown policy '{other}'")),
    };
    Ok(VllmConfig {
        version: version(&header.vllm)?,
        block_size: engine.block_size,
        num_gpu_blocks: engine.num_gpu_blocks,
        max_num_seqs: engine.max_num_seqs,
        max_num_batched_tokens: engine.max_num_batched_tokens,
        max_model_len: engine.max_model_len,
        enable_prefix_caching: engine.enable_prefix_caching,
        enable_chunked_prefill: engine.enable_chunked_prefill,
        long_prefill_token_threshold: engine.long_prefill_token_threshold,
        long_prefill_token_threshold_adaptive: engine.long_prefill_token_threshold_adaptive,
        scheduler_reserve_full_isl: engine.scheduler_reserve_full_isl,
        max_num_active_seqs: engine.max_num_active_seqs,
        policy,
        watermark: engine.watermark,
        async_scheduling: engine.async_scheduling,
        ..VllmConfig::default()
    })
}

/// The rules of a release: those of 0.32 up to there, those of 0.33 from there.
fn version(text: &str) -> Result<VllmVersion, String> {
    let mut parts = text.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(0)), Some(Ok(..=32))) => Ok(VllmVersion::V0_32),
        (Some(Ok(_)), Some(Ok(_))) => Ok(VllmVersion::V0_33),
        _ => Err(format!("'{text}' is not a vLLM version")),
    }
}
