//! Blocks of no further use are evicted before all others, the last of them first, unless somebody else holds them: against
//! a list of single blocks.

use engine::kv_cache::{KvCache, KvCacheConfig, Table, block_path};
use engine::{NewRequest, Run, Time, Workload, WorkloadBuilder};
use proptest::prelude::*;

const BLOCKS: u32 = 24;

/// Prompts of whole blocks of one token that share the beginnings that their numbers share.
fn workload(prompts: &[Vec<u8>]) -> Workload {
    let mut builder = WorkloadBuilder::new();
    for prompt in prompts {
        let run = |&token: &u8| Run {
            first: WorkloadBuilder::vocabulary_token(u32::from(token)),
            len: 1,
        };
        let runs: Vec<Run> = prompt.iter().map(run).collect();
        builder.push(NewRequest {
            arrival: Time::ZERO,
            prompt: &runs,
            output_tokens: 1,
            priority: 0,
            session: 0,
            dependencies: &[],
        });
    }
    builder.finish()
}

/// A pool of single blocks that are named by the prompt up to their end.
#[derive(Default)]
struct Naive {
    /// Next to be evicted first.
    idle: Vec<Vec<u8>>,
    /// Holders of each.
    held: Vec<(Vec<u8>, u32)>,
}

impl Naive {
    fn knows(&self, block: &[u8]) -> bool {
        self.idle.iter().any(|other| other == block)
            || self.held.iter().any(|(other, _)| other == block)
    }

    /// Blocks found, or nothing if there is no room.
    fn admit(&mut self, prompt: &[u8]) -> Option<u32> {
        let found = (1..=prompt.len())
            .take_while(|&end| self.knows(&prompt[..end]))
            .count();
        let is_idle = |end: &usize| self.idle.iter().any(|other| other == &prompt[..*end]);
        let woken = (1..=found).filter(is_idle).count();
        let free = BLOCKS as usize - self.held.len();
        if prompt.len() - found + woken > free {
            return None;
        }
        for end in 1..=found {
            let block = prompt[..end].to_vec();
            match self.held.iter_mut().find(|(other, _)| *other == block) {
                Some((_, holders)) => *holders += 1,
                None => {
                    self.idle.retain(|other| *other != block);
                    self.held.push((block, 1));
                }
            }
        }
        for end in found + 1..=prompt.len() {
            if self.idle.len() + self.held.len() == BLOCKS as usize {
                self.idle.remove(0);
            }
            self.held.push((prompt[..end].to_vec(), 1));
        }
        Some(found as u32)
    }

    /// How far into the prompt a known block begins that goes on differently.
    fn continued(&self, prompt: &[u8]) -> u32 {
        let known = self
            .idle
            .iter()
            .chain(self.held.iter().map(|(block, _)| block));
        let common = |block: &Vec<u8>| {
            let common = block.iter().zip(prompt).take_while(|(a, b)| a == b).count();
            if common < block.len() { common } else { 0 }
        };
        known.map(common).max().unwrap_or(0) as u32
    }

    fn release(&mut self, prompt: &[u8], useless_from: usize) {
        let mut first = Vec::new();
        for end in (1..=prompt.len()).rev() {
            let at = self
                .held
                .iter()
                .position(|(other, _)| other == &prompt[..end]);
            let at = at.expect("it is held");
            self.held[at].1 -= 1;
            if self.held[at].1 > 0 {
                continue;
            }
            let (block, _) = self.held.remove(at);
            match end > useless_from {
                true => first.push(block),
                false => self.idle.push(block),
            }
        }
        self.idle.splice(0..0, first);
    }
}

proptest! {
    #[test]
    fn the_queue_is_that_of_single_blocks(
        prompts in prop::collection::vec(prop::collection::vec(0u8..2, 1..9), 1..40),
        releases in prop::collection::vec((0usize..8, 0u8..4, 0u32..9), 40),
    ) {
        let workload = workload(&prompts);
        let config = KvCacheConfig {
            block_size: 1,
            num_gpu_blocks: BLOCKS + 1,
            enable_prefix_caching: true,
            track_block_ids: true,
            track_events: false,
        };
        let (mut cache, mut naive) = (KvCache::new(config), Naive::default());
        let mut running: Vec<(usize, Table, u32)> = Vec::new();
        for (number, prompt) in prompts.iter().enumerate() {
            let mut path = Vec::new();
            block_path(&workload.tree, workload.requests[number].leaf, 1, &mut path);
            let blocks = prompt.len() as u32;
            let hit = cache.lookup(&path, blocks);
            let fits = blocks - hit.blocks + hit.idle_blocks <= cache.free_blocks();
            let found = naive.admit(prompt);
            prop_assert_eq!(found, fits.then_some(hit.blocks));
            if fits {
                let mut table = Table::default();
                cache.admit(&mut table);
                cache.grow(&mut table, blocks);
                cache.publish(&mut table, &path, blocks);
                running.push((number, table, hit.blocks));
            }
            let (at, kind, from) = releases[number];
            if running.len() > 3 || at < running.len() {
                let (number, mut table, found) = running.remove(at % running.len());
                let prompt = &prompts[number];
                // Copies of a block that outlives what is in front of it are another matter.
                let from = from.max(found).max(naive.continued(prompt));
                match kind {
                    0 => {
                        cache.release(&mut table);
                        naive.release(prompt, usize::MAX);
                    }
                    1 if from == found => {
                        cache.release_ephemeral(&mut table, None);
                        naive.release(prompt, found as usize);
                    }
                    _ => {
                        cache.release_ephemeral(&mut table, Some(from));
                        naive.release(prompt, from as usize);
                    }
                }
                prop_assert_eq!(table.blocks(), 0);
            }
            let (idle, blank, _) = cache.fingerprint();
            let idle: Vec<u32> = idle.iter().map(|&(_, block)| block).collect();
            let expected: Vec<u32> = naive.idle.iter().map(|block| block.len() as u32 - 1).collect();
            prop_assert_eq!(idle, expected);
            prop_assert_eq!(blank as usize, BLOCKS as usize - naive.idle.len() - naive.held.len());
            prop_assert_eq!(cache.free_queue().len() as u32, cache.free_blocks());
        }
    }
}
