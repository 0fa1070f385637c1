//! The frequency filter in front of the disk: blocks are written when they come a second time within a while.
//!
//! A block counts 1 when it is first offered, and twice as much each time it is offered again; every `decay` all counts go
//! down by one, and a block at 0 is forgotten. It passes with a count of at least `min_frequency`. It spares the disk
//! writes of prompts that nobody repeats.
//!
//! Source: KVBM's `FrequencyFilter::new(2, 600 s, ...)`, on unless `DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER` is set.

// Model: the real filter forgets all when it knows 10^6 blocks; this one knows any number.

use super::runs::BlockRun;
use engine::{NodeId, Span, Time};
use rustc_hash::FxHashMap;

/// When a block passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterSpec {
    /// Least count.
    pub min_frequency: u32,
    /// How often counts go down.
    pub decay: Span,
}

impl Default for FilterSpec {
    fn default() -> Self {
        FilterSpec {
            min_frequency: 2,
            decay: Span(600_000_000_000_000),
        }
    }
}

/// Counts of blocks.
#[derive(Debug, Clone)]
pub struct FrequencyFilter {
    spec: FilterSpec,
    /// By node, by first block, without overlap.
    counts: FxHashMap<NodeId, Vec<Counted>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    lo: u32,
    hi: u32,
    count: u32,
    /// Number of the decay at which `count` was true.
    decays: u64,
}

impl FrequencyFilter {
    /// A filter that has seen nothing.
    #[must_use]
    pub fn new(spec: FilterSpec) -> FrequencyFilter {
        assert!(spec.decay > Span::ZERO, "counts decay after some time");
        FrequencyFilter {
            spec,
            counts: FxHashMap::default(),
        }
    }

    /// Counts the blocks of a run, and appends those that pass.
    pub fn pass(&mut self, now: Time, run: BlockRun, passed: &mut Vec<BlockRun>) {
        let BlockRun { node, lo, hi } = run;
        let decays = now.0 / self.spec.decay.0;
        let counts = self.counts.entry(node).or_default();
        cut(counts, lo);
        cut(counts, hi);
        let from = counts.partition_point(|it| it.hi <= lo);
        let until = counts.partition_point(|it| it.lo < hi);
        let mut seen = Vec::with_capacity(until - from + 1);
        let mut at = lo;
        let new = |lo: u32, hi: u32| Counted {
            lo,
            hi,
            count: 1,
            decays,
        };
        for known in &counts[from..until] {
            if at < known.lo {
                seen.push(new(at, known.lo));
            }
            let lost = u32::try_from(decays - known.decays).unwrap_or(u32::MAX);
            let left = known.count.saturating_sub(lost);
            let count = if left == 0 { 1 } else { left.saturating_mul(2) };
            seen.push(Counted {
                count,
                decays,
                ..*known
            });
            at = known.hi;
        }
        if at < hi {
            seen.push(new(at, hi));
        }
        let enough = seen.iter().filter(|it| it.count >= self.spec.min_frequency);
        passed.extend(enough.map(|it| BlockRun {
            node,
            lo: it.lo,
            hi: it.hi,
        }));
        counts.splice(from..until, seen);
        join(counts);
    }
}

/// Lets no entry cross the front of block `at`.
fn cut(counts: &mut Vec<Counted>, at: u32) {
    let place = counts.partition_point(|it| it.hi <= at);
    if let Some(across) = counts.get_mut(place).filter(|it| it.lo < at) {
        let upper = Counted { lo: at, ..*across };
        across.hi = at;
        counts.insert(place + 1, upper);
    }
}

/// Makes one of equal neighbours.
fn join(counts: &mut Vec<Counted>) {
    counts.dedup_by(|next, before| {
        let is_alike =
            before.hi == next.lo && (before.count, before.decays) == (next.count, next.decays);
        if is_alike {
            before.hi = next.hi;
        }
        is_alike
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    fn run(lo: u32, hi: u32) -> BlockRun {
        BlockRun { node: NODE, lo, hi }
    }

    fn seconds(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000_000)
    }

    #[test]
    fn the_second_time_passes() {
        let mut filter = FrequencyFilter::new(FilterSpec::default());
        let mut passed = Vec::new();
        filter.pass(seconds(0), run(0, 10), &mut passed);
        assert_eq!(passed, []);
        filter.pass(seconds(1), run(5, 15), &mut passed);
        assert_eq!(passed, [run(5, 10)]);
    }

    #[test]
    fn counts_fade() {
        // Count 1 at 0 s is 0 at 600 s: the block is new again at 601 s. Count 2 at 602 s is 1 at 1,200 s, doubled is 2.
        let mut filter = FrequencyFilter::new(FilterSpec::default());
        let mut passed = Vec::new();
        for (at, passes) in [(0, false), (601, false), (602, true), (1201, true)] {
            passed.clear();
            filter.pass(seconds(at), run(0, 1), &mut passed);
            assert_eq!(!passed.is_empty(), passes, "at {at} s");
        }
    }
}
