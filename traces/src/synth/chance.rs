//! Everything random about sessions: who they are and what their turns are like.
//!
//! Drawn independently, each number comes from the stream of its session and turn. Drawn evenly, it is the next one of a
//! sequence: sessions of a kind fill the square of (turns, first text), requests the cube of their other properties.

use std::collections::VecDeque;

use rand::RngExt;
use rand_distr::{Distribution, Zipf};
use rand_pcg::Pcg64Mcg;

use super::{Draws, SynthSpec};
use crate::lengths::Lengths;
use crate::random::{Purpose, evenly, stream};

/// Turns of one session are told apart by the lowest bits of an entity.
const TURN_BITS: u32 = 24;

/// A session before its first turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// From 0, in the order in which sessions begin.
    pub(super) number: u64,
    pub(super) kind: usize,
    /// From 0 among the sessions of its kind.
    index_in_kind: u64,
    /// At least 1.
    pub(super) turns: u32,
}

/// One turn of one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entity {
    pub(super) session: u64,
    pub(super) turn: u32,
    /// Its place among all requests.
    pub(super) request: u32,
}

/// The source of all that is drawn for sessions.
#[derive(Debug)]
pub(super) struct Chance<'a> {
    spec: &'a SynthSpec,
    seed: u64,
    /// Sessions planned so far, and how many of each kind.
    sessions: u64,
    of_kind: Vec<u64>,
    /// Those that have not begun.
    planned: VecDeque<Plan>,
}

impl<'a> Chance<'a> {
    pub(super) fn new(spec: &'a SynthSpec, seed: u64) -> Self {
        Chance {
            spec,
            seed,
            sessions: 0,
            of_kind: vec![0; spec.sessions.len()],
            planned: VecDeque::new(),
        }
    }

    /// Plans as many sessions as have `turns` turns, and says how many those are.
    pub(super) fn plan_sessions(&mut self, turns: u64) -> u64 {
        let mut planned = 0;
        while planned < turns {
            let plan = self.plan();
            planned += u64::from(plan.turns);
            self.planned.push_back(plan);
        }
        self.planned.len() as u64
    }

    /// The next session to begin.
    pub(super) fn next_session(&mut self) -> Plan {
        self.planned.pop_front().unwrap_or_else(|| self.plan())
    }

    fn plan(&mut self) -> Plan {
        let number = self.sessions;
        self.sessions += 1;
        let kinds = &self.spec.sessions;
        let kind = weighted(
            kinds.iter().map(|kind| kind.weight),
            self.of_session(Purpose::Kind, number, (0, number)),
        );
        let index_in_kind = self.of_kind[kind];
        self.of_kind[kind] += 1;
        let uniform = self.of_session(Purpose::Turns, number, (kind as u64, index_in_kind));
        let mut rng = self.stream(Purpose::Turns, number, 0);
        let turns = match &kinds[kind].turns {
            Lengths::Empirical(quantiles) => {
                let round = self.stream(Purpose::Round, number, 0).random::<f64>();
                (quantiles.at(uniform) + round).floor().max(1.0) as u32
            }
            turns => turns.draw_unbiased(&mut rng),
        };
        Plan {
            number,
            kind,
            index_in_kind,
            turns: turns.min((1 << TURN_BITS) - 1),
        }
    }

    /// Length of the first user text of a session.
    pub(super) fn first_input(&self, plan: &Plan) -> u32 {
        let lengths = &self.spec.sessions[plan.kind].first_input_tokens;
        let uniform = self.of_session(
            Purpose::FirstInput,
            plan.number,
            (plan.kind as u64, plan.index_in_kind),
        );
        lengths.draw_at(
            uniform,
            &mut self.stream(Purpose::FirstInput, plan.number, 0),
        )
    }

    /// Index of a session's system prompt among those of all groups; none if it has none.
    pub(super) fn system_prompt(&self, plan: &Plan) -> Option<usize> {
        let mut left = self.of_session(Purpose::SystemPrompt, plan.number, (0, plan.number));
        let mut first = 0;
        for group in &self.spec.system_prompts {
            if left < group.share {
                let zipf = Zipf::new(f64::from(group.count), group.zipf_exponent)
                    .expect("check() has seen both");
                let rank =
                    zipf.sample(&mut self.stream(Purpose::SystemRank, plan.number, 0)) as usize;
                return Some(first + rank - 1);
            }
            left -= group.share;
            first += group.count as usize;
        }
        None
    }

    /// A length of one turn of a session.
    pub(super) fn length(&self, lengths: &Lengths, purpose: Purpose, entity: Entity) -> u32 {
        let uniform = self.uniform(purpose, entity);
        lengths.draw_at(
            uniform,
            &mut self.stream(purpose, entity.session, entity.turn),
        )
    }

    /// A number from 0 to 1 for one turn of a session.
    pub(super) fn uniform(&self, purpose: Purpose, entity: Entity) -> f64 {
        match self.spec.draws {
            Draws::Independent => self.stream(purpose, entity.session, entity.turn).random(),
            Draws::Even => evenly(self.seed, purpose, 0, u64::from(entity.request)),
        }
    }

    /// A number from 0 to 1 for a session, which is the `even.1`-th of the group `even.0`.
    fn of_session(&self, purpose: Purpose, session: u64, even: (u64, u64)) -> f64 {
        match self.spec.draws {
            Draws::Independent => self.stream(purpose, session, 0).random(),
            Draws::Even => evenly(self.seed, purpose, even.0, even.1),
        }
    }

    fn stream(&self, purpose: Purpose, session: u64, turn: u32) -> Pcg64Mcg {
        stream(self.seed, purpose, (session << TURN_BITS) | u64::from(turn))
    }
}

/// The index that `uniform`, from 0 to 1, hits when the unit interval is divided in proportion to the weights.
pub(super) fn weighted(weights: impl Iterator<Item = f64> + Clone, uniform: f64) -> usize {
    let mut left = uniform * weights.clone().sum::<f64>();
    let mut last = 0;
    for (index, weight) in weights.enumerate() {
        if weight > 0.0 {
            last = index;
            if left < weight {
                break;
            }
        }
        left -= weight;
    }
    last
}
