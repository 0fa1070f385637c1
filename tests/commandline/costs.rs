//! Prices and energy: what a run says of them, that they change nothing in it, what is refused.

use crate::program::{Folder, assert_contains, json, replay};
use serde_json::Value;

const PRICES: &str = "costs={prices: [{name: reserved, usd_per_gpu_hour: 2, gpus: 1, reserved: true}, \
    {name: on-demand, usd_per_gpu_hour: 5, source: a list}]}";
const ENERGY: &str = "energy={gpu_power_w: 700, usd_per_kwh: 0.2}";
const SCHEDULE: &str =
    "planner={policy: schedule, schedule: [{at_s: 10, workers: 3}, {at_s: 30, workers: 1}]}";

fn number(value: &Value) -> f64 {
    value.as_f64().expect("it is a number")
}

#[test]
fn costs_are_those_of_the_gpu_hours_and_change_no_event() {
    let folder = Folder::with_scenario_and_trace();
    let fields = [SCHEDULE, "lifecycle.startup_s=5", "sla.ttft_ms=5000"];
    let priced = [&fields[..], &[PRICES, ENERGY]].concat();
    let report = json(&folder, &priced);
    let costs = &report["costs"];
    let (reserved, rest) = (&costs["prices"][0], &costs["prices"][1]);
    // Everything that was taken is paid at one price or the other; the reserved GPU is paid to the end.
    let taken = number(&reserved["gpu_hours"]) + number(&rest["gpu_hours"]);
    let all = number(&report["throughput"]["gpu_hours"]);
    assert!((taken - all).abs() < 1e-9, "{taken} {all}");
    assert_eq!(number(&reserved["unused_gpu_hours"]), 0.0);
    let usd = 2.0 * number(&reserved["gpu_hours"]) + 5.0 * number(&rest["gpu_hours"]);
    assert!((usd - number(&costs["usd"])).abs() < 1e-9);
    let of_states = ["starting_usd", "spare_usd", "ready_usd", "draining_usd"];
    let states: f64 = of_states
        .iter()
        .map(|state| number(&costs["pools"][0][*state]))
        .sum();
    assert!((states + number(&costs["unused_usd"]) - usd).abs() < 1e-9);
    let good = number(&report["goodput"]["requests"]);
    let per_thousand = number(&costs["usd_per_thousand_good_requests"]);
    assert!((per_thousand - 1000.0 * usd / good).abs() < 1e-9);
    let energy = &report["energy"];
    assert_eq!(energy["basis"], "estimated");
    let kwh = number(&energy["kwh"]);
    // No more than all GPUs at full power, no less than all idle.
    assert!(kwh < 0.7 * all && kwh > 0.15 * 0.7 * all, "{kwh} kWh");
    assert!((number(&energy["usd"]) - 0.2 * kwh).abs() < 1e-12);
    let plain = json(&folder, &fields);
    assert_eq!(plain["latency"], report["latency"]);
    assert_eq!(plain["costs"], Value::Null);
    assert_ne!(plain["digest"], report["digest"], "other results");
    let text = folder.good(&replay(&priced));
    assert_contains(
        &text,
        &[
            "per thousand requests within the SLA",
            "reserved: ",
            "GPU-hours at $5: $",
            "per million output tokens (estimate)",
        ],
    );
    let mut stepping = replay(&priced);
    stepping.extend(["--json", "--stepping"]);
    let stepping = folder.json(&stepping);
    assert_eq!(stepping["costs"], report["costs"]);
    assert_eq!(stepping["energy"], report["energy"]);
}

#[test]
fn a_sweep_finds_how_many_gpus_to_reserve() {
    let folder = Folder::with_scenario_and_trace();
    let sweep = [
        "sweep",
        "scenario.yaml",
        "--trace",
        "trace.jsonl",
        "--set",
        SCHEDULE,
        "--set",
        "lifecycle.startup_s=5",
        "--set",
        PRICES,
        "--vary",
        "costs.prices.reserved.gpus=1,2,3",
        "--y",
        "costs.usd",
        "--x",
        "latency.ttft_ms.p90",
        "--json",
    ];
    let told = folder.good(&sweep);
    assert_contains(&told, &["costs.usd", "costs.unused_usd"]);
    let priced = "autoscale scenario.yaml --trace trace.jsonl --most 2 --json --set";
    let mut autoscale: Vec<&str> = priced.split(' ').collect();
    autoscale.push("costs.prices=[{name: all, usd_per_gpu_hour: 3}]");
    let told = folder.json(&autoscale);
    for run in told["runs"].as_array().unwrap() {
        let usd = 3.0 * number(&run["gpu_hours"]);
        assert!((number(&run["usd"]) - usd).abs() < 1e-9, "{run}");
    }
}

const SPOT: &str = "costs.prices=[{name: spot, usd_per_gpu_hour: 1, \
    spot: {mtbf_s: 40, notice_s: 2, away_s: 10, on_demand_usd: 4}}]";

#[test]
fn spot_gpus_are_judged_against_the_same_deployment_on_demand() {
    let folder = Folder::with_scenario_and_trace();
    let fields = ["sla.ttft_ms=500", "faults.migration_limit=1"];
    let spot = [&fields[..], &[SPOT]].concat();
    let report = json(&folder, &spot);
    let told = &report["costs"]["spot"];
    let interruptions = told["interruptions"].as_u64().unwrap();
    assert!(interruptions > 0, "{told}");
    let faults = report["adversity"]["faults"].as_array().unwrap();
    assert_eq!(faults.len() as u64, interruptions);
    assert!(faults.iter().all(|fault| fault["kind"] == "interruption"));
    let sum = |name: &str| {
        faults
            .iter()
            .map(|it| it[name].as_u64().unwrap())
            .sum::<u64>()
    };
    for name in ["requests", "migrated", "lost", "recomputed_tokens"] {
        assert_eq!(told[name], sum(name), "{name}");
    }
    // Nobody pays for what is taken back, from the end of the notice to the end of the interruption.
    let end = number(&report["costs"]["usd"]) / number(&report["costs"]["usd_per_hour"]);
    let away = |fault: &Value| {
        let from = number(&fault["began_s"]) + 2.0;
        (number(&fault["ended_s"]).min(3600.0 * end) - from).max(0.0)
    };
    let away: f64 = faults.iter().map(away).sum();
    let hours = number(&report["throughput"]["gpu_hours"]);
    assert!(
        (hours - (2.0 * end - away / 3600.0)).abs() < 1e-9,
        "{hours}"
    );
    assert!((number(&report["costs"]["usd"]) - hours).abs() < 1e-9);
    assert!((number(&told["listed_saved_share"]) - 0.75).abs() < 1e-9);
    // The same on demand, where nothing happens.
    let on_demand = "costs.prices=[{name: on-demand, usd_per_gpu_hour: 4}]";
    let plain = json(&folder, &["sla.ttft_ms=500", on_demand]);
    assert_eq!(told["on_demand_usd"], plain["costs"]["usd"]);
    let good = "usd_per_thousand_good_requests";
    assert_eq!(told[format!("on_demand_{good}")], plain["costs"][good]);
    assert_eq!(told["on_demand_good_share"], plain["goodput"]["share"]);
    let saved = 1.0 - number(&report["costs"][good]) / number(&plain["costs"][good]);
    assert!((number(&told["saved_share"]) - saved).abs() < 1e-12);
    let mut stepping = replay(&spot);
    stepping.extend(["--json", "--stepping"]);
    assert_eq!(folder.json(&stepping), report);
    assert_contains(
        &folder.good(&replay(&spot)),
        &["spot: ", " interruptions met ", "spot saves "],
    );
    // With a planner the GPUs that are taken back are missing from those there are.
    let scaled = [
        "planner={policy: static}",
        "lifecycle={startup_s: 3, gpus: 2}",
    ];
    let spot = ["sla.ttft_ms=500", "faults.migration_limit=10", SPOT];
    let report = json(&folder, &[&spot[..], &scaled].concat());
    let outcomes = &report["requests"];
    assert_eq!(outcomes["completed"].as_u64(), Some(40), "{outcomes}");
    let told = &report["costs"]["spot"];
    assert!(told["interruptions"].as_u64().unwrap() > 0, "{told}");
    let started = report["scaling"]["workers_started"].as_u64().unwrap();
    assert!(started > 0, "those that are gone are replaced");
    let hours = number(&report["throughput"]["gpu_hours"]);
    assert!((number(&report["costs"]["usd"]) - hours).abs() < 1e-9);
    let end = number(&report["costs"]["usd"]) / number(&report["costs"]["usd_per_hour"]);
    assert!(hours < 1.95 * end, "nobody pays for what is taken back");
}

#[test]
fn spot_prices_that_cannot_be_are_refused() {
    let folder = Folder::with_scenario_and_trace();
    let spot = "spot: {mtbf_s: 40, notice_s: 2, away_s: 10, on_demand_usd: 4}";
    let priced = |more: &str| format!("costs.prices=[{{name: a, usd_per_gpu_hour: 1, {more}}}]");
    for (fields, part) in [
        (
            vec![priced("spot: {}")],
            "costs.prices[0].spot.on_demand_usd: found nothing",
        ),
        (
            vec![priced(&format!("gpus: 3, {spot}"))],
            "costs.prices[0].gpus: found a number of GPUs beside spot",
        ),
        (
            vec![
                priced(spot),
                "costs.prices.1={name: b, gpus: 2, usd_per_gpu_hour: 2}".to_owned(),
            ],
            "costs.prices",
        ),
        (
            vec![priced(spot), "planner={policy: static}".to_owned()],
            "found spot beside a planner with as many GPUs as it asks for",
        ),
        (
            vec![priced(spot), "router.mode=clairvoyant".to_owned()],
            "found an oracle that routes",
        ),
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        assert_contains(&folder.refused(&replay(&fields)), &[part]);
    }
    let beside = "costs.prices=[{name: b, gpus: 2, usd_per_gpu_hour: 2}, {name: a, usd_per_gpu_hour: 1, \
        spot: {mtbf_s: 40, notice_s: 2, away_s: 10, on_demand_usd: 4}}]";
    let told = folder.refused(&replay(&[beside]));
    assert_contains(&told, &["found a spot price beside another for pool agg"]);
    let told = folder.refused(&[&replay(&[SPOT])[..], &["--live"]].concat());
    assert_contains(&told, &["--live"]);
}

#[test]
fn prices_that_do_not_cover_the_pools_are_refused_all_at_once() {
    let folder = Folder::with_scenario_and_trace();
    for (field, parts) in [
        ("costs={}", &["costs.prices: found nothing"][..]),
        (
            "costs={prices: [{usd_per_gpu_hour: -1, reserved: true, per: hour}]}",
            &[
                "costs.prices[0].name: found nothing",
                "costs.prices[0].usd_per_gpu_hour: found `-1`",
                "costs.prices[0].gpus: found nothing, expected how many are reserved",
                "costs.prices[0].per",
            ],
        ),
        (
            "costs={prices: [{name: a, usd_per_gpu_hour: 1, gpus: 4}]}",
            &["no price without `gpus` for pool"],
        ),
        (
            "costs={prices: [{name: a, usd_per_gpu_hour: 1}, {name: b, usd_per_gpu_hour: 2}]}",
            &["a price behind `a`"],
        ),
        (
            "costs={prices: [{name: a, usd_per_gpu_hour: 1, pools: [nobody]}]}",
            &["costs.prices[0].pools", "names of pools"],
        ),
        (
            "energy={pue: 0.5, decode_share: 9}",
            &["energy.pue: found `0.5`", "energy.decode_share: found `9`"],
        ),
    ] {
        assert_contains(&folder.refused(&replay(&[field])), parts);
    }
    // No datasheet states one power for this GPU.
    let told = folder.refused(&replay(&["gpu=b300_sxm", "energy={}"]));
    assert_contains(
        &told,
        &["energy.gpu_power_w: found nothing, and b300_sxm in pool agg"],
    );
}
