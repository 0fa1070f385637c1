//! Runs of blocks: how places in the prefix tree are named here.

use engine::NodeId;
use engine::kv_cache::Stretch;

/// Blocks `lo..hi` of a sequence whose last tokens lie in `node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRun {
    /// The node of the prefix tree.
    pub node: NodeId,
    /// Index of the first block in the sequence.
    pub lo: u32,
    /// Index behind the last.
    pub hi: u32,
}

impl BlockRun {
    /// How many blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        u64::from(self.hi - self.lo)
    }
}

/// Blocks `lo..hi` of the sequence with that path, first block first.
pub fn runs_of(path: &[Stretch], lo: u32, hi: u32) -> impl Iterator<Item = BlockRun> {
    let mut start = 0;
    path.iter().filter_map(move |stretch| {
        let run = BlockRun {
            node: stretch.node,
            lo: start.max(lo),
            hi: stretch.end.min(hi),
        };
        start = stretch.end;
        (run.lo < run.hi).then_some(run)
    })
}

/// Blocks in all of them.
#[must_use]
pub fn count(runs: &[BlockRun]) -> u64 {
    runs.iter().map(BlockRun::blocks).sum()
}
