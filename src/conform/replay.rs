//! Runs a recorded case through our scheduler, in the loop in which it was recorded, and notes the same things.
//!
//! In the stepping mode the scheduler is asked before every step. In the coasting mode it is asked as the simulator
//! does: coasts are taken, and written down step by step; beside it a second scheduler that keeps no ids and no events
//! takes whole coasts in one go, must hand out the same plans, and must hold the same cache afterwards.

use super::case::{Case, End, LinearTime, Recording, RequestLine, Step};
use engine::vllm::Scheduler;
use engine::{KvEvent, NodeId, PrefixTree, RequestId, StepPlan, Time, Tracking, Workload};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How steps are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Stepping,
    Coasting,
}

/// What our scheduler did with a case.
pub struct Outcome {
    pub steps: Vec<Step>,
    pub requests: Vec<RequestLine>,
    pub end: End,
    /// Steps that were part of a coast and not its first.
    pub coasted: u64,
}

/// Replays `case` under the settings of `recording`.
pub fn replay(case: &Case, recording: &Recording, mode: Mode) -> Result<Outcome, String> {
    let workload = Arc::new(case.workload()?);
    let tracking = Tracking {
        block_ids: true,
        events: true,
    };
    let scheduler = Scheduler::new(recording.config.clone(), workload.clone(), tracking);
    let shadow = (mode == Mode::Coasting).then(|| {
        Shadow::new(Scheduler::new(
            recording.config.clone(),
            workload.clone(),
            Tracking::default(),
        ))
    });
    let has_detail = recording.steps.iter().any(|step| step.tables.is_some());
    let mut replay = Replay {
        case,
        names: BlockNames::default(),
        requests: case
            .requests
            .iter()
            .enumerate()
            .map(|(id, _)| blank_line(id as u32))
            .collect(),
        workload,
        scheduler,
        shadow,
        mode,
        has_detail,
        now: 0,
        busy_until: 0,
        next_arrival: 0,
        flights: VecDeque::new(),
        steps: Vec::new(),
        counted: (0, 0),
        cached_tokens: 0,
        coasted: 0,
    };
    replay.run(recording.config.depth() as usize)?;
    Ok(replay.finish())
}

struct Replay<'a> {
    case: &'a Case,
    workload: Arc<Workload>,
    scheduler: Scheduler,
    shadow: Option<Shadow>,
    mode: Mode,
    has_detail: bool,
    now: u64,
    /// End of the last batch.
    busy_until: u64,
    next_arrival: usize,
    /// Batches whose output is not processed; `None` stands for an empty one.
    flights: VecDeque<Option<Step>>,
    steps: Vec<Step>,
    requests: Vec<RequestLine>,
    names: BlockNames,
    /// Stored and removed blocks at the last record.
    counted: (u64, u64),
    cached_tokens: u64,
    coasted: u64,
}

impl Replay<'_> {
    /// The recorder's loop: at depth 1 schedule, run, process; at depth 2 keep two batches queued.
    fn run(&mut self, depth: usize) -> Result<(), String> {
        loop {
            self.add_arrivals();
            if self.steps.len() as u64 + self.flights.len() as u64 >= self.case.max_steps {
                return Err(format!("no end after {} steps", self.case.max_steps));
            }
            let has_work = self.scheduler.running() + self.scheduler.waiting() > 0;
            let batch = if has_work { self.schedule()? } else { None };
            let is_empty = batch.as_ref().is_none_or(|step| step.scheduled.is_empty());
            let is_nothing = batch.is_none();
            if has_work {
                self.flights.push_back(batch);
            }
            if !is_empty && self.flights.len() < depth {
                continue;
            }
            match self.flights.pop_front() {
                Some(Some(step)) => self.process(step),
                _ if is_nothing && self.flights.is_empty() => {
                    let Some(request) = self.case.requests.get(self.next_arrival) else {
                        return Ok(());
                    };
                    self.now = self.now.max(request.arrival_ns);
                }
                _ => {}
            }
        }
    }

    fn add_arrivals(&mut self) {
        let max_model_len = self.scheduler.config().max_model_len;
        while let Some(request) = self.case.requests.get(self.next_arrival) {
            if request.arrival_ns > self.now {
                return;
            }
            let id = self.next_arrival as u32;
            if request.prompt_len() >= max_model_len {
                self.requests[self.next_arrival].rejected = Some("prompt_len".to_owned());
                self.requests[self.next_arrival].cached_tokens = None;
            } else {
                self.stop_coasting();
                let arrival = Time::from_ns(request.arrival_ns);
                self.scheduler.submit(RequestId(id), arrival);
                if let Some(shadow) = &mut self.shadow {
                    shadow.submitted.push((RequestId(id), arrival));
                }
            }
            self.next_arrival += 1;
        }
    }

    fn stop_coasting(&mut self) {
        self.scheduler.stop_coasting();
        if let Some(shadow) = &mut self.shadow {
            shadow.stops = true;
        }
    }

    /// The next batch, or `None` if there is nothing to write down about it.
    fn schedule(&mut self) -> Result<Option<Step>, String> {
        if self.mode == Mode::Stepping {
            self.scheduler.stop_coasting();
        }
        let (plan, coasted) = if self.scheduler.coast_on() {
            self.coasted += 1;
            let plan = self.scheduler.newest().expect("a coast is a plan").clone();
            (Some(plan), self.scheduler.newest_coasted_steps())
        } else {
            let plan = self.scheduler.plan().cloned();
            if let Some(shadow) = &mut self.shadow {
                shadow
                    .plan(plan.as_ref(), &self.scheduler)
                    .map_err(|what| format!("step {}: {what}", self.steps.len()))?;
            }
            (plan, 0)
        };
        Ok(plan.map(|plan| self.begin(&plan, coasted)))
    }

    /// The record of a batch as far as it is known when it is scheduled.
    fn begin(&mut self, plan: &StepPlan, coasted: u32) -> Step {
        let start_ns = self.now.max(self.busy_until);
        let scheduled: Vec<(u32, u32, u32)> = plan
            .scheduled
            .iter()
            .map(|part| {
                (
                    part.request.0,
                    part.new_tokens,
                    part.computed_before + coasted,
                )
            })
            .collect();
        let is_first = coasted == 0;
        let admitted: Vec<(u32, u32, u32)> = plan
            .admitted
            .iter()
            .filter(|_| is_first)
            .map(|admitted| {
                (
                    admitted.request.0,
                    admitted.hit_tokens,
                    u32::from(admitted.is_resumed),
                )
            })
            .collect();
        let preempted: Vec<u32> = plan
            .preempted
            .iter()
            .filter(|_| is_first)
            .map(|request| request.0)
            .collect();
        for &(id, hit_tokens, is_resumed) in &admitted {
            let line = &mut self.requests[id as usize];
            if is_resumed == 0 {
                line.cached_tokens = Some(u64::from(hit_tokens));
                line.first_sched_ns = Some(start_ns);
                self.cached_tokens += u64::from(hit_tokens);
            }
        }
        for &id in &preempted {
            self.requests[id as usize].num_preemptions += 1;
        }
        let end_ns = start_ns + duration(self.case.step_time, &scheduled);
        self.busy_until = end_ns;
        Step {
            step: (self.steps.len() + self.flights.iter().flatten().count()) as u64,
            sched_ns: self.now,
            start_ns,
            end_ns,
            sampled: plan
                .scheduled
                .iter()
                .filter(|part| part.samples)
                .map(|part| part.request.0)
                .collect(),
            scheduled,
            admitted,
            preempted,
            finished: Vec::new(),
            n_running: self.scheduler.running() as u64,
            n_waiting: self.scheduler.waiting() as u64,
            free_after_sched: u64::from(self.scheduler.cache().free_blocks()),
            free_blocks: 0,
            cached_hashes: 0,
            n_stored: 0,
            n_removed: 0,
            tables: self.has_detail.then(|| {
                let table = |part| self.scheduler.block_table(part);
                plan.scheduled
                    .iter()
                    .map(|part| (part.request.0, table(part)))
                    .collect()
            }),
            free_queue: None,
            events: None,
        }
    }

    /// The output of a batch arrives.
    fn process(&mut self, mut step: Step) {
        self.now = self.now.max(step.end_ns);
        if !step.scheduled.is_empty() {
            let mut ended = Vec::new();
            self.scheduler.finish(1, &mut ended);
            if let Some(shadow) = &mut self.shadow {
                shadow.finished += 1;
            }
            step.finished = ended.iter().map(|request| request.0).collect();
        }
        for &id in &step.sampled {
            let line = &mut self.requests[id as usize];
            line.n_output += 1;
            line.first_token_ns.get_or_insert(step.end_ns);
        }
        for &id in &step.finished {
            let line = &mut self.requests[id as usize];
            line.finish_ns = Some(step.end_ns);
            line.finish_reason = Some("length".to_owned());
        }
        let cache = self.scheduler.cache();
        let (stored, removed) = cache.stored_and_removed();
        step.free_blocks = u64::from(cache.free_blocks());
        step.cached_hashes = cache.distinct_blocks();
        step.n_stored = stored - self.counted.0;
        step.n_removed = removed - self.counted.1;
        self.counted = (stored, removed);
        if self.has_detail {
            step.free_queue = Some(cache.free_queue());
            let mut events = Vec::new();
            self.scheduler.drain_events(&mut events);
            let block_size = self.scheduler.config().block_size;
            step.events = Some(
                self.names
                    .translate(&self.workload.tree, block_size, &events),
            );
        }
        self.steps.push(step);
    }

    fn finish(self) -> Outcome {
        let stuck: Vec<u32> = (0..self.requests.len())
            .filter(|&id| {
                self.requests[id].rejected.is_none() && self.requests[id].finish_ns.is_none()
            })
            .map(|id| id as u32)
            .collect();
        let end = End {
            steps: self.steps.len() as u64,
            end_ns: self.now,
            stuck,
            truncated: false,
            preemptions: self.requests.iter().map(|line| line.num_preemptions).sum(),
            cached_tokens: self.cached_tokens,
            prompt_tokens: self
                .case
                .requests
                .iter()
                .map(|request| u64::from(request.prompt_len()))
                .sum(),
        };
        Outcome {
            steps: self.steps,
            requests: self.requests,
            end,
            coasted: self.coasted,
        }
    }
}

/// A second scheduler that takes each coast in one go.
struct Shadow {
    scheduler: Scheduler,
    submitted: Vec<(RequestId, Time)>,
    /// Steps that ended since the last plan.
    finished: u32,
    /// Whether the coast in flight was stopped since the last plan.
    stops: bool,
    /// Steps that each plan in flight may still deliver.
    flights: VecDeque<u32>,
}

impl Shadow {
    fn new(scheduler: Scheduler) -> Self {
        Shadow {
            scheduler,
            submitted: Vec::new(),
            finished: 0,
            stops: false,
            flights: VecDeque::new(),
        }
    }

    /// Catches up with the steps since the last plan, plans, and compares.
    fn plan(&mut self, expected: Option<&StepPlan>, exact: &Scheduler) -> Result<(), String> {
        let mut ended = Vec::new();
        while self.finished > 0 {
            let left = self
                .flights
                .front_mut()
                .expect("steps end only while plans are in flight");
            let steps = self.finished.min(*left);
            self.scheduler.finish(steps, &mut ended);
            *left -= steps;
            self.finished -= steps;
            if *left == 0 {
                self.flights.pop_front();
            }
        }
        if std::mem::take(&mut self.stops) {
            let before = self.scheduler.steps_in_flight();
            self.scheduler.stop_coasting();
            self.flights = self.shrink(before);
        }
        for (request, arrival) in self.submitted.drain(..) {
            self.scheduler.submit(request, arrival);
        }
        let plan = self.scheduler.plan();
        if plan != expected {
            return Err(format!(
                "after a coast in one go the next plan is {plan:?}, after single steps {expected:?}"
            ));
        }
        if let Some(plan) = plan.filter(|plan| !plan.scheduled.is_empty()) {
            self.flights.push_back(plan.up_to);
        }
        let (mine, theirs) = (
            self.scheduler.cache().fingerprint(),
            exact.cache().fingerprint(),
        );
        if mine != theirs || self.scheduler.peak_blocks() != exact.peak_blocks() {
            return Err(format!(
                "after a coast in one go the cache is {mine:?}, after single steps {theirs:?}"
            ));
        }
        Ok(())
    }

    /// What the plans in flight may deliver once the newest may not go on: each what it has in flight, in all `total`.
    fn shrink(&self, total: u32) -> VecDeque<u32> {
        match self.flights.len() {
            0 => VecDeque::new(),
            1 if total == 0 => VecDeque::new(),
            1 => VecDeque::from([total]),
            _ => VecDeque::from([1, total - 1]),
        }
    }
}

/// Hashes are named 0, 1, 2, ... by first appearance in the events.
#[derive(Default)]
struct BlockNames {
    names: HashMap<(NodeId, u32), u64>,
}

impl BlockNames {
    fn name(&mut self, node: NodeId, block: u32) -> u64 {
        let next = self.names.len() as u64;
        *self.names.entry((node, block)).or_insert(next)
    }

    fn translate(&mut self, tree: &PrefixTree, block_size: u32, events: &[KvEvent]) -> Vec<Value> {
        let mut lines: Vec<Value> = Vec::new();
        for event in events {
            match *event {
                KvEvent::Stored {
                    node,
                    lo,
                    hi,
                    continues,
                } => {
                    let parent = match lo.checked_sub(1) {
                        None => json!(-1),
                        Some(block) => {
                            let mut holder = node;
                            while tree.start(holder) / block_size > block {
                                holder = tree.parent(holder);
                            }
                            json!(self.name(holder, block))
                        }
                    };
                    let names: Vec<Value> = (lo..hi)
                        .map(|block| json!(self.name(node, block)))
                        .collect();
                    match lines.last_mut().filter(|_| continues) {
                        Some(line) => line[2]
                            .as_array_mut()
                            .expect("a stored event lists blocks")
                            .extend(names),
                        None => lines.push(json!(["S", parent, names])),
                    }
                }
                KvEvent::Removed { node, lo, hi } => {
                    lines.extend(
                        (lo..hi)
                            .rev()
                            .map(|block| json!(["R", [self.name(node, block)]])),
                    );
                }
            }
        }
        lines
    }
}

/// A batch without sequences takes no time.
pub fn duration(time: LinearTime, scheduled: &[(u32, u32, u32)]) -> u64 {
    if scheduled.is_empty() {
        return 0;
    }
    let new: u64 = scheduled.iter().map(|&(_, new, _)| u64::from(new)).sum();
    let before: u64 = scheduled
        .iter()
        .map(|&(_, _, before)| u64::from(before))
        .sum();
    time.a + time.b * new + time.c * (before + new)
}

fn blank_line(id: u32) -> RequestLine {
    RequestLine {
        id,
        first_sched_ns: None,
        first_token_ns: None,
        finish_ns: None,
        num_preemptions: 0,
        cached_tokens: None,
        n_output: 0,
        finish_reason: None,
        rejected: None,
    }
}
