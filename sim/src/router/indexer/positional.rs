//! Positional index with jump search: which ranks hold the block at a position is one look-up, so a long request is
//! answered by looking at every 64th of its blocks.
//!
//! A block's sequence hash stands for its whole prefix. While every rank that held the blocks so far also holds the one
//! 64 further on, the blocks between need no look. Where some do not, each of them is followed by halving the jump: it
//! ends behind the last block it holds. That is right as long as a rank holds all blocks before each block it holds,
//! which removals in the middle of a chain break. The index therefore knows of every rank how many missing blocks have
//! held ones behind them; ranks with such holes are counted block by block.
//!
//! Answers are those of a plain set of (rank, block): a block that was removed and stored again makes the blocks behind
//! it count again. Jump search is the idea of Dynamo's positional ("flash") indexer; the treatment of holes and halving
//! are ours.

use super::chain::{insert_rank, remove_rank};
use super::{IndexError, Match, Rank};
use rustc_hash::FxHashMap;

/// Blocks looked over at a time.
const JUMP: usize = 64;

/// Ranks by block, and blocks by rank.
#[derive(Debug, Clone, Default)]
pub struct PositionalIndex {
    /// By position, then by sequence hash: the ranks that hold the block, sorted.
    positions: Vec<FxHashMap<u64, Vec<Rank>>>,
    ranks: Vec<Holdings>,
}

/// What one rank holds.
#[derive(Debug, Clone, Default)]
struct Holdings {
    blocks: FxHashMap<u64, Held>,
    /// Missing blocks that held ones follow, and how many.
    holes: FxHashMap<u64, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    position: u32,
    parent: Option<u64>,
    /// Held blocks directly behind it.
    children: u32,
}

impl PositionalIndex {
    /// A rank stored blocks, named by sequence hash, behind the block `parent`, or at the start.
    pub fn store(
        &mut self,
        rank: Rank,
        mut parent: Option<u64>,
        blocks: &[u64],
    ) -> Result<(), IndexError> {
        let holdings = self.meet(rank);
        let first = match parent {
            None => 0,
            Some(parent) => {
                let held = holdings
                    .blocks
                    .get(&parent)
                    .ok_or(IndexError::ParentBlockNotFound)?;
                held.position + 1
            }
        };
        for (position, &block) in (first..).zip(blocks) {
            let holdings = &mut self.ranks[rank as usize];
            if !holdings.blocks.contains_key(&block) {
                let children = holdings.holes.remove(&block).unwrap_or(0);
                holdings.blocks.insert(
                    block,
                    Held {
                        position,
                        parent,
                        children,
                    },
                );
                if let Some(parent) = parent {
                    holdings
                        .blocks
                        .get_mut(&parent)
                        .expect("stored just before")
                        .children += 1;
                }
                let at = position as usize;
                if self.positions.len() <= at {
                    self.positions.resize_with(at + 1, FxHashMap::default);
                }
                insert_rank(self.positions[at].entry(block).or_default(), rank);
            }
            parent = Some(block);
        }
        Ok(())
    }

    /// A rank removed blocks.
    pub fn remove(&mut self, rank: Rank, blocks: &[u64]) -> Result<(), IndexError> {
        self.meet(rank);
        let mut outcome = Ok(());
        for &block in blocks {
            let holdings = &mut self.ranks[rank as usize];
            let Some(held) = holdings.blocks.remove(&block) else {
                outcome = Err(IndexError::BlockNotFound);
                continue;
            };
            if held.children > 0 {
                holdings.holes.insert(block, held.children);
            }
            if let Some(parent) = held.parent {
                holdings.lose_child(parent);
            }
            self.forget(rank, block, held.position);
        }
        outcome
    }

    /// A rank holds nothing any more.
    pub fn clear(&mut self, rank: Rank) {
        for (block, held) in std::mem::take(self.meet(rank)).blocks {
            self.forget(rank, block, held.position);
        }
    }

    /// The leading blocks of a request, named by sequence hash, that each rank holds, for ranks that hold one at least,
    /// sorted by rank.
    #[must_use]
    pub fn matches(&self, query: &[u64]) -> Vec<Match<u64>> {
        let mut matches = Vec::new();
        let mut note = |rank, blocks: usize| {
            matches.push(Match {
                rank,
                blocks: blocks as u32,
                last: query[blocks - 1],
            });
        };
        // Ranks that hold all of the first `depth` blocks.
        let mut active: Vec<Rank> = Vec::new();
        for &rank in self.holders(query, 0) {
            if self.ranks[rank as usize].holes.is_empty() {
                active.push(rank);
            } else {
                let blocks = &self.ranks[rank as usize].blocks;
                note(
                    rank,
                    query
                        .iter()
                        .take_while(|&block| blocks.contains_key(block))
                        .count(),
                );
            }
        }
        let mut depth = 1;
        while !active.is_empty() && depth < query.len() {
            let behind = (depth + JUMP).min(query.len());
            let holders = self.holders(query, behind - 1);
            if active != holders {
                active.retain(|&rank| {
                    let is_kept = holders.binary_search(&rank).is_ok();
                    if !is_kept {
                        note(rank, self.end(rank, query, depth, behind - 1));
                    }
                    is_kept
                });
            }
            depth = behind;
        }
        for rank in active {
            note(rank, depth);
        }
        matches.sort_unstable_by_key(|found| found.rank);
        matches
    }

    /// How many blocks a rank without holes holds, at least `least` and at most `most`.
    fn end(&self, rank: Rank, query: &[u64], mut least: usize, mut most: usize) -> usize {
        let blocks = &self.ranks[rank as usize].blocks;
        while least < most {
            let middle = least + (most - least) / 2;
            if blocks.contains_key(&query[middle]) {
                least = middle + 1;
            } else {
                most = middle;
            }
        }
        least
    }

    fn holders(&self, query: &[u64], position: usize) -> &[Rank] {
        let found = self.positions.get(position).zip(query.get(position));
        found
            .and_then(|(blocks, block)| blocks.get(block))
            .map_or(&[], Vec::as_slice)
    }

    fn forget(&mut self, rank: Rank, block: u64, position: u32) {
        let blocks = &mut self.positions[position as usize];
        let ranks = blocks
            .get_mut(&block)
            .expect("a held block has its holders");
        remove_rank(ranks, rank);
        if ranks.is_empty() {
            blocks.remove(&block);
        }
    }

    fn meet(&mut self, rank: Rank) -> &mut Holdings {
        if self.ranks.len() <= rank as usize {
            self.ranks.resize_with(rank as usize + 1, Holdings::default);
        }
        &mut self.ranks[rank as usize]
    }
}

impl Holdings {
    fn lose_child(&mut self, parent: u64) {
        if let Some(parent) = self.blocks.get_mut(&parent) {
            parent.children -= 1;
            return;
        }
        let children = self
            .holes
            .get_mut(&parent)
            .expect("a missing parent is a hole");
        *children -= 1;
        if *children == 0 {
            self.holes.remove(&parent);
        }
    }
}
