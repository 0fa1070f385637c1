//! The simulator agrees with the oracle on random scenarios: every request, every worker, every gap between tokens, to
//! the integer, coasting and stepping.
//!
//! `DYNOSIM_ORACLE_SCENARIOS` sets how many scenarios are run. On failure the seed and the smallest scenario that still
//! fails are printed; `DYNOSIM_ORACLE_SEED` runs one seed alone.
//!
//! Under the priority policy vLLM's rules let two requests take turns in preempting themselves for ever; the oracle
//! gives such a run up, the simulator stops the worker. Of these runs only the end is compared: they have one, and leave
//! something unfinished.

use std::collections::BTreeMap;

use sim::{Outcome, Recording, Rejection};

use crate::fast::{self, Case};
use crate::oracle::cluster::run;
use crate::oracle::random::{parallel, scenario};
use crate::oracle::record::{self, Run};
use crate::oracle::scenario::Scenario;
use crate::oracle::shrink::smallest;
use crate::seeds::{caught, in_parallel, seeds};

const SCENARIOS: u64 = 5_000;
const PARALLEL: u64 = 3_000;
const PS_PER_NS: u64 = 1_000;
const NEVER: u64 = u64::MAX;

#[test]
fn simulator_agrees_with_the_oracle() {
    agree_on("DYNOSIM_ORACLE", SCENARIOS, scenario);
}

#[test]
fn simulator_agrees_with_the_oracle_on_stages_ranks_and_drafts() {
    agree_on("DYNOSIM_PARALLEL", PARALLEL, parallel);
}

fn agree_on(name: &str, scenarios: u64, scenario: fn(u64) -> Scenario) {
    let seeds = seeds(name, scenarios);
    let verdicts = in_parallel(seeds.clone(), |seed| verdict(&scenario(seed)));
    if let Some((seed, why)) = verdicts.iter().find_map(|(seed, verdict)| match verdict {
        Verdict::Differs(why) => Some((seed, why)),
        _ => None,
    }) {
        let small = smallest(&scenario(*seed), |scenario| {
            matches!(verdict(scenario), Verdict::Differs(_))
        });
        let failing = verdicts
            .values()
            .filter(|verdict| matches!(verdict, Verdict::Differs(_)));
        panic!(
            "{} of {} scenarios differ; the first is seed {seed}: {why}\nsmallest: {:?}\n{}\n{:?}",
            failing.count(),
            verdicts.len(),
            verdict(&small),
            small.to_json(),
            small.engine
        );
    }
    let endless = verdicts
        .values()
        .filter(|verdict| matches!(verdict, Verdict::Endless));
    let endless = endless.count() as u64;
    println!(
        "{} scenarios agree, {endless} of them without end",
        verdicts.len()
    );
    assert!(
        endless <= 1 + (seeds.end - seeds.start) / 200,
        "scenarios without end are rare"
    );
}

#[derive(Debug)]
enum Verdict {
    Agrees,
    Endless,
    Differs(String),
}

fn verdict(scenario: &Scenario) -> Verdict {
    let oracle = run(scenario, false);
    let case = Case::of(scenario);
    let (coasted, stepped) = match caught(|| (case.run(), case.stepping().run())) {
        Ok(both) => both,
        Err(panic) => return Verdict::Differs(panic),
    };
    if oracle.is_endless {
        let is_open = |recording: &Recording| {
            let mut requests = recording.requests.iter();
            requests.any(|record| record.outcome == Outcome::Unfinished)
        };
        return if is_open(&coasted) && is_open(&stepped) {
            Verdict::Endless
        } else {
            Verdict::Differs("the oracle never ends, the simulator finishes all".to_owned())
        };
    }
    let expected = Seen::by_oracle(scenario, &oracle);
    for (mode, recording) in [("coasting", &coasted), ("stepping", &stepped)] {
        if let Some(difference) = expected.difference(&Seen::by_simulator(recording)) {
            return Verdict::Differs(format!(
                "{mode}, oracle first, simulator second: {difference}"
            ));
        }
    }
    match fast::difference(&coasted, &stepped) {
        Some(difference) => Verdict::Differs(format!("coasting, then stepping: {difference}")),
        None => Verdict::Agrees,
    }
}

/// What both simulators tell about a run.
#[derive(Debug, PartialEq)]
struct Seen {
    requests: Vec<SeenRequest>,
    workers: Vec<SeenWorker>,
    /// How often which gap between two tokens of a request occurred, warm-up requests left out.
    gaps_ps: BTreeMap<u64, u64>,
}

/// Times are [`NEVER`] for what did not happen.
#[derive(Debug, PartialEq)]
struct SeenRequest {
    arrival_ps: u64,
    placed_ps: u64,
    first_scheduled_ps: u64,
    first_token_ps: u64,
    finish_ps: u64,
    worker: Option<usize>,
    router_overlap_tokens: usize,
    output_tokens: usize,
    cached_tokens: usize,
    preemptions: usize,
    outcome: Outcome,
}

#[derive(Debug, PartialEq)]
struct SeenWorker {
    requests: usize,
    steps: usize,
    busy_ps: u64,
    preemptions: usize,
    peak_blocks: usize,
    admitted_tokens: usize,
    hit_tokens: usize,
}

impl Seen {
    fn by_oracle(scenario: &Scenario, run: &Run) -> Seen {
        let mut gaps_ps = BTreeMap::new();
        for record in &run.requests[scenario.warmup_requests.min(run.requests.len())..] {
            // Tokens of one step come in one piece: between pieces there are gaps.
            let mut pieces = record.token_ns.clone();
            pieces.dedup();
            for pair in pieces.windows(2) {
                *gaps_ps.entry((pair[1] - pair[0]) * PS_PER_NS).or_default() += 1;
            }
        }
        Seen {
            requests: run.requests.iter().map(SeenRequest::by_oracle).collect(),
            workers: run.workers.iter().map(SeenWorker::by_oracle).collect(),
            gaps_ps,
        }
    }

    fn by_simulator(recording: &Recording) -> Seen {
        Seen {
            requests: recording
                .requests
                .iter()
                .map(SeenRequest::by_simulator)
                .collect(),
            workers: recording
                .workers
                .iter()
                .map(SeenWorker::by_simulator)
                .collect(),
            gaps_ps: fast::gap_counts(&recording.gaps),
        }
    }

    fn difference(&self, other: &Seen) -> Option<String> {
        let gaps = || {
            let (a, b) = (&self.gaps_ps, &other.gaps_ps);
            (a != b).then(|| format!("gaps (ps: count):\n  {a:?}\n  {b:?}"))
        };
        fast::first_difference("request", &self.requests, &other.requests)
            .or_else(|| fast::first_difference("worker", &self.workers, &other.workers))
            .or_else(gaps)
    }
}

impl SeenRequest {
    fn by_oracle(record: &record::RequestRecord) -> SeenRequest {
        let time = |ns: Option<u64>| ns.map_or(NEVER, |ns| ns * PS_PER_NS);
        let rejected = record.rejected.map(|why| match why {
            record::Rejection::PromptTooLong => Rejection::PromptTooLong,
            record::Rejection::PromptExceedsKvCache => Rejection::PromptExceedsKvCache,
            record::Rejection::OutputExceedsKvCache => Rejection::OutputExceedsKvCache,
            record::Rejection::DependencyRejected => Rejection::DependencyRejected,
        });
        SeenRequest {
            arrival_ps: time(record.sent_ns),
            placed_ps: time(record.sent_ns.filter(|_| rejected.is_none())),
            first_scheduled_ps: time(record.first_scheduled_ns),
            first_token_ps: time(record.token_ns.first().copied()),
            finish_ps: time(
                record
                    .finish_ns
                    .or(record.sent_ns.filter(|_| rejected.is_some())),
            ),
            worker: record.worker,
            router_overlap_tokens: record.router_overlap_tokens,
            output_tokens: record.token_ns.len(),
            cached_tokens: record.cached_tokens.unwrap_or(0),
            preemptions: record.preemptions,
            outcome: match (rejected, record.finish_ns) {
                (Some(why), _) => Outcome::Rejected(why),
                (None, Some(_)) => Outcome::Completed,
                (None, None) => Outcome::Unfinished,
            },
        }
    }

    fn by_simulator(record: &sim::RequestRecord) -> SeenRequest {
        SeenRequest {
            arrival_ps: record.arrival.0,
            placed_ps: record.placed.0,
            first_scheduled_ps: record.first_scheduled.0,
            first_token_ps: record.first_token.0,
            finish_ps: record.finish.0,
            worker: (record.worker != u32::MAX).then_some(record.worker as usize),
            router_overlap_tokens: record.router_overlap_tokens as usize,
            output_tokens: record.output_tokens as usize,
            cached_tokens: record.cached_tokens as usize,
            preemptions: record.preemptions as usize,
            outcome: record.outcome,
        }
    }
}

impl SeenWorker {
    fn by_oracle(record: &record::WorkerRecord) -> SeenWorker {
        SeenWorker {
            requests: record.requests,
            steps: record.steps,
            busy_ps: record.busy_ps,
            preemptions: record.preemptions,
            peak_blocks: record.peak_blocks,
            admitted_tokens: record.admitted_tokens,
            hit_tokens: record.hit_tokens,
        }
    }

    fn by_simulator(record: &sim::WorkerRecord) -> SeenWorker {
        SeenWorker {
            requests: record.requests as usize,
            steps: record.steps as usize,
            busy_ps: record.busy.0,
            preemptions: record.preemptions as usize,
            peak_blocks: record.peak_blocks as usize,
            admitted_tokens: record.admitted_tokens as usize,
            hit_tokens: record.hit_tokens as usize,
        }
    }
}
