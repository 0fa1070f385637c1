//! One worker of the cluster: its scheduler and what is noted about it.

use crate::event::{Action, Ran, WorkerId};
use crate::kvbm::View;
use crate::record::{GapRun, Outcome, RequestRecord, WorkerRecord};
use crate::scaling::watch::Waiting;
use engine::speculation::PARTS;
use engine::{
    Drafted, EngineConfig, KvEvent, RequestId, Reserved, Scheduler, Span, StepPlan, Time, Tracking,
    Workload,
};
use std::sync::Arc;

/// A worker and its books.
#[derive(Debug, Clone)]
pub struct Worker {
    pub(crate) scheduler: Scheduler,
    pub(crate) record: WorkerRecord,
    /// A [`Plan`](crate::event::Event::Plan) for this instant is under way.
    pub(crate) is_woken: bool,
    /// Since when the coast in flight must not go on. Steps that ended before may be reported later than that.
    pub(crate) cut_at: Option<Time>,
    id: WorkerId,
    /// What its scheduler is made from.
    config: EngineConfig,
    /// The first of the ranks it steps together with, itself if it steps alone, and how many they are.
    pub(crate) leader: WorkerId,
    pub(crate) ranks: u32,
    /// Of the first of its ranks: steps that may follow before all ranks plan again.
    pub(crate) steps_together: u32,
    pub(crate) coasts: bool,
    /// Whether a router asks how far answers are.
    reports_progress: bool,
    pub(crate) tracking: Tracking,
    /// What waits in it, where a planner wants to know.
    pub(crate) waiting: Option<Box<Waiting>>,
    only_prefills: bool,
    speculates: bool,
    /// Groups of GPUs that pass its steps on; each is busy for its part of a step.
    stages: u64,
    /// Empty batches that take a place in a pipeline: plans in flight before each.
    empty_batches: Vec<u32>,
    /// Tokens held × time by steps that verify drafts, in parts of a token.
    held_part_ps: u128,
    /// Preemptions since the last output.
    fruitless_preemptions: u32,
    /// What speculation did before the worker was lost.
    drafted_before: Drafted,
    /// Requests that got their first token while the worker planned.
    begun: Vec<RequestId>,
    /// Where its newest gaps stand in the books.
    newest_gaps: usize,
}

/// Preemptions without a single output between them after which a worker is taken to run in circles. vLLM's rules allow
/// that: with priorities and without `scheduler_reserve_full_isl`, two requests of equal priority and arrival that do
/// not fit together preempt themselves in turn for ever.
const CIRCLE: u32 = 10_000;

/// The books that a finished step is entered into.
pub(crate) struct Books<'a> {
    pub records: &'a mut [RequestRecord],
    /// By request: when its latest token arrived, `Time::MAX` before the first.
    pub last_token: &'a mut [Time],
    pub gaps: &'a mut Vec<GapRun>,
    pub warmup_requests: u32,
    /// Requests of clients; beyond them are further attempts.
    pub clients: u32,
}

impl Books<'_> {
    fn is_warmup(&self, request: RequestId) -> bool {
        request.0 < self.warmup_requests
            || (request.0 >= self.clients && request.0 % self.clients < self.warmup_requests)
    }
}

/// What the end of a step means for others.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outputs {
    /// Requests whose first token arrived.
    pub started: Vec<RequestId>,
    /// Requests and how many of their prompt tokens are computed, on workers that hand them over.
    pub computed: Vec<(RequestId, u32)>,
    /// Requests of which the worker has done its part, in batch order.
    pub ended: Vec<RequestId>,
    /// KV events of the steps, if tracked.
    pub events: Vec<KvEvent>,
    /// Requests and how many tokens they have, prompt included, where a router asks.
    pub progress: Vec<(RequestId, u32)>,
}

impl Outputs {
    /// Nothing again.
    #[inline]
    pub fn clear(&mut self) {
        self.started.clear();
        self.computed.clear();
        self.ended.clear();
        self.events.clear();
        self.progress.clear();
    }
}

impl Worker {
    pub(crate) fn new(
        id: WorkerId,
        pool: u32,
        gpus: u32,
        config: EngineConfig,
        workload: Arc<Workload>,
        options: WorkerOptions,
    ) -> Self {
        let record = WorkerRecord {
            pool,
            gpus,
            kv_blocks: u64::from(config.usable_blocks()),
            block_size: config.block_size(),
            ..WorkerRecord::default()
        };
        let speculates = config.speculation().is_some();
        let ranks = config.ranks();
        let stages = u64::from(config.stages());
        let tracking = Tracking {
            block_ids: options.track_block_ids,
            events: options.track_kv_events,
        };
        Worker {
            scheduler: Scheduler::new(config.clone(), workload, tracking),
            config,
            record,
            is_woken: false,
            cut_at: None,
            id,
            leader: options.leader,
            ranks,
            steps_together: 0,
            coasts: options.coasts,
            reports_progress: options.reports_progress,
            tracking,
            waiting: None,
            only_prefills: options.only_prefills,
            speculates,
            stages,
            empty_batches: Vec::new(),
            held_part_ps: 0,
            fruitless_preemptions: 0,
            newest_gaps: usize::MAX,
            drafted_before: Drafted::default(),
            begun: Vec::new(),
        }
    }

    /// True if the worker preempts in circles and was stopped; what it held stays unfinished.
    #[must_use]
    pub fn runs_in_circles(&self) -> bool {
        self.fruitless_preemptions >= CIRCLE
    }

    /// True if it computes prompts for other workers.
    #[must_use]
    pub fn only_prefills(&self) -> bool {
        self.only_prefills
    }

    /// Drops a request that nobody wants any more.
    pub(crate) fn abort(&mut self, request: RequestId) {
        self.scheduler.abort(request);
        if let Some(waiting) = &mut self.waiting {
            waiting.leave(request);
        }
        self.fruitless_preemptions = 0;
    }

    /// Everything it had is gone.
    pub(crate) fn restart(&mut self, workload: Arc<Workload>) {
        self.drafted_before = self.record.drafted;
        self.scheduler = Scheduler::new(self.config.clone(), workload, self.tracking);
        self.cut_at = None;
        self.waiting = self.waiting.take().map(|_| Box::default());
        self.steps_together = 0;
        self.empty_batches.clear();
        self.fruitless_preemptions = 0;
    }

    /// Its index in the cluster.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Index of its pool.
    #[must_use]
    pub fn pool(&self) -> usize {
        self.record.pool as usize
    }

    /// Its scheduler.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Goes on with a coast, or asks the scheduler for a plan, at most one at a time: a driver prices the newest. True if
    /// more could be in flight. Appends what was reserved meanwhile.
    pub(crate) fn plan(
        &mut self,
        now: Time,
        records: &mut [RequestRecord],
        actions: &mut Vec<Action>,
        reserved: &mut Vec<Reserved>,
        tiers: Option<View<'_>>,
        limit: impl Fn(&StepPlan, &Scheduler) -> Option<u32>,
    ) -> bool {
        if self.cut_at.take_if(|at| *at <= now).is_some() {
            self.scheduler.stop_coasting();
        }
        let depth = self.scheduler.depth();
        let mut empty_turns = 0;
        while self.has_place() && !self.runs_in_circles() {
            if self.scheduler.coast_on() {
                continue;
            }
            let plan = match &tiers {
                None => self.scheduler.plan(),
                Some(tiers) => self.scheduler.plan_with(tiers),
            };
            let Some(plan) = plan else {
                empty_turns += 1;
                if self.gives_up_turn(empty_turns) || self.queue_empty_batch() {
                    continue;
                }
                return false;
            };
            for request in &plan.preempted {
                records[request.0 as usize].preemptions += 1;
                self.record.preemptions += 1;
                self.fruitless_preemptions += 1;
            }
            if let Some(waiting) = &mut self.waiting {
                note_waiting(waiting, plan, records);
            }
            reserved.extend_from_slice(&plan.reserved);
            self.begun.extend_from_slice(&plan.begun);
            for admitted in &plan.admitted {
                self.record.admissions += 1;
                self.record.admitted_tokens += u64::from(admitted.known_tokens);
                self.record.hit_tokens += u64::from(admitted.hit_tokens);
                let record = &mut records[admitted.request.0 as usize];
                // What another worker found before is what the request found first.
                if !admitted.is_resumed && record.first_scheduled == Time::MAX {
                    record.cached_tokens = admitted.hit_tokens;
                }
            }
            if plan.scheduled.is_empty() {
                if self.scheduler.is_idle() {
                    continue;
                }
                // An empty batch waits behind the one in flight, and the worker with it.
                if self.queue_empty_batch() {
                    continue;
                }
                return false;
            }
            let up_to = if self.coasts { plan.up_to } else { 1 };
            let plan = self.scheduler.newest().expect("it was made just now");
            let up_to = match limit(plan, &self.scheduler) {
                // What is in flight behind the last step that matters has been scheduled before.
                Some(steps) => up_to.min(steps + depth - 1),
                None => up_to,
            };
            if !self.coasts {
                self.scheduler.stop_coasting();
            }
            actions.push(Action::Run {
                worker: self.id,
                up_to,
                ahead: depth - 1,
            });
            self.take_out_empty_batch();
            return self.has_place();
        }
        false
    }

    /// Requests that got their first token, made elsewhere, while the worker planned.
    pub(crate) fn take_begun(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.begun)
    }

    /// Whether its queue of batches takes one more, now or as soon as it looks at the oldest.
    #[inline]
    fn has_place(&mut self) -> bool {
        let has_place = |worker: &Worker| {
            let taken = worker.scheduler.steps_in_flight() + worker.empty_batches.len() as u32;
            taken < worker.scheduler.depth()
        };
        has_place(self) || (self.take_out_empty_batch() && has_place(self))
    }

    /// So many decisions in a row came to nothing. With nothing in flight SGLang's next micro-batch has its turn at once.
    fn gives_up_turn(&self, empty_turns: u64) -> bool {
        let takes_turns = self.scheduler.as_sglang().is_some();
        takes_turns && empty_turns < self.stages && self.scheduler.steps_in_flight() == 0
    }

    /// A decision came to nothing. vLLM queues that too, and waits for the oldest batch: if that is an empty one, there is
    /// more to decide at once. Behind a single plan an empty batch is gone when that has ended, and nobody plans before;
    /// among several in a pipeline it keeps a place.
    fn queue_empty_batch(&mut self) -> bool {
        if self.stages == 1 {
            return false;
        }
        let in_flight = self.scheduler.steps_in_flight();
        if in_flight == 0 {
            self.empty_batches.clear();
            return false;
        }
        self.empty_batches.push(in_flight);
        self.take_out_empty_batch()
    }

    /// Takes an empty batch from the head of the queue if there is one.
    fn take_out_empty_batch(&mut self) -> bool {
        let is_there = self.empty_batches.first() == Some(&0);
        if is_there {
            self.empty_batches.remove(0);
        }
        is_there
    }

    /// Enters finished steps into the books.
    pub(crate) fn ran(&mut self, ran: &Ran, books: &mut Books<'_>, outputs: &mut Outputs) {
        let plan = self.scheduler.oldest().expect("only planned steps run");
        let delivered = self.scheduler.delivered_steps();
        let (start, end) = (ran.start, ran.end());
        if delivered == 0 {
            for admitted in plan.admitted.iter().filter(|admitted| !admitted.is_resumed) {
                let first = &mut books.records[admitted.request.0 as usize].first_scheduled;
                *first = (*first).min(start);
            }
        }
        self.record.steps += u64::from(ran.steps);
        let time = Span(ran.total().0 / self.stages);
        self.record.busy += time;
        let prefill_tokens = plan.prefill_tokens();
        if prefill_tokens > 0 {
            self.record.prefill_tokens += prefill_tokens;
            self.record.prefill_busy += time;
        }
        if self.speculates {
            let growth = plan.decode_batch * plan.drafts.pace;
            let held = plan.held_tokens() * u64::from(PARTS) + plan.drafts.fractions;
            let held = held + u64::from(delivered) * u64::from(growth);
            self.held_part_ps += held_token_ps(held, growth, ran);
        } else {
            self.record.decode_tokens += u64::from(plan.decode_batch) * u64::from(ran.steps);
            let held = plan.held_tokens() + u64::from(delivered) * u64::from(plan.decode_batch);
            self.record.held_token_ps += held_token_ps(held, plan.decode_batch, ran);
        }
        if plan.scheduled.iter().any(|part| part.samples) {
            self.fruitless_preemptions = 0;
        }
        if self.only_prefills {
            let parts = plan.scheduled.iter();
            let computed = parts.map(|part| (part.request, part.computed_before + part.new_tokens));
            outputs.computed.extend(computed);
            self.account(ran, outputs);
            return;
        }
        if self.reports_progress {
            let parts = plan.scheduled.iter().filter(|part| part.samples);
            let known = |tokens: u32| tokens + 1;
            let progress =
                parts.map(|part| (part.request, known(part.computed_before + part.new_tokens)));
            outputs.progress.extend(progress);
        }
        let (mut regular, mut late) = (0, 0);
        let some_leave = self.scheduler.has_leaving();
        for part in plan.scheduled.iter().filter(|part| part.samples) {
            if some_leave && self.scheduler.is_leaving(part) {
                continue;
            }
            let last = &mut books.last_token[part.request.0 as usize];
            let before = std::mem::replace(last, end);
            if before == Time::MAX {
                outputs.started.push(part.request);
                let first = &mut books.records[part.request.0 as usize].first_token;
                *first = (*first).min(end);
            } else if books.is_warmup(part.request) {
                continue;
            } else if before == start {
                regular += 1;
            } else {
                late += 1;
                let first = (start + ran.first).since(before);
                books.gaps.push(GapRun {
                    first,
                    slope_ps: 0,
                    steps: 1,
                    sequences: 1,
                });
            }
        }
        let gap = GapRun {
            first: ran.first,
            slope_ps: ran.slope_ps,
            steps: ran.steps,
            sequences: regular,
        };
        if regular > 0 {
            self.enter_gaps(gap, books.gaps);
        }
        if late > 0 && ran.steps > 1 {
            let first = Span((ran.first.0 as i64 + ran.slope_ps) as u64);
            books.gaps.push(GapRun {
                first,
                steps: ran.steps - 1,
                sequences: late,
                ..gap
            });
        }
        self.account(ran, outputs);
    }

    /// Enters gaps; those that go on as the last ones did become one run with them.
    fn enter_gaps(&mut self, gap: GapRun, gaps: &mut Vec<GapRun>) {
        if let Some(before) = gaps.get_mut(self.newest_gaps)
            && before.slope_ps == gap.slope_ps
            && before.sequences == gap.sequences
            && i128::from(before.first.0) + i128::from(before.slope_ps) * i128::from(before.steps)
                == i128::from(gap.first.0)
        {
            before.steps += gap.steps;
            return;
        }
        self.newest_gaps = gaps.len();
        gaps.push(gap);
    }

    fn account(&mut self, ran: &Ran, outputs: &mut Outputs) {
        for before in &mut self.empty_batches {
            *before = before.saturating_sub(1);
        }
        self.scheduler.finish(ran.steps, &mut outputs.ended);
        self.scheduler.drain_events(&mut outputs.events);
        let peak = u64::from(self.scheduler.peak_blocks());
        self.record.peak_blocks = self.record.peak_blocks.max(peak);
        if self.speculates {
            self.record.drafted = self.drafted_before + self.scheduler.drafted();
            self.record.decode_tokens = self.record.drafted.tokens;
        }
    }

    /// What is noted about it in the end.
    pub(crate) fn closed_record(&self) -> WorkerRecord {
        WorkerRecord {
            held_token_ps: self.record.held_token_ps + self.held_part_ps / u128::from(PARTS),
            ..self.record
        }
    }
}

/// What a worker is asked to do besides serving.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerOptions {
    /// The first of the ranks it steps together with.
    pub leader: WorkerId,
    pub coasts: bool,
    pub reports_progress: bool,
    pub track_block_ids: bool,
    pub track_kv_events: bool,
    pub only_prefills: bool,
}

/// Who begins no longer waits; who lost its blocks waits again.
fn note_waiting(waiting: &mut Waiting, plan: &StepPlan, records: &[RequestRecord]) {
    let admitted = plan.admitted.iter().map(|admitted| admitted.request);
    for request in admitted.chain(plan.arrived.iter().copied()) {
        waiting.leave(request);
    }
    for &request in &plan.preempted {
        let record = &records[request.0 as usize];
        if record.outcome != Outcome::Unfinished {
            // Its client left.
            continue;
        }
        waiting.enter(
            request,
            record.input_tokens,
            record.first_token != Time::MAX,
        );
    }
}

/// Tokens held × time, summed over the steps: the batch holds `held` tokens in the first step and one more per
/// decoding sequence in each further one.
fn held_token_ps(held: u64, batch: u32, ran: &Ran) -> u128 {
    let (n, c, b) = (i128::from(ran.steps), i128::from(held), i128::from(batch));
    let (s, d) = (i128::from(ran.first.0), i128::from(ran.slope_ps));
    // Sum over j in 0..n of (c + j b)(s + j d).
    let linear = n * (n - 1) / 2;
    let steps = u64::from(ran.steps);
    // Few steps, as nearly always, need no division of 128 bits.
    let squares = if steps < 1 << 20 {
        i128::from((steps - 1) * steps * (2 * steps - 1) / 6)
    } else {
        (n - 1) * n * (2 * n - 1) / 6
    };
    u128::try_from(n * c * s + linear * (c * d + b * s) + squares * b * d)
        .expect("times and tokens are positive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_tokens_are_summed_in_closed_form() {
        let ran = Ran {
            worker: WorkerId(0),
            steps: 5,
            start: Time::ZERO,
            first: Span(1000),
            slope_ps: 7,
        };
        let expected: u128 = (0..5u128).map(|j| (100 + 3 * j) * (1000 + 7 * j)).sum();
        assert_eq!(held_token_ps(100, 3, &ran), expected);
    }
}
