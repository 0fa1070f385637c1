//! What a timing model sees of a step, and what it must be able to answer.
//!
//! Steps that hold prefill are priced one by one. Pure decode steps of a fixed batch are priced by [`Piece`]s that are
//! linear in the summed context with integer coefficients, so that the end of k steps is a closed form and a coast
//! gives the same integers as k single steps. Models live in the crate `calibration`.

use crate::time::Span;

/// A piece of prefill inside a step: one sequence's chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Tokens computed in this step, at least 1.
    pub new_tokens: u32,
    /// Tokens already in the KV cache before it (prefix hits and earlier chunks).
    pub cached_tokens: u32,
}

/// The size of one step, all that a timing model needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape<'a> {
    /// Sequences in prefill, in batch order.
    pub prefill: &'a [Chunk],
    /// Number of sequences that decode one token each.
    pub decode_batch: u32,
    /// Sum over those sequences of the context length, the new token included.
    pub decode_context: u64,
}

/// Step time of a fixed decode batch for summed contexts in `[from, until)`:
/// `at + slope_ps * (context - from)`, always positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First summed context it holds for.
    pub from: u64,
    /// First summed context it no longer holds for; `u64::MAX` when it holds for ever.
    pub until: u64,
    /// Step time at `from`.
    pub at: Span,
    /// Picoseconds per further token of summed context.
    pub slope_ps: i64,
}

impl Piece {
    /// The step time at a summed context inside the piece.
    #[must_use]
    pub fn time(&self, context: u64) -> Span {
        debug_assert!(
            self.from <= context && context < self.until,
            "the context lies inside the piece"
        );
        let more = self.slope_ps * (context - self.from) as i64;
        Span((self.at.0 as i64 + more) as u64)
    }
}

/// How long steps take on one worker.
pub trait StepTime: Send + Sync {
    /// The piece that prices a pure decode step of `batch >= 1` sequences with the summed context `context`
    /// (new tokens included).
    fn decode(&self, batch: u32, context: u64) -> Piece;

    /// The time of a step that holds at least one prefill chunk.
    fn mixed(&self, shape: &StepShape<'_>) -> Span;

    /// The time of any step that is not empty.
    fn step(&self, shape: &StepShape<'_>) -> Span {
        if shape.prefill.is_empty() {
            self.decode(shape.decode_batch, shape.decode_context)
                .time(shape.decode_context)
        } else {
            self.mixed(shape)
        }
    }

    /// What the hidden states of so many tokens take from one stage of a pipeline to the next; there, steps are priced
    /// per stage.
    fn hop(&self, _tokens: u64) -> Span {
        Span::ZERO
    }

    /// What ranks that step together compute in one step over the tokens of all of them, beyond what each takes for its own:
    /// experts, and the way there and back. Nothing where the times given are those of whole steps.
    fn together(&self, _tokens: u64) -> Span {
        Span::ZERO
    }

    /// Whether the time of this step lies beyond what was measured. The same for all contexts of a [`Piece`].
    fn is_extrapolated(&self, _shape: &StepShape<'_>) -> bool {
        false
    }

    /// Where the numbers come from; printed with every result.
    fn source(&self) -> TimingSource;
}

/// Where step times come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimingSource {
    /// Short stable name: `linear`, `polynomial`, `roofline`, ...
    pub name: String,
    /// What stands behind the numbers.
    pub basis: Basis,
    /// One line with the parameters.
    pub detail: String,
    /// What was assumed because nothing better was known, one sentence each.
    pub guesses: Vec<String>,
}

/// How far a number can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Given by the user as a formula.
    Given,
    /// Measured on the hardware named.
    Measured,
    /// Fitted to measurements.
    Fitted,
    /// Computed from a specification; no measurement behind it.
    Estimated,
}

impl Basis {
    /// The word printed in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Basis::Given => "given",
            Basis::Measured => "measured",
            Basis::Fitted => "fitted",
            Basis::Estimated => "estimated",
        }
    }
}
