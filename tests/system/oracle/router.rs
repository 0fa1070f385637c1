//! The router: where a request goes.
//!
//! * *Round robin*: the i-th placed request goes to worker i mod n; refused requests take no turn.
//! * *Least loaded*: fewest requests placed and not finished, one drawn of several.
//! * *Random*: one drawn. *Power of two*: two different ones drawn, the less loaded of them, the first if equal.
//! * *KV*: least `scale * max(0, (P + p) / B - credit * overlap) + D`, with B tokens per block, p prompt tokens, P the
//!   tokens of the worker's prompts (less what the router took to be cached) whose first token has not arrived, D the
//!   distinct full blocks of all prompts placed there and not finished, this one included, and the overlap the number of
//!   leading full blocks of the prompt that the worker is believed to hold. Of several cheapest one is drawn.
//!
//! The KV router believes what the workers' KV events say (`kv_index.rs`). They arrive when a batch ends: all that happened
//! on that worker since the last such end. A removed content is gone, even if the worker has another copy of it.
//!
//! What is drawn follows from the seed, the purpose of the draw and the request, by three rounds of SplitMix64.

use super::kv_index::KvIndex;
use super::pool::{Content, KvEvent};
use super::scenario::Router as Rule;
use super::sequence::Sequence;
use std::collections::BTreeSet;

/// The router's memory.
pub struct Router {
    rule: Rule,
    seed: u64,
    block_size: usize,
    /// Requests placed so far.
    placed: usize,
    workers: Vec<View>,
    index: KvIndex,
}

/// What the router knows of a worker.
#[derive(Clone, Default)]
struct View {
    /// Placed and not finished.
    requests: Vec<Placed>,
}

#[derive(Clone)]
struct Placed {
    request: usize,
    prompt_len: usize,
    /// Of the full blocks of the prompt.
    contents: Vec<Content>,
    overlap_tokens: usize,
    has_token: bool,
}

/// What happened on a worker that a router hears of.
#[derive(Default)]
pub struct News {
    /// Requests whose first token arrived.
    pub started: Vec<usize>,
    pub finished: Vec<usize>,
    pub events: Vec<KvEvent>,
}

/// What a draw is for.
#[derive(Clone, Copy)]
enum Purpose {
    Worker = 1,
    SecondWorker = 2,
    Tie = 3,
}

impl Router {
    pub fn new(rule: Rule, seed: u64, workers: usize, block_size: usize) -> Router {
        Router {
            rule,
            seed,
            block_size,
            placed: 0,
            workers: vec![View::default(); workers],
            index: KvIndex::new(),
        }
    }

    /// Chooses a worker; also returns the prompt tokens that are believed to be cached there.
    pub fn place(&mut self, request: usize, sequence: &Sequence) -> (usize, usize) {
        let workers = self.workers.len();
        let load = |worker: usize| self.workers[worker].requests.len();
        let mut overlap_tokens = 0;
        let worker = match self.rule {
            Rule::RoundRobin => self.placed % workers,
            Rule::LeastLoaded => {
                let least = (0..workers).map(load).min().expect("there is a worker");
                let idlest: Vec<usize> = (0..workers).filter(|&w| load(w) == least).collect();
                idlest[self.draw(Purpose::Tie, request, idlest.len())]
            }
            Rule::Random => self.draw(Purpose::Worker, request, workers),
            Rule::PowerOfTwo => {
                let first = self.draw(Purpose::Worker, request, workers);
                // Counted from the first, so that it is another one; one worker alone is its own second.
                let others = (workers - 1).max(1);
                let further = 1 + self.draw(Purpose::SecondWorker, request, others);
                let second = (first + further) % workers;
                if load(second) < load(first) {
                    second
                } else {
                    first
                }
            }
            Rule::Kv { credit, scale } => {
                let cost = |worker: usize| {
                    let overlap = self.overlap(worker, sequence);
                    self.kv_cost(worker, sequence, credit * overlap as f64, scale)
                };
                let costs: Vec<f64> = (0..workers).map(cost).collect();
                let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
                let cheapest: Vec<usize> = (0..workers).filter(|&w| costs[w] == least).collect();
                let worker = cheapest[self.draw(Purpose::Tie, request, cheapest.len())];
                overlap_tokens = self.overlap(worker, sequence) * self.block_size;
                worker
            }
        };
        self.placed += 1;
        let contents = self.full_blocks(sequence).to_vec();
        self.workers[worker].requests.push(Placed {
            request,
            prompt_len: sequence.prompt_len,
            contents,
            overlap_tokens,
            has_token: false,
        });
        (worker, overlap_tokens)
    }

    fn kv_cost(&self, worker: usize, sequence: &Sequence, saved_blocks: f64, scale: f64) -> f64 {
        let requests = &self.workers[worker].requests;
        let waiting = requests.iter().filter(|placed| !placed.has_token);
        let waiting: usize = waiting
            .map(|placed| placed.prompt_len - placed.overlap_tokens)
            .sum();
        let contents = requests.iter().flat_map(|placed| &placed.contents);
        let distinct: BTreeSet<&Content> = contents.chain(self.full_blocks(sequence)).collect();
        let prefill_blocks = (waiting + sequence.prompt_len) as f64 / self.block_size as f64;
        scale * (prefill_blocks - saved_blocks).max(0.0) + distinct.len() as f64
    }

    fn full_blocks<'s>(&self, sequence: &'s Sequence) -> &'s [Content] {
        &sequence.contents[..sequence.prompt_len / self.block_size]
    }

    fn overlap(&self, worker: usize, sequence: &Sequence) -> usize {
        self.index.overlap(worker, self.full_blocks(sequence))
    }

    /// Takes note of what happened on a worker.
    pub fn hear(&mut self, worker: usize, news: News) {
        let view = &mut self.workers[worker];
        for placed in &mut view.requests {
            placed.has_token |= news.started.contains(&placed.request);
        }
        let is_open = |placed: &Placed| !news.finished.contains(&placed.request);
        view.requests.retain(is_open);
        for event in news.events {
            match event {
                KvEvent::Stored { parent, contents } => self.index.store(worker, parent, &contents),
                KvEvent::Removed(content) => self.index.remove(worker, content),
            }
        }
    }

    fn draw(&self, purpose: Purpose, request: usize, bound: usize) -> usize {
        let bits = split_mix(split_mix(split_mix(self.seed) ^ purpose as u64) ^ request as u64);
        (((bits >> 32) * bound as u64) >> 32) as usize
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014) from state `x`.
fn split_mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
