//! A count of blocks for each rank that has any, cleared at the cost of those that do.

use super::indexer::Rank;

/// Blocks by rank; a rank that was not raised has 0.
#[derive(Debug, Clone, Default)]
pub struct BlocksByRank {
    blocks: Vec<u32>,
    /// Ranks above 0, in the order in which they rose.
    ranks: Vec<Rank>,
}

impl BlocksByRank {
    /// All 0 again.
    #[inline]
    pub fn clear(&mut self) {
        if self.ranks.is_empty() {
            return;
        }
        for rank in self.ranks.drain(..) {
            self.blocks[rank as usize] = 0;
        }
    }

    /// Lets a rank have at least so many.
    #[inline]
    pub fn raise(&mut self, rank: Rank, blocks: u32) {
        let at = rank as usize;
        if self.blocks.len() <= at {
            self.blocks.resize(at + 1, 0);
        }
        if self.blocks[at] == 0 && blocks > 0 {
            self.ranks.push(rank);
        }
        self.blocks[at] = self.blocks[at].max(blocks);
    }

    /// What a rank has.
    #[must_use]
    #[inline]
    pub fn get(&self, rank: Rank) -> u32 {
        self.blocks.get(rank as usize).copied().unwrap_or(0)
    }

    /// The ranks that have any, in no particular order.
    #[must_use]
    pub fn ranks(&self) -> &[Rank] {
        &self.ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_rose_is_cleared() {
        let mut blocks = BlocksByRank::default();
        blocks.raise(7, 3);
        blocks.raise(2, 5);
        blocks.raise(7, 1);
        blocks.raise(4, 0);
        assert_eq!(blocks.ranks(), [7, 2]);
        assert_eq!(
            [blocks.get(2), blocks.get(7), blocks.get(4), blocks.get(900)],
            [5, 3, 0, 0]
        );
        blocks.clear();
        assert_eq!((blocks.get(7), blocks.ranks().len()), (0, 0));
    }
}
