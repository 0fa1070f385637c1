//! What the next steps of a worker cost: from a plan to a line over its steps.
//!
//! A step with prefill has a price of its own. Decode steps of one batch cost a line, as far as one linear piece of the timing
//! model reaches: each brings the context further by the same amount. With speculation and expected acceptance that amount
//! is no whole number of tokens; context is then counted in parts of a token, and the line laid so that its slope per part is
//! a whole number of picoseconds.
//!
//! Ranks that step together take as long as the slowest, so their price is the upper edge of their lines: it is followed
//! up to where another line crosses.

use engine::speculation::PARTS;
use engine::{Span, StepPlan, StepShape, StepTime};

/// What steps of a plan are priced from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// A step with prefill; its time is known as soon as it is planned, and whether it lies beyond the measurements.
    Mixed(Span, bool),
    /// Decode steps: sequences, and the summed context of the next step.
    Decode { batch: u32, context: u64 },
    /// Decode steps that verify drafts with expected acceptance.
    Verify(Verify),
}

/// Decode steps that bring a mean number of tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verify {
    /// Tokens computed in each step.
    tokens: u32,
    /// Summed context of the next step, in parts of a token.
    context: u64,
    /// How much longer it is in each further step, in parts of a token.
    growth: u64,
}

/// The times of steps that follow each other: `first, first + slope, ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub first: Span,
    pub slope_ps: i64,
    /// For how many steps it holds.
    pub steps: u32,
    pub is_extrapolated: bool,
}

// Model: a line whose slope per part of a token is rounded is laid anew every so many tokens of summed context; it is off by
// half a picosecond per part at most, 1.1 us.
const ANCHORS: u64 = 8_192;

impl Shape {
    #[inline]
    pub fn of(plan: &StepPlan, timing: &dyn StepTime) -> Shape {
        let shape = plan.shape();
        if !shape.prefill.is_empty() {
            return Shape::Mixed(timing.mixed(&shape), timing.is_extrapolated(&shape));
        }
        let drafts = plan.drafts;
        if drafts.pace == 0 {
            return Shape::Decode {
                batch: shape.decode_batch,
                context: shape.decode_context,
            };
        }
        Shape::Verify(Verify {
            tokens: shape.decode_batch,
            context: shape.decode_context * u64::from(PARTS) + drafts.fractions,
            growth: u64::from(plan.decode_batch) * u64::from(drafts.pace),
        })
    }

    /// The price of the next steps.
    #[inline]
    pub fn line(&self, timing: &dyn StepTime) -> Line {
        match *self {
            Shape::Mixed(time, is_extrapolated) => Line {
                first: time,
                slope_ps: 0,
                steps: 1,
                is_extrapolated,
            },
            Shape::Decode { batch, context } => {
                let piece = timing.decode(batch, context);
                let inside = (piece.until - context).div_ceil(u64::from(batch));
                Line {
                    first: piece.time(context),
                    slope_ps: piece.slope_ps * i64::from(batch),
                    steps: u32::try_from(inside).unwrap_or(u32::MAX),
                    is_extrapolated: is_extrapolated(timing, batch, context),
                }
            }
            Shape::Verify(verify) => verify.line(timing),
        }
    }

    /// Goes `steps` steps on.
    #[inline]
    pub fn advance(&mut self, steps: u32) {
        match self {
            Shape::Mixed(..) => {}
            Shape::Decode { batch, context } => *context += u64::from(*batch) * u64::from(steps),
            Shape::Verify(verify) => verify.context += verify.growth * u64::from(steps),
        }
    }
}

impl Verify {
    fn line(&self, timing: &dyn StepTime) -> Line {
        let parts = u64::from(PARTS);
        let context = self.context / parts;
        let piece = timing.decode(self.tokens, context);
        let anchor = piece.from.max(context - context % ANCHORS);
        let until = piece.until.min(context - context % ANCHORS + ANCHORS);
        let half = piece.slope_ps.signum() * i64::from(PARTS) / 2;
        let slope = (piece.slope_ps + half) / i64::from(PARTS);
        let more = slope * (self.context - anchor * parts) as i64;
        let inside = match self.growth {
            0 => 1,
            growth => (until * parts - self.context).div_ceil(growth),
        };
        Line {
            first: Span((piece.time(anchor).0 as i64 + more).max(1) as u64),
            slope_ps: slope * self.growth as i64,
            steps: u32::try_from(inside).expect("a few thousand tokens are few steps"),
            is_extrapolated: is_extrapolated(timing, self.tokens, context),
        }
    }
}

fn is_extrapolated(timing: &dyn StepTime, batch: u32, context: u64) -> bool {
    timing.is_extrapolated(&StepShape {
        prefill: &[],
        decode_batch: batch,
        decode_context: context,
    })
}

/// The upper edge of at least one line: the one that is on top at the first step, up to where another is higher.
pub(crate) fn upper_edge(lines: &[Line]) -> Line {
    let is_higher = |line: &&Line| (line.first, line.slope_ps);
    let top = *lines.iter().max_by_key(is_higher).expect("there is a line");
    let crossing = |line: &Line| {
        let gain = line.slope_ps - top.slope_ps;
        if gain <= 0 {
            return u32::MAX;
        }
        // At that step the other is higher for the first time.
        let steps = (top.first.0 - line.first.0) / gain.unsigned_abs() + 1;
        u32::try_from(steps).unwrap_or(u32::MAX)
    };
    let holds = |line: &Line| line.steps.min(crossing(line));
    Line {
        steps: lines.iter().map(holds).min().expect("there is a line"),
        ..top
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Piece, TimingSource};

    fn line(first: u64, slope_ps: i64, steps: u32) -> Line {
        Line {
            first: Span(first),
            slope_ps,
            steps,
            is_extrapolated: false,
        }
    }

    #[test]
    fn the_upper_edge_is_the_maximum_step_by_step() {
        let lines = [
            line(100, 7, 50),
            line(130, 4, 60),
            line(90, 9, 40),
            line(130, 1, 80),
        ];
        let (mut at, mut edge) = (0u32, Vec::new());
        while edge.len() < 40 {
            let moved = lines.map(|line| Line {
                first: Span(line.first.0 + line.slope_ps as u64 * u64::from(at)),
                steps: line.steps - at,
                ..line
            });
            let top = upper_edge(&moved);
            assert!(top.steps > 0);
            edge.extend(
                (0..top.steps).map(|step| top.first.0 + u64::from(step) * top.slope_ps as u64),
            );
            at += top.steps;
        }
        for (step, price) in (0..40u64).zip(edge) {
            let slowest = lines
                .iter()
                .map(|line| line.first.0 + step * line.slope_ps as u64);
            assert_eq!(Some(price), slowest.max());
        }
    }

    /// Two pieces, the first with a slope that is no multiple of the parts.
    struct Bent;

    impl StepTime for Bent {
        fn decode(&self, _batch: u32, context: u64) -> Piece {
            if context < 20_000 {
                Piece {
                    from: 0,
                    until: 20_000,
                    at: Span(5_000_000),
                    slope_ps: 1_000,
                }
            } else {
                Piece {
                    from: 20_000,
                    until: u64::MAX,
                    at: Span(25_000_000),
                    slope_ps: 77,
                }
            }
        }

        fn mixed(&self, _shape: &StepShape<'_>) -> Span {
            unreachable!("only decodes")
        }

        fn source(&self) -> TimingSource {
            unreachable!("nobody asks")
        }
    }

    #[test]
    fn lines_of_verified_drafts_are_the_same_from_every_step_and_near_the_piece() {
        let start = Verify {
            tokens: 30,
            context: 3 * 256 + 17,
            growth: 10 * 539,
        };
        let (mut shape, mut along) = (Shape::Verify(start), Vec::new());
        while along.len() < 2_000 {
            let line = shape.line(&Bent);
            along.extend(
                (0..line.steps)
                    .map(|step| (line.first.0 as i64 + i64::from(step) * line.slope_ps) as u64),
            );
            shape.advance(line.steps);
        }
        let mut shape = Shape::Verify(start);
        for (step, price) in (0..2_000u64).zip(along) {
            assert_eq!(shape.line(&Bent).first.0, price, "step {step}");
            let context = (start.context + step * start.growth) as f64 / 256.0;
            let exact = if context < 20_000.0 {
                5e6 + 1e3 * context
            } else {
                25e6 + 77.0 * (context - 2e4)
            };
            assert!((price as f64 - exact).abs() < 1.1e6, "{price} for {exact}");
            shape.advance(1);
        }
    }
}
