//! The order of dfs-weight (S10): a walk down the tree that takes the subtree for which most requests wait first; ties in
//! the order in which the parent got its children; what waits for a node itself comes after what waits below it.

use super::{RadixCache, RadixId};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;

impl RadixCache {
    /// Numbers of waiting requests by the node at which their match ends, as the order of a depth-first walk that takes
    /// the heaviest subtree first; ties in the order in which the parent got its children. Returns indices into `ends` (S10).
    pub fn depth_first_by_weight(&self, ends: &[RadixId]) -> Vec<usize> {
        let mut weight: FxHashMap<RadixId, u32> = FxHashMap::default();
        let mut at_node: FxHashMap<RadixId, Vec<usize>> = FxHashMap::default();
        for (index, &end) in ends.iter().enumerate() {
            at_node.entry(end).or_default().push(index);
            let mut id = end;
            loop {
                *weight.entry(id).or_default() += 1;
                if id == RadixCache::ROOT {
                    break;
                }
                id = self.nodes[id.0 as usize].parent;
            }
        }
        // Subtrees without a waiting request add nothing to the order.
        let mut below: FxHashMap<RadixId, Vec<RadixId>> = FxHashMap::default();
        for &id in weight.keys().filter(|&&id| id != RadixCache::ROOT) {
            below
                .entry(self.nodes[id.0 as usize].parent)
                .or_default()
                .push(id);
        }
        let mut order = Vec::with_capacity(ends.len());
        let mut stack = vec![(RadixCache::ROOT, false)];
        while let Some((id, is_done)) = stack.pop() {
            if is_done {
                order.extend(at_node.remove(&id).into_iter().flatten());
                continue;
            }
            stack.push((id, true));
            let mut children = below.remove(&id).unwrap_or_default();
            let rank =
                |child: &RadixId| (Reverse(weight[child]), self.nodes[child.0 as usize].born);
            children.sort_by_key(rank);
            stack.extend(children.into_iter().rev().map(|child| (child, false)));
        }
        order
    }
}
