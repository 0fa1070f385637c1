//! What an index hears and is asked on a trace: the KV events of workers that take turns, and every prompt as a question.
//!
//! Each request is looked up, then runs alone on its worker to the end; what the worker stores and evicts meanwhile follows
//! as events. Blocks are named by places in the prefix tree and, as the real router does, by a hash of their own tokens (made
//! up, as a trace has none) and one of their whole prefix.

use crate::router::hash::next_sequence_hash;
use crate::router::indexer::chain::Piece;
use crate::router::indexer::{HashedBlock, PlacedChain, Rank};
use engine::kv_cache::{KvEvent, Stretch, block_path};
use engine::vllm::VllmConfig;
use engine::{NodeId, PrefixTree, RequestId, Scheduler, Time, Tracking, Workload};
use std::collections::HashMap;
use std::sync::Arc;

/// Something for an index to do.
pub enum Op {
    /// A rank stored blocks behind a parent.
    Store {
        rank: Rank,
        parent: Option<(NodeId, u32)>,
        pieces: PlacedChain,
        parent_hash: Option<u64>,
        blocks: Vec<HashedBlock>,
    },
    /// A rank removed a run of blocks, the last first.
    Remove {
        rank: Rank,
        run: Piece,
        hashes: Vec<u64>,
    },
    /// Who holds the first `limit` blocks of a path?
    Query {
        path: Vec<Stretch>,
        limit: u32,
        local: Vec<u64>,
        sequence: Vec<u64>,
    },
}

/// The stream of `workers` workers with pools of `pool_tokens` tokens each.
pub fn stream(
    workload: &Arc<Workload>,
    workers: u32,
    block_size: u32,
    pool_tokens: u32,
) -> Vec<Op> {
    let config = VllmConfig {
        block_size,
        num_gpu_blocks: pool_tokens / block_size,
        async_scheduling: false,
        ..VllmConfig::default()
    };
    let tracking = Tracking {
        block_ids: false,
        events: true,
    };
    let worker = |_| Scheduler::new(config.clone().into(), workload.clone(), tracking);
    let mut workers: Vec<Scheduler> = (0..workers).map(worker).collect();
    let mut ops = Vec::new();
    let mut names = Names::default();
    let (mut events, mut ended) = (Vec::new(), Vec::new());
    for (number, request) in workload.requests.iter().enumerate() {
        let mut path = Vec::new();
        block_path(&workload.tree, request.leaf, block_size, &mut path);
        ops.push(names.query(path, request.input_tokens / block_size));
        let rank = number % workers.len();
        let worker = &mut workers[rank];
        if request.input_tokens + request.output_tokens > pool_tokens - block_size {
            continue;
        }
        worker.submit(RequestId(number as u32), Time(number as u64));
        while let Some(plan) = worker.plan() {
            let steps = plan.up_to;
            worker.finish(steps, &mut ended);
        }
        worker.drain_events(&mut events);
        names.translate(&workload.tree, rank as Rank, block_size, &events, &mut ops);
        events.clear();
    }
    ops
}

/// Sequence hashes of blocks by place.
#[derive(Default)]
struct Names {
    /// By node: depth of its first block, and the names from there on.
    nodes: HashMap<NodeId, (u32, Vec<u64>)>,
}

impl Names {
    fn of(&self, node: NodeId, depth: u32) -> u64 {
        let (first, names) = &self.nodes[&node];
        names[(depth - first) as usize]
    }

    /// Names the blocks of a path, those that have no name yet.
    fn learn(&mut self, path: &[Stretch]) {
        let (mut start, mut parent) = (0, None);
        for &Stretch { node, end } in path {
            let (first, names) = self.nodes.entry(node).or_insert((start, Vec::new()));
            parent = names.last().copied().or(parent);
            for depth in *first + names.len() as u32..end {
                let local = local_name((node, depth));
                let name = parent.map_or(local, |parent| next_sequence_hash(parent, local));
                names.push(name);
                parent = Some(name);
            }
            if end > start {
                parent = Some(names[(end - 1 - *first) as usize]);
            }
            start = end;
        }
    }

    fn query(&mut self, path: Vec<Stretch>, limit: u32) -> Op {
        self.learn(&path);
        let mut start = 0;
        let mut places = Vec::new();
        for stretch in &path {
            places.extend((start..stretch.end.min(limit)).map(|depth| (stretch.node, depth)));
            start = stretch.end;
        }
        let name = |&(node, depth): &(NodeId, u32)| self.of(node, depth);
        Op::Query {
            path,
            limit,
            local: places.iter().map(|&place| local_name(place)).collect(),
            sequence: places.iter().map(name).collect(),
        }
    }

    fn translate(
        &self,
        tree: &PrefixTree,
        rank: Rank,
        block_size: u32,
        events: &[KvEvent],
        ops: &mut Vec<Op>,
    ) {
        for &event in events {
            match event {
                KvEvent::Removed { node, lo, hi } => ops.push(Op::Remove {
                    rank,
                    run: Piece { node, lo, hi },
                    hashes: (lo..hi).rev().map(|depth| self.of(node, depth)).collect(),
                }),
                KvEvent::Stored {
                    node,
                    lo,
                    hi,
                    continues,
                } => {
                    let stored = (lo..hi).map(|depth| HashedBlock {
                        local: local_name((node, depth)),
                        sequence: self.of(node, depth),
                    });
                    let piece = Piece { node, lo, hi };
                    if let (true, Some(Op::Store { pieces, blocks, .. })) =
                        (continues, ops.last_mut())
                    {
                        pieces.0.push(piece);
                        blocks.extend(stored);
                        continue;
                    }
                    let parent = place_before(tree, node, lo, block_size);
                    ops.push(Op::Store {
                        rank,
                        parent,
                        pieces: PlacedChain(vec![piece]),
                        parent_hash: parent.map(|(node, depth)| self.of(node, depth)),
                        blocks: stored.collect(),
                    });
                }
            }
        }
    }
}

/// The place of the block in front of block `lo` of `node`: where its last token is.
fn place_before(
    tree: &PrefixTree,
    mut node: NodeId,
    lo: u32,
    block_size: u32,
) -> Option<(NodeId, u32)> {
    while lo > 0 && tree.start(node) >= lo * block_size {
        node = tree.parent(node);
    }
    (lo > 0).then(|| (node, lo - 1))
}

/// A number that stands for the tokens of a block, spread like a hash.
fn local_name((node, depth): (NodeId, u32)) -> u64 {
    let mut z = u64::from(node.0) << 32 | u64::from(depth);
    z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
