//! Which blocks of a full tier make room: one policy per file.
//!
//! A policy gives each block a *rank* when it is stored and each time it is used; the block of the lowest rank goes first,
//! and of equal ranks (blocks of one sequence, used together) the one furthest down the sequence, since nothing behind a
//! gap can be read. To add a policy: a file with a `rank`, a line in each `match` below, a name in the scenario's reader.

mod frequency;
mod lru;
mod priority;
mod ttl;

use engine::{Span, Time};

/// How a tier makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// Least recently used first.
    #[default]
    Lru,
    /// Least frequently used first, with age.
    Frequency,
    /// Least important first.
    Priority,
    /// Least recently used first, but nothing that was used within this time.
    Ttl(Span),
}

/// What goes first: the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Rank {
    pub class: u64,
    /// Uses are numbered.
    pub use_number: u64,
}

/// What a policy knows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// How often it was stored or used since it came.
    pub uses: u32,
    /// vLLM's priority of the most important request that used it: the smaller, the more important.
    pub priority: i32,
    pub last_used: Time,
    /// Until then it stays, whatever the policy; `Time::ZERO` if it is not pinned.
    pub pinned_until: Time,
}

impl Life {
    /// Used once more.
    pub fn used(self, now: Time, priority: i32) -> Life {
        Life {
            uses: self.uses.saturating_add(1),
            priority: self.priority.min(priority),
            last_used: now,
            ..self
        }
    }
}

impl Eviction {
    /// The rank of a block from now on. `floor` is the highest class that was evicted.
    pub(super) fn rank(self, life: &Life, use_number: u64, floor: u64) -> Rank {
        let class = match self {
            Eviction::Lru => lru::class(),
            Eviction::Frequency => frequency::class(life, floor),
            Eviction::Priority => priority::class(life),
            Eviction::Ttl(_) => lru::class(),
        };
        Rank { class, use_number }
    }

    /// Whether a block stays whatever happens.
    pub(super) fn holds(self, life: &Life, now: Time) -> bool {
        match self {
            Eviction::Lru | Eviction::Frequency | Eviction::Priority => false,
            Eviction::Ttl(ttl) => ttl::holds(life, ttl, now),
        }
    }
}
