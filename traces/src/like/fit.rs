//! Parameters as they can be read off a trace.

use engine::Time;

use super::anatomy::{Anatomy, Turn};
use super::arrivals::{arrivals, tick_ms};
use crate::lengths::Lengths;
use crate::quantiles::Quantiles;
use crate::synth::{Draws, FollowUp, SessionKind, SynthSpec, SystemPrompts, TurnOrder};
use crate::trace::{Row, Trace};

/// Duration of an answer, per token, by which the time between two turns is divided into answer and thinking.
// Model: public traces do not say how long answers took. 30 ms per token is usual; an error moves time between thinking
// and answering, not the turns.
const ANSWER_MS_PER_TOKEN: f64 = 30.0;

/// Most system prompts that are told one by one.
const MOST_SYSTEM_PROMPTS: usize = 32;

/// New text may be so much shorter than nothing: answers are sometimes sent back without white space or markup.
const APPEND_SLACK: i64 = 32;

/// Conversations that make a class of lengths, and most classes.
const CONVERSATIONS_PER_CLASS: usize = 100;
const MOST_CLASSES: usize = 3;

/// One set of parameters per order of turns that may have made the trace.
pub(super) fn starting_points(trace: &Trace, anatomy: &Anatomy) -> Vec<SynthSpec> {
    let nominal = nominal_arrivals(trace);
    let mut sorted = nominal.clone();
    sorted.sort_unstable();
    let tick_ms = tick_ms(&sorted);
    let (arrivals, duration_s) = arrivals(&sorted, tick_ms);
    let base = SynthSpec {
        requests: trace.rows.len() as u32,
        duration_s: Some(duration_s),
        arrivals,
        tick_ms,
        block_size: trace.block_size,
        system_prompts: system_prompts(anatomy),
        sessions: session_kinds(trace, anatomy),
        turn_order: TurnOrder::Shuffled,
        draws: Draws::Even,
        max_input_tokens: trace
            .rows
            .iter()
            .map(|row| row.input_tokens)
            .max()
            .unwrap_or(1),
    };
    let waits = trace.rows.iter().any(|row| row.dependency_count > 0);
    let think = think_ms(trace, anatomy, &nominal);
    match think {
        None => vec![SynthSpec {
            turn_order: timed(Lengths::Fixed(1)),
            ..base
        }],
        Some(think_ms) if waits => {
            let answer_ms_per_token = ANSWER_MS_PER_TOKEN;
            vec![SynthSpec {
                turn_order: TurnOrder::AfterAnswer {
                    think_ms,
                    answer_ms_per_token,
                },
                ..base
            }]
        }
        Some(think_ms) => vec![
            SynthSpec {
                turn_order: timed(think_ms),
                ..base.clone()
            },
            base,
        ],
    }
}

fn timed(think_ms: Lengths) -> TurnOrder {
    TurnOrder::Timed {
        think_ms,
        answer_ms_per_token: ANSWER_MS_PER_TOKEN,
    }
}

/// When rows would arrive if answers took [`ANSWER_MS_PER_TOKEN`], in picoseconds since the first.
fn nominal_arrivals(trace: &Trace) -> Vec<u64> {
    let start = trace.rows[0].arrival;
    let mut arrivals: Vec<u64> = Vec::with_capacity(trace.rows.len());
    for row in &trace.rows {
        let mut arrival = row.arrival.since(start).0;
        for dependency in trace.dependencies_of(row) {
            // Rows are sorted by a time that is never before that of the rows they wait for.
            let on = dependency.on.0 as usize;
            let released = arrivals.get(on).map_or(0, |&sent| {
                sent + answer_ps(&trace.rows[on]) + dependency.delay.0
            });
            arrival = arrival.max(released);
        }
        arrivals.push(arrival);
    }
    arrivals
}

fn answer_ps(row: &Row) -> u64 {
    (f64::from(row.output_tokens) * ANSWER_MS_PER_TOKEN * 1e9) as u64
}

fn system_prompts(anatomy: &Anatomy) -> Vec<SystemPrompts> {
    let mut prompts = anatomy.system_prompts.clone();
    prompts.sort_by_key(|&(_, sessions)| std::cmp::Reverse(sessions));
    let share = |sessions: u32| f64::from(sessions) / anatomy.session_turns.len() as f64;
    let (single, rest) = prompts.split_at(prompts.len().min(MOST_SYSTEM_PROMPTS));
    let mut groups: Vec<SystemPrompts> = single
        .iter()
        .map(|&(tokens, sessions)| SystemPrompts {
            count: 1,
            zipf_exponent: 0.0,
            share: share(sessions),
            tokens: Lengths::Fixed(tokens),
        })
        .collect();
    if !rest.is_empty() {
        groups.push(SystemPrompts {
            count: rest.len() as u32,
            zipf_exponent: zipf_exponent(rest),
            share: share(rest.iter().map(|&(_, sessions)| sessions).sum()),
            tokens: Lengths::of_sample(rest.iter().map(|&(tokens, _)| tokens)),
        });
    }
    groups
}

/// The exponent of greatest likelihood for the popularity of prompts in falling order, to 0.01.
fn zipf_exponent(prompts: &[(u32, u32)]) -> f64 {
    let log_likelihood = |exponent: f64| {
        let log_rank = |index: usize| ((index + 1) as f64).ln();
        let norm = (0..prompts.len())
            .map(|index| (-exponent * log_rank(index)).exp())
            .sum::<f64>()
            .ln();
        let log_weight = |(index, &(_, sessions)): (usize, &(u32, u32))| {
            f64::from(sessions) * (-exponent * log_rank(index) - norm)
        };
        prompts.iter().enumerate().map(log_weight).sum::<f64>()
    };
    let exponents = (0..=400).map(|hundredths| f64::from(hundredths) / 100.0);
    exponents
        .max_by(|&a, &b| log_likelihood(a).total_cmp(&log_likelihood(b)))
        .expect("the list is not empty")
}

/// Sessions of one turn, and conversations in classes by the length of their first prompt.
fn session_kinds(trace: &Trace, anatomy: &Anatomy) -> Vec<SessionKind> {
    let mut first_rows: Vec<(u32, u32)> = Vec::new();
    for (row, turn) in trace.rows.iter().zip(&anatomy.turns) {
        if turn.follows.is_none() && anatomy.session_turns[turn.session as usize] > 1 {
            first_rows.push((row.input_tokens, turn.session));
        }
    }
    first_rows.sort_unstable();
    let classes = (first_rows.len() / CONVERSATIONS_PER_CLASS).clamp(1, MOST_CLASSES);
    // Class 0 are the sessions of one turn.
    let mut class_of = vec![0; anatomy.session_turns.len()];
    for (rank, &(_, session)) in first_rows.iter().enumerate() {
        class_of[session as usize] = 1 + rank * classes / first_rows.len();
    }
    (0..=classes)
        .filter_map(|class| {
            session_kind(trace, anatomy, |session| {
                class_of[session as usize] == class
            })
        })
        .collect()
}

/// The sessions that `has` picks; none where there are none.
fn session_kind(
    trace: &Trace,
    anatomy: &Anatomy,
    has: impl Fn(u32) -> bool,
) -> Option<SessionKind> {
    let rows = || {
        trace
            .rows
            .iter()
            .zip(&anatomy.turns)
            .filter(|(_, turn)| has(turn.session))
    };
    let first = || rows().filter(|(_, turn)| turn.follows.is_none());
    let sessions = first().count();
    if sessions == 0 {
        return None;
    }
    let follow_ups = follow_ups(trace, rows());
    Some(SessionKind {
        weight: sessions as f64 / anatomy.session_turns.len() as f64,
        first_input_tokens: Lengths::of_sample(
            first().map(|(row, turn)| (row.input_tokens - turn.system_tokens).max(1)),
        ),
        output_tokens: Lengths::of_sample(rows().map(|(row, _)| row.output_tokens)),
        turns: match follow_ups.as_slice() {
            [] => Lengths::Fixed(1),
            _ => Lengths::of_sample(
                first().map(|(_, turn)| anatomy.session_turns[turn.session as usize]),
            ),
        },
        follow_ups,
    })
}

/// The ways in which the rows given follow others.
fn follow_ups<'a>(trace: &Trace, rows: impl Iterator<Item = (&'a Row, &'a Turn)>) -> Vec<FollowUp> {
    let mut appended = Vec::new();
    // By whether less or more than half is kept: who keeps little adds much.
    let mut revised = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    let mut repeats = 0;
    for (row, turn) in rows {
        let Some(before) = turn.follows.map(|before| &trace.rows[before as usize]) else {
            continue;
        };
        let new = i64::from(row.input_tokens)
            - i64::from(before.input_tokens)
            - i64::from(before.output_tokens);
        if turn.is_repeat {
            repeats += 1;
        } else if turn.shared_blocks >= before.input_tokens / trace.block_size
            && new >= -APPEND_SLACK
        {
            appended.push(new.max(1) as u32);
        } else {
            let before_blocks = before.input_tokens.div_ceil(trace.block_size);
            let kept = (f64::from(turn.shared_blocks) / f64::from(before_blocks)).min(1.0);
            let (shares, texts) = &mut revised[usize::from(kept >= 0.5)];
            shares.push(kept);
            texts.push((row.input_tokens - turn.shared_blocks * trace.block_size).max(1));
        }
    }
    let mut ways = Vec::new();
    if !appended.is_empty() {
        let weight = appended.len() as f64;
        ways.push(FollowUp::Append {
            weight,
            user_tokens: Lengths::of_sample(appended),
        });
    }
    for (shares, texts) in revised {
        if !shares.is_empty() {
            ways.push(FollowUp::Revise {
                weight: shares.len() as f64,
                kept_share: Quantiles::of_sample_within(shares, 0.002),
                user_tokens: Lengths::of_sample(texts),
            });
        }
    }
    if repeats > 0 {
        ways.push(FollowUp::Repeat {
            weight: f64::from(repeats),
        });
    }
    ways
}

/// Thinking between turns; none where there are no later turns.
fn think_ms(trace: &Trace, anatomy: &Anatomy, nominal: &[u64]) -> Option<Lengths> {
    let follow_ups = anatomy
        .turns
        .iter()
        .enumerate()
        .filter_map(|(row, turn)| Some((row, turn.follows? as usize)));
    let think = follow_ups.map(|(row, before)| {
        let gap = nominal[row].saturating_sub(nominal[before]);
        let ms = Time(gap.saturating_sub(answer_ps(&trace.rows[before]))).as_ms();
        (ms.round() as u32).max(1)
    });
    let think: Vec<u32> = think.collect();
    (!think.is_empty()).then(|| Lengths::of_sample(think))
}
