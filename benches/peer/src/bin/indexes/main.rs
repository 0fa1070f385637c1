//! Indexes of dynosim and of dynamo-kv-router 1.6.1 on one stream of KV events and prompts, in one run.
//!
//! `indexes TRACE [BLOCK_SIZE]`: 8 workers with pools of 1,048,576 tokens take the requests of a Mooncake trace in turn. Every
//! index is given the whole stream; events and questions are made before, in the form that each takes. Printed: operations
//! per second by kind, of questions also by the number of blocks asked for, the memory of the index at the end of the stream,
//! and the blocks that were found, which must be equal where the rules are.

mod meter;
mod router;
#[path = "../../../../../sim/benches/indexes/stream.rs"]
mod stream;

use dynamo_kv_router::indexer::SyncIndexer;
use dynamo_kv_router::protocols::{
    ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheRemoveData, KvCacheStoreData,
    KvCacheStoredBlockData, LocalBlockHash, RouterEvent,
};
use dynamo_kv_router::{PositionalIndexer, RadixTree as PeerTree};
use meter::{Allocator, Kind, Meter};
use router::by_rank::BlocksByRank;
use router::indexer::chain::PlacedQuery;
use router::indexer::{HashedChain, PlacedChain, PositionalIndex, RadixTree};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use stream::Op;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const WORKERS: u32 = 8;
const POOL_TOKENS: u32 = 1 << 20;
/// The reference's own choice for its positional index.
const JUMP: usize = 32;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let block_size = words.get(1).map_or(Ok(16), |word| word.parse());
    let (Some(trace), Ok(block_size)) = (words.first(), block_size) else {
        eprintln!("usage: indexes TRACE [BLOCK_SIZE]");
        return ExitCode::from(2);
    };
    let loaded = match traces::read(Path::new(trace), &traces::ReadOptions::default()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{trace}: {error}");
            return ExitCode::from(2);
        }
    };
    let workload = Arc::new(loaded.trace.workload());
    let ops = stream::stream(&workload, WORKERS, block_size, POOL_TOKENS);
    Meter::print_head(&ops);
    radix_of_places(&ops).print("dynosim, radix tree, places");
    radix_of_hashes(&ops).print("dynosim, radix tree, hashes");
    peer_radix(&ops).print("reference, radix tree");
    positional(&ops).print("dynosim, positional");
    peer_positional(&ops).print("reference, positional");
    ExitCode::SUCCESS
}

fn radix_of_places(ops: &[Op]) -> Meter {
    let (mut active, mut overlap) = (Vec::new(), BlocksByRank::default());
    let mut meter = Meter::default();
    let mut tree = RadixTree::<PlacedChain>::default();
    for op in ops {
        match op {
            Op::Store {
                rank,
                parent,
                pieces,
                blocks,
                ..
            } => {
                meter.time(Kind::Store, blocks.len(), || {
                    tree.store(*rank, *parent, pieces).ok()
                });
            }
            Op::Remove { rank, run, hashes } => {
                meter.time(Kind::Remove, hashes.len(), || {
                    tree.remove_run(*rank, run.node, run.lo, run.hi)
                });
            }
            Op::Query { path, limit, .. } => {
                let query = PlacedQuery {
                    path,
                    limit: *limit,
                };
                meter.time(Kind::Query, *limit as usize, || {
                    overlap.clear();
                    tree.overlap(query, &mut active, &mut overlap);
                });
                let ranks = overlap.ranks().iter();
                meter.found += ranks.map(|&rank| u64::from(overlap.get(rank))).sum::<u64>();
            }
        }
    }
    meter.weigh(tree)
}

fn radix_of_hashes(ops: &[Op]) -> Meter {
    let (mut active, mut overlap) = (Vec::new(), BlocksByRank::default());
    let mut meter = Meter::default();
    let mut tree = RadixTree::<HashedChain>::default();
    for op in ops {
        match op {
            Op::Store {
                rank,
                parent_hash,
                blocks,
                ..
            } => {
                let blocks = HashedChain(blocks.clone());
                meter.time(Kind::Store, blocks.0.len(), || {
                    tree.store(*rank, *parent_hash, &blocks).ok()
                });
            }
            Op::Remove { rank, hashes, .. } => {
                meter.time(Kind::Remove, hashes.len(), || {
                    tree.remove(*rank, hashes).ok()
                });
            }
            Op::Query { local, .. } => {
                meter.time(Kind::Query, local.len(), || {
                    overlap.clear();
                    tree.overlap(local, &mut active, &mut overlap);
                });
                let ranks = overlap.ranks().iter();
                meter.found += ranks.map(|&rank| u64::from(overlap.get(rank))).sum::<u64>();
            }
        }
    }
    meter.weigh(tree)
}

fn positional(ops: &[Op]) -> Meter {
    let mut meter = Meter::default();
    let mut index = PositionalIndex::default();
    for op in ops {
        match op {
            Op::Store {
                rank,
                parent_hash,
                blocks,
                ..
            } => {
                let blocks: Vec<u64> = blocks.iter().map(|block| block.sequence).collect();
                meter.time(Kind::Store, blocks.len(), || {
                    index.store(*rank, *parent_hash, &blocks).ok()
                });
            }
            Op::Remove { rank, hashes, .. } => {
                meter.time(Kind::Remove, hashes.len(), || {
                    index.remove(*rank, hashes).ok()
                });
            }
            Op::Query { sequence, .. } => {
                let matches = meter.time(Kind::Query, sequence.len(), || index.matches(sequence));
                meter.found += matches
                    .iter()
                    .map(|found| u64::from(found.blocks))
                    .sum::<u64>();
            }
        }
    }
    meter.weigh(index)
}

fn peer_radix(ops: &[Op]) -> Meter {
    let mut meter = Meter::default();
    let mut tree = PeerTree::new();
    for (number, op) in ops.iter().enumerate() {
        match peer_op(number as u64, op) {
            PeerOp::Event(kind, blocks, event) => {
                meter.time(kind, blocks, || tree.apply_event(event).ok());
            }
            PeerOp::Query(local) => {
                let scores =
                    meter.time(Kind::Query, local.len(), || tree.find_matches(local, false));
                meter.found += scores
                    .scores
                    .values()
                    .map(|&blocks| u64::from(blocks))
                    .sum::<u64>();
            }
        }
    }
    meter.weigh(tree)
}

fn peer_positional(ops: &[Op]) -> Meter {
    let mut meter = Meter::default();
    let index = PositionalIndexer::new(JUMP);
    let mut worker_blocks = Default::default();
    for (number, op) in ops.iter().enumerate() {
        match peer_op(number as u64, op) {
            PeerOp::Event(kind, blocks, event) => {
                meter.time(kind, blocks, || {
                    index.apply_event(&mut worker_blocks, event, None).ok()
                });
            }
            PeerOp::Query(local) => {
                let scores = meter.time(Kind::Query, local.len(), || {
                    index.find_matches(&local, false)
                });
                meter.found += scores
                    .scores
                    .values()
                    .map(|&blocks| u64::from(blocks))
                    .sum::<u64>();
            }
        }
    }
    meter.weigh((index, worker_blocks))
}

/// An operation as the reference takes it.
enum PeerOp {
    Event(Kind, usize, RouterEvent),
    Query(Vec<LocalBlockHash>),
}

fn peer_op(event_id: u64, op: &Op) -> PeerOp {
    let (kind, blocks, rank, data) = match op {
        Op::Query { local, .. } => {
            return PeerOp::Query(local.iter().copied().map(LocalBlockHash).collect());
        }
        Op::Store {
            rank,
            parent,
            parent_hash,
            blocks,
            ..
        } => {
            let block = |block: &router::indexer::HashedBlock| KvCacheStoredBlockData {
                block_hash: ExternalSequenceBlockHash(block.sequence),
                tokens_hash: LocalBlockHash(block.local),
                mm_extra_info: None,
            };
            let data = KvCacheEventData::Stored(KvCacheStoreData {
                parent_hash: parent_hash.map(ExternalSequenceBlockHash),
                start_position: Some(parent.map_or(0, |(_, depth)| depth + 1)),
                blocks: blocks.iter().map(block).collect(),
            });
            (Kind::Store, blocks.len(), rank, data)
        }
        Op::Remove { rank, hashes, .. } => {
            let data = KvCacheEventData::Removed(KvCacheRemoveData {
                block_hashes: hashes
                    .iter()
                    .copied()
                    .map(ExternalSequenceBlockHash)
                    .collect(),
            });
            (Kind::Remove, hashes.len(), rank, data)
        }
    };
    let event = KvCacheEvent {
        event_id,
        data,
        dp_rank: 0,
    };
    PeerOp::Event(kind, blocks, RouterEvent::new(u64::from(*rank), event))
}
