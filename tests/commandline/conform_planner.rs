//! `dynosim conform planner`: what was recorded from the real planner.

use crate::program::{Folder, assert_contains, repository, shared};
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::Read;

const ALL: &str = "37 cases, 34 of 34 identical, 3 of a library's fit not counted";

fn recorded(name: &str) -> String {
    let path = repository("tests/golden/planner").join(format!("{name}.json.gz"));
    let mut text = String::new();
    let mut file = GzDecoder::new(File::open(path).unwrap());
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn every_recorded_case_is_identical() {
    let golden = repository("tests/golden/planner");
    let stdout = Folder::new().good(&["conform", "planner", golden.to_str().unwrap()]);
    assert_eq!(stdout.lines().last().unwrap(), ALL);
    // As in docs/planner.md.
    assert_contains(
        &stdout,
        &[
            "predictor_arima_log1p (does not count): mean error of 132 forecasts: arima 51.9, autoregression 23.3;",
            "predictor_prophet_w20_log1p (does not count): mean error of 132 forecasts: prophet 40.2, trend and seasons 45.8;",
            "predictor_prophet_w50_raw (does not count): mean error of 162 forecasts: prophet 36.4, trend and seasons 36.4;",
        ],
    );
}

#[test]
fn the_whole_recording_is_identical() {
    let Some(golden) = shared("golden/planner") else {
        return;
    };
    let stdout = Folder::new().good(&["conform", "planner", golden.to_str().unwrap()]);
    assert_eq!(stdout.lines().last().unwrap(), ALL);
}

#[test]
fn one_case_by_its_file_and_as_json() {
    let folder = Folder::new();
    folder.write("case.json", recorded("predictor_presweep"));
    let json = folder.json(&["conform", "planner", "case.json", "--json"]);
    assert_eq!((&json["cases"], &json["identical"]), (&1.into(), &1.into()));
    assert_eq!(json["results_compared"], 15);
}

/// One value changed in a case of each kind.
#[test]
fn every_kind_of_result_counts() {
    for (case, recorded_part, tampered) in [
        ("budget_guards_a", "\"out\":[7,null]", "\"out\":[6,null]"),
        (
            "budget_power_a",
            "power_rebalance_staged",
            "power_budget_clamped",
        ),
        ("budget_proportional_a", "\"out\":[2,2]", "\"out\":[2,3]"),
        (
            "capacity_search_a",
            "\"rps\":12.979326528705078",
            "\"rps\":12.9793266",
        ),
        ("fpm_regression_a", "109.31306754167602", "109.3130678"),
        ("fpm_regression_a", "\"retained\":30", "\"retained\":29"),
        (
            "plugin_merge",
            "\"decode\":8,\"prefill\":8",
            "\"decode\":8,\"prefill\":7",
        ),
        (
            "traffic_merge",
            "\"avg_isl\":1326.5364285714286",
            "\"avg_isl\":1326.5365",
        ),
        (
            "predictor_kalman_default_raw",
            "[0.0,92.927,",
            "[0.0,92.928,",
        ),
        (
            "single_prefill_latency",
            "\"num_prefill\":4",
            "\"num_prefill\":5",
        ),
        (
            "startup_cancel_disagg",
            "\"num_prefill\":3,\"num_decode\":null",
            "\"num_prefill\":3,\"num_decode\":2",
        ),
        (
            "sla_agg_load_steady",
            "\"target_decode\":",
            "\"target_decode\":1",
        ),
        (
            "sla_agg_load_steady",
            "scale_down_refused_consolidation",
            "no_change",
        ),
        (
            "sla_agg_load_steady",
            "\"estimated_ttft_ms\":",
            "\"estimated_ttft_ms\":1",
        ),
        (
            "sla_disagg_thr_idle_gap",
            "\"need_traffic_metrics\":true",
            "\"need_traffic_metrics\":false",
        ),
        (
            "sla_disagg_thr_idle_gap",
            "\"expected_num_decode\":",
            "\"expected_num_decode\":1",
        ),
        (
            "easy_agg_latency_ramp",
            "\"scale_interval_seconds\":10.0",
            "\"scale_interval_seconds\":5.0",
        ),
    ] {
        let whole = recorded(case);
        assert!(whole.contains(recorded_part), "{case}: {recorded_part}");
        let folder = Folder::new();
        folder.write("case.json", whole.replacen(recorded_part, tampered, 1));
        let answer = folder.run(&["conform", "planner", "."]);
        assert_eq!(answer.code, Some(1), "{case} {tampered}: {answer}");
        assert_contains(
            &answer.stdout,
            &[case, "recorded", "dynosim", "1 cases, 0 of 1 identical"],
        );
    }
}

#[test]
fn what_is_no_case_is_refused() {
    let folder = Folder::new();
    assert_contains(
        &folder.refused(&["conform", "planner", "nowhere"]),
        &["nowhere: no such file or folder"],
    );
    assert_contains(
        &folder.refused(&["conform", "planner", "."]),
        &["no recorded cases (*.json, *.json.gz) here"],
    );
    let tampered = |case: &str, from: &str, to: &str| {
        let whole = recorded(case);
        assert!(whole.contains(from), "{case}: {from}");
        whole.replacen(from, to, 1)
    };
    folder.write(
        "a.json",
        tampered("predictor_presweep", "\"table\"", "\"graph\""),
    );
    folder.write(
        "b.json",
        tampered("sla_agg_load_steady", "\"itl_ms\":30.0", "\"itl_ms\":0"),
    );
    folder.write(
        "c.json",
        tampered(
            "easy_agg_latency_ramp",
            "\"optimization_target\"",
            "\"optimisation_target\"",
        ),
    );
    folder.write(
        "d.json",
        tampered("capacity_search_a", "find_engine", "seek_engine"),
    );
    folder.write("e.json", "{\"id\": 3}");
    assert_contains(
        &folder.refused(&["conform", "planner", "."]),
        &[
            "a.json: kind graph: expected replay, ticks, table or predictor",
            "b.json: config: itl_ms: found 0, expected milliseconds above zero",
            "c.json: case: unknown field `optimisation_target`",
            "d.json: seek_engine_capacity_rps, row 0: not a function of the planner",
            "e.json: id: expected a text",
        ],
    );
}
