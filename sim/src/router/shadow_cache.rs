//! What is cached where, without events from the workers, by size: each worker's cache is imagined.
//!
//! A rank is taken to have as many KV blocks as it says. A placed request takes the whole blocks of its prompt there, those
//! that are held already and new ones, and keeps them until it ends; then its whole output blocks are there as well, and all
//! of them idle. Where blocks run out, idle ones go: those of the request that ended longest ago first, of one request the
//! last first. Source: dynamo-kv-router 1.6, approximate policy `lru`.
//!
//! That is what vLLM's block pool does, so the imagined caches are [such pools](engine::kv_cache), and what they report goes
//! into an index like the events of real workers.
//!
//! Model: output blocks come when the request ends, not one by one: until then a rank is taken to have more room than it has,
//! by at most the answers of its active requests. Blocks that find no room beside those of active requests are not
//! remembered.

use super::by_rank::BlocksByRank;
use super::indexer::chain::PlacedQuery;
use super::indexer::{PlacedChain, RadixTree, Rank};
use super::reports::apply;
use engine::kv_cache::{KvCache, KvCacheConfig, Stretch, Table};
use engine::prefix_tree::PrefixTree;
use engine::{KvEvent, RequestId};
use rustc_hash::FxHashMap;

/// The imagined caches of all ranks.
#[derive(Debug, Clone)]
pub struct ShadowCaches {
    block_size: u32,
    /// By rank.
    kv_blocks: Vec<u32>,
    caches: Vec<KvCache>,
    index: RadixTree<PlacedChain>,
    /// What active requests hold.
    tables: FxHashMap<RequestId, (Rank, Table)>,
    events: Vec<KvEvent>,
}

impl ShadowCaches {
    /// Empty caches of so many blocks, by rank.
    #[must_use]
    pub fn new(block_size: u32, kv_blocks: &[u32]) -> Self {
        let cache = |&blocks: &u32| imagined(block_size, blocks);
        ShadowCaches {
            block_size,
            kv_blocks: kv_blocks.to_vec(),
            caches: kv_blocks.iter().map(cache).collect(),
            index: RadixTree::default(),
            tables: FxHashMap::default(),
            events: Vec::new(),
        }
    }

    /// A rank is no more, nor is what it held.
    pub fn forget_rank(&mut self, rank: Rank) {
        self.caches[rank as usize] = imagined(self.block_size, self.kv_blocks[rank as usize]);
        self.tables.retain(|_, (of, _)| *of != rank);
        self.index.clear(rank);
    }

    /// A request goes to a rank, with the whole blocks of its prompt.
    pub fn acquire(&mut self, request: RequestId, rank: Rank, path: &[Stretch], tree: &PrefixTree) {
        let mut table = Table::default();
        let cache = &mut self.caches[rank as usize];
        cache.lookup(path, path.last().map_or(0, |last| last.end));
        cache.admit(&mut table);
        self.hold(rank, &mut table, path, tree);
        self.tables.insert(request, (rank, table));
    }

    /// A request ended, with the whole blocks of prompt and answer; without a path nothing is known of its answer.
    pub fn release(&mut self, request: RequestId, path: Option<&[Stretch]>, tree: &PrefixTree) {
        let Some((rank, mut table)) = self.tables.remove(&request) else {
            return;
        };
        if let Some(path) = path {
            self.hold(rank, &mut table, path, tree);
        }
        self.caches[rank as usize].release(&mut table);
        self.report(rank, tree);
    }

    /// Lets a table hold the blocks of a path, as far as there is room.
    fn hold(&mut self, rank: Rank, table: &mut Table, path: &[Stretch], tree: &PrefixTree) {
        let wanted = path.last().map_or(0, |last| last.end);
        let cache = &mut self.caches[rank as usize];
        let blocks = wanted.min(table.blocks() + cache.free_blocks());
        cache.grow(table, blocks);
        cache.publish(table, path, blocks);
        self.report(rank, tree);
    }

    fn report(&mut self, rank: Rank, tree: &PrefixTree) {
        self.caches[rank as usize].drain_events(&mut self.events);
        apply(&mut self.index, rank, &self.events, tree, self.block_size);
        self.events.clear();
    }

    /// Raises each rank to the leading blocks of the path that it is taken to hold.
    pub fn overlap(
        &self,
        query: PlacedQuery<'_>,
        active: &mut Vec<Rank>,
        overlap: &mut BlocksByRank,
    ) {
        self.index.overlap(query, active, overlap);
    }
}

/// An empty cache.
fn imagined(block_size: u32, blocks: u32) -> KvCache {
    KvCache::new(KvCacheConfig {
        block_size,
        // The null block is never used.
        num_gpu_blocks: blocks.max(1) + 1,
        enable_prefix_caching: true,
        track_block_ids: false,
        track_events: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::kv_cache::block_path;
    use engine::{NewRequest, Run, Time, Workload, WorkloadBuilder};

    /// Two prompts of 6 blocks of 4 tokens that have nothing in common, answers of 8 tokens, and the first prompt again with its
    /// answer and 4 tokens more.
    fn workload() -> Workload {
        let mut builder = WorkloadBuilder::new();
        let prompt = |owner| Run {
            first: WorkloadBuilder::private_token(owner, 0),
            len: 24,
        };
        let answer = Run {
            first: WorkloadBuilder::output_token(0, 0),
            len: 8,
        };
        let more = Run {
            len: 4,
            ..prompt(9)
        };
        for runs in [
            vec![prompt(1)],
            vec![prompt(2)],
            vec![prompt(1), answer, more],
        ] {
            builder.push(NewRequest {
                arrival: Time::ZERO,
                prompt: &runs,
                output_tokens: 8,
                priority: 0,
                session: 0,
                dependencies: &[],
            });
        }
        builder.finish()
    }

    /// The whole blocks of a request, with or without its answer.
    fn path(workload: &Workload, request: usize, with_answer: bool) -> Vec<Stretch> {
        let asked = &workload.requests[request];
        let mut path = Vec::new();
        block_path(&workload.tree, asked.leaf, 4, &mut path);
        if !with_answer {
            let limit = asked.input_tokens / 4;
            let behind = path.partition_point(|stretch| stretch.end < limit);
            path.truncate(behind + 1);
            path[behind].end = limit;
        }
        path
    }

    fn held(shadows: &ShadowCaches, path: &[Stretch]) -> u32 {
        let mut overlap = BlocksByRank::default();
        let limit = path.last().map_or(0, |last| last.end);
        shadows.overlap(PlacedQuery { path, limit }, &mut Vec::new(), &mut overlap);
        overlap.get(0)
    }

    #[test]
    fn what_ended_longest_ago_makes_room_from_its_end() {
        let workload = workload();
        let tree = &workload.tree;
        let paths: Vec<_> = (0..3)
            .map(|request| path(&workload, request, false))
            .collect();
        let mut shadows = ShadowCaches::new(4, &[10]);
        shadows.acquire(RequestId(0), 0, &paths[0], tree);
        assert_eq!(held(&shadows, &paths[0]), 6);
        // Active blocks stay: of the second prompt only four fit.
        shadows.acquire(RequestId(1), 0, &paths[1], tree);
        assert_eq!(
            [held(&shadows, &paths[0]), held(&shadows, &paths[1])],
            [6, 4]
        );
        // The first ends with two blocks of its answer, for which there is no room; the second finds room for its rest.
        shadows.release(RequestId(0), Some(&path(&workload, 0, true)), tree);
        assert_eq!(held(&shadows, &paths[2]), 6);
        shadows.release(RequestId(1), Some(&path(&workload, 1, true)), tree);
        assert_eq!(
            [
                held(&shadows, &paths[0]),
                held(&shadows, &path(&workload, 1, true))
            ],
            [2, 8]
        );
    }

    #[test]
    fn a_rank_that_is_gone_comes_back_empty() {
        let workload = workload();
        let tree = &workload.tree;
        let prompt = path(&workload, 0, false);
        let mut shadows = ShadowCaches::new(4, &[10]);
        shadows.acquire(RequestId(0), 0, &prompt, tree);
        shadows.forget_rank(0);
        assert_eq!(held(&shadows, &prompt), 0);
        // Its request ends elsewhere, and all ten blocks are free.
        shadows.release(RequestId(0), Some(&path(&workload, 0, true)), tree);
        assert_eq!(held(&shadows, &prompt), 0);
        shadows.acquire(RequestId(2), 0, &path(&workload, 2, true), tree);
        assert_eq!(held(&shadows, &prompt), 6);
    }

    #[test]
    fn answers_are_found_again_where_they_are_remembered() {
        let workload = workload();
        let tree = &workload.tree;
        let (first, again) = (path(&workload, 0, false), path(&workload, 2, false));
        for (answer, expected) in [(Some(path(&workload, 0, true)), 8), (None, 6)] {
            let mut shadows = ShadowCaches::new(4, &[100]);
            shadows.acquire(RequestId(0), 0, &first, tree);
            shadows.release(RequestId(0), answer.as_deref(), tree);
            shadows.release(RequestId(0), None, tree);
            assert_eq!(held(&shadows, &again), expected);
        }
    }
}
