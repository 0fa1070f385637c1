//! What requests say about themselves and the deployment does not read, or cannot meet: said with every result.

use crate::scenario::{Role, Scenario};
use engine::{AnnotationTable, Annotations};
use sim::RouterSpec;
use std::collections::BTreeSet;

/// One sentence for each kind of word that changes nothing, or that no worker meets.
pub fn unread(scenario: &Scenario, table: &AnnotationTable) -> Vec<String> {
    if table.is_empty() {
        return Vec::new();
    }
    let kinds = table.kinds();
    let count = |is: &dyn Fn(&Annotations) -> bool| -> u64 {
        let kinds = kinds.iter().filter(|(kind, _)| is(kind));
        kinds.map(|(_, rows)| rows).sum()
    };
    let mut sentences = Vec::new();
    let mut tell = |rows: u64, what: &str| {
        if rows > 0 {
            let s = if rows == 1 { " says" } else { "s say" };
            sentences.push(format!("{rows} request{s} {what}"));
        }
    };
    let is_split = scenario
        .pools
        .iter()
        .any(|pool| pool.role != Role::Aggregated);
    let (names_any, names_here) = names(&count, is_split);
    if scenario.router.reads_names() {
        tell(
            names_any - names_here,
            "which worker serves them under names that this deployment has no use for (prefill and decode apart or not): not read",
        );
    } else {
        tell(
            names_any,
            "which worker serves them: read by the router modes direct and kv only",
        );
    }
    if !matches!(scenario.router, RouterSpec::Kv(_)) {
        tell(
            count(&|kind| !kind.preferred_taints.is_empty()),
            "which taints they prefer: read by the router mode kv only, which has costs",
        );
    }
    let queues = match &scenario.router {
        RouterSpec::Kv(kv) => kv.queue_threshold.is_some() || kv.policy_classes.is_some(),
        _ => false,
    };
    if !queues {
        tell(
            count(&|kind| kind.strict_priority > 0 || kind.policy_class.is_some()),
            "their place in a router's queue, of which there is none (router.queue_threshold, policy_config)",
        );
    }
    for taint in unmet(scenario, &kinds) {
        let rows = count(&|kind| kind.required_taints.contains(&taint));
        tell(
            rows,
            &format!("that they require the taint {taint}, which no worker has: refused"),
        );
    }
    sentences
}

/// Requests that name a worker, and those that name one for what workers do here.
fn names(count: &dyn Fn(&dyn Fn(&Annotations) -> bool) -> u64, is_split: bool) -> (u64, u64) {
    let any = count(&|kind| kind.workers != engine::NamedWorkers::default());
    let here = count(&|kind| match is_split {
        true => kind.workers.prefill.or(kind.workers.decode).is_some(),
        false => kind.workers.whole.is_some(),
    });
    (any, here)
}

/// Required taints that no pool has.
fn unmet(scenario: &Scenario, kinds: &[(&Annotations, u64)]) -> BTreeSet<String> {
    let required = kinds.iter().flat_map(|(kind, _)| &kind.required_taints);
    let has = |taint: &&String| {
        scenario
            .pools
            .iter()
            .any(|pool| pool.taints.contains(taint))
    };
    required.filter(|taint| !has(taint)).cloned().collect()
}
