//! The scheduler of vLLM's V1 engine, decision for decision.
//!
//! In words: each step has a budget of tokens. First every running sequence, in the order of admission, gets the
//! tokens it lacks (one if it decodes, a chunk if its prompt is not finished). If one cannot get its blocks, the
//! sequence admitted last (or the one of least priority) loses all of its blocks and goes back to the queue, until
//! there is room. If nothing was preempted, waiting sequences are admitted strictly from the head of the queue while
//! seats, budget and blocks last; what they share with cached prefixes costs nothing.
//!
//! The rules are numbered R1–R16 as in `tests/golden/vllm/README.md`, which was recorded from the real scheduler (vLLM
//! 0.32.0 and 0.33.0); `dynosim conform vllm` replays those cases. A step is three readable parts: *choose* who
//! advances and by how many tokens, *allocate* blocks or preempt ([`Scheduler::plan`]), *account* what came out
//! ([`Scheduler::finish`]). How many equal steps may follow each other unasked stands in `coast.rs`; what is different
//! when prefill and decode are done by two workers, in `handoff.rs`; when drafts are verified, in `speculation.rs`.
//!
//! With pipeline parallelism so many plans are in flight as there are stages. A sequence whose next token is in flight waits;
//! another chunk of its prompt can follow the one before it. So batches form by themselves: what one plan leaves over for
//! want of budget is the next one, and decodes stay together with those they were prefilled with.

mod abort;
mod coast;
mod config;
mod handoff;
mod sequence;
mod speculation;

pub use config::{Eviction, SchedulingPolicy, VllmConfig, VllmVersion};

use crate::annotations::Ephemeral;
use crate::connector::Connector;
use crate::kv_cache::{BlockId, KvCache, KvCacheConfig, KvEvent, block_path};
use crate::plan::{Admitted, Scheduled, StepPlan};
use crate::scheduler::{Part, Tracking};
use crate::speculation::{Acceptance, Drafted};
use crate::time::Time;
use crate::timing::Chunk;
use crate::workload::{RequestId, Workload};
use abort::Leaving;
use coast::{Flight, Standstill};
use handoff::Elsewhere;
use sequence::{Sequence, SequenceId, WaitingQueue};
use speculation::verify;
use std::collections::VecDeque;
use std::sync::Arc;

/// vLLM's scheduler and KV cache of one worker.
#[derive(Debug, Clone)]
pub struct Scheduler {
    config: VllmConfig,
    workload: Arc<Workload>,
    tracking: Tracking,
    cache: KvCache,
    sequences: Vec<Sequence>,
    vacant: Vec<SequenceId>,
    /// In the order of admission.
    running: Vec<SequenceId>,
    waiting: WaitingQueue,
    elsewhere: Elsewhere,
    leaving: Leaving,
    acceptance: Option<Acceptance>,
    drafted: Drafted,
    /// Plans handed out and not finished, oldest first.
    flights: VecDeque<Flight>,
    #[expect(
        clippy::vec_box,
        reason = "a plan goes from here into a flight and back without being copied"
    )]
    spare: Vec<Box<StepPlan>>,
    peak_blocks: u32,
}

impl Scheduler {
    /// An idle worker that will serve requests of `workload`.
    #[must_use]
    pub fn new(config: VllmConfig, workload: Arc<Workload>, tracking: Tracking) -> Self {
        if let Err(what) = config.check() {
            panic!("settings are checked before a worker is made: {what}");
        }
        let mut cache = KvCache::new(KvCacheConfig {
            block_size: config.block_size,
            num_gpu_blocks: config.num_gpu_blocks,
            enable_prefix_caching: config.enable_prefix_caching,
            track_block_ids: tracking.block_ids,
            track_events: tracking.events,
        });
        if config.eviction == Eviction::Belady {
            cache.foresee(&workload);
        }
        Scheduler {
            waiting: WaitingQueue::new(config.policy),
            acceptance: config.speculation.as_ref().map(Acceptance::new),
            drafted: Drafted::default(),
            config,
            workload,
            tracking,
            cache,
            sequences: Vec::new(),
            vacant: Vec::new(),
            running: Vec::new(),
            elsewhere: Elsewhere::default(),
            leaving: Leaving::default(),
            flights: VecDeque::new(),
            spare: Vec::new(),
            peak_blocks: 0,
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &VllmConfig {
        &self.config
    }

    /// The blocks.
    #[must_use]
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Sequences admitted and not finished.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences in the queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The requests in the queue, head first.
    pub fn waiting_requests(&self) -> impl Iterator<Item = RequestId> {
        self.waiting
            .iter()
            .map(|id| self.sequences[id as usize].request)
    }

    /// Most blocks that were in use at once.
    #[must_use]
    pub fn peak_blocks(&self) -> u32 {
        self.peak_blocks
    }

    /// True if nothing is in flight, so that an arrival is reason enough to plan; a worker with a plan in flight plans
    /// again when a step ends, however many more it could take (R16: the engine waits for the oldest output).
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Moves the KV events since the last call to the end of `events`.
    pub fn drain_events(&mut self, events: &mut Vec<KvEvent>) {
        self.cache.drain_events(events);
    }

    /// The block table of a sequence named in a plan in flight. Empty unless block ids are tracked.
    #[must_use]
    pub fn block_table(&self, part: &Scheduled) -> Vec<BlockId> {
        self.cache
            .block_ids(&self.sequences[part.sequence as usize].table)
    }

    /// Takes a request in; it waits until a plan admits it. The front end has refused what can never fit (R14).
    pub fn submit(&mut self, id: RequestId, arrival: Time) {
        self.submit_part(id, arrival, Part::Whole);
    }

    /// The same for a part of the request.
    pub fn submit_part(&mut self, id: RequestId, arrival: Time, part: Part) {
        self.submit_from(id, arrival, part, 0);
    }

    /// The same for a request of which another worker generated so many tokens, that are part of its prompt here.
    pub fn submit_from(&mut self, id: RequestId, arrival: Time, part: Part, generated: u32) {
        let request = self.workload.requests[id.0 as usize].after(generated);
        let goal = self
            .config
            .output_goal(request.input_tokens, part.output_tokens(&request));
        assert!(
            goal > 0,
            "the front end refuses prompts of max_model_len tokens or more"
        );
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.sequences.push(Sequence {
                request: id,
                part,
                arrival,
                priority: 0,
                input_tokens: 0,
                output_goal: 0,
                outputs: 0,
                placeholders: 0,
                computed: 0,
                prefill_goal: 0,
                fraction: 0,
                is_running: false,
                is_aborted: false,
                was_preempted: false,
                fetching: 0,
                table: Default::default(),
                path: Vec::new(),
            });
            (self.sequences.len() - 1) as SequenceId
        });
        let sequence = &mut self.sequences[slot as usize];
        sequence.request = id;
        sequence.part = part;
        sequence.arrival = arrival;
        sequence.priority = request.priority;
        sequence.input_tokens = request.input_tokens;
        sequence.output_goal = goal;
        sequence.outputs = 0;
        sequence.placeholders = 0;
        sequence.computed = 0;
        sequence.fraction = 0;
        sequence.is_running = false;
        sequence.is_aborted = false;
        sequence.was_preempted = false;
        block_path(
            &self.workload.tree,
            request.leaf,
            self.config.block_size,
            &mut sequence.path,
        );
        self.waiting.submit(slot, &self.sequences);
        self.cache.announce(id);
    }

    /// Decides the next step, or `None` if there is nothing to run. A plan without scheduled sequences comes back
    /// only when planning preempted somebody or reserved blocks: it takes no time, is not in flight and needs no `finish`.
    pub fn plan(&mut self) -> Option<&StepPlan> {
        self.plan_with(None)
    }

    /// The same for a worker that can fetch KV through a connector.
    pub fn plan_with(&mut self, connector: Option<&dyn Connector>) -> Option<&StepPlan> {
        assert!(
            self.flights.len() < self.config.depth() as usize,
            "at most `depth` plans are in flight"
        );
        self.hear_from_elsewhere();
        self.hear_of_aborts();
        self.cache.hear();
        let mut plan = self.spare.pop().unwrap_or_default();
        plan.clear();
        let mut budget = self.config.max_num_batched_tokens;
        let cap = self.chunk_cap();
        self.advance_running(&mut plan, &mut budget, cap);
        let mut standstill = Standstill::Open;
        if plan.preempted.is_empty() {
            standstill = self.admit_waiting(&mut plan, &mut budget, cap, connector);
        }
        if plan.scheduled.is_empty() {
            let has_news = !plan.preempted.is_empty() || !plan.reserved.is_empty();
            self.spare.push(plan);
            let empty = self.spare.last().map(|plan| &**plan);
            return if has_news { empty } else { None };
        }
        self.note_peak();
        plan.up_to = self.coast_limit(&plan, standstill);
        self.flights.push_back(Flight::new(plan));
        self.flights.back().map(|flight| &*flight.plan)
    }

    /// The largest chunk of a prompt in this step (R2).
    fn chunk_cap(&self) -> u32 {
        let requests = (self.running.len() + self.waiting.len()) as u32;
        let threshold = self.config.long_prefill_token_threshold;
        if threshold == 0 || requests <= 1 {
            return u32::MAX;
        }
        if self.config.long_prefill_token_threshold_adaptive {
            threshold.max(self.config.max_num_batched_tokens / requests)
        } else {
            threshold
        }
    }

    /// Gives every running sequence its tokens and blocks, preempting where blocks lack (R1, R2, R7, R9).
    fn advance_running(&mut self, plan: &mut StepPlan, budget: &mut u32, cap: u32) {
        let mut at = 0;
        while at < self.running.len() && *budget > 0 {
            let id = self.running[at];
            let sequence = &self.sequences[id as usize];
            if self.has_to_wait(sequence) {
                at += 1;
                continue;
            }
            // Fixed before anybody is preempted: tokens that a victim gives back go to those behind.
            let wanted = sequence.uncomputed() + self.drafts_of(sequence);
            let new_tokens = wanted.min(cap).min(*budget);
            match self.make_room(plan, budget, at, new_tokens) {
                Ok(place) => {
                    self.schedule(plan, id, new_tokens);
                    self.set_slots_aside(id);
                    *budget -= new_tokens;
                    at = place + 1;
                }
                Err(place) if self.goes_on_after_self_preemption() => at = place,
                Err(_) => return,
            }
        }
    }

    /// Preempts until the sequence at place `at` can have its blocks (R9), and says at which place it is then; if it was
    /// its own victim, the place of those behind it as an error.
    fn make_room(
        &mut self,
        plan: &mut StepPlan,
        budget: &mut u32,
        mut at: usize,
        new_tokens: u32,
    ) -> Result<usize, usize> {
        let id = self.running[at];
        while !self.has_blocks_for(&self.sequences[id as usize], new_tokens) {
            let victim = self.victim();
            self.preempt(plan, victim, budget);
            if victim == at {
                return Err(at);
            }
            if victim < at {
                at -= 1;
            }
        }
        Ok(at)
    }

    fn has_blocks_for(&self, sequence: &Sequence, new_tokens: u32) -> bool {
        let tokens = self.slots_up_to(sequence.computed + new_tokens);
        let room = sequence.table.blocks() * self.config.block_size;
        tokens <= room || self.cache.blocks_for(tokens - room) <= self.cache.free_blocks()
    }

    fn goes_on_after_self_preemption(&self) -> bool {
        self.config.policy == SchedulingPolicy::Priority
            && self.config.version >= VllmVersion::V0_33
    }

    /// Who loses its blocks: an index into `running` (R9).
    fn victim(&self) -> usize {
        let last = self.running.len() - 1;
        match self.config.policy {
            SchedulingPolicy::Fcfs => last,
            SchedulingPolicy::Priority => {
                let rank = |&at: &usize| self.sequences[self.running[at] as usize].rank();
                (0..=last).rev().max_by_key(rank).expect("somebody runs")
            }
        }
    }

    /// Takes a running sequence's blocks and puts it back into the queue (R10). If it was part of this step already,
    /// its tokens go back to the budget.
    fn preempt(&mut self, plan: &mut StepPlan, victim: usize, budget: &mut u32) {
        let id = self.running.remove(victim);
        let sequence = &mut self.sequences[id as usize];
        plan.preempted.push(sequence.request);
        self.cache.release(&mut sequence.table);
        self.cache.expect_again(sequence.request, &sequence.path);
        sequence.is_running = false;
        sequence.was_preempted = true;
        if let Some(index) = plan
            .scheduled
            .iter()
            .position(|scheduled| scheduled.sequence == id)
        {
            let part = plan.scheduled.remove(index);
            *budget += part.new_tokens;
            unschedule_shape(plan, &part, sequence);
            if part.samples && self.config.depth() > 1 {
                sequence.placeholders -= 1;
            }
        }
        sequence.computed = 0;
        self.waiting.put_back(id, &self.sequences);
    }

    /// Admits waiting sequences from the head while everything lasts (R3–R5), and says what ended it.
    fn admit_waiting(
        &mut self,
        plan: &mut StepPlan,
        budget: &mut u32,
        cap: u32,
        connector: Option<&dyn Connector>,
    ) -> Standstill {
        let seats = self
            .config
            .max_num_active_seqs
            .unwrap_or(self.config.max_num_seqs) as usize;
        if !self.start_arrived(plan, budget, seats, cap) {
            return Standstill::Open;
        }
        let mut at = 0;
        while *budget > 0 {
            let Some(id) = self.waiting.get(at) else {
                return if at > 0 {
                    Standstill::Unsettled
                } else {
                    Standstill::Open
                };
            };
            if self.running.len() >= seats {
                return Standstill::Open;
            }
            if self.sequences[id as usize].placeholders > 0 {
                // Preempted with a token in flight: it cannot resume before that token is there (R16).
                at += 1;
                continue;
            }
            let unsettled = at > 0;
            if self.sequences[id as usize].part == Part::Decode {
                match self.try_reserve(plan, id) {
                    Ok(()) => self.waiting.remove(at),
                    Err(_) if unsettled => return Standstill::Unsettled,
                    Err(standstill) => return standstill,
                }
                continue;
            }
            if let Some(connector) = connector
                && let Some(fetched) = self.try_fetch(plan, id, connector)
            {
                match fetched {
                    Ok(()) => self.waiting.remove(at),
                    Err(_) if unsettled => return Standstill::Unsettled,
                    Err(standstill) => return standstill,
                }
                continue;
            }
            match self.try_admit(id, *budget, cap) {
                Ok(admission) => {
                    self.waiting.remove(at);
                    self.start(plan, id, admission);
                    *budget -= admission.new_tokens;
                }
                Err(_) if unsettled => return Standstill::Unsettled,
                // What can be fetched changes while nothing happens here, and with it what the head needs.
                Err(_) if connector.is_some() && !self.needs_all_blocks() => {
                    return Standstill::Unsettled;
                }
                Err(standstill) => return standstill,
            }
        }
        Standstill::Open
    }

    /// True if what a waiting sequence needs to start is room for all of its blocks and nothing else.
    fn needs_all_blocks(&self) -> bool {
        self.config.scheduler_reserve_full_isl && self.config.enable_chunked_prefill
    }

    /// Whether the sequence at the head of the queue can start now, and with how many tokens (R3–R5).
    fn try_admit(
        &mut self,
        id: SequenceId,
        budget: u32,
        cap: u32,
    ) -> Result<Admission, Standstill> {
        let sequence = &self.sequences[id as usize];
        let known = sequence.known();
        let block_size = self.cache.block_size();
        let cached = self.cache.lookup(&sequence.path, (known - 1) / block_size);
        let hit = self.usable_hit(id, cached);
        let hit_tokens = hit.blocks * block_size;
        let wanted = (known - hit_tokens).min(cap);
        if !self.config.enable_chunked_prefill && wanted > budget {
            return Err(Standstill::Blocked {
                head: id,
                hit: cached,
                hit_matters: false,
            });
        }
        let new_tokens = wanted.min(budget);
        let watermark = if self.running.is_empty() {
            0
        } else {
            self.config.watermark_blocks()
        };
        // Blocks to be taken from the queue: new ones, and those of the hit that are idle in it.
        let fits = |tokens: u32| {
            let taken = self.cache.blocks_for(tokens) - hit.blocks + hit.idle_blocks;
            taken + watermark <= self.cache.free_blocks()
        };
        if self.config.scheduler_reserve_full_isl && !fits(known) {
            return Err(Standstill::Blocked {
                head: id,
                hit: cached,
                hit_matters: false,
            });
        }
        if !fits(hit_tokens + new_tokens) {
            return Err(Standstill::Blocked {
                head: id,
                hit: cached,
                hit_matters: true,
            });
        }
        Ok(Admission {
            hit_tokens,
            new_tokens,
        })
    }

    fn start(&mut self, plan: &mut StepPlan, id: SequenceId, admission: Admission) {
        self.running.push(id);
        let sequence = &mut self.sequences[id as usize];
        plan.admitted.push(Admitted {
            request: sequence.request,
            known_tokens: sequence.known(),
            hit_tokens: admission.hit_tokens,
            loaded_tokens: 0,
            stored_tokens: 0,
            is_resumed: sequence.was_preempted,
        });
        sequence.is_running = true;
        sequence.computed = admission.hit_tokens;
        sequence.prefill_goal = sequence.known();
        self.cache.start(sequence.request);
        self.cache.admit(&mut sequence.table);
        self.schedule(plan, id, admission.new_tokens);
    }

    /// Allocates a sequence's blocks for its tokens and enters it into the plan (R7, R8).
    fn schedule(&mut self, plan: &mut StepPlan, id: SequenceId, new_tokens: u32) {
        let is_deep = self.config.depth() > 1;
        let pace = self.acceptance.as_ref().map_or(0, Acceptance::pace);
        let sequence = &mut self.sequences[id as usize];
        let computed_before = sequence.computed;
        if sequence.decodes() {
            plan.decode_batch += 1;
            plan.decode_context += u64::from(computed_before + new_tokens);
            plan.drafts.tokens += new_tokens - 1;
            plan.drafts.pace = pace;
            plan.drafts.fractions += u64::from(sequence.fraction);
        } else {
            plan.prefill.push(Chunk {
                new_tokens,
                cached_tokens: computed_before,
            });
        }
        let samples = sequence.uncomputed() <= new_tokens;
        allocate(&mut self.cache, sequence, new_tokens);
        if samples && is_deep {
            sequence.placeholders += 1;
        }
        plan.scheduled.push(Scheduled {
            request: sequence.request,
            sequence: id,
            new_tokens,
            computed_before,
            samples,
        });
    }

    fn note_peak(&mut self) {
        self.peak_blocks = self
            .peak_blocks
            .max(self.cache.usable_blocks() - self.cache.free_blocks());
    }

    /// The oldest plan in flight.
    #[must_use]
    #[inline]
    pub fn oldest(&self) -> Option<&StepPlan> {
        self.flights.front().map(|flight| &*flight.plan)
    }

    /// Accounts for `steps` steps of the oldest plan in flight, whose outputs have arrived. Requests that ended are
    /// appended to `ended` in batch order; only the last allowed step of a plan can end one.
    pub fn finish(&mut self, steps: u32, ended: &mut Vec<RequestId>) {
        let mut flight = self.flights.pop_front().expect("a plan is in flight");
        let mut left = steps;
        while left > 0 {
            // Ids and events depend on the order of blocks among sequences: step by step where there are any.
            let run = match self.tracking {
                Tracking {
                    block_ids: true, ..
                } => 1,
                Tracking { events: true, .. } if self.flights.is_empty() => {
                    self.quiet_steps_of(&flight).clamp(1, left)
                }
                Tracking { events: true, .. } => 1,
                _ => left,
            };
            self.deliver(&mut flight, run, ended);
            left -= run;
        }
        if flight.is_over() {
            self.spare.push(flight.plan);
        } else {
            self.flights.push_front(flight);
        }
        if self.has_leaving() {
            self.bury();
        }
    }

    /// Adds the outputs of `steps` steps (R12, R16).
    fn deliver(&mut self, flight: &mut Flight, steps: u32, ended: &mut Vec<RequestId>) {
        self.catch_up(flight, steps);
        let is_async = self.config.async_scheduling;
        let is_deep = self.config.depth() > 1;
        let (mut some_ended, mut some_ended_waiting) = (false, false);
        for part in &flight.plan.scheduled {
            if !part.samples {
                continue;
            }
            let sequence = &mut self.sequences[part.sequence as usize];
            if sequence.is_aborted {
                continue;
            }
            if let Some(acceptance) = &self.acceptance {
                verify(acceptance, sequence, part, steps, &mut self.drafted);
            } else {
                sequence.outputs += steps;
            }
            if is_deep {
                sequence.placeholders -= steps;
            }
            if sequence.is_running && (is_async || (steps > 1 && self.acceptance.is_none())) {
                let blocks = (sequence.computed - sequence.placeholders) / self.config.block_size;
                self.cache
                    .publish(&mut sequence.table, &sequence.path, blocks);
            }
            if sequence.outputs >= sequence.output_goal {
                some_ended = true;
                some_ended_waiting |= !sequence.is_running;
                ended.push(sequence.request);
                if sequence.part == Part::Prefill {
                    self.elsewhere.hold(part.sequence);
                    continue;
                }
                let block_size = self.config.block_size;
                match ephemeral(&self.workload, sequence, block_size) {
                    None => self.cache.release(&mut sequence.table),
                    Some(from) => self.cache.release_ephemeral(&mut sequence.table, from),
                }
                self.vacant.push(part.sequence);
            }
        }
        flight.note_delivered(steps);
        if some_ended {
            self.drop_ended(some_ended_waiting);
        }
    }

    /// Takes sequences that reached their goal out of `running` (or, preempted meanwhile, out of the queue).
    fn drop_ended(&mut self, some_waited: bool) {
        let sequences = &self.sequences;
        let has_ended =
            |id: SequenceId| sequences[id as usize].outputs >= sequences[id as usize].output_goal;
        self.running.retain(|&id| !has_ended(id));
        if some_waited {
            self.waiting.retain(|id| !has_ended(id));
        }
    }
}

/// How a waiting sequence starts.
#[derive(Debug, Clone, Copy)]
struct Admission {
    hit_tokens: u32,
    new_tokens: u32,
}

/// Gives a sequence the blocks for its next tokens and makes the full ones findable.
fn allocate(cache: &mut KvCache, sequence: &mut Sequence, new_tokens: u32) {
    sequence.computed += new_tokens;
    let block_size = cache.block_size();
    if sequence.computed > sequence.table.blocks() * block_size {
        cache.grow(&mut sequence.table, cache.blocks_for(sequence.computed));
    }
    let known = sequence.computed.min(sequence.known());
    if known >= (sequence.table.hashed() + 1) * block_size {
        cache.publish(&mut sequence.table, &sequence.path, known / block_size);
    }
}

/// Takes a preempted sequence's part out of the step's shape.
fn unschedule_shape(plan: &mut StepPlan, part: &Scheduled, sequence: &Sequence) {
    if part.computed_before >= sequence.prefill_goal {
        plan.decode_batch -= 1;
        plan.decode_context -= u64::from(part.computed_before + part.new_tokens);
        plan.drafts.tokens -= part.new_tokens - 1;
        plan.drafts.fractions -= u64::from(sequence.fraction);
    } else {
        let chunk = Chunk {
            new_tokens: part.new_tokens,
            cached_tokens: part.computed_before,
        };
        let index = plan
            .prefill
            .iter()
            .position(|&other| other == chunk)
            .expect("a scheduled chunk is in the shape");
        plan.prefill.remove(index);
    }
}

/// From which block on a sequence's blocks are of no further use, if any are; `Some(None)` for all that it did not find.
fn ephemeral(workload: &Workload, sequence: &Sequence, block_size: u32) -> Option<Option<u32>> {
    match workload
        .annotations_of(sequence.request)?
        .ephemeral_blocks?
    {
        Ephemeral::Answer => Some(Some(sequence.input_tokens / block_size)),
        Ephemeral::Request => Some(None),
    }
}
