//! Planners in the loop: what a report says of them, what is refused.

use crate::program::{Folder, assert_contains};

const REPLAY: [&str; 5] = [
    "replay",
    "scenario.yaml",
    "--trace",
    "trace.jsonl",
    "--json",
];

fn set<'a>(fields: &[&'a str]) -> Vec<&'a str> {
    let sets = fields.iter().flat_map(|field| ["--set", field]);
    REPLAY.into_iter().chain(sets).collect()
}

#[test]
fn workers_come_and_go_and_the_report_says_when_and_why() {
    let folder = Folder::with_scenario_and_trace();
    let schedule =
        "planner={policy: schedule, schedule: [{at_s: 10, workers: 4}, {at_s: 40, workers: 1}]}";
    let report = folder.json(&set(&[schedule, "lifecycle.startup_s=5"]));
    assert_eq!(report["requests"]["completed"], 40);
    let scaling = &report["scaling"];
    assert_eq!(scaling["policy"], "schedule");
    assert_eq!(scaling["workers_started"], 2);
    assert_eq!(scaling["workers_drained"], 3);
    assert_eq!(scaling["decisions"][0]["reason"], "scale_up");
    assert_eq!(scaling["decisions"][0]["decode"]["to"], 4);
    assert_eq!(scaling["pools"][0]["most_ready"], 4);
    assert_eq!(scaling["pools"][0]["fewest_ready"], 1);
    // Two workers start for five seconds each.
    let starting = scaling["gpu_hours"]["starting"].as_f64().unwrap() * 3600.0;
    assert!((starting - 10.0).abs() < 1e-6, "{starting}");
    let hours = ["starting", "ready", "draining"]
        .map(|state| scaling["gpu_hours"][state].as_f64().unwrap());
    let total = report["throughput"]["gpu_hours"].as_f64().unwrap();
    assert!((hours.iter().sum::<f64>() - total).abs() < 1e-9);
    let mut stepping = set(&[schedule, "lifecycle.startup_s=5"]);
    stepping.push("--stepping");
    assert_eq!(folder.json(&stepping), report);
    let mut text = set(&[schedule]);
    text.retain(|word| *word != "--json");
    assert_contains(
        &folder.good(&text),
        &[
            "Planner         schedule, asked 2 times · 2 workers started, 1 drained, 2 called off",
            "at 10 s 2 → 4 (scale_up)",
            "new workers take 120 s to start",
        ],
    );
}

#[test]
fn spares_updates_and_nodes_are_in_the_report_and_in_the_check() {
    let folder = Folder::with_scenario_and_trace();
    let fields = [
        "planner={policy: schedule, schedule: [{at_s: 10, workers: 3}]}",
        "lifecycle={startup_s: 5, gpus: 16, gpus_per_node: 4, spares: 1, activate_s: 0.5, \
         update: {at_s: 20, surge: 1, unavailable: 0%}}",
    ];
    let report = folder.json(&set(&fields));
    assert_eq!(report["requests"]["completed"], 40);
    let scaling = &report["scaling"];
    assert!(scaling["workers_called_in"].as_u64().unwrap() > 0);
    let update = &scaling["updates"][0];
    assert_eq!(
        (&update["pool"], &update["began_s"]),
        (&"agg".into(), &20.0.into())
    );
    assert_eq!(update["replaced"], 3);
    assert_eq!(update["fewest_ready"], 3);
    // The new spare starts with the first new worker; it is warm when that serves, and follows at once.
    let took = update["took_s"].as_f64().unwrap();
    assert!((5.0..40.0).contains(&took), "{took}");
    let counted = |name: &str| update[name]["count"].as_u64().unwrap();
    assert_eq!(counted("ttft_ms") + counted("other_ttft_ms"), 40);
    assert!(scaling["gpu_hours"]["spare"].as_f64().unwrap() > 0.0);
    let mut stepping = set(&fields);
    stepping.push("--stepping");
    assert_eq!(folder.json(&stepping), report);
    let mut text = set(&fields);
    text.retain(|word| *word != "--json");
    assert_contains(
        &folder.good(&text),
        &[
            "spares called in: ",
            " spare, ",
            "agg: 3 workers replaced from 20 s on in ",
            "surge 1, unavailable 0",
            "TTFT p90 meanwhile ",
        ],
    );
    let mut check = vec!["check-scenario", "scenario.yaml"];
    let generated = "workload={synth: {preset: quick}}";
    check.extend(
        fields
            .iter()
            .chain([&generated])
            .flat_map(|field| ["--set", field]),
    );
    assert_contains(
        &folder.good(&check),
        &[
            "16 GPUs in all, 4 in a node; 1 kept warm in each pool, serving 0.5 s after the call; \
             all replaced from 20 s on, surge 1, unavailable 0 %",
        ],
    );
}

#[test]
fn a_worker_that_is_drained_in_one_role_restarts_in_the_other() {
    let folder = Folder::with_scenario_and_trace();
    let report = folder.json(&set(&[
        "pools=[{name: p, role: prefill, workers: 2}, {name: d, role: decode, workers: 1}]",
        "network.preset=efa",
        "planner={policy: schedule, schedule: [{at_s: 20, prefill: 1, decode: 2}]}",
        "lifecycle={startup_s: 50, role_switch_s: 3, gpus: 3}",
    ]));
    assert_eq!(report["requests"]["completed"], 40);
    let scaling = &report["scaling"];
    assert_eq!(scaling["workers_switched"], 1);
    assert_eq!(scaling["pools"][1]["most_ready"], 2);
    let starting = scaling["gpu_hours"]["starting"].as_f64().unwrap() * 3600.0;
    assert!((starting - 3.0).abs() < 1e-6, "{starting}");
}

#[test]
fn every_policy_runs_on_pools_that_do_everything_and_on_pools_that_do_not() {
    let folder = Folder::with_scenario_and_trace();
    let policies = [
        "planner={policy: static}",
        "planner={policy: dynamo}",
        "planner={policy: dynamo, optimization_target: latency, min_gpu_budget: 2}",
        "planner={policy: dynamo, optimization_target: sla, enable_load_scaling: true, throughput_adjustment_interval_seconds: 10}",
        "planner={policy: dynamo, optimization_target: sla, enable_load_scaling: true, enable_throughput_scaling: false, perf_model: fpm_regression}",
    ];
    let both = [
        ("planner={policy: hpa, X}", "target_queue_per_worker: 1"),
        (
            "planner={policy: keda, polling_interval_s: 5, X}",
            "target_ttft_p95_ms: 100, max_replicas: 3",
        ),
        (
            "planner={policy: llm-d, X}",
            "scale_up_queue_depth: 2, max_replicas: 3",
        ),
    ];
    let apart = [
        "pools=[{name: p, role: prefill, workers: 1}, {name: d, role: decode, workers: 1}]",
        "network.preset=efa",
        "lifecycle.startup_s=1",
    ];
    let together = ["lifecycle.startup_s=1"];
    let roles = both.map(|(policy, own)| {
        policy.replace('X', &format!("prefill: {{{own}}}, decode: {{{own}}}"))
    });
    let whole = both.map(|(policy, own)| policy.replace('X', own));
    let cases = [(&together[..], whole), (&apart[..], roles)];
    for (base, others) in cases {
        for policy in policies
            .into_iter()
            .chain(others.iter().map(String::as_str))
        {
            let report = folder.json(&set(&[base, &[policy]].concat()));
            assert_eq!(report["requests"]["completed"], 40, "{policy}");
            let ticks = report["scaling"]["ticks"].as_u64().unwrap();
            assert!(ticks > 0 || policy.contains("static"), "{policy}");
        }
    }
}

#[test]
fn the_savings_of_autoscaling_are_one_command() {
    let folder = Folder::with_scenario_and_trace();
    let base = [
        "autoscale",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--most",
        "3",
    ];
    let keep = [
        "--startup-s",
        "5",
        "--keep",
        "latency.ttft_ms.p90<=3000",
        "--out",
        "saved",
    ];
    let told = folder.json(&[&base[..], &keep, &["--json"]].concat());
    assert_eq!(told["startup_s"], 5.0);
    let runs = told["runs"].as_array().unwrap();
    let of = |kind: &str| runs.iter().filter(|run| run["kind"] == kind).count();
    assert_eq!((of("fixed"), of("planner"), of("oracle")), (3, 9, 10));
    for run in runs {
        let (value, keeps) = (run["value"].as_f64().unwrap(), run["keeps"] == true);
        assert_eq!(keeps, value <= 3000.0, "{run}");
    }
    let cheapest = |kind: &str| {
        let hours = runs
            .iter()
            .filter(|run| run["kind"] == kind && run["keeps"] == true);
        hours
            .map(|run| run["gpu_hours"].as_f64().unwrap())
            .fold(f64::INFINITY, f64::min)
    };
    assert_eq!(
        told["fixed"]["gpu_hours"].as_f64().unwrap(),
        cheapest("fixed")
    );
    let bound = told["bound_gpu_hours"].as_f64().unwrap();
    assert!(bound > 0.0);
    for run in runs {
        let over = run["gpu_hours"].as_f64().unwrap() / bound - 1.0;
        assert!(over > 0.0, "{run}");
        assert!((run["over_bound_share"].as_f64().unwrap() - over).abs() < 1e-9);
    }
    // A worker that has everything at once to do is not far from it.
    let busy = [
        "--set",
        "workload.load.arrival_speedup_ratio=1000",
        "--json",
    ];
    let busy = folder.json(&[&base[..], &busy].concat());
    let over = busy["runs"][0]["over_bound_share"].as_f64().unwrap();
    assert_eq!(busy["runs"][0]["name"], "fixed, 1");
    assert!((0.0..1.0).contains(&over), "{over}");
    // Where requests may go unserved there is none.
    let some = ["--set", "clients.timeout_s=50", "--json"];
    let some = folder.json(&[&base[..], &some].concat());
    assert!(some["bound_gpu_hours"].is_null() && some["runs"][0]["over_bound_share"].is_null());
    let share = 1.0 - cheapest("planner") / cheapest("fixed");
    assert!((told["planner_saves_share"].as_f64().unwrap() - share).abs() < 1e-12);
    for name in [
        "autoscale.csv",
        "autoscale.json",
        "autoscale.png",
        "autoscale.svg",
    ] {
        assert!(folder.path("saved").join(name).exists(), "{name}");
    }
    let text = folder.good(&[&base[..], &keep].concat());
    assert_contains(
        &text,
        &[
            "the smallest fixed fleet has",
            "No schedule on such workers takes less than ",
            "over bound",
            "fixed, 3",
            "keda on TTFT",
        ],
    );
    let pools = "pools=[{name: a, workers: 1}, {name: b, workers: 1}]";
    let wrong = folder.refused(&[&base[..], &["--set", pools, "--keep", "ttft<=3"]].concat());
    assert_contains(
        &wrong,
        &["--keep: unknown metric `ttft`", "pools: found several"],
    );
}

#[test]
fn a_picture_decisions_and_replicas_over_time_are_written_with_the_results() {
    let folder = Folder::with_scenario_and_trace();
    let schedule =
        "planner={policy: schedule, schedule: [{at_s: 10, workers: 4}, {at_s: 40, workers: 1}]}";
    let mut args = set(&[schedule, "lifecycle.startup_s=2"]);
    args.extend(["--out", "results"]);
    let report = folder.json(&args);
    let picture = folder.read("results/scaling.png");
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    let decisions = folder.text("results/decisions.csv");
    let told = report["scaling"]["decisions"].as_array().unwrap();
    assert!(!told.is_empty());
    assert_eq!(decisions.lines().count(), 1 + told.len());
    for (line, decision) in decisions.lines().skip(1).zip(told) {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[0].parse::<f64>().ok(), decision["time_s"].as_f64());
        assert_eq!(Some(cells[1]), decision["reason"].as_str());
        assert_eq!(cells[7], decision["decode"]["to"].to_string());
    }
    args.retain(|word| *word != "--json");
    assert_contains(
        &folder.good(&args),
        &["profile_export.jsonl, decisions.csv, scaling.png\n"],
    );
    let series = folder.text("results/series.csv");
    let head = series.lines().next().unwrap();
    assert!(
        head.ends_with("workers_starting,workers_spare,workers_ready,workers_draining"),
        "{head}"
    );
}

#[test]
fn what_does_not_go_together_is_refused_with_its_reason() {
    let folder = Folder::with_scenario_and_trace();
    let keda = "planner={policy: keda, target_queue: 4}";
    let keda_roles =
        "planner={policy: keda, prefill: {target_queue: 4}, decode: {target_queue: 4}}";
    for (fields, parts) in [
        (
            vec!["lifecycle.startup_s=3"],
            vec!["lifecycle: found a section that nothing uses"],
        ),
        (
            vec![keda, "router.mode=clairvoyant"],
            vec!["planner: found a planner behind router.mode clairvoyant"],
        ),
        (
            vec![keda, "pools.agg.parallel.pp=2"],
            vec!["planner: found a planner over pool agg with ranks or stages"],
        ),
        (
            vec![keda, "lifecycle.gpus=1"],
            vec!["lifecycle.gpus: found 1, expected at least 2"],
        ),
        (
            vec![
                "planner={policy: keda, target_queue: 0, min_replicas: 5, max_replicas: 2, polling_interval_s: 0}",
            ],
            vec![
                "polling_interval_s: found 0 s",
                "target",
                "min_replicas: found 5",
            ],
        ),
        (
            vec![
                keda,
                "lifecycle={gpus: 6, gpus_per_node: 4, activate_s: 3, update: {surge: 0, unavailable: 120%}}",
            ],
            vec![
                "lifecycle.gpus_per_node: found 4, expected a divisor of gpus (6)",
                "lifecycle.activate_s: found a time without spares",
                "lifecycle.update.at_s: found nothing",
                "lifecycle.update.unavailable: found `120%`, expected a whole number of workers, or a share",
            ],
        ),
        (
            vec![
                keda,
                "lifecycle={update: {at_s: 3, surge: 0, unavailable: 0%}}",
            ],
            vec!["lifecycle.update.surge: found 0 beside unavailable 0"],
        ),
        (
            vec![keda, "lifecycle={spares: 2, gpus: 3}"],
            vec![
                "lifecycle.gpus: found 3, expected at least 4, which the workers at the start and their spares take",
            ],
        ),
        (
            vec![keda, "lifecycle={gpus_per_node: 2, role_switch_s: 1}"],
            vec![
                "lifecycle.gpus_per_node: found 2, expected gpus beside it",
                "lifecycle.role_switch_s: found pools without roles",
            ],
        ),
        (
            vec![
                "pools=[{name: p, role: prefill, workers: 1, parallel: {tp: 2}}, {name: d, role: decode, workers: 1}]",
                "network.preset=efa",
                keda_roles,
                "lifecycle={role_switch_s: 1}",
            ],
            vec![
                "lifecycle.role_switch_s: found pools whose workers spread over GPUs in different ways",
            ],
        ),
        (
            vec!["planner={policy: hpa, target_queue: 1, target_kv_use: 0.5}"],
            vec!["planner.target_queue: found two targets"],
        ),
        (
            vec!["planner={policy: dynamo, load_predictor: arima}"],
            vec!["planner.load_predictor: found arima, expected autoregressive"],
        ),
        (
            vec!["planner={policy: dynamo, max_gpu_budget: -1}"],
            vec!["planner.max_gpu_budget: found no bound"],
        ),
        (
            vec![
                "planner={policy: schedule, schedule: [{at_s: 5, workers: 2}, {at_s: 4, workers: 1}]}",
            ],
            vec!["planner.schedule: found 4 s, expected a time after 5 s"],
        ),
    ] {
        assert_contains(&folder.refused(&set(&fields)), &parts);
    }
    for option in [vec!["--live"], vec!["--regret", "3"]] {
        let args = [set(&[keda]), option.clone()].concat();
        assert_contains(
            &folder.refused(&args),
            &[&format!("{}: found a planner", option[0])],
        );
    }
}

#[test]
fn fleets_of_two_roles_are_compared_by_both_sizes() {
    let folder = Folder::with_scenario_and_trace();
    let pools = "pools=[{name: p, role: prefill, workers: 4}, {name: d, role: decode, workers: 4}]";
    let base = [
        "autoscale",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--startup-s",
        "5",
        "--set",
        pools,
        "--set",
        "network.preset=efa",
    ];
    let told = folder.json(&[&base[..], &["--most", "4", "--json"]].concat());
    let runs = told["runs"].as_array().unwrap();
    let names: Vec<&str> = runs
        .iter()
        .filter(|run| run["kind"] == "fixed")
        .map(|run| run["name"].as_str().unwrap())
        .collect();
    let expected = ["1P 1D", "1P 2D", "1P 3D", "2P 1D", "2P 2D", "3P 1D"];
    assert_eq!(names, expected.map(|sizes| format!("fixed, {sizes}")));
    assert_eq!(runs.len(), 6 + 9 + 10);
    for run in runs {
        assert!(run["peak_workers"].as_u64().unwrap() <= 4, "{run}");
        assert!(run["gpu_hours"].as_f64().unwrap() > 0.0, "{run}");
    }
    let text = folder.good(
        &[
            &base[..],
            &["--most", "3", "--keep", "latency.ttft_ms.p90<=9000"],
        ]
        .concat(),
    );
    assert_contains(&text, &["workers (1P 1D)", "keda on TTFT"]);
    let wrong = folder.refused(&[&base[..], &["--most", "1"]].concat());
    assert_contains(&wrong, &["--most: found 1, expected 2 or more"]);
}

#[test]
fn a_sweep_varies_fields_of_a_planner_that_the_command_line_brings() {
    let folder = Folder::with_scenario_and_trace();
    let sweep = |field: &'static str| {
        [
            "sweep",
            "scenario.yaml",
            "--trace",
            "trace.jsonl",
            "--set",
            "planner={policy: keda, target_ttft_p95_ms: 500, max_replicas: 3}",
            "--set",
            "lifecycle.startup_s=1",
            "--vary",
            field,
        ]
    };
    folder.good(&sweep("planner.polling_interval_s=5,15"));
    let told = folder.refused(&sweep("planner.polling_intervals=5,15"));
    assert_contains(&told, &["did you mean `polling_interval_s`?"]);
}
