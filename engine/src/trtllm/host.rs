//! TensorRT-LLM's secondary pool: blocks in host memory that the primary one evicted.
//!
//! In words: a block that loses its place on the GPU, and of which no copy is left there, moves to host memory, where the
//! block that came first makes room. A prompt that starts takes from there the blocks that follow what it finds on the
//! GPU, without a gap: they move back. The step waits for both copies. A block that is computed again although it is in host
//! memory stays there as well, and counts as new when it comes again.
//!
//! Source: TensorRT-LLM's `kvCacheManager.cpp` (`getFreeBlock`, `onboardBlock`, `offloadBlock`) and its documents on KV cache
//! reuse and host offloading (`kv_cache_config.host_cache_size`, `secondary_offload_min_priority`).

// Model: blocks have the default priority, at which all are offloaded; retention by request is not known.

use crate::host_pool::{HostPool, HostUse, WritePolicy};
use crate::kv_cache::{KvCache, KvEvent, Stretch};
use crate::plan::HostCopies;
use crate::prefix_tree::NodeId;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// A block by its place: the node that ends it, and its index in the sequence.
type Place = (NodeId, u32);

/// Blocks in host memory.
#[derive(Debug, Clone)]
pub(super) struct SecondaryPool {
    block_size: u32,
    blocks: usize,
    /// When each came.
    stamps: FxHashMap<Place, u64>,
    /// The first that came on top.
    queue: BTreeMap<u64, Place>,
    clock: u64,
    used: HostUse,
    copies: HostCopies,
    /// Events of the cache that were looked at.
    seen: usize,
}

impl SecondaryPool {
    pub fn new(pool: HostPool, block_size: u32) -> SecondaryPool {
        assert!(
            pool.write_policy == WritePolicy::WriteBack && pool.tokens >= block_size,
            "blocks are copied when they are evicted, and one fits at least"
        );
        SecondaryPool {
            block_size,
            blocks: (pool.tokens / block_size) as usize,
            stamps: FxHashMap::default(),
            queue: BTreeMap::new(),
            clock: 0,
            used: HostUse::default(),
            copies: HostCopies::default(),
            seen: 0,
        }
    }

    /// How many blocks of a content are here from block `from` on without a gap, none behind block `limit`.
    pub fn matched(&self, path: &[Stretch], from: u32, limit: u32) -> u32 {
        let places = places(path, from, limit);
        places
            .take_while(|place| self.stamps.contains_key(place))
            .count() as u32
    }

    /// The same, and they leave for the GPU.
    pub fn take(&mut self, path: &[Stretch], from: u32, limit: u32) -> u32 {
        let blocks = self.matched(path, from, limit);
        for place in places(path, from, from + blocks) {
            let stamp = self.stamps.remove(&place).expect("it was matched");
            self.queue.remove(&stamp);
        }
        let tokens = blocks * self.block_size;
        self.used.held -= tokens;
        self.used.loaded += u64::from(tokens);
        self.copies.loaded_tokens += tokens;
        blocks
    }

    /// Takes in what the cache evicted since the last look.
    pub fn take_evicted(&mut self, cache: &KvCache) {
        let mut evicted = Vec::new();
        for event in &cache.events()[self.seen..] {
            if let KvEvent::Removed { node, lo, hi } = *event {
                evicted.extend((lo..hi).rev().map(|block| (node, block)));
            }
        }
        self.seen = cache.events().len();
        // Of several copies that went, the last one moves.
        let mut later = FxHashSet::default();
        let mut moves: Vec<bool> = Vec::with_capacity(evicted.len());
        for &(node, block) in evicted.iter().rev() {
            moves.push(later.insert((node, block)) && !cache.holds(node, block));
        }
        for (place, moves) in evicted.into_iter().zip(moves.into_iter().rev()) {
            if moves {
                self.put(place);
            }
        }
    }

    fn put(&mut self, place: Place) {
        self.clock += 1;
        if let Some(stamp) = self.stamps.insert(place, self.clock) {
            self.queue.remove(&stamp);
        } else {
            self.used.written += u64::from(self.block_size);
            self.copies.written_tokens += self.block_size;
            if self.queue.len() == self.blocks {
                let (_, first) = self.queue.pop_first().expect("a block fits at least");
                self.stamps.remove(&first);
                self.used.evicted += u64::from(self.block_size);
            } else {
                self.used.held += self.block_size;
                self.used.peak = self.used.peak.max(self.used.held);
            }
        }
        self.queue.insert(self.clock, place);
    }

    /// What the next step waits for.
    pub fn take_copies(&mut self) -> HostCopies {
        std::mem::take(&mut self.copies)
    }

    /// The cache's events are gone.
    pub fn forget_events(&mut self) {
        self.seen = 0;
    }

    pub fn used(&self) -> HostUse {
        self.used
    }
}

/// Blocks `lo..hi` of a content by their places.
fn places(path: &[Stretch], lo: u32, hi: u32) -> impl Iterator<Item = Place> {
    let mut start = 0;
    path.iter().flat_map(move |stretch| {
        let from = std::mem::replace(&mut start, stretch.end).max(lo);
        (from..stretch.end.min(hi)).map(|block| (stretch.node, block))
    })
}
