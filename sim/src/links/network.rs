//! The network between workers: each worker has one way out and one way in, and all of them may share a core.
//!
//! A transfer crosses the sender's way out, the core if it is limited, and the receiver's way in. The first transfer between
//! two workers also waits for them to get acquainted.

// Model: a worker's network cards are one link each way, as fast as all of them together: transports that stripe over
// cards (NIXL over libfabric or UCX) do that for transfers of megabytes.

use super::{Fabric, LinkId, LinkRecord, NewFlow};
use crate::event::WorkerId;
use engine::{Span, Time};
use rustc_hash::FxHashSet;

/// Speeds and costs of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkSpec {
    /// What a worker sends at most, and what it receives at most.
    pub bytes_per_s: u64,
    /// Whether that is for each of its GPUs.
    pub per_gpu: bool,
    /// What all transfers together carry at most; `None` for a core that is never full.
    pub core_bytes_per_s: Option<u64>,
    /// Of every transfer, before its first byte.
    pub latency: Span,
    /// Of the first transfer between two workers, besides (the NIXL handshake).
    pub setup: Span,
}

/// A network and the transfers over it.
#[derive(Debug, Clone)]
pub struct Network {
    spec: NetworkSpec,
    fabric: Fabric,
    /// By worker.
    out: Vec<LinkId>,
    into: Vec<LinkId>,
    core: Option<LinkId>,
    acquainted: FxHashSet<(WorkerId, WorkerId)>,
}

impl Network {
    /// An idle network between workers of so many GPUs each.
    #[must_use]
    pub fn new(spec: NetworkSpec, gpus: &[u32]) -> Network {
        let mut fabric = Fabric::default();
        let mut ways = || -> Vec<LinkId> {
            let capacity = |&gpus: &u32| match spec.per_gpu {
                true => spec.bytes_per_s * u64::from(gpus.max(1)),
                false => spec.bytes_per_s,
            };
            gpus.iter()
                .map(|gpus| fabric.add_link(capacity(gpus)))
                .collect()
        };
        Network {
            out: ways(),
            into: ways(),
            core: spec.core_bytes_per_s.map(|core| fabric.add_link(core)),
            spec,
            fabric,
            acquainted: FxHashSet::default(),
        }
    }

    /// Starts a transfer of so many bytes; [`Network::advance`] returns `tag` when it is over.
    pub fn send(&mut self, now: Time, tag: u32, from: WorkerId, to: WorkerId, bytes: u64) {
        let mut delay = self.spec.latency;
        if self.acquainted.insert((from, to)) {
            delay += self.spec.setup;
        }
        let path = [self.out[from.0 as usize], self.into[to.0 as usize]];
        let all = [path[0], path[1], self.core.unwrap_or(path[1])];
        let path = if self.core.is_some() { &all[..] } else { &path };
        self.fabric.start(
            now,
            NewFlow {
                tag,
                path,
                bytes,
                delay,
            },
        );
    }

    /// When something happens next, if nothing is sent before.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        self.fabric.next_event()
    }

    /// Appends the tags of the transfers that are over by `now`.
    pub fn advance(&mut self, now: Time, ended: &mut Vec<u32>) {
        self.fabric.advance(now, ended);
    }

    /// What a worker has sent.
    #[must_use]
    pub fn sent(&self, worker: WorkerId) -> LinkRecord {
        self.fabric.record(self.out[worker.0 as usize])
    }

    /// What a worker has received.
    #[must_use]
    pub fn received(&self, worker: WorkerId) -> LinkRecord {
        self.fabric.record(self.into[worker.0 as usize])
    }
}
