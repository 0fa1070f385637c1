//! What tiers did, for the books.

use crate::event::WorkerId;
use engine::{RequestId, Time};

/// What happened below the GPUs' caches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KvbmRecord {
    /// Of each worker its tiers, workers in order, fastest tier first; the object store once.
    pub tiers: Vec<TierRecord>,
    /// By worker: whether it has tiers.
    pub workers: Vec<bool>,
    /// Onboardings that are over, in the order of their ends.
    pub fetches: Vec<FetchRecord>,
    /// Whether nothing was on its way up when the run ended.
    pub is_settled: bool,
}

/// What one tier did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TierRecord {
    /// Index in [`MEDIA`](super::spec::MEDIA).
    pub medium: usize,
    /// Blocks that fit.
    pub capacity_blocks: u64,
    /// Most blocks that took up room at once.
    pub peak_blocks: u64,
    /// Blocks that came.
    pub offloaded_blocks: u64,
    /// Their size.
    pub offloaded_bytes: u64,
    /// Blocks that were read.
    pub onboarded_blocks: u64,
    /// Their size.
    pub onboarded_bytes: u64,
    /// Blocks that were read into host memory before they were asked for.
    pub prefetched_blocks: u64,
    /// Their size.
    pub prefetched_bytes: u64,
    /// Blocks that made room for others.
    pub evicted_blocks: u64,
    /// Blocks that the filter kept out.
    pub filtered_blocks: u64,
    /// Blocks that found no room.
    pub dropped_blocks: u64,
}

impl TierRecord {
    /// Both together; peaks need not have been at the same time.
    #[must_use]
    pub fn plus(self, other: &TierRecord) -> TierRecord {
        TierRecord {
            medium: other.medium,
            capacity_blocks: self.capacity_blocks + other.capacity_blocks,
            peak_blocks: self.peak_blocks + other.peak_blocks,
            offloaded_blocks: self.offloaded_blocks + other.offloaded_blocks,
            offloaded_bytes: self.offloaded_bytes + other.offloaded_bytes,
            onboarded_blocks: self.onboarded_blocks + other.onboarded_blocks,
            onboarded_bytes: self.onboarded_bytes + other.onboarded_bytes,
            prefetched_blocks: self.prefetched_blocks + other.prefetched_blocks,
            prefetched_bytes: self.prefetched_bytes + other.prefetched_bytes,
            evicted_blocks: self.evicted_blocks + other.evicted_blocks,
            filtered_blocks: self.filtered_blocks + other.filtered_blocks,
            dropped_blocks: self.dropped_blocks + other.dropped_blocks,
        }
    }
}

/// One request's onboarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRecord {
    /// Whose.
    pub request: RequestId,
    /// Where to.
    pub worker: WorkerId,
    /// When its blocks were reserved.
    pub began: Time,
    /// When the last byte was there.
    pub ended: Time,
    /// Tokens from host, disk and object store.
    pub tokens: [u32; 3],
}

/// An onboarding under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetch {
    pub record: FetchRecord,
    /// Flows that have not ended.
    pub parts: u32,
}
