//! What workers say about their caches, on its way into an index.

use super::indexer::chain::Piece;
use super::indexer::{PlacedChain, RadixTree, Rank};
use engine::prefix_tree::PrefixTree;
use engine::{KvEvent, NodeId};

/// Takes in what happened in the cache of a rank, in order.
pub fn apply(
    index: &mut RadixTree<PlacedChain>,
    rank: Rank,
    events: &[KvEvent],
    tree: &PrefixTree,
    block_size: u32,
) {
    let mut stored = PlacedChain::default();
    let mut events = events.iter().copied().peekable();
    while let Some(event) = events.next() {
        match event {
            KvEvent::Removed { node, lo, hi } => {
                index.remove_run(rank, node, lo, hi);
            }
            KvEvent::Stored { node, lo, hi, .. } => {
                stored.0.clear();
                stored.0.push(Piece { node, lo, hi });
                while let Some(KvEvent::Stored { node, lo, hi, .. }) = events.next_if(|next| {
                    matches!(
                        next,
                        KvEvent::Stored {
                            continues: true,
                            ..
                        }
                    )
                }) {
                    stored.0.push(Piece { node, lo, hi });
                }
                let parent = block_before(tree, node, lo, block_size);
                // A parent that is not known (lost, or removed with another copy) loses what follows it, as in the real
                // index.
                let _unknown = index.store(rank, parent, &stored);
            }
        }
    }
}

/// The place of the block in front of block `lo` of `node`.
fn block_before(
    tree: &PrefixTree,
    mut node: NodeId,
    lo: u32,
    block_size: u32,
) -> Option<(NodeId, u32)> {
    // The block before ends with token `lo * block_size - 1`.
    let end = lo * block_size;
    while lo > 0 && tree.start(node) >= end {
        node = tree.parent(node);
    }
    (lo > 0).then(|| (node, lo - 1))
}
