//! `clients`, `admission` and `faults`.

use super::{bad, good};
use engine::{Span, Time};
use sim::AdversitySpec;
use sim::adversity::clients::{CancelSpec, CancelWhen, ClientSpec};
use sim::adversity::faults::{Fault, FaultKind, FaultSpec, RandomFault};
use sim::adversity::shedding::Shedding;

const TEXT: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
pools: [{name: agg, workers: 3}]
router: {mode: kv}
workload: {trace: {path: trace.jsonl}}
clients: {cancel_share: 0.1, cancel_after_tokens: 40, ttft_timeout_s: 10, timeout_s: 60, retries: 2, retry_backoff_s: 0.5}
admission: {active_decode_blocks_threshold: 0.85, active_prefill_tokens_threshold_frac: 2}
faults:
  migration_limit: 3
  timeline:
    - {at_s: 60, kind: crash, worker: 2, for_s: 90}
    - {at_s: 70, kind: straggler, worker: 0, for_s: 5, factor: 2.5}
    - {at_s: 80, kind: router_restart, index: caches}
  random:
    - {kind: hang, mtbf_s: 3600, for_s: 1}
";

#[test]
fn adversities_are_read() {
    let s = Span::from_s;
    let fault = |at, kind, worker, lasts| Fault {
        at: Time::ZERO + s(at),
        kind,
        worker,
        lasts: s(lasts),
    };
    let restart = FaultKind::RouterRestart { reads_caches: true };
    let expected = AdversitySpec {
        clients: ClientSpec {
            cancel: Some(CancelSpec {
                share: 0.1,
                when: CancelWhen::AfterTokens(40),
            }),
            ttft_timeout: Some(s(10.0)),
            timeout: Some(s(60.0)),
            retries: 2,
            backoff: s(0.5),
        },
        shedding: Shedding {
            active_decode_blocks: Some(0.85),
            active_prefill_tokens: None,
            active_prefill_tokens_frac: Some(2.0),
        },
        faults: FaultSpec {
            timeline: vec![
                fault(60.0, FaultKind::Crash, 2, 90.0),
                fault(70.0, FaultKind::Straggler { percent: 250 }, 0, 5.0),
                fault(80.0, restart, 0, 0.0),
            ],
            random: vec![RandomFault {
                mtbf: s(3600.0),
                kind: FaultKind::Hang,
                worker: None,
                lasts: s(1.0),
            }],
            migration_limit: 3,
            ..FaultSpec::default()
        },
    };
    assert_eq!(good(TEXT, &[]).adversity, expected);
}

#[test]
fn what_says_nothing_is_nothing() {
    let none = [("clients.cancel_share", "0"), ("clients.retries", "0")];
    let nothing = [
        ("clients.retry_backoff_s", "null"),
        ("clients.ttft_timeout_s", "null"),
        ("clients.timeout_s", "null"),
        ("admission", "null"),
        ("faults", "null"),
    ];
    assert!(
        good(TEXT, &[&none[..], &nothing].concat())
            .adversity
            .is_nothing()
    );
}

#[test]
fn everything_that_is_wrong_is_said() {
    let wrong = [
        ("clients.cancel_after_s", "5"),
        ("clients.timeout_s", "10"),
        ("faults.timeline.0.worker", "3"),
        ("faults.timeline.1.factor", "null"),
        ("faults.timeline.2.for_s", "3"),
        ("faults.random.0.mtbf_s", "null"),
    ];
    let told = bad(TEXT, &wrong).join("\n");
    for part in [
        "clients.cancel_after_tokens: found a number of tokens beside a time",
        "clients.ttft_timeout_s: found 10, expected less than timeout_s, 10",
        "faults.timeline[0].worker: found `3`, expected a whole number from 0 to 2",
        "faults.timeline[1].factor: found nothing, expected how many times as long steps take, or transfers",
        "faults.timeline[2].for_s: found a duration, expected none",
        "faults.random[0].mtbf_s: found nothing, expected a time in seconds",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert!(!told.contains("unknown field"), "{told}");
}

#[test]
fn beside_a_planner_a_lost_worker_starts_as_long_as_lifecycle_says() {
    let planner = ("planner", "{policy: static}");
    let crash = [planner, ("lifecycle", "{startup_s: 40}")];
    let told = bad(TEXT, &crash).join("\n");
    let part = "faults.timeline[0].for_s: found a duration, expected none beside a planner";
    assert!(told.contains(part), "{told}");
    let no_time = [&crash[..], &[("faults.timeline.0.for_s", "null")]].concat();
    let fault = good(TEXT, &no_time).adversity.faults.timeline[0];
    assert_eq!((fault.kind, fault.lasts), (FaultKind::Crash, Span::ZERO));
    let limit = [planner, ("lifecycle", "{startup_s: 40, drain_limit_s: 30}")];
    let none = [
        ("clients", "null"),
        ("admission", "null"),
        ("faults", "{migration_limit: 2}"),
    ];
    let faults = good(TEXT, &[&limit[..], &none].concat()).adversity.faults;
    assert_eq!(faults.drain_limit, Some(Span::from_s(30.0)));
    let restart = (
        "faults.timeline.2",
        "{at_s: 5, kind: planner_restart, for_s: 9}",
    );
    let told = bad(TEXT, &[restart]).join("\n");
    assert!(
        told.contains("found a planner that restarts, where there is none"),
        "{told}"
    );
}

#[test]
fn what_is_not_modelled_together_is_refused() {
    for (set, part) in [
        (
            ("pools.agg.parallel", "{dp: 2}"),
            "found ranks that step together in pool agg",
        ),
        (
            ("pools.agg.parallel", "{pp: 2}"),
            "found hangs or stragglers beside stages in pool agg",
        ),
        (
            (
                "engine.speculative_config",
                "{method: mtp, num_speculative_tokens: 1, acceptance_rates: [0.8]}",
            ),
            "found clients that count tokens beside drafts in pool agg",
        ),
        (
            ("pools.agg.kvbm", "{cpu_cache_gb: 64}"),
            "faults.timeline[0].kind: found a crash of a worker with tiers",
        ),
        (
            ("router.mode", "clairvoyant"),
            "found an oracle that routes",
        ),
        (
            ("faults.random.0.kind", "event_loss"),
            "found lost KV events under a router that listens to none",
        ),
    ] {
        let deaf = ("router.use_kv_events", "false");
        let sets = [set, deaf];
        let sets = if part.contains("lost KV") {
            &sets[..]
        } else {
            &sets[..1]
        };
        let told = bad(TEXT, sets).join("\n");
        assert!(told.contains(part), "{part}\n{told}");
    }
}
