//! A worker on the clock: when its scheduler decides and when its batches begin and end.
//!
//! It holds up to `depth` batches, the oldest of which runs: 1 with synchronous scheduling, 2 with asynchronous. It
//! decides until it holds that many, then again when the oldest has ended. A batch without any tokens takes a place in
//! that queue and no time. A worker that has nothing to run stops deciding until something new comes in.

use super::pool::KvEvent;
use super::record::{RequestRecord, Step, WorkerRecord};
use super::router::News;
use super::scenario::{Engine, StepCost};
use super::scheduler::Scheduler;
use super::sequence::{Batch, Sequence};

/// All requests of a run, by index.
pub struct Requests {
    pub sequences: Vec<Sequence>,
    pub records: Vec<RequestRecord>,
}

/// One worker.
pub struct Worker {
    engine: Engine,
    cost: StepCost,
    keeps_log: bool,
    scheduler: Scheduler,
    /// Batches decided and not delivered, oldest first.
    queue: Vec<Step>,
    /// By stage: end of the last batch.
    last_end_ns: Vec<u64>,
    /// The last decision came to nothing, or could not be made for want of requests.
    waits_for_oldest: bool,
    /// KV events that no router has heard of.
    unheard: Vec<KvEvent>,
    pub record: WorkerRecord,
}

/// What a decision came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decided {
    Tokens,
    OnlyPreemptions,
    Nothing,
}

impl Worker {
    pub fn new(engine: &Engine, cost: StepCost, keeps_log: bool) -> Worker {
        Worker {
            engine: engine.clone(),
            cost,
            keeps_log,
            scheduler: Scheduler::new(engine),
            queue: Vec::new(),
            last_end_ns: vec![0; engine.stages],
            waits_for_oldest: false,
            unheard: Vec::new(),
            record: WorkerRecord::default(),
        }
    }

    /// A request was placed here.
    pub fn submit(&mut self, request: usize) {
        self.record.requests += 1;
        self.scheduler.submit(request);
    }

    /// When the oldest batch ends.
    pub fn next_end(&self) -> Option<u64> {
        self.queue.first().map(|step| step.end_ns)
    }

    /// Delivers the oldest batch if it has ended by `now`.
    pub fn deliver_what_ended(&mut self, now: u64, requests: &mut Requests) -> News {
        if self.next_end().is_some_and(|end| end <= now) {
            self.deliver_oldest(requests)
        } else {
            News::default()
        }
    }

    /// Decides as far ahead as the worker may.
    pub fn decide(&mut self, now: u64, requests: &mut Requests) {
        if self.waits_for_oldest {
            return;
        }
        while self.queue.len() < self.engine.depth() {
            if self.scheduler.has_requests() {
                let decided = self.enqueue_next(now, requests);
                // It looks at the oldest batch, too, and takes it out if that is empty and over.
                let oldest_is_over = self.next_end().is_some_and(|end| end <= now);
                let is_full = self.queue.len() >= self.engine.depth();
                if decided == Decided::Tokens && !is_full && !oldest_is_over {
                    continue;
                }
                let is_running = self.queue.iter().any(|step| step.end_ns > now);
                if decided == Decided::Nothing && !is_running {
                    // Asked again, it would decide nothing again, until a request comes in.
                    while !self.queue.is_empty() {
                        self.drop_empty_batch(requests);
                    }
                    return;
                }
            }
            // The next decision waits for the end of the oldest batch; an empty one is over at once.
            match self.next_end() {
                Some(end) if end <= now => self.drop_empty_batch(requests),
                oldest => {
                    self.waits_for_oldest = oldest.is_some();
                    return;
                }
            }
        }
    }

    /// The batch that runs lasts until `end_ns`, which is no earlier than its own end.
    pub fn wait_for_others(&mut self, end_ns: u64) {
        for step in &mut self.queue {
            step.end_ns = end_ns;
            self.last_end_ns[0] = end_ns;
        }
    }

    /// Decides the next batch and queues it.
    fn enqueue_next(&mut self, now: u64, requests: &mut Requests) -> Decided {
        let batch = self.scheduler.schedule(&mut requests.sequences);
        let decided = match (&batch.scheduled[..], &batch.preempted[..]) {
            ([], []) => Decided::Nothing,
            ([], _) => Decided::OnlyPreemptions,
            _ => Decided::Tokens,
        };
        let mut step = Step {
            decided_ns: now,
            start_ns: now.max(self.last_end_ns[0]),
            ..Step::default()
        };
        let time = self.step_ns(&batch);
        step.end_ns = step.start_ns;
        for last_end in &mut self.last_end_ns {
            step.end_ns = step.end_ns.max(*last_end) + time;
            *last_end = (*last_end).max(step.end_ns);
        }
        if batch.scheduled.is_empty() {
            // It is over when the one before it is.
            step.start_ns = step.end_ns;
        }
        assert!(
            decided != Decided::Tokens || step.end_ns > step.start_ns,
            "a step takes time"
        );
        for &(request, _, _) in &batch.scheduled {
            let first = &mut requests.records[request].first_scheduled_ns;
            first.get_or_insert(step.start_ns);
            if self.keeps_log {
                let table = requests.sequences[request].table.clone();
                step.tables.push((request, table));
            }
        }
        for &(request, hit_tokens, _) in &batch.admitted {
            let first = &mut requests.records[request].cached_tokens;
            first.get_or_insert(hit_tokens);
            self.record.hit_tokens += hit_tokens;
            self.record.admitted_tokens += requests.sequences[request].known();
        }
        let used = self.engine.usable_blocks() - batch.free;
        self.record.peak_blocks = self.record.peak_blocks.max(used);
        self.record.preemptions += batch.preempted.len();
        step.batch = batch;
        self.queue.push(step);
        decided
    }

    fn drop_empty_batch(&mut self, requests: &mut Requests) {
        let is_empty = self.queue[0].batch.scheduled.is_empty();
        assert!(
            is_empty,
            "a batch with tokens ends where the router hears of it"
        );
        self.deliver_oldest(requests);
    }

    fn deliver_oldest(&mut self, requests: &mut Requests) -> News {
        let mut step = self.queue.remove(0);
        self.waits_for_oldest = false;
        step.finished = self.scheduler.deliver(&mut requests.sequences, &step.batch);
        let mut news = News::default();
        for &request in &step.batch.sampled {
            let tokens = &mut requests.records[request].token_ns;
            if tokens.is_empty() {
                news.started.push(request);
            }
            // Tokens of one step arrive together.
            tokens.resize(requests.sequences[request].outputs, step.end_ns);
        }
        news.finished.clone_from(&step.finished);
        for &request in &step.finished {
            requests.records[request].finish_ns = Some(step.end_ns);
        }
        let ps = (step.end_ns - step.start_ns) * 1_000;
        self.record.busy_ps += ps / self.engine.stages as u64;
        self.record.steps += usize::from(!step.batch.scheduled.is_empty());
        // A batch without any effect is not recorded; what happened since stays for the next one.
        if step.batch.scheduled.is_empty() && step.batch.preempted.is_empty() {
            return news;
        }
        step.events = std::mem::take(&mut self.scheduler.pool.events);
        let is_eviction = |event: &&KvEvent| matches!(event, KvEvent::Removed(_));
        self.record.evictions += step.events.iter().filter(is_eviction).count();
        self.unheard.extend_from_slice(&step.events);
        if !step.batch.scheduled.is_empty() {
            news.events = std::mem::take(&mut self.unheard);
        }
        if self.keeps_log {
            step.free_queue = self.scheduler.pool.free.clone();
            step.distinct_contents = self.scheduler.pool.distinct_contents;
            self.record.log.push(step);
        }
        news
    }

    /// How long a batch runs; nothing costs nothing.
    fn step_ns(&self, batch: &Batch) -> u64 {
        if batch.scheduled.is_empty() {
            return 0;
        }
        let new: usize = batch.scheduled.iter().map(|entry| entry.1).sum();
        let context: usize = batch.scheduled.iter().map(|entry| entry.1 + entry.2).sum();
        self.cost.a + self.cost.b * new as u64 + self.cost.c * context as u64
    }
}
