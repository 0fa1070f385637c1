//! `dynosim conform`: replays schedules recorded from the real engines and compares every decision.

mod case;
mod planner;
mod replay;
mod router;
mod sglang;
mod steps;

pub use planner::{PlannerVerdict, conform_planner};
pub use router::{RouterVerdict, conform_router};
pub use sglang::conform_sglang;
pub use steps::conform_steps;

use case::{Case, Recording, Step};
use replay::{Mode, Outcome, replay};
use serde::Serialize;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// What came of one recorded file in one mode.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The recording, `NAME` or `NAME (0.33.0)`.
    pub name: String,
    /// `stepping` or `coasting`.
    pub mode: &'static str,
    /// Steps in the recording.
    pub steps: u64,
    /// Steps that were coasted, not asked for.
    pub coasted: u64,
    /// The first difference in words; `None` if every field of every line is equal.
    pub difference: Option<String>,
}

/// A recording and the case it belongs to.
struct Recorded {
    name: String,
    case: PathBuf,
    steps: PathBuf,
}

/// Compares all recordings of vLLM below `path` (a folder, or one `.case.json.gz`), each stepping and coasting.
pub fn conform_vllm(path: &Path) -> Result<Vec<Verdict>, Vec<String>> {
    compare_all(path, Recording::read, |case, recording, mode| {
        let (coasted, difference) = judge(case, recording, mode);
        (recording.steps.len() as u64, coasted, difference)
    })
}

/// Judges all recordings below `path`, each stepping and coasting; `judge` says how many steps there are, how many of them
/// were coasted, and the first difference.
fn compare_all<R>(
    path: &Path,
    read: impl Fn(&Path) -> Result<R, String>,
    judge: impl Fn(&Case, &R, Mode) -> (u64, u64, Option<String>),
) -> Result<Vec<Verdict>, Vec<String>> {
    let (recorded, mut errors) = find(path);
    let mut verdicts = Vec::new();
    for item in recorded {
        match (Case::read(&item.case), read(&item.steps)) {
            (Ok(case), Ok(recording)) => {
                for (mode, word) in [(Mode::Stepping, "stepping"), (Mode::Coasting, "coasting")] {
                    let (steps, coasted, difference) = judge(&case, &recording, mode);
                    verdicts.push(Verdict {
                        name: item.name.clone(),
                        mode: word,
                        steps,
                        coasted,
                        difference,
                    });
                }
            }
            (case, recording) => errors.extend(case.err().into_iter().chain(recording.err())),
        }
    }
    if errors.is_empty() {
        Ok(verdicts)
    } else {
        Err(errors)
    }
}

/// The recordings below a path, in order of name, and what is wrong with the path.
fn find(path: &Path) -> (Vec<Recorded>, Vec<String>) {
    let mut files = Vec::new();
    if path.is_dir() {
        match std::fs::read_dir(path) {
            Ok(entries) => {
                files.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())))
            }
            Err(error) => return (Vec::new(), vec![format!("{}: {error}", path.display())]),
        }
        files.sort();
    } else if let Some(folder) = path.parent() {
        let stem = file_name(path)
            .split('.')
            .next()
            .unwrap_or_default()
            .to_owned();
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        if let Ok(entries) = std::fs::read_dir(folder) {
            let of_case = |file: &PathBuf| file_name(file).split('.').next() == Some(&stem);
            files.extend(
                entries
                    .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                    .filter(of_case),
            );
        }
        files.sort();
    }
    let mut recorded = Vec::new();
    let mut errors = Vec::new();
    for case in files
        .iter()
        .filter(|file| file_name(file).ends_with(".case.json.gz"))
    {
        let name = file_name(case).trim_end_matches(".case.json.gz").to_owned();
        let before = recorded.len();
        for steps in &files {
            let Some(rest) = file_name(steps)
                .strip_prefix(&format!("{name}.steps"))
                .map(str::to_owned)
            else {
                continue;
            };
            let version = rest.trim_end_matches(".jsonl.gz").trim_start_matches('-');
            let name = if version.is_empty() {
                name.clone()
            } else {
                format!("{name} ({version})")
            };
            recorded.push(Recorded {
                name,
                case: case.clone(),
                steps: steps.clone(),
            });
        }
        if recorded.len() == before {
            errors.push(format!(
                "{}: no recording {name}.steps.jsonl.gz beside it",
                case.display()
            ));
        }
    }
    if recorded.is_empty() && errors.is_empty() {
        let what = if path.exists() {
            "no recorded cases (*.case.json.gz) here"
        } else {
            "no such file or folder"
        };
        errors.push(format!("{}: {what}", path.display()));
    }
    (recorded, errors)
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
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
                theirs.step, theirs.sched_ns
            ));
        }
    }
    differ(
        "number of steps",
        &recording.steps.len(),
        &outcome.steps.len(),
    )
    .or_else(|| pair_difference(&recording.requests, &outcome.requests, |line| line.id))
    .or_else(|| differ("end", &recording.end, &outcome.end))
}

/// The first request whose line differs.
fn pair_difference<T: PartialEq + Debug>(
    theirs: &[T],
    ours: &[T],
    id: impl Fn(&T) -> u32,
) -> Option<String> {
    let mut pairs = theirs.iter().zip(ours);
    let differs =
        |(theirs, ours): (&T, &T)| differ(&format!("request {}", id(theirs)), theirs, ours);
    pairs
        .find_map(differs)
        .or_else(|| differ("number of requests", &theirs.len(), &ours.len()))
}

fn step_difference(theirs: &Step, ours: &Step) -> Option<String> {
    differ("step", &theirs.step, &ours.step)
        .or_else(|| differ("sched_ns", &theirs.sched_ns, &ours.sched_ns))
        .or_else(|| differ("preempted", &theirs.preempted, &ours.preempted))
        .or_else(|| {
            differ(
                "admitted (request, hit tokens, resumed)",
                &theirs.admitted,
                &ours.admitted,
            )
        })
        .or_else(|| {
            differ(
                "scheduled (request, new tokens, computed before)",
                &theirs.scheduled,
                &ours.scheduled,
            )
        })
        .or_else(|| differ("sampled", &theirs.sampled, &ours.sampled))
        .or_else(|| differ("finished", &theirs.finished, &ours.finished))
        .or_else(|| differ("start_ns", &theirs.start_ns, &ours.start_ns))
        .or_else(|| differ("end_ns", &theirs.end_ns, &ours.end_ns))
        .or_else(|| differ("n_running", &theirs.n_running, &ours.n_running))
        .or_else(|| differ("n_waiting", &theirs.n_waiting, &ours.n_waiting))
        .or_else(|| {
            differ(
                "free_after_sched",
                &theirs.free_after_sched,
                &ours.free_after_sched,
            )
        })
        .or_else(|| differ("free_blocks", &theirs.free_blocks, &ours.free_blocks))
        .or_else(|| differ("cached_hashes", &theirs.cached_hashes, &ours.cached_hashes))
        .or_else(|| differ("n_stored", &theirs.n_stored, &ours.n_stored))
        .or_else(|| differ("n_removed", &theirs.n_removed, &ours.n_removed))
        .or_else(|| differ_detail("tables", &theirs.tables, &ours.tables))
        .or_else(|| differ_detail("free_queue", &theirs.free_queue, &ours.free_queue))
        .or_else(|| differ_detail("events", &theirs.events, &ours.events))
}

/// A field that only some recordings have.
fn differ_detail<T: PartialEq + Debug>(
    what: &str,
    theirs: &Option<T>,
    ours: &Option<T>,
) -> Option<String> {
    match (theirs, ours) {
        (Some(theirs), Some(ours)) => differ(what, theirs, ours),
        _ => differ(what, theirs, ours),
    }
}

fn differ<T: PartialEq + Debug>(what: &str, theirs: &T, ours: &T) -> Option<String> {
    (theirs != ours).then(|| format!("{what}\n    recorded  {theirs:?}\n    dynosim   {ours:?}"))
}
