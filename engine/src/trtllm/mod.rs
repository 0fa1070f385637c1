//! TensorRT-LLM's scheduler by rules taken from its sources, without overlap.
//!
//! In words: up to `max_batch_size` requests are active, in order of arrival. Each step, a *capacity* rule says who may take
//! part by KV blocks, and a *micro-batch* rule who does by tokens; prompts and decodes share a step. By default nobody starts
//! whose whole answer does not fit beside those of all others, so that nobody is ever stopped.
//!
//! Where the rules are from: T2–T5 were read in a public copy of its Python scheduler (written after the C++ one; about
//! release 1.2, the copy does not say), the block counts of T2 and T3 in copies of its C++ KV cache manager. T1 and T6–T9
//! are its known behaviour, not checked against the text. No schedule of the real one was recorded; a naive scheduler
//! written from these rules is the check, which shows that the rules are kept and not that they are TensorRT-LLM's.
//!
//! * T1 `max_batch_size` seats; whoever waits takes one in order of arrival. A seat is given back at the end.
//! * T2 `GUARANTEED_NO_EVICT`: free blocks (reusable ones are free) less what started requests can still need, each
//!   ceil((prompt + max new tokens) / block) less the blocks it has. New ones start in order while theirs are covered; the
//!   first that does not fit ends it. Hits are not counted.
//! * T3 `MAX_UTILIZATION`: in order, each takes the blocks of its next step, a new one those of its whole prompt. Where
//!   they lack the last started one from here on is paused, and nobody from there on takes part; if none is started, it ends.
//! * T4 block reuse: a new request whose first missing whole block is the first missing one of a prompt under way, or of a
//!   new one before it, is passed over in this step.
//! * T5 tokens: in order, one for a decode, the missing prompt for others, the first beyond `max_num_tokens` ends it. With
//!   chunking prompts come after all decodes, and if they do not fit, each gets min(missing, left), in whole blocks where cut.
//! * T6 a starting prompt gets blocks for all of it at once, after the longest cached prefix of at most its length - 1, in
//!   whole blocks; a chunk shrinks to what is missing behind that.
//! * T7 blocks become findable when the prompt has been computed whole, and when a request ends or is paused.
//! * T8 freed blocks stay findable; those without content go first, then the least recently freed, a sequence's tail first.
//! * T9 a paused request keeps its seat and its place in the order; its outputs become part of its prompt.
//! * T10 drafts: `speculation.rs`.
//! * T11 stages: as many micro-batches in flight, each of up to `max_batch_size` requests, and as many times the seats. They are planned in
//!   turn, from the active requests that are not in flight; those in flight keep what is set aside for them. (`_torch/pyexecutor/py_executor.py`,
//!   `_executor_loop_pp`.) A turn that comes to nothing is over at once. `MAX_UTILIZATION` is not modelled with stages: it could pause what
//!   is in flight.
//! * T12 ranks (`enable_attention_dp`): each with T1–T10 of its own; all limits are a rank's.
//!
//! *Choose* is in `capacity.rs` (T2–T4) and `micro_batch.rs` (T5), *allocate* and *account* here, `coast.rs` says how many equal
//! steps may follow each other.
//!
// Model: no overlap. TensorRT-LLM plans a step while the one before runs unless `disable_overlap_scheduler` is given; then a
// finished request keeps its seat for one step longer than here.
// Model: whole blocks only. `enable_partial_reuse`, on by default, also copies the beginning of a block: up to one block less
// to compute per request with a hit. Equal blocks that two requests compute are both kept, as in vLLM's cache.

mod abort;
mod capacity;
mod coast;
mod config;
mod host;
mod micro_batch;
mod sequence;
mod speculation;

pub use config::{CapacityPolicy, TrtllmConfig};

use crate::flight::Flight;
use crate::host_pool::{HostPool, HostUse};
use crate::kv_cache::{KvCache, KvCacheConfig, KvEvent, Stretch, block_path};
use crate::plan::{Admitted, Scheduled, StepPlan};
use crate::prefix_tree::NodeId;
use crate::scheduler::Tracking;
use crate::speculation::{Acceptance, Drafted};
use crate::timing::Chunk;
use crate::workload::{RequestId, Workload};
use host::SecondaryPool;
use micro_batch::Prefill;
use sequence::{Sequence, SequenceId};
use std::collections::VecDeque;
use std::sync::Arc;

/// TensorRT-LLM's scheduler and KV cache of one worker.
#[derive(Debug, Clone)]
pub struct Scheduler {
    config: TrtllmConfig,
    workload: Arc<Workload>,
    tracking: Tracking,
    cache: KvCache,
    sequences: Vec<Sequence>,
    vacant: Vec<SequenceId>,
    /// Without a seat yet.
    queue: VecDeque<SequenceId>,
    /// With a seat, in order of arrival.
    active: Vec<SequenceId>,
    /// Active ones that have blocks.
    started: usize,
    /// Of the step that is planned: who fits, first missing blocks that somebody computes, who takes part.
    fitting: Vec<SequenceId>,
    contributed: Vec<(NodeId, u32)>,
    prefills: Vec<Prefill>,
    decodes: Vec<SequenceId>,
    /// Oldest first.
    flights: VecDeque<Flight>,
    /// Requests that were aborted since the last plan.
    aborts: Vec<RequestId>,
    spare: Option<Box<StepPlan>>,
    peak_blocks: u32,
    acceptance: Option<Acceptance>,
    drafted: Drafted,
    host: Option<Box<SecondaryPool>>,
}

impl Scheduler {
    /// An idle worker that will serve requests of `workload`.
    #[must_use]
    pub fn new(config: TrtllmConfig, workload: Arc<Workload>, tracking: Tracking) -> Self {
        if let Err(what) = config.check() {
            panic!("settings are checked before a worker is made: {what}");
        }
        let cache = KvCache::new(KvCacheConfig {
            block_size: config.tokens_per_block,
            // The cache has vLLM's null block, which nobody uses.
            num_gpu_blocks: config.num_blocks + 1,
            enable_prefix_caching: config.enable_block_reuse,
            track_block_ids: tracking.block_ids,
            track_events: tracking.events,
        });
        Scheduler {
            acceptance: config.speculation.as_ref().map(Acceptance::new),
            drafted: Drafted::default(),
            config,
            workload,
            tracking,
            cache,
            sequences: Vec::new(),
            vacant: Vec::new(),
            queue: VecDeque::new(),
            active: Vec::new(),
            started: 0,
            fitting: Vec::new(),
            contributed: Vec::new(),
            prefills: Vec::new(),
            decodes: Vec::new(),
            flights: VecDeque::new(),
            aborts: Vec::new(),
            spare: None,
            peak_blocks: 0,
            host: None,
        }
    }

    /// Puts a secondary pool in host memory below the GPU's, before the first request.
    pub fn attach_host_pool(&mut self, host: HostPool) {
        assert!(
            self.config.enable_block_reuse,
            "only contents that can be found again are kept"
        );
        self.cache.keep_events();
        let pool = SecondaryPool::new(host, self.config.tokens_per_block);
        self.host = Some(Box::new(pool));
    }

    /// What its host memory holds and did, if it has some.
    #[must_use]
    pub fn host_use(&self) -> Option<HostUse> {
        self.host.as_ref().map(|host| host.used())
    }

    /// How many blocks of a content are in host memory from block `from` on without a gap, none behind block `limit`.
    #[must_use]
    pub fn host_blocks(&self, path: &[Stretch], from: u32, limit: u32) -> u32 {
        let host = self.host.as_ref();
        host.map_or(0, |host| host.matched(path, from, limit))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &TrtllmConfig {
        &self.config
    }

    /// The blocks.
    #[must_use]
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Sequences that have blocks.
    #[must_use]
    pub fn running(&self) -> usize {
        self.started
    }

    /// Sequences that have none.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.active.len() - self.started
    }

    /// Most blocks that were in use at once.
    #[must_use]
    pub fn peak_blocks(&self) -> u32 {
        self.peak_blocks
    }

    /// True if nothing is in flight, so that an arrival is reason enough to plan.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Moves the KV events since the last call to the end of `events`.
    pub fn drain_events(&mut self, events: &mut Vec<KvEvent>) {
        self.cache.drain_events(events);
        if let Some(host) = &mut self.host {
            host.forget_events();
        }
    }

    /// Takes a request in; it waits until a plan starts it. The front end has refused what can never be served.
    pub fn submit(&mut self, id: RequestId) {
        self.submit_from(id, 0);
    }

    /// The same for a request of which another worker generated so many tokens, that are part of its prompt here.
    pub fn submit_from(&mut self, id: RequestId, generated: u32) {
        let request = &self.workload.requests[id.0 as usize].after(generated);
        let goal = self
            .config
            .output_goal(request.input_tokens, request.output_tokens);
        assert!(
            goal > 0 && self.config.can_serve(request.input_tokens, goal),
            "the front end refuses what an idle worker cannot take"
        );
        let slot = self.vacant.pop();
        let mut path = slot.map_or_else(Vec::new, |slot| {
            std::mem::take(&mut self.sequences[slot as usize].path)
        });
        let block_size = self.config.tokens_per_block;
        block_path(&self.workload.tree, request.leaf, block_size, &mut path);
        let sequence = Sequence {
            request: id,
            output_goal: goal,
            outputs: 0,
            prompt: request.input_tokens,
            outputs_in_prompt: 0,
            computed: 0,
            is_started: false,
            was_paused: false,
            is_in_flight: false,
            fraction: 0,
            table: Default::default(),
            path,
        };
        let slot = match slot {
            Some(slot) => {
                self.sequences[slot as usize] = sequence;
                slot
            }
            None => {
                self.sequences.push(sequence);
                (self.sequences.len() - 1) as SequenceId
            }
        };
        self.queue.push_back(slot);
    }

    /// Decides the next step, or `None` if there is nothing to run.
    pub fn plan(&mut self) -> Option<&StepPlan> {
        let in_flight = self.flights.len() as u32;
        assert!(
            in_flight < self.config.pipeline_parallel_size,
            "stages hold no more plans"
        );
        let mut plan = self.spare.take().unwrap_or_default();
        plan.clear();
        self.hear_of_aborts();
        self.fill_seats();
        // Who was paused leaves room for somebody, who may have stepped aside for it: then all is chosen anew.
        let mut paused = None;
        while paused != Some(plan.preempted.len()) {
            paused = Some(plan.preempted.len());
            self.choose_fitting(&mut plan);
            self.choose_by_tokens();
            if !(self.prefills.is_empty() && self.decodes.is_empty()) {
                break;
            }
        }
        for index in 0..self.prefills.len() {
            self.prefill(&mut plan, self.prefills[index]);
        }
        for index in 0..self.decodes.len() {
            self.decode(&mut plan, self.decodes[index]);
        }
        if plan.scheduled.is_empty() {
            assert!(
                self.active.is_empty() || in_flight > 0,
                "of the active requests one can always go on"
            );
            self.spare = Some(plan);
            return None;
        }
        self.note_peak();
        if let Some(host) = &mut self.host {
            plan.copies = host.take_copies();
        }
        plan.up_to = self.coast_limit(&plan);
        for part in &plan.scheduled {
            self.sequences[part.sequence as usize].is_in_flight = true;
        }
        self.flights.push_back(Flight::new(plan));
        self.newest()
    }

    /// T1, T11.
    fn fill_seats(&mut self) {
        let stages = self.config.pipeline_parallel_size;
        let seats = self.config.max_batch_size.saturating_mul(stages);
        while self.active.len() < seats as usize {
            let Some(id) = self.queue.pop_front() else {
                return;
            };
            self.active.push(id);
        }
    }

    /// Enters a prompt, or a chunk of it (T6).
    fn prefill(&mut self, plan: &mut StepPlan, prefill: Prefill) {
        let sequence = &mut self.sequences[prefill.id as usize];
        if !sequence.is_started {
            let block_size = self.config.tokens_per_block;
            let limit = (sequence.prompt - 1) / block_size;
            let hit = self.cache.lookup(&sequence.path, limit);
            self.cache.admit(&mut sequence.table);
            let slots = sequence.prompt + self.config.extra_kv_tokens();
            let blocks = self.config.blocks_for(slots);
            let host = self.host.as_mut();
            let loaded = host.map_or(0, |host| host.take(&sequence.path, hit.blocks, limit));
            self.cache.grow(&mut sequence.table, blocks);
            if let Some(host) = &mut self.host {
                host.take_evicted(&self.cache);
            }
            if loaded > 0 {
                self.cache
                    .publish(&mut sequence.table, &sequence.path, hit.blocks + loaded);
            }
            sequence.is_started = true;
            sequence.computed = (hit.blocks + loaded) * block_size;
            self.started += 1;
            plan.admitted.push(Admitted {
                request: sequence.request,
                known_tokens: sequence.prompt,
                hit_tokens: hit.blocks * block_size,
                loaded_tokens: loaded * block_size,
                stored_tokens: 0,
                is_resumed: sequence.was_paused,
            });
        }
        let computed_before = sequence.computed;
        let new_tokens = prefill.tokens.min(sequence.prompt - computed_before);
        sequence.computed += new_tokens;
        plan.prefill.push(Chunk {
            new_tokens,
            cached_tokens: computed_before,
        });
        plan.scheduled.push(Scheduled {
            request: sequence.request,
            sequence: prefill.id,
            new_tokens,
            computed_before,
            samples: sequence.computed == sequence.prompt,
        });
    }

    /// Enters a decode.
    fn decode(&mut self, plan: &mut StepPlan, id: SequenceId) {
        let sequence = &self.sequences[id as usize];
        let computed_before = sequence.computed;
        let drafts = self.config.max_draft_len();
        plan.scheduled.push(Scheduled {
            request: sequence.request,
            sequence: id,
            new_tokens: 1 + drafts,
            computed_before,
            samples: true,
        });
        plan.decode_batch += 1;
        plan.decode_context += u64::from(computed_before + 1 + drafts);
        if let Some(acceptance) = &self.acceptance {
            plan.drafts.tokens += drafts;
            plan.drafts.pace = acceptance.pace();
            plan.drafts.fractions += u64::from(sequence.fraction);
            self.set_slots_aside(id, 0);
        } else {
            self.advance(id, 1);
        }
    }

    /// Lets a decoding sequence compute `tokens` more.
    fn advance(&mut self, id: SequenceId, tokens: u32) {
        let sequence = &mut self.sequences[id as usize];
        sequence.computed += tokens;
        let blocks = self.config.blocks_for(sequence.computed);
        self.cache.grow(&mut sequence.table, blocks);
        if let Some(host) = &mut self.host {
            host.take_evicted(&self.cache);
        }
    }

    fn note_peak(&mut self) {
        let held = self.cache.usable_blocks() - self.cache.free_blocks();
        self.peak_blocks = self.peak_blocks.max(held);
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

    fn deliver(&mut self, flight: &mut Flight, steps: u32, ended: &mut Vec<RequestId>) {
        self.catch_up(flight, steps);
        let prefills = flight.plan.prefill.len();
        let mut some_ended = false;
        for (index, part) in flight.plan.scheduled.iter().enumerate() {
            if !part.samples {
                continue;
            }
            let id = part.sequence;
            if index >= prefills && self.acceptance.is_some() {
                self.verify(id, steps);
            } else {
                self.sequences[id as usize].outputs += steps;
            }
            let sequence = &mut self.sequences[id as usize];
            if sequence.is_finished() {
                ended.push(sequence.request);
                self.give_back(id);
                self.started -= 1;
                self.vacant.push(id);
                some_ended = true;
            } else if index < prefills {
                self.publish(id);
            }
        }
        flight.note_delivered(steps);
        if some_ended {
            let sequences = &self.sequences;
            self.active
                .retain(|&id| !sequences[id as usize].is_finished());
        }
    }

    /// Makes the whole blocks that a sequence has computed findable (T7).
    fn publish(&mut self, id: SequenceId) {
        let sequence = &mut self.sequences[id as usize];
        let blocks = sequence.computed / self.config.tokens_per_block;
        self.cache
            .publish(&mut sequence.table, &sequence.path, blocks);
    }

    /// Takes a sequence's blocks; their contents stay findable (T7, T8).
    fn give_back(&mut self, id: SequenceId) {
        self.publish(id);
        self.cache.release(&mut self.sequences[id as usize].table);
    }
}
