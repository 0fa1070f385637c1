//! Lines through the decode time of a batch, made when the batch is first asked for.

use engine::{Piece, Span};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Relative error up to which a chord may stand for the tables, at the points where it is compared.
pub const TOLERANCE: f64 = 2.5e-4;
/// Batches with a place of their own; larger ones are kept in a map.
const DIRECT: usize = 2_048;
/// Cuts of one interval between measured lengths; a jump in the tables needs as many as its context has bits.
const MOST_CUTS: u32 = 32;

/// The pieces of every batch.
pub(super) struct Pieces {
    /// KV lengths at which the tables may bend, ascending.
    lengths: Vec<u32>,
    /// Summed context beyond which the last piece goes on.
    most_context: u64,
    direct: Vec<OnceLock<Arc<[Piece]>>>,
    others: Mutex<BTreeMap<u32, Arc<[Piece]>>>,
}

impl Pieces {
    pub(super) fn new(lengths: Vec<u32>, capacity_tokens: u64) -> Pieces {
        Pieces {
            lengths,
            most_context: capacity_tokens.max(1),
            direct: (0..DIRECT).map(|_| OnceLock::new()).collect(),
            others: Mutex::new(BTreeMap::new()),
        }
    }

    /// The piece of `batch` at `context`; `price` prepares the exact evaluator of the batch, picoseconds by context.
    #[inline]
    pub(super) fn find<F: Fn(u64) -> f64>(
        &self,
        batch: u32,
        context: u64,
        price: impl FnOnce() -> F,
    ) -> Piece {
        let in_list =
            |pieces: &[Piece]| pieces[pieces.partition_point(|piece| piece.until <= context)];
        match self.direct.get(batch as usize - 1) {
            Some(pieces) => in_list(pieces.get_or_init(|| self.cut(batch, &price()))),
            None => {
                let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
                in_list(
                    others
                        .entry(batch)
                        .or_insert_with(|| self.cut(batch, &price())),
                )
            }
        }
    }

    fn cut(&self, batch: u32, ps: &impl Fn(u64) -> f64) -> Arc<[Piece]> {
        // Beyond the measured lengths, doubling ones.
        let last = u64::from(self.lengths[self.lengths.len() - 1]);
        let doubled = (1..)
            .map(|i| last << i)
            .take_while(|length| length / 2 * u64::from(batch) < self.most_context);
        let lengths = self
            .lengths
            .iter()
            .map(|&length| u64::from(length))
            .chain(doubled);
        let mut pieces = Vec::new();
        let mut from = 0;
        let mut from_ps = ps(0);
        for until in lengths.map(|length| length * u64::from(batch)) {
            let until_ps = ps(until);
            chords(
                &mut pieces,
                (from, from_ps),
                (until, until_ps),
                MOST_CUTS,
                ps,
            );
            (from, from_ps) = (until, until_ps);
            if until >= self.most_context {
                break;
            }
        }
        let last = pieces.last_mut().expect("there is a measured length");
        last.until = u64::MAX;
        last.slope_ps = last.slope_ps.max(0);
        pieces.into()
    }
}

/// Adds the chord from one context to another, or those of its halves.
fn chords(
    pieces: &mut Vec<Piece>,
    (from, from_ps): (u64, f64),
    (until, until_ps): (u64, f64),
    cuts: u32,
    ps: &impl Fn(u64) -> f64,
) {
    let length = until - from;
    let slope = (until_ps - from_ps) / length as f64;
    let is_close = |context: u64| {
        let exact = ps(context);
        let chord = from_ps + slope * (context - from) as f64;
        (chord / exact - 1.0).abs() <= TOLERANCE
    };
    let quarters = [length / 4, length / 2, length - length / 4, length - 1];
    if cuts == 0 || length == 1 || quarters.into_iter().all(|more| is_close(from + more)) {
        pieces.push(Piece {
            from,
            until,
            at: Span(from_ps.round() as u64),
            slope_ps: slope.round() as i64,
        });
        return;
    }
    let middle = from + length / 2;
    let middle_ps = ps(middle);
    chords(pieces, (from, from_ps), (middle, middle_ps), cuts - 1, ps);
    chords(pieces, (middle, middle_ps), (until, until_ps), cuts - 1, ps);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_needs_one_piece_per_length_and_a_curve_more() {
        let pieces = Pieces::new(vec![2, 1_024], 4_096);
        let line = |context: u64| 1e9 + 1e4 * context as f64;
        let found = pieces.find(4, 100, || line);
        assert_eq!(
            found,
            Piece {
                from: 8,
                until: u64::MAX,
                at: Span(1_000_080_000),
                slope_ps: 10_000
            }
        );
        let square = |context: u64| 1e6 + (context * context) as f64;
        let (mut context, mut count) = (0, 0);
        while context < 4_096 {
            let piece = pieces.find(3, context, || square);
            let (chord, exact) = (piece.time(context).0 as f64, square(context));
            assert!(
                (chord / exact - 1.0).abs() < 1e-6,
                "the chord meets the curve at {context}"
            );
            (context, count) = (piece.until, count + 1);
        }
        assert!(count > 4, "{count} pieces");
    }

    #[test]
    fn a_jump_is_kept_within_one_token() {
        let pieces = Pieces::new(vec![1, 1_000], 1_000);
        let jump = |context: u64| if context < 777 { 1e9 } else { 2e9 };
        assert_eq!(pieces.find(1, 775, || jump).time(775), Span(1_000_000_000));
        assert_eq!(pieces.find(1, 777, || jump).time(777), Span(2_000_000_000));
    }
}
