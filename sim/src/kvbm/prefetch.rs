//! Prefetch: while a request waits for a seat, what slower tiers have of its prompt is read up into host memory.
//!
//! In words: when a request comes to a worker, its prompt is looked for in the GPU's cache, behind that in host memory, behind that in
//! the slower tiers. What those have is offered to host memory and read there, over their own links alone: PCIe is not crossed.
//! When the request is tried it finds in host memory what has arrived, and reads the rest from where it is. What is not
//! fetched in the end was read for nothing.
//!
//! KVBM of Dynamo 1.2 has no such prefetch; its documents name it as what is to come. Off by default.

use super::runs::{self, BlockRun, runs_of};
use super::spec::{Medium, OffloadPolicy};
use super::{Kvbm, Move};
use crate::event::WorkerId;
use crate::links::NewFlow;
use engine::kv_cache::block_path;
use engine::{RequestId, Scheduler, Time, Workload};

impl Kvbm {
    /// Whether a worker reads slower tiers before it is asked to.
    pub fn prefetches(&self, worker: WorkerId) -> bool {
        let tiers = self.workers[worker.0 as usize].as_ref();
        tiers.is_some_and(|tiers| tiers.prefetches)
    }

    /// A request has come to a worker and waits.
    pub fn prefetch(
        &mut self,
        now: Time,
        worker: WorkerId,
        request: RequestId,
        scheduler: &mut Scheduler,
        workload: &Workload,
    ) {
        let Some(tiers) = &self.workers[worker.0 as usize] else {
            return;
        };
        if !tiers.prefetches {
            return;
        }
        let block_size = tiers.block_size;
        let asked = &workload.requests[request.0 as usize];
        let limit = (asked.input_tokens - 1) / block_size;
        let mut path = std::mem::take(&mut self.path);
        block_path(&workload.tree, asked.leaf, block_size, &mut path);
        let mut at = scheduler.cached_blocks(&path, limit);
        at += self.levels[tiers.tiers[0].0]
            .store
            .matched(&path, at, limit);
        for rank in 1..self.tiers(worker).tiers.len() {
            let level = self.tiers(worker).tiers[rank].0;
            let blocks = self.levels[level].store.matched(&path, at, limit);
            if blocks == 0 {
                continue;
            }
            let found: Vec<BlockRun> = runs_of(&path, at, at + blocks).collect();
            at += blocks;
            let used = found.iter().copied();
            self.levels[level].store.touch(now, used, asked.priority);
            self.raise(now, worker, rank, &found, asked.priority);
        }
        self.path = path;
    }

    /// Reads blocks of a worker's tier of that rank into host memory, as far as there is room.
    fn raise(
        &mut self,
        now: Time,
        worker: WorkerId,
        rank: usize,
        found: &[BlockRun],
        priority: i32,
    ) {
        let tiers = self.tiers(worker);
        let (block_bytes, spills) = (tiers.block_bytes, tiers.offload == OffloadPolicy::OnEvict);
        let (host, source) = (tiers.tiers[0].0, tiers.tiers[rank].0);
        let offered = self.levels[host].store.offer(now, found, priority);
        let record = &mut self.levels[host].record;
        record.evicted_blocks += runs::count(&offered.evicted);
        record.dropped_blocks += offered.dropped_blocks;
        if spills && !offered.evicted.is_empty() {
            self.offer(now, worker, 1, &offered.evicted, priority);
        }
        let taken = runs::count(&offered.taken);
        if taken == 0 {
            return;
        }
        let bytes = taken * block_bytes;
        let record = &mut self.levels[source].record;
        record.prefetched_blocks += taken;
        record.prefetched_bytes += bytes;
        let tag = self.name(Move::Raise(worker, offered.taken));
        let tiers = self.workers[worker.0 as usize].as_ref();
        let way = &tiers.expect("it has tiers").tiers[rank].1.raise;
        self.fabric.start(
            now,
            NewFlow {
                tag,
                path: &way.path,
                bytes,
                delay: way.delay,
            },
        );
    }

    /// Blocks that were prefetched are in host memory.
    pub(super) fn raised(&mut self, now: Time, worker: WorkerId, blocks: &[BlockRun]) {
        let host = self.tiers(worker).tiers[0].0;
        self.levels[host].store.arrive(now, blocks);
    }
}

/// Whether tiers have something to read up and somewhere to read it to.
#[must_use]
pub fn can_prefetch(media: &[Medium]) -> bool {
    media.len() > 1 && media[0] == Medium::Host
}
