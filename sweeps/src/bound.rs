//! A lower bound of GPU-hours: no fleet of such workers serves a workload with less, whatever its planner, router and
//! start-up time, and whatever latency is to be kept.
//!
//! What has to be computed whoever schedules it:
//! * every *prompt token* with its own beginning before it, once: a token that several prompts share at one place counts once, as
//!   if one cache without end served all workers, and one that an answer brings is no prompt token any more;
//! * the *attention* of these tokens to what is before them (pairs of tokens);
//! * every *generated token* but the first of each answer, which comes with the prompt;
//! * the *context* that these read.
//!
//! A step of a kind (so many prompts of such a length over so much cached, so many sequences decoding over so much context) takes
//! what the timing model of the pool says and covers some of each. The bound is the least time of steps, counted in fractions, that
//! cover all: a linear program ([`cover`]). Every run is such a choice of steps with more around it: waiting, starts, empty
//! workers, evicted and repeated work, small batches. Kinds of steps are not listed but found: from some that are near any
//! optimum, those are added that would make it cheaper, until none does.
//!
//! It says nothing of latency, so that a bound on TTFT may need more than this; it is the part of GPU-hours that no planning
//! can save.
// Model: prompts in one step are alike, which loses nothing where the times of their attention add up, as in all our timing
// models but for batches of tables that are interpolated; kinds are searched at ratios of 1.1, 1 % of the time of a step where it
// bends. A batch may be as large as the seats allow, whatever its KV takes: caches share blocks.

mod cover;

use crate::planner::capabilities;
use crate::scenario::{Pool, Role};
use cover::{Demand, Kind, cheapest};
use engine::{Chunk, StepShape, StepTime, Workload};
use std::sync::Arc;

/// What a workload takes at the least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// GPU-hours of all pools.
    pub gpu_hours: f64,
    /// Requests that no worker can hold, which are refused and not in it.
    pub left_out: u64,
}

/// The least GPU-hours in which workers of these pools can compute a workload whole; `timing` holds one model per pool.
#[must_use]
pub fn bound(pools: &[Pool], timing: &[Arc<dyn StepTime>], workload: &Workload) -> Bound {
    let longest = |pool: &Pool| {
        let able = capabilities(pool);
        let longest = able.context_length.unwrap_or(u64::MAX);
        longest.min(able.max_kv_tokens.unwrap_or(u64::MAX))
    };
    let longest = pools.iter().map(longest).min().unwrap_or(u64::MAX);
    let (demand, left_out) = demand(longest, workload);
    let limits = Limits::of(workload);
    let hours = pools.iter().zip(timing).map(|(pool, timing)| {
        let mut demand = demand;
        match pool.role {
            Role::Aggregated => {}
            Role::Prefill => demand[2..].fill(0.0),
            Role::Decode => demand[..2].fill(0.0),
        }
        let steps = Steps::new(pool, &**timing, &limits, demand);
        steps.least_seconds() * f64::from(pool.gpus_per_worker()) / 3600.0
    });
    Bound {
        gpu_hours: hours.sum(),
        left_out,
    }
}

/// Prompt tokens, pairs of their attention, generated tokens, their context, of sequences that are no longer than that; how
/// many are.
fn demand(longest: u64, workload: &Workload) -> (Demand, u64) {
    let tree = &workload.tree;
    // By node: prompts reach so deep into it, answers begin so deep in it.
    let mut reached = vec![0u32; tree.len()];
    let mut answered = vec![u32::MAX; tree.len()];
    let (mut generated, mut context, mut left_out) = (0.0, 0.0, 0);
    let mut path = Vec::new();
    for request in &workload.requests[..workload.of_clients()] {
        let (input, output) = (request.input_tokens, request.output_tokens);
        if u64::from(input + output) > longest {
            left_out += 1;
            continue;
        }
        path.clear();
        tree.path_into(request.leaf, &mut path);
        for &node in &path {
            let (place, start) = (node.0 as usize, tree.start(node));
            if start < input {
                reached[place] = reached[place].max(input.min(tree.end(node)));
            }
            if input < tree.end(node) {
                answered[place] = answered[place].min(input.max(start));
            }
        }
        let more = f64::from(output - 1);
        generated += more;
        context += more * f64::from(input) + more * (more + 1.0) / 2.0;
    }
    let (mut tokens, mut pairs) = (0.0, 0.0);
    for node in (0..tree.len() as u32).map(engine::NodeId) {
        let from = f64::from(tree.start(node));
        let until = f64::from(reached[node.0 as usize].min(answered[node.0 as usize]));
        if until > from {
            tokens += until - from;
            pairs += (until * until - from * from) / 2.0;
        }
    }
    ([tokens, pairs, generated, context], left_out)
}

/// How long sequences may be.
struct Limits {
    prompt: u32,
    sequence: u32,
}

impl Limits {
    fn of(workload: &Workload) -> Limits {
        let requests = &workload.requests;
        let prompt = requests.iter().map(|it| it.input_tokens).max();
        let sequence = requests.iter().map(|it| it.input_tokens + it.output_tokens);
        Limits {
            prompt: prompt.unwrap_or(1),
            sequence: sequence.max().unwrap_or(1),
        }
    }
}

/// A kind of step: so many prompts, tokens of each, tokens cached before each; so many sequences that decode, context of each.
type Point = [u32; 5];

/// The steps that a worker of a pool may take.
struct Steps<'a> {
    timing: &'a dyn StepTime,
    demand: Demand,
    budget: u32,
    seats: u32,
    limits: &'a Limits,
}

/// Tokens of a prompt below which it is not looked at apart: its attention is nothing beside its other work.
const SHORTEST: u32 = 16;

impl<'a> Steps<'a> {
    fn new(pool: &Pool, timing: &'a dyn StepTime, limits: &'a Limits, demand: Demand) -> Steps<'a> {
        let seats = capabilities(pool).max_num_seqs.unwrap_or(1);
        Steps {
            timing,
            demand,
            budget: pool.engine.max_num_batched_tokens().max(1),
            seats: u32::try_from(seats).unwrap_or(u32::MAX).max(1),
            limits,
        }
    }

    /// The least time in which all is computed.
    fn least_seconds(&self) -> f64 {
        let mut points = self.first_points();
        let mut kinds: Vec<Kind> = points.iter().filter_map(|it| self.kind(it)).collect();
        points.retain(|it| self.kind(it).is_some());
        const ROUNDS: usize = 200;
        for _ in 0..ROUNDS {
            let cover = cheapest(&kinds, &self.demand);
            let used: Vec<Point> = cover.used.iter().map(|&index| points[index]).collect();
            let mut cheaper = Vec::new();
            for point in self.near(&used) {
                let better = self.kind(&point).filter(|kind| cover.saves(kind));
                if let Some(kind) = better.filter(|_| !points.contains(&point)) {
                    points.push(point);
                    cheaper.push(kind);
                }
            }
            if cheaper.is_empty() {
                return cover.seconds;
            }
            kinds.extend(cheaper);
        }
        // What is still to be found is less than what the last rounds did.
        cheapest(&kinds, &self.demand).seconds
    }

    /// Full steps of each sort, and some of both.
    fn first_points(&self) -> Vec<Point> {
        let (has_prompts, decodes) = (self.demand[0] > 0.0, self.demand[2] > 0.0);
        let mean = |total: f64, count: f64| (total / count.max(1.0)).max(1.0) as u32;
        let context = mean(self.demand[3], self.demand[2]);
        let mut lengths = vec![SHORTEST];
        while lengths[lengths.len() - 1] < self.budget {
            lengths.push(lengths[lengths.len() - 1] * 2);
        }
        let mut points = Vec::new();
        let batches = [0, 1, self.seats.div_ceil(4), self.seats];
        for batch in batches.into_iter().filter(|&batch| decodes || batch == 0) {
            for of_each in [context, 1, self.limits.sequence] {
                if batch > 0 {
                    points.push([0, 0, 0, batch, of_each]);
                }
                for &length in lengths.iter().filter(|_| has_prompts) {
                    for cached in [0, context, self.limits.prompt] {
                        let prompts = (self.budget / length).max(1);
                        points.push([prompts, length, cached, batch, of_each]);
                    }
                }
            }
        }
        let mut points: Vec<Point> = points.into_iter().map(|it| self.bounded(it)).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// The nearest kind that there can be.
    fn bounded(&self, [prompts, length, cached, batch, context]: Point) -> Point {
        let batch = batch.min(self.seats);
        let context = match batch {
            0 => 0,
            _ => context.clamp(1, self.limits.sequence),
        };
        if prompts == 0 {
            return [0, 0, 0, batch, context];
        }
        let length = length.clamp(SHORTEST.min(self.budget), self.budget);
        let prompts = prompts.min(self.seats).min(self.budget / length).max(1);
        let cached = cached.min(self.limits.prompt);
        [prompts, length, cached, batch, context]
    }

    /// Kinds around those that are used, and their prompts beside the decoding of others.
    fn near(&self, used: &[Point]) -> Vec<Point> {
        let mut points = Vec::new();
        for at in used {
            for axis in 0..at.len() {
                for ratio in [0.25, 0.5, 0.9, 1.1, 2.0, 4.0] {
                    let mut point = *at;
                    let moved = (f64::from(point[axis]) * ratio).round() as u32;
                    point[axis] = moved + u32::from(ratio > 1.0 && moved == point[axis]);
                    points.push(point);
                    // As many prompts as fit with it.
                    if let Some(most) = self.budget.checked_div(point[1]) {
                        point[0] = most;
                        points.push(point);
                    }
                }
            }
            let mut without = *at;
            without[2] = 0;
            points.push(without);
            for other in used {
                points.push([at[0], at[1], at[2], other[3], other[4]]);
            }
            points.extend([[at[0], at[1], at[2], 0, 0], [0, 0, 0, at[3], at[4]]]);
        }
        let mut points: Vec<Point> = points.into_iter().map(|it| self.bounded(it)).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// What a step covers and how long it takes; `None` for an empty one.
    fn kind(&self, &[prompts, length, cached, batch, context]: &Point) -> Option<Kind> {
        if prompts == 0 && batch == 0 {
            return None;
        }
        let chunk = Chunk {
            new_tokens: length,
            cached_tokens: cached,
        };
        let chunks = vec![chunk; prompts as usize];
        let read = u64::from(batch) * u64::from(context);
        let time = self.timing.step(&StepShape {
            prefill: &chunks,
            decode_batch: batch,
            decode_context: read,
        });
        let tokens = f64::from(prompts) * f64::from(length);
        let before = f64::from(cached) + f64::from(length) / 2.0;
        Some(Kind {
            covers: [tokens, tokens * before, f64::from(batch), read as f64],
            seconds: time.as_s(),
        })
    }
}

#[cfg(test)]
mod tests;
