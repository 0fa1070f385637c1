//! Compressed radix tree: the index of the real router, with its habits.
//!
//! A node holds a chain of blocks without branches (its edge). A rank holds all of a node (`full`) or its first blocks
//! (`partial`). A request walks down from the root; a rank's score is the depth up to which it held every node passed.
//!
//! * *Store* behind a parent block: what is already there is marked, a leaf that the rank holds to its end is extended,
//!   elsewhere a node is split where the new blocks part from it. A parent that the rank does not hold is an error.
//! * *Remove* a block: the rank's hold on that node ends before the block, and the later blocks of the node are forgotten
//!   with it, so that removing or extending them fails. Child nodes keep the rank: if the rank stores the missing blocks
//!   again, the children's blocks count again. What is forgotten thus depends on where nodes were split. A node that no
//!   rank holds to its end loses its children, a node that none holds at all leaves the tree; blocks of such lost nodes
//!   can still be parents, for whoever is believed to hold them, but no request finds them.
//!
//! The rules are those of the single-threaded tree of dynamo-kv-router 1.6, which its replay uses too. A walk costs by
//! nodes passed and ranks that hold them; with places for blocks ([`PlacedChain`]) no cost depends on the block size.

use super::chain::{Chain, NodeIndex, Placed, PlacedChain, Places, Run, insert_rank, remove_rank};
use super::{IndexError, Match, Rank};
use crate::router::by_rank::BlocksByRank;
use engine::NodeId;
use rustc_hash::FxHashMap;

const ROOT: NodeIndex = 0;
const NONE: NodeIndex = NodeIndex::MAX;

/// The tree, and for each rank the blocks it holds.
#[derive(Debug, Clone)]
pub struct RadixTree<C: Chain> {
    nodes: Vec<Node<C>>,
    vacant: Vec<NodeIndex>,
    held: Vec<C::Places>,
}

/// A node; opaque outside.
#[derive(Debug, Clone)]
pub struct Node<C: Chain> {
    /// `None` at the root.
    edge: Option<C>,
    /// Depth of the first block.
    depth: u32,
    /// Ranks that hold the whole edge, sorted.
    full: Vec<Rank>,
    /// Ranks that hold the first so many blocks of it, at least 1 and not all; sorted.
    partial: Vec<(Rank, u32)>,
    children: FxHashMap<C::Key, NodeIndex>,
    parent: NodeIndex,
    /// It has or had children; such a node is never extended.
    is_internal: bool,
    /// It can be reached from the root, or from a lost node.
    is_attached: bool,
    /// Entries in `held` that lead here.
    named: u32,
}

impl<C: Chain> Node<C> {
    fn len(&self) -> u32 {
        self.edge.as_ref().map_or(0, C::len)
    }

    fn edge(&self) -> &C {
        self.edge.as_ref().expect("only the root has no edge")
    }

    /// Leading blocks that a rank holds.
    fn cutoff(&self, rank: Rank) -> u32 {
        if self.full.binary_search(&rank).is_ok() {
            return self.len();
        }
        let found = self.partial.binary_search_by_key(&rank, |&(rank, _)| rank);
        found.map_or(0, |at| self.partial[at].1)
    }

    /// Lets a rank hold the first `blocks` blocks and no more.
    fn set_cutoff(&mut self, rank: Rank, blocks: u32) {
        let found = self.partial.binary_search_by_key(&rank, |&(rank, _)| rank);
        if blocks == self.len() {
            if let Ok(at) = found {
                self.partial.remove(at);
            }
            insert_rank(&mut self.full, rank);
            return;
        }
        remove_rank(&mut self.full, rank);
        match (found, blocks) {
            (Ok(at), 0) => {
                self.partial.remove(at);
            }
            (Ok(at), _) => self.partial[at].1 = blocks,
            (Err(_), 0) => {}
            (Err(at), _) => self.partial.insert(at, (rank, blocks)),
        }
    }

    fn raise_cutoff(&mut self, rank: Rank, blocks: u32) {
        if self.cutoff(rank) < blocks {
            self.set_cutoff(rank, blocks);
        }
    }
}

impl<C: Chain> Default for RadixTree<C> {
    fn default() -> Self {
        let root = Node {
            edge: None,
            depth: 0,
            full: Vec::new(),
            partial: Vec::new(),
            children: FxHashMap::default(),
            parent: NONE,
            is_internal: true,
            is_attached: true,
            named: 0,
        };
        RadixTree {
            nodes: vec![root],
            vacant: Vec::new(),
            held: Vec::new(),
        }
    }
}

impl<C: Chain> RadixTree<C> {
    /// Nodes of the tree, lost ones that still count included, without the root.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len() - self.vacant.len() - 1
    }

    /// The leading blocks of `query` that each rank holds, for ranks that hold one at least, sorted by rank. With
    /// `early_exit` the walk ends behind the node at which one rank is left, whose score may then be too low.
    #[must_use]
    pub fn matches(&self, query: C::Query<'_>, early_exit: bool) -> Vec<Match<C::Block>> {
        let mut matches = Vec::new();
        let mut path = Vec::new();
        let note = |rank: Rank, blocks| matches.push((rank, blocks));
        self.walk(query, early_exit, &mut Vec::new(), note, |node| {
            path.push(node)
        });
        let last = |blocks: u32| {
            let node = *path
                .iter()
                .rfind(|&&node| self[node].depth < blocks)
                .expect("a match passed a node");
            self[node].edge().block(blocks - 1 - self[node].depth)
        };
        let mut matches: Vec<_> = matches
            .into_iter()
            .map(|(rank, blocks)| Match {
                rank,
                blocks,
                last: last(blocks),
            })
            .collect();
        matches.sort_unstable_by_key(|found| found.rank);
        matches
    }

    /// Raises each rank to the leading blocks of `query` that it holds; `active` is scratch space.
    pub fn overlap(&self, query: C::Query<'_>, active: &mut Vec<Rank>, overlap: &mut BlocksByRank) {
        let note = |rank: Rank, blocks| overlap.raise(rank, blocks);
        self.walk(query, false, active, note, |_| {});
    }

    /// Walks down along `query` and reports each rank that held something with the depth up to which it did.
    fn walk(
        &self,
        query: C::Query<'_>,
        early_exit: bool,
        active: &mut Vec<Rank>,
        mut report: impl FnMut(Rank, u32),
        mut pass: impl FnMut(NodeIndex),
    ) {
        let len = C::query_len(query);
        active.clear();
        let mut depth = 0;
        let mut at = ROOT;
        while depth < len {
            let Some(&child) = self[at].children.get(&C::query_key(query, depth)) else {
                break;
            };
            let node = &self[child];
            let matched = node.edge().common_with_query(query, depth);
            pass(child);
            if depth == 0 {
                active.extend_from_slice(&node.full);
                for &(rank, blocks) in &node.partial {
                    report(rank, blocks.min(matched));
                }
            } else {
                retain_sorted(active, &node.full, |rank| {
                    report(rank, depth + node.cutoff(rank).min(matched))
                });
            }
            depth += matched;
            at = child;
            if active.is_empty() || matched < node.len() || (early_exit && active.len() == 1) {
                break;
            }
        }
        for &rank in active.iter() {
            report(rank, depth);
        }
    }

    /// A rank stored `blocks` behind the block `parent`, or at the start.
    pub fn store(
        &mut self,
        rank: Rank,
        parent: Option<C::Block>,
        blocks: &C,
    ) -> Result<(), IndexError> {
        self.meet(rank);
        let (mut at, mut start) = (ROOT, 0);
        if let Some(parent) = parent {
            let (node, depth) = self.held[rank as usize]
                .get(parent)
                .ok_or(IndexError::ParentBlockNotFound)?;
            start = depth + 1;
            let behind = start - self[node].depth;
            if self.store_within(rank, node, behind, blocks) {
                return Ok(());
            }
            if behind < self[node].len() {
                self.split(node, behind);
            }
            at = node;
        }
        let mut stored = 0;
        while stored < blocks.len() {
            let Some(&child) = self[at].children.get(&blocks.key(stored)) else {
                self.add(rank, at, blocks, stored);
                return Ok(());
            };
            let common = self[child].edge().common(0, blocks, stored);
            let is_over = stored + common == blocks.len();
            if common < self[child].len() && !is_over {
                self.split(child, common);
            }
            self[child].raise_cutoff(rank, common);
            self.enter(
                rank,
                child,
                Run {
                    chain: blocks,
                    depth: start,
                    from: stored,
                    to: stored + common,
                },
            );
            stored += common;
            at = child;
        }
        Ok(())
    }

    /// Stores blocks that continue the edge of `node` from position `behind` on, if they agree with it as far as both
    /// go and the node may be extended where they go further.
    fn store_within(&mut self, rank: Rank, node: NodeIndex, behind: u32, blocks: &C) -> bool {
        let start = self[node].depth + behind;
        let rest = self[node].len() - behind;
        let common = self[node].edge().common(behind, blocks, 0);
        if common == blocks.len() {
            self[node].raise_cutoff(rank, behind + common);
            self.enter(
                rank,
                node,
                Run {
                    chain: blocks,
                    depth: start,
                    from: 0,
                    to: common,
                },
            );
            true
        } else if common == rest && !self[node].is_internal {
            self.extend(rank, node, blocks, rest);
            self.enter(
                rank,
                node,
                Run {
                    chain: blocks,
                    depth: start,
                    from: 0,
                    to: rest,
                },
            );
            true
        } else {
            false
        }
    }

    /// Adds the blocks from `from` on below `at`, where nothing begins like them.
    fn add(&mut self, rank: Rank, at: NodeIndex, blocks: &C, from: u32) {
        let node = &self[at];
        if at != ROOT && !node.is_internal && node.cutoff(rank) == node.len() {
            self.extend(rank, at, blocks, from);
            return;
        }
        let depth = node.depth + node.len();
        let child = self.insert(Node {
            edge: Some(blocks.tail(from)),
            depth,
            full: vec![rank],
            partial: Vec::new(),
            children: FxHashMap::default(),
            parent: at,
            is_internal: false,
            is_attached: true,
            named: 0,
        });
        self[at].is_internal = true;
        self[at].children.insert(blocks.key(from), child);
        self.enter(
            rank,
            child,
            Run {
                chain: blocks,
                depth: depth - from,
                from,
                to: blocks.len(),
            },
        );
    }

    /// Appends the blocks from `from` on to a leaf, for one rank; those that held all of it hold its first part now.
    fn extend(&mut self, rank: Rank, leaf: NodeIndex, blocks: &C, from: u32) {
        let node = &mut self[leaf];
        let before = node.len();
        for other in std::mem::take(&mut node.full) {
            if other != rank {
                let found = node.partial.binary_search_by_key(&other, |&(rank, _)| rank);
                node.partial.insert(
                    found.expect_err("a rank holds all or a part"),
                    (other, before),
                );
            }
        }
        node.edge
            .as_mut()
            .expect("only the root has no edge")
            .append(blocks, from);
        let len = node.len();
        node.set_cutoff(rank, len);
        let depth = self[leaf].depth + before - from;
        self.enter(
            rank,
            leaf,
            Run {
                chain: blocks,
                depth,
                from,
                to: blocks.len(),
            },
        );
    }

    /// Cuts a node in front of position `at`. It keeps its number; the rear part becomes its only child.
    fn split(&mut self, index: NodeIndex, at: u32) {
        let node = &mut self[index];
        let edge = node
            .edge
            .as_mut()
            .expect("only the root has no edge")
            .split_off(at);
        let full = node.full.clone();
        let mut partial = Vec::new();
        for (rank, blocks) in std::mem::take(&mut node.partial) {
            if blocks < at {
                node.partial.push((rank, blocks));
            } else {
                insert_rank(&mut node.full, rank);
                if blocks > at {
                    partial.push((rank, blocks - at));
                }
            }
        }
        let (depth, children, is_internal) = (
            node.depth + at,
            std::mem::take(&mut node.children),
            node.is_internal,
        );
        node.is_internal = true;
        let key = edge.key(0);
        let rear = self.insert(Node {
            edge: Some(edge.clone()),
            depth,
            full: full.clone(),
            partial: partial.clone(),
            children,
            parent: index,
            is_internal,
            is_attached: true,
            named: 0,
        });
        self[index].children.insert(key, rear);
        let children: Vec<NodeIndex> = self[rear].children.values().copied().collect();
        for child in children {
            self[child].parent = rear;
        }
        let len = edge.len();
        for (rank, blocks) in full.into_iter().map(|rank| (rank, len)).chain(partial) {
            self.enter(
                rank,
                rear,
                Run {
                    chain: &edge,
                    depth,
                    from: 0,
                    to: blocks,
                },
            );
        }
        self.prune(rear);
    }

    /// A rank removed blocks, in one event.
    pub fn remove(&mut self, rank: Rank, blocks: &[C::Block]) -> Result<(), IndexError> {
        self.meet(rank);
        let mut outcome = Ok(());
        // Forgotten with an earlier block of this event; they are no error.
        let mut forgotten: Vec<C::Block> = Vec::new();
        let mut rest = blocks;
        while let Some((&block, more)) = rest.split_first() {
            rest = more;
            let Some((node, depth)) = self.held[rank as usize].get(block) else {
                if !forgotten.contains(&block) {
                    outcome = Err(IndexError::BlockNotFound);
                }
                continue;
            };
            let mut first = depth;
            while let Some((&next, more)) = rest.split_first() {
                match self.held[rank as usize].get(next) {
                    Some((of, depth)) if of == node => first = first.min(depth),
                    _ => break,
                }
                rest = more;
            }
            let at = first - self[node].depth;
            let lost = self[node].cutoff(rank);
            if !rest.is_empty() {
                let edge = self[node].edge();
                forgotten.extend((at..lost).map(|at| edge.block(at)));
            }
            self.truncate(rank, node, at);
        }
        outcome
    }

    /// A rank's hold on a node ends in front of position `at`.
    fn truncate(&mut self, rank: Rank, index: NodeIndex, at: u32) {
        let node = &mut self[index];
        let before = node.cutoff(rank);
        debug_assert!(at < before, "what is entered for a rank is held by it");
        node.set_cutoff(rank, at);
        let (depth, edge) = (
            node.depth,
            node.edge.take().expect("only the root has no edge"),
        );
        let nodes = &mut self.nodes;
        let run = Run {
            chain: &edge,
            depth,
            from: at,
            to: before,
        };
        let mut emptied = Vec::new();
        self.held[rank as usize].strike(run, |node, blocks| {
            let named = &mut nodes[node as usize].named;
            *named -= blocks;
            if *named == 0 {
                emptied.push(node);
            }
        });
        self[index].edge = Some(edge);
        self.prune(index);
        for node in emptied {
            self.free_if_lost(node);
        }
    }

    /// A rank holds nothing any more.
    pub fn clear(&mut self, rank: Rank) {
        self.meet(rank);
        let held = std::mem::take(&mut self.held[rank as usize]);
        let mut nodes: Vec<NodeIndex> = Vec::new();
        for (node, blocks) in held.nodes() {
            self[node].named -= blocks;
            nodes.push(node);
        }
        nodes.sort_unstable();
        nodes.dedup();
        for &node in &nodes {
            self[node].set_cutoff(rank, 0);
            self.prune(node);
        }
        for node in nodes {
            self.free_if_lost(node);
        }
    }

    /// Takes from the tree what no rank can reach any more through `index`: its children if no rank holds it to its end,
    /// itself if none holds any of it.
    fn prune(&mut self, index: NodeIndex) {
        if self[index].full.is_empty() {
            let children = std::mem::take(&mut self[index].children);
            for child in children.into_values() {
                self.detach(child);
            }
        }
        let node = &self[index];
        if !node.full.is_empty() || !node.partial.is_empty() {
            return;
        }
        if node.is_attached {
            let (parent, key) = (node.parent, node.edge().key(0));
            self[parent].children.remove(&key);
            self.detach(index);
        }
    }

    fn detach(&mut self, index: NodeIndex) {
        self[index].is_attached = false;
        self[index].parent = NONE;
        self.free_if_lost(index);
    }

    /// Frees a node that neither the tree nor a rank leads to.
    fn free_if_lost(&mut self, index: NodeIndex) {
        let node = &mut self[index];
        if node.is_attached || node.named > 0 || node.edge.is_none() {
            return;
        }
        node.edge = None;
        node.full.clear();
        node.partial.clear();
        let children = std::mem::take(&mut node.children);
        self.vacant.push(index);
        for child in children.into_values() {
            self.detach(child);
        }
    }

    /// Enters blocks as held by `rank` in `node`.
    fn enter(&mut self, rank: Rank, node: NodeIndex, run: Run<'_, C>) {
        let nodes = &mut self.nodes;
        nodes[node as usize].named += run.to - run.from;
        let mut emptied = Vec::new();
        self.held[rank as usize].enter(run, node, |before, blocks| {
            let named = &mut nodes[before as usize].named;
            *named -= blocks;
            if *named == 0 {
                emptied.push(before);
            }
        });
        for node in emptied {
            self.free_if_lost(node);
        }
    }

    /// Makes room for a rank not heard of before.
    fn meet(&mut self, rank: Rank) {
        if self.held.len() <= rank as usize {
            self.held.resize_with(rank as usize + 1, Default::default);
        }
    }

    fn insert(&mut self, node: Node<C>) -> NodeIndex {
        match self.vacant.pop() {
            Some(index) => {
                self[index] = node;
                index
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as NodeIndex
            }
        }
    }
}

impl RadixTree<PlacedChain> {
    /// A rank removed the blocks `lo..hi` of a node of the prefix tree, one event each, the last first. True if it held
    /// all of them.
    pub fn remove_run(&mut self, rank: Rank, node: NodeId, lo: u32, hi: u32) -> bool {
        self.meet(rank);
        let (mut left, mut end) = (hi - lo, hi);
        while let Some(Placed {
            lo: first,
            hi: behind,
            node: at,
        }) = self.held[rank as usize].last_within(node, lo, end)
        {
            left -= behind - first;
            end = first;
            let first = first - self[at].depth;
            self.truncate(rank, at, first);
        }
        left == 0
    }
}

impl<C: Chain> std::ops::Index<NodeIndex> for RadixTree<C> {
    type Output = Node<C>;
    fn index(&self, index: NodeIndex) -> &Node<C> {
        &self.nodes[index as usize]
    }
}

impl<C: Chain> std::ops::IndexMut<NodeIndex> for RadixTree<C> {
    fn index_mut(&mut self, index: NodeIndex) -> &mut Node<C> {
        &mut self.nodes[index as usize]
    }
}

/// Keeps of `active` what is in `kept` too, both sorted, and reports the others.
fn retain_sorted(active: &mut Vec<Rank>, kept: &[Rank], mut report: impl FnMut(Rank)) {
    let mut kept = kept.iter().copied().peekable();
    active.retain(|&rank| {
        while kept.next_if(|&other| other < rank).is_some() {}
        let is_kept = kept.peek() == Some(&rank);
        if !is_kept {
            report(rank);
        }
        is_kept
    });
}
