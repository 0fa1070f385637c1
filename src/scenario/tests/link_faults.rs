//! `faults` of links.

use super::{bad, good};
use engine::Span;
use sim::adversity::faults::FaultKind;
use sim::links::{Impairment, SiteKind};

const TEXT: &str = "
model: meta-llama/Llama-3.1-8B
gpu: h100_sxm
pools: [{name: p, role: prefill, workers: 2}, {name: d, role: decode, workers: 2}]
network: {preset: roce}
router: {mode: kv}
workload: {trace: {path: trace.jsonl}}
faults:
  timeline:
    - {at_s: 60, kind: link_slow, link: worker, number: 3, for_s: 30, factor: 4}
  random:
    - {kind: link_down, link: worker, mtbf_s: 3600, for_s: 10}
";

const TOPOLOGY: &str = "{gpus_per_node: 1, nodes_per_rack: 2, leaf_oversubscription: 2}";

#[test]
fn links_are_named_by_kind_and_number() {
    let faults = good(TEXT, &[]).adversity.faults;
    let slow = Impairment::Slow { percent: 400 };
    let kind = |site, how| FaultKind::Link { site, how };
    let first = faults.timeline[0];
    assert_eq!(
        (first.kind, first.worker, first.lasts),
        (kind(SiteKind::Worker, slow), 3, Span::from_s(30.0))
    );
    let rule = faults.random[0];
    assert_eq!(
        (rule.kind, rule.worker),
        (kind(SiteKind::Worker, Impairment::Down), None)
    );
    let sets = [
        ("network.topology", TOPOLOGY),
        ("faults.timeline.0.link", "rack"),
        ("faults.timeline.0.number", "1"),
        ("faults.random.0.link", "nic"),
    ];
    let faults = good(TEXT, &sets).adversity.faults;
    let first = faults.timeline[0];
    assert_eq!((first.kind, first.worker), (kind(SiteKind::Rack, slow), 1));
}

#[test]
fn links_that_do_not_exist_are_refused() {
    let slow = "faults.timeline.0";
    for (set, part) in [
        (
            ("number", "4"),
            "timeline[0].number: found 4, expected a number below 4",
        ),
        (
            ("number", "null"),
            "timeline[0].number: found nothing, expected which worker it is",
        ),
        (
            ("link", "null"),
            "timeline[0].link: found nothing, expected which links",
        ),
        (
            ("link", "wire"),
            "expected one of worker, nvlink, nic, node, rack, zone, core",
        ),
        (
            ("link", "rack"),
            "found a rack link, of which there is none, expected network.topology.leaf_oversubscription",
        ),
        (
            ("link", "core"),
            "found a core link, of which there is none, expected network.core_gb_per_s",
        ),
        (
            ("factor", "null"),
            "timeline[0].factor: found nothing, expected how many times as long",
        ),
        (("factor", "1"), "timeline[0].factor: found `1`"),
        (
            ("kind", "link_down"),
            "timeline[0].factor: found a factor, expected none",
        ),
        (
            ("worker", "1"),
            "timeline[0].worker: found a worker, expected none",
        ),
        (("for_s", "null"), "timeline[0].for_s: found nothing"),
        (
            ("kind", "hang"),
            "timeline[0].link: found a link, expected none",
        ),
    ] {
        let field = format!("{slow}.{}", set.0);
        let told = bad(TEXT, &[(&field, set.1)]).join("\n");
        assert!(told.contains(part), "{part}\n{told}");
    }
}

#[test]
fn links_break_where_something_crosses_them() {
    let sets = [("pools", "[{name: agg, workers: 2}]"), ("network", "null")];
    let told = bad(TEXT, &sets).join("\n");
    let part =
        "timeline[0].kind: found a link that breaks between workers that send each other nothing";
    assert!(told.contains(part), "{told}");
    let sglang = [
        ("engine", "{backend: sglang}"),
        ("router", "null"),
        ("faults.random.0.for_s", "300"),
    ];
    let told = bad(TEXT, &sglang).join("\n");
    let part = "random[0].for_s: found 300 s between SGLang servers";
    assert!(told.contains(part), "{told}");
}
