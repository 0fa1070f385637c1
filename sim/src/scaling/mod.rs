//! Workers that come and go: a planner in the loop of a deployment.
//!
//! At the times it asks for the planner is shown what a real one sees ([`watch`]) and answers with target replicas. The
//! cluster compares each target with the workers that serve or will, orders what is missing, and takes away what is too much
//! ([`lifecycle`], [`fleet`]). Routers lose sight of a worker the moment it drains. Without a planner nothing of this exists.

pub(crate) mod fleet;
mod inventory;
pub mod lifecycle;
mod loading;
pub(crate) mod record;
mod series;
mod shadow;
pub(crate) mod summary;
mod taken;
mod update;
mod updates;
pub(crate) mod watch;
pub(crate) mod weights;
mod weights_summary;

pub use inventory::fit_at_once;
pub use lifecycle::{Allowance, Count, Life, LifecycleSpec, Spares, Startup, Update};
pub use record::{DecisionRecord, ScalingRecord};
pub use series::Replicas;
pub use summary::{ChangeSummary, DecisionSummary, GpuHours, PoolSummary, ScalingSummary};
pub use update::UpdateRecord;
pub use updates::UpdateSummary;
pub use weights::LoadRecord;
pub use weights_summary::{LoadSummary, WeightsSummary};

use crate::event::{Action, Event, WorkerId};
use crate::links::{NetworkSpec, Topology};
use engine::Time;
use fleet::{Fleet, PoolPlaces};
use lifecycle::State;
use planner::{ForwardPass, Observations, PerRole, Planner, Pool, Role};
use watch::{LastPass, Watch};
use weights::Streams;

/// A planner and what it may do.
#[derive(Debug, Clone)]
pub struct ScalingSpec {
    /// What decides.
    pub planner: Box<dyn Planner>,
    /// By pool; each role has one pool at most.
    pub pools: Vec<PoolScaling>,
    /// GPUs of all pools together; `None` without a bound.
    pub gpus: Option<u32>,
    /// Whether the planner looks at trailing latencies.
    pub keeps_latencies: bool,
    /// What else becomes of workers.
    pub lifecycle: LifecycleSpec,
    /// Over which workers send each other weights, where they do and hand nothing else over; its topology has a place for each.
    pub network: Option<(NetworkSpec, Option<Topology>)>,
}

/// How the workers of a pool come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolScaling {
    /// What the planner takes them for; aggregated workers count as decode.
    pub role: Role,
    /// Workers that are ready at the start; the pool's [`workers`](crate::PoolSpec::workers) are places, for them, their spares
    /// and all that may be there at once.
    pub initial: u32,
    /// How long others take.
    pub startup: Startup,
}

/// After so many ticks between which nothing happened nothing ever will.
const STANDSTILL: u32 = 1000;

/// The state of a deployment that scales.
#[derive(Debug, Clone)]
pub(crate) struct Scaling {
    pub planner: Box<dyn Planner>,
    /// The planner before it saw anything, since when it has counted time, and when it will be asked.
    pub fresh: Box<dyn Planner>,
    pub began: Time,
    pub next_tick: Option<Time>,
    pub fleet: Fleet,
    pub watch: Watch,
    pub keeps_latencies: bool,
    /// By role: its pool.
    pub pool_of: PerRole<Option<usize>>,
    /// By place: the last step of the worker there.
    pub passes: Vec<Option<LastPass>>,
    /// Requests that arrived and are not over; where clients leave, adversity knows.
    pub open: u64,
    /// Ticks since something else happened.
    pub quiet_ticks: u32,
    pub record: ScalingRecord,
    /// When all workers are replaced.
    pub update: Option<Update>,
    /// Weights on their way, where neighbours send them.
    pub streams: Option<Streams>,
}

impl Scaling {
    /// `pools` are the places and GPUs of each.
    pub fn new(spec: ScalingSpec, pools: &[(u32, u32)], knows_hits: bool) -> Self {
        assert!(spec.pools.len() == pools.len(), "every pool has a role");
        let mut pool_of = PerRole::<Option<usize>>::default();
        for (index, pool) in spec.pools.iter().enumerate() {
            let before = pool_of.get_mut(pool.role).replace(index);
            assert!(before.is_none(), "a role has one pool");
        }
        let places = spec.pools.iter().zip(pools);
        let places = places.map(|(scaling, &(places, gpus_per_worker))| PoolPlaces {
            places,
            gpus_per_worker,
            initial: scaling.initial,
            startup: scaling.startup,
        });
        Scaling {
            record: ScalingRecord::new(spec.planner.name()),
            fresh: spec.planner.clone(),
            began: Time::ZERO,
            next_tick: None,
            planner: spec.planner,
            watch: Watch::new(knows_hits, spec.keeps_latencies),
            keeps_latencies: spec.keeps_latencies,
            fleet: Fleet::new(places.collect(), spec.gpus, &spec.lifecycle),
            update: spec.lifecycle.update,
            streams: None,
            pool_of,
            passes: vec![None; pools.iter().map(|pool| pool.0 as usize).sum()],
            open: 0,
            quiet_ticks: 0,
        }
    }

    /// Workers of each role by state, as a planner is shown them.
    pub fn counts(&self) -> PerRole<Count> {
        self.pool_of
            .map(|pool| pool.map_or(Count::default(), |pool| self.fleet.shown(pool)))
    }

    /// What there is to see at a tick. `waits` says what waits in a worker and whether it is idle; `in_front` how many
    /// requests wait in front of all workers.
    pub fn observe(
        &mut self,
        now: Time,
        in_front: u64,
        waits: impl Fn(WorkerId) -> (planner::Work, bool),
    ) -> Observations {
        let latency = if self.keeps_latencies {
            self.watch.trailing(now)
        } else {
            planner::TrailingLatency::default()
        };
        let traffic = self.watch.take_window(now);
        let pools = self.pool_of.map(|pool| match pool {
            None => Pool::default(),
            Some(pool) => self.observe_pool(now, pool, &waits),
        });
        Observations {
            pools,
            traffic,
            latency,
            waiting_in_front: in_front,
        }
    }

    fn observe_pool(
        &self,
        now: Time,
        pool: usize,
        waits: &impl Fn(WorkerId) -> (planner::Work, bool),
    ) -> Pool {
        let count = self.fleet.shown(pool);
        let ready = self.fleet.in_state(pool, |state| *state == State::Ready);
        let pass = |&(worker, life): &(WorkerId, u32)| {
            let (queued, is_idle) = waits(worker);
            let since = self.fleet.lives()[life as usize].ready;
            let last = self.passes[worker.0 as usize];
            let (time, scheduled) = watch::last_report(now, since, last, is_idle)?;
            Some(ForwardPass {
                worker: planner::WorkerId(life),
                rank: 0,
                wall_time_s: time.as_s(),
                scheduled,
                queued,
            })
        };
        Pool {
            passes: ready.iter().filter_map(pass).collect(),
            ready: ready
                .iter()
                .map(|&(_, life)| planner::WorkerId(life))
                .collect(),
            starting: count.waiting + count.starting,
            draining: count.draining,
        }
    }

    /// Asks for the planner's next tick, at that time of its own.
    pub fn ask_planner(&mut self, own_time: Option<Time>, actions: &mut Vec<Action>) {
        self.next_tick = own_time.map(|time| self.began + time.since(Time::ZERO));
        if let Some(time) = self.next_tick {
            let event = Event::Tick;
            actions.push(Action::At { time, event });
        }
    }

    /// Closes the books.
    pub fn close(mut self) -> ScalingRecord {
        self.record.lives = self.fleet.lives().to_vec();
        self.record.updates = self.fleet.updates();
        if let Some(streams) = self.streams {
            self.record.loads = streams.records;
        }
        self.record
    }

    /// Whether ticks make sense any longer: `has_arrivals` says that requests are still to come, `open` how many are not over,
    /// `is_busy` that workers or links are at work.
    pub fn goes_on(&mut self, has_arrivals: bool, open: u64, is_busy: bool) -> bool {
        self.quiet_ticks += 1;
        if is_busy || self.fleet.grows() {
            self.quiet_ticks = 0;
        }
        has_arrivals || open > 0 && self.quiet_ticks < STANDSTILL
    }
}
