//! Chains of blocks, in the two forms an index meets them.
//!
//! Outside, a chain is a list of hashes, one entry per block. Inside the simulation a block is a place in the workload's
//! [prefix tree](engine::prefix_tree): node and index. Two blocks are equal in one form exactly if they are in the other,
//! but places of one node are consecutive, so that a chain of places is a few runs however long it is, and what an index
//! does costs by runs instead of by blocks.

use super::{HashedBlock, Rank};
use engine::NodeId;
use engine::kv_cache::Stretch;
use rustc_hash::FxHashMap;
use std::fmt::Debug;
use std::hash::Hash;

/// Number of a node of an index.
pub type NodeIndex = u32;

/// Consecutive blocks. Positions count from the first block of the chain, depths from the first block of the prompt.
pub trait Chain: Clone + Debug {
    /// Names a block and its whole prefix.
    type Block: Copy + Eq + Debug;
    /// What distinguishes blocks behind the same block.
    type Key: Copy + Eq + Hash + Debug;
    /// Blocks that a request asks for, from the first on.
    type Query<'q>: Copy;
    /// Where the blocks of one rank are.
    type Places: Places<Self>;

    /// Number of blocks.
    fn len(&self) -> u32;
    /// True without blocks.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The key of a block.
    fn key(&self, at: u32) -> Self::Key;
    /// The name of a block.
    fn block(&self, at: u32) -> Self::Block;
    /// How many blocks from `at` on equal those of `other` from `other_at` on, which are as deep.
    fn common(&self, at: u32, other: &Self, other_at: u32) -> u32;
    /// Cuts the chain in front of block `at` and returns the rear part.
    fn split_off(&mut self, at: u32) -> Self;
    /// Appends the blocks of `other` from `from` on.
    fn append(&mut self, other: &Self, from: u32);
    /// The blocks from `from` on.
    fn tail(&self, from: u32) -> Self;
    /// Number of blocks asked for.
    fn query_len(query: Self::Query<'_>) -> u32;
    /// The key of a block asked for.
    fn query_key(query: Self::Query<'_>, depth: u32) -> Self::Key;
    /// How many blocks equal those asked for from `depth` on, which is the depth of the chain's first.
    fn common_with_query(&self, query: Self::Query<'_>, depth: u32) -> u32;
}

/// The blocks that an index holds for one rank, and the node of the index each is in.
pub trait Places<C: Chain>: Clone + Default + Debug {
    /// The node of a block, and the block's depth.
    fn get(&self, block: C::Block) -> Option<(NodeIndex, u32)>;
    /// Enters blocks `from..to` of a chain as being in `node`; `displaced` hears of entries that were there before.
    fn enter(&mut self, run: Run<'_, C>, node: NodeIndex, displaced: impl FnMut(NodeIndex, u32));
    /// Strikes blocks `from..to` of a chain; `displaced` hears of entries that were there.
    fn strike(&mut self, run: Run<'_, C>, displaced: impl FnMut(NodeIndex, u32));
    /// The nodes that are named, and how many blocks of each, in no order.
    fn nodes(&self) -> impl Iterator<Item = (NodeIndex, u32)>;
}

/// Blocks `from..to` of a chain whose first block lies at `depth`.
#[derive(Debug)]
pub struct Run<'a, C> {
    /// The chain.
    pub chain: &'a C,
    /// Depth of its first block.
    pub depth: u32,
    /// First position.
    pub from: u32,
    /// Position behind the last.
    pub to: u32,
}

/// A chain of hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashedChain(pub Vec<HashedBlock>);

impl Chain for HashedChain {
    type Block = u64;
    type Key = u64;
    type Query<'q> = &'q [u64];
    type Places = FxHashMap<u64, (NodeIndex, u32)>;

    fn len(&self) -> u32 {
        self.0.len() as u32
    }

    fn key(&self, at: u32) -> u64 {
        self.0[at as usize].local
    }

    fn block(&self, at: u32) -> u64 {
        self.0[at as usize].sequence
    }

    fn common(&self, at: u32, other: &Self, other_at: u32) -> u32 {
        let pairs = self.0[at as usize..]
            .iter()
            .zip(&other.0[other_at as usize..]);
        pairs.take_while(|(a, b)| a.local == b.local).count() as u32
    }

    fn split_off(&mut self, at: u32) -> Self {
        HashedChain(self.0.split_off(at as usize))
    }

    fn append(&mut self, other: &Self, from: u32) {
        self.0.extend_from_slice(&other.0[from as usize..]);
    }

    fn tail(&self, from: u32) -> Self {
        HashedChain(self.0[from as usize..].to_vec())
    }

    fn query_len(query: &[u64]) -> u32 {
        query.len() as u32
    }

    fn query_key(query: &[u64], depth: u32) -> u64 {
        query[depth as usize]
    }

    fn common_with_query(&self, query: &[u64], depth: u32) -> u32 {
        let pairs = self.0.iter().zip(&query[depth as usize..]);
        pairs
            .take_while(|(block, local)| block.local == **local)
            .count() as u32
    }
}

impl Places<HashedChain> for FxHashMap<u64, (NodeIndex, u32)> {
    fn get(&self, block: u64) -> Option<(NodeIndex, u32)> {
        FxHashMap::get(self, &block).copied()
    }

    fn enter(
        &mut self,
        run: Run<'_, HashedChain>,
        node: NodeIndex,
        mut displaced: impl FnMut(NodeIndex, u32),
    ) {
        for at in run.from..run.to {
            if let Some((before, _)) = self.insert(run.chain.block(at), (node, run.depth + at)) {
                displaced(before, 1);
            }
        }
    }

    fn strike(&mut self, run: Run<'_, HashedChain>, mut displaced: impl FnMut(NodeIndex, u32)) {
        for at in run.from..run.to {
            if let Some((before, _)) = self.remove(&run.chain.block(at)) {
                displaced(before, 1);
            }
        }
    }

    fn nodes(&self) -> impl Iterator<Item = (NodeIndex, u32)> {
        self.values().map(|&(node, _)| (node, 1))
    }
}

/// Blocks `lo..hi` whose last tokens lie in one node of the prefix tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The node.
    pub node: NodeId,
    /// Depth of the first.
    pub lo: u32,
    /// Depth behind the last.
    pub hi: u32,
}

/// A chain of places: pieces that follow each other without a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlacedChain(pub Vec<Piece>);

impl PlacedChain {
    #[inline]
    fn first_depth(&self) -> u32 {
        self.0.first().map_or(0, |piece| piece.lo)
    }

    /// The piece that holds the block at a depth.
    #[inline]
    fn piece(&self, depth: u32) -> usize {
        self.0.partition_point(|piece| piece.hi <= depth)
    }
}

/// The first `limit` blocks of a path through the prefix tree.
#[derive(Debug, Clone, Copy)]
pub struct PlacedQuery<'q> {
    /// The path, from the root.
    pub path: &'q [Stretch],
    /// Number of blocks asked for; the path is at least as long.
    pub limit: u32,
}

impl Chain for PlacedChain {
    /// Node and depth.
    type Block = (NodeId, u32);
    type Key = (NodeId, u32);
    type Query<'q> = PlacedQuery<'q>;
    type Places = PlacedBlocks;

    #[inline]
    fn len(&self) -> u32 {
        self.0.last().map_or(0, |piece| piece.hi) - self.first_depth()
    }

    #[inline]
    fn key(&self, at: u32) -> (NodeId, u32) {
        let depth = self.first_depth() + at;
        (self.0[self.piece(depth)].node, depth)
    }

    fn block(&self, at: u32) -> (NodeId, u32) {
        self.key(at)
    }

    fn common(&self, at: u32, other: &Self, other_at: u32) -> u32 {
        let start = self.first_depth() + at;
        debug_assert!(
            self.is_empty() || other.is_empty() || start == other.first_depth() + other_at,
            "blocks are compared at one depth"
        );
        let (mut ours, mut theirs) = (&self.0[self.piece(start)..], &other.0[other.piece(start)..]);
        let mut depth = start;
        while let (Some(a), Some(b)) = (ours.first(), theirs.first()) {
            if a.node != b.node {
                break;
            }
            depth = a.hi.min(b.hi);
            if a.hi == depth {
                ours = &ours[1..];
            }
            if b.hi == depth {
                theirs = &theirs[1..];
            }
        }
        depth - start
    }

    fn split_off(&mut self, at: u32) -> Self {
        let rear = self.tail(at);
        let depth = self.first_depth() + at;
        let piece = self.piece(depth);
        let keeps_part = self.0[piece].lo < depth;
        self.0[piece].hi = depth;
        self.0.truncate(piece + usize::from(keeps_part));
        rear
    }

    fn append(&mut self, other: &Self, from: u32) {
        let depth = other.first_depth() + from;
        let mut from_piece = other.piece(depth);
        if let (Some(last), Some(next)) = (self.0.last_mut(), other.0.get(from_piece))
            && last.node == next.node
        {
            last.hi = next.hi;
            from_piece += 1;
        }
        let first_new = self.0.len();
        self.0.extend_from_slice(&other.0[from_piece..]);
        if let Some(piece) = self.0.get_mut(first_new) {
            piece.lo = piece.lo.max(depth);
        }
    }

    fn tail(&self, from: u32) -> Self {
        let depth = self.first_depth() + from;
        let mut pieces = self.0[self.piece(depth)..].to_vec();
        if let Some(first) = pieces.first_mut() {
            first.lo = depth;
        }
        PlacedChain(pieces)
    }

    fn query_len(query: PlacedQuery<'_>) -> u32 {
        query.limit
    }

    fn query_key(query: PlacedQuery<'_>, depth: u32) -> (NodeId, u32) {
        let stretch = query.path.partition_point(|stretch| stretch.end <= depth);
        (query.path[stretch].node, depth)
    }

    fn common_with_query(&self, query: PlacedQuery<'_>, depth: u32) -> u32 {
        let mut path = &query.path[query.path.partition_point(|stretch| stretch.end <= depth)..];
        let mut common = depth;
        for piece in &self.0 {
            // A cut inside a node of the prefix tree leaves two pieces of it.
            while path.first().is_some_and(|stretch| stretch.end <= piece.lo) {
                path = &path[1..];
            }
            let Some(stretch) = path.first().filter(|stretch| stretch.node == piece.node) else {
                break;
            };
            common = piece.hi.min(stretch.end);
            if common < piece.hi {
                break;
            }
        }
        common.min(query.limit) - depth
    }
}

/// The blocks of one rank by place: runs that do not overlap, in order, each in one node of the index.
#[derive(Debug, Clone, Default)]
pub struct PlacedBlocks {
    runs: FxHashMap<NodeId, Vec<Placed>>,
    /// Empty lists with room, to be used again.
    spare: Vec<Vec<Placed>>,
}

/// Blocks `lo..hi` of a node of the prefix tree, in a node of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Depth of the first.
    pub lo: u32,
    /// Depth behind the last.
    pub hi: u32,
    /// The node of the index.
    pub node: NodeIndex,
}

impl PlacedBlocks {
    /// The last run of those that hold some of the blocks `lo..hi` of `node`, cut to them.
    #[must_use]
    pub fn last_within(&self, node: NodeId, lo: u32, hi: u32) -> Option<Placed> {
        let runs = self.runs.get(&node)?;
        let last = *runs.iter().rev().find(|run| run.lo < hi)?;
        (lo < last.hi).then(|| Placed {
            lo: last.lo.max(lo),
            hi: last.hi.min(hi),
            node: last.node,
        })
    }

    /// Takes `lo..hi` of `node` out and says where a run of them would be inserted.
    fn clear(
        runs: &mut Vec<Placed>,
        lo: u32,
        hi: u32,
        displaced: &mut impl FnMut(NodeIndex, u32),
    ) -> usize {
        let first = runs.partition_point(|run| run.hi <= lo);
        let behind = first + runs[first..].partition_point(|run| run.lo < hi);
        if first == behind {
            return first;
        }
        let (head, rear) = (runs[first], runs[behind - 1]);
        for run in &runs[first..behind] {
            displaced(run.node, run.hi.min(hi) - run.lo.max(lo));
        }
        let head = (head.lo < lo).then_some(Placed { hi: lo, ..head });
        let rear = (hi < rear.hi).then_some(Placed { lo: hi, ..rear });
        let at = first + usize::from(head.is_some());
        runs.splice(first..behind, head.into_iter().chain(rear));
        at
    }
}

impl Places<PlacedChain> for PlacedBlocks {
    fn get(&self, (node, depth): (NodeId, u32)) -> Option<(NodeIndex, u32)> {
        let run = self.last_within(node, depth, depth + 1)?;
        Some((run.node, depth))
    }

    fn enter(
        &mut self,
        run: Run<'_, PlacedChain>,
        node: NodeIndex,
        mut displaced: impl FnMut(NodeIndex, u32),
    ) {
        for piece in run.pieces() {
            let runs = self.runs.entry(piece.node);
            let runs = runs.or_insert_with(|| self.spare.pop().unwrap_or_default());
            let at = Self::clear(runs, piece.lo, piece.hi, &mut displaced);
            let joins = |run: &Placed| run.node == node && run.hi == piece.lo;
            if at > 0 && joins(&runs[at - 1]) {
                runs[at - 1].hi = piece.hi;
            } else {
                runs.insert(
                    at,
                    Placed {
                        lo: piece.lo,
                        hi: piece.hi,
                        node,
                    },
                );
            }
        }
    }

    fn strike(&mut self, run: Run<'_, PlacedChain>, mut displaced: impl FnMut(NodeIndex, u32)) {
        for piece in run.pieces() {
            let Some(runs) = self.runs.get_mut(&piece.node) else {
                continue;
            };
            Self::clear(runs, piece.lo, piece.hi, &mut displaced);
            if runs.is_empty() {
                self.spare.extend(self.runs.remove(&piece.node));
            }
        }
    }

    fn nodes(&self) -> impl Iterator<Item = (NodeIndex, u32)> {
        self.runs
            .values()
            .flatten()
            .map(|run| (run.node, run.hi - run.lo))
    }
}

impl<'a> Run<'a, PlacedChain> {
    fn pieces(&self) -> impl Iterator<Item = Piece> + 'a {
        let (lo, hi) = (self.depth + self.from, self.depth + self.to);
        let pieces = self.chain.0[self.chain.piece(lo)..].iter();
        pieces
            .take_while(move |piece| piece.lo < hi)
            .map(move |piece| Piece {
                lo: piece.lo.max(lo),
                hi: piece.hi.min(hi),
                ..*piece
            })
    }
}

/// Inserts a rank into a sorted list. True if it was not in it.
pub(super) fn insert_rank(ranks: &mut Vec<Rank>, rank: Rank) -> bool {
    match ranks.binary_search(&rank) {
        Ok(_) => false,
        Err(at) => {
            ranks.insert(at, rank);
            true
        }
    }
}

/// Takes a rank out of a sorted list.
pub(super) fn remove_rank(ranks: &mut Vec<Rank>, rank: Rank) {
    if let Ok(at) = ranks.binary_search(&rank) {
        ranks.remove(at);
    }
}
