//! Runs a recorded case through our SGLang scheduler, in the loop in which it was recorded, and notes the same things.

use super::super::case::{Case, CaseRequest};
use super::super::replay::{Mode, duration};
use super::recording::{End, Recording, RequestLine, Step, nine_digits};
use engine::sglang::Scheduler;
use engine::{RequestId, StepPlan, Workload};
use std::sync::Arc;

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
    let workload = case.workload()?;
    let line = |id| RequestLine {
        id,
        ..RequestLine::default()
    };
    let requests = (0..workload.requests.len() as u32).map(line).collect();
    refuse_impossible(&workload, recording)?;
    let mut replay = Replay {
        case,
        scheduler: Scheduler::new(
            recording.config.clone(),
            Arc::new(workload),
            Default::default(),
        ),
        mode,
        now: 0,
        next_arrival: 0,
        steps: Vec::new(),
        requests,
        coasted: 0,
    };
    while let Some(step) = replay.step() {
        if replay.steps.len() as u64 >= case.max_steps {
            return Err(format!("no end after {} steps", case.max_steps));
        }
        replay.steps.push(step);
    }
    Ok(replay.finish())
}

fn refuse_impossible(workload: &Workload, recording: &Recording) -> Result<(), String> {
    let config = &recording.config;
    let impossible = |request: &engine::Request| {
        let goal = config.output_goal(request.input_tokens, request.output_tokens);
        goal == 0 || !config.can_admit(request.input_tokens, goal)
    };
    match workload.requests.iter().position(impossible) {
        Some(index) => Err(format!("request {index} can never be admitted")),
        None => Ok(()),
    }
}

struct Replay<'a> {
    case: &'a Case,
    scheduler: Scheduler,
    mode: Mode,
    now: u64,
    next_arrival: usize,
    steps: Vec<Step>,
    requests: Vec<RequestLine>,
    coasted: u64,
}

impl Replay<'_> {
    /// The recorder's loop: add arrivals, schedule, let time pass, process; with nothing to run, wait for an arrival.
    fn step(&mut self) -> Option<Step> {
        loop {
            self.add_arrivals();
            if self.mode == Mode::Stepping {
                self.scheduler.stop_coasting();
            }
            let goes_on = self.scheduler.coast_on();
            self.coasted += u64::from(goes_on);
            if goes_on || self.scheduler.plan().is_some() {
                break;
            }
            self.now = self.case.requests.get(self.next_arrival)?.arrival_ns;
        }
        let plan = self
            .scheduler
            .newest()
            .expect("it was just planned")
            .clone();
        let mut step = self.begin(&plan);
        self.process(&mut step);
        Some(step)
    }

    fn add_arrivals(&mut self) {
        let is_due = |request: &CaseRequest| request.arrival_ns <= self.now;
        while self
            .case
            .requests
            .get(self.next_arrival)
            .is_some_and(is_due)
        {
            self.scheduler.stop_coasting();
            self.scheduler.submit(RequestId(self.next_arrival as u32));
            self.next_arrival += 1;
        }
    }

    /// The record of a step as far as it is known when it is planned.
    fn begin(&mut self, plan: &StepPlan) -> Step {
        let coasted = self.scheduler.newest_coasted_steps();
        let rows: Vec<(u32, u32, u32)> = plan
            .scheduled
            .iter()
            .map(|part| {
                let before = part.computed_before + coasted;
                (part.request.0, part.new_tokens, before)
            })
            .collect();
        let is_first = coasted == 0;
        for admitted in plan.admitted.iter().filter(|_| is_first) {
            if !admitted.is_resumed {
                self.requests[admitted.request.0 as usize].cached_tokens =
                    u64::from(admitted.hit_tokens);
            }
        }
        let retracted: Vec<u32> = plan
            .preempted
            .iter()
            .filter(|_| is_first)
            .map(|request| request.0)
            .collect();
        for &id in &retracted {
            self.requests[id as usize].retractions += 1;
        }
        let mode = match (plan.prefill.is_empty(), plan.decode_batch) {
            (true, _) => "decode",
            (false, 0) => "extend",
            (false, _) => "mixed",
        };
        let pool = self.scheduler.pool();
        Step {
            step: self.steps.len() as u64,
            mode: mode.to_owned(),
            start_ns: self.now,
            end_ns: self.now + duration(self.case.step_time, &rows),
            rows,
            chunked: self.scheduler.chunked_request().map(|request| request.0),
            retracted,
            aborted: Vec::new(),
            waiting: self
                .scheduler
                .waiting_requests()
                .map(|request| request.0)
                .collect(),
            avail_after_sched: u64::from(pool.free_tokens()),
            evictable_after_sched: u64::from(pool.evictable_tokens()),
            new_token_ratio: nine_digits(self.scheduler.new_token_ratio()),
            finished: Vec::new(),
            avail: 0,
            evictable: 0,
            tree_tokens: 0,
        }
    }

    /// The step's outputs arrive.
    fn process(&mut self, step: &mut Step) {
        self.now = step.end_ns;
        let mut ended = Vec::new();
        self.scheduler.finish(1, &mut ended);
        step.finished = ended.iter().map(|request| request.0).collect();
        let pool = self.scheduler.pool();
        step.avail = u64::from(pool.free_tokens());
        step.evictable = u64::from(pool.evictable_tokens());
        step.tree_tokens = u64::from(pool.cached_tokens());
        let samples = |row: &&(u32, u32, u32)| step.chunked != Some(row.0);
        for &(id, _, _) in step.rows.iter().filter(samples) {
            let line = &mut self.requests[id as usize];
            line.n_output += 1;
            line.first_token_ns.get_or_insert(step.end_ns);
        }
        for &id in &step.finished {
            self.requests[id as usize].finish_ns = Some(step.end_ns);
        }
    }

    fn finish(self) -> Outcome {
        let is_stuck = |line: &&RequestLine| line.finish_ns.is_none();
        let end = End {
            steps: self.steps.len() as u64,
            end_ns: self.now,
            stuck: self
                .requests
                .iter()
                .filter(is_stuck)
                .map(|line| line.id)
                .collect(),
            retractions: self.requests.iter().map(|line| line.retractions).sum(),
            cached_tokens: self.requests.iter().map(|line| line.cached_tokens).sum(),
        };
        Outcome {
            steps: self.steps,
            requests: self.requests,
            end,
            coasted: self.coasted,
        }
    }
}
