//! Onboarding: what a waiting request can fetch, and its way up.

use super::record::{Fetch, FetchRecord};
use super::runs::runs_of;
use super::{Kvbm, Move};
use crate::event::WorkerId;
use crate::links::NewFlow;
use engine::kv_cache::{Stretch, block_path};
use engine::{Connector, RequestId, Reserved, Time, Workload};

/// A worker's view of its tiers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    kvbm: &'a Kvbm,
    worker: WorkerId,
}

impl Connector for View<'_> {
    fn matched(&self, path: &[Stretch], from: u32, limit: u32) -> u32 {
        let tiers = &self.kvbm.tiers(self.worker).tiers;
        tiers.iter().fold(0, |found, &(level, _)| {
            found
                + self.kvbm.levels[level]
                    .store
                    .matched(path, from + found, limit)
        })
    }
}

impl Kvbm {
    /// What a worker's scheduler asks.
    pub fn view(&self, worker: WorkerId) -> Option<View<'_>> {
        let view = View { kvbm: self, worker };
        self.reads(worker).then_some(view)
    }

    /// A worker has blocks for KV of a request that its tiers hold: it is sent up.
    pub fn fetch(&mut self, now: Time, worker: WorkerId, reserved: &Reserved, workload: &Workload) {
        let asked = &workload.requests[reserved.request.0 as usize];
        let (block_size, block_bytes) = {
            let tiers = self.tiers(worker);
            (tiers.block_size, tiers.block_bytes)
        };
        let mut path = std::mem::take(&mut self.path);
        block_path(&workload.tree, asked.leaf, block_size, &mut path);
        let mut at = reserved.hit_tokens / block_size;
        let end = at + reserved.missing_tokens / block_size;
        let mut fetch = Fetch {
            record: FetchRecord {
                request: reserved.request,
                worker,
                began: now,
                ended: Time::MAX,
                tokens: [0; 3],
            },
            parts: 0,
        };
        for rank in 0..self.tiers(worker).tiers.len() {
            let level = self.tiers(worker).tiers[rank].0;
            let level = &mut self.levels[level];
            let blocks = level.store.matched(&path, at, end);
            if blocks == 0 {
                continue;
            }
            level
                .store
                .touch(now, runs_of(&path, at, at + blocks), asked.priority);
            at += blocks;
            let bytes = u64::from(blocks) * block_bytes;
            level.record.onboarded_blocks += u64::from(blocks);
            level.record.onboarded_bytes += bytes;
            fetch.record.tokens[level.record.medium] = blocks * block_size;
            fetch.parts += 1;
            let tag = self.name(Move::Up(worker, reserved.request));
            let tiers = self.workers[worker.0 as usize].as_ref();
            let way = &tiers.expect("it has tiers").tiers[rank].1.up;
            self.fabric.start(
                now,
                NewFlow {
                    tag,
                    path: &way.path,
                    bytes,
                    delay: way.delay,
                },
            );
        }
        assert!(
            at == end,
            "tiers hold at the end of a plan what they held in it"
        );
        self.path = path;
        let tokens = fetch.record.tokens.iter().sum();
        self.fetched_tokens
            .entry(reserved.request)
            .or_insert(tokens);
        let before = self.fetches.insert(reserved.request, fetch);
        assert!(before.is_none(), "a request fetches once at a time");
    }

    /// One of the flows of a request has ended; true if it was the last.
    pub(super) fn part_arrived(&mut self, now: Time, request: RequestId) -> bool {
        let fetch = self
            .fetches
            .get_mut(&request)
            .expect("its flow was under way");
        fetch.parts -= 1;
        let is_over = fetch.parts == 0;
        if is_over {
            self.done.push(FetchRecord {
                ended: now,
                ..fetch.record
            });
            self.fetches.remove(&request);
        }
        is_over
    }

    /// Tokens that a request fetched when it was first admitted.
    pub fn fetched_tokens(&self, request: RequestId) -> u32 {
        self.fetched_tokens.get(&request).copied().unwrap_or(0)
    }
}
