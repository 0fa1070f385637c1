//! What becomes of a worker, and how long it takes to be ready.
//!
//! A worker is *ordered* by a planner, *waits* until there are GPUs for it, *starts* in parts (schedule, pull the image, load
//! weights, warm up, capture graphs), is *ready*, *drains* (no new requests, what it has is finished) and is *gone*. Only then
//! are its GPUs free. One that waits or starts can be called off at once; of several the newest goes first, and of ready
//! workers the newest too, as in Dynamo's replay.
//!
//! Besides, a deployment may
//! * keep *spares*: workers that have started, hold their GPUs and serve nothing until they are called in ([`Spares`]);
//! * keep *shadows*: processes beside each worker on its GPUs, with its weights and no KV cache, that serve when it crashes;
//! * let a drained worker of one role *switch* to the other, with its weights, instead of starting a new one;
//! * be *updated*: every worker is replaced by one of a new generation, a few at a time ([`Update`]);
//! * have its GPUs in *nodes*: a worker starts when all its GPUs are there, in one node, or in whole nodes if it spans several.
//!
//! The cluster has a fixed number of places for workers in each pool ([`fleet`](super::fleet)).

use engine::{Span, Time};

/// How long the parts of a start take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Startup {
    /// From the order to a container on a node.
    pub schedule: Span,
    /// Until the image is there.
    pub pull: Span,
    /// Until the weights are in the GPUs.
    pub load: Span,
    /// The same where a ready worker of the pool can send them; `None` if neighbours do not.
    pub load_from_neighbour: Option<Span>,
    /// Bytes that a ready worker of the pool sends over the network between workers, however long that takes; `None` if neighbours
    /// send nothing there. Without a source it is `load`.
    pub weights: Option<u64>,
    /// Memory profile and first passes.
    pub warm_up: Span,
    /// Graphs and kernels for the batch sizes to come.
    pub capture: Span,
}

impl Startup {
    /// All parts; a neighbour may send the weights in a given time. What is sent over the network counts as if nobody did.
    #[must_use]
    pub fn total(&self, has_neighbour: bool) -> Span {
        let load = self.load_from_neighbour.filter(|_| has_neighbour);
        self.schedule + self.pull + load.unwrap_or(self.load) + self.warm_up + self.capture
    }
}

/// What may become of workers besides starting, serving and finishing what they have. The default is nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LifecycleSpec {
    /// Workers kept warm.
    pub spares: Spares,
    /// How long a drained worker takes to restart in the other role; `None` if none does.
    pub switch: Option<Span>,
    /// When all workers are replaced.
    pub update: Option<Update>,
    /// GPUs of a node; `None` if it does not matter where GPUs are.
    pub gpus_per_node: Option<u32>,
    /// How long a shadow takes to serve in place of a worker whose process crashed, on its GPUs and with its weights; `None`
    /// without shadows.
    pub shadow: Option<Span>,
}

/// Workers that have started and wait to be called in. They get GPUs after all workers that are wanted; a new one is ordered
/// when one is called in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spares {
    /// How many in each pool.
    pub count: u32,
    /// From the call to serving.
    pub activate: Span,
}

/// A rolling update: all workers of every pool are replaced by new ones, never more and never fewer at once than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// When it begins.
    pub at: Time,
    /// Workers beyond those that are wanted, those that drain left out.
    pub surge: Allowance,
    /// Workers that may be missing of those that are wanted.
    pub unavailable: Allowance,
}

/// So many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// A number.
    Workers(u32),
    /// Per cent of those that are wanted when the update begins.
    Percent(u32),
}

impl Update {
    /// Workers of `wanted` that may be too many and that may be missing: shares are rounded up and down, as Kubernetes does.
    #[must_use]
    pub fn allowances(&self, wanted: u32) -> (u32, u32) {
        let share = |percent: u32| u64::from(wanted) * u64::from(percent);
        let surge = match self.surge {
            Allowance::Workers(workers) => workers,
            Allowance::Percent(percent) => share(percent).div_ceil(100) as u32,
        };
        let unavailable = match self.unavailable {
            Allowance::Workers(workers) => workers,
            Allowance::Percent(percent) => (share(percent) / 100) as u32,
        };
        // Kubernetes: where both come to nothing, one may be missing.
        let stands_still = surge == 0 && unavailable == 0;
        (surge, unavailable.max(u32::from(stands_still)))
    }
}

/// What a place for a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody.
    Vacant,
    /// A worker that will be ready then.
    Starting {
        /// When.
        until: Time,
    },
    /// A worker that will be a spare then.
    Warming {
        /// When.
        until: Time,
    },
    /// A worker that could serve, and waits to be called in.
    Spare,
    /// A worker that serves.
    Ready,
    /// A worker that finishes what it has.
    Draining,
}

/// The life of one worker. Moments that have not come are [`Time::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its place, `u32::MAX` while it waits for GPUs.
    pub worker: u32,
    /// Index of its pool.
    pub pool: u32,
    /// Updates before it.
    pub generation: u32,
    /// Number of the life whose worker restarts as this one.
    pub from: Option<u32>,
    /// A planner asked for it, or a spare was missing.
    pub ordered: Time,
    /// It got its GPUs.
    pub placed: Time,
    /// It was a spare that could serve.
    pub warm: Time,
    /// It was to be a spare no longer, but to serve.
    pub called: Time,
    /// It began to serve.
    pub ready: Time,
    /// It got no more requests.
    pub drained: Time,
    /// Its GPUs were free again, or it was called off.
    pub gone: Time,
}

impl Life {
    /// Of a worker of a pool that was asked for just now.
    #[must_use]
    pub const fn of(pool: u32, ordered: Time) -> Life {
        Life {
            worker: u32::MAX,
            pool,
            generation: 0,
            from: None,
            ordered,
            placed: Time::MAX,
            warm: Time::MAX,
            called: Time::MAX,
            ready: Time::MAX,
            drained: Time::MAX,
            gone: Time::MAX,
        }
    }
}

/// Workers of a pool by state; spares are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Waiting for GPUs.
    pub waiting: u32,
    /// Starting.
    pub starting: u32,
    /// Serving.
    pub ready: u32,
    /// Finishing.
    pub draining: u32,
}

impl Count {
    /// Those that serve or will.
    #[must_use]
    pub const fn staying(&self) -> u32 {
        self.waiting + self.starting + self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_as_kubernetes_rounds_them() {
        let update = |surge, unavailable| Update {
            at: Time::ZERO,
            surge,
            unavailable,
        };
        let quarter = update(Allowance::Percent(25), Allowance::Percent(25));
        // 1.25 up and down.
        assert_eq!(quarter.allowances(5), (2, 1));
        assert_eq!(quarter.allowances(3), (1, 0));
        // Dynamo's examples: four prefill workers with surge 1, eight decode workers of which two may be missing.
        let prefill = update(Allowance::Workers(1), Allowance::Workers(0));
        assert_eq!(prefill.allowances(4), (1, 0));
        let decode = update(Allowance::Workers(0), Allowance::Workers(2));
        assert_eq!(decode.allowances(8), (0, 2));
        let nothing = update(Allowance::Percent(0), Allowance::Percent(10));
        assert_eq!(nothing.allowances(3), (0, 1));
    }
}
