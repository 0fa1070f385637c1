//! Parameters corrected until the workload they make comes out like the trace.
//!
//! Each round makes the workload under a few seeds, takes it apart as the trace was, and corrects
//! * the share of conversations among the sessions, by its odds;
//! * the turns of conversations, by the best possible reuse (where contents are
//!   unknown, by the number of follow-ups);
//! * the lengths of first turns, by *transport*: a length that is the p-quantile of what came out becomes the p-quantile
//!   of the trace. Those of single turns follow the lengths of all requests, those of conversations the lengths of
//!   follow-ups.
//!
//! The round that came closest counts, not the last one. Corrections end when they are close enough or have not helped
//! for a while.

use super::anatomy::Anatomy;
use super::closeness::{Closeness, Measures, sorted};
use crate::lengths::Lengths;
use crate::synth::SynthSpec;
use crate::trace::Trace;

/// The first of the fit's own seeds; as many are used as give so many requests, within limits.
const FIRST_SEED: u64 = 101;
const REQUESTS: usize = 32_000;
const SEEDS: std::ops::RangeInclusive<usize> = 3..=16;

const MOST_ROUNDS: usize = 16;
/// Rounds without progress after which corrections end.
const PATIENCE: usize = 5;
/// So close that more corrections are not worth it.
const CLOSE_ENOUGH: f64 = 0.3;
/// How much of a correction is made at once.
const DAMPING: f64 = 0.6;
/// First turns of conversations may become so much shorter or longer than in the trace.
const MOST_STRETCH: f64 = 1.25;

/// Parameters and how far their workload is from the trace.
pub(super) struct Calibrated {
    pub(super) spec: SynthSpec,
    /// Largest of the differences, each in units of what is asked for: quantiles of prompts within 10 % (or 2 % of the
    /// requests), best reuse within 2 points, the hit-rate curve within 5; mean of the seeds.
    pub(super) distance: f64,
}

/// What corrections go by.
struct Target {
    inputs: Vec<u32>,
    follow_up_inputs: Vec<u32>,
    conversation_share: f64,
    /// Follow-ups per conversation.
    follow_ups: f64,
    /// Best possible reuse, where contents are known.
    reuse: Option<f64>,
}

/// A trace and what it is made of.
struct Sample {
    trace: Trace,
    anatomy: Anatomy,
    measures: Measures,
}

impl Sample {
    fn of(trace: Trace, block_size: u32) -> Sample {
        Sample {
            anatomy: Anatomy::of(&trace),
            measures: Measures::of(&trace, block_size),
            trace,
        }
    }
}

impl Target {
    fn of(samples: &[Sample]) -> Target {
        let mean = |number: fn(&Sample) -> f64| {
            samples.iter().map(number).sum::<f64>() / samples.len() as f64
        };
        let rows = || {
            samples
                .iter()
                .flat_map(|sample| sample.trace.rows.iter().zip(&sample.anatomy.turns))
        };
        let follow_ups = rows().filter(|(_, turn)| turn.follows.is_some());
        let reuse = |sample: &Sample| sample.measures.best_reuse();
        Target {
            inputs: sorted(rows().map(|(row, _)| row.input_tokens)),
            follow_up_inputs: sorted(follow_ups.map(|(row, _)| row.input_tokens)),
            conversation_share: mean(|sample| sample.anatomy.conversation_share()),
            follow_ups: mean(|sample| sample.anatomy.follow_ups_per_conversation()),
            reuse: samples
                .iter()
                .map(reuse)
                .sum::<Option<f64>>()
                .map(|sum| sum / samples.len() as f64),
        }
    }
}

/// Corrects `spec`, which was read off `trace`.
pub(super) fn calibrated(spec: SynthSpec, trace: &Trace) -> Calibrated {
    let block_size = trace.block_size;
    let given = Sample::of(trace.clone(), block_size);
    let target = Target::of(std::slice::from_ref(&given));
    let seeds = (REQUESTS / trace.rows.len()).clamp(*SEEDS.start(), *SEEDS.end()) as u64;
    let first = spec.clone();
    let mut spec = spec;
    let mut best: Option<Calibrated> = None;
    let mut rounds_since_best = 0;
    for _ in 0..MOST_ROUNDS {
        let make = |seed| {
            spec.generate(FIRST_SEED + seed)
                .expect("parameters read off a trace can be used")
        };
        let made: Vec<Sample> = (0..seeds)
            .map(|seed| Sample::of(make(seed), block_size))
            .collect();
        let distances = made
            .iter()
            .map(|sample| distance(&given.measures, &sample.measures));
        let distance = distances.sum::<f64>() / seeds as f64;
        let next = corrected(&spec, &first, &target, &Target::of(&made));
        rounds_since_best += 1;
        if best.as_ref().is_none_or(|best| distance < best.distance) {
            best = Some(Calibrated { spec, distance });
            rounds_since_best = 0;
        }
        if distance <= CLOSE_ENOUGH || rounds_since_best == PATIENCE {
            break;
        }
        spec = next;
    }
    best.expect("there is at least one round")
}

fn distance(given: &Measures, synth: &Measures) -> f64 {
    let closeness = Closeness::between(given, synth);
    // Where lengths are rare, a quantile says little: there the share of requests that are out of place counts.
    let lengths =
        (closeness.input_tokens.worst_error / 0.10).min(closeness.input_tokens.ks_distance / 0.02);
    let reuse = closeness.best_reuse.map_or(0.0, |reuse| reuse.difference()) / 0.02;
    lengths.max(reuse).max(closeness.lru_distance / 0.05)
}

fn odds(share: f64) -> f64 {
    let share = share.clamp(1e-6, 1.0 - 1e-6);
    share / (1.0 - share)
}

/// `spec` with corrections; `first` is what it was at the beginning.
fn corrected(spec: &SynthSpec, first: &SynthSpec, target: &Target, reached: &Target) -> SynthSpec {
    let mut spec = spec.clone();
    let system = spec
        .system_prompts
        .iter()
        .map(|group| group.share * mean_of(&group.tokens))
        .sum::<f64>();
    let more_conversations = odds(target.conversation_share) / odds(reached.conversation_share);
    let more_turns = match (target.reuse, reached.reuse) {
        (Some(target), Some(reached)) => odds(target) / odds(reached),
        _ if reached.follow_ups > 0.0 => target.follow_ups / reached.follow_ups,
        _ => 1.0,
    };
    for (kind, first) in spec.sessions.iter_mut().zip(&first.sessions) {
        if kind.follow_ups.is_empty() {
            let lengths = transported(
                &kind.first_input_tokens,
                system,
                &reached.inputs,
                &target.inputs,
            );
            kind.first_input_tokens = lengths;
            continue;
        }
        kind.weight *= more_conversations.powf(DAMPING).clamp(0.2, 5.0);
        kind.turns = kind
            .turns
            .scaled_above_one(more_turns.powf(DAMPING).clamp(0.2, 5.0));
        let (from, to) = (&reached.follow_up_inputs, &target.follow_up_inputs);
        if !from.is_empty() && !to.is_empty() {
            let lengths = transported(&kind.first_input_tokens, system, from, to);
            kind.first_input_tokens = near(&lengths, &first.first_input_tokens);
        }
    }
    spec
}

/// `lengths`, but not farther than [`MOST_STRETCH`] from `first` at any probability.
fn near(lengths: &Lengths, first: &Lengths) -> Lengths {
    match (lengths, first) {
        (Lengths::Empirical(lengths), Lengths::Empirical(first)) => {
            Lengths::Empirical(lengths.map_at(|p, value| {
                value.clamp(first.at(p) / MOST_STRETCH, first.at(p) * MOST_STRETCH)
            }))
        }
        _ => lengths.clone(),
    }
}

fn mean_of(lengths: &Lengths) -> f64 {
    match lengths {
        Lengths::Fixed(length) => f64::from(*length),
        _ => {
            lengths
                .sample(FIRST_SEED, 100)
                .into_iter()
                .map(f64::from)
                .sum::<f64>()
                / 100.0
        }
    }
}

/// Moves each length part of the way to where its quantile of `from` lies in `to`; both include `system` tokens more.
fn transported(lengths: &Lengths, system: f64, from: &[u32], to: &[u32]) -> Lengths {
    let Lengths::Empirical(quantiles) = lengths else {
        return lengths.clone();
    };
    Lengths::Empirical(quantiles.map(|text| {
        let input = text + system;
        let below = from.partition_point(|&length| f64::from(length) < input);
        let up_to = from.partition_point(|&length| f64::from(length) <= input);
        let probability = (below + up_to) as f64 / 2.0 / from.len() as f64;
        let rank = probability * to.len() as f64 - 0.5;
        let index = (rank.floor().max(0.0) as usize).min(to.len() - 1);
        let above = (index + 1).min(to.len() - 1);
        let part = (rank - index as f64).clamp(0.0, 1.0);
        let goal = f64::from(to[index]) + (f64::from(to[above]) - f64::from(to[index])) * part;
        (input * (goal / input).powf(DAMPING) - system).max(1.0)
    }))
}
