//! Random scenarios that look for trouble: pools of a few blocks, budgets of a few tokens, lengths at block boundaries,
//! shared prefixes, prompts that quote answers, bursts and idle gaps, step times that make steps of several workers
//! and arrivals end up at the same instant.
//!
//! Bounds: at most 40 requests, 4 workers, 64 blocks and 200 output tokens. A seed gives the same scenario everywhere.

use rand::RngExt;
use rand_pcg::Pcg64;

use super::scenario::{
    Dependency, Engine, Moment, Policy, Request, Router, Scenario, Segment, StepCost, Version,
};

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut dice = Dice(Pcg64::new(u128::from(seed), 0x0dac1e));
    let engine = engine(&mut dice);
    let cost = cost(&mut dice);
    let links = match (dice.chance(30), dice.chance(25)) {
        (false, _) => Links::None,
        (true, true) => Links::OwnSession,
        (true, false) => Links::Any,
    };
    let closes_loop = links == Links::OwnSession || (links == Links::None && dice.chance(25));
    let concurrency = closes_loop.then(|| dice.between(1, 8));
    let requests = requests(&mut dice, &engine, cost, links);
    let last = requests.last().map_or(0, |request| request.arrival_ns);
    Scenario {
        name: format!("seed {seed}"),
        duration_ns: dice
            .chance(5)
            .then(|| dice.between(0, last as usize) as u64),
        warmup_requests: if dice.chance(10) {
            dice.between(1, 10)
        } else {
            0
        },
        requests,
        engine,
        cost,
        workers: dice.pick(&[1, 1, 1, 2, 2, 3, 4]),
        router: dice.pick(&[Router::RoundRobin, Router::LeastLoaded]),
        concurrency,
        reject_what_cannot_fit: true,
    }
}

/// Who may wait for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    None,
    OwnSession,
    Any,
}

struct Dice(Pcg64);

impl Dice {
    /// Both ends included.
    fn between(&mut self, low: usize, high: usize) -> usize {
        self.0.random_range(low as u64..=high.max(low) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.between(1, 100) <= percent
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.between(0, values.len() - 1)]
    }
}

fn engine(dice: &mut Dice) -> Engine {
    let block_size = dice.pick(&[1, 2, 3, 4, 4, 8, 8, 16, 16, 32, 64]);
    let num_gpu_blocks = match dice.between(0, 3) {
        0 => dice.between(2, 10),
        3 => 64,
        _ => dice.between(6, 64),
    };
    let capacity = (num_gpu_blocks - 1) * block_size;
    let max_model_len = match dice.between(0, 3) {
        0 => dice.between(2, capacity + 2),
        1 => dice.between(capacity / 2 + 2, capacity + 40),
        _ => capacity + 300,
    };
    let max_num_seqs = dice.pick(&[1, 2, 3, 4, 8, 16, 40]);
    let budget = match dice.between(0, 3) {
        0 => dice.between(1, 16),
        1 => dice.between(8, 100),
        2 => dice.between(1, 4) * block_size,
        _ => 2048,
    };
    let enable_chunked_prefill = dice.chance(75);
    let least_budget = if enable_chunked_prefill {
        max_num_seqs
    } else {
        max_num_seqs.max(max_model_len)
    };
    Engine {
        version: dice.pick(&[Version::V0_32, Version::V0_33]),
        block_size,
        num_gpu_blocks,
        max_num_seqs,
        max_num_batched_tokens: budget.max(least_budget),
        max_model_len,
        enable_prefix_caching: dice.chance(85),
        enable_chunked_prefill,
        long_prefill_token_threshold: if dice.chance(60) {
            0
        } else {
            dice.between(1, 3 * block_size)
        },
        long_prefill_token_threshold_adaptive: dice.chance(30),
        scheduler_reserve_full_isl: dice.chance(60),
        max_num_active_seqs: dice.chance(10).then(|| dice.between(1, max_num_seqs)),
        policy: if dice.chance(60) {
            Policy::Fcfs
        } else {
            Policy::Priority
        },
        watermark: dice.pick(&[0.0, 0.0, 0.0, 0.0, 0.01, 0.05, 0.1, 0.3, 0.6]),
        async_scheduling: dice.chance(45),
    }
}

fn cost(dice: &mut Dice) -> StepCost {
    let (a, b, c) = match dice.between(0, 4) {
        0 => (1000, 0, 0),
        1 => (1000, 0, 1),
        2 => (1000, 10, 1),
        3 => (6_000_000, 40_000, 15),
        _ => (
            dice.between(1, 3000),
            dice.between(0, 50),
            dice.between(0, 5),
        ),
    };
    StepCost {
        a: a as u64,
        b: b as u64,
        c: c as u64,
    }
}

fn requests(dice: &mut Dice, engine: &Engine, cost: StepCost, links: Links) -> Vec<Request> {
    let count = match dice.between(0, 2) {
        0 => dice.between(1, 8),
        1 => dice.between(5, 20),
        _ => dice.between(20, 40),
    };
    let capacity = engine.usable_blocks() * engine.block_size;
    let longest_prompt = if dice.chance(15) {
        capacity + capacity / 8
    } else {
        capacity / dice.pick(&[1, 2, 3, 8])
    };
    let longest_output = dice
        .pick(&[1, 4, 30, 200, capacity / 4, capacity / 2, capacity])
        .clamp(1, 200);
    // Without a price per token every step takes `a`, and arrivals are to meet the ends of steps.
    let is_regular = cost.b == 0 && cost.c == 0;
    let tick = if is_regular {
        cost.a
    } else {
        cost.a + 20 * cost.b + 40 * cost.c
    };
    let burstiness = dice.between(0, 3);
    let mut arrival_ns = 0;
    let mut requests: Vec<Request> = Vec::new();
    for index in 0..count {
        let gap = match burstiness {
            0 => 0,
            1 => dice.between(0, 3),
            2 if dice.chance(80) => 0,
            2 => dice.between(1, 60),
            _ => dice.pick(&[0, 1, 5, 20, 400]),
        } as u64;
        arrival_ns += gap * tick;
        if !is_regular && gap > 0 {
            arrival_ns += dice.between(0, 2 * tick as usize) as u64;
        }
        let after = if links != Links::None && index > 0 && dice.chance(60) {
            after(dice, &requests, links, tick)
        } else {
            Vec::new()
        };
        let first = after.first();
        requests.push(Request {
            session: first.map_or(index, |dependency| requests[dependency.on].session),
            arrival_ns,
            prompt: prompt(dice, &requests, engine.block_size, longest_prompt.max(1)),
            output_len: output_len(dice, longest_output),
            priority: dice.between(0, 3) as i64 - 1,
            after,
        });
    }
    requests
}

fn output_len(dice: &mut Dice, longest: usize) -> usize {
    match dice.between(0, 5) {
        0 => 1,
        1 => longest,
        _ => dice.between(1, longest),
    }
}

/// A length up to `longest`, often at or next to a multiple of the block size.
fn length(dice: &mut Dice, block_size: usize, longest: usize) -> usize {
    let length = match dice.between(0, 3) {
        0 => dice.between(0, longest / block_size) * block_size + dice.between(0, 2),
        1 => dice.between(0, longest / 4),
        _ => dice.between(1, longest),
    };
    length
        .saturating_sub(usize::from(dice.chance(10)))
        .clamp(1, longest.max(1))
        .min(4096)
}

fn prompt(dice: &mut Dice, earlier: &[Request], block_size: usize, longest: usize) -> Vec<Segment> {
    let own = 100 + earlier.len() as u64;
    let mut prompt = Vec::new();
    let style = dice.between(0, 9);
    if style < 3 || earlier.is_empty() {
        // One of a few contents that many requests begin with.
        prompt.push(Segment::Content {
            id: dice.between(0, 2) as u64,
            len: length(dice, block_size, longest),
        });
    } else if style < 8 {
        // An earlier prompt, most often with its answer: the next turn of a conversation, or the same question again.
        let request = dice.between(0, earlier.len() - 1);
        prompt.clone_from(&earlier[request].prompt);
        let output_len = earlier[request].output_len;
        let quoted = if dice.chance(60) {
            output_len
        } else {
            dice.between(0, output_len)
        };
        if quoted > 0 && dice.chance(75) {
            prompt.push(Segment::Output {
                request,
                len: quoted,
            });
        }
    } else if style == 8 {
        // An answer out of its context.
        let request = dice.between(0, earlier.len() - 1);
        prompt.push(Segment::Output {
            request,
            len: earlier[request].output_len,
        });
    }
    let used: usize = prompt.iter().map(|segment| segment.len()).sum();
    if prompt.is_empty() || (used < longest && dice.chance(60)) {
        prompt.push(Segment::Content {
            id: own,
            len: length(dice, block_size, longest.saturating_sub(used).max(1)),
        });
    }
    // A chain of turns may have outgrown what is asked for here.
    if used > longest && dice.chance(90) {
        prompt = vec![Segment::Content {
            id: own,
            len: length(dice, block_size, longest),
        }];
    }
    prompt
}

fn after(dice: &mut Dice, earlier: &[Request], links: Links, tick: u64) -> Vec<Dependency> {
    let index = earlier.len();
    let count = if dice.chance(80) { 1 } else { 2 };
    let mut after: Vec<Dependency> = Vec::new();
    while after.len() < count {
        let on = if after.is_empty() && dice.chance(50) {
            index - 1
        } else {
            dice.between(0, index - 1)
        };
        let is_stranger = |other: &Dependency| earlier[other.on].session != earlier[on].session;
        if links == Links::OwnSession && after.iter().any(is_stranger) {
            continue;
        }
        let moment = if dice.chance(80) {
            Moment::Finished
        } else {
            Moment::Sent
        };
        let delay_ns = dice.pick(&[0, 0, 1, 7]) * tick;
        after.push(Dependency {
            on,
            moment,
            delay_ns,
        });
    }
    after
}
