//! Everything that can happen to a serving system, everything it can ask for, and the one order of events.

use crate::adversity::faults::Disturbance;
use engine::{RequestId, Span, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Index of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Steps of the oldest plan of a worker ended.
    Ran(Ran),
    /// Something happens on the links: a transfer begins to move, or ends.
    Links,
    /// Something becomes of a worker: it is ready.
    Worker {
        /// Which.
        worker: WorkerId,
    },
    /// A client sends a request.
    Arrival {
        /// Which.
        request: RequestId,
    },
    /// A fault begins or is over.
    Fault {
        /// Twice its number at its beginning, one more at its end.
        end: u32,
    },
    /// A client may have waited too long.
    Patience {
        /// For which of its requests.
        request: RequestId,
    },
    /// The front end is done with a request and hands it to the router.
    Received {
        /// Which.
        request: RequestId,
    },
    /// A step of a worker begins that said it wants to know ([`Cluster::wants_beginnings`](crate::Cluster::wants_beginnings)).
    Began {
        /// Where.
        worker: WorkerId,
        /// How long it will last.
        lasts: Span,
    },
    /// A worker looks for something to do, after everything else of that instant is in.
    Plan {
        /// Which.
        worker: WorkerId,
    },
    /// The planner looks, after all has happened.
    Tick,
    /// A rolling update begins.
    Update,
}

/// Steps of one plan that followed each other without a pause and whose durations form an arithmetic progression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Where.
    pub worker: WorkerId,
    /// How many, at least 1.
    pub steps: u32,
    /// When the first began.
    pub start: Time,
    /// How long the first took.
    pub first: Span,
    /// How much longer each was than the one before, in picoseconds.
    pub slope_ps: i64,
}

impl Ran {
    /// The time all steps took together.
    #[must_use]
    #[inline]
    pub fn total(&self) -> Span {
        sum_of_steps(self.first, self.slope_ps, self.steps)
    }

    /// When the last step ended.
    #[must_use]
    #[inline]
    pub fn end(&self) -> Time {
        self.start + self.total()
    }
}

/// `first + (first + slope) + ...`, `steps` terms.
#[must_use]
#[inline]
pub fn sum_of_steps(first: Span, slope_ps: i64, steps: u32) -> Span {
    if steps == 1 {
        return first;
    }
    let pairs = u64::from(steps) * u64::from(steps.saturating_sub(1)) / 2;
    let total = i128::from(steps) * i128::from(first.0) + i128::from(slope_ps) * i128::from(pairs);
    Span(u64::try_from(total).expect("step times are positive and a run is shorter than 213 days"))
}

/// What happens first at one instant: rank, then the number of what it concerns.
pub type Order = (u8, u32);

/// Events by time and order, the next on top.
pub(crate) type EventQueue<Entry> = BinaryHeap<Reverse<(Time, Order, Entry)>>;

impl Event {
    /// What happens first at one instant: by rank, then by the stable number of what it concerns. Step finished,
    /// links, worker ready, fault, cancel or time-out, arrival, received by the router, plan, step begun, planner tick, rolling
    /// update. No two
    /// different events of one instant have the same rank and number.
    #[must_use]
    #[inline]
    pub fn order(&self) -> Order {
        match self {
            Event::Ran(ran) => (0, ran.worker.0),
            Event::Links => (1, 0),
            Event::Worker { worker } => (2, worker.0),
            Event::Fault { end } => (3, *end),
            Event::Patience { request } => (4, request.0),
            Event::Arrival { request } => (5, request.0),
            Event::Received { request } => (6, request.0),
            Event::Plan { worker } => (7, worker.0),
            Event::Began { worker, .. } => (8, worker.0),
            Event::Tick => (9, 0),
            Event::Update => (10, 0),
        }
    }
}

/// Something the serving system wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run the newest plan of a worker behind what it already runs: one step at least, up to `up_to` equal ones. A worker
    /// hands out one plan per event. Say so with [`Event::Ran`] when at most `ahead` of them are left, and then after each.
    Run {
        /// Where.
        worker: WorkerId,
        /// Most steps.
        up_to: u32,
        /// Steps that may be in flight while the worker plans on.
        ahead: u32,
    },
    /// Start no steps of the worker's plans but those that its scheduler would have scheduled by now.
    Cut {
        /// Where.
        worker: WorkerId,
    },
    /// Something is wrong with a worker from now on, or not any more.
    Disturb {
        /// Where.
        worker: WorkerId,
        /// What.
        how: Disturbance,
    },
    /// Hand this event back at that time.
    At {
        /// When.
        time: Time,
        /// What.
        event: Event,
    },
}
