//! The live driver: the same cluster on the real clock.
//!
//! Timers and worker tasks run under tokio on one thread. Everything that is due when the loop looks at the clock
//! counts as one instant and is handled in the order of [`Event::order`]; the cluster cannot tell this driver from the
//! virtual one. A worker executes one step at a time; here its executor sleeps for the modelled time, divided by
//! `speedup`. All times are simulated ones: real time since the start times `speedup`.

use crate::cluster::Cluster;
use crate::event::{Action, Event, EventQueue, Order, Ran, WorkerId};
use crate::journal::{Entry, Journal};
use crate::record::Recording;
use engine::{Span, StepTime, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a live run leaves behind.
#[derive(Debug)]
pub struct LiveRun {
    /// The books.
    pub recording: Recording,
    /// Every event and action.
    pub journal: Journal,
}

/// Runs a cluster on the real clock; `timing` holds one model per pool. The cluster must not coast.
///
/// # Errors
/// If the system refuses timers.
pub fn run(cluster: Cluster, timing: &[Arc<dyn StepTime>], speedup: f64) -> io::Result<LiveRun> {
    assert!(speedup > 0.0, "time goes forward");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let local = tokio::task::LocalSet::new();
    Ok(local.block_on(
        &runtime,
        serve(
            cluster,
            timing,
            Clock {
                start: Instant::now(),
                speedup,
            },
        ),
    ))
}

/// Real time as simulated time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    speedup: f64,
}

impl Clock {
    fn now(&self) -> Time {
        Time(Span::from_s(self.start.elapsed().as_secs_f64() * self.speedup).0)
    }

    async fn sleep_until(&self, time: Time) {
        let at = self.start + Duration::from_secs_f64(time.as_s() / self.speedup);
        tokio::time::sleep_until(at.into()).await;
    }
}

/// A step for a worker's task: when it was handed over, and how long it takes.
#[derive(Debug, Clone, Copy)]
struct Step {
    handed_over: Time,
    time: Span,
}

async fn serve(mut cluster: Cluster, timing: &[Arc<dyn StepTime>], clock: Clock) -> LiveRun {
    let (ended, mut endings) = unbounded_channel();
    let mut driver = Driver {
        clock,
        workers: (0..cluster.workers().len())
            .map(|id| spawn_worker(id, clock, ended.clone()))
            .collect(),
        timers: EventQueue::new(),
        due: BTreeMap::new(),
        running: 0,
    };
    let mut journal = Journal::default();
    cluster.start(&mut journal.opening);
    driver.perform(Time::ZERO, &journal.opening, &cluster, timing);
    loop {
        let now = driver.gather(&mut endings);
        while let Some((_, event)) = driver.due.pop_first() {
            let mut actions = Vec::new();
            cluster.handle(now, event, &mut actions);
            driver.perform(now, &actions, &cluster, timing);
            journal.entries.push(Entry {
                time: now,
                event,
                actions,
            });
        }
        if !driver.wait(&mut endings).await {
            return LiveRun {
                recording: cluster.finish(),
                journal,
            };
        }
    }
}

/// A task that executes the steps of one worker one after the other.
fn spawn_worker(id: usize, clock: Clock, ended: UnboundedSender<Ran>) -> UnboundedSender<Step> {
    let (steps, mut queue) = unbounded_channel::<Step>();
    tokio::task::spawn_local(async move {
        let mut free_at = Time::ZERO;
        while let Some(step) = queue.recv().await {
            let start = step.handed_over.max(free_at);
            clock.sleep_until(start + step.time).await;
            free_at = clock.now().max(start + step.time);
            let first = free_at.since(start);
            let ran = Ran {
                worker: WorkerId(id as u32),
                steps: 1,
                start,
                first,
                slope_ps: 0,
            };
            if ended.send(ran).is_err() {
                return;
            }
        }
    });
    steps
}

struct Driver {
    clock: Clock,
    workers: Vec<UnboundedSender<Step>>,
    timers: EventQueue<EventKey>,
    /// Events of this instant, by their order.
    due: BTreeMap<Order, Event>,
    /// Steps handed to workers and not ended.
    running: usize,
}

/// What a timer stands for; its order says the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EventKey {
    Links,
    Worker,
    Arrival,
    Received,
    Plan,
    Tick,
}

impl Driver {
    /// Looks at the clock and collects everything that is due.
    fn gather(&mut self, endings: &mut UnboundedReceiver<Ran>) -> Time {
        let mut latest: HashMap<WorkerId, Ran> = HashMap::new();
        let now = self.clock.now();
        while let Ok(ran) = endings.try_recv() {
            assert!(
                latest.insert(ran.worker, ran).is_none(),
                "a worker plans between two ends of steps"
            );
            self.running -= 1;
            self.due.insert(Event::Ran(ran).order(), Event::Ran(ran));
        }
        let now = self.due.values().fold(now, |now, event| match event {
            Event::Ran(ran) => now.max(ran.end()),
            _ => now,
        });
        while let Some(&Reverse((time, order, key))) = self.timers.peek() {
            if time > now {
                break;
            }
            self.timers.pop();
            self.due.insert(order, event(order.1, key));
        }
        now
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
                        Event::Worker { .. } => EventKey::Worker,
                        Event::Arrival { .. } => EventKey::Arrival,
                        Event::Received { .. } => EventKey::Received,
                        Event::Plan { .. } => EventKey::Plan,
                        Event::Tick => EventKey::Tick,
                        Event::Ran(_) => unreachable!("only a worker's task ends steps"),
                    };
                    self.timers.push(Reverse((time, event.order(), key)));
                }
                Action::Run { worker, up_to, .. } => {
                    assert!(up_to == 1, "a live cluster plans step by step");
                    let worker = &cluster.workers()[worker.0 as usize];
                    let plan = worker.scheduler().newest().expect("a plan is to be run");
                    let time = timing[worker.pool()].step(&plan.shape());
                    self.running += 1;
                    let step = Step {
                        handed_over: now,
                        time,
                    };
                    self.workers[worker.id().0 as usize]
                        .send(step)
                        .expect("workers outlive the driver");
                }
                // Nothing runs on unasked.
                Action::Cut { .. } => {}
            }
        }
    }

    /// Waits until something is due; false if nothing ever will be.
    async fn wait(&mut self, endings: &mut UnboundedReceiver<Ran>) -> bool {
        let timer = self.timers.peek().map(|&Reverse((time, ..))| time);
        let clock = self.clock;
        let ran = match (self.running > 0, timer) {
            (false, None) => return false,
            (false, Some(time)) => {
                clock.sleep_until(time).await;
                None
            }
            (true, None) => endings.recv().await,
            (true, Some(time)) => tokio::select! {
                ran = endings.recv() => ran,
                () = clock.sleep_until(time) => None,
            },
        };
        if let Some(ran) = ran {
            self.running -= 1;
            self.due.insert(Event::Ran(ran).order(), Event::Ran(ran));
        }
        true
    }
}

fn event(id: u32, key: EventKey) -> Event {
    match key {
        EventKey::Links => Event::Links,
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
    }
}
