//! What the cluster does about parts that break, and about the requests that were there. Where they are handed over,
//! [`severed`](super::severed) says what that means for the other worker.
//!
//! Model: a lost worker is noticed at once; a real front end waits for a broken connection or a lease to expire
//! and sends it requests until then. A restarted router is back at once, where a process
//! takes seconds. A moved request is looked up in the router's index by its prompt alone, so that what was generated before is
//! never a reason to choose a worker. A worker that is gone counts as idle for queue thresholds.

use super::Cluster;
use super::clients::GivenUp;
use crate::adversity::faults::{Disturbance, Fault, FaultKind, begin_of, end_of, worker_of};
use crate::adversity::record::FaultRecord;
use crate::adversity::{Adversity, NOTHING_MOVES};
use crate::disaggregation::Stage;
use crate::event::{Action, Event, WorkerId};
use crate::record::{Failure, Outcome};
use engine::{RequestId, Time};

const BREAKS: &str = "only where something breaks";

impl Cluster {
    pub(super) fn breaks(&mut self) -> &mut Adversity {
        self.adversity.as_mut().expect(BREAKS)
    }

    /// Asks for the first faults.
    pub(super) fn start_faults(&mut self, actions: &mut Vec<Action>) {
        if let Some(adversity) = &mut self.adversity {
            for (number, time) in adversity.faults.first() {
                actions.push(at(time, begin_of(number)));
            }
        }
    }

    /// True if nothing is under way and nothing will be sent.
    fn is_quiet(&self) -> bool {
        let adversity = self.adversity.as_ref().expect(BREAKS);
        let is_idle = adversity.open == 0 || adversity.fruitless_faults > NOTHING_MOVES;
        is_idle && !self.load.sends_more()
    }

    /// A fault begins, or is over.
    pub(super) fn fault(&mut self, now: Time, end: u32, actions: &mut Vec<Action>) {
        let number = end / 2;
        if end == end_of(number) {
            return self.end_fault(now, number, actions);
        }
        self.breaks().fruitless_faults += 1;
        if self.is_quiet() {
            return;
        }
        let faults = &mut self.breaks().faults;
        if let Some((next, time)) = faults.after(number) {
            actions.push(at(time.max(now), begin_of(next)));
        }
        let fault = faults.get(number);
        if fault.kind.is_of_a_worker() && self.is_vacant(worker_of(&fault)) {
            return;
        }
        if fault.kind == FaultKind::DrainLimit && !self.has_drained_since(&fault) {
            return;
        }
        if let FaultKind::Reclaim { of } = fault.kind {
            self.reclaim(now, of, actions);
            self.submit_placed(now, actions);
            return self.ask_for_links(actions);
        }
        let ends = match fault.kind {
            FaultKind::Interruption { notice, away } => now + notice + away,
            FaultKind::RouterRestart { .. } | FaultKind::DrainLimit => now,
            // Another takes its part.
            FaultKind::Crash if self.scaling.is_some() => now,
            _ => now + fault.lasts,
        };
        let worker = fault.kind.is_of_a_worker().then_some(fault.worker);
        let adversity = self.breaks();
        adversity.faults.records[number as usize] = Some(adversity.record.faults.len());
        adversity.record.faults.push(FaultRecord {
            kind: fault.kind,
            worker,
            node: (fault.kind == FaultKind::NodeLoss).then_some(fault.worker),
            workers: 0,
            began: now,
            ended: ends,
            requests: 0,
            migrated: 0,
            lost: 0,
            recomputed_tokens: 0,
            missed_events: 0,
        });
        if ends > now {
            actions.push(at(ends, end_of(number)));
        }
        self.begin_fault(now, number, &fault, ends, actions);
        self.submit_placed(now, actions);
        self.ask_for_links(actions);
    }

    fn begin_fault(
        &mut self,
        now: Time,
        number: u32,
        fault: &Fault,
        ends: Time,
        actions: &mut Vec<Action>,
    ) {
        let worker = worker_of(fault);
        let disturb = |how| Action::Disturb { worker, how };
        let is_lost = matches!(fault.kind, FaultKind::Crash | FaultKind::DrainLimit);
        if fault.kind.is_of_a_worker() && !is_lost {
            let there = self.workers[worker.0 as usize].scheduler.requests();
            let there = there.iter().filter(|id| !self.is_over(**id)).count();
            self.record_of(number).requests = there as u32;
        }
        match fault.kind {
            FaultKind::Crash | FaultKind::DrainLimit => {
                self.crash(now, number, &[worker], actions);
            }
            FaultKind::Hang => actions.push(disturb(Disturbance::HangUntil(ends))),
            FaultKind::Straggler { percent } => {
                self.breaks().faults.slowed_by[worker.0 as usize] = Some(number);
                actions.push(disturb(Disturbance::Pace(percent)));
            }
            FaultKind::EventLoss => {
                self.breaks().faults.deaf[worker.0 as usize] += 1;
                self.group_of(worker).set_deaf(worker, true);
            }
            FaultKind::RouterRestart { reads_caches } => {
                self.restart_router(now, number, reads_caches, actions);
            }
            FaultKind::PlannerRestart => self.restart_planner(ends, actions),
            FaultKind::NodeLoss => self.lose_node(now, number, fault.worker, actions),
            FaultKind::Interruption { notice, .. } => {
                self.interrupt(now, number, worker, notice, actions);
            }
            FaultKind::Reclaim { .. } => unreachable!("the end of a notice is no fault"),
        }
    }

    fn end_fault(&mut self, now: Time, number: u32, actions: &mut Vec<Action>) {
        let fault = self.breaks().faults.get(number);
        let worker = worker_of(&fault);
        let index = worker.0 as usize;
        match fault.kind {
            FaultKind::Crash => self.comes_back(now, worker, actions),
            FaultKind::NodeLoss => self.regain_node(now, fault.worker, actions),
            FaultKind::Interruption { .. } => self.end_interruption(now, number, actions),
            FaultKind::Hang
            | FaultKind::RouterRestart { .. }
            | FaultKind::PlannerRestart
            | FaultKind::Reclaim { .. }
            | FaultKind::DrainLimit => {}
            FaultKind::Straggler { .. } => {
                let slowed_by = &mut self.breaks().faults.slowed_by[index];
                // A later one may have taken its place.
                if slowed_by.take_if(|by| *by == number).is_some() {
                    let how = Disturbance::Pace(100);
                    actions.push(Action::Disturb { worker, how });
                }
            }
            FaultKind::EventLoss => {
                let deaf = &mut self.breaks().faults.deaf[index];
                *deaf -= 1;
                let hears = *deaf == 0;
                if hears {
                    let missed = self.group_of(worker).set_deaf(worker, false);
                    self.record_of(number).missed_events = missed;
                }
            }
        }
    }

    /// A worker begins to drain: says when an end will be made of it, if there is a limit.
    pub(super) fn limit_drain(&mut self, now: Time, worker: WorkerId, actions: &mut Vec<Action>) {
        if let Some(adversity) = &mut self.adversity
            && let Some((number, time)) = adversity.faults.limit_drain(now, worker)
        {
            actions.push(at(time, begin_of(number)));
        }
    }

    pub(super) fn record_of(&mut self, number: u32) -> &mut FaultRecord {
        let adversity = self.breaks();
        let place = adversity.faults.records[number as usize];
        &mut adversity.record.faults[place.expect("a fault that began is in the record")]
    }

    /// Nothing is sent to a worker that crashes. False if it was not there.
    fn goes_away(
        &mut self,
        now: Time,
        number: u32,
        worker: WorkerId,
        actions: &mut Vec<Action>,
    ) -> bool {
        if self.scaling.is_some() {
            return self.leaves_its_place(now, number, worker, actions);
        }
        let faults = &mut self.breaks().faults;
        let away = &mut faults.away[worker.0 as usize];
        *away += 1;
        let was_there = *away == 1 || faults.warned[worker.0 as usize].take().is_some();
        if was_there {
            self.group_of(worker).set_down(worker, true);
        }
        was_there
    }

    /// A worker that crashed is there again, unless another fault keeps it away.
    pub(super) fn comes_back(&mut self, now: Time, worker: WorkerId, actions: &mut Vec<Action>) {
        let away = &mut self.breaks().faults.away[worker.0 as usize];
        *away -= 1;
        let is_back = *away == 0;
        if is_back {
            self.group_of(worker).set_down(worker, false);
            self.wake(now, worker, actions);
        }
    }

    /// Workers are gone at one instant, with all that was there. Others go on with their requests, or they are lost.
    pub(super) fn crash(
        &mut self,
        now: Time,
        number: u32,
        workers: &[WorkerId],
        actions: &mut Vec<Action>,
    ) {
        let mut gone = workers.to_vec();
        gone.retain(|&worker| self.goes_away(now, number, worker, actions));
        // What a decode worker had is no prefill worker's any more.
        gone.sort_by_key(|&worker| !self.is_decode_worker(worker));
        let mut lost = Vec::new();
        for &worker in &gone {
            let there = self.empty(now, worker, actions);
            lost.extend(there.into_iter().map(|(id, outputs)| (worker, id, outputs)));
        }
        self.record_of(number).requests += lost.len() as u32;
        if self.scaling.is_some() {
            self.replace(now, number, &gone, actions);
        }
        for (worker, id, outputs) in lost {
            let had_begun = self.recording.requests[id.0 as usize].first_scheduled != Time::MAX;
            let is_prefill_worker = self.workers[worker.0 as usize].only_prefills();
            if is_prefill_worker && self.lose_prompt(now, id, worker, actions) {
                self.note_migrated(number, id, had_begun);
            } else {
                self.lose(now, number, id, outputs, actions);
            }
        }
    }

    /// Takes everything from a worker that crashed: its requests, and how many tokens each had there.
    fn empty(
        &mut self,
        now: Time,
        worker: WorkerId,
        actions: &mut Vec<Action>,
    ) -> Vec<(RequestId, u32)> {
        let index = worker.0 as usize;
        actions.push(Action::Disturb {
            worker,
            how: Disturbance::Stop,
        });
        let there = self.requests_on(worker);
        let outputs = |id: &RequestId| self.workers[index].scheduler.outputs_of(*id).unwrap_or(0);
        let there: Vec<(RequestId, u32)> = there.iter().map(|id| (*id, outputs(id))).collect();
        let workload = self.workload.clone();
        self.workers[index].restart(workload.clone());
        self.break_off_pulls(now, worker, actions);
        let is_prefill_worker = self.workers[index].only_prefills();
        for &(id, _) in there.iter().filter(|_| !is_prefill_worker) {
            self.breaks().leaves_prefill(id);
            self.group_of(worker).ended(now, worker, id, &workload);
            self.leave_prefill_worker(now, id, true, actions);
            // It may wait in a router for its other worker.
            self.recording.requests[id.0 as usize].outcome = Outcome::Cancelled;
        }
        there
    }

    /// Unfinished requests on a worker, in their order.
    pub(super) fn requests_on(&self, worker: WorkerId) -> Vec<RequestId> {
        if self.disaggregated.is_some() {
            return self.parts_of(worker);
        }
        let mut there = self.workers[worker.0 as usize].scheduler.requests();
        there.retain(|id| !self.is_over(*id));
        there.sort_unstable();
        there
    }

    /// Another worker goes on with a request.
    fn note_migrated(&mut self, number: u32, id: RequestId, had_begun: bool) {
        let tokens = self.known_tokens(id);
        let record = self.record_of(number);
        record.migrated += 1;
        if had_begun {
            record.recomputed_tokens += u64::from(tokens);
        }
    }

    /// A request has lost its worker: another goes on with it, if that is allowed and there is one.
    fn lose(
        &mut self,
        now: Time,
        number: u32,
        id: RequestId,
        outputs: u32,
        actions: &mut Vec<Action>,
    ) {
        let adversity = self.adversity.as_mut().expect(BREAKS);
        let generated = adversity.attempts.generated(id) + outputs;
        let client = adversity.attempts.client_of(id);
        let record = &mut self.recording.requests[id.0 as usize];
        record.outcome = Outcome::Cancelled;
        record.output_tokens = generated;
        let old = *record;
        // Who moved and had no further token keeps the time of the last one.
        let before = adversity.attempts.token_before(id);
        let last_token = match self.last_token[id.0 as usize] {
            Time::MAX => before.unwrap_or(Time::MAX),
            last => last,
        };
        let next = adversity.attempts.go_on(client, generated, last_token);
        if let Some(next) = next {
            self.recording.requests[next.0 as usize] = crate::record::RequestRecord {
                worker: u32::MAX,
                outcome: Outcome::Unfinished,
                ..old
            };
            self.entry.note_generated(next, generated);
            if let Some(parts) = &mut self.disaggregated {
                parts.decode.note_generated(next, generated);
            }
            if self.find_able_workers(next).is_none() {
                self.note_migrated(number, next, old.first_scheduled != Time::MAX);
                return self.place(now, next, actions);
            }
            self.recording.requests[next.0 as usize].outcome = Outcome::Cancelled;
        }
        self.record_of(number).lost += 1;
        let last = next.unwrap_or(id);
        self.give_up(now, last, GivenUp::Failed(Failure::WorkerLost), actions);
    }

    /// The routers forget what they knew; requests in their queues come to them again.
    fn restart_router(
        &mut self,
        now: Time,
        number: u32,
        reads_caches: bool,
        actions: &mut Vec<Action>,
    ) {
        let mut under_way = [Vec::new(), Vec::new()];
        for worker in 0..self.workers.len() as u32 {
            let worker = WorkerId(worker);
            let is_decode = self.is_decode_worker(worker);
            under_way[usize::from(is_decode)].extend(self.booked_on(worker));
        }
        let [in_front, behind] = under_way;
        let mut all: Vec<RequestId> = in_front.iter().chain(&behind).copied().collect();
        all.sort_unstable();
        all.dedup();
        self.record_of(number).requests = all.len() as u32;
        self.entry.restart_router(in_front, reads_caches);
        if let Some(parts) = &mut self.disaggregated {
            parts.decode.restart_router(behind, reads_caches);
        }
        let queued: Vec<RequestId> = self.breaks().in_router.iter().copied().collect();
        for request in queued {
            self.breaks().in_router.remove(&request);
            // Meanwhile the last worker that could take it may be gone.
            if !self.is_over(request) && self.enters_router(now, request, actions) {
                self.choose_again(now, request, actions);
            }
        }
    }

    /// Unfinished requests that a router has given to a worker and that have not ended there.
    fn booked_on(&self, worker: WorkerId) -> Vec<RequestId> {
        let mut there = self.requests_on(worker);
        if let Some(parts) = &self.disaggregated
            && self.workers[worker.0 as usize].only_prefills()
        {
            // What is computed waits to be read, and is none of the router's business.
            there.retain(|id| parts.handoffs.stage(*id) == Stage::Computing);
        }
        there
    }
}

pub(super) fn at(time: Time, end: u32) -> Action {
    Action::At {
        time,
        event: Event::Fault { end },
    }
}
