//! The order of the waiting queue (S7, S10).
//!
//! *fcfs* leaves it as it came; every 32nd time the prefixes of the first 128 requests are used afresh, from the back, so
//! that they are not evicted while they wait. *lpm* puts the longest cached prefix first, but a request that finds little
//! in the cache and shares its first 32 tokens with one before it goes last: when that one is done, it will find more. With
//! more than 128 waiting, lpm is fcfs. *dfs-weight* walks the cache depth first.
//!
//! Matching for the order uses the nodes it finds, and cuts them, like any other match.

use super::pool::KvPool;
use super::sequence::{Sequence, SequenceId};
use super::{SglangConfig, SglangPolicy};
use crate::prefix_tree::NodeId;
use rustc_hash::FxHashSet;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// Requests beyond which lpm is fcfs.
const LPM_LIMIT: usize = 128;
/// Cached tokens up to which a request is compared with those before it, and tokens that must be equal then.
const ALIKE_TOKENS: u32 = 32;
/// How often, and for how many requests, fcfs refreshes what waits.
const REFRESH_EVERY: u32 = 32;
const REFRESHED: usize = 128;

/// The queue and what its order needs.
#[derive(Debug, Clone)]
pub(super) struct WaitingQueue {
    policy: SglangPolicy,
    queue: VecDeque<SequenceId>,
    /// Times the order was asked for.
    passes: u32,
    heads: FxHashSet<NodeId>,
    ranked: Vec<(Reverse<u32>, SequenceId)>,
}

impl WaitingQueue {
    pub fn new(config: &SglangConfig) -> Self {
        WaitingQueue {
            policy: if config.disable_radix_cache {
                SglangPolicy::Fcfs
            } else {
                config.schedule_policy
            },
            queue: VecDeque::new(),
            passes: 0,
            heads: FxHashSet::default(),
            ranked: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn get(&self, at: usize) -> Option<SequenceId> {
        self.queue.get(at).copied()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = SequenceId> {
        self.queue.iter().copied()
    }

    /// An arrival, or a request that was retracted: to the back (S6).
    pub fn push(&mut self, id: SequenceId) {
        self.queue.push_back(id);
    }

    /// Takes out those that were admitted, of the first `tried`.
    pub fn remove(&mut self, tried: usize, is_admitted: impl Fn(SequenceId) -> bool) {
        let mut at = 0;
        self.queue.retain(|&id| {
            at += 1;
            at > tried || !is_admitted(id)
        });
    }

    pub fn retain(&mut self, keep: impl Fn(SequenceId) -> bool) {
        self.queue.retain(|&id| keep(id));
    }

    /// Takes out the first `count`.
    pub fn remove_first(&mut self, count: usize) {
        self.queue.drain(..count);
    }

    /// Brings the queue into the order in which requests are to be tried.
    pub fn sort(&mut self, sequences: &[Sequence], pool: &mut KvPool) {
        match self.policy {
            SglangPolicy::Lpm if self.queue.len() <= LPM_LIMIT => {
                self.longest_prefix_first(sequences, pool);
            }
            SglangPolicy::Fcfs | SglangPolicy::Lpm => self.refresh(sequences, pool),
            SglangPolicy::DfsWeight => self.depth_first(sequences, pool),
        }
    }

    fn refresh(&mut self, sequences: &[Sequence], pool: &mut KvPool) {
        self.passes += 1;
        if !self.passes.is_multiple_of(REFRESH_EVERY) {
            return;
        }
        let first = self.queue.len().min(REFRESHED);
        for &id in self.queue.range(..first).rev() {
            let sequence = &sequences[id as usize];
            pool.match_prefix(sequence, sequence.known());
        }
    }

    fn longest_prefix_first(&mut self, sequences: &[Sequence], pool: &mut KvPool) {
        self.heads.clear();
        self.ranked.clear();
        for &id in &self.queue {
            let sequence = &sequences[id as usize];
            let known = sequence.known();
            let found = pool.match_prefix(sequence, known);
            let matched = found.tokens + found.host_tokens;
            let head = sequence.head(ALIKE_TOKENS);
            let is_alike =
                matched <= ALIKE_TOKENS && head.is_some_and(|head| !self.heads.insert(head));
            // One more than the tokens matched, so that those to be put off come after those without a match.
            let rank = if is_alike {
                0
            } else {
                matched.min(known - 1) + 1
            };
            self.ranked.push((Reverse(rank), id));
        }
        self.ranked.sort_by_key(|&(rank, _)| rank);
        self.queue.clear();
        self.queue.extend(self.ranked.iter().map(|&(_, id)| id));
    }

    fn depth_first(&mut self, sequences: &[Sequence], pool: &mut KvPool) {
        let end = |&id: &SequenceId| {
            let sequence = &sequences[id as usize];
            pool.match_prefix(sequence, sequence.known()).node
        };
        let ends: Vec<_> = self.queue.iter().map(end).collect();
        let order = pool.cache.depth_first_by_weight(&ends);
        self.queue = order.into_iter().map(|at| self.queue[at]).collect();
    }
}
