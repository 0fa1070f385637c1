//! What the cluster does about clients that leave, lose patience or are turned away: each function is one moment in the
//! life of an attempt.

use super::Cluster;
use crate::adversity::shedding::WorkerLoad;
use crate::adversity::{Adversity, AdversitySpec, with_attempts};
use crate::cluster::ClusterSpec;
use crate::disaggregation::Role;
use crate::event::{Action, Event, WorkerId};
use crate::kvbm::KvbmSpec;
use crate::load::Load;
use crate::record::{Failure, GapRun, Outcome, Rejection, RequestRecord};
use crate::router::Placement;
use engine::{RequestId, Span, Time, Workload};
use std::sync::Arc;

/// How an attempt of a client's request is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// The client does not want it any more.
    Cancelled,
    /// It did not work; the client may try again.
    Failed(Failure),
    /// It was turned away; the client may try again.
    TurnedAway(Rejection),
}

impl Cluster {
    /// A deployment in which things go wrong. Each worker steps alone.
    #[must_use]
    pub fn with_adversity(
        asked: &ClusterSpec,
        kvbm: &[Option<KvbmSpec>],
        adversity: &AdversitySpec,
        workload: Arc<Workload>,
    ) -> Self {
        if adversity.is_nothing() {
            return Cluster::with_kvbm(asked, kvbm, workload);
        }
        for pool in &asked.pools {
            let engine = &pool.engine;
            assert!(
                engine.ranks() == 1,
                "adversity is modelled for workers that step alone"
            );
            assert!(
                engine.speculation().is_none() || !adversity.clients.counts_tokens(),
                "who counts tokens knows how many a step brings"
            );
            assert!(
                engine.stages() == 1 || !adversity.faults.slows_steps(),
                "stages are as fast as their pipeline says"
            );
        }
        assert!(
            workload.ahead.is_empty(),
            "nothing is sent ahead of clients that may leave"
        );
        let clients = workload.requests.len() as u32;
        let attempts = with_attempts(&workload, adversity.attempts());
        let load = Load::new(asked.load, workload);
        let mut cluster = Cluster::with_load(asked, kvbm, load, attempts);
        cluster.clients = clients.max(1);
        let runtime = Adversity::new(adversity, asked.seed, clients, cluster.workers.len());
        cluster.adversity = Some(Box::new(runtime));
        if adversity.faults.breaks_links()
            && cluster.falls_back()
            && let Some(parts) = &mut cluster.disaggregated
        {
            parts.handoffs.limit_reads();
        }
        if adversity.faults.reads_caches() {
            cluster.entry.keep_true_index();
            if let Some(parts) = &mut cluster.disaggregated {
                parts.decode.keep_true_index();
            }
        }
        for index in 0..cluster.recording.requests.len() as u32 {
            let client = cluster.client_of(RequestId(index));
            cluster.recording.requests[index as usize].is_warmup = cluster.load.is_warmup(client);
        }
        cluster
    }

    /// Whose attempt a request is.
    pub(super) fn client_of(&self, request: RequestId) -> RequestId {
        let adversity = self.adversity.as_ref();
        adversity.map_or(request, |it| it.attempts.client_of(request))
    }

    /// True for the first attempt of a client's request.
    pub(super) fn is_first_attempt(&self, request: RequestId) -> bool {
        let adversity = self.adversity.as_ref();
        adversity.is_none_or(|it| it.attempts.round_of(request) == 0)
    }

    /// True if nobody waits for the attempt any more.
    pub(super) fn is_over(&self, request: RequestId) -> bool {
        self.recording.requests[request.0 as usize].outcome != Outcome::Unfinished
    }

    /// The worker whose steps have to be reported before an event of this client's request is handled.
    pub(crate) fn worker_of_client(&self, client: RequestId) -> Option<WorkerId> {
        let attempt = self.adversity.as_ref()?.attempts.current(client);
        let worker = self.recording.requests[attempt.0 as usize].worker;
        (worker != u32::MAX).then_some(WorkerId(worker))
    }

    /// True if the steps of all workers have to be reported before a request arrives.
    pub(crate) fn looks_at_blocks(&self) -> bool {
        let adversity = self.adversity.as_ref();
        adversity.is_some_and(|it| it.spec.shedding.active_decode_blocks.is_some())
    }

    /// An attempt is sent: says when its client will lose patience.
    pub(super) fn begin_patience(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        let Some(adversity) = &mut self.adversity else {
            return;
        };
        let client = adversity.attempts.client_of(id);
        let clients = &adversity.spec.clients;
        let is_first = adversity.attempts.round_of(id) == 0;
        adversity.since[client.0 as usize] = now;
        adversity.fruitless_faults = 0;
        adversity.open += u32::from(is_first);
        let cancel = clients.cancel_after(adversity.seed, client);
        let waits = [
            cancel.filter(|_| is_first),
            clients.ttft_timeout,
            clients.timeout,
        ];
        actions.extend(waits.into_iter().flatten().map(|wait| Action::At {
            time: now + wait,
            event: Event::Patience { request: client },
        }));
    }

    /// A client may have lost patience.
    pub(super) fn lose_patience(
        &mut self,
        now: Time,
        client: RequestId,
        actions: &mut Vec<Action>,
    ) {
        let adversity = self.adversity.as_mut().expect("only then clients do");
        let attempt = adversity.attempts.current(client);
        let record = self.recording.requests[attempt.0 as usize];
        if record.outcome != Outcome::Unfinished {
            return;
        }
        let clients = &adversity.spec.clients;
        let since = adversity.since[client.0 as usize];
        let is_due = |since: Time, wait: Option<Span>| {
            since != Time::MAX && wait.is_some_and(|wait| since + wait <= now)
        };
        let cancel = clients.cancel_after(adversity.seed, client);
        let why = if is_due(record.arrival, cancel) {
            GivenUp::Cancelled
        } else if record.first_token == Time::MAX && is_due(since, clients.ttft_timeout) {
            adversity.record.ttft_timeouts += 1;
            GivenUp::Failed(Failure::TtftTimeout)
        } else if is_due(since, clients.timeout) {
            adversity.record.timeouts += 1;
            GivenUp::Failed(Failure::Timeout)
        } else {
            return;
        };
        self.withdraw(now, attempt, actions);
        self.give_up(now, attempt, why, actions);
        self.submit_placed(now, actions);
        self.ask_for_links(actions);
    }

    /// Takes an attempt out of the system, wherever it is.
    pub(super) fn withdraw(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        let record = &mut self.recording.requests[id.0 as usize];
        assert!(
            record.outcome == Outcome::Unfinished,
            "an attempt is given up once"
        );
        record.outcome = Outcome::Cancelled;
        let worker = record.worker;
        let adversity = self.adversity.as_mut().expect("only then it is given up");
        adversity.leaves_prefill(id);
        self.leave_prefill_worker(now, id, false, actions);
        if worker == u32::MAX {
            // On its way, or in a router's queue: who looks at it next drops it.
            return;
        }
        let before = self.known_tokens(id) - self.workload.requests[id.0 as usize].input_tokens;
        let worker = WorkerId(worker);
        let own = &mut self.workers[worker.0 as usize];
        let record = &mut self.recording.requests[id.0 as usize];
        record.output_tokens = before + own.scheduler.outputs_of(id).unwrap_or(0);
        own.abort(id);
        let workload = self.workload.clone();
        self.group_of(worker).ended(now, worker, id, &workload);
        self.notify(now, worker, actions);
    }

    /// What a client does when an attempt came to nothing: try again, or leave.
    pub(super) fn give_up(
        &mut self,
        now: Time,
        id: RequestId,
        why: GivenUp,
        actions: &mut Vec<Action>,
    ) {
        let old = self.recording.requests[id.0 as usize];
        if let Some(adversity) = &mut self.adversity {
            let client = adversity.attempts.client_of(id);
            adversity.record.wasted_tokens += u64::from(old.output_tokens);
            adversity.since[client.0 as usize] = Time::MAX;
            let again = match why {
                GivenUp::Cancelled => None,
                GivenUp::Failed(_) | GivenUp::TurnedAway(_) => adversity.attempts.retry(client),
            };
            if let Some(attempt) = again {
                adversity.record.retries += 1;
                let retry = adversity.attempts.retries(client);
                let wait = adversity.spec.clients.wait(adversity.seed, attempt, retry);
                let blank = &mut self.recording.requests[attempt.0 as usize];
                blank.arrival = old.arrival;
                blank.preemptions = old.preemptions;
                self.recording.requests[id.0 as usize].outcome = Outcome::Cancelled;
                actions.push(Action::At {
                    time: now + wait,
                    event: Event::Arrival { request: attempt },
                });
                return;
            }
        }
        let outcome = match why {
            GivenUp::Cancelled => Outcome::Cancelled,
            GivenUp::Failed(why) => Outcome::Failed(why),
            GivenUp::TurnedAway(why) => Outcome::Rejected(why),
        };
        self.conclude(now, id, outcome, actions);
    }

    /// The last attempt of a client's request is over without an answer. What quotes an answer that will never be is
    /// refused; who cancelled goes on without.
    // Model: the next turn of a session whose answer was cancelled quotes the whole answer, as the trace says.
    fn conclude(&mut self, now: Time, id: RequestId, outcome: Outcome, actions: &mut Vec<Action>) {
        let record = &mut self.recording.requests[id.0 as usize];
        record.outcome = outcome;
        record.finish = now;
        let client = self.fold(id);
        if outcome != Outcome::Cancelled {
            self.refuse_dependents(now, client, actions);
        }
        self.load.ended(now, client, actions);
    }

    /// Enters an attempt that is over into its client's books.
    pub(super) fn fold(&mut self, id: RequestId) -> RequestId {
        let Some(adversity) = &mut self.adversity else {
            return id;
        };
        adversity.open -= 1;
        let client = adversity.attempts.client_of(id);
        self.recording.requests[client.0 as usize] = self.recording.requests[id.0 as usize];
        client
    }

    /// Why a request is turned away that some worker could take, if it is.
    pub(super) fn sheds(&mut self, id: RequestId) -> Option<Rejection> {
        let adversity = self.adversity.as_mut()?;
        let shedding = adversity.spec.shedding;
        if !shedding.is_on() {
            return None;
        }
        let (workers, prefill_tokens) = (&self.workers, &adversity.prefill_tokens);
        let is_busy = |worker: WorkerId| {
            let index = worker.0 as usize;
            let record = &workers[index].record;
            shedding.is_busy(&WorkerLoad {
                held_blocks: u64::from(workers[index].scheduler.held_blocks()),
                blocks: record.kv_blocks,
                prefill_tokens: prefill_tokens[index],
                max_num_batched_tokens: u64::from(
                    self.pools[record.pool as usize]
                        .engine
                        .max_num_batched_tokens(),
                ),
            })
        };
        let (workload, pools) = (&self.workload, &self.pools);
        let decode = self.disaggregated.as_mut().map(|parts| &mut parts.decode);
        let sheds = self.entry.are_all(id, workload, pools, is_busy)
            || decode.is_some_and(|decode| decode.are_all(id, workload, pools, is_busy));
        adversity.record.shed += u64::from(sheds);
        sheds.then_some(Rejection::Overloaded)
    }

    /// An attempt got a worker.
    pub(super) fn note_prefill(&mut self, request: RequestId, worker: WorkerId, cached: u32) {
        if let Some(adversity) = &mut self.adversity {
            adversity.in_router.remove(&request);
            let prompt = self.workload.requests[request.0 as usize].input_tokens;
            let tokens = prompt + adversity.attempts.generated(request) - cached.min(prompt);
            adversity.prefilling.insert(request, (worker, tokens));
            adversity.prefill_tokens[worker.0 as usize] += u64::from(tokens);
        }
    }

    /// The first token of an attempt came. If others generated the one before it, the client waited since that.
    pub(super) fn note_first_token(&mut self, end: Time, request: RequestId) {
        let Some(adversity) = &mut self.adversity else {
            return;
        };
        adversity.leaves_prefill(request);
        let before = adversity.attempts.token_before(request);
        let is_warmup = self.recording.requests[request.0 as usize].is_warmup;
        if let Some(before) = before.filter(|_| !is_warmup) {
            self.recording.gaps.push(GapRun {
                first: end.since(before),
                slope_ps: 0,
                steps: 1,
                sequences: 1,
            });
        }
    }

    /// Clients that have all the tokens they want leave.
    pub(super) fn dismiss(
        &mut self,
        now: Time,
        requests: Vec<RequestId>,
        actions: &mut Vec<Action>,
    ) {
        for request in requests {
            if !self.is_over(request) {
                self.withdraw(now, request, actions);
                self.give_up(now, request, GivenUp::Cancelled, actions);
            }
        }
    }

    /// A request is turned away; its client may try again, where that can help.
    pub(super) fn turn_away(
        &mut self,
        now: Time,
        id: RequestId,
        reason: Rejection,
        actions: &mut Vec<Action>,
    ) {
        match reason {
            Rejection::Overloaded | Rejection::NoWorker => {
                self.give_up(now, id, GivenUp::TurnedAway(reason), actions);
            }
            _ => self.conclude(now, id, Outcome::Rejected(reason), actions),
        }
    }

    /// An attempt comes to a router. False if meanwhile no worker is left that could take it.
    pub(super) fn enters_router(
        &mut self,
        now: Time,
        id: RequestId,
        actions: &mut Vec<Action>,
    ) -> bool {
        if let Some(reason) = self.find_able_workers(id) {
            if self.recording.requests[id.0 as usize].worker != u32::MAX {
                // Its decode worker waits in vain.
                self.withdraw(now, id, actions);
            }
            self.turn_away(now, id, reason, actions);
            return false;
        }
        let adversity = self.adversity.as_mut().expect("asked only then");
        adversity.in_router.insert(id);
        true
    }

    /// Whether an attempt is to go where a router sends it. One whose client left in the queue is dropped; one that is sent
    /// to a worker that is gone comes to the router again.
    pub(super) fn may_be_placed(
        &mut self,
        now: Time,
        placement: &Placement,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Placement {
            request, worker, ..
        } = *placement;
        let adversity = self.adversity.as_mut().expect("asked only then");
        let is_away = adversity.faults.away[worker.0 as usize] > 0;
        let is_over = self.recording.requests[request.0 as usize].outcome != Outcome::Unfinished;
        if !is_away && !is_over {
            return true;
        }
        adversity.in_router.remove(&request);
        let workload = self.workload.clone();
        self.group_of(worker).ended(now, worker, request, &workload);
        if !is_over {
            self.choose_again(now, request, actions);
        }
        false
    }

    /// A request comes again to the router in whose queue it was. Meanwhile the last worker that could take it may be gone.
    pub(super) fn choose_again(&mut self, now: Time, id: RequestId, actions: &mut Vec<Action>) {
        if let Some(adversity) = &mut self.adversity {
            adversity.in_router.remove(&id);
        }
        let parts = self.disaggregated.as_ref();
        if let Some(parts) = parts.filter(|parts| parts.handoffs.has_prefill_worker(id)) {
            let (from, _) = parts.handoffs.ends_of(id);
            return self.choose_decode_worker(now, id, Some(from), actions);
        }
        if !self.enters_router(now, id, actions) {
            return;
        }
        let Some(parts) = &self.disaggregated else {
            return self.choose_worker(now, id);
        };
        let (_, to) = parts.handoffs.ends_of(id);
        if !parts.handoffs.has_decode_worker(id) {
            self.choose_first_worker(now, id);
        } else {
            let near = parts.near(to, Role::Prefill);
            if self.lacks_prefill_workers(id, near.as_ref()) {
                return self.decode_alone(now, id, to, actions);
            }
            self.entry.keep_near(near);
            self.choose_worker(now, id);
        }
    }

    /// Leaves the clients' requests alone in the books.
    pub(super) fn close_attempts(&mut self) {
        let Some(adversity) = self.adversity.take() else {
            return;
        };
        let attempts = &adversity.attempts;
        let clients = attempts.clients();
        for client in (0..clients).map(RequestId) {
            let current = attempts.current(client);
            let last: RequestRecord = self.recording.requests[current.0 as usize];
            if last.outcome == Outcome::Unfinished {
                self.recording.requests[client.0 as usize] = last;
            }
        }
        self.recording.requests.truncate(clients as usize);
        let transfers = &mut self.recording.transfers;
        for transfer in transfers.iter_mut() {
            transfer.request = attempts.client_of(transfer.request);
        }
        transfers.sort_by_key(|transfer| transfer.request);
        if let Some(kvbm) = &mut self.recording.kvbm {
            for fetch in &mut kvbm.fetches {
                fetch.request = attempts.client_of(fetch.request);
            }
        }
        self.recording.adversity = Some(adversity.record);
    }
}
