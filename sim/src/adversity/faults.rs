//! Parts that break: by a script, or at random.
//!
//! *Script*: a list of times, kinds and workers. *At random*: each worker breaks again and again; the time from one end to
//! the next beginning is drawn from an exponential distribution of mean `mtbf`, by (seed, rule, worker, number). Faults stop
//! when nothing is left to do.
//!
//! Kinds: a *crash* takes a worker's requests and its KV cache; it comes back empty. A *hang* keeps a worker's running step
//! from ending, and the next from beginning, until it is over. A *straggler* takes a multiple of the time for each step that
//! begins meanwhile. *Lost events*: what a worker does to its KV cache does not reach the router. A *router restart* takes
//! the router's bookings, its bindings and its turn; its index of KV is empty, and grows again with the events to come, or
//! it is read anew from the workers. A *planner restart* takes all that the planner has seen; it counts time from its own
//! beginning. A *link* is slow or down: what crosses it takes longer, or waits. A *drain limit* makes an end of a worker
//! that drains: what it still has is lost or moves like after a crash. A *node loss* is a crash of all workers with a GPU in a
//! node, at one instant.
//!
//! *Spot*: a provider that takes back what it gave. A worker is told so, gets no more requests, and crashes when the notice is
//! over ([`SpotRule`]).

use super::clients::exponential;
use crate::event::WorkerId;
use crate::links::{Impairment, SiteKind};
use crate::random::{Purpose, unit};
use engine::{Span, Time};
use std::ops::Range;

/// What breaks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FaultSpec {
    /// Scripted.
    pub timeline: Vec<Fault>,
    /// At random.
    pub random: Vec<RandomFault>,
    /// Times that another worker may go on with a request whose worker is lost.
    pub migration_limit: u32,
    /// How long a worker that drains may take over what it has; then it is lost.
    pub drain_limit: Option<Span>,
    /// Workers that a provider takes back.
    pub spot: Vec<SpotRule>,
    /// By node: the workers with GPUs there, or nothing where workers come and go. Empty where nobody says where workers are.
    pub nodes: Vec<Vec<u32>>,
}

/// Workers that a provider takes back, each by itself, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpotRule {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub workers: u32,
    /// Mean time until the next interruption of a worker.
    pub mtbf: Span,
    /// From the interruption until the worker is gone.
    pub notice: Span,
    /// From then until there is another in its place; with a planner, until its GPUs can be had again.
    pub away: Span,
    /// How long after an interruption the time to the next begins to count: until there is another worker in its place, or with a
    /// planner, which puts others there, until it is gone.
    pub lasts: Span,
}

impl SpotRule {
    /// True if it is for this worker.
    #[must_use]
    pub const fn is_for(&self, worker: u32) -> bool {
        self.first <= worker && worker < self.first + self.workers
    }
}

impl FaultSpec {
    /// True if a router will read the workers' caches.
    #[must_use]
    pub fn reads_caches(&self) -> bool {
        let scripted = self.timeline.iter().map(|fault| fault.kind);
        let mut kinds = scripted.chain(self.random.iter().map(|rule| rule.kind));
        kinds.any(|kind| kind == FaultKind::RouterRestart { reads_caches: true })
    }

    /// True if steps take longer than they should.
    #[must_use]
    pub fn slows_steps(&self) -> bool {
        let scripted = self.timeline.iter().map(|fault| fault.kind);
        let mut kinds = scripted.chain(self.random.iter().map(|rule| rule.kind));
        kinds.any(|kind| matches!(kind, FaultKind::Hang | FaultKind::Straggler { .. }))
    }

    /// True if links between workers break.
    #[must_use]
    pub fn breaks_links(&self) -> bool {
        let scripted = self.timeline.iter().map(|fault| fault.kind);
        let mut kinds = scripted.chain(self.random.iter().map(|rule| rule.kind));
        kinds.any(|kind| kind.site().is_some())
    }

    /// True if something breaks.
    #[must_use]
    pub fn breaks(&self) -> bool {
        !self.timeline.is_empty() || !self.random.is_empty() || !self.spot.is_empty()
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: Time,
    /// What.
    pub kind: FaultKind,
    /// Where: a worker, a node, or the number of a link's site; nothing to say for a router.
    pub worker: u32,
    /// How long; a restarted router is back at once.
    pub lasts: Span,
}

/// Faults of all workers, or of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RandomFault {
    /// Mean time between the end of one and the beginning of the next, of each worker.
    pub mtbf: Span,
    /// What.
    pub kind: FaultKind,
    /// Where; `None` for each worker, node or site by itself, and for a router.
    pub worker: Option<u32>,
    /// How long.
    pub lasts: Span,
}

/// How a part breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A worker is gone and comes back empty.
    Crash,
    /// A worker's steps do not end.
    Hang,
    /// A worker's steps take so many per cent of their time.
    Straggler {
        /// Above 100.
        percent: u32,
    },
    /// A worker's KV events do not reach the router.
    EventLoss,
    /// The router forgets everything; if it reads the workers' caches anew, all but what they hold.
    RouterRestart {
        /// Whether its index is read from the workers.
        reads_caches: bool,
    },
    /// The planner begins anew when it is back.
    PlannerRestart,
    /// Links between workers are slow or down.
    Link {
        /// Which kind of site.
        site: SiteKind,
        /// How bad it is.
        how: Impairment,
    },
    /// A worker has drained for too long; nobody asks for it.
    DrainLimit,
    /// All workers with a GPU in a node are gone.
    NodeLoss,
    /// A provider takes a worker back.
    Interruption {
        /// From the interruption until the worker is gone.
        notice: Span,
        /// From then until there is another.
        away: Span,
    },
    /// The notice of the interruption of this number is over.
    Reclaim {
        /// Its number.
        of: u32,
    },
}

impl FaultKind {
    /// Stable name in scenarios and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FaultKind::Crash => "crash",
            FaultKind::Hang => "hang",
            FaultKind::Straggler { .. } => "straggler",
            FaultKind::EventLoss => "event_loss",
            FaultKind::RouterRestart { .. } => "router_restart",
            FaultKind::PlannerRestart => "planner_restart",
            FaultKind::Link {
                how: Impairment::Slow { .. },
                ..
            } => "link_slow",
            FaultKind::Link {
                how: Impairment::Down,
                ..
            } => "link_down",
            FaultKind::DrainLimit => "drain_limit",
            FaultKind::NodeLoss => "node_loss",
            FaultKind::Interruption { .. } => "interruption",
            FaultKind::Reclaim { .. } => "reclaim",
        }
    }

    /// True if it is a worker that breaks.
    #[must_use]
    pub const fn is_of_a_worker(self) -> bool {
        !matches!(
            self,
            FaultKind::RouterRestart { .. }
                | FaultKind::PlannerRestart
                | FaultKind::NodeLoss
                | FaultKind::Link { .. }
        )
    }

    /// Which kind of link, if it is one that breaks.
    #[must_use]
    pub const fn site(self) -> Option<SiteKind> {
        match self {
            FaultKind::Link { site, .. } => Some(site),
            _ => None,
        }
    }
}

/// Where a fault comes from.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Script,
    /// A worker that began to drain, or was told that it will be taken back.
    Drain,
    /// The rule, spot rules behind the others, and how many it has brought that worker before.
    Rule(u32, u32),
}

/// The faults of a run; their numbers are the order in which they were known.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    spec: FaultSpec,
    seed: u64,
    workers: u32,
    /// By kind, in the order of [`SiteKind::ALL`]: sites of links there are.
    pub sites: [u32; SiteKind::ALL.len()],
    known: Vec<(Fault, Origin)>,
    /// Scripted ones that are known.
    scripted: usize,
    /// By number: its place in the record, once begun.
    pub records: Vec<Option<usize>>,
    /// By worker: the fault that makes it slow.
    pub slowed_by: Vec<Option<u32>>,
    /// By worker: faults that keep it away or keep its events back.
    pub away: Vec<u32>,
    pub deaf: Vec<u32>,
    /// By worker: the interruption that will take it, while it still serves what it has.
    pub warned: Vec<Option<u32>>,
}

impl Faults {
    pub fn new(spec: &FaultSpec, seed: u64, workers: u32) -> Faults {
        let mut spec = spec.clone();
        spec.timeline.sort_by_key(|fault| fault.at);
        Faults {
            spec,
            seed,
            workers,
            sites: [0; SiteKind::ALL.len()],
            known: Vec::new(),
            scripted: 0,
            records: Vec::new(),
            slowed_by: vec![None; workers as usize],
            away: vec![0; workers as usize],
            deaf: vec![0; workers as usize],
            warned: vec![None; workers as usize],
        }
    }

    pub fn get(&self, number: u32) -> Fault {
        self.known[number as usize].0
    }

    /// The first faults: number and time of each.
    pub fn first(&mut self) -> Vec<(u32, Time)> {
        let mut first: Vec<(u32, Time)> = self.next_scripted().into_iter().collect();
        for rule in 0..(self.spec.random.len() + self.spec.spot.len()) as u32 {
            for part in self.parts_of(rule) {
                first.push(self.draw(rule, part, 0, Time::ZERO));
            }
        }
        first
    }

    /// The workers or nodes that a rule breaks.
    fn parts_of(&self, rule: u32) -> Range<u32> {
        let Some(RandomFault { kind, worker, .. }) = self.spec.random.get(rule as usize) else {
            let spot = &self.spec.spot[rule as usize - self.spec.random.len()];
            return spot.first..spot.first + spot.workers;
        };
        match (worker, kind.site()) {
            (Some(part), _) => *part..part + 1,
            (None, Some(site)) => 0..self.sites[site as usize],
            (None, None) if *kind == FaultKind::NodeLoss => 0..self.spec.nodes.len() as u32,
            (None, None) if kind.is_of_a_worker() => 0..self.workers,
            (None, None) => 0..1,
        }
    }

    /// What a rule does, and how often.
    fn rule(&self, rule: u32) -> (Span, FaultKind, Span) {
        match self.spec.random.get(rule as usize) {
            Some(random) => (random.mtbf, random.kind, random.lasts),
            None => {
                let SpotRule {
                    mtbf,
                    notice,
                    away,
                    lasts,
                    ..
                } = self.spec.spot[rule as usize - self.spec.random.len()];
                (mtbf, FaultKind::Interruption { notice, away }, lasts)
            }
        }
    }

    /// The workers with GPUs in a node, where they stay.
    pub fn workers_on(&self, node: u32) -> &[u32] {
        &self.spec.nodes[node as usize]
    }

    /// The fault that follows this one.
    pub fn after(&mut self, number: u32) -> Option<(u32, Time)> {
        let (fault, origin) = self.known[number as usize];
        match origin {
            Origin::Script => self.next_scripted(),
            Origin::Drain => None,
            Origin::Rule(rule, count) => {
                Some(self.draw(rule, fault.worker, count + 1, fault.at + fault.lasts))
            }
        }
    }

    /// A worker begins to drain: when an end is made of it, if there is a limit.
    pub fn limit_drain(&mut self, now: Time, worker: WorkerId) -> Option<(u32, Time)> {
        let limit = self.spec.drain_limit?;
        let fault = Fault {
            at: now + limit,
            kind: FaultKind::DrainLimit,
            worker: worker.0,
            lasts: limit,
        };
        Some(self.enter(fault, Origin::Drain))
    }

    /// A worker is told that it will be taken back: when its notice is over.
    pub fn reclaim(&mut self, number: u32, at: Time) -> (u32, Time) {
        let fault = Fault {
            at,
            kind: FaultKind::Reclaim { of: number },
            lasts: Span::ZERO,
            ..self.get(number)
        };
        self.enter(fault, Origin::Drain)
    }

    fn next_scripted(&mut self) -> Option<(u32, Time)> {
        let fault = *self.spec.timeline.get(self.scripted)?;
        self.scripted += 1;
        Some(self.enter(fault, Origin::Script))
    }

    fn draw(&mut self, rule: u32, worker: u32, count: u32, from: Time) -> (u32, Time) {
        let (mtbf, kind, lasts) = self.rule(rule);
        let entity = (u64::from(rule) << 56) ^ (u64::from(worker) << 28) ^ u64::from(count);
        let draw = unit(self.seed, Purpose::Fault, entity);
        let fault = Fault {
            at: from + exponential(mtbf, draw),
            kind,
            worker,
            lasts,
        };
        self.enter(fault, Origin::Rule(rule, count))
    }

    fn enter(&mut self, fault: Fault, origin: Origin) -> (u32, Time) {
        self.known.push((fault, origin));
        self.records.push(None);
        ((self.known.len() - 1) as u32, fault.at)
    }
}

/// What a driver is to do to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// Steps that begin from now on take so many per cent of their time.
    Pace(u32),
    /// The running step ends so much later, and none begins before this time.
    HangUntil(Time),
    /// Everything it runs is gone.
    Stop,
}

/// Both ends of a fault have a number of their own among events.
pub(crate) const fn begin_of(number: u32) -> u32 {
    2 * number
}

/// See [`begin_of`].
pub(crate) const fn end_of(number: u32) -> u32 {
    2 * number + 1
}

/// All workers of a deployment.
pub(crate) fn worker_of(fault: &Fault) -> WorkerId {
    WorkerId(fault.worker)
}
