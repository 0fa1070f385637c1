//! What a router believes without being told: a prompt it sent to a worker stays cached there for a while.
//!
//! Every block lives for the time to live from the last prompt that held it. Prompts hold whole prefixes, so on a node of
//! the prefix tree the blocks up to the end of a later prompt live longer than those behind it: a few ends per node are
//! enough to know when each block goes.

use super::approximate::TimeToLive;
use super::by_rank::BlocksByRank;
use super::indexer::chain::{Piece, PlacedQuery};
use super::indexer::{PlacedChain, RadixTree, Rank};
use engine::kv_cache::Stretch;
use engine::{NodeId, Span, Time};
use rustc_hash::FxHashMap;

/// Prompts that were sent somewhere not long ago.
#[derive(Debug, Clone)]
pub struct Predictions {
    index: RadixTree<PlacedChain>,
    alive: TimeToLive<(Rank, NodeId, u32)>,
    nodes: FxHashMap<(Rank, NodeId), Ends>,
}

/// How far prompts reached into a node.
#[derive(Debug, Clone)]
struct Ends {
    start: u32,
    /// The oldest first; later ones are smaller, since a prompt that reaches as far refreshes what is before.
    ends: Vec<u32>,
}

impl Predictions {
    /// None yet.
    #[must_use]
    pub fn new(ttl: Span) -> Self {
        Predictions {
            index: RadixTree::default(),
            alive: TimeToLive::new(ttl),
            nodes: FxHashMap::default(),
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
    }

    /// Nothing is expected of a rank any more.
    pub fn forget(&mut self, rank: Rank) {
        let alive = &mut self.alive;
        self.nodes.retain(|&(of, node), ends| {
            if of == rank {
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
        let (index, nodes) = (&mut self.index, &mut self.nodes);
        self.alive.pop_expired(now, |(rank, node, end)| {
            let ends = nodes
                .get_mut(&(rank, node))
                .expect("what lives has its end");
            let at = ends
                .ends
                .iter()
                .position(|&other| other == end)
                .expect("what lives has its end");
            ends.ends.remove(at);
            let longest = ends.ends.iter().copied().max().unwrap_or(ends.start);
            if longest < end {
                index.remove_run(rank, node, longest, end);
            }
            if ends.ends.is_empty() {
                nodes.remove(&(rank, node));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_live_from_the_last_prompt_that_held_them() {
        let path = |end: u32| {
            let mut path = vec![Stretch {
                node: NodeId(1),
                end: end.min(4),
            }];
            if end > 4 {
                path.push(Stretch {
                    node: NodeId(2),
                    end,
                });
            }
            path
        };
        let seconds = |s: u64| Time(s * 1_000_000_000_000);
        let mut predictions = Predictions::new(Span(seconds(10).0));
        let lives = |predictions: &mut Predictions, at: u64| {
            let (path, mut overlap) = (path(8), BlocksByRank::default());
            let query = PlacedQuery {
                path: &path,
                limit: 8,
            };
            predictions.overlap(seconds(at), query, &mut Vec::new(), &mut overlap);
            [0, 1].map(|rank| overlap.get(rank))
        };
        predictions.expect(seconds(0), 1, &path(8));
        predictions.expect(seconds(4), 1, &path(6));
        predictions.expect(seconds(7), 1, &path(3));
        assert_eq!(lives(&mut predictions, 9), [0, 8]);
        // 6 to 8 go at 10, 3 to 6 at 14, the rest at 17.
        assert_eq!(
            [10, 13, 14, 16, 17].map(|s| lives(&mut predictions, s)[1]),
            [6, 6, 3, 3, 0]
        );
        assert!(predictions.alive.is_empty() && predictions.nodes.is_empty());
    }
}
