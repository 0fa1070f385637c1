//! What requests say about themselves and the deployment does not read, or cannot meet: said with every result.

use crate::scenario::{Pool, Role, Scenario};
use engine::{AnnotationTable, Annotations, NamedWorkers};
use sim::RouterSpec;
use sim::kvbm::spec::OffloadPolicy;
use std::collections::BTreeSet;

/// What requests say, each kind once, with how many say it.
struct Said<'a>(Vec<(&'a Annotations, u64)>);

impl Said<'_> {
    fn count(&self, is: impl Fn(&Annotations) -> bool) -> u64 {
        let kinds = self.0.iter().filter(|(kind, _)| is(kind));
        kinds.map(|(_, rows)| rows).sum()
    }

    /// Requests that name a worker, and those that name one for what workers do here.
    fn names(&self, is_split: bool) -> (u64, u64) {
        let any = self.count(|kind| kind.workers != NamedWorkers::default());
        let here = self.count(|kind| match is_split {
            true => kind.workers.prefill.or(kind.workers.decode).is_some(),
            false => kind.workers.whole.is_some(),
        });
        (any, here)
    }

    /// Required taints that no pool has.
    fn unmet(&self, scenario: &Scenario) -> BTreeSet<String> {
        let required = self.0.iter().flat_map(|(kind, _)| &kind.required_taints);
        let has = |taint: &&String| {
            let mut pools = scenario.pools.iter();
            pools.any(|pool| pool.taints.contains(taint))
        };
        required.filter(|taint| !has(taint)).cloned().collect()
    }
}

/// One sentence for each kind of word that changes nothing, or that no worker meets.
pub fn unread(scenario: &Scenario, table: &AnnotationTable) -> Vec<String> {
    if table.is_empty() {
        return Vec::new();
    }
    let said = Said(table.kinds());
    let mut sentences = Vec::new();
    let mut tell = |rows: u64, what: &str| {
        if rows > 0 {
            let s = if rows == 1 { " says" } else { "s say" };
            sentences.push(format!("{rows} request{s} {what}"));
        }
    };
    let mut pools = scenario.pools.iter();
    let (names_any, names_here) = said.names(pools.any(|pool| pool.role != Role::Aggregated));
    if scenario.planner.is_some() {
        tell(
            names_any,
            "which worker serves them: not read with a planner, whose workers come and go",
        );
    } else if scenario.router.reads_names() {
        tell(
            names_any - names_here,
            "which worker serves them, but not for what workers do here (prefill and decode apart or not): not read",
        );
    } else {
        tell(
            names_any,
            "which worker serves them: read by the router modes direct and kv only",
        );
    }
    if !matches!(scenario.router, RouterSpec::Kv(_)) {
        tell(
            said.count(|kind| !kind.preferred_taints.is_empty()),
            "which taints they prefer: read by the router mode kv only, which has costs",
        );
    }
    let queues = match &scenario.router {
        RouterSpec::Kv(kv) => kv.queue_threshold.is_some() || kv.policy_classes.is_some(),
        _ => false,
    };
    if !queues {
        tell(
            said.count(|kind| kind.strict_priority > 0 || kind.policy_class.is_some()),
            "their place in a router's queue, of which there is none (router.queue_threshold, policy_config)",
        );
    }
    let counts_answers = match &scenario.router {
        RouterSpec::Kv(kv) => kv.track_output_blocks,
        _ => false,
    };
    if !counts_answers {
        tell(
            said.count(|kind| kind.expected_output_tokens.is_some()),
            "how long an answer they expect (osl): read with router.track_output_blocks only",
        );
    }
    let ephemeral = said.count(|kind| kind.ephemeral_blocks.is_some());
    let is_vllm = |pool: &Pool| pool.engine.as_vllm().is_some();
    if !scenario.pools.iter().all(is_vllm) {
        tell(
            ephemeral,
            "which of their blocks are ephemeral: not read by SGLang's and TensorRT-LLM's pools",
        );
    }
    let spills = |pool: &Pool| {
        let policy = pool.kvbm.as_ref().map(|kvbm| kvbm.offload);
        policy == Some(OffloadPolicy::OnEvict)
    };
    if scenario.pools.iter().any(spills) {
        tell(
            ephemeral,
            "which of their blocks are ephemeral: offloaded like others where offload is on-evict",
        );
    }
    if scenario.pools.iter().all(|pool| pool.kvbm.is_none()) {
        tell(
            said.count(|kind| kind.pin.is_some()),
            "that their prompts are pinned: only tiers below the GPU (pools[].kvbm) pin, and there are none",
        );
    }
    let beside = if scenario.has_oracle() {
        Some("beside an oracle, which knows only what clients send")
    } else {
        let goes_wrong = !scenario.adversity.is_nothing();
        goes_wrong.then_some("beside clients, admission and faults")
    };
    if let Some(beside) = beside {
        let what = "that their next turns are prefilled ahead (speculative_prefill): not done";
        tell(
            said.count(|kind| kind.speculative_prefill),
            &format!("{what} {beside}"),
        );
    }
    for taint in said.unmet(scenario) {
        let rows = said.count(|kind| kind.required_taints.contains(&taint));
        tell(
            rows,
            &format!("that they require the taint {taint}, which no worker has: refused"),
        );
    }
    sentences
}
