//! Replays schedules recorded from SGLang's own scheduler, step by step and coasting, and compares every decision.
//!
//! The cases are those of `tests/golden/sglang` and, where the folder `shared` lies beside the repository, those made from
//! a trace, which are not part of it.

use engine::sglang::{Scheduler, SglangConfig, SglangPolicy};
use engine::{NewRequest, RequestId, Run, StepPlan, Time, Workload, WorkloadBuilder};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

fn read(path: &Path) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path).expect("the case is there"))
        .read_to_string(&mut text)
        .expect("the case is text");
    text
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is a count"))
}

fn config(engine: &Value) -> SglangConfig {
    let count = |name: &str| number(&engine[name]) as u32;
    let flag = |name: &str| engine[name].as_bool().expect("a flag");
    SglangConfig {
        max_total_tokens: count("max_total_tokens"),
        max_running_requests: count("max_running_requests"),
        chunked_prefill_size: Some(count("chunked_prefill_size")),
        max_prefill_tokens: count("max_prefill_tokens"),
        schedule_policy: match engine["schedule_policy"].as_str() {
            Some("fcfs") => SglangPolicy::Fcfs,
            Some("lpm") => SglangPolicy::Lpm,
            other => panic!("unknown policy {other:?}"),
        },
        schedule_conservativeness: engine["schedule_conservativeness"]
            .as_f64()
            .expect("a number"),
        disable_radix_cache: flag("disable_radix_cache"),
        mixed_chunk: flag("mixed_chunk"),
        page_size: 1,
        context_length: count("max_context_len"),
        ignore_eos: flag("ignore_eos"),
        ..SglangConfig::default()
    }
}

fn workload(case: &Value) -> Workload {
    let mut builder = WorkloadBuilder::new();
    for request in case["requests"].as_array().expect("requests") {
        let run = |segment: &Value| {
            let (id, len) = (number(&segment[1]), number(&segment[2]) as u32);
            let first = match segment[0].as_str() {
                Some("b") => (1 << 62) + id * 4096,
                Some("o") => WorkloadBuilder::output_token(id as u32, 0),
                other => panic!("unknown segment {other:?}"),
            };
            Run { first, len }
        };
        let prompt: Vec<Run> = request["prompt"]
            .as_array()
            .expect("segments")
            .iter()
            .map(run)
            .collect();
        builder.push(NewRequest {
            arrival: Time::from_ns(number(&request["arrival_ns"])),
            prompt: &prompt,
            output_tokens: number(&request["output_len"]) as u32,
            priority: 0,
            session: 0,
            dependencies: &[],
        });
    }
    builder.finish()
}

/// The recorder's loop: arrivals, plan, run, process.
struct Replay<'a> {
    case: &'a Value,
    scheduler: Scheduler,
    arrivals: Vec<u64>,
    next_arrival: usize,
    now: u64,
    coasts: bool,
    coasted: u64,
    steps: u64,
}

impl Replay<'_> {
    fn step(&mut self) -> Option<Value> {
        loop {
            while self
                .arrivals
                .get(self.next_arrival)
                .is_some_and(|&at| at <= self.now)
            {
                self.scheduler.stop_coasting();
                self.scheduler.submit(RequestId(self.next_arrival as u32));
                self.next_arrival += 1;
            }
            if !self.coasts {
                self.scheduler.stop_coasting();
            }
            let goes_on = self.scheduler.coast_on();
            self.coasted += u64::from(goes_on);
            if goes_on || self.scheduler.plan().is_some() {
                break;
            }
            self.now = *self.arrivals.get(self.next_arrival)?;
        }
        let coasted = self.scheduler.newest_coasted_steps();
        let plan = self
            .scheduler
            .newest()
            .expect("it was just planned")
            .clone();
        Some(self.record(&plan, coasted))
    }

    fn record(&mut self, plan: &StepPlan, coasted: u32) -> Value {
        let rows: Vec<(u32, u32, u32)> = plan
            .scheduled
            .iter()
            .map(|part| {
                (
                    part.request.0,
                    part.new_tokens,
                    part.computed_before + coasted,
                )
            })
            .collect();
        let mode = match (plan.prefill.is_empty(), plan.decode_batch) {
            (true, _) => "decode",
            (false, 0) => "extend",
            (false, _) => "mixed",
        };
        let retracted: Vec<u32> = plan
            .preempted
            .iter()
            .filter(|_| coasted == 0)
            .map(|id| id.0)
            .collect();
        let time = |name: &str| number(&self.case["step_time"][name]);
        let new: u64 = rows.iter().map(|row| u64::from(row.1)).sum();
        let context: u64 = rows
            .iter()
            .map(|row| u64::from(row.1) + u64::from(row.2))
            .sum();
        let end = self.now + time("a") + time("b") * new + time("c") * context;
        let waiting: Vec<u32> = self.scheduler.waiting_requests().map(|id| id.0).collect();
        let pool = self.scheduler.pool();
        let mut line = json!({
            "step": self.steps, "mode": mode, "start_ns": self.now, "end_ns": end, "rows": rows,
            "chunked": self.scheduler.chunked_request().map(|id| id.0), "retracted": retracted, "aborted": [],
            "waiting": waiting, "avail_after_sched": pool.free_tokens(), "evictable_after_sched": pool.evictable_tokens(),
            "new_token_ratio": self.scheduler.new_token_ratio(),
        });
        let mut ended = Vec::new();
        self.scheduler.finish(1, &mut ended);
        let finished: Vec<u32> = ended.iter().map(|id| id.0).collect();
        let pool = self.scheduler.pool();
        line["finished"] = json!(finished);
        line["avail"] = json!(pool.free_tokens());
        line["evictable"] = json!(pool.evictable_tokens());
        line["tree_tokens"] = json!(pool.cached_tokens());
        self.now = end;
        self.steps += 1;
        line
    }
}

fn replay(name: &str, folder: &Path, coasts: bool) -> u64 {
    let case: Value =
        serde_json::from_str(&read(&folder.join(format!("{name}.case.json.gz")))).expect("JSON");
    let text = read(&folder.join(format!("{name}.steps.jsonl.gz")));
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let config = config(&lines[0]["engine"]);
    let workload = Arc::new(workload(&case));
    let mut replay = Replay {
        arrivals: case["requests"]
            .as_array()
            .expect("requests")
            .iter()
            .map(|r| number(&r["arrival_ns"]))
            .collect(),
        case: &case,
        scheduler: Scheduler::new(config, workload, Default::default()),
        next_arrival: 0,
        now: 0,
        coasts,
        coasted: 0,
        steps: 0,
    };
    for theirs in lines.iter().filter(|line| line.get("mode").is_some()) {
        let ours = replay
            .step()
            .unwrap_or_else(|| panic!("{name}: our run ended before {theirs}"));
        for (field, value) in theirs.as_object().expect("an object") {
            let same = if field == "new_token_ratio" {
                // Recorded with nine digits.
                let round = |value: &Value| (value.as_f64().expect("a number") * 1e9).round() / 1e9;
                round(value) == round(&ours[field])
            } else {
                *value == ours[field]
            };
            assert!(
                same,
                "{name}, {field}:\n recorded {theirs}\n ours     {ours}"
            );
        }
    }
    assert_eq!(replay.step(), None, "{name}: our run goes on");
    replay.coasted
}

#[test]
fn recorded_cases_are_identical() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = BTreeSet::new();
    let mut coasted = 0;
    for folder in ["../tests/golden/sglang", "../../shared/golden/sglang"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
            println!("skipped: {folder} is not there");
            continue;
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                entry
                    .expect("the folder can be read")
                    .file_name()
                    .into_string()
                    .ok()
            })
            .filter_map(|name| name.strip_suffix(".case.json.gz").map(str::to_owned))
            .collect();
        names.sort();
        for name in names {
            replay(&name, &root.join(folder), false);
            coasted += replay(&name, &root.join(folder), true);
            seen.insert(name);
        }
    }
    println!("{} cases, {coasted} steps coasted", seen.len());
    assert!(seen.len() >= 13 && coasted > 0, "only {seen:?}");
}
