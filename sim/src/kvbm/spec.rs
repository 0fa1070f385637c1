//! What tiers a worker has.

use super::eviction::Eviction;
use super::filter::FilterSpec;
use engine::Span;

/// The tiers of each worker of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct KvbmSpec {
    /// From the fastest to the slowest, at least one, each medium at most once.
    pub tiers: Vec<TierSpec>,
    /// Between a worker's GPUs and everything below, all its GPUs together: to the GPUs, from the GPUs.
    pub pcie: Speed,
    /// When blocks are copied down.
    pub offload: OffloadPolicy,
    /// Whether slower tiers are read into host memory while requests wait.
    pub prefetch: bool,
    /// Workers that share a node's disks.
    pub workers_per_node: u32,
    /// Size of the KV of one token, over all GPUs of a worker.
    pub kv_bytes_per_token: u64,
}

/// One tier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierSpec {
    /// Where.
    pub medium: Medium,
    /// Blocks of the engine's size that fit: per worker, in the object store for all.
    pub blocks: u64,
    /// What makes room.
    pub eviction: Eviction,
    /// What is let in; `None` takes all.
    pub filter: Option<FilterSpec>,
}

/// Where a tier keeps its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// G2: pinned memory of the host, as fast as PCIe.
    Host,
    /// G3: the node's disks.
    Disk(Speed),
    /// G4: one store for all workers.
    Object(Speed),
}

/// How fast something is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Bytes per second upwards, at least 1.
    pub read_bytes_per_s: u64,
    /// Bytes per second downwards, at least 1.
    pub write_bytes_per_s: u64,
    /// Before the first byte of a read.
    pub read_latency: Span,
    /// Before the first byte of a write.
    pub write_latency: Span,
}

/// When blocks are copied to the tier below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffloadPolicy {
    /// When they are computed or have arrived (KVBM's).
    #[default]
    WriteThrough,
    /// When they are evicted.
    OnEvict,
}

/// Names of the media, by their index.
pub const MEDIA: [&str; 3] = ["host", "disk", "object"];

impl Medium {
    /// 0 for the host, 1 for the disk, 2 for the object store.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Medium::Host => 0,
            Medium::Disk(_) => 1,
            Medium::Object(_) => 2,
        }
    }

    /// Its name in scenarios and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        MEDIA[self.index()]
    }
}
