//! Which blocks a sequence has, and which contents they will hold.

use super::extents::ExtentId;
use crate::prefix_tree::{NodeId, PrefixTree};

/// The number of a physical block; 0 is vLLM's null block and never given out.
pub type BlockId = u32;

/// Blocks of a sequence whose last tokens lie in one node of the prefix tree: from the end of the stretch before up to
/// `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The node.
    pub node: NodeId,
    /// Index behind the last block.
    pub end: u32,
}

/// The full blocks of the content that ends in `leaf`, as stretches; nodes too short to end a block are left out.
pub fn block_path(tree: &PrefixTree, leaf: NodeId, block_size: u32, path: &mut Vec<Stretch>) {
    path.clear();
    let mut node = leaf;
    while node != PrefixTree::ROOT {
        let end = tree.end(node) / block_size;
        if tree.start(node) / block_size < end {
            path.push(Stretch { node, end });
        }
        node = tree.parent(node);
    }
    path.reverse();
}

/// Blocks `lo..hi` of a sequence, in `extent` and the extents that were cut off behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub extent: ExtentId,
    pub lo: u32,
    pub hi: u32,
}

/// The block table of one sequence: first the findable blocks, then those without a content yet.
#[derive(Debug, Clone, Default)]
pub struct Table {
    held: Vec<Held>,
    /// Blocks in `held`.
    hashed: u32,
    /// Blocks that were found in the cache at the start.
    pub(super) found: u32,
    pub(super) blank: u32,
    pub(super) blank_ids: Vec<BlockId>,
}

impl Table {
    /// Blocks that are findable.
    #[must_use]
    pub fn hashed(&self) -> u32 {
        self.hashed
    }

    /// All blocks.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.hashed + self.blank
    }

    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    pub(super) fn last_held(&self) -> Option<Held> {
        self.held.last().copied()
    }

    /// Lets the last extent reach up to block `hi`.
    pub(super) fn extend_last(&mut self, hi: u32) {
        self.held
            .last_mut()
            .expect("a table is extended at its last extent")
            .hi = hi;
        self.hashed = hi;
    }

    pub(super) fn push_held(&mut self, held: Held) {
        debug_assert!(held.lo == self.hashed, "tables have no holes");
        self.hashed = held.hi;
        self.held.push(held);
    }

    pub(super) fn pop_held(&mut self) -> Option<Held> {
        let held = self.held.pop()?;
        self.hashed = held.lo;
        Some(held)
    }
}
