//! Workloads in the manner of the Mooncake traces, made up from a few numbers.
//!
//! Sessions are of one or more *kinds*. A session begins with a system prompt that it shares with others (popularity
//! by Zipf's law) and a first user text, and has a number of turns. Each later turn *appends* (previous prompt, its
//! answer, new text), *revises* (keeps the head of the previous prompt and replaces the rest) or *repeats* (the same
//! prompt again). A turn is due when the answer before it is complete and the user has thought.
//!
//! All requests together arrive as [`Arrivals`] says: at each arrival the session whose turn is due longest gets it,
//! and where no turn is due a new session begins. So the arrival process is exactly the one asked for, and the share of
//! new sessions settles at one over the mean number of turns. A session ends before a turn that would exceed the longest
//! prompt.
//!
//! [`SynthSpec::generate`] makes the trace, [`crate::like`] finds the parameters that resemble a given one.

mod chance;
mod check;
mod generate;
mod open;
mod presets;
mod reuse_target;

use engine::Time;
use serde::{Deserialize, Serialize};

use crate::arrivals::Arrivals;
use crate::error::Problems;
use crate::lengths::Lengths;
use crate::quantiles::Quantiles;
use crate::trace::Trace;

/// A made-up workload. The default is [`SynthSpec::conversation`]; a file needs to name only what differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynthSpec {
    /// Number of requests.
    pub requests: u32,
    /// Time of the last request. With it the level of `arrivals.rate` follows from `requests`; without, the time
    /// follows from the rate.
    pub duration_s: Option<f64>,
    /// When requests arrive.
    pub arrivals: Arrivals,
    /// Times are rounded down to multiples of this, so that requests come in bursts; 0 leaves them alone.
    pub tick_ms: u32,
    /// Tokens per content block.
    pub block_size: u32,
    /// What sessions begin with: groups of prompts. Sessions that fall to no group have no system prompt.
    pub system_prompts: Vec<SystemPrompts>,
    /// Kinds of sessions.
    pub sessions: Vec<SessionKind>,
    /// When the next turn of a session comes.
    pub turn_order: TurnOrder,
    /// How sessions differ from one seed to the next.
    pub draws: Draws,
    /// Longest prompt; a session ends before the turn that would exceed it.
    pub max_input_tokens: u32,
}

/// A group of prompts that many sessions begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemPrompts {
    /// How many different ones there are.
    pub count: u32,
    /// The k-th most popular is chosen with a weight of k to the power of minus this.
    #[serde(default)]
    pub zipf_exponent: f64,
    /// Share of all sessions that begin with one of this group.
    pub share: f64,
    /// How long each is.
    pub tokens: Lengths,
}

/// Sessions of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionKind {
    /// New sessions are of this kind in proportion to this.
    pub weight: f64,
    /// First user text, behind the system prompt.
    pub first_input_tokens: Lengths,
    /// Every answer.
    pub output_tokens: Lengths,
    /// Number of turns; fractions are rounded at random.
    pub turns: Lengths,
    /// What later turns look like; needed where there are any.
    #[serde(default)]
    pub follow_ups: Vec<FollowUp>,
}

/// One way in which a turn follows another, chosen in proportion to its weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FollowUp {
    /// Previous prompt, its answer, new text.
    Append {
        /// See [`FollowUp`].
        weight: f64,
        /// New text.
        user_tokens: Lengths,
    },
    /// The head of the previous prompt, new text.
    Revise {
        /// See [`FollowUp`].
        weight: f64,
        /// Share of the previous prompt's blocks that is kept, from 0 to 1.
        kept_share: Quantiles,
        /// New text.
        user_tokens: Lengths,
    },
    /// The previous prompt again.
    Repeat {
        /// See [`FollowUp`].
        weight: f64,
    },
}

/// How sessions differ from one seed to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draws {
    /// By chance: a heavy tail of lengths makes one seed's workload noticeably larger than another's, as one hour of
    /// real traffic is larger than the next.
    #[default]
    Independent,
    /// Kinds, turns and those lengths that are given by quantiles are spread evenly over their distributions, so that
    /// every seed gives nearly the same mix in another order.
    Even,
}

/// When the next turn of a session comes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TurnOrder {
    /// At a time fixed beforehand, as in the public Mooncake traces: the answer is taken to last `answer_ms_per_token`
    /// for each of its tokens, then the user thinks for `think_ms`.
    // Model: the next turn does not wait for the answer. A system that is much slower than `answer_ms_per_token` sees
    // turns overlap, which real users would not do; `AfterAnswer` is exact there.
    Timed {
        /// Thinking, in milliseconds.
        think_ms: Lengths,
        /// Duration of an answer, per token.
        answer_ms_per_token: f64,
    },
    /// `think_ms` after the answer is complete, whenever that is. `answer_ms_per_token` only serves to place the first
    /// turns such that all requests together come at about the rate asked for.
    AfterAnswer {
        /// Thinking, in milliseconds.
        think_ms: Lengths,
        /// Expected duration of an answer, per token.
        answer_ms_per_token: f64,
    },
    /// In any order: all sessions are there from the start, and each arrival goes to one that has turns left, all
    /// alike. New sessions become rare towards the end. Benchmarks are put together so, the synthetic Mooncake trace
    /// among them.
    Shuffled,
}

impl FollowUp {
    /// See [`FollowUp`].
    #[must_use]
    pub fn weight(&self) -> f64 {
        match *self {
            FollowUp::Append { weight, .. }
            | FollowUp::Revise { weight, .. }
            | FollowUp::Repeat { weight } => weight,
        }
    }
}

impl SynthSpec {
    /// The workload. The same parameters and seed give the same trace.
    ///
    /// # Errors
    /// All parameters that cannot be used, under the name `synth`; more than 2^28 blocks in all prompts.
    pub fn generate(&self, seed: u64) -> Result<Trace, Problems> {
        self.check("synth")?;
        generate::generate(self, seed)
    }

    /// Times of all requests, before rounding to ticks.
    fn times(&self, seed: u64) -> Vec<Time> {
        let count = self.requests as usize;
        match self.duration_s {
            Some(duration_s) => self.arrivals.times_within(seed, count, duration_s),
            None => self.arrivals.times(seed, count),
        }
    }
}
