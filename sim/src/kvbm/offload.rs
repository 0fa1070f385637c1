//! Offload: which blocks go down, from tier to tier.

use super::runs::{self, BlockRun, runs_of};
use super::spec::OffloadPolicy;
use super::{Kvbm, Level, Move};
use crate::event::WorkerId;
use crate::links::NewFlow;
use engine::kv_cache::block_path;
use engine::{KvEvent, RequestId, Time, Workload};

impl Kvbm {
    /// A worker has computed the tokens `from..to` of a request: their whole blocks are copied down.
    pub fn computed(
        &mut self,
        now: Time,
        worker: WorkerId,
        request: RequestId,
        (from, to): (u32, u32),
        workload: &Workload,
    ) {
        let tiers = self.tiers(worker);
        if tiers.offload == OffloadPolicy::OnEvict {
            return;
        }
        let (lo, hi) = (from / tiers.block_size, to / tiers.block_size);
        if lo >= hi {
            return;
        }
        let asked = &workload.requests[request.0 as usize];
        let block_size = tiers.block_size;
        block_path(&workload.tree, asked.leaf, block_size, &mut self.path);
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.clear();
        blocks.extend(runs_of(&self.path, lo, hi));
        self.offer(now, worker, 0, &blocks, asked.priority);
        self.blocks = blocks;
    }

    /// A prompt is computed whose client pins it: its whole blocks stay in the worker's first tier for that time. Blocks that
    /// another request brings there later are not pinned for this one.
    pub fn pin(&mut self, now: Time, worker: WorkerId, request: RequestId, workload: &Workload) {
        let pin = workload.annotations_of(request).and_then(|said| said.pin);
        let Some(until) = pin.map(|pin| now + pin) else {
            return;
        };
        let tiers = self.tiers(worker);
        let (block_size, first) = (tiers.block_size, tiers.tiers[0].0);
        let asked = &workload.requests[request.0 as usize];
        block_path(&workload.tree, asked.leaf, block_size, &mut self.path);
        let blocks = runs_of(&self.path, 0, asked.input_tokens / block_size);
        self.levels[first].store.pin(blocks, until);
    }

    /// A worker's cache evicted blocks.
    pub fn evicted(&mut self, now: Time, worker: WorkerId, events: &[KvEvent]) {
        for event in events {
            if let KvEvent::Removed { node, lo, hi } = *event {
                self.offer(now, worker, 0, &[BlockRun { node, lo, hi }], 0);
            }
        }
    }

    /// Blocks arrived in a worker's tier of that rank.
    pub(super) fn sank(
        &mut self,
        now: Time,
        worker: WorkerId,
        rank: usize,
        blocks: &[BlockRun],
        priority: i32,
    ) {
        let level = self.tiers(worker).tiers[rank].0;
        self.levels[level].store.arrive(now, blocks);
        if self.tiers(worker).offload == OffloadPolicy::WriteThrough {
            self.offer(now, worker, rank + 1, blocks, priority);
        }
    }

    /// Blocks are offered to a worker's tier of that rank, if it has one: what is let in and finds room is sent there.
    pub(super) fn offer(
        &mut self,
        now: Time,
        worker: WorkerId,
        rank: usize,
        blocks: &[BlockRun],
        priority: i32,
    ) {
        let tiers = self.tiers(worker);
        let Some(&(level, _)) = tiers.tiers.get(rank) else {
            return;
        };
        let (block_bytes, spills) = (tiers.block_bytes, tiers.offload == OffloadPolicy::OnEvict);
        let level = &mut self.levels[level];
        let offered = match level.let_in(now, blocks) {
            None => level.store.offer(now, blocks, priority),
            Some(let_in) => level.store.offer(now, &let_in, priority),
        };
        level.record.evicted_blocks += runs::count(&offered.evicted);
        level.record.dropped_blocks += offered.dropped_blocks;
        let taken = runs::count(&offered.taken);
        level.record.offloaded_blocks += taken;
        level.record.offloaded_bytes += taken * block_bytes;
        if taken > 0 {
            let tag = self.name(Move::Down(worker, rank, offered.taken, priority));
            let tiers = self.workers[worker.0 as usize].as_ref();
            let way = &tiers.expect("it has tiers").tiers[rank].1.down;
            self.fabric.start(
                now,
                NewFlow {
                    tag,
                    path: &way.path,
                    bytes: taken * block_bytes,
                    delay: way.delay,
                },
            );
        }
        if spills && !offered.evicted.is_empty() {
            self.offer(now, worker, rank + 1, &offered.evicted, priority);
        }
    }
}

impl Level {
    /// What passes the filter, if there is one; blocks that are here already pass without being counted.
    fn let_in(&mut self, now: Time, blocks: &[BlockRun]) -> Option<Vec<BlockRun>> {
        let filter = self.filter.as_mut()?;
        let mut missing = Vec::new();
        for &run in blocks {
            self.store.lacks(run, &mut missing);
        }
        let mut passed = Vec::new();
        for &run in &missing {
            filter.pass(now, run, &mut passed);
        }
        self.record.filtered_blocks += runs::count(&missing) - runs::count(&passed);
        Some(passed)
    }
}
