//! Forming a prefill batch: which waiting requests are admitted, and with how many tokens (S2–S4).
//!
//! In words: the request whose prompt was cut goes on first. Then the waiting queue is tried from the head until one is
//! refused; nobody is skipped. A request must find room for its uncached input and all of its output, beside what is
//! reserved for those that run: their missing output times the new-token ratio. Only the last admitted may be cut to what
//! the chunk budget leaves.

use super::SglangConfig;
use super::pool::KvPool;
use super::radix_cache::Match;
use super::sequence::{Sequence, SequenceId};

/// A request that takes part in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admission {
    pub sequence: SequenceId,
    pub new_tokens: u32,
    /// Tokens found in the cache; `None` if it goes on with an earlier chunk.
    pub hit_tokens: Option<u32>,
    /// Tokens brought up from host memory, and of these tokens that a storage gave.
    pub loaded_tokens: u32,
    pub stored_tokens: u32,
}

/// Why the queue is tried no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Memory lacks.
    NoToken,
    /// A budget of the batch is spent.
    Budget,
}

/// What is left of the budgets while a batch is formed.
#[derive(Debug)]
pub(super) struct Admitter<'a> {
    config: &'a SglangConfig,
    ratio: f64,
    /// Tokens reserved of those that are free or evictable; a float, as in the real one.
    reserved: f64,
    /// Of these, tokens that this batch takes at once.
    taken: i64,
    input_left: i64,
    chunk_left: Option<i64>,
    /// With the cache off and `ignore_eos`: (output left, tokens held) by output left.
    releases: Option<Vec<(f64, u32)>>,
    pub admitted: Vec<Admission>,
    /// The request whose prompt is cut in this batch.
    pub cut: Option<SequenceId>,
}

impl<'a> Admitter<'a> {
    /// Budgets of a batch beside those that run.
    pub fn new(
        config: &'a SglangConfig,
        ratio: f64,
        running: &[SequenceId],
        sequences: &[Sequence],
    ) -> Self {
        let ratio = if config.ignore_eos { 1.0 } else { ratio };
        let mixed = if config.mixed_chunk {
            running.len() as i64
        } else {
            0
        };
        let reserve = |&id: &SequenceId| {
            let missing = sequences[id as usize].missing();
            f64::from(missing.min(SglangConfig::CLIP_MAX_NEW_TOKENS)) * ratio
        };
        Admitter {
            config,
            ratio,
            reserved: mixed as f64 + running.iter().map(reserve).sum::<f64>(),
            taken: mixed,
            input_left: i64::from(config.max_prefill_tokens) - mixed,
            chunk_left: config
                .chunked_prefill_size
                .map(|size| i64::from(size) - mixed),
            releases: None,
            admitted: Vec::new(),
            cut: None,
        }
    }

    /// Goes on with a prompt that was cut. It always advances, so that it can end.
    /// `most` bounds it where others can hold the memory.
    pub fn go_on(&mut self, id: SequenceId, sequence: &Sequence, pool: &KvPool, most: Option<u32>) {
        let chunk = self.chunk_left.expect("prompts are cut only with chunking");
        let room = chunk.min(self.left(pool) as i64);
        let limit = if room > 0 { room } else { chunk.max(1) };
        let limit = most.map_or(limit, |most| limit.min(i64::from(most)));
        let missing = sequence.known() - sequence.computed;
        let new_tokens = limit.min(i64::from(missing)) as u32;
        let is_cut = new_tokens < missing;
        self.cut = is_cut.then_some(id);
        self.admit(
            Admission {
                sequence: id,
                new_tokens,
                hit_tokens: None,
                loaded_tokens: 0,
                stored_tokens: 0,
            },
            pool.paged(new_tokens),
            if is_cut {
                0
            } else {
                clipped(sequence.output_goal)
            },
        );
    }

    /// Tries the next waiting request: it is admitted, refused, or admitted as the last one.
    pub fn try_next(
        &mut self,
        id: SequenceId,
        sequences: &mut [Sequence],
        running: &[SequenceId],
        pool: &mut KvPool,
    ) -> Result<(), Stop> {
        let sequence = &sequences[id as usize];
        // S7: the last token is computed even if the cache holds it.
        let mut found = pool.match_prefix(sequence, sequence.known() - 1);
        let hit_tokens = found.tokens;
        let mut stored_tokens = 0;
        let (tokens, output) = if self.config.disable_radix_cache && self.config.ignore_eos {
            let input = sequence.known() - found.tokens;
            self.judge_by_releases(id, input, sequences, running, pool)?
        } else {
            let mut verdict = self.judge(sequence, found, pool)?;
            if found.host_tokens > 0 {
                match pool.load_back(found, sequence) {
                    Some((all, stored)) => (found, stored_tokens) = (all, stored),
                    None => {
                        found.host_tokens = 0;
                        verdict = self.judge(sequence, found, pool)?;
                    }
                }
            }
            verdict
        };
        let input = sequence.known() - found.tokens;
        pool.cache.lock(found.node);
        let sequence = &mut sequences[id as usize];
        sequence.node = found.node;
        sequence.shared = found.tokens;
        sequence.computed = found.tokens;
        if tokens < input {
            self.cut = Some(id);
        }
        self.admit(
            Admission {
                sequence: id,
                new_tokens: tokens,
                hit_tokens: Some(hit_tokens),
                loaded_tokens: found.tokens - hit_tokens,
                stored_tokens,
            },
            pool.paged(tokens),
            output,
        );
        self.state(pool)
    }

    /// How many tokens a request may compute and how much output is to be reserved for it (S4).
    fn judge(
        &self,
        sequence: &Sequence,
        found: Match,
        pool: &mut KvPool,
    ) -> Result<(u32, u32), Stop> {
        let page = self.config.page_size;
        // What comes up from host memory is not computed, but takes room.
        let prefix = found.tokens + found.host_tokens;
        let input = sequence.known() - prefix;
        let total = input + found.host_tokens + clipped(sequence.missing()) + page;
        // What it shares cannot be evicted for it.
        pool.cache.lock(found.node);
        let left = self.left(pool);
        pool.cache.unlock(found.node);
        if f64::from(total) >= left {
            return Err(Stop::NoToken);
        }
        let paged = i64::from(pool.paged(input));
        let whole = (input, clipped(sequence.output_goal));
        match self.chunk_left {
            None if !self.admitted.is_empty() && paged >= self.input_left => Err(Stop::Budget),
            Some(chunk) if paged > chunk => {
                let end = prefix + chunk.max(0) as u32 / page * page;
                let tokens = (end / page * page).saturating_sub(prefix);
                if tokens == 0 {
                    return Err(Stop::Budget);
                }
                Ok((tokens, 0))
            }
            _ => Ok(whole),
        }
    }

    /// The same with the cache off for requests that never end early: their memory must last while all of them run on and
    /// release theirs in the order of the output they lack.
    fn judge_by_releases(
        &mut self,
        id: SequenceId,
        input: u32,
        sequences: &[Sequence],
        running: &[SequenceId],
        pool: &KvPool,
    ) -> Result<(u32, u32), Stop> {
        let paged = i64::from(pool.paged(input) + self.config.page_size);
        let now = i64::from(pool.available_tokens()) - self.taken;
        if paged > now || paged as f64 > self.left(pool) {
            return Err(Stop::NoToken);
        }
        self.note_release(id, sequences, running);
        let releases = self.releases.as_ref().expect("noted a line above");
        let mut freed = 0.0;
        for (index, &(output, held)) in releases.iter().enumerate() {
            let batch = (releases.len() - index) as f64;
            if (now - paged) as f64 + freed - output * batch <= batch {
                return Err(Stop::NoToken);
            }
            freed += f64::from(held);
        }
        let sequence = &sequences[id as usize];
        match self.chunk_left {
            Some(chunk) if i64::from(input) > chunk => {
                if chunk <= 0 {
                    return Err(Stop::Budget);
                }
                Ok((chunk as u32, 0))
            }
            _ => Ok((input, clipped(sequence.output_goal))),
        }
    }

    fn note_release(&mut self, id: SequenceId, sequences: &[Sequence], running: &[SequenceId]) {
        let ratio = self.ratio;
        let release = |id: SequenceId| {
            let sequence = &sequences[id as usize];
            let output = f64::from(sequence.output_goal) * ratio - f64::from(sequence.outputs);
            (output > 0.0).then_some((output, sequence.known()))
        };
        match &mut self.releases {
            None => {
                let admitted = self.admitted.iter().map(|admission| admission.sequence);
                let all = std::iter::once(id)
                    .chain(running.iter().copied())
                    .chain(admitted);
                let mut releases: Vec<(f64, u32)> = all.filter_map(release).collect();
                releases.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.releases = Some(releases);
            }
            Some(releases) => {
                if let Some(new) = release(id) {
                    // Before the first that lacks as much; one that lacks most goes before the last, as in the real one.
                    let at = releases.iter().position(|other| new.0 <= other.0);
                    let at = at.unwrap_or(releases.len().saturating_sub(1));
                    releases.insert(at, new);
                }
            }
        }
    }

    fn admit(&mut self, admission: Admission, paged: u32, output: u32) {
        let now = i64::from(paged + self.config.page_size);
        self.reserved += (now + i64::from(output)) as f64;
        self.taken += now;
        self.input_left -= i64::from(paged);
        if let Some(chunk) = &mut self.chunk_left {
            *chunk -= i64::from(paged);
        }
        self.admitted.push(admission);
    }

    /// Tokens that are free or evictable and not reserved.
    fn left(&self, pool: &KvPool) -> f64 {
        f64::from(pool.available_tokens()) - self.reserved
    }

    /// Whether anything is left for a further request.
    fn state(&self, pool: &KvPool) -> Result<(), Stop> {
        let now = i64::from(pool.available_tokens()) - self.taken;
        if self.left(pool) <= 0.0 || now <= 0 {
            Err(Stop::NoToken)
        } else if self.input_left <= 0 || self.chunk_left.is_some_and(|chunk| chunk <= 0) {
            Err(Stop::Budget)
        } else {
            Ok(())
        }
    }
}

fn clipped(output: u32) -> u32 {
    output.min(SglangConfig::CLIP_MAX_NEW_TOKENS)
}
