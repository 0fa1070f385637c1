//! What a tier holds, against a map of single blocks in which everything is looked for by scanning.

use engine::kv_cache::Stretch;
use engine::{NodeId, Span, Time};
use proptest::prelude::*;
use sim::kvbm::Eviction;
use sim::kvbm::runs::{BlockRun, count, runs_of};
use sim::kvbm::store::Store;
use std::collections::BTreeMap;

/// A block as the oracle knows it.
#[derive(Debug, Clone, Copy)]
struct Block {
    has_arrived: bool,
    uses: u64,
    priority: i32,
    last_used: u64,
    class: u64,
    /// Number of the use that gave it its class.
    number: u64,
    pinned_until: u64,
}

/// The oracle.
#[derive(Debug)]
struct Naive {
    capacity: usize,
    eviction: Eviction,
    /// By (node, index).
    blocks: BTreeMap<(u32, u32), Block>,
    number: u64,
    floor: u64,
}

impl Naive {
    fn class(&self, block: &Block) -> u64 {
        match self.eviction {
            Eviction::Lru | Eviction::Ttl(_) => 0,
            Eviction::Frequency => self.floor + block.uses,
            Eviction::Priority => (i64::from(i32::MAX) - i64::from(block.priority)) as u64,
        }
    }

    fn touch(&mut self, now: u64, names: &[(u32, u32)], priority: i32) {
        for name in names {
            let Some(mut block) = self.blocks.get(name).copied() else {
                continue;
            };
            if block.has_arrived {
                block.uses += 1;
                block.priority = block.priority.min(priority);
                block.last_used = now;
                block.class = self.class(&block);
                block.number = self.number;
                self.blocks.insert(*name, block);
            }
        }
    }

    /// Blocks taken, evicted (in order) and dropped.
    #[expect(clippy::type_complexity, reason = "said in the line above")]
    fn offer(
        &mut self,
        now: u64,
        names: &[(u32, u32)],
        priority: i32,
    ) -> (Vec<(u32, u32)>, Vec<(u32, u32)>, u64) {
        self.number += 1;
        let is_missing = |name: &&(u32, u32)| !self.blocks.contains_key(name);
        let missing: Vec<(u32, u32)> = names.iter().filter(is_missing).copied().collect();
        self.touch(now, names, priority);
        let mut evicted = Vec::new();
        while self.capacity - self.blocks.len() < missing.len() {
            let arrived = self.blocks.iter().filter(|(_, block)| block.has_arrived);
            let arrived = arrived.filter(|(_, block)| block.pinned_until <= now);
            let first = arrived
                .min_by_key(|(name, block)| (block.class, block.number, std::cmp::Reverse(name.1)));
            let Some((&name, &block)) = first else { break };
            if let Eviction::Ttl(ttl) = self.eviction
                && now < block.last_used + ttl.0
            {
                break;
            }
            self.floor = self.floor.max(block.class);
            self.blocks.remove(&name);
            evicted.push(name);
        }
        let room = (self.capacity - self.blocks.len()).min(missing.len());
        for &name in &missing[..room] {
            let block = Block {
                has_arrived: false,
                uses: 1,
                priority,
                last_used: now,
                class: 0,
                number: 0,
                pinned_until: 0,
            };
            self.blocks.insert(name, block);
        }
        let dropped = (missing.len() - room) as u64;
        (missing[..room].to_vec(), evicted, dropped)
    }

    fn arrive(&mut self, now: u64, names: &[(u32, u32)]) {
        self.number += 1;
        for name in names {
            let mut block = self.blocks[name];
            block.has_arrived = true;
            block.last_used = now;
            block.class = self.class(&block);
            block.number = self.number;
            self.blocks.insert(*name, block);
        }
    }

    fn pin(&mut self, names: &[(u32, u32)], until: u64) {
        for name in names {
            if let Some(block) = self.blocks.get_mut(name) {
                block.pinned_until = block.pinned_until.max(until);
            }
        }
    }

    fn matched(&self, names: &[(u32, u32)]) -> usize {
        let is_here = |name: &&(u32, u32)| self.blocks.get(name).is_some_and(|it| it.has_arrived);
        names.iter().take_while(is_here).count()
    }
}

fn names(runs: &[BlockRun]) -> Vec<(u32, u32)> {
    let of = |run: &BlockRun| {
        let node = run.node.0;
        (run.lo..run.hi).map(move |block| (node, block))
    };
    runs.iter().flat_map(of).collect()
}

/// The path of leaf `which` of a small tree: a trunk of 8 blocks, two boughs of 8, two twigs of 8 on each, a leaf of 8.
fn path(which: u32) -> Vec<Stretch> {
    let nodes = [1, 2 + which % 2, 4 + which % 4, 8 + which % 8];
    let ends = [8, 16, 24, 32];
    let stretch = |(node, end): (u32, u32)| Stretch {
        node: NodeId(node),
        end,
    };
    nodes.into_iter().zip(ends).map(stretch).collect()
}

fn evictions() -> impl Strategy<Value = Eviction> {
    prop_oneof![
        Just(Eviction::Lru),
        Just(Eviction::Frequency),
        Just(Eviction::Priority),
        (1u64..40).prop_map(|ttl| Eviction::Ttl(Span(ttl))),
    ]
}

/// What is done: 0 offers blocks, 1 lets the oldest offer arrive, 2 reads, 3 pins; by which request, on which blocks.
type Deed = (u8, u32, u32, u32, i32);

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_are_as_good_as_single_blocks(
        capacity in 1usize..60,
        eviction in evictions(),
        deeds in prop::collection::vec((0u8..4, 0u32..8, 0u32..32, 0u32..33, -2i32..3), 1..120),
    ) {
        let mut store = Store::new(capacity as u64, eviction);
        let mut naive = Naive { capacity, eviction, blocks: BTreeMap::new(), number: 0, floor: 0 };
        let mut under_way: Vec<Vec<BlockRun>> = Vec::new();
        for (now, deed) in (1u64..).zip(deeds) {
            let (what, which, lo, hi, priority): Deed = deed;
            let path = path(which);
            let runs: Vec<BlockRun> = runs_of(&path, lo, hi).collect();
            match what {
                0 => {
                    let offered = store.offer(Time(now), &runs, priority);
                    let (taken, evicted, dropped) = naive.offer(now, &names(&runs), priority);
                    prop_assert_eq!(names(&offered.taken), taken);
                    let mut gone = names(&offered.evicted);
                    gone.sort_unstable();
                    let mut expected = evicted;
                    expected.sort_unstable();
                    prop_assert_eq!(gone, expected);
                    prop_assert_eq!(offered.dropped_blocks, dropped);
                    if count(&offered.taken) > 0 {
                        under_way.push(offered.taken);
                    }
                }
                1 if !under_way.is_empty() => {
                    let arrived = under_way.remove(0);
                    store.arrive(Time(now), &arrived);
                    naive.arrive(now, &names(&arrived));
                }
                1 => {}
                3 => {
                    let until = now + 10 * (priority + 2) as u64;
                    store.pin(runs.iter().copied(), Time(until));
                    let mut pinned = names(&runs);
                    // Runs on their way are pinned as a whole.
                    for run in under_way.iter().flatten() {
                        let own = names(&[*run]);
                        if own.iter().any(|name| pinned.contains(name)) {
                            pinned.extend(own);
                        }
                    }
                    naive.pin(&pinned, until);
                }
                _ => {
                    let found = store.matched(&path, lo, hi.max(lo));
                    prop_assert_eq!(found as usize, naive.matched(&names(&runs)));
                    store.touch(Time(now), runs_of(&path, lo, lo + found), priority);
                    naive.number += 1;
                    let read: Vec<BlockRun> = runs_of(&path, lo, lo + found).collect();
                    naive.touch(now, &names(&read), priority);
                }
            }
            prop_assert!(store.held() <= capacity as u64);
            prop_assert_eq!(store.held(), naive.blocks.len() as u64);
            let arrived = naive.blocks.iter().filter(|(_, block)| block.has_arrived);
            prop_assert_eq!(store.contents(), arrived.map(|(name, _)| *name).collect::<Vec<_>>());
        }
    }
}
