//! Exact order statistics of gaps that are stored as arithmetic progressions, without writing them out.
//!
//! Quickselect over progressions, for several ranks at once. A pivot splits every progression into the part below it,
//! the gaps equal to it and the part above; the parts of a progression are progressions again, found by one division. Each
//! wanted rank then lies in the lower parts, at the pivot, or in the upper parts, and the search goes on there. The
//! pivot is a quantile of a small sample, taken where the middle one of the wanted ranks is expected, so that a few passes
//! over shrinking lists suffice: the cost grows with the number of progressions, not of gaps.

use crate::record::GapRun;

/// `steps` values `first, first + slope, ...`, each counted `weight` times. The slope is never negative; it is zero
/// for a single value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progression {
    first: u64,
    slope: u64,
    steps: u32,
    weight: u32,
}

impl Progression {
    fn of(run: &GapRun) -> Progression {
        let (steps, weight) = (run.steps, run.sequences);
        if steps <= 1 || run.slope_ps == 0 {
            // All alike: `steps` counts of one value. The product may exceed 32 bits, so the steps stay.
            return Progression {
                first: run.first.0,
                slope: 0,
                steps,
                weight,
            };
        }
        let slope = run.slope_ps.unsigned_abs();
        let descent = if run.slope_ps < 0 {
            slope * u64::from(steps - 1)
        } else {
            0
        };
        assert!(descent <= run.first.0, "no gap is negative");
        Progression {
            first: run.first.0 - descent,
            slope,
            steps,
            weight,
        }
    }

    fn value(&self, index: u32) -> u64 {
        self.first + self.slope * u64::from(index)
    }

    fn last(&self) -> u64 {
        self.value(self.steps - 1)
    }

    fn count(&self) -> u64 {
        u64::from(self.steps) * u64::from(self.weight)
    }

    /// The values before and from `index` on.
    fn part(&self, from: u32, until: u32) -> Progression {
        Progression {
            first: self.value(from),
            slope: self.slope,
            steps: until - from,
            weight: self.weight,
        }
    }

    /// How many of the values are below and how many not above a bound that lies between the first and the last.
    fn split(&self, bound: u64) -> (u32, u32) {
        if self.slope == 0 {
            return (0, self.steps);
        }
        let way = bound - self.first;
        let whole = (way / self.slope) as u32;
        (
            if way.is_multiple_of(self.slope) {
                whole
            } else {
                whole + 1
            },
            whole + 1,
        )
    }
}

/// The values of the given ranks: rank 1 is the smallest gap, the number of gaps the greatest.
///
/// # Panics
/// When a rank is 0 or exceeds the number of gaps, when ranks are not sorted, or when a gap would be negative.
#[must_use]
pub fn values_at_ranks(runs: &[GapRun], ranks: &[u64]) -> Vec<u64> {
    assert!(ranks.is_sorted(), "ranks come in order");
    let progressions: Vec<Progression> = runs
        .iter()
        .filter(|run| run.steps > 0 && run.sequences > 0)
        .map(Progression::of)
        .collect();
    let total: u64 = progressions.iter().map(Progression::count).sum();
    assert!(
        ranks.iter().all(|rank| (1..=total).contains(rank)),
        "a rank is one of 1..=number of gaps"
    );
    let mut values = vec![0; ranks.len()];
    select(progressions, total, ranks, 0, &mut values);
    values
}

/// Up to so many values are written out and sorted.
const FEW_VALUES: usize = 64;

/// Finds `ranks` (sorted; counted from `before`, the number of gaps known to be smaller) among the progressions.
fn select(
    mut progressions: Vec<Progression>,
    total: u64,
    ranks: &[u64],
    before: u64,
    values: &mut [u64],
) {
    if ranks.is_empty() {
        return;
    }
    let first_ones = progressions.iter().take(FEW_VALUES + 1);
    if first_ones
        .map(|progression| u64::from(progression.steps))
        .sum::<u64>()
        <= FEW_VALUES as u64
    {
        return select_among_few(&progressions, ranks, before, values);
    }
    let middle = ranks[ranks.len() / 2] - before;
    let pivot = pivot(&progressions, (middle as f64 - 0.5) / total as f64);
    let (above, count_below, count_above) = split_off_above(&mut progressions, pivot);
    let from_pivot = ranks.partition_point(|&rank| rank - before <= count_below);
    let from_above = ranks.partition_point(|&rank| rank - before <= total - count_above);
    values[from_pivot..from_above].fill(pivot);
    select(
        progressions,
        count_below,
        &ranks[..from_pivot],
        before,
        &mut values[..from_pivot],
    );
    let before_above = before + (total - count_above);
    select(
        above,
        count_above,
        &ranks[from_above..],
        before_above,
        &mut values[from_above..],
    );
}

/// Leaves in the list what is below the pivot and returns what is above it, with the counts of both.
fn split_off_above(
    progressions: &mut Vec<Progression>,
    pivot: u64,
) -> (Vec<Progression>, u64, u64) {
    let mut above = Vec::new();
    let (mut kept, mut count_below, mut count_above) = (0, 0, 0);
    for index in 0..progressions.len() {
        let progression = progressions[index];
        let (low, high) = if progression.first > pivot {
            (0, 0)
        } else if progression.last() < pivot {
            (progression.steps, progression.steps)
        } else {
            progression.split(pivot)
        };
        if low > 0 {
            let part = progression.part(0, low);
            count_below += part.count();
            progressions[kept] = part;
            kept += 1;
        }
        if high < progression.steps {
            let part = progression.part(high, progression.steps);
            count_above += part.count();
            above.push(part);
        }
    }
    progressions.truncate(kept);
    (above, count_below, count_above)
}

fn select_among_few(progressions: &[Progression], ranks: &[u64], before: u64, values: &mut [u64]) {
    let mut all: Vec<(u64, u64)> = progressions
        .iter()
        .flat_map(|progression| {
            (0..progression.steps)
                .map(|index| (progression.value(index), u64::from(progression.weight)))
        })
        .collect();
    all.sort_unstable();
    let mut counted = before;
    let mut next = 0;
    for (value, weight) in all {
        counted += weight;
        while next < ranks.len() && ranks[next] <= counted {
            values[next] = value;
            next += 1;
        }
    }
    assert!(next == ranks.len(), "every rank lies among the values left");
}

/// A value of the list that is likely near its `share` quantile: that quantile of an evenly spaced sample.
fn pivot(progressions: &[Progression], share: f64) -> u64 {
    const SAMPLE: usize = 256;
    /// The golden ratio spreads the places inside the progressions evenly.
    const SPREAD: u64 = 0x9E37_79B9;
    let drawn = progressions.len().min(SAMPLE);
    let mut sample: Vec<(u64, u64)> = (0..drawn)
        .map(|draw| {
            let progression = &progressions[draw * progressions.len() / drawn];
            let spread = ((draw as u64 + 1) * SPREAD) & 0xFFFF_FFFF;
            let index = (spread * u64::from(progression.steps)) >> 32;
            (progression.value(index as u32), progression.count())
        })
        .collect();
    sample.sort_unstable();
    let weight: u64 = sample.iter().map(|(_, weight)| weight).sum();
    let wanted = (share * weight as f64) as u64;
    let mut counted = 0;
    for &(value, weight) in &sample {
        counted += weight;
        if counted > wanted {
            return value;
        }
    }
    sample[drawn - 1].0
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Span;
    use proptest::prelude::*;

    /// Every gap written out and sorted.
    fn expand(runs: &[GapRun]) -> Vec<u64> {
        let mut gaps = Vec::new();
        for run in runs {
            for step in 0..i64::from(run.steps) {
                let gap = run.first.0 as i64 + step * run.slope_ps;
                gaps.extend(std::iter::repeat_n(gap as u64, run.sequences as usize));
            }
        }
        gaps.sort_unstable();
        gaps
    }

    /// Runs over a range narrow enough that gaps collide, with rising, level and falling ones.
    fn any_run() -> impl Strategy<Value = GapRun> {
        (0u64..3000, -20i64..20, 0u32..60, 0u32..9).prop_map(
            |(least, slope_ps, steps, sequences)| {
                let descent = if slope_ps < 0 {
                    slope_ps.unsigned_abs() * u64::from(steps)
                } else {
                    0
                };
                GapRun {
                    first: Span(least + descent),
                    slope_ps,
                    steps,
                    sequences,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn equals_the_sorted_gaps(runs in prop::collection::vec(any_run(), 0..400), shares in prop::collection::vec(0.0f64..1.0, 1..8)) {
            let gaps = expand(&runs);
            if !gaps.is_empty() {
                let mut ranks: Vec<u64> = shares.iter().map(|share| 1 + (share * gaps.len() as f64) as u64).collect();
                ranks.extend([1, gaps.len() as u64]);
                ranks.sort_unstable();
                let expected: Vec<u64> = ranks.iter().map(|&rank| gaps[rank as usize - 1]).collect();
                prop_assert_eq!(values_at_ranks(&runs, &ranks), expected);
            }
        }
    }

    #[test]
    fn long_overlapping_runs() {
        // 1000 copies of 0, 3, ..., 29_997 and 1000 of 30_000, 29_993, ..., 3: the worst case for a split by pivots.
        let rising = GapRun {
            first: Span(0),
            slope_ps: 3,
            steps: 10_000,
            sequences: 7,
        };
        let falling = GapRun {
            first: Span(30_000),
            slope_ps: -7,
            steps: 4_286,
            sequences: 11,
        };
        let runs: Vec<GapRun> = (0..1000).flat_map(|_| [rising, falling]).collect();
        let one_of_each = expand(&[rising, falling]);
        let ranks: Vec<u64> = [1, 500, 50_000, 99_999, one_of_each.len() as u64]
            .map(|rank| rank * 1000)
            .to_vec();
        let expected: Vec<u64> = ranks
            .iter()
            .map(|rank| one_of_each[*rank as usize / 1000 - 1])
            .collect();
        assert_eq!(values_at_ranks(&runs, &ranks), expected);
    }

    #[test]
    fn enormous_weights_do_not_overflow() {
        let runs = [1u64, 2, 3].map(|first| GapRun {
            first: Span(first),
            slope_ps: 0,
            steps: u32::MAX,
            sequences: 1 << 20,
        });
        let each = u64::from(u32::MAX) << 20;
        assert_eq!(
            values_at_ranks(&runs, &[1, each, each + 1, 3 * each]),
            [1, 1, 2, 3]
        );
    }
}
