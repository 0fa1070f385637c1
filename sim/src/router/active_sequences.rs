//! What a router knows of the requests it placed: per rank the prompt tokens in prefill, the distinct blocks in use and
//! the number of requests.
//!
//! A request is booked when it is placed: its prompt's whole blocks, and the prompt tokens that it does not find cached as
//! prefill. Its prefill ends with its first token, the rest with its last. A prompt whose blocks are not to be shared
//! counts in full. Output blocks, where they are followed, count one each; on request all blocks that a request holds
//! alone at its end count as a fraction, since they will soon be free. Requests that nobody freed for five minutes are
//! dropped, if expiry is on: on booking, per rank at most every 30 s.
//!
//! Source: dynamo-kv-router 1.6, active sequences; recorded in `tests/golden/router/seq_*.json`.

use super::active_blocks::ActiveBlocks;
use super::by_rank::BlocksByRank;
use super::cost::RankLoad;
use super::indexer::Rank;
use super::prefill_load::{Prefill, PrefillLoad};
use engine::{RequestId, Span, Time};
use rustc_hash::FxHashMap;

/// Requests older than this are dropped.
pub const EXPIRY: Span = Span(300_000_000_000_000);
/// Booking looks for old requests of a rank no more often than this.
pub const EXPIRY_INTERVAL: Span = Span(30_000_000_000_000);

/// The requests under way, by rank.
#[derive(Debug, Clone)]
pub struct ActiveSequences<B: ActiveBlocks> {
    blocks: B,
    ranks: Vec<RankBooks>,
    booked: FxHashMap<RequestId, Booked<B::Prompt>>,
    expires: bool,
    shared: BlocksByRank,
}

#[derive(Debug, Clone, Default)]
struct RankBooks {
    prefill: PrefillLoad,
    requests: u64,
    /// Weight of output blocks and of blocks that are not shared.
    own_blocks: f64,
    expiry_checked: Time,
}

/// The blocks of a prompt, as far as they are followed.
#[derive(Debug, Clone)]
pub enum PromptBlocks<P> {
    /// Not at all.
    Untracked,
    /// So many, and nobody shares them.
    Private(u32),
    /// These.
    Shared(P),
}

/// A request that is placed.
#[derive(Debug, Clone)]
pub struct Booking<P> {
    /// Which.
    pub request: RequestId,
    /// Where.
    pub rank: Rank,
    /// Its blocks.
    pub prompt: PromptBlocks<P>,
    /// Prompt tokens to compute; 0 books no prefill.
    pub prefill_tokens: u64,
    /// How long that should take, if there is a model.
    pub prefill_duration: Option<Span>,
}

#[derive(Debug, Clone)]
struct Booked<P> {
    rank: Rank,
    prompt: PromptBlocks<P>,
    since: Time,
    output_blocks: u32,
    output_weight: f64,
}

/// The request is booked already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuplicateRequest;

impl<B: ActiveBlocks> ActiveSequences<B> {
    /// Nothing under way on `ranks` ranks.
    #[must_use]
    pub fn new(ranks: usize, expires: bool) -> Self {
        ActiveSequences {
            blocks: B::default(),
            ranks: vec![RankBooks::default(); ranks],
            booked: FxHashMap::default(),
            expires,
            shared: BlocksByRank::default(),
        }
    }

    /// Books a request.
    pub fn add(&mut self, now: Time, booking: Booking<B::Prompt>) -> Result<(), DuplicateRequest> {
        if self.booked.contains_key(&booking.request) {
            return Err(DuplicateRequest);
        }
        let rank = booking.rank;
        let books = &mut self.ranks[rank as usize];
        let is_due = now.since(books.expiry_checked) >= EXPIRY_INTERVAL;
        if self.expires && is_due {
            self.expire(now, rank);
        }
        let books = &mut self.ranks[rank as usize];
        books.requests += 1;
        match &booking.prompt {
            PromptBlocks::Untracked => {}
            PromptBlocks::Private(blocks) => books.own_blocks += f64::from(*blocks),
            PromptBlocks::Shared(prompt) => self.blocks.acquire(rank, prompt),
        }
        if booking.prefill_tokens > 0 {
            let prefill = Prefill {
                request: booking.request,
                tokens: booking.prefill_tokens,
                duration: booking.prefill_duration,
            };
            books.prefill.add(now, prefill);
        }
        let booked = Booked {
            rank,
            prompt: booking.prompt,
            since: now,
            output_blocks: 0,
            output_weight: 0.0,
        };
        self.booked.insert(booking.request, booked);
        Ok(())
    }

    /// A request's first token arrived. False if it had no prefill under way.
    pub fn prefill_done(&mut self, now: Time, request: RequestId) -> bool {
        let Some(booked) = self.booked.get(&request) else {
            return false;
        };
        self.ranks[booked.rank as usize]
            .prefill
            .remove(now, request)
    }

    /// A request ended. False if it is not booked.
    pub fn free(&mut self, now: Time, request: RequestId) -> bool {
        let Some(booked) = self.booked.remove(&request) else {
            return false;
        };
        let books = &mut self.ranks[booked.rank as usize];
        books.prefill.remove(now, request);
        books.requests -= 1;
        books.own_blocks -= booked.output_weight;
        match &booked.prompt {
            PromptBlocks::Untracked => {}
            PromptBlocks::Private(blocks) => books.own_blocks -= f64::from(*blocks),
            PromptBlocks::Shared(prompt) => self.blocks.release(booked.rank, prompt),
        }
        if books.requests == 0 {
            books.own_blocks = 0.0;
        }
        true
    }

    /// A request generated a block; `fraction` is what all it holds alone counts from now on. False if it is not booked.
    pub fn output_block(&mut self, request: RequestId, fraction: Option<f64>) -> bool {
        let Some(booked) = self.booked.get_mut(&request) else {
            return false;
        };
        booked.output_blocks += 1;
        let before = booked.output_weight;
        booked.output_weight = match fraction {
            None => before + 1.0,
            Some(fraction) => f64::from(booked.output_blocks) * fraction,
        };
        self.ranks[booked.rank as usize].own_blocks += booked.output_weight - before;
        if let (Some(fraction), PromptBlocks::Shared(prompt)) = (fraction, &booked.prompt) {
            self.blocks.fade(booked.rank, prompt, fraction);
        }
        true
    }

    /// Blocks of its answer that a request has been told to have, if it is booked.
    #[must_use]
    pub fn output_blocks_of(&self, request: RequestId) -> Option<u32> {
        self.booked.get(&request).map(|booked| booked.output_blocks)
    }

    /// Drops a rank's requests that are older than [`EXPIRY`], and returns them.
    pub fn expire(&mut self, now: Time, rank: Rank) -> Vec<RequestId> {
        self.ranks[rank as usize].expiry_checked = now;
        let is_old =
            |booked: &Booked<B::Prompt>| booked.rank == rank && now.since(booked.since) > EXPIRY;
        let old = self.booked.iter().filter(|(_, booked)| is_old(booked));
        let mut old: Vec<RequestId> = old.map(|(&request, _)| request).collect();
        old.sort_unstable();
        for &request in &old {
            self.free(now, request);
        }
        old
    }

    /// Where a request was placed.
    #[must_use]
    pub fn rank_of(&self, request: RequestId) -> Option<Rank> {
        self.booked.get(&request).map(|booked| booked.rank)
    }

    /// The blocks that a request that is placed holds of its prompt.
    #[must_use]
    pub fn prompt_of(&self, request: RequestId) -> Option<&PromptBlocks<B::Prompt>> {
        self.booked.get(&request).map(|booked| &booked.prompt)
    }

    /// Prompt tokens in prefill on a rank.
    #[must_use]
    pub fn prefill_tokens(&self, now: Time, rank: Rank) -> u64 {
        self.ranks[rank as usize].prefill.tokens(now)
    }

    /// The load of each rank, and the blocks that a request with this prompt would add there.
    pub fn project(
        &mut self,
        now: Time,
        prompt: &PromptBlocks<B::Prompt>,
        loads: &mut Vec<RankLoad>,
    ) {
        let blocks = self.share(prompt);
        let ranks = 0..self.ranks.len() as Rank;
        loads.clear();
        loads.extend(ranks.map(|rank| self.load_with(now, rank, blocks)));
    }

    /// Number of blocks of the prompt; which ranks hold some of them says [`ActiveSequences::shared`] then.
    pub fn share(&mut self, prompt: &PromptBlocks<B::Prompt>) -> u32 {
        self.shared.clear();
        match prompt {
            PromptBlocks::Untracked => 0,
            PromptBlocks::Private(blocks) => *blocks,
            PromptBlocks::Shared(prompt) => {
                self.blocks.shared(prompt, &mut self.shared);
                B::len(prompt)
            }
        }
    }

    /// By rank, leading blocks of the prompt last asked about that its requests hold.
    #[must_use]
    pub fn shared(&self) -> &BlocksByRank {
        &self.shared
    }

    /// The load of a rank, and what the prompt last asked about, of so many blocks, would add there.
    #[must_use]
    pub fn load_with(&self, now: Time, rank: Rank, blocks: u32) -> RankLoad {
        RankLoad {
            additional_active_blocks: u64::from(blocks - self.shared.get(rank)),
            ..self.load(now, rank)
        }
    }

    /// The load of a rank, without a further request.
    #[must_use]
    pub fn load(&self, now: Time, rank: Rank) -> RankLoad {
        let books = &self.ranks[rank as usize];
        let blocks = self.blocks.active(rank) + books.own_blocks;
        RankLoad {
            active_prefill_tokens: books.prefill.tokens(now),
            active_decode_blocks: blocks.round() as u64,
            active_requests: books.requests,
            additional_active_blocks: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::active_blocks::HashedBlocks;
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000_000)
    }

    fn booking(request: u32, prompt: PromptBlocks<Vec<u64>>) -> Booking<Vec<u64>> {
        let request = RequestId(request);
        Booking {
            request,
            rank: 0,
            prompt,
            prefill_tokens: 0,
            prefill_duration: None,
        }
    }

    fn blocks(sequences: &mut ActiveSequences<HashedBlocks>) -> u64 {
        let mut loads = Vec::new();
        sequences.project(at(0), &PromptBlocks::Untracked, &mut loads);
        loads[0].active_decode_blocks
    }

    #[test]
    fn faded_blocks_are_those_held_alone() {
        let mut sequences = ActiveSequences::new(1, false);
        sequences
            .add(at(0), booking(0, PromptBlocks::Shared(vec![1, 2, 3, 4])))
            .unwrap();
        sequences
            .add(at(0), booking(1, PromptBlocks::Shared(vec![1, 2])))
            .unwrap();
        assert!(sequences.output_block(RequestId(0), None));
        assert_eq!(blocks(&mut sequences), 5);
        // 1 and 2 are shared; 3, 4 and two outputs count a quarter each.
        assert!(sequences.output_block(RequestId(0), Some(0.25)));
        assert_eq!(blocks(&mut sequences), 3);
        assert!(sequences.free(at(1), RequestId(0)));
        assert_eq!(blocks(&mut sequences), 2);
        assert!(!sequences.output_block(RequestId(0), None));
    }

    #[test]
    fn blocks_that_are_not_shared_count_in_full() {
        let mut sequences = ActiveSequences::<HashedBlocks>::new(1, false);
        for request in 0..2 {
            sequences
                .add(at(0), booking(request, PromptBlocks::Private(7)))
                .unwrap();
        }
        assert_eq!(
            sequences.add(at(0), booking(1, PromptBlocks::Untracked)),
            Err(DuplicateRequest)
        );
        assert_eq!(blocks(&mut sequences), 14);
        sequences.free(at(1), RequestId(0));
        assert_eq!(blocks(&mut sequences), 7);
    }

    #[test]
    fn what_nobody_frees_expires_after_five_minutes() {
        let mut sequences = ActiveSequences::<HashedBlocks>::new(1, true);
        sequences
            .add(at(0), booking(0, PromptBlocks::Private(1)))
            .unwrap();
        sequences
            .add(at(280), booking(1, PromptBlocks::Private(1)))
            .unwrap();
        // Looked at 280, so not again before 310; at 300 it is not older than five minutes.
        assert_eq!(sequences.expire(at(300), 0), []);
        sequences
            .add(at(301), booking(2, PromptBlocks::Private(1)))
            .unwrap();
        assert_eq!(blocks(&mut sequences), 3);
        sequences
            .add(at(330), booking(3, PromptBlocks::Private(1)))
            .unwrap();
        assert_eq!(
            (blocks(&mut sequences), sequences.rank_of(RequestId(0))),
            (3, None)
        );
    }
}
