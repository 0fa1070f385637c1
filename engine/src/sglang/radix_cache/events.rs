//! What routers learn: pages that entered the tree and pages that left it, by their places.

use super::{RadixCache, RadixId};
use crate::kv_cache::KvEvent;
use crate::prefix_tree::NodeId;
use crate::sglang::place::Place;

impl RadixCache {
    /// Pages from token `start` to token `end` of a content entered the tree.
    pub(super) fn note_stored(&mut self, path: &[Place], start: u32, end: u32) {
        let page = self.page_size;
        let from = path.partition_point(|place| place.end / page <= start / page);
        let mut lo = start / page;
        let mut continues = false;
        for place in &path[from..] {
            let hi = (place.end / page).min(end / page);
            if lo < hi {
                let node = place.node;
                self.events.push(KvEvent::Stored {
                    node,
                    lo,
                    hi,
                    continues,
                });
                continues = true;
                lo = hi;
            }
            if place.end >= end {
                return;
            }
        }
    }

    /// A node leaves the tree, its last page first.
    pub(super) fn note_removed(&mut self, id: RadixId) {
        let mut events = std::mem::take(&mut self.events);
        self.each_place(id, |node, lo, hi| {
            events.push(KvEvent::Removed { node, lo, hi });
        });
        self.events = events;
    }

    /// The pages of a node by their places, the last first.
    pub(super) fn each_place(&self, id: RadixId, mut pages: impl FnMut(NodeId, u32, u32)) {
        let page = self.page_size;
        let node = &self.nodes[id.0 as usize];
        let (first, mut hi, mut tip) = (node.start / page, node.end / page, node.tip);
        while hi > first {
            let lo = (self.workload.tree.start(tip) / page).clamp(first, hi);
            if lo < hi {
                pages(tip, lo, hi);
                hi = lo;
            }
            tip = self.workload.tree.parent(tip);
        }
    }
}
