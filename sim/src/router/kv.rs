//! KV-aware: the worker on which the request costs least, in blocks, lower is better.
//!
//! ```text
//! cost = prefill_load_scale * max(0, (active_prefill_tokens + prompt_tokens) / block_size - overlap_score_credit * overlap)
//!      + decode_blocks + ceil(prompt_tokens / block_size)
//! ```
//!
//! `active_prefill_tokens` are the uncached prompt tokens of requests placed there whose first token has not arrived;
//! `overlap` is the longest prefix of the request, in blocks, that the worker's KV events say is cached there;
//! `decode_blocks` are the blocks of the prompts of all requests placed there and not ended. Of several cheapest workers
//! one is drawn by (seed, request). The form is that of Dynamo's KV router at its default settings.
//!
//! Model: events arrive at the end of the step in which they happened, none is lost; shared blocks of two requests on
//! one worker count twice in `decode_blocks` (the real router counts distinct blocks: the cost of a busy worker with
//! shared prefixes is overstated by the shared part).

use super::{Candidate, Placement};
use crate::event::WorkerId;
use crate::random::{Purpose, draw};
use engine::kv_cache::{Stretch, block_path};
use engine::{KvEvent, NodeId, RequestId};
use rustc_hash::FxHashMap;

/// Weights of the cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvRouterSpec {
    /// How much of a cached block's prefill counts as saved.
    pub overlap_score_credit: f64,
    /// Weight of the prefill part.
    pub prefill_load_scale: f64,
}

impl Default for KvRouterSpec {
    fn default() -> Self {
        KvRouterSpec {
            overlap_score_credit: 1.0,
            prefill_load_scale: 1.0,
        }
    }
}

/// The router's view of the workers.
#[derive(Debug, Clone)]
pub struct KvRouter {
    spec: KvRouterSpec,
    seed: u64,
    block_size: u32,
    index: KvIndex,
    loads: Vec<Load>,
    placed: FxHashMap<RequestId, Placed>,
    overlap: Vec<u32>,
    path: Vec<Stretch>,
    cheapest: Vec<WorkerId>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    prefill_tokens: u64,
    decode_blocks: u64,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    worker: WorkerId,
    prefill_tokens: u64,
    blocks: u64,
}

impl KvRouter {
    pub(super) fn new(spec: KvRouterSpec, seed: u64, workers: usize, block_size: u32) -> Self {
        KvRouter {
            spec,
            seed,
            block_size,
            index: KvIndex::default(),
            loads: vec![Load::default(); workers],
            placed: FxHashMap::default(),
            overlap: vec![0; workers],
            path: Vec::new(),
            cheapest: Vec::new(),
        }
    }

    pub(super) fn place(&mut self, candidate: &Candidate<'_>) -> Placement {
        let request = &candidate.workload.requests[candidate.request.0 as usize];
        block_path(
            &candidate.workload.tree,
            request.leaf,
            self.block_size,
            &mut self.path,
        );
        let limit = request.input_tokens / self.block_size;
        self.index.overlap(&self.path, limit, &mut self.overlap);
        let own_blocks = u64::from(request.input_tokens.div_ceil(self.block_size));
        let mut least = f64::INFINITY;
        self.cheapest.clear();
        for &worker in candidate.workers {
            let load = &self.loads[worker.0 as usize];
            let tokens = load.prefill_tokens + u64::from(request.input_tokens);
            let credit =
                self.spec.overlap_score_credit * f64::from(self.overlap[worker.0 as usize]);
            let prefill = (tokens as f64 / f64::from(self.block_size) - credit).max(0.0);
            let cost =
                self.spec.prefill_load_scale * prefill + (load.decode_blocks + own_blocks) as f64;
            if cost < least {
                least = cost;
                self.cheapest.clear();
            }
            if cost <= least {
                self.cheapest.push(worker);
            }
        }
        let tie = draw(
            self.seed,
            Purpose::RouteTie,
            u64::from(candidate.request.0),
            self.cheapest.len(),
        );
        let worker = self.cheapest[tie];
        let overlap_tokens = self.overlap[worker.0 as usize] * self.block_size;
        let placed = Placed {
            worker,
            prefill_tokens: u64::from(request.input_tokens - overlap_tokens),
            blocks: own_blocks,
        };
        let load = &mut self.loads[worker.0 as usize];
        load.prefill_tokens += placed.prefill_tokens;
        load.decode_blocks += placed.blocks;
        self.placed.insert(candidate.request, placed);
        Placement {
            worker,
            overlap_tokens,
        }
    }

    pub(super) fn prefill_done(&mut self, request: RequestId) {
        if let Some(placed) = self.placed.get_mut(&request) {
            let done = std::mem::take(&mut placed.prefill_tokens);
            self.loads[placed.worker.0 as usize].prefill_tokens -= done;
        }
    }

    pub(super) fn ended(&mut self, request: RequestId) {
        self.prefill_done(request);
        if let Some(placed) = self.placed.remove(&request) {
            self.loads[placed.worker.0 as usize].decode_blocks -= placed.blocks;
        }
    }

    pub(super) fn observe(&mut self, worker: WorkerId, events: &[KvEvent]) {
        for event in events {
            match *event {
                KvEvent::Stored { node, lo, hi, .. } => self.index.store(worker, node, lo, hi),
                KvEvent::Removed { node, lo, hi } => self.index.remove(worker, node, lo, hi),
            }
        }
    }
}

/// Which blocks of which node the workers are believed to hold. A removed block is gone even if the worker holds
/// another copy of it, as in the real index.
#[derive(Debug, Clone, Default)]
struct KvIndex {
    nodes: FxHashMap<NodeId, Vec<Range>>,
}

/// Blocks `lo..hi` of a node on one worker; ranges of one worker neither overlap nor touch.
#[derive(Debug, Clone, Copy)]
struct Range {
    worker: WorkerId,
    lo: u32,
    hi: u32,
}

impl KvIndex {
    fn store(&mut self, worker: WorkerId, node: NodeId, mut lo: u32, mut hi: u32) {
        let ranges = self.nodes.entry(node).or_default();
        ranges.retain(|range| {
            let joins = range.worker == worker && range.lo <= hi && lo <= range.hi;
            if joins {
                lo = lo.min(range.lo);
                hi = hi.max(range.hi);
            }
            !joins
        });
        ranges.push(Range { worker, lo, hi });
    }

    fn remove(&mut self, worker: WorkerId, node: NodeId, lo: u32, hi: u32) {
        let Some(ranges) = self.nodes.get_mut(&node) else {
            return;
        };
        let mut index = 0;
        while index < ranges.len() {
            let range = ranges[index];
            if range.worker != worker || range.hi <= lo || hi <= range.lo {
                index += 1;
                continue;
            }
            ranges.swap_remove(index);
            for rest in [Range { hi: lo, ..range }, Range { lo: hi, ..range }] {
                if rest.lo < rest.hi {
                    ranges.push(rest);
                }
            }
        }
        if ranges.is_empty() {
            self.nodes.remove(&node);
        }
    }

    /// By worker, the longest prefix of `path` it holds, at most `limit` blocks.
    fn overlap(&self, path: &[Stretch], limit: u32, overlap: &mut [u32]) {
        overlap.fill(0);
        let mut start = 0;
        for stretch in path {
            let Some(ranges) = self.nodes.get(&stretch.node) else {
                return;
            };
            // Ranges of one worker do not touch, so at most one of them continues what it holds.
            for range in ranges {
                let held = &mut overlap[range.worker.0 as usize];
                if *held >= start && range.lo <= *held && *held < range.hi {
                    *held = range.hi.min(stretch.end).min(limit);
                }
            }
            start = stretch.end;
            if start >= limit {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The index answers like a set of (worker, node, block).
        #[test]
        fn index_equals_a_plain_set(
            changes in prop::collection::vec((any::<bool>(), 0u32..3, 0u32..3, 0u32..12, 1u32..8), 0..60)
        ) {
            let mut index = KvIndex::default();
            let mut set = std::collections::BTreeSet::new();
            for (is_store, worker, node, lo, len) in changes {
                let (id, node_id) = (WorkerId(worker), NodeId(node));
                if is_store {
                    index.store(id, node_id, lo, lo + len);
                } else {
                    index.remove(id, node_id, lo, lo + len);
                }
                for block in lo..lo + len {
                    if is_store {
                        set.insert((worker, node, block));
                    } else {
                        set.remove(&(worker, node, block));
                    }
                }
                let path: Vec<Stretch> =
                    (0..3).map(|node| Stretch { node: NodeId(node), end: 5 * (node + 1) }).collect();
                let mut overlap = vec![0; 3];
                index.overlap(&path, 13, &mut overlap);
                for worker in 0..3 {
                    let held = |block: &u32| set.contains(&(worker, block / 5, *block));
                    let expected = (0..13).take_while(held).count() as u32;
                    prop_assert_eq!(overlap[worker as usize], expected);
                }
            }
        }
    }
}
