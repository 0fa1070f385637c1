//! Which blocks the prompts of a trace are made of, so that reuse can be counted.
//!
//! A block can be reused only with everything before it, so its identity is its place in the radix tree of all prompts
//! ([`engine::PrefixTree`]): a node and a position inside. All requests that pass through a node pass through all of
//! it, so nodes, not blocks, are what reuse is counted over: exact at every block size, at a cost that follows the
//! number of places where prompts part.
//!
//! Where a trace gives its contents as block hashes and is looked at in blocks of that size, the hashes are the blocks,
//! the partial last one included, as the authors of such traces count. In every other case (token ids, conversations
//! told in deltas, another block size) tokens are compared and only whole blocks count, as in an engine.

use engine::{NodeId, PrefixTree, PrefixTreeBuilder, Run, WorkloadBuilder};

use crate::trace::{Content, Row, Trace};

/// The prompts of a trace as paths of a tree.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Tokens per block.
    pub block_size: u32,
    tree: PrefixTree,
    /// For every row, where its prompt ends.
    leaves: Vec<NodeId>,
    /// How many units of the tree's depth make a block: 1 where hashes are compared, `block_size` where tokens are.
    depth_per_block: u32,
    /// Rows whose content is known, at least in part.
    known_rows: usize,
}

impl Contents {
    /// The prompts of `trace` in its own blocks.
    #[must_use]
    pub fn of(trace: &Trace) -> Contents {
        if trace.rows.iter().all(is_told_in_hashes) {
            by_hashes(trace)
        } else {
            Contents::by_tokens(trace, trace.block_size)
        }
    }

    /// The prompts of `trace` in blocks of `block_size` tokens.
    #[must_use]
    pub fn in_blocks_of(trace: &Trace, block_size: u32) -> Contents {
        assert!(block_size > 0, "a block holds at least one token");
        if block_size == trace.block_size {
            Contents::of(trace)
        } else {
            Contents::by_tokens(trace, block_size)
        }
    }

    /// Token by token, in blocks of `block_size` tokens.
    pub(crate) fn by_tokens(trace: &Trace, block_size: u32) -> Contents {
        let mut tree = PrefixTreeBuilder::new();
        let (mut turns, mut runs) = (Vec::new(), Vec::new());
        let mut leaves = Vec::with_capacity(trace.rows.len());
        for index in 0..trace.rows.len() as u32 {
            trace.prompt_into(index, &mut turns, &mut runs);
            leaves.push(tree.insert(&runs));
        }
        let known_rows = trace
            .rows
            .iter()
            .filter(|row| row.content != Content::Private || row.extends.is_some())
            .count();
        Contents {
            block_size,
            tree: tree.finish(),
            leaves,
            depth_per_block: block_size,
            known_rows,
        }
    }

    /// Appends one id per block of a row's prompt, the partial last one included. The same blocks have the same ids.
    /// Only where tokens are compared.
    pub(crate) fn blocks_into(&self, row: usize, input_tokens: u32, ids: &mut Vec<u64>) {
        assert_eq!(
            self.depth_per_block, self.block_size,
            "ids are made from tokens"
        );
        let mut path = Vec::new();
        self.tree.path_into(self.leaves[row], &mut path);
        for node in path {
            // A block belongs to the node of its last token.
            let (from, to) = (
                self.blocks_by(self.tree.start(node)),
                self.blocks_by(self.tree.end(node)),
            );
            ids.extend((from..to).map(|block| (u64::from(node.0) << 32) | u64::from(block)));
        }
        if !input_tokens.is_multiple_of(self.block_size) {
            const PARTIAL: u64 = 1 << 31;
            ids.push((u64::from(self.leaves[row].0) << 32) | PARTIAL);
        }
    }

    /// True when the trace says nothing about any prompt's content.
    #[must_use]
    pub fn are_unknown(&self) -> bool {
        self.known_rows == 0
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// True when there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The tree of prompts; depths are in units of [`Contents::blocks_by`].
    pub(crate) fn tree(&self) -> &PrefixTree {
        &self.tree
    }

    /// Where the prompt of a row ends.
    pub(crate) fn leaf(&self, row: usize) -> NodeId {
        self.leaves[row]
    }

    /// Number of blocks that end by a depth of the tree.
    pub(crate) fn blocks_by(&self, depth: u32) -> u32 {
        depth / self.depth_per_block
    }

    /// Number of blocks whose last token lies in `node`.
    pub(crate) fn blocks_in(&self, node: NodeId) -> u32 {
        self.blocks_by(self.tree.end(node)) - self.blocks_by(self.tree.start(node))
    }

    /// Number of tokens by a depth of the tree, of a prompt of `input_tokens`.
    pub(crate) fn tokens_by(&self, depth: u32, input_tokens: u32) -> u32 {
        let tokens = u64::from(depth) * u64::from(self.block_size / self.depth_per_block);
        tokens.min(u64::from(input_tokens)) as u32
    }
}

fn is_told_in_hashes(row: &Row) -> bool {
    let is_whole = row.extends.is_none() && row.own_tokens == row.input_tokens;
    is_whole && !matches!(row.content, Content::Tokens { .. })
}

fn by_hashes(trace: &Trace) -> Contents {
    let mut tree = PrefixTreeBuilder::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut known_rows = 0;
    let mut leaves = Vec::with_capacity(trace.rows.len());
    for (index, row) in trace.rows.iter().enumerate() {
        runs.clear();
        if row.content == Content::Private {
            let len = row.input_tokens.div_ceil(trace.block_size);
            runs.push(Run {
                first: WorkloadBuilder::private_token(index as u32, 0),
                len,
            });
        } else {
            known_rows += 1;
            append_hashes(trace.blocks(row), &mut runs);
        }
        leaves.push(tree.insert(&runs));
    }
    Contents {
        block_size: trace.block_size,
        tree: tree.finish(),
        leaves,
        depth_per_block: 1,
        known_rows,
    }
}

/// Consecutive numbers, which new blocks have, become one run.
fn append_hashes(blocks: &[u32], runs: &mut Vec<Run>) {
    for &block in blocks {
        let id = u64::from(block);
        match runs.last_mut() {
            Some(run) if run.first + u64::from(run.len) == id => run.len += 1,
            _ => runs.push(Run { first: id, len: 1 }),
        }
    }
}
