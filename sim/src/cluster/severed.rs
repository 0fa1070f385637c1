//! A worker is gone: what becomes of the handovers it has a part in.
//!
//! Whoever takes workers away calls [`Cluster::sever`] for a prefill or decode worker, when nothing more will run on it. All
//! its transfers end at once, what they have moved is lost, and:
//!
//! * *The decode worker is gone.* The prompt, if it is computed, still lies on the prefill worker: another decode worker is
//!   chosen and pulls it. If it is not, another is chosen when it is; where blocks come first, now.
//! * *The prefill worker is gone before the prompt is computed.* Another one is chosen and begins anew; what the decode worker
//!   has already stays.
//! * *It is gone afterwards.* The decode worker gives the blocks back and computes the prompt itself, ahead of its queue (vLLM's
//!   `kv_load_failure_policy: recompute`).
//!
//! A request for whose part no other worker is left is refused. Requests that decode already, or were never handed over, are
//! not looked at.

use super::Cluster;
use crate::disaggregation::Role;
use crate::event::{Action, WorkerId};
use crate::record::Rejection;
use engine::{RequestId, Time};

const HANDS_OVER: &str = "only workers that hand over are severed";

impl Cluster {
    /// Ends the handovers of a worker that is gone, and lets their requests go on with others. What the worker itself had is the
    /// caller's, who also keeps it from being chosen for others. Both sides run vLLM.
    pub fn sever(&mut self, now: Time, worker: WorkerId, actions: &mut Vec<Action>) {
        let parts = self.disaggregated.as_ref().expect(HANDS_OVER);
        let is_decode = parts.is_decode_worker(worker);
        for request in parts.handoffs.unfinished_of(worker) {
            if is_decode {
                self.lose_sink(now, request, worker, actions);
            } else {
                self.lose_source(now, request, worker, actions);
            }
        }
        self.submit_placed(now, actions);
        self.ask_for_links(actions);
    }

    fn lose_sink(
        &mut self,
        now: Time,
        request: RequestId,
        gone: WorkerId,
        actions: &mut Vec<Action>,
    ) {
        let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
        let (from, _) = parts.handoffs.ends_of(request);
        let was_reserved = parts.handoffs.is_reserved(request);
        let is_prefilled = parts.handoffs.is_prefilled(request);
        let has_source = parts.handoffs.has_prefill_worker(request);
        parts.handoffs.lose_sink(now, request);
        (parts.decode).ended(now, gone, request, &self.workload);
        let waits_for_sink = parts.reserves_first() && !was_reserved;
        if !is_prefilled && !waits_for_sink {
            // Another is chosen when the prompt is computed.
            return;
        }
        assert!(
            has_source,
            "a router that lets requests wait is emptied before a worker goes"
        );
        let near = parts.near(from, Role::Decode);
        let choices = parts.decode.choices(request, &self.workload, &self.pools);
        let is_able =
            (parts.decode).has_able_near(request, near.as_ref(), &self.workload, &self.pools);
        if choices < 2 || !is_able {
            if is_prefilled {
                self.workers[from.0 as usize].scheduler.release(request);
                self.notify(now, from, actions);
            }
            return self.refuse(now, request, Rejection::NoWorkerInDomain, actions);
        }
        parts.decode.bar(request, gone);
        parts.decode.keep_near(near);
        (parts.decode).place(now, request, &self.workload, &self.pools, None);
    }

    fn lose_source(
        &mut self,
        now: Time,
        request: RequestId,
        gone: WorkerId,
        actions: &mut Vec<Action>,
    ) {
        let tokens = self.workload.requests[request.0 as usize].input_tokens;
        let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
        let (_, to) = parts.handoffs.ends_of(request);
        let is_reserved = parts.handoffs.is_reserved(request);
        if parts.handoffs.is_prefilled(request) {
            parts.handoffs.lose_prompt(now, request);
            if is_reserved {
                self.compute_after_all(now, request, actions);
            }
            return;
        }
        let near = (parts.handoffs.has_decode_worker(request))
            .then(|| parts.near(to, Role::Prefill))
            .flatten();
        parts.prefill_tokens[gone.0 as usize] -= u64::from(tokens);
        parts.handoffs.lose_source(now, request);
        self.entry.ended(now, gone, request, &self.workload);
        let choices = self.entry.choices(request, &self.workload, &self.pools);
        let is_able =
            (self.entry).has_able_near(request, near.as_ref(), &self.workload, &self.pools);
        if choices < 2 || !is_able {
            if is_reserved {
                return self.compute_after_all(now, request, actions);
            }
            return self.refuse(now, request, Rejection::NoWorkerInDomain, actions);
        }
        self.entry.bar(request, gone);
        self.entry.keep_near(near);
        self.choose_worker(now, request);
    }

    /// A decode worker gives back the blocks of a prompt that will not come, and computes it.
    pub(super) fn compute_after_all(
        &mut self,
        now: Time,
        request: RequestId,
        actions: &mut Vec<Action>,
    ) {
        let parts = self.disaggregated.as_mut().expect(HANDS_OVER);
        let (_, to) = parts.handoffs.ends_of(request);
        parts.handoffs.give_up(now, request);
        self.workers[to.0 as usize]
            .scheduler
            .compute_after_all(request);
        self.notify(now, to, actions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disaggregation::{DisaggregationSpec, HandoffOrder, Overlap};
    use crate::event::{Event, Order, Ran};
    use crate::links::NetworkSpec;
    use crate::{ClusterSpec, FrontendSpec, LoadSpec, Outcome, PoolSpec, RouterSpec};
    use engine::vllm::VllmConfig;
    use engine::{NewRequest, Run, Span, WorkloadBuilder};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const STEP: Span = Span::from_ns(1_000_000);

    /// Two workers of each role, prompts of 100 tokens (7 blocks, 112 MB at 1 GB/s) and ten answer tokens, one every 5 ms.
    fn cluster(order: HandoffOrder) -> Cluster {
        let mut builder = WorkloadBuilder::new();
        for index in 0..6 {
            let prompt = [Run {
                first: WorkloadBuilder::block_token(index, 0),
                len: 100,
            }];
            builder.push(NewRequest {
                arrival: Time::from_ns(u64::from(index) * 5_000_000),
                prompt: &prompt,
                output_tokens: 10,
                priority: 0,
                session: index,
                dependencies: &[],
            });
        }
        let engine = VllmConfig {
            async_scheduling: false,
            ..VllmConfig::default()
        };
        let pool = |name: &str| PoolSpec {
            name: name.to_owned(),
            workers: 2,
            gpus_per_worker: 1,
            engine: engine.clone().into(),
        };
        let spec = ClusterSpec {
            pools: vec![pool("prefill"), pool("decode")],
            disaggregation: Some(DisaggregationSpec {
                roles: vec![Role::Prefill, Role::Decode],
                order,
                conditional: None,
                overlap: Overlap::Chunk,
                network: NetworkSpec {
                    bytes_per_s: 1_000_000_000,
                    per_gpu: false,
                    core_bytes_per_s: None,
                    latency: Span::ZERO,
                    setup: Span::ZERO,
                },
                topology: None,
                domain: None,
                kv_bytes_per_token: 1_000_000,
                failure_rate: 0.0,
            }),
            router: RouterSpec::RoundRobin,
            load: LoadSpec::default(),
            frontend: FrontendSpec::default(),
            seed: 1,
            coasting: false,
            track_block_ids: false,
        };
        Cluster::new(&spec, Arc::new(builder.finish()))
    }

    /// Runs it step by step; `gone` is severed at that time, and nothing happens there afterwards.
    fn run(mut cluster: Cluster, gone: WorkerId, at: Time) -> Cluster {
        let mut queue: BTreeMap<(Time, Order, u64), Event> = BTreeMap::new();
        let (mut actions, mut number, mut is_gone) = (Vec::new(), 0, false);
        let mut now = Time::ZERO;
        cluster.start(&mut actions);
        loop {
            for action in actions.drain(..) {
                let (time, event) = match action {
                    Action::At { time, event } => (time, event),
                    Action::Cut { .. } | Action::Disturb { .. } => continue,
                    Action::Run { worker, .. } => {
                        let ran = Ran {
                            worker,
                            steps: 1,
                            start: now,
                            first: STEP,
                            slope_ps: 0,
                        };
                        (now + STEP, Event::Ran(ran))
                    }
                };
                number += 1;
                queue.insert((time, event.order(), number), event);
            }
            let next = queue.first_key_value().map(|(key, _)| key.0);
            if !is_gone && next.is_none_or(|time| time >= at) {
                is_gone = true;
                now = at;
                cluster.sever(now, gone, &mut actions);
                continue;
            }
            let Some(((time, ..), event)) = queue.pop_first() else {
                return cluster;
            };
            now = time;
            let of_gone = match event {
                Event::Ran(ran) => ran.worker == gone,
                Event::Plan { worker } => worker == gone,
                _ => false,
            };
            if !(is_gone && of_gone) {
                cluster.handle(now, event, &mut actions);
                if is_gone {
                    // What the router still gives it goes elsewhere.
                    cluster.sever(now, gone, &mut actions);
                }
            }
        }
    }

    #[test]
    fn whenever_a_worker_goes_its_handovers_end_elsewhere() {
        let orders = [
            HandoffOrder::SourceFirst,
            HandoffOrder::DecodeFirst,
            HandoffOrder::DestinationFirst,
        ];
        let (mut moved_again, mut computed_again) = (0, 0);
        for order in orders {
            for gone in (0..4).map(WorkerId) {
                // From before the first arrival to after the last transfer, a fraction of a step apart.
                for at in (0..600).map(|nth| Time::from_ns(nth * 1_300_000)) {
                    let after = run(cluster(order), gone, at);
                    let what = || format!("{order:?}, {gone:?} gone at {at}");
                    let handoffs = &after.disaggregated.as_ref().unwrap().handoffs;
                    assert!(handoffs.is_quiet(), "{}", what());
                    for (index, worker) in after.workers.iter().enumerate() {
                        let holds = worker.scheduler.held_blocks();
                        assert!(holds == 0 || index == gone.0 as usize, "{}", what());
                    }
                    for record in &after.recording.requests {
                        // What decoded there is gone with it.
                        let is_done = record.outcome == Outcome::Completed;
                        assert!(is_done || record.worker == gone.0, "{}: {record:?}", what());
                    }
                    let records = handoffs.records();
                    computed_again += records.iter().filter(|it| it.has_failed).count();
                    let again = |it: &&crate::TransferRecord| it.prefilled < it.began;
                    moved_again += records.iter().filter(again).count();
                }
            }
        }
        assert!(
            moved_again > 100 && computed_again > 100,
            "{moved_again} {computed_again}"
        );
    }

    #[test]
    fn the_prompt_is_pulled_by_another_worker() {
        // The first prompt is computed at 1 ms and on its way to worker 2 until 113 ms. At 50 ms that is gone: worker 3 reserves
        // at once, shares the way out of worker 0 with others, and the first answer comes out of worker 3.
        let after = run(
            cluster(HandoffOrder::SourceFirst),
            WorkerId(2),
            Time::from_ns(50_000_000),
        );
        let record = after.recording.requests[0];
        assert_eq!((record.worker, record.outcome), (3, Outcome::Completed));
        let transfer = after.disaggregated.as_ref().unwrap().handoffs.records()[0];
        assert_eq!((transfer.from, transfer.to), (WorkerId(0), WorkerId(3)));
        assert_eq!(transfer.prefilled, Time::from_ns(1_000_000));
        assert_eq!(transfer.began, Time::from_ns(50_000_000));
        assert_eq!(transfer.bytes, 112_000_000);
    }
}
