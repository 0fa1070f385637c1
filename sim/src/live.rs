//! The live driver: the same cluster on the real clock.
//!
//! Everything that is due when the loop looks at the clock counts as one instant and is handled in the order of
//! [`Event::order`]; the cluster cannot tell this driver from the virtual one. A worker executes one step after the other:
//! either a task that sleeps for the modelled time, divided by `speedup` (`tasks.rs`), or a thread of its own with an
//! [`Executor`] that computes what was planned (`threads.rs`). Timers and messages run under tokio on the thread of the
//! driver. All times are simulated ones: real time since the start times `speedup`, on a monotonic clock, so that a clock
//! that is set meanwhile changes nothing.
//!
//! A run that is stopped, or whose worker gives up, ends at once with what happened so far in its books.

mod tasks;
mod threads;

use threads::Computed;
pub use threads::RealStep;

use crate::cluster::Cluster;
use crate::event::{Action, Event, EventQueue, Order, Ran, WorkerId};
use crate::journal::{Entry, Journal};
use crate::record::{Outcome, Recording};
use engine::{Batch, Executor, Span, StepTime, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Why nothing breaks here.
const NO_FAULTS: &str = "a real clock cannot break workers at will";

/// What a live run leaves behind.
#[derive(Debug)]
pub struct LiveRun {
    /// The books.
    pub recording: Recording,
    /// Every event and action.
    pub journal: Journal,
    /// How it ended.
    pub end: LiveEnd,
    /// The steps that were computed, in the order in which they ended; empty where workers only slept.
    pub steps: Vec<RealStep>,
    /// How late the driver was for each timer that rang (arrivals, mostly).
    pub late: Vec<Span>,
}

/// How a live run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveEnd {
    /// Nothing was left to happen.
    Complete,
    /// Somebody stopped it.
    Stopped,
    /// A worker gave up.
    Failed {
        /// Which.
        worker: WorkerId,
        /// Why, in words.
        why: String,
    },
}

/// Stops a live run from elsewhere.
#[derive(Debug, Clone)]
pub struct Stopper(UnboundedSender<()>);

/// The other end of a [`Stopper`].
#[derive(Debug)]
pub struct StopSignal(UnboundedReceiver<()>);

impl Stopper {
    /// Ends the run; steps that are being computed are not waited for.
    pub fn stop(&self) {
        // A run that is over cannot be stopped.
        let _ = self.0.send(());
    }
}

/// A way to stop a run.
#[must_use]
pub fn stopper() -> (Stopper, StopSignal) {
    let (send, receive) = unbounded_channel();
    (Stopper(send), StopSignal(receive))
}

/// Runs a cluster on the real clock; `timing` holds one model per pool, whose times the workers sleep. The cluster must
/// not coast.
///
/// # Errors
/// If the system refuses timers.
pub fn run(cluster: Cluster, timing: &[Arc<dyn StepTime>], speedup: f64) -> io::Result<LiveRun> {
    assert!(speedup > 0.0, "time goes forward");
    let (_stopper, signal) = stopper();
    block_on(async {
        let clock = Clock::new(speedup);
        let (send, ended) = unbounded_channel();
        let spawn = |id| Hand::Sleeps(tasks::spawn(id, clock, send.clone()));
        let workers = (0..cluster.workers().len()).map(spawn).collect();
        Driver::new(clock, workers, ended)
            .serve(cluster, timing, signal)
            .await
    })
}

/// Runs a cluster for real: one executor per worker, each on a thread of its own. The cluster must not coast, and must keep
/// block ids.
///
/// # Errors
/// If the system refuses timers or threads.
pub fn run_executors(
    cluster: Cluster,
    executors: Vec<Box<dyn Executor>>,
    signal: StopSignal,
) -> io::Result<LiveRun> {
    assert!(
        executors.len() == cluster.workers().len(),
        "every worker has an executor"
    );
    let clock = Clock::new(1.0);
    let (send, ended) = unbounded_channel();
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    for (id, executor) in executors.into_iter().enumerate() {
        let (jobs, thread) = threads::spawn(id, clock, executor, send.clone())?;
        workers.push(Hand::Computes(jobs));
        threads.push(thread);
    }
    let run = block_on(Driver::new(clock, workers, ended).serve(cluster, &[], signal))?;
    if run.end == LiveEnd::Complete {
        // Nobody has work: they end at once.
        for thread in threads {
            thread
                .join()
                .expect("a worker's thread reports what goes wrong");
        }
    }
    Ok(run)
}

fn block_on(run: impl Future<Output = LiveRun>) -> io::Result<LiveRun> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, run))
}

/// Real time as simulated time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    speedup: f64,
}

impl Clock {
    fn new(speedup: f64) -> Clock {
        Clock {
            start: Instant::now(),
            speedup,
        }
    }

    fn now(&self) -> Time {
        Time(Span::from_s(self.start.elapsed().as_secs_f64() * self.speedup).0)
    }

    async fn sleep_until(&self, time: Time) {
        let at = self.start + Duration::from_secs_f64(time.as_s() / self.speedup);
        tokio::time::sleep_until(at.into()).await;
    }
}

/// How a worker gets its steps.
enum Hand {
    /// When a step was handed over and how long it is slept.
    Sleeps(UnboundedSender<(Time, Span)>),
    /// When a batch was handed over, and the batch.
    Computes(mpsc::Sender<(Time, Batch)>),
}

/// What a worker says at the end of a step.
struct Ended {
    ran: Ran,
    /// How it was computed; nothing where it was slept.
    result: Result<Option<Computed>, String>,
}

struct Driver {
    clock: Clock,
    workers: Vec<Hand>,
    endings: UnboundedReceiver<Ended>,
    /// Ends of steps that came in and were not handled: of each worker one at an instant.
    heard: VecDeque<Ended>,
    timers: EventQueue<EventKey>,
    /// Events of this instant, by their order.
    due: BTreeMap<Order, Event>,
    /// By worker: shapes of the steps handed over and not ended.
    running: Vec<VecDeque<RealStep>>,
    /// By worker: when its last step ended, and when the driver heard of it.
    last_ends: Vec<(Time, Time)>,
    steps: Vec<RealStep>,
    late: Vec<Span>,
    end: Option<LiveEnd>,
}

/// What a timer stands for; its order says the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EventKey {
    Links,
    Patience,
    Worker,
    Arrival,
    Received,
    Plan,
    Tick,
    Update,
}

impl Driver {
    fn new(clock: Clock, workers: Vec<Hand>, endings: UnboundedReceiver<Ended>) -> Driver {
        Driver {
            clock,
            endings,
            heard: VecDeque::new(),
            timers: EventQueue::new(),
            due: BTreeMap::new(),
            running: workers.iter().map(|_| VecDeque::new()).collect(),
            last_ends: vec![(Time::ZERO, Time::ZERO); workers.len()],
            workers,
            steps: Vec::new(),
            late: Vec::new(),
            end: None,
        }
    }

    async fn serve(
        mut self,
        mut cluster: Cluster,
        timing: &[Arc<dyn StepTime>],
        mut signal: StopSignal,
    ) -> LiveRun {
        let mut journal = Journal::default();
        cluster.start(&mut journal.opening);
        self.perform(Time::ZERO, &journal.opening, &cluster, timing);
        loop {
            let now = self.gather();
            while let Some((_, event)) = self.due.pop_first() {
                let mut actions = Vec::new();
                cluster.handle(now, event, &mut actions);
                self.perform(now, &actions, &cluster, timing);
                journal.entries.push(Entry {
                    time: now,
                    event,
                    actions,
                });
            }
            if self.end.is_none() {
                self.wait(&mut signal).await;
            }
            if let Some(end) = self.end {
                let recording = cluster.finish();
                self.steps.shrink_to_fit();
                return LiveRun {
                    recording,
                    journal,
                    end,
                    steps: self.steps,
                    late: self.late,
                };
            }
        }
    }

    /// Looks at the clock and collects everything that is due.
    fn gather(&mut self) -> Time {
        while let Ok(ended) = self.endings.try_recv() {
            self.heard.push_back(ended);
        }
        let mut now = self.clock.now();
        let mut heard = Vec::new();
        // A worker plans between two ends of steps: of several that came in at once, each has an instant of its own.
        for ended in std::mem::take(&mut self.heard) {
            let event = Event::Ran(ended.ran);
            if self.due.contains_key(&event.order()) {
                self.heard.push_back(ended);
                continue;
            }
            now = now.max(ended.ran.end());
            if self.note_ended(&ended) {
                self.due.insert(event.order(), event);
            }
            heard.push(ended.ran);
        }
        for ran in heard {
            self.last_ends[ran.worker.0 as usize] = (ran.end(), now);
        }
        while let Some(&Reverse((time, order, key))) = self.timers.peek() {
            if time > now {
                break;
            }
            self.timers.pop();
            self.late.push(now.since(time));
            self.due.insert(order, event(order.1, key));
        }
        now
    }

    /// Enters an ended step; false if it was not computed.
    fn note_ended(&mut self, ended: &Ended) -> bool {
        let worker = ended.ran.worker;
        let step = self.running[worker.0 as usize].pop_front();
        let step = step.expect("only steps that were handed over end");
        match &ended.result {
            Ok(None) => true,
            Ok(Some(computed)) => {
                assert!(
                    computed.sampled == step.samples,
                    "each row that samples has its token"
                );
                let (last_end, _) = self.last_ends[worker.0 as usize];
                self.steps.push(RealStep {
                    handed_over: computed.handed_over,
                    ready: step.ready.max(last_end),
                    began: computed.began,
                    end: ended.ran.end(),
                    ..step
                });
                true
            }
            Err(why) => {
                self.fail(worker, why.clone());
                false
            }
        }
    }

    fn fail(&mut self, worker: WorkerId, why: String) {
        self.end.get_or_insert(LiveEnd::Failed { worker, why });
    }

    fn perform(
        &mut self,
        now: Time,
        actions: &[Action],
        cluster: &Cluster,
        timing: &[Arc<dyn StepTime>],
    ) {
        for action in actions {
            match *action {
                Action::At { time, event } if time <= now && now > Time::ZERO => {
                    self.due.insert(event.order(), event);
                }
                Action::At { time, event } => {
                    let key = match event {
                        Event::Links => EventKey::Links,
                        Event::Patience { .. } => EventKey::Patience,
                        Event::Fault { .. } => unreachable!("{NO_FAULTS}"),
                        Event::Worker { .. } => EventKey::Worker,
                        Event::Arrival { .. } => EventKey::Arrival,
                        Event::Received { .. } => EventKey::Received,
                        Event::Plan { .. } => EventKey::Plan,
                        Event::Tick => EventKey::Tick,
                        Event::Update => EventKey::Update,
                        Event::Ran(_) | Event::Began { .. } => {
                            unreachable!("only workers run steps")
                        }
                    };
                    self.timers.push(Reverse((time, event.order(), key)));
                }
                Action::Run { worker, up_to, .. } => {
                    assert!(up_to == 1, "a live cluster plans step by step");
                    self.hand_over(now, worker, cluster, timing);
                }
                // Nothing runs on unasked.
                Action::Cut { .. } => {}
                Action::Disturb { .. } => unreachable!("{NO_FAULTS}"),
            }
        }
    }

    /// Gives a worker its newest plan.
    fn hand_over(
        &mut self,
        now: Time,
        id: WorkerId,
        cluster: &Cluster,
        timing: &[Arc<dyn StepTime>],
    ) {
        let worker = &cluster.workers()[id.0 as usize];
        let plan = worker.scheduler().newest().expect("a plan is to be run");
        // Planned on an end of a step that came in at this instant, it was due at that end.
        let (last_end, heard) = self.last_ends[id.0 as usize];
        self.running[id.0 as usize].push_back(RealStep {
            ready: if heard == now { last_end } else { now },
            ..RealStep::planned(id, plan)
        });
        let is_there = match &self.workers[id.0 as usize] {
            Hand::Sleeps(steps) => {
                let time = timing[worker.pool()].step(&plan.shape());
                let time = cluster.with_copies(id, plan, time);
                steps.send((now, time)).is_ok()
            }
            Hand::Computes(batches) => {
                let scheduler = worker.scheduler().as_vllm();
                let scheduler = scheduler.expect("only vLLM's scheduler has block tables");
                batches.send((now, Batch::of(scheduler, plan))).is_ok()
            }
        };
        if !is_there {
            // What it died of may be on its way; if not, this is all there is to say.
            self.hear_why(id);
            self.fail(id, "its thread is gone".to_owned());
        }
    }

    fn hear_why(&mut self, id: WorkerId) {
        while let Ok(ended) = self.endings.try_recv() {
            self.heard.push_back(ended);
        }
        let why = self.heard.iter().find_map(|ended| match &ended.result {
            Err(why) if ended.ran.worker == id => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = why {
            self.fail(id, why);
        }
    }

    /// Waits until something is due, or ends the run if nothing ever will be.
    async fn wait(&mut self, signal: &mut StopSignal) {
        if !self.heard.is_empty() {
            return;
        }
        let is_running = self.running.iter().any(|steps| !steps.is_empty());
        let timer = self.timers.peek().map(|&Reverse((time, ..))| time);
        if !is_running && timer.is_none() {
            self.end = Some(LiveEnd::Complete);
            return;
        }
        let clock = self.clock;
        let alarm = async move {
            match timer {
                Some(time) => clock.sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(()) = signal.0.recv() => self.end = Some(LiveEnd::Stopped),
            Some(ended) = self.endings.recv() => self.heard.push_back(ended),
            () = alarm => {}
        }
    }
}

/// The requests of a run by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accounted {
    /// All tokens delivered.
    pub completed: usize,
    /// Refused.
    pub rejected: usize,
    /// Cancelled by their clients, or failed.
    pub given_up: usize,
    /// Sent, and in progress when the run ended.
    pub in_progress: usize,
    /// Never sent.
    pub unsent: usize,
}

impl LiveRun {
    /// What became of every request of the workload.
    #[must_use]
    pub fn accounted(&self) -> Accounted {
        let mut sum = Accounted::default();
        for request in &self.recording.requests {
            match request.outcome {
                Outcome::Completed => sum.completed += 1,
                Outcome::Rejected(_) => sum.rejected += 1,
                Outcome::Cancelled | Outcome::Failed(_) => sum.given_up += 1,
                Outcome::Unfinished if request.was_sent() => sum.in_progress += 1,
                Outcome::Unfinished => sum.unsent += 1,
            }
        }
        sum
    }
}

fn event(id: u32, key: EventKey) -> Event {
    match key {
        EventKey::Links => Event::Links,
        EventKey::Patience => Event::Patience {
            request: engine::RequestId(id),
        },
        EventKey::Worker => Event::Worker {
            worker: WorkerId(id),
        },
        EventKey::Arrival => Event::Arrival {
            request: engine::RequestId(id),
        },
        EventKey::Received => Event::Received {
            request: engine::RequestId(id),
        },
        EventKey::Plan => Event::Plan {
            worker: WorkerId(id),
        },
        EventKey::Tick => Event::Tick,
        EventKey::Update => Event::Update,
    }
}
