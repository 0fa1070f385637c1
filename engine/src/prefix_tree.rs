//! What the tokens of all requests have in common: one radix tree over their contents, built once and shared.
//!
//! A KV block can be reused only when its *whole prefix* is equal, so the identity of a block is not the hash of its
//! tokens but its place in this tree: the node that holds the block's last token, and the block's index. Two requests
//! have the same block exactly when their paths run through the same node at that depth. The engine's block size plays
//! no part in building the tree; one tree serves every block size of a sweep.
//!
//! Contents are given as [`Run`]s of consecutive 64-bit token ids: a 512-token block of a trace is one run, a partial
//! last block is a shorter run with the same first id, and real token ids are runs of length one. Edges carry whole
//! runs, nodes split where two requests part, so the size of the tree follows the number of places where requests part
//! and not the number of tokens (12,031 requests and 149 million tokens of a conversation trace: about 24 000 nodes).

use rustc_hash::FxHashMap;

/// A node of a [`PrefixTree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// `len` tokens with the ids `first, first + 1, ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Id of the first token.
    pub first: u64,
    /// Number of tokens, at least 1.
    pub len: u32,
}

/// The finished tree: for every node its parent and the depth (in tokens from the root) at which it ends.
#[derive(Debug, Clone, Default)]
pub struct PrefixTree {
    parent: Vec<u32>,
    end: Vec<u32>,
}

impl PrefixTree {
    /// Where every content begins; ends at depth 0.
    pub const ROOT: NodeId = NodeId(0);

    /// The node before `node`; the root is its own parent.
    #[must_use]
    pub fn parent(&self, node: NodeId) -> NodeId {
        NodeId(self.parent[node.0 as usize])
    }

    /// Depth in tokens of the first token of `node`.
    #[must_use]
    pub fn start(&self, node: NodeId) -> u32 {
        self.end(self.parent(node))
    }

    /// Depth in tokens just behind the last token of `node`.
    #[must_use]
    pub fn end(&self, node: NodeId) -> u32 {
        self.end[node.0 as usize]
    }

    /// Number of nodes, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.len()
    }

    /// True when the tree holds no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.len() <= 1
    }

    /// Appends the nodes from just below the root down to `leaf`.
    pub fn path_into(&self, leaf: NodeId, path: &mut Vec<NodeId>) {
        let from = path.len();
        let mut node = leaf;
        while node != PrefixTree::ROOT {
            path.push(node);
            node = self.parent(node);
        }
        path[from..].reverse();
    }
}

/// Builds a [`PrefixTree`] one content at a time.
#[derive(Debug, Clone)]
pub struct PrefixTreeBuilder {
    tree: PrefixTree,
    /// For every node, where its content begins in `runs`: index of the run and tokens of it to skip.
    content: Vec<(u32, u32)>,
    runs: Vec<Run>,
    /// (node, first token) → child.
    children: FxHashMap<(u32, u64), u32>,
}

impl Default for PrefixTreeBuilder {
    fn default() -> Self {
        PrefixTreeBuilder::new()
    }
}

impl PrefixTreeBuilder {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        PrefixTreeBuilder {
            tree: PrefixTree {
                parent: vec![0],
                end: vec![0],
            },
            content: vec![(0, 0)],
            runs: Vec::new(),
            children: FxHashMap::default(),
        }
    }

    /// Adds one content and returns the node in which it ends. A content always ends at the end of its node; node ids
    /// stay valid when later insertions split nodes above them.
    pub fn insert(&mut self, content: &[Run]) -> NodeId {
        let mut node = 0u32;
        let mut rest = Cursor::new(content);
        while let Some(token) = rest.token() {
            let Some(&child) = self.children.get(&(node, token)) else {
                return self.add_leaf(node, rest);
            };
            let start = self.tree.end[node as usize];
            let len = self.tree.end[child as usize] - start;
            let (run, skip) = self.content[child as usize];
            let mut held = Cursor {
                runs: &self.runs[run as usize..],
                skip,
            };
            let common = held.advance_together(&mut rest, len);
            node = if common == len {
                child
            } else {
                self.split(node, child, common)
            };
        }
        NodeId(node)
    }

    /// The finished tree.
    #[must_use]
    pub fn finish(mut self) -> PrefixTree {
        self.tree.parent.shrink_to_fit();
        self.tree.end.shrink_to_fit();
        self.tree
    }

    fn add_leaf(&mut self, parent: u32, rest: Cursor<'_>) -> NodeId {
        let id = self.tree.end.len() as u32;
        let first = rest.token().expect("a leaf holds at least one token");
        let start = self.tree.end[parent as usize];
        let from = self.runs.len();
        self.runs.extend_from_slice(rest.runs);
        self.runs[from].first = first;
        self.runs[from].len -= rest.skip;
        let len: u32 = self.runs[from..].iter().map(|run| run.len).sum();
        self.tree.parent.push(parent);
        self.tree.end.push(start + len);
        self.content.push((from as u32, 0));
        self.children.insert((parent, first), id);
        NodeId(id)
    }

    /// Cuts `child` behind its first `len` tokens. The lower half keeps the id, so that every content that ends in or
    /// below it stays where it was; returns the new upper half.
    fn split(&mut self, parent: u32, child: u32, len: u32) -> u32 {
        let upper = self.tree.end.len() as u32;
        let (run, skip) = self.content[child as usize];
        let mut cursor = Cursor {
            runs: &self.runs[run as usize..],
            skip,
        };
        let first = cursor.token().expect("a node is never empty");
        let passed = cursor.skip_tokens(len);
        let next = cursor.token().expect("a split leaves tokens below it");
        let lower_skip = cursor.skip;
        self.tree.parent.push(parent);
        self.tree.end.push(self.tree.end[parent as usize] + len);
        self.content.push((run, skip));
        self.content[child as usize] = (run + passed, lower_skip);
        self.tree.parent[child as usize] = upper;
        self.children.insert((parent, first), upper);
        self.children.insert((upper, next), child);
        upper
    }
}

/// A place inside a slice of runs.
struct Cursor<'a> {
    runs: &'a [Run],
    skip: u32,
}

impl<'a> Cursor<'a> {
    fn new(runs: &'a [Run]) -> Self {
        debug_assert!(
            runs.iter().all(|run| run.len > 0),
            "a run holds at least one token"
        );
        Cursor { runs, skip: 0 }
    }

    fn token(&self) -> Option<u64> {
        self.runs
            .first()
            .map(|run| run.first + u64::from(self.skip))
    }

    fn left_in_run(&self) -> u32 {
        self.runs[0].len - self.skip
    }

    fn advance_in_run(&mut self, len: u32) {
        self.skip += len;
        if self.skip == self.runs[0].len {
            self.runs = &self.runs[1..];
            self.skip = 0;
        }
    }

    /// Moves both cursors over the tokens they have in common, at most `limit`, and returns how many those are.
    fn advance_together(&mut self, other: &mut Cursor<'_>, limit: u32) -> u32 {
        let mut common = 0;
        while common < limit && self.token().is_some() && self.token() == other.token() {
            let len = self
                .left_in_run()
                .min(other.left_in_run())
                .min(limit - common);
            self.advance_in_run(len);
            other.advance_in_run(len);
            common += len;
        }
        common
    }

    /// Moves over `len` tokens and returns how many runs were left behind whole.
    fn skip_tokens(&mut self, mut len: u32) -> u32 {
        let before = self.runs.len();
        while len > 0 {
            let step = len.min(self.left_in_run());
            self.advance_in_run(step);
            len -= step;
        }
        (before - self.runs.len()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(id: u64, len: u32) -> Run {
        Run {
            first: id * 512,
            len,
        }
    }

    fn ends(tree: &PrefixTree, leaf: NodeId) -> Vec<u32> {
        let mut path = Vec::new();
        tree.path_into(leaf, &mut path);
        path.iter().map(|&node| tree.end(node)).collect()
    }

    #[test]
    fn a_partial_last_block_is_a_prefix_of_the_whole_one() {
        let mut builder = PrefixTreeBuilder::new();
        let short = builder.insert(&[block(0, 512), block(1, 100)]);
        let long = builder.insert(&[block(0, 512), block(1, 512), block(2, 5)]);
        let other = builder.insert(&[block(0, 512), block(9, 7)]);
        let tree = builder.finish();
        assert_eq!(ends(&tree, short), [512, 612]);
        assert_eq!(ends(&tree, long), [512, 612, 1029]);
        assert_eq!(ends(&tree, other), [512, 519]);
        assert_eq!(tree.parent(long), short);
    }

    proptest! {
        /// Two contents share a node at a depth exactly when their tokens up to that depth are equal.
        #[test]
        fn nodes_are_shared_exactly_where_prefixes_are_equal(
            contents in prop::collection::vec(prop::collection::vec((0u64..3, 1u32..6), 1..6), 1..12)
        ) {
            let mut builder = PrefixTreeBuilder::new();
            let runs = |content: &[(u64, u32)]| -> Vec<Run> {
                content.iter().map(|&(id, len)| Run { first: id * 8, len }).collect()
            };
            let tokens = |content: &[(u64, u32)]| -> Vec<u64> {
                content.iter().flat_map(|&(id, len)| (0..u64::from(len)).map(move |k| id * 8 + k)).collect()
            };
            let leaves: Vec<NodeId> = contents.iter().map(|c| builder.insert(&runs(c))).collect();
            let tree = builder.finish();
            let node_at = |leaf: NodeId, depth: u32| {
                let mut path = Vec::new();
                tree.path_into(leaf, &mut path);
                path.into_iter().find(|&node| tree.start(node) <= depth && depth < tree.end(node))
            };
            for (a, &leaf_a) in contents.iter().zip(&leaves) {
                prop_assert_eq!(tree.end(leaf_a) as usize, tokens(a).len());
                for (b, &leaf_b) in contents.iter().zip(&leaves) {
                    let (a, b) = (tokens(a), tokens(b));
                    for depth in 0..a.len().min(b.len()) {
                        let same = node_at(leaf_a, depth as u32) == node_at(leaf_b, depth as u32);
                        prop_assert_eq!(same, a[..=depth] == b[..=depth]);
                    }
                }
            }
        }
    }
}
