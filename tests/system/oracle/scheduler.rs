//! One worker's scheduler: who computes how many tokens in the next step, who is admitted, who is preempted.
//!
//! [`Scheduler::schedule`] makes a batch: first the running sequences in order of admission, then, if nobody lost its
//! blocks, the waiting ones from the head. [`Scheduler::deliver`] takes the tokens that a batch produced. With
//! asynchronous scheduling the next batch is made before the last one's tokens are known: a sequence counts such a token
//! as `in_flight`. With synchronous scheduling nothing is in flight when a batch is made, so the same lines serve both.
//! Numbers like (R9) name the rule.

use super::pool::{BlockId, Pool};
use super::scenario::{Engine, Policy, Speculation, Version};
use super::sequence::{Batch, Sequence};

/// One worker.
#[derive(Debug, Clone)]
pub struct Scheduler {
    engine: Engine,
    pub pool: Pool,
    /// In order of admission.
    running: Vec<usize>,
    /// fcfs: in order of service. Priority: in any order.
    waiting: Vec<usize>,
}

impl Scheduler {
    pub fn new(engine: &Engine) -> Scheduler {
        Scheduler {
            engine: engine.clone(),
            pool: Pool::new(engine.num_gpu_blocks),
            running: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// A new request.
    pub fn submit(&mut self, request: usize) {
        self.waiting.push(request);
    }

    pub fn has_requests(&self) -> bool {
        !self.running.is_empty() || !self.waiting.is_empty()
    }

    /// Decides the next step.
    pub fn schedule(&mut self, sequences: &mut [Sequence]) -> Batch {
        let mut batch = Batch::default();
        let mut budget = self.engine.max_num_batched_tokens;
        let cap = self.chunk_cap();
        self.schedule_running(sequences, cap, &mut budget, &mut batch);
        if batch.preempted.is_empty() {
            self.admit_waiting(sequences, cap, &mut budget, &mut batch);
        }
        for &(request, new, _) in &batch.scheduled {
            let sequence = &mut sequences[request];
            sequence.computed += new;
            if sequence.computed >= sequence.known() + sequence.in_flight {
                sequence.in_flight += 1;
                batch.sampled.push(request);
            }
        }
        batch.running = self.running.len();
        batch.waiting = self.waiting.len();
        batch.free = self.pool.free.len();
        batch
    }

    /// The most tokens one request may compute in this step (R2).
    fn chunk_cap(&self) -> usize {
        let requests = self.running.len() + self.waiting.len();
        let threshold = self.engine.long_prefill_token_threshold;
        if threshold == 0 || requests <= 1 {
            usize::MAX
        } else if self.engine.long_prefill_token_threshold_adaptive {
            threshold.max(self.engine.max_num_batched_tokens / requests)
        } else {
            threshold
        }
    }

    fn schedule_running(
        &mut self,
        sequences: &mut [Sequence],
        cap: usize,
        budget: &mut usize,
        batch: &mut Batch,
    ) {
        let mut next = 0;
        while next < self.running.len() && *budget > 0 {
            let request = self.running[next];
            let new = self
                .tokens_wanted(&sequences[request])
                .min(cap)
                .min(*budget);
            if new == 0 {
                next += 1;
                continue;
            }
            while !self.fits(&sequences[request], new) {
                let place = self.victim(sequences);
                let victim = self.running.remove(place);
                if place < next {
                    next -= 1;
                }
                // A victim that was already scheduled gives its tokens back (R9).
                if let Some(entry) = batch.scheduled.iter().position(|entry| entry.0 == victim) {
                    *budget += batch.scheduled.remove(entry).1;
                }
                self.preempt(sequences, victim);
                batch.preempted.push(victim);
                if victim == request {
                    break;
                }
            }
            if batch.preempted.last() == Some(&request) {
                // It preempted itself; `next` is now the one behind it.
                if self.engine.policy == Policy::Priority && self.engine.version == Version::V0_33 {
                    continue;
                }
                break;
            }
            batch
                .scheduled
                .push((request, new, sequences[request].computed));
            self.extend(&mut sequences[request], new);
            let slots = self.slots(sequences[request].computed + new);
            while sequences[request].table.len() < self.blocks_for(slots) {
                sequences[request].table.push(self.pool.allocate());
            }
            *budget -= new;
            next += 1;
        }
    }

    /// What a running sequence could compute if the batch were its own (R1, R2, R16).
    fn tokens_wanted(&self, sequence: &Sequence) -> usize {
        let last_is_in_flight =
            sequence.in_flight > 0 && sequence.outputs + sequence.in_flight >= sequence.output_len;
        // In a pipeline the next token is planned when the one before it is known.
        let next_is_in_flight = self.engine.stages > 1 && sequence.in_flight > 0;
        if last_is_in_flight || next_is_in_flight {
            return 0;
        }
        let mut wanted = sequence.known() + sequence.in_flight - sequence.computed;
        if sequence.computed >= sequence.known_at_admission {
            wanted += self.engine.drafts();
        }
        wanted.min(self.engine.max_model_len - 1 - sequence.computed)
    }

    /// Are there free blocks for `new` more tokens (R7)?
    fn fits(&self, sequence: &Sequence, new: usize) -> bool {
        let slots = self.slots(sequence.computed + new);
        self.blocks_for(slots) <= sequence.table.len() + self.pool.free.len()
    }

    /// Tokens for which a running sequence has blocks when it computes up to `computed`.
    fn slots(&self, computed: usize) -> usize {
        match self.engine.speculation {
            Some(_) => (computed + self.engine.lookahead()).min(self.engine.max_model_len),
            None => computed,
        }
    }

    /// Gives a sequence the blocks for `new` more tokens and lets its full blocks be found at once (R7, R8).
    fn extend(&mut self, sequence: &mut Sequence, new: usize) {
        while sequence.table.len() < self.blocks_for(sequence.computed + new) {
            sequence.table.push(self.pool.allocate());
        }
        let tokens = (sequence.computed + new).min(sequence.known());
        self.store_full_blocks(sequence, tokens);
    }

    fn store_full_blocks(&mut self, sequence: &mut Sequence, tokens: usize) {
        let full = tokens / self.engine.block_size;
        if self.engine.enable_prefix_caching && full > sequence.stored {
            let new = sequence.stored..full;
            let parent = new
                .start
                .checked_sub(1)
                .map(|before| sequence.contents[before]);
            self.pool.store(
                parent,
                &sequence.contents[new.clone()],
                &sequence.table[new],
            );
            sequence.stored = full;
        }
    }

    /// Position in `running` of the one that has to go (R9).
    fn victim(&self, sequences: &[Sequence]) -> usize {
        let mut place = self.running.len() - 1;
        if self.engine.policy == Policy::Priority {
            let urgency = |place: usize| {
                let sequence = &sequences[self.running[place]];
                (sequence.priority, sequence.arrival_ns)
            };
            place = 0;
            for other in 1..self.running.len() {
                if urgency(other) > urgency(place) {
                    place = other;
                }
            }
        }
        place
    }

    /// R10; the caller has taken it out of `running`.
    fn preempt(&mut self, sequences: &mut [Sequence], victim: usize) {
        self.pool.release(&sequences[victim].table);
        sequences[victim].table.clear();
        sequences[victim].stored = 0;
        sequences[victim].computed = 0;
        sequences[victim].preemptions += 1;
        self.waiting.insert(0, victim);
    }

    fn admit_waiting(
        &mut self,
        sequences: &mut [Sequence],
        cap: usize,
        budget: &mut usize,
        batch: &mut Batch,
    ) {
        let most_running = self
            .engine
            .max_num_active_seqs
            .unwrap_or(self.engine.max_num_seqs);
        while *budget > 0 && self.running.len() < most_running {
            let Some(place) = self.head_of_waiting(sequences) else {
                break;
            };
            let request = self.waiting[place];
            let sequence = &mut sequences[request];
            assert!(
                sequence.in_flight == 0,
                "it does not wait for a token in flight"
            );
            let mut hits = self.find_prefix(sequence);
            let speculation = self.engine.speculation.as_ref();
            if speculation.is_some_and(|it| it.reads_hidden_states) {
                hits.pop();
            }
            let sequence = &mut sequences[request];
            let hit_tokens = hits.len() * self.engine.block_size;
            let wanted = (sequence.known() - hit_tokens).min(cap);
            if !self.engine.enable_chunked_prefill && wanted > *budget {
                break;
            }
            let new = wanted.min(*budget);
            if !self.may_be_admitted(sequence, &hits, new) {
                break;
            }
            hits.iter().for_each(|&block| self.pool.touch(block));
            sequence.stored = hits.len();
            sequence.table = hits;
            sequence.computed = hit_tokens;
            sequence.known_at_admission = sequence.known();
            batch.scheduled.push((request, new, sequence.computed));
            self.extend(sequence, new);
            *budget -= new;
            self.waiting.remove(place);
            self.running.push(request);
            batch
                .admitted
                .push((request, hit_tokens, sequence.preemptions > 0));
        }
    }

    /// Position in `waiting` of the one whose turn it is (R3, R13). Who was preempted with a token in flight is passed over.
    fn head_of_waiting(&self, sequences: &[Sequence]) -> Option<usize> {
        let mut head = None;
        for place in 0..self.waiting.len() {
            let key = |place: usize| sequences[self.waiting[place]].key(self.waiting[place]);
            if sequences[self.waiting[place]].in_flight > 0 {
                continue;
            }
            let is_first = match head {
                None => true,
                Some(head) => self.engine.policy == Policy::Priority && key(place) < key(head),
            };
            if is_first {
                head = Some(place);
            }
        }
        head
    }

    /// The longest run of cached blocks that leaves at least one token to compute (R4).
    fn find_prefix(&self, sequence: &Sequence) -> Vec<BlockId> {
        let limit = (sequence.known() - 1) / self.engine.block_size;
        let mut hits = Vec::new();
        for &content in &sequence.contents[..limit] {
            match self.pool.find(content) {
                Some(block) => hits.push(block),
                None => break,
            }
        }
        hits
    }

    /// R5.
    fn may_be_admitted(&self, sequence: &Sequence, hits: &[BlockId], new: usize) -> bool {
        let free_hits = hits
            .iter()
            .filter(|&&block| self.pool.is_free(block))
            .count();
        let watermark = if self.running.is_empty() {
            0
        } else {
            (self.engine.watermark * self.engine.num_gpu_blocks as f64) as usize
        };
        // tokens / B - H + E + W <= free, without a negative intermediate
        let fits = |tokens: usize| {
            self.blocks_for(tokens) + free_hits + watermark <= self.pool.free.len() + hits.len()
        };
        let whole = sequence.known().min(self.engine.max_model_len);
        let chunk = hits.len() * self.engine.block_size + new;
        fits(chunk) && (!self.engine.scheduler_reserve_full_isl || fits(whole))
    }

    /// The step of `batch` ended: its tokens arrive, what is complete leaves. Returns the requests that finished.
    pub fn deliver(&mut self, sequences: &mut [Sequence], batch: &Batch) -> Vec<usize> {
        let mut finished = Vec::new();
        for &request in &batch.sampled {
            let entry = batch.scheduled.iter().find(|entry| entry.0 == request);
            let &(_, new, computed_before) = entry.expect("who samples is scheduled");
            let sequence = &mut sequences[request];
            sequence.in_flight -= 1;
            match &self.engine.speculation {
                Some(speculation) if computed_before >= sequence.known_at_admission => {
                    let most = sequence
                        .output_len
                        .min(self.engine.max_model_len - sequence.prompt_len);
                    let tokens = tokens_of_step(speculation, request, sequence, new - 1);
                    sequence.outputs = (sequence.outputs + tokens).min(most);
                    sequence.computed = sequence.known() - 1;
                }
                _ => sequence.outputs += 1,
            }
            let is_running = self.running.contains(&request);
            if self.engine.async_scheduling && is_running {
                let tokens = sequence.computed - sequence.in_flight;
                self.store_full_blocks(sequence, tokens);
            }
            if sequence.known() >= self.engine.max_model_len
                || sequence.outputs >= sequence.output_len
            {
                assert!(
                    sequence.in_flight == 0,
                    "nothing is computed beyond the last token"
                );
                self.pool.release(&sequence.table);
                sequence.table.clear();
                let queue = if is_running {
                    &mut self.running
                } else {
                    &mut self.waiting
                };
                queue.retain(|&other| other != request);
                finished.push(request);
            }
        }
        finished
    }

    fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.engine.block_size)
    }
}

/// Tokens that a step with so many drafts brings.
fn tokens_of_step(
    speculation: &Speculation,
    request: usize,
    sequence: &mut Sequence,
    drafts: usize,
) -> usize {
    if speculation.is_expected {
        let mut mean = 1.0;
        for place in 0..drafts {
            mean += speculation.rates[..=place].iter().product::<f64>();
        }
        let have = sequence.fraction + (mean * 256.0).round() as usize;
        sequence.fraction = have % 256;
        return have / 256;
    }
    for place in 0..drafts {
        // SplitMix64 of seed, request and place in the answer; its upper 53 bits are a number in 0..1.
        let mut state = 0;
        for input in [
            speculation.seed,
            request as u64,
            (sequence.outputs + place) as u64,
        ] {
            state = splitmix(state ^ input);
        }
        let number = (state >> 11) as f64 / (1u64 << 53) as f64;
        if number >= speculation.rates[place] {
            return place + 1;
        }
    }
    drafts + 1
}

fn splitmix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
