//! A step that costs a constant, so much per token computed, and so much per token attended to.
//!
//! ```text
//! step = base + per_new_token · Σ new + per_context_token · Σ (cached + new)
//! ```
//!
//! over all sequences of the step; a decode counts one new token, and its context includes it. This is the formula of
//! the recorded vLLM schedules, whose coefficients are whole nanoseconds; here they are whole picoseconds, so every
//! result is an exact integer.

use crate::error::{CalibrationError, Problem, check};
use engine::{Basis, Piece, Span, StepShape, StepTime, TimingSource};
use serde::Serialize;

/// Greatest `base_ps`: 1,000 s.
const MAX_BASE_PS: u64 = 1_000_000_000_000_000;
/// Greatest price of a token: 10 ms per new token, 1 ms per token of context. With them a step of 2^27 new tokens and
/// 2^30 tokens of context stays below 2^63 ps.
const MAX_NEW_TOKEN_PS: u64 = 10_000_000_000;
const MAX_CONTEXT_TOKEN_PS: u64 = 1_000_000_000;

/// The coefficients, in picoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Linear {
    /// Cost of any step.
    pub base_ps: u64,
    /// Cost per token computed.
    pub per_new_token_ps: u64,
    /// Cost per token of context, cached and new.
    pub per_context_token_ps: u64,
}

impl Linear {
    /// From whole nanoseconds: `a + b·Σnew + c·Σ(cached + new)`.
    #[must_use]
    pub const fn from_ns(a: u64, b: u64, c: u64) -> Linear {
        Linear {
            base_ps: a.saturating_mul(1_000),
            per_new_token_ps: b.saturating_mul(1_000),
            per_context_token_ps: c.saturating_mul(1_000),
        }
    }

    /// The same coefficients, checked.
    ///
    /// # Errors
    /// A coefficient beyond its bound, or all of them zero (a step must take time).
    pub fn checked(self) -> Result<Linear, CalibrationError> {
        let mut problems = Vec::new();
        let bounds = [
            ("base_ns", self.base_ps, MAX_BASE_PS),
            ("per_new_token_ns", self.per_new_token_ps, MAX_NEW_TOKEN_PS),
            (
                "per_context_token_ns",
                self.per_context_token_ps,
                MAX_CONTEXT_TOKEN_PS,
            ),
        ];
        for (field, found, most) in bounds {
            if found > most {
                problems.push(Problem::new(
                    field,
                    format!("{} ns", found / 1_000),
                    format!("at most {} ns", most / 1_000),
                ));
            }
        }
        if bounds.iter().all(|&(_, found, _)| found == 0) {
            problems.push(Problem::new(
                "base_ns",
                "0, like the other coefficients",
                "a step that takes time",
            ));
        }
        check(problems)?;
        Ok(self)
    }
}

impl StepTime for Linear {
    #[inline]
    fn decode(&self, batch: u32, _context: u64) -> Piece {
        Piece {
            from: 0,
            until: u64::MAX,
            at: Span(self.base_ps + self.per_new_token_ps * u64::from(batch)),
            slope_ps: self.per_context_token_ps as i64,
        }
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        let mut new_tokens = u64::from(shape.decode_batch);
        let mut context = shape.decode_context;
        for chunk in shape.prefill {
            new_tokens += u64::from(chunk.new_tokens);
            context += u64::from(chunk.cached_tokens) + u64::from(chunk.new_tokens);
        }
        Span(
            self.base_ps + self.per_new_token_ps * new_tokens + self.per_context_token_ps * context,
        )
    }

    fn source(&self) -> TimingSource {
        TimingSource {
            name: "linear".to_owned(),
            basis: Basis::Given,
            detail: format!(
                "{} + {} per new token + {} per context token",
                Span(self.base_ps),
                Span(self.per_new_token_ps),
                Span(self.per_context_token_ps)
            ),
            guesses: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Chunk;
    use proptest::prelude::*;

    #[test]
    fn a_step_by_hand() {
        let model = Linear::from_ns(1_000, 10, 3);
        // Two chunks (5 new after 16 cached, 7 new after none) and 2 decodes with contexts 20 and 30:
        // new = 5 + 7 + 2 = 14; context = 21 + 7 + 50 = 78; 1000 + 10·14 + 3·78 = 1374 ns.
        let shape = StepShape {
            prefill: &[
                Chunk {
                    new_tokens: 5,
                    cached_tokens: 16,
                },
                Chunk {
                    new_tokens: 7,
                    cached_tokens: 0,
                },
            ],
            decode_batch: 2,
            decode_context: 50,
        };
        assert_eq!(model.step(&shape), Span::from_ns(1_374));
        // Decode alone: 1000 + 10·2 + 3·50 = 1170 ns.
        assert_eq!(
            model.step(&StepShape {
                prefill: &[],
                ..shape
            }),
            Span::from_ns(1_170)
        );
    }

    #[test]
    fn bad_coefficients_are_all_reported() {
        let error = Linear {
            base_ps: u64::MAX,
            per_new_token_ps: u64::MAX,
            per_context_token_ps: u64::MAX,
        };
        assert_eq!(
            error.checked().expect_err("out of bounds").problems().len(),
            3
        );
        assert!(Linear::from_ns(0, 0, 0).checked().is_err());
        assert!(Linear::from_ns(0, 0, 1).checked().is_ok());
        assert!(Linear::from_ns(6_000_000, 40_000, 15).checked().is_ok());
    }

    proptest! {
        #[test]
        fn k_steps_by_the_piece_equal_k_steps_one_by_one(
            (a, b, c) in (0u64..10_000_000, 0u64..50_000, 0u64..20), batch in 1u32..512, per in 1u64..5_000, k in 1u64..300,
        ) {
            let model = Linear::from_ns(a, b, c);
            let context = per * u64::from(batch);
            let piece = model.decode(batch, context);
            // Contexts grow by `batch` a step: k·t(context) + slope·batch·k(k-1)/2.
            let closed = piece.time(context).0 as i64 * k as i64
                + piece.slope_ps * i64::from(batch) * (k * (k - 1) / 2) as i64;
            let stepped: Span = (0..k)
                .map(|i| context + i * u64::from(batch))
                .map(|context| model.step(&StepShape { prefill: &[], decode_batch: batch, decode_context: context }))
                .sum();
            prop_assert_eq!(stepped, Span(closed as u64));
        }
    }
}
