//! The KV cache of one worker: vLLM's block pool, exactly, at a cost that follows decisions and not blocks.
//!
//! vLLM keeps a pool of blocks with reference counts, a queue of free blocks that is also the eviction order, and a
//! table from block hash to the blocks that hold it. The rules (numbers as in the recorded cases, `tests/golden/vllm`):
//!
//! * R7  a new block is popped from the front of the queue; if it still holds a cached content it is evicted then.
//! * R8  blocks become findable inside the allocation that fills them; equal blocks are not merged, a lookup finds the
//!   copy that was inserted first.
//! * R11 a sequence frees its blocks tail first: those without a content go to the front of the queue, cached ones to
//!   the back, so that a sequence's tail is evicted before its head.
//! * R4  a hit on a free block takes it out of the middle of the queue.
//!
//! Consecutive blocks of one sequence live alike: they are filled, shared, freed and evicted together, from the tail.
//! So the cache keeps [extents](Extent): runs of blocks with one reference count and one place in the queue. An extent
//! is cut where a hit ends inside it, and shrinks from its tail when blocks are popped. A block's content is its place
//! in the [prefix tree](crate::prefix_tree): the node of its last token, and its index in the sequence.
//!
//! Blocks without content are always at the very front of the queue, last in first out: a stack. Which physical block
//! is which matters to an executor and to a recorded case, but to no decision; ids are tracked only when asked for.
//!
//! Blocks that are known to be [of no further use](KvCache::release_ephemeral) go to the front of the queue instead, the last of
//! them first. No engine of this version does that; schedulers with retention priorities do (TensorRT-LLM's, Dynamo's plans).
//!
//! A cache that [foresees](KvCache::foresee) the workload evicts in the order of `belady.rs` instead of R7's.

mod belady;
mod extents;
mod table;

use crate::prefix_tree::NodeId;
use crate::workload::{RequestId, Workload};
use belady::Foresight;
pub use extents::KvEvent;
use extents::{Extents, NONE};
pub use table::{BlockId, Stretch, Table, block_path};

/// Size and habits of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCacheConfig {
    /// Tokens per block.
    pub block_size: u32,
    /// Blocks, vLLM's null block included (R6): one fewer can be used.
    pub num_gpu_blocks: u32,
    /// Whether blocks keep their contents when they are freed.
    pub enable_prefix_caching: bool,
    /// Keep block ids, for executors and recorded cases.
    pub track_block_ids: bool,
    /// Keep a log of stored and removed blocks, for routers.
    pub track_events: bool,
}

/// The longest cached prefix of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hit {
    /// Cached blocks (H of rule R5).
    pub blocks: u32,
    /// Those of them that nobody uses and that sit in the free queue (E of rule R5).
    pub idle_blocks: u32,
}

/// A pool of KV blocks.
#[derive(Debug, Clone)]
pub struct KvCache {
    config: KvCacheConfig,
    extents: Extents,
    /// Free blocks without content; the next to be allocated is on top.
    blank: u32,
    blank_ids: Vec<BlockId>,
    /// The extents of the last lookup, for the admission that may follow it.
    found: Vec<table::Held>,
    foresight: Option<Box<Foresight>>,
}

impl KvCache {
    /// A pool whose blocks are all free and blank.
    #[must_use]
    pub fn new(config: KvCacheConfig) -> Self {
        assert!(
            config.block_size > 0 && config.num_gpu_blocks > 1,
            "a pool has room for a block"
        );
        let blank_ids = if config.track_block_ids {
            (1..config.num_gpu_blocks).rev().collect()
        } else {
            Vec::new()
        };
        KvCache {
            config,
            extents: Extents::new(config.track_events),
            blank: config.num_gpu_blocks - 1,
            blank_ids,
            found: Vec::new(),
            foresight: None,
        }
    }

    /// Evicts from now on by knowledge of the workload: what is used again last goes first. An oracle, not an engine.
    pub fn foresee(&mut self, workload: &Workload) {
        let foresight = Foresight::new(workload, self.config.block_size);
        self.foresight = Some(Box::new(foresight));
    }

    /// A request of the workload came. Nothing without foresight, as in the three calls below.
    pub fn announce(&mut self, request: RequestId) {
        if let Some(foresight) = &mut self.foresight {
            foresight.announce(request);
        }
    }

    /// A step is planned: requests that came are known to wait from now on.
    pub fn hear(&mut self) {
        if let Some(foresight) = &mut self.foresight {
            foresight.hear();
        }
    }

    /// A request takes what it found.
    pub fn start(&mut self, request: RequestId) {
        if let Some(foresight) = &mut self.foresight {
            foresight.start(request);
        }
    }

    /// A request lost its blocks and will look them up again.
    pub fn expect_again(&mut self, request: RequestId, path: &[Stretch]) {
        if let Some(foresight) = &mut self.foresight {
            foresight.expect_again(request, path);
        }
    }

    /// Tokens per block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.config.block_size
    }

    /// Blocks that sequences can use.
    #[must_use]
    pub fn usable_blocks(&self) -> u32 {
        self.config.num_gpu_blocks - 1
    }

    /// Blocks in the free queue, cached ones included.
    #[must_use]
    pub fn free_blocks(&self) -> u32 {
        self.blank + self.extents.idle_blocks()
    }

    /// Free blocks without content: so many can be taken before one is evicted.
    #[must_use]
    pub fn blank_blocks(&self) -> u32 {
        self.blank
    }

    /// True if there are events that nobody took yet.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.extents.events.is_empty()
    }

    /// Distinct contents that a lookup can find.
    #[must_use]
    pub fn distinct_blocks(&self) -> u64 {
        self.extents.distinct
    }

    /// Blocks that entered the hash table and that were evicted from it, since the start.
    #[must_use]
    pub fn stored_and_removed(&self) -> (u64, u64) {
        (self.extents.stored, self.extents.removed)
    }

    /// Blocks needed for `tokens` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.config.block_size)
    }

    /// The longest cached prefix of at most `limit` blocks. Changes nothing; [`KvCache::admit`] takes what was found.
    pub fn lookup(&mut self, path: &[Stretch], limit: u32) -> Hit {
        self.found.clear();
        if !self.config.enable_prefix_caching {
            return Hit::default();
        }
        let mut hit = Hit::default();
        for stretch in path {
            let until = stretch.end.min(limit);
            while hit.blocks < until {
                let Some((extent, end)) = self.extents.first_copy_at(stretch.node, hit.blocks)
                else {
                    return hit;
                };
                let end = end.min(until);
                if self.extents.is_idle(extent) {
                    hit.idle_blocks += end - hit.blocks;
                }
                self.found.push(table::Held {
                    extent,
                    lo: hit.blocks,
                    hi: end,
                });
                hit.blocks = end;
            }
        }
        hit
    }

    /// Gives the blocks of the last [`KvCache::lookup`] to an empty table.
    pub fn admit(&mut self, table: &mut Table) {
        debug_assert!(
            table.blocks() == 0,
            "only a sequence without blocks is admitted"
        );
        for index in 0..self.found.len() {
            let held = self.extents.share(self.found[index]);
            table.push_held(held);
        }
        table.found = table.hashed();
        self.found.clear();
    }

    /// Lets the table grow to `blocks` blocks; the caller has checked that enough are free.
    pub fn grow(&mut self, table: &mut Table, blocks: u32) {
        let more = blocks.saturating_sub(table.blocks());
        let blank = more.min(self.blank);
        self.blank -= blank;
        if self.config.track_block_ids {
            for _ in 0..blank {
                table.blank_ids.push(
                    self.blank_ids
                        .pop()
                        .expect("there is an id for every blank block"),
                );
            }
        }
        let ids = self.config.track_block_ids.then_some(&mut table.blank_ids);
        match &mut self.foresight {
            None => self.extents.evict(more - blank, ids),
            Some(foresight) => self.extents.evict_farthest(more - blank, foresight, ids),
        }
        table.blank += more;
    }

    /// Makes the first `blocks` blocks of the table findable, those that are not yet (R8).
    pub fn publish(&mut self, table: &mut Table, path: &[Stretch], blocks: u32) {
        if !self.config.enable_prefix_caching || blocks <= table.hashed() {
            return;
        }
        debug_assert!(
            blocks <= table.blocks(),
            "only blocks that are there can be published"
        );
        let mut is_first = true;
        let from = path.partition_point(|stretch| stretch.end <= table.hashed());
        for stretch in &path[from..] {
            let (lo, hi) = (table.hashed(), stretch.end.min(blocks));
            let ids: Vec<BlockId> = if self.config.track_block_ids {
                table.blank_ids.drain(..(hi - lo) as usize).collect()
            } else {
                Vec::new()
            };
            table.blank -= hi - lo;
            self.extents.store(table, stretch.node, hi, ids, !is_first);
            is_first = false;
            if hi == blocks {
                return;
            }
        }
        unreachable!("a path covers all full blocks of its sequence");
    }

    /// Takes all blocks back from a table (R11).
    pub fn release(&mut self, table: &mut Table) {
        self.blank += table.blank;
        self.blank_ids.append(&mut table.blank_ids);
        table.blank = 0;
        while let Some(held) = table.pop_held() {
            self.extents.unshare(held);
        }
    }

    /// Keeps a log of stored and removed blocks from now on.
    pub fn keep_events(&mut self) {
        self.config.track_events = true;
        self.extents.keep_events();
    }

    /// The events since they were drained, in order.
    #[must_use]
    pub fn events(&self) -> &[KvEvent] {
        &self.extents.events
    }

    /// Whether a lookup would find a block.
    #[must_use]
    pub fn holds(&self, node: NodeId, block: u32) -> bool {
        self.extents.first_copy_at(node, block).is_some()
    }

    /// Takes all blocks back from a table. Of these, blocks from `from` on (without it, all that were not found in the cache)
    /// are the next to be evicted, unless another sequence holds them.
    pub fn release_ephemeral(&mut self, table: &mut Table, from: Option<u32>) {
        let from = from.unwrap_or(table.found);
        self.blank += table.blank;
        self.blank_ids.append(&mut table.blank_ids);
        table.blank = 0;
        let mut useless = Vec::new();
        while let Some(held) = table.pop_held() {
            if held.hi <= from {
                self.extents.unshare(held);
            } else if held.lo >= from {
                useless.push(held);
            } else {
                let (kept, rest) = self.extents.split(held, from);
                useless.push(rest);
                self.extents.unshare(kept);
            }
        }
        while let Some(held) = useless.pop() {
            self.extents.unshare_first(held);
        }
    }

    /// Moves the events since the last call to the end of `events`, in order.
    pub fn drain_events(&mut self, events: &mut Vec<KvEvent>) {
        events.append(&mut self.extents.events);
    }

    /// The block ids of a table in order. Empty unless ids are tracked.
    #[must_use]
    pub fn block_ids(&self, table: &Table) -> Vec<BlockId> {
        let mut ids = Vec::new();
        for held in table.held() {
            let mut extent = held.extent;
            let mut at = held.lo;
            while at < held.hi {
                ids.extend_from_slice(&self.extents[extent].ids);
                at = self.extents[extent].hi;
                extent = self.extents[extent].rest;
            }
        }
        ids.extend_from_slice(&table.blank_ids);
        ids
    }

    /// The ids of the free blocks, next to be allocated first. Empty unless ids are tracked.
    #[must_use]
    pub fn free_queue(&self) -> Vec<BlockId> {
        let mut ids: Vec<BlockId> = self.blank_ids.iter().rev().copied().collect();
        let mut extent = self.extents.oldest();
        while extent != NONE {
            ids.extend(self.extents[extent].ids.iter().rev());
            extent = self.extents[extent].newer;
        }
        ids
    }

    /// What the cache holds, in a form that two equal caches have in common however their extents are cut: the idle
    /// contents in the order of eviction as (node, block), the number of blank blocks, and the counters.
    #[must_use]
    pub fn fingerprint(&self) -> (Vec<(u32, u32)>, u32, [u64; 3]) {
        let mut idle = Vec::new();
        let mut extent = self.extents.oldest();
        while extent != NONE {
            let e = &self.extents[extent];
            idle.extend((e.lo..e.hi).rev().map(|block| (e.node.0, block)));
            extent = e.newer;
        }
        (
            idle,
            self.blank,
            [
                self.extents.stored,
                self.extents.removed,
                self.extents.distinct,
            ],
        )
    }
}
