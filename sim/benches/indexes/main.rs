//! The KV router's indexes on the event stream of a trace: events and questions of 8 workers, with blocks of 16 tokens.
//!
//! `cargo bench -p sim --bench indexes`
//!
//! Each measurement applies the whole stream to an empty index; allocations are counted. A made-up workload serves, and the
//! Mooncake conversation trace where a folder `shared/data/traces` lies beside the repository. The comparison with the
//! reference, by kind of operation and depth, is `benches/peer`.

mod stream;

use divan::Bencher;
use divan::counter::ItemsCount;
use engine::Workload;
use sim::router;
use sim::router::by_rank::BlocksByRank;
use sim::router::indexer::chain::PlacedQuery;
use sim::router::indexer::{HashedChain, PlacedChain, PositionalIndex, RadixTree};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use stream::Op;
use traces::{ReadOptions, SynthSpec};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

const WORKERS: u32 = 8;
const BLOCK_SIZE: u32 = 16;
const POOL_TOKENS: u32 = 1 << 20;

fn main() {
    divan::main();
}

static STREAM: LazyLock<Vec<Op>> =
    LazyLock::new(|| stream::stream(&workload(), WORKERS, BLOCK_SIZE, POOL_TOKENS));

fn workload() -> Arc<Workload> {
    let file = "../../shared/data/traces/mooncake_conversation_trace.jsonl";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if !path.exists() {
        println!("no conversation trace beside the repository: a made-up one");
        let trace = SynthSpec::quick()
            .generate(1)
            .expect("the preset is a good one");
        return Arc::new(trace.workload());
    }
    let loaded = traces::read(&path, &ReadOptions::default());
    let trace = loaded.expect("the public trace is well-formed").trace;
    Arc::new(trace.workload())
}

#[divan::bench(sample_count = 5)]
fn radix_of_places(bencher: Bencher<'_, '_>) {
    measure(bencher, || {
        let mut tree = RadixTree::<PlacedChain>::default();
        let (mut active, mut overlap) = (Vec::new(), BlocksByRank::default());
        for op in STREAM.iter() {
            match op {
                Op::Store {
                    rank,
                    parent,
                    pieces,
                    ..
                } => {
                    tree.store(*rank, *parent, pieces).ok();
                }
                Op::Remove { rank, run, .. } => {
                    tree.remove_run(*rank, run.node, run.lo, run.hi);
                }
                Op::Query { path, limit, .. } => {
                    let limit = *limit;
                    overlap.clear();
                    tree.overlap(PlacedQuery { path, limit }, &mut active, &mut overlap);
                }
            }
        }
        tree.node_count()
    });
}

#[divan::bench(sample_count = 3)]
fn radix_of_hashes(bencher: Bencher<'_, '_>) {
    measure(bencher, || {
        let mut tree = RadixTree::<HashedChain>::default();
        let (mut active, mut overlap) = (Vec::new(), BlocksByRank::default());
        for op in STREAM.iter() {
            match op {
                Op::Store {
                    rank,
                    parent_hash,
                    blocks,
                    ..
                } => {
                    let blocks = HashedChain(blocks.clone());
                    tree.store(*rank, *parent_hash, &blocks).ok();
                }
                Op::Remove { rank, hashes, .. } => {
                    tree.remove(*rank, hashes).ok();
                }
                Op::Query { local, .. } => {
                    overlap.clear();
                    tree.overlap(local, &mut active, &mut overlap);
                }
            }
        }
        tree.node_count()
    });
}

#[divan::bench(sample_count = 3)]
fn positional(bencher: Bencher<'_, '_>) {
    measure(bencher, || {
        let mut index = PositionalIndex::default();
        let mut found = 0;
        for op in STREAM.iter() {
            match op {
                Op::Store {
                    rank,
                    parent_hash,
                    blocks,
                    ..
                } => {
                    let blocks: Vec<u64> = blocks.iter().map(|block| block.sequence).collect();
                    index.store(*rank, *parent_hash, &blocks).ok();
                }
                Op::Remove { rank, hashes, .. } => {
                    index.remove(*rank, hashes).ok();
                }
                Op::Query { sequence, .. } => found += index.matches(sequence).len(),
            }
        }
        found
    });
}

fn measure(bencher: Bencher<'_, '_>, run: impl Fn() -> usize + Sync) {
    bencher.counter(ItemsCount::new(STREAM.len())).bench(run);
}
