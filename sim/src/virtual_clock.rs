//! The virtual driver: pops events in order, asks a timing model how long steps take, and skips the time between.
//!
//! Each worker is a *lane* of plans that run one behind the other. The plan in front is priced in segments: runs of
//! steps whose durations form an arithmetic progression (one step with prefill, or decode steps within one linear piece
//! of the timing model). The end of a segment is one event, however many steps it covers. A cut shortens the segment
//! to the step boundary at which the scheduler would have seen what caused it. Ends move often and each worker has one at
//! most, so they stand in a [tournament](crate::router::min_tree) instead of the queue.
//!
//! What a segment costs stands in `pricing.rs`. In a pipeline plans overlap: each ends when it has passed all stages
//! (`pipeline.rs`). Ranks that step together share the lane of the first: a step takes what the slowest takes for its own
//! tokens, and what all compute together.

mod disturbed;
mod reports;

mod look_ahead;
mod regret;

pub use regret::{Decision, Sample, Taken, run_with_regret};

use crate::cluster::Cluster;
use crate::event::{Action, Event, EventQueue, Ran, WorkerId, sum_of_steps};
use crate::pipeline::Pipeline;
use crate::pricing::{Line, Shape, upper_edge};
use crate::record::Recording;
use crate::router::min_tree::MinTree;
use disturbed::Disturbed;
use engine::{HostCopies, Span, StepPlan, StepTime, Time};
use reports::Reports;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

/// Runs a cluster to the end; `timing` holds one model per pool.
#[must_use]
pub fn run(cluster: Cluster, timing: &[Arc<dyn StepTime>]) -> Recording {
    run_observed(cluster, timing, |_, _, _| {})
}

/// The same, calling `observe` with every event and the actions it led to.
pub fn run_observed(
    mut cluster: Cluster,
    timing: &[Arc<dyn StepTime>],
    mut observe: impl FnMut(Time, Event, &[Action]),
) -> Recording {
    let mut driver = Driver::new(&cluster, timing);
    let mut actions = Vec::new();
    cluster.start(&mut actions);
    driver.perform(Time::ZERO, &mut actions, &cluster);
    let looks_ahead = cluster.wants_advice();
    while let Some((now, event)) = driver.next(&cluster) {
        if looks_ahead {
            look_ahead::advise(&mut cluster, &driver, now, event);
        }
        cluster.handle(now, event, &mut actions);
        observe(now, event, &actions);
        driver.perform(now, &mut actions, &cluster);
    }
    let mut recording = cluster.finish();
    for (worker, lane) in recording.workers.iter_mut().zip(&driver.lanes) {
        worker.extrapolated = lane.extrapolated;
    }
    recording
}

/// The event queue and the lanes.
#[derive(Clone)]
struct Driver<'a> {
    timing: Vec<&'a dyn StepTime>,
    lanes: Vec<Lane>,
    queue: EventQueue<Entry>,
    /// Workers that plan at the instant at which that was asked for, which is the common case, and when. There may be two
    /// instants: steps that ended earlier are reported before an arrival.
    woken: BinaryHeap<Reverse<(Time, u32)>>,
    /// By worker, when its segment ends; `Time::MAX` without one.
    ends: MinTree<Time>,
    reports: Reports,
    /// By worker: whether the cluster wants to know when its steps begin.
    announced: Vec<bool>,
}

/// What stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Links,
    Fault,
    Patience,
    Worker,
    Arrival,
    Received,
    Plan,
    Began,
    Tick,
    Update,
}

/// The plans of one worker, the one that runs in front.
#[derive(Debug, Default, Clone)]
struct Lane {
    plans: VecDeque<Queued>,
    /// What further ranks do in the plan in front, where ranks step together.
    beside: Vec<Shape>,
    /// What all ranks compute together in a step of the plan in front.
    together: Span,
    pipeline: Option<Pipeline>,
    /// The front plan's steps up to the next report.
    segment: Option<Segment>,
    /// Time of the steps that ended and were priced beyond the measurements.
    extrapolated: Span,
    /// What is wrong with the worker, if anything.
    disturbed: Option<Disturbed>,
}

/// A plan with what is left of it.
#[derive(Debug, Clone, Copy)]
struct Queued {
    /// Steps it may still take.
    left: u32,
    ahead: u32,
    shape: Shape,
    /// When it entered the pipeline, if there is one.
    entered: Option<Time>,
    /// Whether a step of it has ended.
    has_run: bool,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    start: Time,
    first: Span,
    slope_ps: i64,
    steps: u32,
    is_extrapolated: bool,
}

impl Lane {
    fn stages(&self) -> u64 {
        self.pipeline.as_ref().map_or(1, Pipeline::stages)
    }
}

impl Segment {
    fn end_of(&self, steps: u32) -> Time {
        self.start + sum_of_steps(self.first, self.slope_ps, steps)
    }

    /// The number of steps that have ended by `now`.
    fn ended_by(&self, now: Time) -> u32 {
        let (mut ended, mut beyond) = (0, self.steps + 1);
        while beyond - ended > 1 {
            let middle = ended + (beyond - ended) / 2;
            if self.end_of(middle) <= now {
                ended = middle;
            } else {
                beyond = middle;
            }
        }
        ended
    }
}

impl<'a> Driver<'a> {
    fn new(cluster: &Cluster, timing: &'a [Arc<dyn StepTime>]) -> Self {
        let timing = cluster
            .workers()
            .iter()
            .map(|worker| &*timing[worker.pool()])
            .collect();
        let lanes = cluster.workers().iter().map(|worker| {
            let stages = cluster.pools()[worker.pool()].engine.stages();
            Lane {
                pipeline: (stages > 1).then(|| Pipeline::new(stages)),
                ..Lane::default()
            }
        });
        let lanes = lanes.collect();
        Driver {
            timing,
            lanes,
            queue: EventQueue::new(),
            woken: BinaryHeap::new(),
            ends: MinTree::of(&vec![Time::MAX; cluster.workers().len()]),
            reports: Reports::new(cluster),
            announced: (cluster.workers().iter())
                .map(|worker| cluster.wants_beginnings(worker.id()))
                .collect(),
        }
    }

    /// The next event. Before an arrival that will be routed by what happened inside steps, all steps that have ended
    /// by then are reported.
    fn next(&mut self, cluster: &Cluster) -> Option<(Time, Event)> {
        loop {
            let end = self.ends.least().load;
            let queued = self.queue.peek().map(|Reverse(queued)| *queued);
            let due = queued.map_or(Time::MAX, |(time, ..)| time);
            if let Some(&Reverse((now, id))) = self.woken.peek() {
                let event = Event::Plan {
                    worker: WorkerId(id),
                };
                let is_next =
                    queued.is_none_or(|(at, order, _)| (at, order) > (now, event.order()));
                if now < end && is_next {
                    self.woken.pop();
                    return Some((now, event));
                }
            }
            // At one instant the ends of segments come first.
            if end <= due && end < Time::MAX {
                let worker = WorkerId(self.ends.nth_least(0) as u32);
                return Some((end, Event::Ran(self.end_segment(worker))));
            }
            let (now, (_, id), entry) = queued?;
            let is_routed = matches!(entry, Entry::Arrival | Entry::Received);
            if is_routed && self.report_steps_until(now, cluster) {
                continue;
            }
            let looks = match entry {
                Entry::Fault | Entry::Tick => true,
                Entry::Patience => {
                    let worker = cluster.worker_of_client(engine::RequestId(id));
                    if worker.is_some_and(|worker| self.report_until(now, worker)) {
                        continue;
                    }
                    false
                }
                Entry::Arrival => cluster.looks_at_blocks(),
                _ => false,
            };
            if looks && self.report_all_until(now) {
                continue;
            }
            self.queue.pop();
            let event = match entry {
                Entry::Links => Event::Links,
                Entry::Fault => Event::Fault { end: id },
                Entry::Patience => Event::Patience {
                    request: engine::RequestId(id),
                },
                Entry::Worker => Event::Worker {
                    worker: WorkerId(id),
                },
                Entry::Arrival => Event::Arrival {
                    request: engine::RequestId(id),
                },
                Entry::Received => Event::Received {
                    request: engine::RequestId(id),
                },
                Entry::Plan => Event::Plan {
                    worker: WorkerId(id),
                },
                Entry::Began => {
                    let segment = self.lanes[id as usize].segment;
                    let Some(segment) = segment.filter(|it| it.start == now) else {
                        // Its worker crashed at this instant.
                        continue;
                    };
                    Event::Began {
                        worker: WorkerId(id),
                        lasts: segment.first,
                    }
                }
                Entry::Tick => Event::Tick,
                Entry::Update => Event::Update,
            };
            return Some((now, event));
        }
    }

    fn push(&mut self, time: Time, event: &Event, entry: Entry) {
        self.queue.push(Reverse((time, event.order(), entry)));
    }

    /// Does what the cluster asked for.
    fn perform(&mut self, now: Time, actions: &mut Vec<Action>, cluster: &Cluster) {
        // Not by draining: at most a few plain values stand here, after every event.
        for &action in actions.iter() {
            match action {
                Action::At {
                    time,
                    event: Event::Plan { worker },
                } if time == now => {
                    self.woken.push(Reverse((now, worker.0)));
                }
                Action::At { time, event } => {
                    let entry = match event {
                        Event::Links => Entry::Links,
                        Event::Fault { .. } => Entry::Fault,
                        Event::Patience { .. } => Entry::Patience,
                        Event::Worker { .. } => Entry::Worker,
                        Event::Arrival { .. } => Entry::Arrival,
                        Event::Received { .. } => Entry::Received,
                        Event::Plan { .. } => Entry::Plan,
                        Event::Tick => Entry::Tick,
                        Event::Update => Entry::Update,
                        Event::Ran(_) | Event::Began { .. } => {
                            unreachable!("only the driver runs steps")
                        }
                    };
                    self.push(time, &event, entry);
                }
                Action::Run {
                    worker,
                    up_to,
                    ahead,
                } => {
                    self.reports.look_again(worker);
                    self.queue(worker, (up_to, ahead), now, cluster);
                    if self.lanes[worker.0 as usize].segment.is_none() {
                        self.begin_segment(worker, now);
                    }
                }
                Action::Cut { worker } => self.cut(worker, now),
                Action::Disturb { worker, how } => self.disturb(worker, now, how),
            }
        }
        actions.clear();
    }

    /// A plan to be run. Of ranks that step together one lane runs the plans of all.
    fn queue(
        &mut self,
        worker: WorkerId,
        (up_to, ahead): (u32, u32),
        now: Time,
        cluster: &Cluster,
    ) {
        let timing = self.timing[worker.0 as usize];
        let lane = &mut self.lanes[worker.0 as usize];
        let ranks = cluster.ranks_of(worker);
        let mut plans = ranks.iter().filter_map(|rank| rank.scheduler().newest());
        let plan = plans.next().expect("a plan is to be run");
        let mut queued = Queued {
            left: up_to,
            ahead,
            shape: Shape::of(plan, timing),
            entered: None,
            has_run: false,
        };
        if plan.copies != HostCopies::default() {
            let line = queued.shape.line(timing);
            let time = cluster.with_copies(worker, plan, line.first);
            queued.shape = Shape::Mixed(time, line.is_extrapolated);
        }
        if let Some(pipeline) = &mut lane.pipeline {
            let shape = plan.shape();
            let tokens = plan.prefill_tokens() + u64::from(shape.decode_batch);
            let Line {
                first,
                is_extrapolated,
                ..
            } = queued.shape.line(timing);
            let (entered, left) = pipeline.pass(now, first, timing.hop(tokens));
            queued.entered = Some(entered);
            queued.shape = Shape::Mixed(left.since(entered), is_extrapolated);
        }
        lane.beside.clear();
        if ranks.len() > 1 {
            // Ranks have one plan at a time, and decodes go on with as many tokens.
            let computed =
                |plan: &StepPlan| plan.prefill_tokens() + u64::from(plan.shape().decode_batch);
            let mut tokens = computed(plan);
            for plan in plans {
                tokens += computed(plan);
                lane.beside.push(Shape::of(plan, timing));
            }
            lane.together = timing.together(tokens);
        }
        lane.plans.push_back(queued);
    }

    /// Prices the front plan's next steps and enters their end into the queue.
    fn begin_segment(&mut self, worker: WorkerId, start: Time) {
        self.reports.look_again(worker);
        let lane = &mut self.lanes[worker.0 as usize];
        lane.segment = None;
        let Some(plan) = lane.plans.front() else {
            self.ends.set(worker.0 as usize, Time::MAX);
            return;
        };
        let timing = self.timing[worker.0 as usize];
        let mut line = plan.shape.line(timing);
        if !lane.beside.is_empty() {
            let mut lines: Vec<Line> = vec![line];
            lines.extend(lane.beside.iter().map(|shape| shape.line(timing)));
            line = upper_edge(&lines);
        }
        let mut segment = Segment {
            start: plan.entered.unwrap_or(start),
            first: line.first + lane.together,
            slope_ps: line.slope_ps,
            steps: line.steps,
            is_extrapolated: line.is_extrapolated,
        };
        // Reports fall due when at most `ahead` steps are left, then after each.
        let due = if plan.left > plan.ahead {
            plan.left - plan.ahead
        } else {
            1
        };
        segment.steps = segment.steps.min(due);
        if let Some(disturbed) = &lane.disturbed {
            disturbed.delay(&mut segment);
        }
        lane.segment = Some(segment);
        let (begins, first) = (segment.start, segment.first);
        self.enter_end(worker);
        if self.announced[worker.0 as usize] {
            let event = Event::Began {
                worker,
                lasts: first,
            };
            self.push(begins, &event, Entry::Began);
        }
    }

    fn enter_end(&mut self, worker: WorkerId) {
        let lane = &self.lanes[worker.0 as usize];
        let segment = lane.segment.expect("a segment runs");
        let end = segment.end_of(segment.steps);
        self.ends.set(worker.0 as usize, end);
    }

    /// Takes the finished segment off its lane and begins the next.
    fn end_segment(&mut self, worker: WorkerId) -> Ran {
        let lane = &mut self.lanes[worker.0 as usize];
        let Segment {
            start,
            first,
            slope_ps,
            steps,
            is_extrapolated,
        } = lane.segment.take().expect("a segment runs");
        let ran = Ran {
            worker,
            steps,
            start,
            first,
            slope_ps,
        };
        if is_extrapolated {
            let ranks = 1 + lane.beside.len() as u64;
            lane.extrapolated += Span(ran.total().0 * ranks / lane.stages());
        }
        let plan = lane.plans.front_mut().expect("a segment belongs to a plan");
        plan.left -= steps;
        plan.has_run = true;
        plan.shape.advance(steps);
        for shape in &mut lane.beside {
            shape.advance(steps);
        }
        if plan.left == 0 {
            lane.plans.pop_front();
        }
        self.begin_segment(worker, ran.end());
        ran
    }

    /// Lets the worker's plans take only the steps that its scheduler would have scheduled by now: the one that runs
    /// and those `ahead` of it in the front plan, one of a plan behind it.
    fn cut(&mut self, worker: WorkerId, now: Time) {
        let lane = &mut self.lanes[worker.0 as usize];
        let Some(segment) = &mut lane.segment else {
            return;
        };
        for plan in lane.plans.iter_mut().skip(1) {
            plan.left = 1;
        }
        let front = lane.plans.front_mut().expect("a segment belongs to a plan");
        let ended = segment.ended_by(now);
        let running = if segment.end_of(ended) == now {
            ended
        } else {
            ended + 1
        };
        // A plan runs one step at least, even if the cut comes at the instant it was made.
        let least = u32::from(!front.has_run);
        front.left = front.left.min((running + front.ahead).max(least));
        if front.left == 0 {
            lane.plans.pop_front();
            self.begin_segment(worker, now);
        } else if running < segment.steps {
            segment.steps = running.max(1);
            self.enter_end(worker);
        }
    }

    /// Shortens all segments to the steps that have ended by `now`, for who looks at every worker. True if there are any.
    fn report_all_until(&mut self, now: Time) -> bool {
        let mut any = false;
        for worker in 0..self.lanes.len() {
            any |= self.report_until(now, WorkerId(worker as u32));
        }
        any
    }

    fn report_until(&mut self, now: Time, worker: WorkerId) -> bool {
        let Some(segment) = &mut self.lanes[worker.0 as usize].segment else {
            return false;
        };
        let ended = segment.ended_by(now);
        let has_news = (1..segment.steps).contains(&ended);
        if has_news {
            segment.steps = ended;
            self.enter_end(worker);
        }
        has_news
    }

    /// Shortens the segments of workers with news to the steps that have ended by `now`. True if there are any.
    fn report_steps_until(&mut self, now: Time, cluster: &Cluster) -> bool {
        let mut with_news = std::mem::take(&mut self.reports.with_news);
        self.reports.find(now, &self.lanes, cluster, &mut with_news);
        let mut any = false;
        for worker in with_news.drain(..) {
            any |= self.report_until(now, worker);
        }
        self.reports.with_news = with_news;
        any
    }
}
