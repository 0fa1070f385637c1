//! KV that an engine itself keeps in host memory, below its own cache: SGLang's HiCache.
//!
//! Other than [what a connector fetches](crate::connector), such a pool belongs to the scheduler: what is there decides who
//! is admitted and what is evicted. Copies that a step waits for are named in its plan
//! ([`HostCopies`](crate::plan::HostCopies)); how long they take is told by who runs it.

use crate::prefix_tree::NodeId;

/// Size and habits of a pool in host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPool {
    /// Tokens of KV that fit: more than fit into the GPUs' own pool, as SGLang demands.
    pub tokens: u32,
    /// When KV is copied down.
    pub write_policy: WritePolicy,
    /// Whether a storage lies behind it, which wants to be told what is copied down and from which prefixes are
    /// [prefetched](Prefetch).
    pub has_storage: bool,
}

/// When KV is copied to host memory (`--hicache-write-policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WritePolicy {
    /// As soon as it is computed.
    #[default]
    WriteThrough,
    /// When it has been stored a second time.
    WriteThroughSelective,
    /// When it is evicted; the step waits for it.
    WriteBack,
}

impl HostPool {
    /// Fewer tokens are computed rather than brought up.
    pub const LOAD_BACK_THRESHOLD: u32 = 10;

    /// Share of what host memory has more than the GPU that prefetches may take before no more begin.
    pub const PREFETCH_SHARE: f64 = 0.8;
}

impl WritePolicy {
    /// Times that a prefix is stored before it is copied; `None` if that does not matter.
    #[must_use]
    pub const fn threshold(self) -> Option<u32> {
        match self {
            WritePolicy::WriteThrough => Some(1),
            WritePolicy::WriteThroughSelective => Some(2),
            WritePolicy::WriteBack => None,
        }
    }
}

/// What of a prompt is on its way from a storage to host memory, or arrived there, while its request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// Tokens of the prompt that the engine had when it began.
    pub from: u32,
    /// Tokens that follow and are to come.
    pub tokens: u32,
    /// Of these, tokens that are there.
    pub arrived: u32,
    /// Whether the request may go on with those.
    pub may_end: bool,
}

/// Pages of one place that were copied to host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Where in the workload's prefix tree.
    pub node: NodeId,
    /// First page, and the one behind the last.
    pub lo: u32,
    /// As above.
    pub hi: u32,
}

/// What a pool in host memory holds and did, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostUse {
    /// Tokens it holds.
    pub held: u32,
    /// Most tokens it held at once.
    pub peak: u32,
    /// Tokens copied down.
    pub written: u64,
    /// Tokens brought up.
    pub loaded: u64,
    /// Tokens that made room for others.
    pub evicted: u64,
    /// Tokens that were to be copied and found no room.
    pub dropped: u64,
}
