//! Step times made to be difficult.

use engine::{Basis, Piece, Span, StepShape, StepTime, TimingSource};

/// Many short pieces that jump, rise and fall, other ones for every batch size.
///
/// Pieces of up to [`Zigzag::MOST_WIDTH`] tokens of context begin between `base` and `2 base` and change by up to half a
/// `base` over their width. Nothing about them is continuous: only the contract of [`StepTime`] is kept.
pub struct Zigzag {
    pub seed: u64,
    pub base: Span,
}

impl Zigzag {
    const MOST_WIDTH: u64 = 60;

    /// A number below `bound` for anything that has two numbers.
    fn draw(&self, a: u64, b: u64, bound: u64) -> u64 {
        let mut x = self.seed ^ a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.rotate_left(32);
        for _ in 0..3 {
            x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        (x >> 20) % bound
    }
}

impl StepTime for Zigzag {
    fn decode(&self, batch: u32, context: u64) -> Piece {
        let batch = u64::from(batch);
        let width = 1 + self.draw(batch, 1 << 40, Self::MOST_WIDTH);
        let index = context / width;
        let steepest = self.base.0 / (2 * width);
        let slope = self.draw(batch + (1 << 20), index, 2 * steepest + 1);
        Piece {
            from: index * width,
            until: (index + 1) * width,
            at: self.base + Span(self.draw(batch, index, self.base.0)),
            slope_ps: slope as i64 - steepest as i64,
        }
    }

    fn mixed(&self, shape: &StepShape<'_>) -> Span {
        let tokens: u64 = shape
            .prefill
            .iter()
            .map(|chunk| u64::from(chunk.new_tokens))
            .sum();
        let context = shape.decode_context + u64::from(shape.decode_batch);
        self.base + Span(tokens * (1 + self.base.0 / 50) + self.draw(tokens, context, self.base.0))
    }

    fn together(&self, tokens: u64) -> Span {
        Span(self.draw(tokens, 1 << 50, self.base.0))
    }

    fn source(&self) -> TimingSource {
        TimingSource {
            name: "zigzag".to_owned(),
            basis: Basis::Given,
            detail: format!("made for tests, seed {}, base {}", self.seed, self.base),
            guesses: Vec::new(),
        }
    }
}

#[test]
fn zigzag_keeps_the_contract() {
    let zigzag = Zigzag {
        seed: 7,
        base: Span(1_000),
    };
    let (mut falling, mut rising) = (0, 0);
    for batch in 1..20 {
        for context in 0..2_000 {
            let piece = zigzag.decode(batch, context);
            assert!(piece.from <= context && context < piece.until);
            assert_eq!(zigzag.decode(batch, piece.from), piece);
            let last = piece.time(piece.until - 1).0;
            assert!((500..=2_500).contains(&last), "{piece:?}");
            falling += u32::from(piece.slope_ps < 0);
            rising += u32::from(piece.slope_ps > 0);
        }
    }
    assert!(
        falling > 10_000 && rising > 10_000,
        "{falling} fall, {rising} rise"
    );
}
