//! Faults: what a report says of them, what is refused.

use crate::program::{Folder, assert_contains, json, replay};
use serde_json::Value;

#[test]
fn a_lost_node_is_one_fault_with_all_its_workers() {
    let folder = Folder::with_scenario_and_trace();
    let loss = "faults={gpus_per_node: 2, migration_limit: 2, timeline: [{at_s: 20, kind: node_loss, node: 1, for_s: 15}]}";
    let pools = "pools=[{name: agg, workers: 4}]";
    let report = json(&folder, &[pools, loss]);
    assert_eq!(report["requests"]["completed"], 40);
    let faults = report["adversity"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 1);
    let fault = &faults[0];
    assert_eq!(fault["kind"], "node_loss");
    assert_eq!((&fault["node"], &fault["workers"]), (&1.into(), &2.into()));
    assert_eq!(fault["worker"], Value::Null);
    assert_eq!(
        (&fault["began_s"], &fault["ended_s"]),
        (&20.0.into(), &35.0.into())
    );
    assert_eq!(fault["requests"], fault["migrated"]);
    let mut stepping = replay(&[pools, loss]);
    stepping.extend(["--json", "--stepping"]);
    assert_eq!(folder.json(&stepping), report);
    // Beside a planner those that were there are replaced elsewhere, and the node gives nothing meanwhile.
    let fields = [
        pools,
        "planner={policy: static}",
        "lifecycle={startup_s: 4, gpus: 6, gpus_per_node: 2}",
        "faults={migration_limit: 2, timeline: [{at_s: 20, kind: node_loss, node: 1, for_s: 15}]}",
    ];
    let report = json(&folder, &fields);
    assert_eq!(report["adversity"]["faults"][0]["workers"], 2);
    assert_eq!(report["scaling"]["workers_started"], 2);
    assert_eq!(report["scaling"]["pools"][0]["fewest_ready"], 2);
    assert_contains(&folder.good(&replay(&fields)), &["1 x node_loss"]);
    let random = "faults={gpus_per_node: 3, random: [{kind: node_loss, mtbf_s: 30, for_s: 2}]}";
    let report = json(&folder, &[pools, random]);
    let faults = report["adversity"]["faults"].as_array().unwrap();
    let workers = |node: u64| {
        let of_node = faults
            .iter()
            .filter(move |it| it["node"].as_u64() == Some(node));
        of_node.map(|it| it["workers"].as_u64()).collect::<Vec<_>>()
    };
    assert!(!workers(0).is_empty() && workers(0).iter().all(|it| *it == Some(3)));
    assert!(!workers(1).is_empty() && workers(1).iter().all(|it| *it == Some(1)));
}

#[test]
fn nodes_and_spot_prices_are_there_beside_pools_of_two_roles() {
    let folder = Folder::with_scenario_and_trace();
    let fields = [
        "pools=[{name: p, role: prefill, workers: 2}, {name: d, role: decode, workers: 2}]",
        "network={preset: efa, topology: {gpus_per_node: 2, nics_per_node: 2, placement: spread}}",
        "faults={migration_limit: 10, timeline: [{at_s: 20, kind: node_loss, node: 0, for_s: 15}]}",
    ];
    let report = json(&folder, &fields);
    assert_eq!(report["requests"]["completed"], 40);
    let fault = &report["adversity"]["faults"][0];
    assert_eq!((&fault["node"], &fault["workers"]), (&0.into(), &2.into()));
    let mut stepping = replay(&fields);
    stepping.extend(["--json", "--stepping"]);
    assert_eq!(folder.json(&stepping), report);
    let spot = [
        fields[0],
        "network.preset=efa",
        "faults.migration_limit=10",
        "costs.prices=[{name: a, usd_per_gpu_hour: 2, pools: [p]}, {name: s, pools: [d], usd_per_gpu_hour: 1, \
         spot: {mtbf_s: 40, notice_s: 2, away_s: 10, on_demand_usd: 2}}]",
    ];
    let report = json(&folder, &spot);
    assert_eq!(report["requests"]["completed"], 40);
    let faults = report["adversity"]["faults"].as_array().unwrap();
    assert!(!faults.is_empty());
    assert!(
        faults.iter().all(|it| it["worker"].as_u64() >= Some(2)),
        "of the decode pool"
    );
    let saved = report["costs"]["spot"]["listed_saved_share"]
        .as_f64()
        .unwrap();
    assert!(
        (0.1..0.25).contains(&saved),
        "half of half of the GPUs: {saved}"
    );
    let mut stepping = replay(&spot);
    stepping.extend(["--json", "--stepping"]);
    assert_eq!(folder.json(&stepping), report);
}

#[test]
fn nodes_that_nobody_knows_are_refused() {
    let folder = Folder::with_scenario_and_trace();
    for (fields, part) in [
        (
            &["faults={timeline: [{at_s: 2, kind: node_loss, node: 0, for_s: 15}]}"][..],
            "found a loss of a node, where nobody says what a node is",
        ),
        (
            &[
                "faults={gpus_per_node: 1, timeline: [{at_s: 2, kind: node_loss, node: 2, for_s: 15}]}",
            ],
            "faults.timeline[0].node: found `2`, expected a whole number from 0 to 1",
        ),
        (
            &["faults={gpus_per_node: 1, timeline: [{at_s: 2, kind: node_loss, for_s: 15}]}"],
            "faults.timeline[0].node: found nothing, expected the number of a node",
        ),
        (
            &[
                "faults={gpus_per_node: 1, timeline: [{at_s: 2, kind: hang, worker: 0, node: 0, for_s: 15}]}",
            ],
            "faults.timeline[0].node: found a node, expected none",
        ),
        (
            &[
                "faults={gpus_per_node: 1, random: [{mtbf_s: 20, kind: node_loss, worker: 0, for_s: 15}]}",
            ],
            "faults.random[0].worker: found a worker, expected none",
        ),
        (
            &[
                "planner={policy: static}",
                "faults={gpus_per_node: 1, random: [{mtbf_s: 20, kind: node_loss, for_s: 15}]}",
            ],
            "faults.gpus_per_node: found GPUs of a node, expected lifecycle.gpus_per_node",
        ),
    ] {
        assert_contains(&folder.refused(&replay(fields)), &[part]);
    }
}

#[test]
fn a_shadow_serves_where_a_process_crashed() {
    let folder = Folder::with_scenario_and_trace();
    let fault = "faults={migration_limit: 2, timeline: [{at_s: 20, kind: crash, worker: 0}]}";
    let of = |lifecycle: &str| {
        let fields = ["planner={policy: static}", lifecycle, fault];
        let mut stepping = replay(&fields);
        stepping.extend(["--json", "--stepping"]);
        let report = json(&folder, &fields);
        assert_eq!(folder.json(&stepping), report);
        report
    };
    let shadow = of("lifecycle={startup_s: 30, shadow_failover_s: 2}");
    assert_eq!(shadow["adversity"]["faults"][0]["ended_s"], 22.0);
    let hours = &shadow["scaling"]["gpu_hours"];
    let starting = hours["starting"].as_f64().unwrap() * 3600.0;
    assert!((starting - 2.0).abs() < 1e-6, "{starting}");
    assert_eq!(
        shadow["scaling"]["peak_workers"], 2,
        "it has the GPUs of the other"
    );
    let alone = of("lifecycle={startup_s: 30}");
    assert_eq!(alone["adversity"]["faults"][0]["ended_s"], 50.0);
    let spare = of("lifecycle={startup_s: 30, spares: 1, activate_s: 2}");
    assert_eq!(spare["adversity"]["faults"][0]["ended_s"], 22.0);
    assert_eq!(spare["scaling"]["peak_workers"], 3);
    let loss = "faults={timeline: [{at_s: 20, kind: node_loss, node: 0, for_s: 60}]}";
    let fields = [
        "planner={policy: static}",
        "lifecycle={startup_s: 5, shadow_failover_s: 1, gpus: 4, gpus_per_node: 2}",
        loss,
    ];
    let lost = json(&folder, &fields);
    let starting = lost["scaling"]["gpu_hours"]["starting"].as_f64().unwrap() * 3600.0;
    assert!(
        (starting - 10.0).abs() < 1e-6,
        "both start anew: {starting}"
    );
    let told = folder.refused(&replay(&[
        "lifecycle.shadow_failover_s=-1",
        "planner={policy: static}",
    ]));
    assert_contains(&told, &["lifecycle.shadow_failover_s: found `-1`"]);
}
