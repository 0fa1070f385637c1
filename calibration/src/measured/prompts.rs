//! Attention over a whole prompt by its length, cut into lines when a number of chunks is first asked for.
//!
//! Time grows with the square of the length, so its square root is cut: at the measured lengths, between which the tables
//! are linear there, and wherever a chord would be off by more than a tolerance.

use crate::tables::Reach;
use std::sync::OnceLock;

/// Relative error of the time up to which a chord may stand for the tables, at the points where it is compared.
const TOLERANCE: f64 = 2e-4;
/// Chunks of a step that have a place; more in one step are rare, and read each time.
const MOST_CHUNKS: usize = 256;
/// The longest prompt that has a place.
const LONGEST: u32 = 1 << 22;
/// Cuts of one interval between measured lengths.
const MOST_CUTS: u32 = 20;

/// The lines of every number of chunks.
pub(super) struct Prompts {
    /// Lengths at which the tables may bend, ascending, the first 0, doubling beyond the measured ones.
    lengths: Vec<u32>,
    by_chunks: Vec<OnceLock<Box<[Line]>>>,
}

/// The square root of the time over lengths up to and with `until`.
struct Line {
    until: u32,
    /// Length where the line starts, and the root there.
    from: f64,
    root: f64,
    slope: f64,
    is_beyond: bool,
}

impl Prompts {
    /// `measured` are the lengths of the tables, ascending.
    pub(super) fn new(measured: Vec<u32>) -> Prompts {
        let last = measured.last().copied().unwrap_or(1).max(1);
        let doubled = (1..)
            .map(|i| u64::from(last) << i)
            .take_while(|length| *length / 2 < u64::from(LONGEST))
            .map(|length| length.min(u64::from(LONGEST)) as u32);
        let lengths = std::iter::once(0).chain(measured).chain(doubled).collect();
        Prompts {
            lengths,
            by_chunks: (0..MOST_CHUNKS).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Milliseconds of `chunks` prompts of `length` tokens each, and whether that lies beyond the measurements; `read`
    /// asks the tables.
    #[inline]
    pub(super) fn find(
        &self,
        chunks: u32,
        length: u32,
        read: impl Fn(f64) -> (f64, Reach),
    ) -> (f64, bool) {
        let place = self.by_chunks.get(chunks as usize - 1);
        let Some(place) = place.filter(|_| (1..=LONGEST).contains(&length)) else {
            let (ms, reach) = read(f64::from(length));
            return (ms, reach >= Reach::Extrapolated);
        };
        let lines = place.get_or_init(|| self.cut(&read));
        let line = &lines[lines.partition_point(|line| line.until < length)];
        let root = line.root + line.slope * (f64::from(length) - line.from);
        (root * root, line.is_beyond)
    }

    fn cut(&self, read: &impl Fn(f64) -> (f64, Reach)) -> Box<[Line]> {
        let mut lines = Vec::new();
        for pair in self.lengths.windows(2) {
            // Shorter than a token is nothing; just above the lower end, where the tables may jump.
            let (from, until) = (pair[0] + 1, pair[1]);
            let ends = [from, until].map(|length| (length, read(f64::from(length)).0.sqrt()));
            let is_beyond = read(f64::from(from)).1 >= Reach::Extrapolated;
            chords(&mut lines, ends[0], ends[1], MOST_CUTS, is_beyond, read);
        }
        lines.into()
    }
}

/// Adds the chord from one length to another, or those of its halves.
fn chords(
    lines: &mut Vec<Line>,
    (from, from_root): (u32, f64),
    (until, until_root): (u32, f64),
    cuts: u32,
    is_beyond: bool,
    read: &impl Fn(f64) -> (f64, Reach),
) {
    let length = until - from;
    let slope = if length == 0 {
        0.0
    } else {
        (until_root - from_root) / f64::from(length)
    };
    let is_close = |more: u32| {
        let chord = from_root + slope * f64::from(more);
        (chord * chord / read(f64::from(from + more)).0 - 1.0).abs() <= TOLERANCE
    };
    let quarters = [length / 4, length / 2, length - length / 4];
    if cuts == 0 || length <= 1 || quarters.into_iter().all(is_close) {
        lines.push(Line {
            until,
            from: f64::from(from),
            root: from_root,
            slope,
            is_beyond,
        });
        return;
    }
    let middle = (
        from + length / 2,
        read(f64::from(from + length / 2)).0.sqrt(),
    );
    chords(lines, (from, from_root), middle, cuts - 1, is_beyond, read);
    chords(
        lines,
        middle,
        (until, until_root),
        cuts - 1,
        is_beyond,
        read,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn squares_are_read_at_the_ends_and_marked_beyond_the_last() {
        let prompts = Prompts::new(vec![16, 1_024, 4_096]);
        let readings = Cell::new(0);
        let read = |length: f64| {
            readings.set(readings.get() + 1);
            let reach = if (16.0..=4_096.0).contains(&length) {
                Reach::Interpolated
            } else {
                Reach::Extrapolated
            };
            (length * length * 1e-6, reach)
        };
        for (length, is_beyond) in [
            (1, true),
            (15, true),
            (16, true),
            (17, false),
            (1_024, false),
            (3_000, false),
            (4_096, false),
            (4_097, true),
            (1 << 22, true),
        ] {
            let (ms, beyond) = prompts.find(3, length, read);
            let exact = f64::from(length).powi(2) * 1e-6;
            assert!((ms / exact - 1.0).abs() < 1e-9, "{length}: {ms}");
            assert_eq!(beyond, is_beyond, "{length}");
        }
        assert!(readings.get() < 100, "{} readings", readings.get());
        let more = prompts.find(3, (1 << 22) + 1, read);
        assert!(more.1 && more.0 > 1e7, "read from the tables");
    }

    #[test]
    fn curves_are_cut_until_their_chords_are_close() {
        let prompts = Prompts::new(vec![1, 65_536]);
        let cubic = |length: f64| (length.powi(3) * 1e-9 + 1.0, Reach::Interpolated);
        for length in (1..65_536).step_by(97) {
            let (ms, _) = prompts.find(1, length, cubic);
            let exact = cubic(f64::from(length)).0;
            assert!((ms / exact - 1.0).abs() < 1e-3, "{length}");
        }
    }
}
