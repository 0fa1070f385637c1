//! What kinds of trouble a run went through: proof that the random scenarios do reach them.

use std::collections::BTreeSet;

use super::cluster;
use super::record::{Rejection, RequestRecord, Run};
use super::scenario::{Policy, Request, Router, Scenario, Segment};

/// All kinds, in the order of [`marks`].
pub const MARKS: [&str; 28] = [
    "asynchronous",
    "prefix hit",
    "hit on an answer",
    "eviction",
    "preemption",
    "preemption, asynchronous",
    "preemption by priority",
    "preempted twice",
    "resumed with hits",
    "several preemptions at once",
    "nothing but a preemption",
    "chunked prompt",
    "cut by max_model_len",
    "prompt too long",
    "prompt exceeds KV cache",
    "output exceeds KV cache",
    "dependency rejected",
    "placed and finished at one instant",
    "two workers end at one instant",
    "closed loop",
    "conversation with several beginnings",
    "conversation of several sessions",
    "conversations that queue for a slot",
    "waits for a later request of the list",
    "cut by the end of sending",
    "random router",
    "kv router",
    "kv router among workers that hold something",
];

/// Which of [`MARKS`] a run (with its log) earned.
pub fn marks(scenario: &Scenario, run: &Run) -> Vec<&'static str> {
    let engine = &scenario.engine;
    let steps = || run.workers.iter().flat_map(|worker| &worker.log);
    let any = |test: &dyn Fn(usize, &RequestRecord) -> bool| {
        run.requests
            .iter()
            .enumerate()
            .any(|(request, record)| test(request, record))
    };
    let refused = |why: Rejection| any(&|_, record| record.rejected == Some(why));
    let has_preemption = any(&|_, record| record.preemptions > 0);
    let quotes_what_it_hit = |request: usize, record: &RequestRecord| {
        let mut before = 0;
        scenario.requests[request].prompt.iter().any(|segment| {
            before += segment.len();
            matches!(segment, Segment::Output { .. })
                && record.cached_tokens.is_some_and(|hit| hit >= before)
        })
    };
    let is_placed_when_another_ends = |_: usize, record: &RequestRecord| {
        record.worker.is_some() && steps().any(|step| record.sent_ns == Some(step.end_ns))
    };
    let ends: Vec<Vec<u64>> = run
        .workers
        .iter()
        .map(|worker| worker.log.iter().map(|step| step.end_ns).collect())
        .collect();
    let two_workers_meet = ends.len() > 1 && ends[0].iter().any(|end| ends[1].contains(end));
    let is_closed = scenario.concurrency.is_some();
    let names = cluster::conversations(scenario);
    let conversations: BTreeSet<usize> = names.iter().copied().collect();
    let any_conversation = |test: &dyn Fn(&[&Request]) -> bool| {
        let members = |name| {
            let named = scenario.requests.iter().zip(&names);
            let own = named.filter(|&(_, &other)| other == name);
            own.map(|(request, _)| request).collect::<Vec<_>>()
        };
        is_closed && conversations.iter().any(|&name| test(&members(name)))
    };
    let has_two_roots = |members: &[&Request]| {
        let roots = members.iter().filter(|request| request.after.is_empty());
        roots.count() > 1
    };
    let has_two_sessions = |members: &[&Request]| {
        let mut others = members.iter();
        others.any(|request| request.session != members[0].session)
    };
    let mut asked = scenario.requests.iter().enumerate();
    let waits_for_later =
        asked.any(|(index, request)| request.after.iter().any(|dependency| dependency.on > index));
    let verdicts = [
        engine.async_scheduling,
        any(&|_, record| record.cached_tokens.is_some_and(|tokens| tokens > 0)),
        any(&quotes_what_it_hit),
        run.workers.iter().any(|worker| worker.evictions > 0),
        has_preemption,
        has_preemption && engine.async_scheduling,
        has_preemption && engine.policy == Policy::Priority,
        any(&|_, record| record.preemptions > 1),
        steps().any(|step| {
            step.batch
                .admitted
                .iter()
                .any(|&(_, hits, is_resumed)| is_resumed && hits > 0)
        }),
        steps().any(|step| step.batch.preempted.len() > 1),
        steps().any(|step| step.batch.scheduled.is_empty()),
        steps().any(|step| {
            step.batch
                .scheduled
                .iter()
                .any(|entry| !step.batch.sampled.contains(&entry.0))
        }),
        any(&|request, record| {
            record.finish_ns.is_some()
                && record.token_ns.len() < scenario.requests[request].output_len
        }),
        refused(Rejection::PromptTooLong),
        refused(Rejection::PromptExceedsKvCache),
        refused(Rejection::OutputExceedsKvCache),
        refused(Rejection::DependencyRejected),
        any(&is_placed_when_another_ends),
        two_workers_meet,
        is_closed,
        any_conversation(&has_two_roots),
        any_conversation(&has_two_sessions),
        scenario
            .concurrency
            .is_some_and(|slots| slots < conversations.len()),
        waits_for_later,
        scenario.duration_ns.is_some() && any(&|_, record| record.sent_ns.is_none()),
        scenario.workers > 1 && matches!(scenario.router, Router::Random | Router::PowerOfTwo),
        scenario.workers > 1 && matches!(scenario.router, Router::Kv { .. }),
        scenario.workers > 1 && any(&|_, record| record.router_overlap_tokens > 0),
    ];
    MARKS
        .iter()
        .zip(verdicts)
        .filter(|&(_, is_earned)| is_earned)
        .map(|(&mark, _)| mark)
        .collect()
}
