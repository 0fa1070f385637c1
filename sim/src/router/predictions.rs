//! What a router believes without being told: a prompt it sent to a worker stays cached there for a while.
//!
//! Every block lives for the time to live from the last prompt that held it. Prompts hold whole prefixes, so on a node of
//! the prefix tree the blocks up to the end of a later prompt live longer than those behind it: a few ends per node are
//! enough to know when each block goes.
//!
//! There may be a limit to how many blocks are remembered, over all ranks. Beyond it the blocks that would expire first are
//! forgotten, of those that expire together the later ones of a prompt first, down to a share of the limit. Source:
//! dynamo-kv-router 1.0 to 1.2 (`router_max_tree_size`, `router_prune_target_ratio`); 1.6 has no such limit.
//!
//! Model: blocks that expire within the same 100 ms expire together; the real one pruned by exact times.

use super::approximate::TimeToLive;
use super::by_rank::BlocksByRank;
use super::indexer::chain::{Piece, PlacedQuery};
use super::indexer::{PlacedChain, RadixTree, Rank};
use engine::kv_cache::Stretch;
use engine::{NodeId, Span, Time};
use rustc_hash::FxHashMap;
use std::collections::BinaryHeap;

/// How many blocks are remembered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pruning {
    /// Blocks over all ranks; more are pruned.
    pub max_tree_size: u64,
    /// Down to this share of them.
    pub prune_target_ratio: f64,
}

/// Prompts that were sent somewhere not long ago.
#[derive(Debug, Clone)]
pub struct Predictions {
    index: RadixTree<PlacedChain>,
    alive: TimeToLive<Key>,
    nodes: FxHashMap<(Rank, NodeId), Ends>,
    pruning: Option<Pruning>,
    /// Blocks that are remembered.
    blocks: u64,
}

/// Rank, node, and how far a prompt reached into it.
type Key = (Rank, NodeId, u32);

/// How far prompts reached into a node.
#[derive(Debug, Clone)]
struct Ends {
    start: u32,
    /// The oldest first; later ones are smaller, since a prompt that reaches as far refreshes what is before.
    ends: Vec<u32>,
}

impl Ends {
    fn longest(&self) -> u32 {
        self.ends.first().copied().unwrap_or(self.start)
    }

    /// Where the blocks that expire with `end` begin, and its place among the ends.
    fn begin_of(&self, end: u32) -> (u32, usize) {
        let at = self.ends.iter().position(|&other| other == end);
        let at = at.expect("what lives has its end");
        (self.ends.get(at + 1).copied().unwrap_or(self.start), at)
    }
}

impl Predictions {
    /// None yet.
    #[must_use]
    pub fn new(ttl: Span, pruning: Option<Pruning>) -> Self {
        Predictions {
            index: RadixTree::default(),
            alive: TimeToLive::new(ttl),
            nodes: FxHashMap::default(),
            pruning,
            blocks: 0,
        }
    }

    /// A prompt goes to a rank.
    pub fn expect(&mut self, now: Time, rank: Rank, path: &[Stretch]) {
        self.expire(now);
        let mut start = 0;
        let mut chain = PlacedChain::default();
        for &Stretch { node, end } in path {
            chain.0.push(Piece {
                node,
                lo: start,
                hi: end,
            });
            let ends = self.nodes.entry((rank, node)).or_insert(Ends {
                start,
                ends: Vec::new(),
            });
            self.blocks += u64::from(end.saturating_sub(ends.longest()));
            while let Some(shorter) = ends.ends.pop_if(|other| *other <= end) {
                if shorter < end {
                    self.alive.remove((rank, node, shorter));
                }
            }
            ends.ends.push(end);
            self.alive.insert(now, (rank, node, end));
            start = end;
        }
        self.index
            .store(rank, None, &chain)
            .expect("a prompt has no parent");
        self.prune();
    }

    /// Nothing is expected of a rank any more.
    pub fn forget_rank(&mut self, rank: Rank) {
        let (alive, blocks) = (&mut self.alive, &mut self.blocks);
        self.nodes.retain(|&(of, node), ends| {
            if of == rank {
                *blocks -= u64::from(ends.longest() - ends.start);
                for &end in &ends.ends {
                    alive.remove((rank, node, end));
                }
            }
            of != rank
        });
        self.index.clear(rank);
    }

    /// Raises each rank to the leading blocks of the path that live there.
    pub fn overlap(
        &mut self,
        now: Time,
        query: PlacedQuery<'_>,
        active: &mut Vec<Rank>,
        overlap: &mut BlocksByRank,
    ) {
        self.expire(now);
        self.index.overlap(query, active, overlap);
    }

    fn expire(&mut self, now: Time) {
        let mut expired = Vec::new();
        self.alive.pop_expired(now, |key| expired.push(key));
        for (rank, node, end) in expired {
            let ends = &self.nodes[&(rank, node)];
            let (begin, _) = ends.begin_of(end);
            self.forget((rank, node, end), begin);
        }
    }

    /// Forgets the blocks of a key from `begin` on; a key that is left without any is gone.
    fn forget(&mut self, (rank, node, end): Key, begin: u32) {
        let ends = self
            .nodes
            .get_mut(&(rank, node))
            .expect("what lives has its node");
        let before = ends.longest();
        let (first, at) = ends.begin_of(end);
        if begin > first {
            ends.ends[at] = begin;
        } else {
            ends.ends.remove(at);
        }
        let longest = ends.longest();
        if longest < before {
            self.blocks -= u64::from(before - longest);
            self.index.remove_run(rank, node, longest, before);
        }
        if ends.ends.is_empty() {
            self.nodes.remove(&(rank, node));
        }
    }

    fn prune(&mut self) {
        let Some(pruning) = self.pruning.filter(|it| self.blocks > it.max_tree_size) else {
            return;
        };
        let target = (pruning.max_tree_size as f64 * pruning.prune_target_ratio) as u64;
        while self.blocks > target {
            let (bucket, keys) = self
                .alive
                .take_first()
                .expect("blocks that are remembered live");
            self.prune_bucket(bucket, keys, target);
        }
    }

    /// Forgets blocks that expire together, the last first, until `target` are left; the others live on.
    fn prune_bucket(&mut self, bucket: u64, keys: Vec<Key>, target: u64) {
        let begins = keys.iter().map(|&(rank, node, end)| {
            let (begin, _) = self.nodes[&(rank, node)].begin_of(end);
            (begin, end)
        });
        let mut runs: Vec<(u32, u32)> = begins.collect();
        // By where they end, then rank and node.
        let place = |(index, &(rank, node, end)): (usize, &Key)| (end, rank, node.0, index);
        let mut last: BinaryHeap<(u32, Rank, u32, usize)> =
            keys.iter().enumerate().map(place).collect();
        let mut left = self.blocks - target;
        while left > 0
            && let Some((end, rank, node, index)) = last.pop()
        {
            let next = last.peek().map_or(0, |other| other.0);
            let (begin, reach) = &mut runs[index];
            let most = u64::from(end - next.max(*begin)).max(1).min(left);
            left -= most;
            *reach = end - most as u32;
            if *reach > *begin {
                last.push((*reach, rank, node, index));
            }
        }
        for (key, (begin, reach)) in keys.into_iter().zip(runs) {
            if reach < key.2 {
                self.forget(key, reach);
            }
            if reach > begin {
                self.alive.put_back(bucket, (key.0, key.1, reach));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn seconds(s: u64) -> Time {
        Time(s * 1_000_000_000_000)
    }

    /// Four blocks of one node, then those of another.
    fn path(nodes: [u32; 2], end: u32) -> Vec<Stretch> {
        let mut path = vec![Stretch {
            node: NodeId(nodes[0]),
            end: end.min(4),
        }];
        if end > 4 {
            path.push(Stretch {
                node: NodeId(nodes[1]),
                end,
            });
        }
        path
    }

    fn lives(predictions: &mut Predictions, at: Time, path: &[Stretch], limit: u32) -> [u32; 3] {
        let mut overlap = BlocksByRank::default();
        let query = PlacedQuery { path, limit };
        predictions.overlap(at, query, &mut Vec::new(), &mut overlap);
        [0, 1, 2].map(|rank| overlap.get(rank))
    }

    #[test]
    fn blocks_live_from_the_last_prompt_that_held_them() {
        let path = |end| path([1, 2], end);
        let mut predictions = Predictions::new(Span(seconds(10).0), None);
        predictions.expect(seconds(0), 1, &path(8));
        predictions.expect(seconds(4), 1, &path(6));
        predictions.expect(seconds(7), 1, &path(3));
        let mut at = |s| lives(&mut predictions, seconds(s), &path(8), 8);
        assert_eq!(at(9), [0, 8, 0]);
        // 6 to 8 go at 10, 3 to 6 at 14, the rest at 17.
        assert_eq!([10, 13, 14, 16, 17].map(|s| at(s)[1]), [6, 6, 3, 3, 0]);
        assert!(predictions.alive.is_empty() && predictions.nodes.is_empty());
        assert_eq!(predictions.blocks, 0);
    }

    #[test]
    fn the_oldest_and_of_these_the_last_are_pruned() {
        let pruning = Pruning {
            max_tree_size: 10,
            prune_target_ratio: 0.5,
        };
        let mut predictions = Predictions::new(Span(seconds(100).0), Some(pruning));
        predictions.expect(seconds(0), 0, &path([1, 2], 6));
        predictions.expect(seconds(1), 1, &path([1, 2], 4));
        assert_eq!(predictions.blocks, 10);
        // The first two blocks on rank 0 are refreshed: its last four are the oldest.
        predictions.expect(seconds(2), 0, &path([1, 2], 2));
        assert_eq!(predictions.blocks, 10);
        // An eleventh: down to five. The four go, then the last two of rank 1.
        predictions.expect(seconds(3), 2, &path([1, 2], 1));
        assert_eq!(predictions.blocks, 5);
        assert_eq!(
            lives(&mut predictions, seconds(3), &path([1, 2], 6), 6),
            [2, 2, 1]
        );
        // What is left expires as it would have.
        assert_eq!(
            lives(&mut predictions, seconds(101), &path([1, 2], 6), 6),
            [2, 0, 1]
        );
        assert_eq!(predictions.blocks, 3);
    }

    /// By rank and place: when it expires, in buckets of 100 ms.
    type Naive = BTreeMap<(u32, u32, u32), u64>;

    fn prune_naively(naive: &mut Naive, max: usize, target: usize) {
        if naive.len() <= max {
            return;
        }
        while naive.len() > target {
            let order = |(&(rank, node, at), &bucket): (&(u32, u32, u32), &u64)| {
                (std::cmp::Reverse(bucket), at, rank, node)
            };
            let next = naive.iter().map(order).max().expect("it is too large");
            naive.remove(&(next.2, next.3, next.1));
        }
    }

    #[test]
    fn pruning_is_that_of_single_blocks() {
        let mut state = 7u64;
        let mut draw = |bound: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % bound
        };
        let pruning = Pruning {
            max_tree_size: 40,
            prune_target_ratio: 0.8,
        };
        let mut predictions = Predictions::new(Span(seconds(5).0), Some(pruning));
        let mut naive = Naive::new();
        for step in 0..5_000u64 {
            let now = Time(step * 90_000_000_000);
            naive.retain(|_, bucket| *bucket * 100_000_000_000 > now.0);
            let (rank, nodes) = (draw(3) as u32, [1 + draw(2) as u32, 3]);
            let nodes = [nodes[0], nodes[1] + nodes[0]];
            let end = 1 + draw(11) as u32;
            predictions.expect(now, rank, &path(nodes, end));
            let bucket = (now.0 + seconds(5).0).div_ceil(100_000_000_000);
            for at in 0..end {
                let node = if at < 4 { nodes[0] } else { nodes[1] };
                naive.insert((rank, node, at), bucket);
            }
            prune_naively(&mut naive, 40, 32);
            assert_eq!(predictions.blocks, naive.len() as u64, "step {step}");
            for nodes in [[1, 4], [2, 5]] {
                let found = lives(&mut predictions, now, &path(nodes, 12), 12);
                for rank in 0..3 {
                    let holds = |at: &u32| {
                        let node = if *at < 4 { nodes[0] } else { nodes[1] };
                        naive.contains_key(&(rank, node, *at))
                    };
                    let expected = (0..12).take_while(holds).count() as u32;
                    assert_eq!(found[rank as usize], expected, "step {step}, rank {rank}");
                }
            }
        }
    }
}
