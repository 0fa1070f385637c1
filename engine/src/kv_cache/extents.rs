//! Extents: runs of findable blocks that share one fate, their copies per content, and the queue in which idle ones
//! wait for eviction.

use super::belady::{Foresight, NEVER};
use super::table::{BlockId, Held, Table};
use crate::prefix_tree::NodeId;
use rustc_hash::FxHashMap;
use std::ops::{Index, IndexMut};

/// Index of an extent.
pub(super) type ExtentId = u32;

/// No extent.
pub(super) const NONE: ExtentId = ExtentId::MAX;

/// What a router learns about a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvEvent {
    /// Blocks `lo..hi` of `node` became findable.
    Stored {
        /// Their place in the prefix tree.
        node: NodeId,
        /// Index of the first.
        lo: u32,
        /// Index behind the last.
        hi: u32,
        /// Stored by the same allocation as the event before, directly behind its blocks: vLLM reports one event.
        continues: bool,
    },
    /// One copy of each of the blocks `lo..hi` of `node` was evicted, the last block first; one event each.
    Removed {
        /// Their place in the prefix tree.
        node: NodeId,
        /// Index of the first.
        lo: u32,
        /// Index behind the last.
        hi: u32,
    },
}

/// Findable blocks `lo..hi` of one node with one reference count.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    pub node: NodeId,
    pub lo: u32,
    pub hi: u32,
    /// Sequences that hold it; at 0 it is idle and in the queue.
    refs: u32,
    /// Neighbours in the queue.
    older: ExtentId,
    pub newer: ExtentId,
    /// Next extent of the same node, in order of insertion.
    sibling: ExtentId,
    /// What was cut off behind it; tables that held both find it here.
    pub rest: ExtentId,
    /// Ids of the blocks, if tracked.
    pub ids: Vec<BlockId>,
}

impl Extent {
    fn len(&self) -> u32 {
        self.hi - self.lo
    }

    fn covers(&self, block: u32) -> bool {
        self.lo <= block && block < self.hi
    }
}

/// All extents of a cache.
#[derive(Debug, Clone)]
pub(super) struct Extents {
    slots: Vec<Extent>,
    vacant: Vec<ExtentId>,
    /// First extent of each node.
    by_node: FxHashMap<NodeId, ExtentId>,
    oldest: ExtentId,
    newest: ExtentId,
    idle_blocks: u32,
    tracks_events: bool,
    pub events: Vec<KvEvent>,
    pub stored: u64,
    pub removed: u64,
    pub distinct: u64,
}

impl Index<ExtentId> for Extents {
    type Output = Extent;
    fn index(&self, id: ExtentId) -> &Extent {
        &self.slots[id as usize]
    }
}

impl IndexMut<ExtentId> for Extents {
    fn index_mut(&mut self, id: ExtentId) -> &mut Extent {
        &mut self.slots[id as usize]
    }
}

impl Extents {
    pub fn new(tracks_events: bool) -> Self {
        Extents {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_node: FxHashMap::default(),
            oldest: NONE,
            newest: NONE,
            idle_blocks: 0,
            tracks_events,
            events: Vec::new(),
            stored: 0,
            removed: 0,
            distinct: 0,
        }
    }

    pub fn keep_events(&mut self) {
        self.tracks_events = true;
    }

    pub fn idle_blocks(&self) -> u32 {
        self.idle_blocks
    }

    pub fn is_idle(&self, extent: ExtentId) -> bool {
        self[extent].refs == 0
    }

    pub fn oldest(&self) -> ExtentId {
        self.oldest
    }

    /// The copy of block `block` of `node` that was inserted first, and the block up to which it stays the first copy.
    pub fn first_copy_at(&self, node: NodeId, block: u32) -> Option<(ExtentId, u32)> {
        let mut extent = *self.by_node.get(&node)?;
        let mut end = u32::MAX;
        while extent != NONE {
            let e = &self[extent];
            if e.covers(block) {
                return Some((extent, end.min(e.hi)));
            }
            if e.lo > block {
                end = end.min(e.lo);
            }
            extent = e.sibling;
        }
        None
    }

    /// Adds a holder to the blocks of `piece`, cutting the extent so that they stand alone.
    pub fn share(&mut self, piece: Held) -> Held {
        let mut extent = piece.extent;
        // An earlier piece of the same lookup may have cut this extent.
        while self[extent].hi <= piece.lo {
            extent = self[extent].rest;
        }
        if self[extent].lo < piece.lo {
            extent = self.cut(extent, piece.lo);
        }
        if piece.hi < self[extent].hi {
            self.cut(extent, piece.hi);
        }
        if self[extent].refs == 0 {
            self.unqueue(extent);
        }
        self[extent].refs += 1;
        Held { extent, ..piece }
    }

    /// Takes a holder from the blocks of `held`; extents that nobody holds any more join the queue, the last first.
    pub fn unshare(&mut self, held: Held) {
        let last = self[held.extent].hi;
        if last < held.hi {
            let rest = self[held.extent].rest;
            self.unshare(Held {
                extent: rest,
                lo: last,
                hi: held.hi,
            });
        }
        self[held.extent].refs -= 1;
        if self[held.extent].refs == 0 {
            self.enqueue(held.extent);
        }
    }

    /// The same, but they join the queue at its front, the last of them foremost.
    pub fn unshare_first(&mut self, held: Held) {
        let (last, rest) = (self[held.extent].hi, self[held.extent].rest);
        self[held.extent].refs -= 1;
        if self[held.extent].refs == 0 {
            self.enqueue_first(held.extent);
        }
        if last < held.hi {
            self.unshare_first(Held {
                extent: rest,
                lo: last,
                hi: held.hi,
            });
        }
    }

    /// Cuts blocks that somebody holds in front of block `at`, which is one of them but not the first.
    pub fn split(&mut self, held: Held, at: u32) -> (Held, Held) {
        let mut extent = held.extent;
        while self[extent].hi <= at {
            extent = self[extent].rest;
        }
        if self[extent].lo < at {
            extent = self.cut(extent, at);
        }
        let upper = Held {
            extent,
            lo: at,
            ..held
        };
        (Held { hi: at, ..held }, upper)
    }

    /// Evicts `count` blocks from the front of the queue and hands their ids over.
    pub fn evict(&mut self, mut count: u32, mut ids: Option<&mut Vec<BlockId>>) {
        while count > 0 {
            let extent = self.oldest;
            assert!(
                extent != NONE,
                "the caller checked that enough blocks are free"
            );
            let taken = count.min(self[extent].len());
            self.evict_tail(extent, taken, ids.as_deref_mut());
            count -= taken;
        }
    }

    /// Evicts `count` idle blocks, those first that are used again last, and hands their ids over.
    pub fn evict_farthest(
        &mut self,
        mut count: u32,
        foresight: &mut Foresight,
        mut ids: Option<&mut Vec<BlockId>>,
    ) {
        while count > 0 {
            let (extent, blocks) = self.farthest(foresight);
            let taken = count.min(blocks);
            self.evict_tail(extent, taken, ids.as_deref_mut());
            count -= taken;
        }
    }

    /// The idle extent whose last block is used again last, and how many blocks at its end share that fate. The deepest
    /// of several, of those the oldest.
    fn farthest(&self, foresight: &mut Foresight) -> (ExtentId, u32) {
        let mut best = (None, (0, 0), 0);
        let mut extent = self.oldest;
        while extent != NONE {
            let e = &self[extent];
            let last = e.hi - 1;
            let (next_use, from) = match self.copied_from(extent) {
                Some(from) => (NEVER, from),
                None => (foresight.next_use(e.node, last), e.lo),
            };
            if best.0.is_none() || (next_use, last) > best.1 {
                best = (Some(extent), (next_use, last), from);
            }
            extent = e.newer;
        }
        let (found, (next_use, last), from) = best;
        let extent = found.expect("the caller checked that enough blocks are free");
        if self.copied_from(extent).is_some() {
            return (extent, last + 1 - from);
        }
        let node = self[extent].node;
        let (mut low, mut high) = (from, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if foresight.next_use(node, middle) < next_use {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (extent, last + 1 - low)
    }

    /// From which block on up to its last another extent holds copies of its blocks, if that has the last.
    fn copied_from(&self, extent: ExtentId) -> Option<u32> {
        let e = &self[extent];
        let mut other = self.by_node[&e.node];
        while other != NONE {
            if other != extent && self[other].covers(e.hi - 1) {
                return Some(self[other].lo.max(e.lo));
            }
            other = self[other].sibling;
        }
        None
    }

    /// Evicts the last `taken` blocks of an idle extent.
    fn evict_tail(&mut self, extent: ExtentId, taken: u32, ids: Option<&mut Vec<BlockId>>) {
        let (node, hi) = (self[extent].node, self[extent].hi);
        let lo = hi - taken;
        let first = self.by_node[&node];
        let is_only = first == extent && self[extent].sibling == NONE;
        self[extent].hi = lo;
        if let Some(ids) = ids {
            let cut = self[extent].ids.len() - taken as usize;
            ids.extend(self[extent].ids.drain(cut..).rev());
        }
        self.idle_blocks -= taken;
        self.removed += u64::from(taken);
        if self.tracks_events {
            self.events.push(KvEvent::Removed { node, lo, hi });
        }
        if self[extent].len() == 0 {
            self.unqueue(extent);
            self.forget(extent, first);
        }
        self.distinct -= if is_only {
            u64::from(taken)
        } else {
            self.uncovered(self.by_node.get(&node).copied(), lo, hi)
        };
    }

    /// Makes blocks `table.hashed()..hi` findable as blocks of `node` held by `table`, growing the table's last extent
    /// where nobody could tell the difference.
    pub fn store(
        &mut self,
        table: &mut Table,
        node: NodeId,
        hi: u32,
        mut ids: Vec<BlockId>,
        continues: bool,
    ) {
        let lo = table.hashed();
        self.stored += u64::from(hi - lo);
        let first = self.by_node.get(&node).copied();
        self.distinct += self.uncovered(first, lo, hi);
        if self.tracks_events {
            self.events.push(KvEvent::Stored {
                node,
                lo,
                hi,
                continues,
            });
        }
        if let Some(held) = table.last_held() {
            let mut last = held.extent;
            while self[last].hi < held.hi {
                last = self[last].rest;
            }
            let is_own = self[last].node == node && self[last].refs == 1;
            if is_own && !self.has_younger_copy(last, lo, hi) {
                self[last].hi = hi;
                self[last].ids.append(&mut ids);
                table.extend_last(hi);
                return;
            }
        }
        let extent = self.add(Extent {
            node,
            lo,
            hi,
            refs: 1,
            older: NONE,
            newer: NONE,
            sibling: NONE,
            rest: NONE,
            ids,
        });
        match first {
            None => {
                self.by_node.insert(node, extent);
            }
            Some(first) => {
                let mut last = first;
                while self[last].sibling != NONE {
                    last = self[last].sibling;
                }
                self[last].sibling = extent;
            }
        }
        table.push_held(Held { extent, lo, hi });
    }

    /// How many of the blocks `lo..hi` no extent covers, of those from `first` on.
    fn uncovered(&self, first: Option<ExtentId>, lo: u32, hi: u32) -> u64 {
        let Some(first) = first else {
            return u64::from(hi - lo);
        };
        if !self.siblings(first).any(|e| e.lo < hi && lo < e.hi) {
            return u64::from(hi - lo);
        }
        (lo..hi)
            .filter(|&block| !self.siblings(first).any(|e| e.covers(block)))
            .count() as u64
    }

    fn siblings(&self, first: ExtentId) -> impl Iterator<Item = &Extent> {
        let mut next = first;
        std::iter::from_fn(move || {
            let extent = self.slots.get(next as usize)?;
            next = extent.sibling;
            Some(extent)
        })
    }

    /// True if a copy of one of the blocks `lo..hi` stands behind `extent` in the order of insertion.
    fn has_younger_copy(&self, extent: ExtentId, lo: u32, hi: u32) -> bool {
        self.siblings(self[extent].sibling)
            .any(|e| e.lo < hi && lo < e.hi)
    }

    /// Cuts an extent in front of block `at` and returns the upper part.
    fn cut(&mut self, extent: ExtentId, at: u32) -> ExtentId {
        let e = &mut self.slots[extent as usize];
        debug_assert!(e.lo < at && at < e.hi, "both parts of a cut hold blocks");
        let upper = Extent {
            lo: at,
            ids: if e.ids.is_empty() {
                Vec::new()
            } else {
                e.ids.split_off((at - e.lo) as usize)
            },
            newer: extent,
            ..e.clone_links()
        };
        e.hi = at;
        let (refs, older) = (e.refs, e.older);
        let upper = self.add(upper);
        self[extent].sibling = upper;
        self[extent].rest = upper;
        if refs == 0 {
            // Its blocks come first: the tail of an idle extent is evicted before its head.
            self[extent].older = upper;
            self.link_after(older, upper);
        }
        upper
    }

    fn add(&mut self, extent: Extent) -> ExtentId {
        if let Some(id) = self.vacant.pop() {
            self[id] = extent;
            id
        } else {
            self.slots.push(extent);
            (self.slots.len() - 1) as ExtentId
        }
    }

    /// Takes an empty extent out of its node's list, which begins with `first`, and frees its slot.
    fn forget(&mut self, extent: ExtentId, first: ExtentId) {
        let (node, sibling) = (self[extent].node, self[extent].sibling);
        if first == extent {
            if sibling == NONE {
                self.by_node.remove(&node);
            } else {
                self.by_node.insert(node, sibling);
            }
        } else {
            let mut before = first;
            while self[before].sibling != extent {
                before = self[before].sibling;
            }
            self[before].sibling = sibling;
        }
        self.vacant.push(extent);
    }

    fn enqueue(&mut self, extent: ExtentId) {
        let newest = self.newest;
        self[extent].older = newest;
        self[extent].newer = NONE;
        self.link_after(newest, extent);
        self.newest = extent;
        self.idle_blocks += self[extent].len();
    }

    fn enqueue_first(&mut self, extent: ExtentId) {
        let oldest = self.oldest;
        self[extent].older = NONE;
        self[extent].newer = oldest;
        if oldest == NONE {
            self.newest = extent;
        } else {
            self[oldest].older = extent;
        }
        self.oldest = extent;
        self.idle_blocks += self[extent].len();
    }

    fn unqueue(&mut self, extent: ExtentId) {
        let (older, newer) = (self[extent].older, self[extent].newer);
        self.link_after(older, newer);
        if newer == NONE {
            self.newest = older;
        } else {
            self[newer].older = older;
        }
        self.idle_blocks -= self[extent].len();
    }

    /// Makes `newer` follow `older` in the queue; `NONE` stands for its front.
    fn link_after(&mut self, older: ExtentId, newer: ExtentId) {
        if older == NONE {
            self.oldest = newer;
        } else {
            self[older].newer = newer;
        }
    }
}

impl Extent {
    /// A copy without block ids.
    fn clone_links(&self) -> Extent {
        Extent {
            ids: Vec::new(),
            ..*self
        }
    }
}
