//! A request's content as places in the workload's prefix tree: two contents have a token in common, and all before it,
//! exactly when its place is the same.

use crate::prefix_tree::{NodeId, PrefixTree};

/// The tokens of a request that lie in one node of the prefix tree, up to the depth `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub node: NodeId,
    pub end: u32,
}

/// The places of the content that ends in `leaf`, from the root down.
pub(super) fn places(tree: &PrefixTree, leaf: NodeId, path: &mut Vec<Place>) {
    path.clear();
    let mut node = leaf;
    while node != PrefixTree::ROOT {
        let end = tree.end(node);
        path.push(Place { node, end });
        node = tree.parent(node);
    }
    path.reverse();
}

/// The place of the token at `depth`, which the content must have.
pub(super) fn place_of(path: &[Place], depth: u32) -> NodeId {
    path[path.partition_point(|place| place.end <= depth)].node
}
