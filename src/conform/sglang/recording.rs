//! What SGLang's own scheduler did with a case, step by step.
//!
//! The format is described in `tests/golden/sglang/README.md`; cases themselves are written as vLLM's.

use super::super::case::{each_line, parse};
use engine::sglang::{SglangConfig, SglangPolicy};
use serde::{Deserialize, Deserializer};
use std::path::Path;

/// `NAME.steps.jsonl.gz`.
#[derive(Debug)]
pub struct Recording {
    pub config: SglangConfig,
    pub steps: Vec<Step>,
    pub requests: Vec<RequestLine>,
    pub end: End,
}

/// The header line.
#[derive(Deserialize)]
struct Header {
    sglang: String,
    engine: EngineLine,
}

#[derive(Deserialize)]
struct EngineLine {
    max_total_tokens: u32,
    max_running_requests: u32,
    chunked_prefill_size: Option<u32>,
    max_prefill_tokens: u32,
    schedule_policy: String,
    schedule_conservativeness: f64,
    disable_radix_cache: bool,
    mixed_chunk: bool,
    max_context_len: u32,
    ignore_eos: bool,
    priority_scheduling: bool,
}

/// One step. Field names are those of the files.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Step {
    pub step: u64,
    pub mode: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub rows: Vec<(u32, u32, u32)>,
    pub chunked: Option<u32>,
    pub retracted: Vec<u32>,
    pub aborted: Vec<u32>,
    pub waiting: Vec<u32>,
    pub avail_after_sched: u64,
    pub evictable_after_sched: u64,
    #[serde(deserialize_with = "ratio")]
    pub new_token_ratio: i64,
    pub finished: Vec<u32>,
    pub avail: u64,
    pub evictable: u64,
    pub tree_tokens: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct RequestLine {
    pub id: u32,
    pub first_token_ns: Option<u64>,
    pub finish_ns: Option<u64>,
    pub cached_tokens: u64,
    pub retractions: u64,
    pub n_output: u64,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct End {
    pub steps: u64,
    pub end_ns: u64,
    pub stuck: Vec<u32>,
    pub retractions: u64,
    pub cached_tokens: u64,
}

/// The ratio as it was recorded: nine digits.
pub fn nine_digits(ratio: f64) -> i64 {
    (ratio * 1e9).round() as i64
}

fn ratio<'de, D: Deserializer<'de>>(field: D) -> Result<i64, D::Error> {
    f64::deserialize(field).map(nine_digits)
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

fn config(header: &Header) -> Result<SglangConfig, String> {
    let engine = &header.engine;
    if engine.priority_scheduling {
        return Err(format!(
            "recorded from SGLang {} with priority_scheduling, which is not modelled",
            header.sglang
        ));
    }
    let policy = match engine.schedule_policy.as_str() {
        "fcfs" => SglangPolicy::Fcfs,
        "lpm" => SglangPolicy::Lpm,
        "dfs-weight" => SglangPolicy::DfsWeight,
        other => return Err(format!("unknown schedule_policy '{other}'")),
    };
    let config = SglangConfig {
        max_total_tokens: engine.max_total_tokens,
        max_running_requests: engine.max_running_requests,
        chunked_prefill_size: engine.chunked_prefill_size,
        max_prefill_tokens: engine.max_prefill_tokens,
        schedule_policy: policy,
        schedule_conservativeness: engine.schedule_conservativeness,
        disable_radix_cache: engine.disable_radix_cache,
        mixed_chunk: engine.mixed_chunk,
        page_size: 1,
        context_length: engine.max_context_len,
        ignore_eos: engine.ignore_eos,
        ..SglangConfig::default()
    };
    config.check()?;
    Ok(config)
}
