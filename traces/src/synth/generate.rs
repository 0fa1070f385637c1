//! From parameters to rows: one pass over the arrivals.
//!
//! Each arrival goes to the open session whose turn it is, or to a new one. A session carries the blocks of its last
//! prompt; the next prompt takes as many of them as it keeps and numbers the rest anew. What the next turn will be is
//! drawn as soon as a turn is placed, so that a conversation that would outgrow the longest prompt ends in time.

use std::ops::Range;

use engine::{Dependency, RequestId, Span, Time, Trigger};

use super::chance::{Chance, Entity, Plan, weighted};
use super::open::Open;
use super::{FollowUp, SynthSpec, TurnOrder};
use crate::error::Problems;
use crate::fault::{Fault, Faults};
use crate::random::{Purpose, stream};
use crate::trace::{NewContent, NewRow, Trace, TraceBuilder};

/// Most blocks of all prompts together: 1 GB.
const MOST_BLOCKS: usize = 1 << 28;

/// The latest earliest arrival: 200 days, as in files.
const LATEST: Time = Time(200 * 86_400 * 1_000_000_000_000);

/// A prompt yet to be placed.
#[derive(Debug, Clone, Copy)]
struct Prompt {
    input_tokens: u32,
    /// How many blocks it takes over from the front of the session's.
    kept_blocks: u32,
}

/// A session and its next turn.
#[derive(Debug)]
struct Session {
    plan: Plan,
    /// Index of the next turn, from 0.
    turn: u32,
    /// Blocks of the system prompt, which every turn keeps.
    system_blocks: u32,
    /// Those of the last prompt, or of the system prompt.
    blocks: Vec<u64>,
    next: Prompt,
    /// Row of the last turn and its arrival.
    last: Option<(u32, Time)>,
    /// Between the last answer and the next turn.
    think: Span,
}

struct SystemPrompt {
    tokens: u32,
    blocks: Range<u64>,
}

struct Generator<'a> {
    spec: &'a SynthSpec,
    chance: Chance<'a>,
    /// Those of all groups, one group after the other.
    system_prompts: Vec<SystemPrompt>,
    next_block: u64,
    open: Open<Session>,
    trace: TraceBuilder,
}

/// The workload of parameters that [`SynthSpec::check`] has seen.
///
/// # Errors
/// More blocks than [`MOST_BLOCKS`].
pub(super) fn generate(spec: &SynthSpec, seed: u64) -> Result<Trace, Problems> {
    generate_within(spec, seed, MOST_BLOCKS)
}

fn generate_within(spec: &SynthSpec, seed: u64, most_blocks: usize) -> Result<Trace, Problems> {
    let mut generator = Generator::new(spec, seed);
    if let Open::Any { unstarted, .. } = &mut generator.open {
        *unstarted = generator.chance.plan_sessions(u64::from(spec.requests));
    }
    let mut blocks = 0;
    for (index, time) in spec.times(seed).into_iter().enumerate() {
        let session = match generator.open.take(seed, index, time) {
            Some(session) => session,
            None => generator.new_session(),
        };
        blocks += session.next.input_tokens.div_ceil(spec.block_size) as usize;
        if blocks > most_blocks {
            return Err(too_many_blocks(most_blocks, index));
        }
        generator.place(session, time);
    }
    Ok(generator.trace.finish())
}

fn too_many_blocks(most_blocks: usize, requests: usize) -> Problems {
    let mut faults = Faults::new("synth");
    let found = format!("more than {most_blocks} blocks after {requests} requests");
    let expected = "prompts of fewer blocks in all: fewer requests or a larger block_size";
    faults.add("requests".into(), Some(Fault { found, expected }));
    faults.problems
}

impl<'a> Generator<'a> {
    fn new(spec: &'a SynthSpec, seed: u64) -> Self {
        let mut generator = Generator {
            spec,
            chance: Chance::new(spec, seed),
            system_prompts: Vec::new(),
            next_block: 0,
            open: Open::new(&spec.turn_order),
            trace: TraceBuilder::new(spec.block_size),
        };
        for group in &spec.system_prompts {
            for _ in 0..group.count {
                let entity = generator.system_prompts.len() as u64;
                let tokens = group
                    .tokens
                    .draw(&mut stream(seed, Purpose::SystemTokens, entity));
                // A block that also holds user text belongs to the session, so only whole blocks are shared.
                let blocks = generator.new_blocks(tokens / spec.block_size);
                generator
                    .system_prompts
                    .push(SystemPrompt { tokens, blocks });
            }
        }
        generator
    }

    fn new_blocks(&mut self, count: u32) -> Range<u64> {
        let first = self.next_block;
        self.next_block += u64::from(count);
        first..self.next_block
    }

    fn new_session(&mut self) -> Session {
        let plan = self.chance.next_session();
        let (system_tokens, blocks) = match self.chance.system_prompt(&plan) {
            Some(prompt) => (
                self.system_prompts[prompt].tokens,
                self.system_prompts[prompt].blocks.clone().collect(),
            ),
            None => (0, Vec::new()),
        };
        let first_text = self.chance.first_input(&plan);
        let input_tokens = system_tokens
            .saturating_add(first_text)
            .min(self.spec.max_input_tokens);
        let system_blocks = system_tokens.min(input_tokens) / self.spec.block_size;
        let next = Prompt {
            input_tokens,
            kept_blocks: system_blocks,
        };
        Session {
            plan,
            turn: 0,
            system_blocks,
            blocks,
            next,
            last: None,
            think: Span::ZERO,
        }
    }

    /// Makes the session's next turn a row and opens the turn after it.
    fn place(&mut self, mut session: Session, time: Time) {
        let row = self.trace.len() as u32;
        let entity = Entity {
            session: session.plan.number,
            turn: session.turn,
            request: row,
        };
        let prompt = session.next;
        let new = prompt.input_tokens.div_ceil(self.spec.block_size) - prompt.kept_blocks;
        session.blocks.truncate(prompt.kept_blocks as usize);
        session.blocks.extend(self.new_blocks(new));
        let lengths = &self.spec.sessions[session.plan.kind].output_tokens;
        let output_tokens = self.chance.length(lengths, Purpose::Output, entity);
        let arrival = self.add_row(&session, time, output_tokens);
        session.turn += 1;
        if session.turn == session.plan.turns {
            return;
        }
        session.last = Some((row, arrival));
        session.next = self.follow_up(&session, prompt.input_tokens, output_tokens, entity);
        if session.next.input_tokens <= self.spec.max_input_tokens {
            let due = self.due(&mut session, time, output_tokens, entity);
            self.open.add(session, due);
        }
    }

    /// Adds the row and returns its arrival.
    fn add_row(&mut self, session: &Session, time: Time, output_tokens: u32) -> Time {
        let waits = matches!(self.spec.turn_order, TurnOrder::AfterAnswer { .. });
        let mut arrival = ticked(time, self.spec.tick_ms);
        let mut dependency = None;
        if let (true, Some((row, before))) = (waits, session.last) {
            arrival = later(before, session.think);
            dependency = Some(Dependency {
                on: RequestId(row),
                trigger: Trigger::Completion,
                delay: session.think,
            });
        }
        let content = NewContent::Blocks(&session.blocks);
        self.trace.push(NewRow {
            session: waits.then_some(session.plan.number),
            dependencies: dependency.as_slice(),
            ..NewRow::alone(arrival, session.next.input_tokens, output_tokens, content)
        });
        arrival
    }

    /// The prompt of a session's next turn, after one with these lengths.
    fn follow_up(&self, session: &Session, input: u32, output: u32, entity: Entity) -> Prompt {
        let ways = &self.spec.sessions[session.plan.kind].follow_ups;
        let block_size = self.spec.block_size;
        let uniform = |purpose| self.chance.uniform(purpose, entity);
        let new_text = |lengths| self.chance.length(lengths, Purpose::UserText, entity);
        let way = weighted(
            ways.iter().map(FollowUp::weight),
            uniform(Purpose::FollowUp),
        );
        match &ways[way] {
            FollowUp::Append { user_tokens, .. } => {
                let input_tokens = input
                    .saturating_add(output)
                    .saturating_add(new_text(user_tokens));
                // The last block of the previous prompt, if partial, now goes on with the answer.
                Prompt {
                    input_tokens,
                    kept_blocks: input / block_size,
                }
            }
            FollowUp::Revise {
                kept_share,
                user_tokens,
                ..
            } => {
                let share = kept_share.at(uniform(Purpose::Kept));
                let kept_blocks = (share * f64::from(input.div_ceil(block_size))).round() as u32;
                let kept_blocks = kept_blocks
                    .max(session.system_blocks)
                    .min(input / block_size);
                let input_tokens = (kept_blocks * block_size).saturating_add(new_text(user_tokens));
                Prompt {
                    input_tokens,
                    kept_blocks,
                }
            }
            FollowUp::Repeat { .. } => Prompt {
                input_tokens: input,
                kept_blocks: input.div_ceil(block_size),
            },
        }
    }

    /// When the next turn of a session is due; sets how long its user thinks.
    fn due(&self, session: &mut Session, time: Time, output_tokens: u32, entity: Entity) -> Time {
        match &self.spec.turn_order {
            TurnOrder::Timed {
                think_ms,
                answer_ms_per_token,
            }
            | TurnOrder::AfterAnswer {
                think_ms,
                answer_ms_per_token,
            } => {
                let ms = self.chance.length(think_ms, Purpose::Think, entity);
                session.think = Span::from_ns(u64::from(ms) * 1_000_000);
                let answer = Span::from_ms(f64::from(output_tokens) * answer_ms_per_token);
                later(later(time, answer), session.think)
            }
            TurnOrder::Shuffled => time,
        }
    }
}

/// So much later, but not after [`LATEST`].
fn later(time: Time, span: Span) -> Time {
    Time(time.0.saturating_add(span.0)).min(LATEST)
}

/// Rounds down to a multiple of `tick_ms`.
fn ticked(time: Time, tick_ms: u32) -> Time {
    match u64::from(tick_ms) * 1_000_000 {
        0 => time,
        tick_ns => Time::from_ns(time.as_ns() / tick_ns * tick_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_that_would_fill_the_memory_is_refused() {
        let spec = SynthSpec {
            requests: 1000,
            ..SynthSpec::quick()
        };
        let blocks =
            |spec: &SynthSpec| generate(spec, 1).expect("a good workload").block_list.len();
        let most = blocks(&spec);
        assert!(generate_within(&spec, 1, most).is_ok());
        let problems = generate_within(&spec, 1, most - 1).expect_err("one block too many");
        assert!(
            problems.to_string().contains("after 999 requests"),
            "{problems}"
        );
    }
}
