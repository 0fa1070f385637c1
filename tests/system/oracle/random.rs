//! Random scenarios that look for trouble: pools of a few blocks, budgets of a few tokens, lengths at block boundaries,
//! shared prefixes, prompts that quote answers, bursts and idle gaps, requests that wait for each other within and across
//! sessions, step times that make steps of several workers and arrivals end up at the same instant.
//!
//! Bounds: at most 40 requests, 4 workers, 64 blocks and 200 output tokens. A seed gives the same scenario everywhere.

use super::dice::Dice;
use super::prompts::{output_len, prompt};
use super::scenario::{
    Dependency, Engine, Moment, Policy, Request, Router, Scenario, Segment, Speculation, StepCost,
    Version,
};

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut dice = Dice::new(seed, 0x0dac1e);
    let engine = engine(&mut dice);
    let cost = cost(&mut dice);
    let has_dependencies = dice.chance(35);
    let mut requests = requests(&mut dice, &engine, cost, has_dependencies);
    if dice.chance(15) {
        shuffle(&mut dice, &mut requests);
    }
    let concurrency = dice.chance(30).then(|| dice.between(1, 8));
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
        router: router(&mut dice),
        seed: dice.between(0, 1_000) as u64,
        concurrency,
        reject_what_cannot_fit: true,
    }
}

/// The scenario of a seed with what workers can do beyond a step after the other: stages, ranks, drafts.
pub fn parallel(seed: u64) -> Scenario {
    let mut scenario = scenario(seed);
    let mut dice = Dice::new(seed, 0x9a7a);
    scenario.engine.async_scheduling = false;
    let kind = dice.between(0, 3);
    if kind == 0 {
        scenario.engine.stages = dice.pick(&[2, 2, 3, 4]);
        return scenario;
    }
    if kind >= 2 {
        scenario.engine.ranks = dice.pick(&[2, 2, 3]);
        scenario.workers = scenario.workers.min(2);
    }
    if kind <= 2 {
        let drafts = dice.between(1, 5);
        let is_expected = dice.chance(50);
        let reads_hidden_states = dice.chance(50);
        if is_expected {
            // A fraction of a token has no price in nanoseconds.
            scenario.cost.c = 0;
        }
        scenario.engine.speculation = Some(Speculation {
            rates: (0..drafts)
                .map(|_| dice.pick(&[0.0, 0.3, 0.6, 0.85, 1.0]))
                .collect(),
            is_expected,
            seed: dice.between(0, 1_000) as u64,
            reads_hidden_states,
            has_kv: reads_hidden_states || dice.chance(50),
        });
    }
    scenario
}

fn router(dice: &mut Dice) -> Router {
    match dice.between(0, 7) {
        0 => Router::RoundRobin,
        1 => Router::LeastLoaded,
        2 => Router::Random,
        3 => Router::PowerOfTwo,
        _ => Router::Kv {
            credit: dice.pick(&[0.0, 0.5, 1.0, 1.0, 3.0]),
            scale: dice.pick(&[0.0, 1.0, 1.0, 4.0]),
        },
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
        stages: 1,
        ranks: 1,
        speculation: None,
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

fn requests(
    dice: &mut Dice,
    engine: &Engine,
    cost: StepCost,
    has_dependencies: bool,
) -> Vec<Request> {
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
    let session_style = dice.between(0, 2);
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
        let after = if has_dependencies && index > 0 && dice.chance(60) {
            after(dice, index, tick)
        } else {
            Vec::new()
        };
        let session = match (session_style, after.first()) {
            (0, _) | (1, None) => index,
            (1, Some(first)) => requests[first.on].session,
            _ => dice.between(0, count / 3),
        };
        requests.push(Request {
            session,
            arrival_ns,
            prompt: prompt(dice, &requests, engine.block_size, longest_prompt.max(1)),
            output_len: output_len(dice, longest_output),
            priority: dice.between(0, 3) as i64 - 1,
            after,
        });
    }
    requests
}

fn after(dice: &mut Dice, index: usize, tick: u64) -> Vec<Dependency> {
    let count = if dice.chance(80) { 1 } else { 2 };
    let dependency = |nth| Dependency {
        on: if nth == 0 && dice.chance(50) {
            index - 1
        } else {
            dice.between(0, index - 1)
        },
        moment: if dice.chance(80) {
            Moment::Finished
        } else {
            Moment::Sent
        },
        delay_ns: dice.pick(&[0, 0, 1, 7]) * tick,
    };
    (0..count).map(dependency).collect()
}

/// Deals the requests anew to the arrival times, so that some wait for, or quote, a later one of the list.
fn shuffle(dice: &mut Dice, requests: &mut Vec<Request>) {
    let times: Vec<u64> = requests.iter().map(|request| request.arrival_ns).collect();
    let mut order: Vec<usize> = (0..requests.len()).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, dice.between(0, last));
    }
    let place_of = |old: usize| {
        let mut places = order.iter();
        places
            .position(|&other| other == old)
            .expect("all have a place")
    };
    *requests = order.iter().map(|&old| requests[old].clone()).collect();
    for (request, time) in requests.iter_mut().zip(times) {
        request.arrival_ns = time;
        for dependency in &mut request.after {
            dependency.on = place_of(dependency.on);
        }
        for segment in &mut request.prompt {
            if let Segment::Output { request, .. } = segment {
                *request = place_of(*request);
            }
        }
    }
}
