//! The pool of KV tokens: what is free, what sequences own, and what the radix cache keeps.
//!
//! A sequence holds pages. Those of the prefix it shares belong to the cache and are locked by it; the rest is its own. A
//! *checkpoint* hands what it has computed to the cache: what the cache had already is freed and the cache's copy adopted
//! (S8). With the cache off a sequence owns everything and gives it back at its end.

use super::radix_cache::{Match, RadixCache};
use super::sequence::Sequence;
use crate::host_pool::{HostPool, HostUse};
use crate::kv_cache::KvEvent;
use crate::plan::HostCopies;
use crate::workload::Workload;
use std::sync::Arc;

/// Free tokens and cached ones.
#[derive(Debug, Clone)]
pub struct KvPool {
    page_size: u32,
    usable: u32,
    free: u32,
    pub(super) cache: RadixCache,
    is_caching: bool,
    /// Computed tokens at the end that do not enter the cache (S13).
    uncached_tail: u32,
    /// Tokens brought up from host memory for the next batch.
    loaded: u32,
}

impl KvPool {
    pub(super) fn new(
        config: &super::SglangConfig,
        workload: Arc<Workload>,
        tracks_events: bool,
    ) -> Self {
        KvPool {
            page_size: config.page_size,
            usable: config.usable_tokens(),
            free: config.usable_tokens(),
            cache: RadixCache::new(workload, config.page_size, tracks_events),
            is_caching: !config.disable_radix_cache && config.num_reserved_decode_tokens.is_none(),
            uncached_tail: u32::from(config.speculation.is_some()),
            loaded: 0,
        }
    }

    /// Puts host memory below the pool.
    pub(super) fn attach_host(&mut self, host: HostPool) {
        assert!(
            self.is_caching && host.tokens > self.usable,
            "host memory takes more than the pool, prefix by prefix"
        );
        self.cache.attach_host(host);
    }

    /// What host memory holds and did, if there is some.
    #[must_use]
    pub fn host_use(&self) -> Option<HostUse> {
        self.cache.host_use()
    }

    /// Tokens that fit into host memory; 0 without any.
    pub(super) fn host_tokens(&self) -> u32 {
        self.cache.host_tokens()
    }

    pub(super) fn has_host(&self) -> bool {
        self.cache.host_use().is_some()
    }

    /// What has been copied since the last call and the next batch has to wait for.
    pub(super) fn take_copies(&mut self) -> HostCopies {
        HostCopies {
            loaded_tokens: std::mem::take(&mut self.loaded),
            written_tokens: self.cache.take_written(),
        }
    }

    /// Brings up what of a match lies in host memory, all or nothing.
    /// Also says how many of its tokens a storage gave.
    pub(super) fn load_back(&mut self, found: Match, sequence: &Sequence) -> Option<(Match, u32)> {
        let tokens = found.host_tokens;
        if tokens < HostPool::LOAD_BACK_THRESHOLD {
            return None;
        }
        self.cache.lock(found.node);
        self.cache.hold_copy(found);
        if self.free < tokens {
            // As the real one does: not what lacks, but as much as is to come.
            self.free += self.cache.evict(tokens);
        }
        self.cache.release_copy(found);
        self.cache.unlock(found.node);
        if self.free < tokens {
            return None;
        }
        self.free -= tokens;
        let stored = self.cache.load(found, &sequence.path);
        self.loaded += tokens;
        let all = Match {
            node: found.deepest,
            tokens: found.tokens + tokens,
            host_tokens: 0,
            ..found
        };
        Some((all, stored))
    }

    /// Tokens of the pool.
    #[must_use]
    pub fn usable_tokens(&self) -> u32 {
        self.usable
    }

    /// Tokens that are neither owned nor cached.
    #[must_use]
    pub fn free_tokens(&self) -> u32 {
        self.free
    }

    /// Cached tokens that no sequence holds.
    #[must_use]
    pub fn evictable_tokens(&self) -> u32 {
        self.cache.evictable()
    }

    /// Tokens in the radix tree.
    #[must_use]
    pub fn cached_tokens(&self) -> u32 {
        self.cache.tokens()
    }

    /// Free tokens and those that could be evicted.
    #[must_use]
    pub fn available_tokens(&self) -> u32 {
        self.free + self.cache.evictable()
    }

    /// Moves the KV events since the last call to the end of `events`, in order.
    pub(super) fn drain_events(&mut self, events: &mut Vec<KvEvent>) {
        self.cache.drain_events(events);
    }

    /// True if there are events that nobody took yet.
    pub(super) fn has_events(&self) -> bool {
        self.cache.has_events()
    }

    /// Tokens of the pages that hold `tokens` tokens.
    pub(super) fn paged(&self, tokens: u32) -> u32 {
        tokens.next_multiple_of(self.page_size)
    }

    /// Of so many computed tokens those that the cache takes.
    fn cacheable(&self, tokens: u32) -> u32 {
        let tokens = tokens.saturating_sub(self.uncached_tail);
        tokens - tokens % self.page_size
    }

    /// The longest cached prefix of the first `limit` tokens of a sequence.
    pub(super) fn match_prefix(&mut self, sequence: &Sequence, limit: u32) -> Match {
        if self.is_caching {
            let limit = limit.saturating_sub(self.uncached_tail);
            self.cache.match_prefix(&sequence.path, limit)
        } else {
            Match::NONE
        }
    }

    /// Evicts what is missing to `tokens` free tokens (S9), as far as possible.
    pub(super) fn make_room(&mut self, tokens: u32) {
        if self.free < tokens {
            self.free += self.cache.evict(tokens - self.free);
        }
    }

    /// Lets a sequence compute `new_tokens` more; returns how many tokens that takes from the pool.
    pub(super) fn grow(&mut self, sequence: &mut Sequence, new_tokens: u32) {
        let before = self.paged(sequence.computed);
        sequence.computed += new_tokens;
        let taken = self.paged(sequence.computed) - before;
        assert!(taken <= self.free, "room was made before memory is taken");
        self.free -= taken;
    }

    /// Hands what a sequence has computed to the cache and lets it share the cache's copy (S8, S12). For host memory a part
    /// of a prompt does not count.
    pub(super) fn checkpoint(&mut self, sequence: &mut Sequence, is_whole: bool) {
        if !self.is_caching {
            return;
        }
        let tokens = self.cacheable(sequence.computed);
        let known = self.cache.insert(&sequence.path, tokens, is_whole);
        self.free += known - sequence.shared;
        // `tokens` is what the cache takes already.
        let copy = self.cache.match_prefix(&sequence.path, tokens);
        assert!(copy.tokens == tokens, "what was inserted is found");
        self.cache.unlock(sequence.node);
        self.cache.lock(copy.node);
        sequence.node = copy.node;
        sequence.shared = tokens;
    }

    /// Takes a finished sequence's memory back; the cache keeps its whole pages.
    pub(super) fn finish(&mut self, sequence: &mut Sequence) {
        if !self.is_caching {
            self.retract(sequence);
            return;
        }
        let tokens = self.cacheable(sequence.computed);
        let known = self.cache.insert(&sequence.path, tokens, true);
        self.free += known - sequence.shared;
        self.free += self.paged(sequence.computed) - tokens;
        self.let_go(sequence);
    }

    /// Takes a sequence's memory back; the cache keeps only what it held already.
    pub(super) fn retract(&mut self, sequence: &mut Sequence) {
        self.free += self.paged(sequence.computed) - sequence.shared;
        self.let_go(sequence);
        sequence.computed = 0;
    }

    fn let_go(&mut self, sequence: &mut Sequence) {
        self.cache.unlock(sequence.node);
        sequence.node = RadixCache::ROOT;
        sequence.shared = 0;
    }
}
