//! SGLang's scheduler, decision for decision, without overlap.
//!
//! In words: a step is either a prefill batch or a decode batch, and prefill goes first whenever a batch can be formed. A
//! prefill batch takes the request whose prompt was cut last time and then waiting requests in the order of the policy,
//! while seats, budgets and memory last; requests that run pause meanwhile, or decode along in mixed batches. A decode
//! batch gives every running request one token. If memory lacks even then, those with the fewest outputs lose theirs and
//! queue again. What is computed enters a radix tree of prefixes only when its step is over.
//!
//! The rules are numbered S1–S12 as in `tests/golden/sglang/README.md`, which was recorded from the real scheduler
//! (SGLang 0.5.23); `dynosim conform sglang` replays those cases. *Choose* is in `admission.rs` (S2–S4) and `policy.rs`
//! (S7, S10), *allocate* in `pool.rs` over `radix_cache/` (S8, S9, S12) and `decode.rs` (S5, S6), *account* in
//! [`Scheduler::finish`]; this file puts them into order (S1, S3, S11). How many equal steps may follow each other unasked stands in
//! `coast.rs`; drafts (S13) in `speculation.rs`, stages (S14) in `stages.rs`.
//!
//! Model: no overlap. SGLang plans a step while the one before runs unless `--disable-overlap-schedule` is given; then a
//! finished request keeps its seat and an arrival waits for one step longer than here.
//!
//! Model: with attention data parallelism a rank that has nothing to do starts its new-token ratio anew at once; the real one
//! keeps it until all ranks are idle, and so reserves less for its next requests.

mod abort;
mod admission;
mod coast;
mod config;
mod decode;
pub mod defaults;
mod handoff;
mod place;
mod policy;
mod pool;
mod prefetch;
mod radix_cache;
mod sequence;
mod speculation;
mod stages;
mod token_ratio;

pub use config::{SglangConfig, SglangPolicy};
pub use pool::KvPool;
pub use speculation::SglangDrafts;

use crate::flight::Flight;
use crate::host_pool::HostPool;
use crate::kv_cache::KvEvent;
use crate::plan::{Admitted, Scheduled, StepPlan};
use crate::prefix_tree::NodeId;
use crate::scheduler::{Part, Tracking};
use crate::speculation::{Acceptance, Drafted};
use crate::timing::Chunk;
use crate::workload::{RequestId, Workload};
use admission::{Admission, Admitter, Stop};
use handoff::Handoff;
use policy::WaitingQueue;
use prefetch::Prefetches;
use sequence::{Sequence, SequenceId};
use stages::MicroBatch;
use std::collections::VecDeque;
use std::sync::Arc;
use token_ratio::TokenRatio;

/// SGLang's scheduler and KV pool of one worker.
#[derive(Debug, Clone)]
pub struct Scheduler {
    config: SglangConfig,
    workload: Arc<Workload>,
    tracking: Tracking,
    pool: KvPool,
    sequences: Vec<Sequence>,
    vacant: Vec<SequenceId>,
    waiting: WaitingQueue,
    /// Those that decode, in batch order; who has finished leaves when the next step is planned (S11).
    running: Vec<SequenceId>,
    /// Nobody is admitted until somebody leaves (`batch_is_full`, S3).
    is_full: bool,
    /// The batch of the latest step if it held prefill; it joins `running` when the next one is planned (S11).
    prefilled: Vec<SequenceId>,
    /// The request whose prompt goes on in the next step.
    cut: Option<SequenceId>,
    ratio: TokenRatio,
    /// Who of the latest prefill batch did not finish its prompt in it.
    batch_cut: Option<SequenceId>,
    /// Micro-batches that wait for their turn (S14).
    other_batches: VecDeque<MicroBatch>,
    handoff: Handoff,
    /// Oldest first.
    flights: VecDeque<Flight>,
    spare: Option<Box<StepPlan>>,
    /// Requests that were aborted since the last plan.
    aborts: Vec<RequestId>,
    /// Aborted ones that take part in one more step.
    leaving: usize,
    /// Sequences admitted and not finished.
    active: usize,
    peak_tokens: u32,
    acceptance: Option<Acceptance>,
    drafted: Drafted,
    prefetches: Prefetches,
}

impl Scheduler {
    /// An idle worker that will serve requests of `workload`.
    #[must_use]
    pub fn new(config: SglangConfig, workload: Arc<Workload>, tracking: Tracking) -> Self {
        if let Err(what) = config.check() {
            panic!("settings are checked before a worker is made: {what}");
        }
        assert!(
            !tracking.block_ids,
            "SGLang's scheduler keeps no ids of its tokens"
        );
        Scheduler {
            pool: KvPool::new(&config, workload.clone(), tracking.events),
            waiting: WaitingQueue::new(&config),
            ratio: TokenRatio::new(config.schedule_conservativeness),
            acceptance: config
                .speculation
                .as_ref()
                .map(|drafts| Acceptance::new(&drafts.speculation)),
            drafted: Drafted::default(),
            other_batches: MicroBatch::others(config.pp_size),
            config,
            workload,
            tracking,
            sequences: Vec::new(),
            vacant: Vec::new(),
            running: Vec::new(),
            is_full: false,
            prefilled: Vec::new(),
            cut: None,
            batch_cut: None,
            handoff: Handoff::default(),
            flights: VecDeque::new(),
            spare: None,
            aborts: Vec::new(),
            leaving: 0,
            active: 0,
            peak_tokens: 0,
            prefetches: Prefetches::default(),
        }
    }

    /// Puts host memory below the pool, before the first request: HiCache.
    pub fn attach_host_pool(&mut self, host: HostPool) {
        self.pool.attach_host(host);
    }

    /// How many tokens of a content's first `limit` the pool has, and how many follow in host memory; `tip` is where the
    /// content ends in the workload's prefix tree.
    #[must_use]
    pub fn peek(&self, tip: NodeId, limit: u32) -> (u32, u32) {
        let mut path = Vec::new();
        place::places(&self.workload.tree, tip, &mut path);
        self.pool.cache.peek(&path, limit)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SglangConfig {
        &self.config
    }

    /// The memory.
    #[must_use]
    pub fn pool(&self) -> &KvPool {
        &self.pool
    }

    /// Sequences admitted and not finished.
    #[must_use]
    pub fn running(&self) -> usize {
        self.active
    }

    /// Sequences in the queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.handoff.waiting()
    }

    /// The requests in the queue, head first.
    pub fn waiting_requests(&self) -> impl Iterator<Item = RequestId> {
        let request = |id: SequenceId| self.sequences[id as usize].request;
        self.waiting.iter().map(request)
    }

    /// The request whose prompt goes on in the next step.
    #[must_use]
    pub fn chunked_request(&self) -> Option<RequestId> {
        self.cut.map(|id| self.sequences[id as usize].request)
    }

    /// The share of missing outputs that is reserved for running requests (S5).
    #[must_use]
    pub fn new_token_ratio(&self) -> f64 {
        self.ratio.current
    }

    /// Most tokens that sequences held at once.
    #[must_use]
    pub fn peak_tokens(&self) -> u32 {
        self.peak_tokens
    }

    /// True if nothing is in flight, so that an arrival is reason enough to plan.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Moves the KV events since the last call to the end of `events`.
    pub fn drain_events(&mut self, events: &mut Vec<KvEvent>) {
        self.pool.drain_events(events);
    }

    /// Takes a request in; it waits until a plan admits it. The front end has refused what can never be admitted.
    pub fn submit(&mut self, id: RequestId) {
        self.submit_from(id, 0);
    }

    /// The same for a request of which another worker generated so many tokens, that are part of its prompt here.
    pub fn submit_from(&mut self, id: RequestId, generated: u32) {
        let slot = self.enter(id, Part::Whole, generated);
        self.waiting.push(slot);
    }

    /// Gives a request a slot.
    fn enter(&mut self, id: RequestId, part: Part, generated: u32) -> SequenceId {
        let request = &self.workload.requests[id.0 as usize].after(generated);
        let goal = self
            .config
            .output_goal(request.input_tokens, part.output_tokens(request));
        assert!(
            goal > 0 && self.config.can_admit(request.input_tokens, goal),
            "the front end refuses what an idle worker cannot take"
        );
        let slot = self.vacant.pop();
        let path = slot.map_or_else(Vec::new, |slot| {
            std::mem::take(&mut self.sequences[slot as usize].path)
        });
        let mut sequence = Sequence::new(id, request, goal, &self.workload, path);
        sequence.part = part;
        match slot {
            Some(slot) => {
                self.sequences[slot as usize] = sequence;
                slot
            }
            None => {
                self.sequences.push(sequence);
                (self.sequences.len() - 1) as SequenceId
            }
        }
    }

    /// Decides the next step, or `None` if there is nothing to run. A plan that schedules nobody comes back only when the
    /// last of a micro-batch was retracted; it is not in flight.
    pub fn plan(&mut self) -> Option<&StepPlan> {
        let in_flight = self.flights.len() as u32;
        assert!(in_flight < self.config.pp_size, "stages hold no more plans");
        self.take_turns();
        let mut plan = self.spare.take().unwrap_or_default();
        plan.clear();
        self.hear_of_aborts();
        match self.config.num_reserved_decode_tokens {
            Some(reserve) => self.allocate(&mut plan, reserve),
            None => self.give_back_read(),
        }
        self.settle_last_step();
        self.seat_come(&mut plan);
        if !self.plan_prefill(&mut plan) {
            self.plan_decode(&mut plan);
        }
        if plan.scheduled.is_empty() {
            if self.flights.is_empty() {
                self.ratio.reset();
            }
            let has_news =
                !plan.reserved.is_empty() || !plan.begun.is_empty() || !plan.preempted.is_empty();
            let empty = self.spare.insert(plan);
            return has_news.then_some(&**empty);
        }
        let set_aside = self.slots_for(plan.decode_batch as usize);
        self.note_peak(set_aside);
        plan.copies = self.pool.take_copies();
        plan.up_to = self.coast_limit(&plan);
        self.flights.push_back(Flight::new(plan));
        self.newest()
    }

    /// Hands the computed part of a cut prompt to the cache and lets the last prefill batch join those that run (S8, S11).
    fn settle_last_step(&mut self) {
        if let Some(id) = self.cut {
            self.pool
                .checkpoint(&mut self.sequences[id as usize], false);
        }
        let mut running = std::mem::take(&mut self.running);
        let mut joining = std::mem::take(&mut self.prefilled);
        let before = running.len() + joining.len();
        let cut = self.batch_cut.take();
        joining.retain(|&id| Some(id) != cut);
        self.drop_finished(&mut running);
        self.drop_finished(&mut joining);
        let somebody_left = running.len() + joining.len() < before;
        if somebody_left || (running.is_empty() && !joining.is_empty()) {
            self.is_full = false;
        }
        running.append(&mut joining);
        self.running = running;
    }

    /// Takes finished sequences out of a batch; their names can be given again.
    fn drop_finished(&mut self, batch: &mut Vec<SequenceId>) {
        let (sequences, vacant) = (&self.sequences, &mut self.vacant);
        batch.retain(|&id| {
            let is_finished = sequences[id as usize].is_finished();
            // Who was prefilled for another worker keeps its slot until that has read it.
            if is_finished && sequences[id as usize].part != Part::Prefill {
                vacant.push(id);
            }
            !is_finished
        });
    }

    /// Forms a prefill batch if one can be formed (S1–S3).
    fn plan_prefill(&mut self, plan: &mut StepPlan) -> bool {
        if self.cut.is_none() {
            if self.is_full || self.waiting.is_empty() {
                return false;
            }
            if self.seats() == 0 {
                self.is_full = true;
                return false;
            }
        }
        self.waiting.sort(&self.sequences, &mut self.pool);
        let batch = self.admit();
        if batch.is_empty() {
            return false;
        }
        self.make_room_for_prefill(plan, &batch);
        for admission in &batch {
            self.start(plan, admission);
        }
        self.batch_cut = self.cut;
        if self.config.mixed_chunk {
            self.mix_in_decodes(plan);
        }
        true
    }

    /// Chooses who takes part in a prefill batch, in order.
    fn admit(&mut self) -> Vec<Admission> {
        let seats = self.seats();
        let ratio = self.ratio.current;
        let mut admitter = Admitter::new(&self.config, ratio, &self.running, &self.sequences);
        if let Some(id) = self.cut {
            let room = self.room_for_chunk();
            if room == Some(0) {
                return Vec::new();
            }
            admitter.go_on(id, &self.sequences[id as usize], &self.pool, room);
            self.cut = admitter.cut.take();
        }
        let (mut tried, mut passed_over) = (0, 0);
        while let Some(id) = self.waiting.get(tried) {
            if admitter.admitted.len() >= seats {
                self.is_full = true;
            }
            if self.is_full {
                break;
            }
            let sequence = &mut self.sequences[id as usize];
            if !self.prefetches.end(sequence, &mut self.pool) {
                (tried, passed_over) = (tried + 1, passed_over + 1);
                continue;
            }
            let verdict = admitter.try_next(id, &mut self.sequences, &self.running, &mut self.pool);
            let is_admitted = admitter
                .admitted
                .last()
                .is_some_and(|last| last.sequence == id);
            tried += usize::from(is_admitted);
            match verdict {
                Ok(()) => {}
                Err(stop) => {
                    // With host memory the mark needs somebody whose leaving takes it off again.
                    let may_mark = !self.pool.has_host()
                        || !admitter.admitted.is_empty()
                        || !self.running.is_empty();
                    self.is_full |= stop == Stop::NoToken && may_mark;
                    break;
                }
            }
        }
        let Admitter { admitted, cut, .. } = admitter;
        if cut.is_some() {
            assert!(self.cut.is_none(), "one prompt is cut at a time");
            self.cut = cut;
        }
        if passed_over == 0 {
            self.waiting.remove_first(tried);
        } else {
            let is_admitted = |id| admitted.iter().any(|it: &Admission| it.sequence == id);
            self.waiting.remove(tried, is_admitted);
        }
        admitted
    }

    /// Enters a request into a prefill batch.
    fn start(&mut self, plan: &mut StepPlan, admission: &Admission) {
        let id = admission.sequence;
        let new_tokens = admission.new_tokens;
        let sequence = &mut self.sequences[id as usize];
        if let Some(hit_tokens) = admission.hit_tokens {
            self.active += 1;
            plan.admitted.push(Admitted {
                request: sequence.request,
                known_tokens: sequence.known(),
                hit_tokens,
                loaded_tokens: admission.loaded_tokens,
                stored_tokens: admission.stored_tokens,
                is_resumed: sequence.was_retracted,
            });
        }
        let computed_before = sequence.computed;
        plan.prefill.push(Chunk {
            new_tokens,
            cached_tokens: computed_before,
        });
        self.pool.grow(sequence, new_tokens);
        plan.scheduled.push(Scheduled {
            request: sequence.request,
            sequence: id,
            new_tokens,
            computed_before,
            samples: self.cut != Some(id),
        });
        self.prefilled.push(id);
    }

    fn note_peak(&mut self, set_aside: u32) {
        let held = self.pool.usable_tokens() - self.pool.available_tokens() + set_aside;
        self.peak_tokens = self.peak_tokens.max(held);
    }

    /// Accounts for `steps` steps of the oldest plan in flight, whose outputs have arrived. Requests that ended are appended to
    /// `ended` in batch order; only the last allowed step of a plan can end one.
    pub fn finish(&mut self, steps: u32, ended: &mut Vec<RequestId>) {
        let mut flight = self.flights.pop_front().expect("a plan is in flight");
        let mut left = steps;
        while left > 0 {
            // Each step's evictions belong to it.
            let run = match self.tracking.events {
                true => self.quiet_steps_of(&flight).clamp(1, left),
                false => left,
            };
            self.deliver(&mut flight, run, ended);
            left -= run;
        }
        self.put_back(flight);
    }

    /// Adds the outputs of `steps` steps, and gives what was computed to the cache: at the end of a prompt, and at the
    /// end of a request (S8).
    fn deliver(&mut self, flight: &mut Flight, steps: u32, ended: &mut Vec<RequestId>) {
        self.catch_up(flight, steps);
        let prefills = flight.plan.prefill.len();
        for (index, part) in flight.plan.scheduled.iter().enumerate() {
            if !part.samples {
                continue;
            }
            if index >= prefills && self.acceptance.is_some() {
                self.verify(part.sequence, steps);
            } else {
                self.sequences[part.sequence as usize].outputs += steps;
            }
            let sequence = &mut self.sequences[part.sequence as usize];
            if sequence.is_finished() {
                self.active -= 1;
                self.leaving -= usize::from(sequence.is_aborted);
                ended.push(sequence.request);
                match sequence.part {
                    Part::Prefill => self.hold(part.sequence),
                    Part::Whole | Part::Decode => self.pool.finish(sequence),
                }
            } else if index < prefills {
                self.pool.checkpoint(sequence, true);
            }
        }
        flight.note_delivered(steps);
    }
}
