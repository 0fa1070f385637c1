//! What the cluster does with requests that one worker prefills and another decodes.
//!
//! The order of things is that of [`HandoffOrder`]; each function below is one moment in the life of such a request.

use super::{Cluster, ClusterSpec};
use crate::disaggregation::conditional::Circumstances;
use crate::disaggregation::domains::{Domains, Near};
use crate::disaggregation::{DisaggregationSpec, HandoffOrder, Handoffs, Role};
use crate::event::{Action, WorkerId};
use crate::group::{Group, GroupSpec};
use crate::random::{Purpose, unit};
use crate::record::Rejection;
use crate::router::Placement;
use engine::{Part, RequestId, Reserved, Span, Time, Workload};

/// What a deployment has besides its prefill workers.
#[derive(Debug, Clone)]
pub(super) struct Disaggregated {
    /// Workers that decode.
    pub decode: Group,
    pub handoffs: Handoffs,
    /// By worker: prompt tokens placed there and not computed.
    pub prefill_tokens: Vec<u64>,
    /// By worker: prompt tokens it batches.
    batched_tokens: Vec<u64>,
    is_decode: Vec<bool>,
    domains: Option<Domains>,
    complete: Vec<RequestId>,
}

impl Disaggregated {
    /// The group of the prefill workers, and the rest.
    pub fn new(
        spec: &ClusterSpec,
        disaggregation: &DisaggregationSpec,
        workload: &Workload,
    ) -> (Group, Disaggregated) {
        let pools = &spec.pools;
        assert!(
            disaggregation.roles.len() == pools.len(),
            "every pool has a role"
        );
        let group = |role: Role, part: Part, listens: bool| {
            let group = GroupSpec {
                router: disaggregation.router(spec.router.clone(), role),
                part,
                listens,
                // Each router has draws of its own.
                seed: spec.seed ^ ((role as u64) << 63),
            };
            let is_member = |pool: usize| disaggregation.roles[pool] == role;
            let group = Group::new(group, pools, is_member);
            assert!(!group.workers().is_empty(), "both roles have workers");
            group
        };
        let each_worker = || {
            let pools = pools.iter().zip(&disaggregation.roles);
            pools.flat_map(|pool| std::iter::repeat_n(pool, pool.0.workers as usize))
        };
        let roles: Vec<Role> = each_worker().map(|(_, role)| *role).collect();
        let is_decode: Vec<bool> = roles.iter().map(|role| *role == Role::Decode).collect();
        let domains = disaggregation.domain.map(|policy| {
            let topology = disaggregation.topology.as_ref();
            Domains::new(
                policy,
                topology.expect("domains are those of a topology"),
                &roles,
            )
        });
        let gpus: Vec<u32> = each_worker()
            .map(|(pool, _)| pool.gpus_per_worker)
            .collect();
        let parts = Disaggregated {
            decode: group(
                Role::Decode,
                Part::Decode,
                disaggregation.conditional.is_some(),
            ),
            handoffs: Handoffs::new(
                disaggregation.clone(),
                &gpus,
                workload.requests.len(),
                pools[0].engine.block_size(),
            ),
            prefill_tokens: vec![0; is_decode.len()],
            batched_tokens: each_worker()
                .map(|(pool, _)| u64::from(pool.engine.max_num_batched_tokens()))
                .collect(),
            is_decode,
            domains,
            complete: Vec::new(),
        };
        (group(Role::Prefill, Part::Prefill, true), parts)
    }

    pub fn is_decode_worker(&self, worker: WorkerId) -> bool {
        self.is_decode[worker.0 as usize]
    }

    pub fn chooses_decode_first(&self) -> bool {
        self.handoffs.spec.chooses_decode_first()
    }

    pub fn reserves_first(&self) -> bool {
        self.handoffs.spec.order == HandoffOrder::DestinationFirst
    }

    /// Where the partner of a worker is looked for, if not everywhere.
    pub fn near(&self, worker: WorkerId, partner: Role) -> Option<Near> {
        self.domains
            .as_ref()
            .map(|domains| domains.near(worker, partner))
    }

    /// Whether a request that could go to this decode worker stays there whole.
    fn keeps_whole(&self, placement: &Placement, workload: &Workload, entry: &Group) -> bool {
        let Some(conditional) = self.handoffs.spec.conditional else {
            return false;
        };
        let load = |worker: WorkerId| {
            let worker = worker.0 as usize;
            self.prefill_tokens[worker] as f64 / self.batched_tokens[worker] as f64
        };
        conditional.keeps_whole(&Circumstances {
            input_tokens: workload.requests[placement.request.0 as usize].input_tokens,
            cached_tokens: placement.overlap_tokens,
            prefill_load: entry.serving().map(load).fold(f64::MAX, f64::min),
        })
    }
}

const IS_DISAGGREGATED: &str = "only disaggregated deployments hand requests over";

impl Cluster {
    pub(super) fn is_decode_worker(&self, worker: WorkerId) -> bool {
        let parts = self.disaggregated.as_ref();
        parts.is_some_and(|parts| parts.is_decode_worker(worker))
    }

    fn parts(&mut self) -> &mut Disaggregated {
        self.disaggregated.as_mut().expect(IS_DISAGGREGATED)
    }

    /// Sends on requests that got a prefill or a decode worker.
    pub(super) fn submit_parts(&mut self, now: Time, actions: &mut Vec<Action>) {
        loop {
            let placed = self.parts().decode.next_placed();
            let Some(placement) = placed.or_else(|| self.entry.next_placed()) else {
                return;
            };
            if self.adversity.is_some() && !self.may_be_placed(now, &placement, actions) {
                continue;
            }
            if self.is_decode_worker(placement.worker) {
                self.got_decode_worker(now, &placement, actions);
            } else {
                self.got_prefill_worker(now, &placement, actions);
            }
        }
    }

    /// A decode worker is chosen: at arrival, or after the prefill.
    fn got_decode_worker(&mut self, now: Time, placement: &Placement, actions: &mut Vec<Action>) {
        let Placement {
            request, worker, ..
        } = *placement;
        let parts = self.disaggregated.as_mut().expect(IS_DISAGGREGATED);
        if parts.handoffs.has_prefill_worker(request) {
            // The prefill is over, or its worker is gone.
            let is_abandoned = parts.handoffs.is_abandoned(request);
            parts.handoffs.will_decode(request, worker);
            self.workers[worker.0 as usize].record.requests += 1;
            self.recording.requests[request.0 as usize].worker = worker.0;
            if let Some(adversity) = &mut self.adversity {
                adversity.in_router.remove(&request);
            }
            if is_abandoned {
                return self.decode_alone(now, request, worker, actions);
            }
            return self.submit(now, request, worker, Part::Decode, actions);
        }
        let stays = parts.keeps_whole(placement, &self.workload, &self.entry);
        let near = parts.near(worker, Role::Prefill);
        let stays = stays || self.lacks_prefill_workers(request, near.as_ref());
        if !stays
            && !(self.entry).has_able_near(request, near.as_ref(), &self.workload, &self.pools)
        {
            return self.refuse_placed(now, placement, actions);
        }
        self.note_placed(now, placement);
        if stays {
            self.note_prefill(request, worker, placement.overlap_tokens);
            return self.submit(now, request, worker, Part::Whole, actions);
        }
        self.parts().handoffs.will_decode(request, worker);
        self.entry.keep_near(near);
        self.choose_worker(now, request);
    }

    /// Tokens of a prompt, and of the answer that others began.
    pub(super) fn known_tokens(&self, id: RequestId) -> u32 {
        let adversity = self.adversity.as_ref();
        let generated = adversity.map_or(0, |it| it.attempts.generated(id));
        self.workload.requests[id.0 as usize].input_tokens + generated
    }

    /// Refuses a request that has just got a worker, since nobody near could do the other part.
    fn refuse_placed(&mut self, now: Time, placement: &Placement, actions: &mut Vec<Action>) {
        let Placement {
            request, worker, ..
        } = *placement;
        let workload = self.workload.clone();
        self.group_of(worker).ended(now, worker, request, &workload);
        self.refuse(now, request, Rejection::NoWorkerInDomain, actions);
    }

    /// True if the worker wants to be told when a step begins, and how long it will last.
    #[must_use]
    pub fn wants_beginnings(&self, worker: WorkerId) -> bool {
        let parts = self.disaggregated.as_ref();
        parts.is_some_and(|parts| {
            parts.handoffs.wants_beginnings() && !parts.is_decode_worker(worker)
        })
    }

    /// A step of a prefill worker begins whose layers move one by one.
    pub(super) fn step_begins(
        &mut self,
        now: Time,
        worker: WorkerId,
        lasts: Span,
        actions: &mut Vec<Action>,
    ) {
        let parts = self.disaggregated.as_mut().expect(IS_DISAGGREGATED);
        let plan = self.workers[worker.0 as usize].scheduler.oldest();
        let plan = plan.expect("a step that begins was planned");
        parts.handoffs.begins(now, plan, lasts);
        self.ask_for_links(actions);
    }

    /// A prefill worker is chosen.
    fn got_prefill_worker(&mut self, now: Time, placement: &Placement, actions: &mut Vec<Action>) {
        let Placement {
            request, worker, ..
        } = *placement;
        let parts = self.disaggregated.as_mut().expect(IS_DISAGGREGATED);
        if !parts.handoffs.has_decode_worker(request) {
            let near = parts.near(worker, Role::Decode);
            if !(parts.decode).has_able_near(request, near.as_ref(), &self.workload, &self.pools) {
                return self.refuse_placed(now, placement, actions);
            }
        }
        let record = &mut self.recording.requests[request.0 as usize];
        record.placed = record.placed.min(now);
        record.router_overlap_tokens = placement.overlap_tokens;
        self.workers[worker.0 as usize].record.requests += 1;
        self.note_prefill(request, worker, placement.overlap_tokens);
        let tokens = self.known_tokens(request);
        let parts = self.parts();
        parts.prefill_tokens[worker.0 as usize] += u64::from(tokens);
        parts.handoffs.will_prefill(request, worker);
        if parts.reserves_first() {
            // Both servers are told at once who the other is.
            let (_, to) = parts.handoffs.ends_of(request);
            return self.submit(now, request, to, Part::Decode, actions);
        }
        self.submit(now, request, worker, Part::Prefill, actions);
    }

    /// A decode worker has blocks for requests.
    pub(super) fn note_reserved(
        &mut self,
        now: Time,
        reserved: &mut Vec<Reserved>,
        actions: &mut Vec<Action>,
    ) {
        if reserved.is_empty() {
            return;
        }
        for reserved in reserved.drain(..) {
            let parts = self.parts();
            parts.handoffs.reserved(now, &reserved);
            if parts.handoffs.is_abandoned(reserved.request) {
                self.compute_after_all(now, reserved.request, actions);
                continue;
            }
            if parts.reserves_first() {
                let (from, _) = parts.handoffs.ends_of(reserved.request);
                self.submit(now, reserved.request, from, Part::Prefill, actions);
            }
        }
        self.ask_for_links(actions);
    }

    /// Requests whose first token came with their KV.
    pub(super) fn note_begun(
        &mut self,
        now: Time,
        worker: WorkerId,
        begun: &[RequestId],
        actions: &mut Vec<Action>,
    ) {
        for &request in begun {
            let index = request.0 as usize;
            let first = &mut self.recording.requests[index].first_token;
            *first = now.min(*first);
            self.last_token[index] = now;
            self.note_first_token(now, request);
            self.watch_first_token(request);
            let workload = self.workload.clone();
            self.group_of(worker).prefill_done(now, request, &workload);
            let engine = &self.pools[self.workers[worker.0 as usize].pool()].engine;
            let adversity = self.adversity.as_ref();
            let generated = adversity.map_or(0, |it| it.attempts.generated(request));
            let asked = self.workload.requests[index].after(generated);
            if engine.output_goal(asked.input_tokens, asked.output_tokens) <= 1 {
                self.complete(now, worker, now, request, actions);
            }
            let adversity = self.adversity.as_ref();
            if adversity.is_some_and(|it| it.is_satisfied_by(request, 1)) {
                self.dismiss(now, vec![request], actions);
            }
        }
        if !begun.is_empty() {
            self.submit_placed(now, actions);
        }
    }

    /// A prefill worker has computed so many tokens of a prompt.
    pub(super) fn note_computed(&mut self, now: Time, request: RequestId, tokens: u32) {
        self.parts().handoffs.computed(now, request, tokens);
    }

    /// A prefill worker has computed a prompt.
    pub(super) fn prefilled(&mut self, now: Time, request: RequestId, actions: &mut Vec<Action>) {
        let tokens = self.known_tokens(request);
        let parts = self.disaggregated.as_mut().expect(IS_DISAGGREGATED);
        let (from, to) = parts.handoffs.ends_of(request);
        parts.prefill_tokens[from.0 as usize] -= u64::from(tokens);
        let is_there = parts.handoffs.prefilled(now, request);
        if let Some(adversity) = &mut self.adversity {
            adversity.leaves_prefill(request);
        }
        let has_decode_worker = parts.handoffs.has_decode_worker(request);
        let waits_for_blocks = !parts.reserves_first();
        self.entry.prefill_done(now, request, &self.workload);
        self.entry.ended(now, from, request, &self.workload);
        if !has_decode_worker {
            self.choose_decode_worker(now, request, Some(from), actions);
        } else if is_there {
            self.received(now, request, actions);
        } else if waits_for_blocks {
            self.submit(now, request, to, Part::Decode, actions);
        }
    }

    /// Something happens on the links.
    pub(super) fn move_kv(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.move_tiers(now, actions);
        if let Some(parts) = &mut self.disaggregated {
            let mut complete = std::mem::take(&mut parts.complete);
            parts.handoffs.advance(now, &mut complete);
            for request in complete.drain(..) {
                self.received(now, request, actions);
            }
            self.parts().complete = complete;
            while let Some((request, from)) = self.parts().handoffs.next_unread(now) {
                self.workers[from.0 as usize].scheduler.release(request);
                self.notify(now, from, actions);
            }
            self.give_up_reads(now, actions);
            let loaded = std::mem::take(&mut self.parts().handoffs.loaded);
            self.weights_arrived(now, &loaded, actions);
        }
        if self.scaling.is_some() {
            self.move_weights(now, actions);
        }
        self.ask_for_links(actions);
    }

    /// All KV of a prompt is where it is to be, or lost on the way.
    fn received(&mut self, now: Time, request: RequestId, actions: &mut Vec<Action>) {
        let seed = self.seed;
        let parts = self.parts();
        let (from, to) = parts.handoffs.ends_of(request);
        let draw = unit(seed, Purpose::TransferFailure, u64::from(request.0));
        let has_failed = draw < parts.handoffs.spec.failure_rate;
        if has_failed {
            parts.handoffs.note_failure(request);
        }
        self.workers[from.0 as usize].scheduler.release(request);
        self.notify(now, from, actions);
        let scheduler = &mut self.workers[to.0 as usize].scheduler;
        if has_failed {
            scheduler.compute_after_all(request);
        } else {
            scheduler.receive(request);
        }
        self.notify(now, to, actions);
    }

    /// Asks to be told when something happens on the links.
    pub(super) fn ask_for_links(&mut self, actions: &mut Vec<Action>) {
        if let Some(parts) = &mut self.disaggregated {
            parts.handoffs.ask(actions);
        }
        if let Some(kvbm) = &mut self.kvbm {
            kvbm.ask(actions);
        }
        if let Some(hosts) = &mut self.hosts {
            hosts.ask(actions);
        }
        let streams = self.scaling.as_mut().and_then(|it| it.streams.as_mut());
        if let Some(streams) = streams {
            streams.ask(actions);
        }
    }
}
