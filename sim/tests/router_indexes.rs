//! The indexes of the KV router against a plain map, and against each other, on random streams of events.
//!
//! Contents are paths through a little prefix tree. A block is named three ways: by its place, by made-up hashes, and by its
//! number in the map.

use engine::NodeId;
use engine::kv_cache::Stretch;
use proptest::prelude::*;
use sim::router::by_rank::BlocksByRank;
use sim::router::indexer::chain::{Piece, PlacedQuery};
use sim::router::indexer::{
    HashedBlock, HashedChain, Match, PlacedChain, PositionalIndex, RadixTree, Rank,
};
use std::collections::{BTreeMap, BTreeSet};

const RANKS: u32 = 4;

/// Node and depth.
type Place = (u32, u32);

/// Nodes with 1 to 5 blocks each, three turns at each end, three levels deep: the path of stretches to a leaf.
fn path(leaf: u32) -> Vec<Stretch> {
    let (mut name, mut end) = (1, 0);
    (0..3)
        .map(|level| {
            name = name * 3 + leaf / 3u32.pow(level) % 3;
            end += 1 + name * 7 % 5;
            Stretch {
                node: NodeId(name),
                end,
            }
        })
        .collect()
}

fn blocks(leaf: u32) -> Vec<Place> {
    let mut start = 0;
    let mut blocks = Vec::new();
    for stretch in path(leaf) {
        blocks.extend((start..stretch.end).map(|depth| (stretch.node.0, depth)));
        start = stretch.end;
    }
    blocks
}

fn name((node, depth): Place) -> u64 {
    u64::from(node) << 32 | u64::from(depth)
}

fn hashed(places: &[Place]) -> HashedChain {
    // The local hash tells blocks apart only behind the same block.
    let block = |&place: &Place| HashedBlock {
        local: name(place) % 1009,
        sequence: name(place),
    };
    HashedChain(places.iter().map(block).collect())
}

fn placed(places: &[Place]) -> PlacedChain {
    let mut chain = PlacedChain::default();
    for &(node, depth) in places {
        match chain.0.last_mut() {
            Some(piece) if piece.node.0 == node => piece.hi = depth + 1,
            _ => chain.0.push(Piece {
                node: NodeId(node),
                lo: depth,
                hi: depth + 1,
            }),
        }
    }
    chain
}

/// Who holds what, plainly.
#[derive(Default)]
struct PlainMap(BTreeSet<(Rank, Place)>);

impl PlainMap {
    fn holds(&self, rank: Rank, place: Place) -> bool {
        self.0.contains(&(rank, place))
    }

    fn store(&mut self, rank: Rank, parent: Option<Place>, places: &[Place]) -> bool {
        let is_known = parent.is_none_or(|parent| self.holds(rank, parent));
        if is_known {
            self.0.extend(places.iter().map(|&place| (rank, place)));
        }
        is_known
    }

    fn matches(&self, query: &[Place]) -> BTreeMap<Rank, u32> {
        let held = |rank| {
            query
                .iter()
                .take_while(|&&place| self.holds(rank, place))
                .count() as u32
        };
        (0..RANKS)
            .map(|rank| (rank, held(rank)))
            .filter(|&(_, blocks)| blocks > 0)
            .collect()
    }

    /// A held block of the rank that no held block follows.
    fn tail(&self, rank: Rank, choice: usize) -> Option<Place> {
        let followed: BTreeSet<Place> = (0..27)
            .flat_map(|leaf| {
                blocks(leaf)
                    .windows(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect::<Vec<_>>()
            })
            .filter(|&(_, behind)| self.holds(rank, behind))
            .map(|(before, _)| before)
            .collect();
        let own = self
            .0
            .iter()
            .filter(|(of, place)| *of == rank && !followed.contains(place));
        let own: Vec<Place> = own.map(|&(_, place)| place).collect();
        (!own.is_empty()).then(|| own[choice % own.len()])
    }
}

#[derive(Debug, Clone)]
enum Op {
    Store {
        rank: Rank,
        leaf: u32,
        from: usize,
        count: usize,
    },
    RemoveAnywhere {
        rank: Rank,
        leaf: u32,
        from: usize,
        count: usize,
    },
    RemoveTail {
        rank: Rank,
        choice: usize,
    },
    Clear {
        rank: Rank,
    },
}

fn op(anywhere: u32) -> impl Strategy<Value = Op> {
    let rank = 0..RANKS;
    prop_oneof![
        8 => (rank.clone(), 0u32..27, 0usize..15, 1usize..12).prop_map(|(rank, leaf, from, count)| {
            // Half of the stores begin at the start.
            Op::Store { rank, leaf, from: from.saturating_sub(7), count }
        }),
        anywhere => (rank.clone(), 0u32..27, 0usize..12, 1usize..4)
            .prop_map(|(rank, leaf, from, count)| Op::RemoveAnywhere { rank, leaf, from, count }),
        4 => (rank.clone(), any::<u16>())
            .prop_map(|(rank, choice)| Op::RemoveTail { rank, choice: usize::from(choice) }),
        1 => rank.prop_map(|rank| Op::Clear { rank }),
    ]
}

/// The blocks an operation names: the one in front and those meant.
fn slice(leaf: u32, from: usize, count: usize) -> (Option<Place>, Vec<Place>) {
    let blocks = blocks(leaf);
    let from = from.min(blocks.len() - 1);
    let parent = from.checked_sub(1).map(|before| blocks[before]);
    (
        parent,
        blocks[from..(from + count).min(blocks.len())].to_vec(),
    )
}

fn by_rank<B>(matches: &[Match<B>]) -> BTreeMap<Rank, u32> {
    matches
        .iter()
        .map(|found| (found.rank, found.blocks))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Places and hashes are the same tree, habits included.
    #[test]
    fn a_tree_of_places_is_a_tree_of_hashes(ops in prop::collection::vec(op(5), 1..80)) {
        let mut map = PlainMap::default();
        let (mut hashes, mut places) = (RadixTree::<HashedChain>::default(), RadixTree::<PlacedChain>::default());
        for op in ops {
            match op {
                Op::Store { rank, leaf, from, count } => {
                    let (parent, blocks) = slice(leaf, from, count);
                    let outcome = hashes.store(rank, parent.map(name), &hashed(&blocks));
                    let parent = parent.map(|(node, depth)| (NodeId(node), depth));
                    prop_assert_eq!(outcome, places.store(rank, parent, &placed(&blocks)));
                }
                Op::RemoveAnywhere { rank, leaf, from, count } => {
                    let (_, blocks) = slice(leaf, from, count);
                    // Each block is an event of its own, the last first.
                    let outcomes: Vec<bool> =
                        blocks.iter().rev().map(|&block| hashes.remove(rank, &[name(block)]).is_ok()).collect();
                    let runs = placed(&blocks).0;
                    let all = runs.iter().rev().map(|run| places.remove_run(rank, run.node, run.lo, run.hi));
                    prop_assert_eq!(outcomes.iter().all(|&ok| ok), all.fold(true, |a, b| a & b));
                }
                Op::RemoveTail { rank, choice } => {
                    let Some(block) = map.tail(rank, choice) else { continue };
                    let outcome = hashes.remove(rank, &[name(block)]).is_ok();
                    prop_assert_eq!(outcome, places.remove_run(rank, NodeId(block.0), block.1, block.1 + 1));
                }
                Op::Clear { rank } => {
                    hashes.clear(rank);
                    places.clear(rank);
                }
            }
            prop_assert_eq!(hashes.node_count(), places.node_count());
            for leaf in 0..27 {
                let blocks = blocks(leaf);
                let limit = blocks.len() as u32 - leaf % 3;
                let local: Vec<u64> = hashed(&blocks[..limit as usize]).0.iter().map(|block| block.local).collect();
                let query = PlacedQuery { path: &path(leaf), limit };
                for early_exit in [false, true] {
                    let ours = places.matches(query, early_exit).into_iter().map(|found| {
                        Match { rank: found.rank, blocks: found.blocks, last: name((found.last.0.0, found.last.1)) }
                    });
                    prop_assert_eq!(hashes.matches(&local, early_exit), ours.collect::<Vec<_>>());
                }
                let mut overlap = BlocksByRank::default();
                places.overlap(query, &mut Vec::new(), &mut overlap);
                let found = by_rank(&places.matches(query, false));
                for rank in 0..RANKS {
                    prop_assert_eq!(overlap.get(rank), found.get(&rank).copied().unwrap_or(0));
                }
            }
            // Kept for `tail`; the tree may have forgotten more.
            map.0.clear();
            for rank in 0..RANKS {
                for leaf in 0..27 {
                    let blocks = blocks(leaf);
                    let local: Vec<u64> = hashed(&blocks).0.iter().map(|block| block.local).collect();
                    let found = by_rank(&hashes.matches(&local, false));
                    let held = found.get(&rank).copied().unwrap_or(0) as usize;
                    map.0.extend(blocks[..held].iter().map(|&place| (rank, place)));
                }
            }
        }
    }

    /// As long as blocks are removed from the tails, the tree is a plain map.
    #[test]
    fn a_tree_without_holes_is_a_plain_map(ops in prop::collection::vec(op(0), 1..120)) {
        let (mut map, mut tree) = (PlainMap::default(), RadixTree::<HashedChain>::default());
        for op in ops {
            match op {
                Op::Store { rank, leaf, from, count } => {
                    let (parent, blocks) = slice(leaf, from, count);
                    let is_stored = tree.store(rank, parent.map(name), &hashed(&blocks)).is_ok();
                    prop_assert_eq!(is_stored, map.store(rank, parent, &blocks));
                }
                Op::RemoveTail { rank, choice } => {
                    let Some(block) = map.tail(rank, choice) else { continue };
                    prop_assert!(tree.remove(rank, &[name(block)]).is_ok());
                    map.0.remove(&(rank, block));
                }
                Op::Clear { rank } => {
                    tree.clear(rank);
                    map.0.retain(|&(of, _)| of != rank);
                }
                Op::RemoveAnywhere { .. } => unreachable!("its weight is 0"),
            }
            for leaf in 0..27 {
                let blocks = blocks(leaf);
                let local: Vec<u64> = hashed(&blocks).0.iter().map(|block| block.local).collect();
                prop_assert_eq!(by_rank(&tree.matches(&local, false)), map.matches(&blocks));
            }
        }
    }

    /// The positional index is a plain map, holes or not.
    #[test]
    fn positions_are_a_plain_map(ops in prop::collection::vec(op(6), 1..120)) {
        let (mut map, mut index) = (PlainMap::default(), PositionalIndex::default());
        for op in ops {
            match op {
                Op::Store { rank, leaf, from, count } => {
                    let (parent, blocks) = slice(leaf, from, count);
                    let names: Vec<u64> = blocks.iter().copied().map(name).collect();
                    let is_stored = index.store(rank, parent.map(name), &names).is_ok();
                    prop_assert_eq!(is_stored, map.store(rank, parent, &blocks));
                }
                Op::RemoveAnywhere { rank, leaf, from, count } => {
                    let (_, blocks) = slice(leaf, from, count);
                    let names: Vec<u64> = blocks.iter().copied().map(name).collect();
                    let were_held = blocks.iter().filter(|&&block| map.0.remove(&(rank, block))).count();
                    prop_assert_eq!(index.remove(rank, &names).is_ok(), were_held == blocks.len());
                }
                Op::RemoveTail { rank, choice } => {
                    let Some(block) = map.tail(rank, choice) else { continue };
                    prop_assert!(index.remove(rank, &[name(block)]).is_ok());
                    map.0.remove(&(rank, block));
                }
                Op::Clear { rank } => {
                    index.clear(rank);
                    map.0.retain(|&(of, _)| of != rank);
                }
            }
            for leaf in 0..27 {
                let blocks = blocks(leaf);
                let names: Vec<u64> = blocks.iter().copied().map(name).collect();
                let found = index.matches(&names);
                prop_assert_eq!(by_rank(&found), map.matches(&blocks));
                for found in found {
                    prop_assert_eq!(found.last, names[found.blocks as usize - 1]);
                }
            }
        }
    }
}

/// Chains longer than a jump: each rank ends somewhere else.
#[test]
fn jumps_find_every_end() {
    let chain: Vec<u64> = (1..=1000).collect();
    let mut index = PositionalIndex::default();
    let ends = [1, 2, 63, 64, 65, 66, 128, 129, 500, 999, 1000];
    for (rank, &end) in ends.iter().enumerate() {
        index.store(rank as Rank, None, &chain[..end]).unwrap();
    }
    for asked in [1, 2, 64, 65, 129, 130, 777, 1000] {
        let found = index.matches(&chain[..asked]);
        let expected = ends.iter().map(|&end| end.min(asked) as u32);
        assert_eq!(
            found.iter().map(|found| found.blocks).collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        );
    }
}
