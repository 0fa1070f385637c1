//! The naive simulator proves itself on the recorded decisions of the real scheduler.

use std::collections::BTreeMap;
use std::path::Path;

use crate::oracle::cluster::run;
use crate::oracle::marks::{MARKS, marks};
use crate::oracle::random::scenario;
use crate::oracle::recorded::recorded_runs;
use crate::oracle::scenario::{Scenario, Version};
use crate::oracle::shrink::smallest;

/// Replays a folder of recorded cases; returns how many runs there were.
fn replay(folder: &Path) -> usize {
    let runs = recorded_runs(folder);
    let differences: Vec<String> = runs.iter().filter_map(|run| run.difference()).collect();
    assert!(
        differences.is_empty(),
        "{} of {} runs differ:\n{}",
        differences.len(),
        runs.len(),
        differences.join("\n")
    );
    runs.len()
}

#[test]
fn oracle_replays_recorded_corner_and_fuzz_cases() {
    // 69 cases by release 0.32, the 15 with priorities by release 0.33 too
    assert_eq!(
        replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vllm")),
        69 + 15
    );
}

#[test]
fn oracle_replays_all_recorded_cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden/vllm");
    if !folder.exists() {
        println!("skipped: {} is not there", folder.display());
        return;
    }
    assert_eq!(replay(&folder), 89 + 16);
}

#[test]
fn random_scenarios_reach_every_kind_of_trouble() {
    let scenarios = 1000;
    let mut reached = BTreeMap::new();
    let mut endless = 0;
    for seed in 0..scenarios {
        let scenario = scenario(seed);
        let run = run(&scenario, true);
        endless += u64::from(run.is_endless);
        for (request, record) in run.requests.iter().enumerate().filter(|_| !run.is_endless) {
            let is_late = scenario.duration_ns.is_some() && record.sent_ns.is_none();
            let is_over = record.rejected.is_some() || record.finish_ns.is_some() || is_late;
            assert!(
                is_over,
                "seed {seed}: request {request} never ends\n{}",
                scenario.to_json()
            );
        }
        for mark in marks(&scenario, &run) {
            *reached.entry(mark).or_insert(0) += 1;
        }
    }
    println!("of {scenarios} scenarios {endless} without end: {reached:#?}");
    assert!(
        endless <= scenarios / 200,
        "{endless} of {scenarios} scenarios have no end"
    );
    for mark in MARKS {
        let times = reached.get(mark).copied().unwrap_or(0);
        assert!(
            times >= scenarios / 200,
            "`{mark}` only in {times} of {scenarios} scenarios"
        );
    }
}

#[test]
fn scenarios_survive_the_trip_to_disk() {
    for seed in 0..100 {
        let scenario = scenario(seed);
        let json = scenario.to_json();
        let version = if json["vllm"] == "0.33.0" {
            Version::V0_33
        } else {
            Version::V0_32
        };
        assert_eq!(
            Scenario::from_json(&json, &json["engine"], version),
            scenario
        );
    }
}

#[test]
fn a_failing_scenario_shrinks_to_its_cause() {
    let long_outputs = |scenario: &Scenario| {
        scenario
            .requests
            .iter()
            .filter(|request| request.output_len > 5)
            .count()
    };
    let fails =
        |scenario: &Scenario| long_outputs(scenario) >= 2 && scenario.engine.async_scheduling;
    let failing = (0..)
        .map(scenario)
        .find(|scenario| scenario.requests.len() > 10 && fails(scenario))
        .unwrap();
    let small = smallest(&failing, fails);
    assert_eq!(
        small
            .requests
            .iter()
            .map(|request| request.output_len)
            .collect::<Vec<_>>(),
        [6, 6]
    );
    assert!(
        small
            .requests
            .iter()
            .all(|request| request.after.is_empty() && request.arrival_ns == 0)
    );
    assert!(small.engine.async_scheduling && small.workers == 1 && small.engine.watermark == 0.0);
}
