//! Schedules recorded from SGLang's own scheduler.

mod recording;
mod replay;

use super::case::Case;
use super::replay::Mode;
use super::{Verdict, compare_all, differ, pair_difference};
use recording::{Recording, Step};
use replay::{Outcome, replay};
use std::path::Path;

/// Compares all recordings below `path` (a folder, or one `.case.json.gz`), each stepping and coasting.
pub fn conform_sglang(path: &Path) -> Result<Vec<Verdict>, Vec<String>> {
    compare_all(path, Recording::read, |case, recording, mode| {
        let (coasted, difference) = judge(case, recording, mode);
        (recording.steps.len() as u64, coasted, difference)
    })
}

fn judge(case: &Case, recording: &Recording, mode: Mode) -> (u64, Option<String>) {
    match replay(case, recording, mode) {
        Ok(outcome) => (outcome.coasted, first_difference(recording, &outcome)),
        Err(what) => (0, Some(what)),
    }
}

/// The first field that differs, in the order of the recording.
fn first_difference(recording: &Recording, outcome: &Outcome) -> Option<String> {
    for (theirs, ours) in recording.steps.iter().zip(&outcome.steps) {
        if let Some(what) = step_difference(theirs, ours) {
            return Some(format!(
                "step {} at {} ns: {what}",
                theirs.step, theirs.start_ns
            ));
        }
    }
    let (theirs, ours) = (&recording.requests, &outcome.requests);
    differ(
        "number of steps",
        &recording.steps.len(),
        &outcome.steps.len(),
    )
    .or_else(|| pair_difference(theirs, ours, |line| line.id))
    .or_else(|| differ("end", &recording.end, &outcome.end))
}

fn step_difference(theirs: &Step, ours: &Step) -> Option<String> {
    let billionths = "new_token_ratio (billionths)";
    differ("step", &theirs.step, &ours.step)
        .or_else(|| differ("start_ns", &theirs.start_ns, &ours.start_ns))
        .or_else(|| differ("mode", &theirs.mode, &ours.mode))
        .or_else(|| differ("retracted", &theirs.retracted, &ours.retracted))
        .or_else(|| differ("aborted", &theirs.aborted, &ours.aborted))
        .or_else(|| {
            differ(
                "rows (request, new tokens, prefix)",
                &theirs.rows,
                &ours.rows,
            )
        })
        .or_else(|| differ("chunked", &theirs.chunked, &ours.chunked))
        .or_else(|| differ("waiting", &theirs.waiting, &ours.waiting))
        .or_else(|| differ(billionths, &theirs.new_token_ratio, &ours.new_token_ratio))
        .or_else(|| differ("end_ns", &theirs.end_ns, &ours.end_ns))
        .or_else(|| {
            let free = |step: &Step| (step.avail_after_sched, step.evictable_after_sched);
            let what = "(avail_after_sched, evictable_after_sched)";
            differ(what, &free(theirs), &free(ours))
        })
        .or_else(|| differ("finished", &theirs.finished, &ours.finished))
        .or_else(|| differ("avail", &theirs.avail, &ours.avail))
        .or_else(|| differ("evictable", &theirs.evictable, &ours.evictable))
        .or_else(|| differ("tree_tokens", &theirs.tree_tokens, &ours.tree_tokens))
}
