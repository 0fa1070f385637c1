//! From parameters to rows: one pass over the arrivals.
//!
//! Each arrival goes to the open session whose turn it is, or to a new one. A session carries the blocks of its last
//! prompt; the next prompt takes as many of them as it keeps and numbers the rest anew. What the next turn will be is
//! drawn as soon as a turn is placed, so that a conversation that would outgrow the longest prompt ends in time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use engine::{Dependency, RequestId, Span, Time, Trigger};
use rand::RngExt;

use super::chance::{Chance, Entity, Plan, weighted};
use super::{FollowUp, SynthSpec, TurnOrder};
use crate::random::{Purpose, stream};
use crate::trace::{NewContent, NewRow, Trace, TraceBuilder};

/// A prompt yet to be placed.
#[derive(Debug, Clone, Copy)]
struct Prompt {
    input_tokens: u32,
    /// How many blocks it takes over from the front of `shared`.
    kept_blocks: u32,
    /// First of these in the list of blocks.
    shared: usize,
}

/// A session and its next turn.
#[derive(Debug, Clone, Copy)]
struct Session {
    plan: Plan,
    /// Index of the next turn, from 0.
    turn: u32,
    /// Blocks of the system prompt, which every turn keeps.
    system_blocks: u32,
    next: Prompt,
    /// Row of the last turn and its arrival.
    last: Option<(u32, Time)>,
    /// Between the last answer and the next turn.
    think: Span,
}

struct SystemPrompt {
    tokens: u32,
    first_block: usize,
}

struct Generator<'a> {
    spec: &'a SynthSpec,
    chance: Chance<'a>,
    /// Those of all groups, one group after the other.
    system_prompts: Vec<SystemPrompt>,
    /// Blocks of all prompts placed so far, and of the system prompts in front.
    blocks: Vec<u64>,
    next_block: u64,
    open: Open,
    trace: TraceBuilder,
}

pub(super) fn generate(spec: &SynthSpec, seed: u64) -> Trace {
    let mut generator = Generator::new(spec, seed);
    if let Open::Any { unstarted, .. } = &mut generator.open {
        *unstarted = generator.chance.plan_sessions(u64::from(spec.requests));
    }
    for (index, time) in spec.times(seed).into_iter().enumerate() {
        let session = match generator.open.take(seed, index, time) {
            Some(session) => session,
            None => generator.new_session(),
        };
        generator.place(session, time);
    }
    generator.trace.finish()
}

impl<'a> Generator<'a> {
    fn new(spec: &'a SynthSpec, seed: u64) -> Self {
        let open = match spec.turn_order {
            TurnOrder::Shuffled => Open::Any {
                started: Vec::new(),
                unstarted: 0,
            },
            TurnOrder::Timed { .. } | TurnOrder::AfterAnswer { .. } => {
                Open::ByTime(BinaryHeap::new(), Vec::new())
            }
        };
        let mut generator = Generator {
            spec,
            chance: Chance::new(spec, seed),
            system_prompts: Vec::new(),
            blocks: Vec::new(),
            next_block: 0,
            open,
            trace: TraceBuilder::new(spec.block_size),
        };
        for group in &spec.system_prompts {
            for _ in 0..group.count {
                let entity = generator.system_prompts.len() as u64;
                let tokens = group
                    .tokens
                    .draw(&mut stream(seed, Purpose::SystemTokens, entity));
                let first_block = generator.blocks.len();
                // A block that also holds user text belongs to the session, so only whole blocks are shared.
                generator.add_new_blocks(tokens / spec.block_size);
                generator.system_prompts.push(SystemPrompt {
                    tokens,
                    first_block,
                });
            }
        }
        generator
    }

    fn add_new_blocks(&mut self, count: u32) {
        self.blocks
            .extend(self.next_block..self.next_block + u64::from(count));
        self.next_block += u64::from(count);
    }

    fn new_session(&mut self) -> Session {
        let plan = self.chance.next_session();
        let block_size = self.spec.block_size;
        let (system_tokens, shared) = match self.chance.system_prompt(&plan) {
            Some(prompt) => (
                self.system_prompts[prompt].tokens,
                self.system_prompts[prompt].first_block,
            ),
            None => (0, 0),
        };
        let first_text = self.chance.first_input(&plan);
        let input_tokens = (system_tokens + first_text).min(self.spec.max_input_tokens);
        let system_blocks = system_tokens.min(input_tokens) / block_size;
        let next = Prompt {
            input_tokens,
            kept_blocks: system_blocks,
            shared,
        };
        Session {
            plan,
            turn: 0,
            system_blocks,
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
        let kind = &self.spec.sessions[session.plan.kind];
        let prompt = session.next;
        let first_block = self.add_prompt(prompt);
        let output_tokens = self
            .chance
            .length(&kind.output_tokens, Purpose::Output, entity);
        let arrival = self.add_row(&session, time, first_block, output_tokens);
        session.turn += 1;
        if session.turn == session.plan.turns {
            return;
        }
        session.last = Some((row, arrival));
        session.next = self.follow_up(
            &session,
            prompt.input_tokens,
            output_tokens,
            first_block,
            entity,
        );
        if session.next.input_tokens <= self.spec.max_input_tokens {
            let due = self.due(&mut session, time, output_tokens, entity);
            self.open.add(session, due);
        }
    }

    /// The blocks of a prompt, at the end of the list.
    fn add_prompt(&mut self, prompt: Prompt) -> usize {
        let first = self.blocks.len();
        let kept = prompt.shared..prompt.shared + prompt.kept_blocks as usize;
        self.blocks.extend_from_within(kept);
        self.add_new_blocks(
            prompt.input_tokens.div_ceil(self.spec.block_size) - prompt.kept_blocks,
        );
        first
    }

    /// Adds the row and returns its arrival.
    fn add_row(
        &mut self,
        session: &Session,
        time: Time,
        first_block: usize,
        output_tokens: u32,
    ) -> Time {
        let waits = matches!(self.spec.turn_order, TurnOrder::AfterAnswer { .. });
        let mut arrival = ticked(time, self.spec.tick_ms);
        let mut dependency = None;
        if let (true, Some((row, before))) = (waits, session.last) {
            arrival = before + session.think;
            dependency = Some(Dependency {
                on: RequestId(row),
                trigger: Trigger::Completion,
                delay: session.think,
            });
        }
        let content = NewContent::Blocks(&self.blocks[first_block..]);
        self.trace.push(NewRow {
            session: waits.then_some(session.plan.number),
            dependencies: dependency.as_slice(),
            ..NewRow::alone(arrival, session.next.input_tokens, output_tokens, content)
        });
        arrival
    }

    /// The prompt of a session's next turn, after one with these lengths whose blocks begin at `shared`.
    fn follow_up(
        &self,
        session: &Session,
        input: u32,
        output: u32,
        shared: usize,
        entity: Entity,
    ) -> Prompt {
        let ways = &self.spec.sessions[session.plan.kind].follow_ups;
        let block_size = self.spec.block_size;
        let uniform = |purpose| self.chance.uniform(purpose, entity);
        let new_text = |lengths| self.chance.length(lengths, Purpose::UserText, entity);
        match &ways[weighted(
            ways.iter().map(FollowUp::weight),
            uniform(Purpose::FollowUp),
        )] {
            FollowUp::Append { user_tokens, .. } => {
                let input_tokens = input
                    .saturating_add(output)
                    .saturating_add(new_text(user_tokens));
                // The last block of the previous prompt, if partial, now goes on with the answer.
                Prompt {
                    input_tokens,
                    kept_blocks: input / block_size,
                    shared,
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
                    shared,
                }
            }
            FollowUp::Repeat { .. } => Prompt {
                input_tokens: input,
                kept_blocks: input.div_ceil(block_size),
                shared,
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
                time + Span::from_ms(f64::from(output_tokens) * answer_ms_per_token) + session.think
            }
            TurnOrder::Shuffled => time,
        }
    }
}

/// Sessions that have turns left.
enum Open {
    /// Earliest turn first: (when it is due, index), and the sessions by index.
    ByTime(BinaryHeap<Reverse<(Time, u32)>>, Vec<Session>),
    /// In no order that matters, and how many sessions have not begun yet.
    Any {
        started: Vec<Session>,
        unstarted: u64,
    },
}

impl Open {
    fn add(&mut self, session: Session, due: Time) {
        match self {
            Open::ByTime(heap, sessions) => {
                heap.push(Reverse((due, sessions.len() as u32)));
                sessions.push(session);
            }
            Open::Any { started, .. } => started.push(session),
        }
    }

    /// The session to which arrival `index` at `time` goes; `None` for a new one.
    fn take(&mut self, seed: u64, index: usize, time: Time) -> Option<Session> {
        match self {
            Open::ByTime(heap, sessions) => {
                heap.peek().filter(|next| next.0.0 <= time)?;
                heap.pop()
                    .map(|Reverse((_, index))| sessions[index as usize])
            }
            Open::Any { started, unstarted } => {
                // Sessions that ended before their time may leave nobody; then a new one begins.
                let all = (started.len() as u64 + *unstarted).max(1);
                let pick =
                    stream(seed, Purpose::Shuffle, index as u64).random_range(0..all) as usize;
                if pick < started.len() {
                    return Some(started.swap_remove(pick));
                }
                *unstarted = unstarted.saturating_sub(1);
                None
            }
        }
    }
}

/// Rounds down to a multiple of `tick_ms`.
fn ticked(time: Time, tick_ms: u32) -> Time {
    match u64::from(tick_ms) * 1_000_000 {
        0 => time,
        tick_ns => Time::from_ns(time.as_ns() / tick_ns * tick_ns),
    }
}
