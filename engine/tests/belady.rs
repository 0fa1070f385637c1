//! Belady's eviction against LRU, a pool without end, and the best that any order of eviction could do.

use engine::kv_cache::{KvCache, KvCacheConfig, Stretch, Table, block_path};
use engine::{NewRequest, RequestId, Run, Span, Time, Workload, WorkloadBuilder};
use std::collections::HashMap;

const BLOCK: u32 = 4;

/// Prompts made of a few shared beginnings and own ends, in tokens that `token` names.
fn workload(prompts: &[Vec<u64>]) -> Workload {
    let mut builder = WorkloadBuilder::new();
    for (index, prompt) in prompts.iter().enumerate() {
        let runs: Vec<Run> = prompt.iter().map(|&first| Run { first, len: 1 }).collect();
        builder.push(NewRequest {
            arrival: Time::ZERO + Span(index as u64),
            prompt: &runs,
            output_tokens: 1,
            priority: 0,
            session: index as u32,
            dependencies: &[],
        });
    }
    builder.finish()
}

/// Random prompts of `BLOCK`-aligned pieces drawn from a small tree, one token longer than their whole blocks.
fn prompts(seed: u64, count: usize, depth: u64, fan: u64) -> Vec<Vec<u64>> {
    let mut state = seed;
    let mut draw = |below: u64| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    let prompt = |_| {
        let mut tokens = Vec::new();
        for _ in 0..=draw(depth) {
            let piece = draw(fan);
            tokens.extend((0..u64::from(BLOCK)).map(|token| 100 * piece + token));
        }
        tokens.push(9_999);
        tokens
    };
    (0..count).map(prompt).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Order {
    Lru,
    Belady,
}

/// Serves one request after the other; blocks found.
fn hits(workload: &Workload, usable: u32, order: Order) -> u32 {
    let mut cache = KvCache::new(KvCacheConfig {
        block_size: BLOCK,
        num_gpu_blocks: usable + 1,
        enable_prefix_caching: true,
        track_block_ids: true,
        track_events: true,
    });
    if order == Order::Belady {
        cache.foresee(workload);
    }
    let mut path: Vec<Stretch> = Vec::new();
    let mut found = 0;
    for (index, request) in workload.requests.iter().enumerate() {
        let id = RequestId(index as u32);
        cache.announce(id);
        cache.hear();
        block_path(&workload.tree, request.leaf, BLOCK, &mut path);
        let hit = cache.lookup(&path, (request.input_tokens - 1) / BLOCK);
        cache.start(id);
        let mut table = Table::default();
        cache.admit(&mut table);
        cache.grow(&mut table, cache.blocks_for(request.input_tokens));
        cache.publish(&mut table, &path, request.input_tokens / BLOCK);
        found += hit.blocks;
        cache.release(&mut table);
        assert_eq!(cache.free_blocks(), usable, "no block is lost");
        let mut ids = cache.free_queue();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len() as u32, usable, "every block is in the queue once");
    }
    found
}

/// The most blocks that any choice of what to keep could find: all choices tried. Contents are the beginnings of prompts.
fn best_possible(prompts: &[Vec<u64>], usable: u32) -> u32 {
    let mut names: HashMap<&[u64], u32> = HashMap::new();
    let mut chains: Vec<Vec<u32>> = Vec::new();
    for prompt in prompts {
        let whole = prompt.len() / BLOCK as usize;
        let chain = (1..=whole).map(|end| {
            let next = names.len() as u32;
            *names.entry(&prompt[..end * BLOCK as usize]).or_insert(next)
        });
        chains.push(chain.collect());
    }
    assert!(names.len() <= 32, "contents fit into a word");
    // What is kept, with the most blocks found on the way to it.
    let mut states: HashMap<u32, u32> = HashMap::from([(0, 0)]);
    for chain in &chains {
        let own = chain.iter().fold(0, |set, name| set | 1 << name);
        // One block more for the tokens behind the last whole one; after the request it is free and blank.
        let room = usable - chain.len() as u32 - 1;
        let mut after: HashMap<u32, u32> = HashMap::new();
        for (&kept, &found) in &states {
            let is_kept = |name: &&u32| kept & 1 << **name != 0;
            let found = found + chain.iter().take_while(is_kept).count() as u32;
            let others = kept & !own;
            let mut subset = others;
            loop {
                if subset.count_ones() <= room {
                    let best = after.entry(subset | own).or_default();
                    *best = found.max(*best);
                }
                if subset == 0 {
                    break;
                }
                subset = (subset - 1) & others;
            }
        }
        states = after;
    }
    states.into_values().max().unwrap_or(0)
}

#[test]
fn no_order_of_eviction_finds_more() {
    let mut gains = 0;
    for seed in 0..60 {
        let prompts = prompts(seed, 12, 3, 2);
        let workload = workload(&prompts);
        for usable in [5, 6, 8] {
            let belady = hits(&workload, usable, Order::Belady);
            assert_eq!(
                belady,
                best_possible(&prompts, usable),
                "seed {seed}, {usable} blocks"
            );
            gains += u32::from(belady > hits(&workload, usable, Order::Lru));
        }
    }
    assert!(gains > 60, "foresight often helps, here {gains} times");
}

#[test]
fn endless_finds_at_least_what_belady_does_and_that_at_least_what_lru_does() {
    let mut strictly = 0;
    for seed in 100..130 {
        let workload = workload(&prompts(seed, 300, 6, 3));
        for usable in [8, 20, 60, 200] {
            let endless = hits(&workload, 2_500, Order::Lru);
            let belady = hits(&workload, usable, Order::Belady);
            let lru = hits(&workload, usable, Order::Lru);
            assert!(
                endless >= belady && belady >= lru,
                "seed {seed}, {usable} blocks: {endless} {belady} {lru}"
            );
            strictly += u32::from(endless > belady && belady > lru);
        }
    }
    assert!(strictly > 60, "the three differ, here {strictly} times");
}

/// Room for three blocks beside the last token's; A, B, C are asked for as A B C A B: LRU evicts A for C, which is never used
/// again, and then finds nothing; Belady gives C's place up and finds A and B.
#[test]
fn by_hand() {
    let single = |piece: u64| -> Vec<u64> {
        let mut tokens: Vec<u64> = (0..u64::from(BLOCK))
            .map(|token| 100 * piece + token)
            .collect();
        tokens.push(9_999);
        tokens
    };
    let prompts: Vec<Vec<u64>> = [1, 2, 3, 1, 2].map(single).to_vec();
    let workload = workload(&prompts);
    // Three usable blocks: one is blank while a request runs, so two contents stay.
    assert_eq!(hits(&workload, 3, Order::Lru), 0);
    assert_eq!(hits(&workload, 3, Order::Belady), 1);
    assert_eq!(hits(&workload, 4, Order::Belady), 2);
    assert_eq!(best_possible(&prompts, 3), 1);
    assert_eq!(best_possible(&prompts, 4), 2);
}
