//! Who holds which blocks: indexes from a request's blocks to the ranks that hold them from the start without a gap.
//!
//! * [`radix`]: the compressed radix tree of the real router, with its habits; what the simulation runs on.
//! * [`positional`]: blocks by position, searched in jumps.
//! * [`chain`]: what a chain of blocks is to a tree: hashes outside, places in the prefix tree inside the simulation.

pub mod chain;
pub mod positional;
pub mod radix;

pub use chain::{HashedChain, PlacedChain};
pub use positional::PositionalIndex;
pub use radix::RadixTree;

/// Dense number of a rank of a worker.
pub type Rank = u32;

/// A block as events carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashedBlock {
    /// Hash of its own tokens.
    pub local: u64,
    /// Hash of its whole prefix: its name.
    pub sequence: u64,
}

/// Why an event was not applied, or not wholly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexError {
    /// The block that the stored ones follow is not held by that rank; nothing was stored.
    ParentBlockNotFound,
    /// A removed block is not held by that rank; the rest of the list was removed.
    BlockNotFound,
}

/// How far a rank holds what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match<Block> {
    /// The rank.
    pub rank: Rank,
    /// Leading blocks it holds, at least 1.
    pub blocks: u32,
    /// The last of them.
    pub last: Block,
}
