//! Replays recorded schedules of the real vLLM scheduler and compares every field of every line.
//!
//! A case is a pair of files: `NAME.case.json.gz` (what was asked) and `NAME.steps.jsonl.gz` (what the real scheduler
//! did; `NAME.steps-0.33.0.jsonl.gz` where release 0.33 decided otherwise).

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use super::cluster::run;
use super::pool::{Content, KvEvent};
use super::record::{Rejection, RequestRecord, Run, Step};
use super::scenario::{Policy, Request, Scenario, Version};

/// A recorded run.
pub struct Recorded {
    /// File name without extensions, and the release.
    pub name: String,
    /// What was run.
    pub scenario: Scenario,
    /// Lines of the steps file.
    lines: Vec<Value>,
}

/// All recorded runs of a folder, by name. Release 0.33 decides otherwise under the priority policy only (R9).
pub fn recorded_runs(folder: &Path) -> Vec<Recorded> {
    let files = fs::read_dir(folder).expect("the folder of recorded cases can be listed");
    let mut files: Vec<String> = files
        .map(|file| file.expect("the folder can be listed").file_name())
        .map(|name| name.into_string().expect("names are ASCII"))
        .collect();
    files.sort();
    let mut runs = Vec::new();
    for name in files
        .iter()
        .filter_map(|file| file.strip_suffix(".case.json.gz"))
    {
        let run = Recorded::read(folder, name, Version::V0_32);
        let has_priorities = run.scenario.engine.policy == Policy::Priority;
        runs.push(run);
        if has_priorities {
            runs.push(Recorded::read(folder, name, Version::V0_33));
        }
    }
    runs
}

fn unzip(path: &Path) -> String {
    let mut text = String::new();
    let file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("recorded files are text");
    text
}

impl Recorded {
    /// Where 0.33 has no recording of its own, it reproduced that of 0.32.
    fn read(folder: &Path, name: &str, version: Version) -> Recorded {
        let own = folder.join(format!("{name}.steps-0.33.0.jsonl.gz"));
        let steps = if version == Version::V0_33 && own.exists() {
            own
        } else {
            folder.join(format!("{name}.steps.jsonl.gz"))
        };
        let lines: Vec<Value> = unzip(&steps).lines().map(json_value).collect();
        let case = json_value(&unzip(&folder.join(format!("{name}.case.json.gz"))));
        Recorded {
            name: format!("{name} ({version:?})"),
            scenario: Scenario::from_json(&case, &lines[0]["engine"], version),
            lines,
        }
    }

    /// Replays the case; the first difference, if there is one.
    pub fn difference(&self) -> Option<String> {
        let scenario = &self.scenario;
        let run = run(scenario, true);
        let mut ours = Vec::new();
        let mut names = Vec::new();
        for (index, step) in run.workers[0].log.iter().enumerate() {
            ours.push(step_line(index, step, &mut names));
        }
        ours.extend(
            run.requests
                .iter()
                .enumerate()
                .map(|(id, record)| request_line(id, record, scenario)),
        );
        ours.push(end_line(&run, scenario));
        let theirs = &self.lines[1..];
        for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let keys = theirs.as_object().expect("a line is an object").keys();
            if let Some(key) = keys
                .into_iter()
                .find(|&key| ours.get(key) != theirs.get(key))
            {
                let line = number + 2;
                return Some(format!(
                    "{} line {line}, {key}: {} instead of\n{theirs}",
                    self.name, ours[key]
                ));
            }
        }
        (ours.len() != theirs.len())
            .then(|| format!("{}: {} lines, not {}", self.name, ours.len(), theirs.len()))
    }
}

fn json_value(text: &str) -> Value {
    serde_json::from_str(text).expect("recorded files are JSON")
}

/// `names`: contents in order of first appearance in an event.
fn step_line(index: usize, step: &Step, names: &mut Vec<Content>) -> Value {
    let batch = &step.batch;
    let tables: Map<String, Value> = step
        .tables
        .iter()
        .map(|(request, table)| (request.to_string(), json!(table)))
        .collect();
    let admitted = batch
        .admitted
        .iter()
        .map(|&(request, hits, resumed)| json!([request, hits, u8::from(resumed)]));
    let stored = |event: &KvEvent| match event {
        KvEvent::Stored { contents, .. } => contents.len(),
        KvEvent::Removed(_) => 0,
    };
    json!({
        "step": index, "sched_ns": step.decided_ns, "start_ns": step.start_ns, "end_ns": step.end_ns,
        "scheduled": batch.scheduled, "admitted": admitted.collect::<Vec<_>>(), "preempted": batch.preempted,
        "sampled": batch.sampled, "finished": step.finished, "n_running": batch.running, "n_waiting": batch.waiting,
        "free_after_sched": batch.free, "tables": tables, "free_blocks": step.free_queue.len(),
        "cached_hashes": step.distinct_contents, "n_stored": step.events.iter().map(stored).sum::<usize>(),
        "n_removed": step.events.iter().filter(|&event| matches!(event, KvEvent::Removed(_))).count(),
        "events": step.events.iter().map(|event| event_value(event, names)).collect::<Vec<_>>(),
        "free_queue": step.free_queue,
    })
}

fn event_value(event: &KvEvent, names: &mut Vec<Content>) -> Value {
    let mut name = |content: &Content| match names.iter().position(|known| known == content) {
        Some(place) => place,
        None => {
            names.push(*content);
            names.len() - 1
        }
    };
    match event {
        KvEvent::Stored { parent, contents } => {
            let parent = parent
                .as_ref()
                .map_or(json!(-1), |parent| json!(name(parent)));
            json!(["S", parent, contents.iter().map(name).collect::<Vec<_>>()])
        }
        KvEvent::Removed(content) => json!(["R", [name(content)]]),
    }
}

fn request_line(id: usize, record: &RequestRecord, scenario: &Scenario) -> Value {
    let rejected = record.rejected.map(|rejection| match rejection {
        Rejection::PromptTooLong => "prompt_len",
        other => panic!("{}: request {id} refused with {other:?}", scenario.name),
    });
    json!({
        "kind": "req", "id": id, "first_sched_ns": record.first_scheduled_ns, "first_token_ns": record.token_ns.first(),
        "finish_ns": record.finish_ns, "num_preemptions": record.preemptions, "cached_tokens": record.cached_tokens,
        "n_output": record.token_ns.len(), "finish_reason": record.finish_ns.map(|_| "length"), "rejected": rejected,
    })
}

fn end_line(run: &Run, scenario: &Scenario) -> Value {
    let accepted = || {
        run.requests
            .iter()
            .enumerate()
            .filter(|(_, record)| record.rejected.is_none())
    };
    let is_stuck = |record: &RequestRecord| record.finish_ns.is_none();
    json!({
        "kind": "end", "steps": run.workers[0].log.len(), "end_ns": run.end_ns, "truncated": false,
        "stuck": accepted().filter(|(_, record)| is_stuck(record)).map(|(id, _)| id).collect::<Vec<_>>(),
        "preemptions": run.requests.iter().map(|record| record.preemptions).sum::<usize>(),
        "cached_tokens": run.requests.iter().filter_map(|record| record.cached_tokens).sum::<usize>(),
        "prompt_tokens": scenario.requests.iter().map(Request::prompt_len).sum::<usize>(),
    })
}
