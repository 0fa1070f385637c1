//! Prefetch: while a request waits, a storage behind host memory sends what it has of its prompt.
//!
//! In words: when a request comes, its prompt is matched; what a storage has behind that is asked for by whoever runs the
//! scheduler, if room for it can be made in host memory ([`Scheduler::local_match`], [`Scheduler::expect`]). Before each
//! plan the scheduler is told how much has arrived and whether the request may go on with that ([`Scheduler::note_arrived`]). When
//! such a request is tried, a prefetch that may end ends: what has arrived enters the tree, in host memory alone. One that may not
//! lets those behind it pass.
//!
//! Source: SGLang 0.5.6, `scheduler.py` (`_prefetch_kvcache`, `get_new_batch_prefill`), `hiradix_cache.py`
//! (`prefetch_from_storage`, `check_prefetch_progress`).

// Model: a request that was retracted does not ask again.

use super::Scheduler;
use super::pool::KvPool;
use super::sequence::{Sequence, SequenceId};
use crate::host_pool::{Copied, HostPool, Prefetch};
use crate::workload::RequestId;

impl Scheduler {
    /// How many tokens of a waiting request's prompt are on the device or in host memory. Uses them, like any other match.
    pub fn local_match(&mut self, request: RequestId) -> u32 {
        let id = self.waiting_sequence(request);
        let sequence = &self.sequences[id as usize];
        let found = self.pool.match_prefix(sequence, sequence.known() - 1);
        found.tokens + found.host_tokens
    }

    /// So many tokens behind the first `from` of a waiting request's prompt will come, if there is room; false if not.
    pub fn expect(&mut self, request: RequestId, from: u32, tokens: u32) -> bool {
        let limit = u64::from(self.prefetch_limit());
        if self.prefetches.tokens >= limit || !self.pool.cache.reserve_host(tokens) {
            return false;
        }
        self.prefetches.tokens += u64::from(tokens);
        let id = self.waiting_sequence(request);
        self.sequences[id as usize].prefetch = Some(Prefetch {
            from,
            tokens,
            arrived: 0,
            may_end: false,
        });
        true
    }

    /// How far the prefetch of a waiting request is.
    pub fn note_arrived(&mut self, request: RequestId, arrived: u32, may_end: bool) {
        let id = self.waiting_sequence(request);
        let prefetch = self.sequences[id as usize].prefetch.as_mut();
        let prefetch = prefetch.expect("it waits for a storage");
        (prefetch.arrived, prefetch.may_end) = (arrived, may_end);
    }

    /// Moves the requests whose prefetch ended since the last call, and with how many tokens, to the end of `ended`.
    pub fn take_prefetched(&mut self, ended: &mut Vec<(RequestId, u32)>) {
        ended.append(&mut self.prefetches.ended);
    }

    /// Moves what was copied to host memory since the last call to the end of `copied`.
    pub fn take_copied(&mut self, copied: &mut Vec<Copied>) {
        self.pool.cache.take_copied(copied);
    }

    /// Tokens under way at which no more are asked for.
    fn prefetch_limit(&self) -> u32 {
        let host = self.pool.host_tokens() - self.pool.usable_tokens();
        (f64::from(host) * HostPool::PREFETCH_SHARE) as u32
    }

    fn waiting_sequence(&self, request: RequestId) -> SequenceId {
        let mut waiting = self.waiting.iter();
        let is_it = |id: &SequenceId| self.sequences[*id as usize].request == request;
        waiting.rfind(is_it).expect("the request waits")
    }
}

/// Prefetches under way, and those that ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Prefetches {
    tokens: u64,
    ended: Vec<(RequestId, u32)>,
}

impl Prefetches {
    /// A waiting request is tried. False if it has to wait for a storage.
    pub fn end(&mut self, sequence: &mut Sequence, pool: &mut KvPool) -> bool {
        let Some(prefetch) = sequence.prefetch else {
            return true;
        };
        if !prefetch.may_end {
            return false;
        }
        sequence.prefetch = None;
        let span = (prefetch.from, prefetch.from + prefetch.arrived);
        pool.cache
            .insert_in_host(&sequence.path, span, prefetch.tokens);
        self.tokens -= u64::from(prefetch.tokens);
        self.ended.push((sequence.request, prefetch.arrived));
        true
    }
}
