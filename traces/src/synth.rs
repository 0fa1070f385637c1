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
mod generate;
mod presets;
mod reuse_target;

use engine::Time;
use serde::{Deserialize, Serialize};

use crate::arrivals::Arrivals;
use crate::error::Problems;
use crate::fault::{Fault, Faults};
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
    /// All parameters that cannot be used, under the name `synth`.
    pub fn generate(&self, seed: u64) -> Result<Trace, Problems> {
        self.check("synth")?;
        Ok(generate::generate(self, seed))
    }

    /// Times of all requests, before rounding to ticks.
    fn times(&self, seed: u64) -> Vec<Time> {
        let count = self.requests as usize;
        match self.duration_s {
            Some(duration_s) => self.arrivals.times_within(seed, count, duration_s),
            None => self.arrivals.times(seed, count),
        }
    }

    /// Judges all parameters; `name` says where they come from.
    ///
    /// # Errors
    /// All that cannot be used, each with its field.
    pub fn check(&self, name: &str) -> Result<(), Problems> {
        let mut faults = Faults::new(name);
        let count = || self.requests.to_string();
        faults.add(
            "requests".into(),
            Fault::unless(
                (1..=MOST_REQUESTS).contains(&self.requests),
                count,
                "1 to 2^28",
            ),
        );
        if let Some(duration_s) = self.duration_s {
            let is_fine = (0.0..=LONGEST_S).contains(&duration_s);
            faults.add(
                "duration_s".into(),
                Fault::unless(is_fine, || duration_s.to_string(), "0 s to 200 days"),
            );
        }
        self.arrivals.check("arrivals", &mut faults);
        let is_fine = (1..=1 << 20).contains(&self.block_size);
        faults.add(
            "block_size".into(),
            Fault::unless(is_fine, || self.block_size.to_string(), "1 to 2^20 tokens"),
        );
        let is_fine = (1..=1 << 24).contains(&self.max_input_tokens);
        let found = || self.max_input_tokens.to_string();
        faults.add(
            "max_input_tokens".into(),
            Fault::unless(is_fine, found, "1 to 2^24 tokens"),
        );
        for (index, group) in self.system_prompts.iter().enumerate() {
            group.check(&format!("system_prompts[{index}]"), &mut faults);
        }
        let share = self
            .system_prompts
            .iter()
            .map(|group| group.share)
            .sum::<f64>();
        let found = || format!("shares that add up to {share}");
        faults.add(
            "system_prompts".into(),
            Fault::unless(
                share <= 1.0 + 1e-6,
                found,
                "shares that add up to at most 1",
            ),
        );
        let weight = self.sessions.iter().map(|kind| kind.weight).sum::<f64>();
        let found = || format!("{} kinds, sum of weights {weight}", self.sessions.len());
        faults.add(
            "sessions".into(),
            Fault::unless(
                weight > 0.0,
                found,
                "at least one kind with a weight above 0",
            ),
        );
        for (index, kind) in self.sessions.iter().enumerate() {
            kind.check(&format!("sessions[{index}]"), &mut faults);
        }
        self.turn_order.check(&mut faults);
        faults.finish()
    }
}

/// Most requests of one workload.
const MOST_REQUESTS: u32 = 1 << 28;
/// Longest workload: 200 days.
const LONGEST_S: f64 = 200.0 * 86_400.0;

fn share_fault(share: f64) -> Option<Fault> {
    Fault::unless(
        (0.0..=1.0).contains(&share),
        || share.to_string(),
        "a share from 0 to 1",
    )
}

fn weight_fault(weight: f64) -> Option<Fault> {
    Fault::unless(
        weight >= 0.0 && weight.is_finite(),
        || weight.to_string(),
        "a weight of at least 0",
    )
}

impl SystemPrompts {
    fn check(&self, field: &str, faults: &mut Faults<'_>) {
        let field = |name: &str| format!("{field}.{name}");
        let is_fine = (1..=1 << 20).contains(&self.count);
        faults.add(
            field("count"),
            Fault::unless(is_fine, || self.count.to_string(), "1 to 2^20"),
        );
        let is_fine = (0.0..=10.0).contains(&self.zipf_exponent);
        let found = || self.zipf_exponent.to_string();
        faults.add(
            field("zipf_exponent"),
            Fault::unless(is_fine, found, "an exponent from 0 to 10"),
        );
        faults.add(field("share"), share_fault(self.share));
        faults.add(field("tokens"), self.tokens.fault());
    }
}

impl SessionKind {
    fn check(&self, field: &str, faults: &mut Faults<'_>) {
        faults.add(format!("{field}.weight"), weight_fault(self.weight));
        faults.add(
            format!("{field}.first_input_tokens"),
            self.first_input_tokens.fault(),
        );
        faults.add(format!("{field}.output_tokens"), self.output_tokens.fault());
        faults.add(format!("{field}.turns"), self.turns.fault());
        let weight = self.follow_ups.iter().map(FollowUp::weight).sum::<f64>();
        let is_fine = weight > 0.0 || self.turns == Lengths::Fixed(1);
        let found = || format!("{} ways, sum of weights {weight}", self.follow_ups.len());
        let expected = "a way with a weight above 0, as sessions of this kind have several turns";
        faults.add(
            format!("{field}.follow_ups"),
            Fault::unless(is_fine, found, expected),
        );
        for (index, follow_up) in self.follow_ups.iter().enumerate() {
            let field = format!("{field}.follow_ups[{index}]");
            faults.add(format!("{field}.weight"), weight_fault(follow_up.weight()));
            match follow_up {
                FollowUp::Append { user_tokens, .. } => {
                    faults.add(format!("{field}.user_tokens"), user_tokens.fault());
                }
                FollowUp::Revise {
                    kept_share,
                    user_tokens,
                    ..
                } => {
                    faults.add(format!("{field}.user_tokens"), user_tokens.fault());
                    let fault = kept_share
                        .fault()
                        .or_else(|| share_fault(kept_share.at(1.0)));
                    faults.add(format!("{field}.kept_share"), fault);
                }
                FollowUp::Repeat { .. } => {}
            }
        }
    }
}

impl TurnOrder {
    fn check(&self, faults: &mut Faults<'_>) {
        match self {
            TurnOrder::Timed {
                think_ms,
                answer_ms_per_token,
            }
            | TurnOrder::AfterAnswer {
                think_ms,
                answer_ms_per_token,
            } => {
                faults.add("turn_order.think_ms".into(), think_ms.fault());
                let is_fine = (0.0..=1e6).contains(answer_ms_per_token);
                let found = || answer_ms_per_token.to_string();
                let field = "turn_order.answer_ms_per_token".into();
                faults.add(field, Fault::unless(is_fine, found, "0 to 1,000,000 ms"));
            }
            TurnOrder::Shuffled => {}
        }
    }
}
