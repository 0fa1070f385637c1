//! The default timing of the reference simulator (dynamo-mocker 1.6.1): one curve for all models and GPUs.
//!
//! ```text
//! prefill ms = 4.209989e-7 N² + 1.518344e-2 N + 16.50142        N = new prefill tokens of the step
//! decode  ms = max(1, −25.74 u² + 54.01 u + 5.74)               u = min(1, decode context / KV capacity in tokens)
//! ```
//!
//! A step that holds both costs their sum; both are divided by `speedup_ratio`, decode also by
//! `decode_speedup_ratio`. Decode does not depend on the batch, and more KV capacity makes it faster: that is the
//! curve's own oddity, kept because its purpose is to compare with that simulator.
//!
//! The decode curve is cut into chords of equal width in tokens, found by one division. The chord over a width h of u
//! deviates by at most h²/8 · |f''| = h²/8 · 51.48 ms; joints and slopes are whole picoseconds, each chord starts where
//! the last one ended, and a slope rounded to a whole picosecond shifts the far joint by at most half a picosecond per
//! token of width. Widths are chosen so that both together stay within [`MAX_ERROR_MS`].

use crate::error::{CalibrationError, Problem, check, check_range};
use engine::{Basis, Piece, Span, StepShape, StepTime, TimingSource};
use serde::Serialize;

/// Bound on the error of the chords at speed-up 1; at speed-up s > 1 it is divided by s.
pub const MAX_ERROR_MS: f64 = 1e-4;
/// Share of the bound left to the rounding of slopes.
const ROUNDING_SHARE: f64 = 0.1;
/// Largest capacity accepted, in tokens: beyond any worker, and few enough for a table of chords.
const MAX_CAPACITY_TOKENS: u64 = 1 << 28;
const PS_PER_MS: f64 = 1e9;

/// Second derivative of the decode curve, ms.
const CURVATURE_MS: f64 = 2.0 * 25.74;

/// How much faster than the curve a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PolynomialSpec {
    /// Divides prefill and decode times.
    pub speedup_ratio: f64,
    /// Divides decode times once more.
    pub decode_speedup_ratio: f64,
}

impl Default for PolynomialSpec {
    fn default() -> Self {
        PolynomialSpec {
            speedup_ratio: 1.0,
            decode_speedup_ratio: 1.0,
        }
    }
}

impl PolynomialSpec {
    /// Prefill time of `tokens` new tokens, ms.
    #[must_use]
    pub fn prefill_ms(&self, tokens: u64) -> f64 {
        let n = tokens as f64;
        (4.209989e-7 * n * n + 1.518344e-2 * n + 16.50142) / self.speedup_ratio
    }

    /// Decode time of a step whose sequences use the share `use_share` of the KV capacity, ms.
    #[must_use]
    pub fn decode_ms(&self, use_share: f64) -> f64 {
        let u = use_share.min(1.0);
        (-25.74 * u * u + 54.01 * u + 5.74).max(1.0)
            / (self.speedup_ratio * self.decode_speedup_ratio)
    }

    fn problems(&self, capacity_tokens: u64) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_range(
            &mut problems,
            "speedup_ratio",
            self.speedup_ratio,
            0.01..=100.0,
            "",
        );
        check_range(
            &mut problems,
            "decode_speedup_ratio",
            self.decode_speedup_ratio,
            0.01..=100.0,
            "",
        );
        let both = self.speedup_ratio * self.decode_speedup_ratio;
        if problems.is_empty() && !(0.01..=100.0).contains(&both) {
            problems.push(Problem::new(
                "speedup_ratio x decode_speedup_ratio",
                both,
                "a product from 0.01 to 100",
            ));
        }
        if !(1..=MAX_CAPACITY_TOKENS).contains(&capacity_tokens) {
            let expected = format!("a KV capacity from 1 to {MAX_CAPACITY_TOKENS} tokens");
            problems.push(Problem::new("capacity_tokens", capacity_tokens, expected));
        }
        problems
    }
}

/// The curve for one KV capacity, cut into chords.
#[derive(Debug, Clone)]
pub struct Polynomial {
    spec: PolynomialSpec,
    capacity_tokens: u64,
    /// Tokens per chord; the last one may be shorter.
    width: u64,
    chords: Vec<Chord>,
    /// Decode time from the full capacity on.
    full: Span,
}

#[derive(Debug, Clone, Copy)]
struct Chord {
    at: Span,
    slope_ps: i64,
}

impl Polynomial {
    /// Cuts the curve for a worker whose KV cache holds `capacity_tokens` tokens (blocks x block size).
    ///
    /// # Errors
    /// A ratio that is not a number from 0.01 to 100, or a capacity of 0 or above 2^28 tokens; all at once.
    pub fn new(spec: PolynomialSpec, capacity_tokens: u64) -> Result<Polynomial, CalibrationError> {
        check(spec.problems(capacity_tokens))?;
        let width = chord_width(&spec, capacity_tokens);
        let curve =
            |context: u64| spec.decode_ms(context as f64 / capacity_tokens as f64) * PS_PER_MS;

        let mut chords = Vec::with_capacity(capacity_tokens.div_ceil(width) as usize);
        let mut at = curve(0).round() as i64;
        let mut from = 0;
        while from < capacity_tokens {
            let until = (from + width).min(capacity_tokens);
            let tokens = (until - from) as i64;
            let slope_ps = ((curve(until) - at as f64) / tokens as f64).round() as i64;
            chords.push(Chord {
                at: Span(at as u64),
                slope_ps,
            });
            at += slope_ps * tokens;
            from = until;
        }
        Ok(Polynomial {
            spec,
            capacity_tokens,
            width,
            chords,
            full: Span(at as u64),
        })
    }

    /// Number of chords.
    #[must_use]
    pub fn chords(&self) -> usize {
        self.chords.len()
    }
}

/// Tokens per chord, at least 1: at width 1 every integer context is a joint and only its own rounding remains.
fn chord_width(spec: &PolynomialSpec, capacity_tokens: u64) -> u64 {
    let speedup = spec.speedup_ratio * spec.decode_speedup_ratio;
    let bound_ms = MAX_ERROR_MS / speedup.max(1.0);
    let share_of_capacity =
        (8.0 * bound_ms * (1.0 - ROUNDING_SHARE) * speedup / CURVATURE_MS).sqrt();
    let by_curvature = share_of_capacity * capacity_tokens as f64;
    let by_rounding = 2.0 * bound_ms * ROUNDING_SHARE * PS_PER_MS;
    (by_curvature.min(by_rounding) as u64).max(1)
}

impl StepTime for Polynomial {
    #[inline]
    fn decode(&self, _batch: u32, context: u64) -> Piece {
        if context >= self.capacity_tokens {
            return Piece {
                from: self.capacity_tokens,
                until: u64::MAX,
                at: self.full,
                slope_ps: 0,
            };
        }
        let index = context / self.width;
        let from = index * self.width;
        let chord = self.chords[index as usize];
        let until = (from + self.width).min(self.capacity_tokens);
        Piece {
            from,
            until,
            at: chord.at,
            slope_ps: chord.slope_ps,
        }
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        // Model: N is the exact sum. The reference takes batch x (floor of the mean prompt - floor of the mean prefix),
        // up to batch - 1 tokens less or more, 15 us per token at most of its times.
        let tokens = shape
            .prefill
            .iter()
            .map(|chunk| u64::from(chunk.new_tokens))
            .sum();
        let prefill = Span::from_ms(self.spec.prefill_ms(tokens));
        if shape.decode_batch == 0 {
            return prefill;
        }
        prefill
            + self
                .decode(shape.decode_batch, shape.decode_context)
                .time(shape.decode_context)
    }

    fn source(&self) -> TimingSource {
        let PolynomialSpec {
            speedup_ratio,
            decode_speedup_ratio,
        } = self.spec;
        TimingSource {
            name: "polynomial".to_owned(),
            basis: Basis::Estimated,
            detail: format!(
                "default curve of dynamo-mocker 1.6.1, KV capacity {} tokens, speedup_ratio {speedup_ratio}, \
                 decode_speedup_ratio {decode_speedup_ratio}, {} chords within {MAX_ERROR_MS} ms",
                self.capacity_tokens,
                self.chords.len(),
            ),
            guesses: vec![
                "one curve for every model, GPU and tensor parallelism".to_owned(),
                "decode time does not depend on the batch, only on the share of the KV cache in use".to_owned(),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Chunk;
    use proptest::prelude::*;

    fn curve(speedup_ratio: f64, capacity: u64) -> Polynomial {
        Polynomial::new(
            PolynomialSpec {
                speedup_ratio,
                ..PolynomialSpec::default()
            },
            capacity,
        )
        .expect("a good spec")
    }

    #[test]
    fn values_by_hand() {
        let model = curve(1.0, 1_048_576);
        // u = 0: 5.74 ms. u = 1: -25.74 + 54.01 + 5.74 = 34.01 ms, and no more beyond.
        assert_eq!(model.decode(1, 0).time(0), Span::from_ms(5.74));
        assert!((model.decode(9, 1_048_576).time(1_048_576).as_ms() - 34.01).abs() <= MAX_ERROR_MS);
        assert_eq!(
            model.decode(9, 5_000_000).time(5_000_000),
            model.decode(1, 1_048_576).time(1_048_576)
        );
        // u = 0.5: -6.435 + 27.005 + 5.74 = 26.31 ms.
        assert!((model.decode(3, 524_288).time(524_288).as_ms() - 26.31).abs() <= MAX_ERROR_MS);
        // N = 8192: 4.209989e-7 · 67,108,864 = 28.25276; + 1.518344e-2 · 8192 = 124.38274; + 16.50142 = 169.13692 ms.
        let chunks = [
            Chunk {
                new_tokens: 8_000,
                cached_tokens: 77,
            },
            Chunk {
                new_tokens: 192,
                cached_tokens: 0,
            },
        ];
        let prefill = StepShape {
            prefill: &chunks,
            decode_batch: 0,
            decode_context: 0,
        };
        assert!((model.mixed(&prefill).as_ms() - 169.13692).abs() < 1e-5);
        // With decodes at u = 0.5: + 26.31 ms.
        let mixed = StepShape {
            decode_batch: 4,
            decode_context: 524_288,
            ..prefill
        };
        assert!((model.mixed(&mixed).as_ms() - 195.44692).abs() < 1e-5 + MAX_ERROR_MS);
    }

    #[test]
    fn chords_stay_within_the_bound_and_rise() {
        for (speedup, capacity) in [
            (1.0, 1_048_576),
            (1.0, 131_072),
            (1.0, 999_999),
            (1.0, 16),
            (1.0, 1),
            (1.0, 50_000_000),
            (0.25, 400_000),
            (8.0, 300_000),
            (100.0, 100_000),
        ] {
            let model = curve(speedup, capacity);
            let bound = MAX_ERROR_MS / speedup.max(1.0) + 1e-9;
            let stride = (capacity / 300_000).max(1);
            let mut worst: f64 = 0.0;
            let mut last = Span::ZERO;
            for context in (0..=capacity + 2 * stride).step_by(stride as usize) {
                let time = model.decode(1, context).time(context);
                assert!(time >= last, "the curve rises up to u = 1 and stays there");
                last = time;
                let exact = model.spec.decode_ms(context as f64 / capacity as f64);
                worst = worst.max((time.as_ms() - exact).abs());
            }
            println!(
                "speed-up {speedup}, {capacity} tokens: {} chords, worst error {worst:.3e} ms",
                model.chords()
            );
            assert!(worst <= bound, "{worst} ms");
        }
    }

    #[test]
    fn the_floor_of_one_millisecond_never_binds() {
        assert!(
            (0..=1_000).all(|i| PolynomialSpec::default().decode_ms(f64::from(i) / 1_000.0) > 5.7)
        );
    }

    #[test]
    fn bad_input_is_reported_at_once() {
        let spec = PolynomialSpec {
            speedup_ratio: f64::NAN,
            decode_speedup_ratio: -1.0,
        };
        let error = Polynomial::new(spec, 0).expect_err("three mistakes");
        let fields: Vec<&str> = error
            .problems()
            .iter()
            .map(|problem| problem.field.as_str())
            .collect();
        assert_eq!(
            fields,
            ["speedup_ratio", "decode_speedup_ratio", "capacity_tokens"]
        );
        let spec = PolynomialSpec {
            speedup_ratio: 50.0,
            decode_speedup_ratio: 50.0,
        };
        assert!(Polynomial::new(spec, 100).is_err());
        assert!(Polynomial::new(PolynomialSpec::default(), u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn chords_join_and_steps_sum_in_closed_form(
            capacity in 1u64..3_000_000, batch in 1u32..300, share in 0.0f64..1.2, k in 1u64..2_000,
        ) {
            let model = curve(1.0, capacity);
            let grow = u64::from(batch);
            let first = (capacity as f64 * share) as u64 + grow;
            let stepped: Span =
                (0..k).map(|i| first + i * grow).map(|context| model.decode(batch, context).time(context)).sum();
            // By pieces: as many steps as stay inside, in closed form, then the next piece, which starts where it ends.
            let (mut context, mut left, mut total) = (first, k, 0i64);
            while left > 0 {
                let piece = model.decode(batch, context);
                prop_assert!(piece.from <= context && context < piece.until);
                let steps = left.min((piece.until - context).div_ceil(grow));
                total += piece.time(context).0 as i64 * steps as i64
                    + piece.slope_ps * (grow * (steps * (steps - 1) / 2)) as i64;
                if piece.until < u64::MAX {
                    let end = piece.at.0 as i64 + piece.slope_ps * (piece.until - piece.from) as i64;
                    prop_assert_eq!(model.decode(batch, piece.until).at.0 as i64, end);
                }
                context += steps * grow;
                left -= steps;
            }
            prop_assert_eq!(stepped, Span(total as u64));
        }
    }
}
