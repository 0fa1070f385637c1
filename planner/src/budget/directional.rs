//! The nearest counts within a budget that lie between what there is and what is wanted.
//!
//! Neither role may move against its wish or past it. If one role is to grow and the other to shrink, both move or none does:
//! a donor never gives without its receiver taking. Among the pairs that fit, the one with the fewest replicas to the wish wins,
//! then the one whose two moves are most nearly in the wished proportion, then the one that moves more, then the smaller
//! counts. Every prefill count is tried; for each, the budget leaves one interval of decode counts, and only its end nearest
//! to the wish can win.

use super::PairBudget;
use crate::observe::{PerRole, Role};
use std::cmp::Reverse;

/// One role's counts: what there is, what is wanted, and the range to stay in.
#[derive(Debug, Clone, Copy)]
struct Axis {
    current: i64,
    proposed: i64,
    low: i64,
    high: i64,
    cost: i64,
}

/// The fitted counts; the current ones if nothing fits.
#[must_use]
pub fn fit_directional(
    budget: &PairBudget,
    current: PerRole<u32>,
    proposed: PerRole<u32>,
) -> PerRole<u32> {
    if !budget.has_costs() {
        return proposed;
    }
    let tolerance = budget.gpus.tolerance(budget.widest());
    let axis = |role| {
        let (current, proposed) = (
            i64::from(*current.get(role)),
            i64::from(*proposed.get(role)),
        );
        Axis {
            current,
            proposed,
            low: current
                .min(proposed)
                .max(i64::from(*budget.floor.get(role))),
            high: current.max(proposed),
            cost: i64::from(*budget.cost.get(role)),
        }
    };
    let (mut p, mut d) = (axis(Role::Prefill), axis(Role::Decode));
    if let Some(max) = budget.gpus.max.map(i64::from) {
        p.high = p.high.min((max - d.low * d.cost).div_euclid(p.cost));
        d.high = d.high.min((max - p.low * p.cost).div_euclid(d.cost));
    }
    let least = budget.gpus.min.map(|min| i64::from(min) - tolerance);
    if let Some(least) = least {
        p.low = p.low.max(div_ceil(least - d.high * d.cost, p.cost));
        d.low = d.low.max(div_ceil(least - p.high * p.cost, d.cost));
    }
    if p.low > p.high || d.low > d.high {
        return current;
    }
    let has_floors = Role::BOTH
        .iter()
        .all(|&role| proposed.get(role) >= budget.floor.get(role));
    if has_floors && budget.gpus.holds(budget.total(proposed), tolerance) {
        return proposed;
    }
    let candidates = (p.low..=p.high).filter_map(|count| {
        let decode = partner(budget, least, (p, count), d)?;
        Some((count, decode))
    });
    let best = candidates.min_by_key(|&(a, b)| {
        let (moved_p, moved_d) = ((a - p.current).abs(), (b - d.current).abs());
        let skew =
            moved_p * (d.proposed - d.current).abs() - moved_d * (p.proposed - p.current).abs();
        let distance = (p.proposed - a).abs() + (d.proposed - b).abs();
        (distance, skew.abs(), Reverse(moved_p + moved_d), a, b)
    });
    best.map_or(current, |(prefill, decode)| PerRole {
        prefill: prefill as u32,
        decode: decode as u32,
    })
}

/// The decode count nearest to the wish that the budget allows beside `count` prefill replicas.
fn partner(
    budget: &PairBudget,
    least: Option<i64>,
    (p, count): (Axis, i64),
    d: Axis,
) -> Option<i64> {
    let used = count * p.cost;
    let (mut low, mut high) = (d.low, d.high);
    if let Some(least) = least {
        low = low.max(div_ceil(least - used, d.cost));
    }
    if let Some(max) = budget.gpus.max {
        high = high.min((i64::from(max) - used).div_euclid(d.cost));
    }
    let is_swap = (p.proposed - p.current) * (d.proposed - d.current) < 0;
    if is_swap {
        if count == p.current {
            return (low <= d.current && d.current <= high).then_some(d.current);
        }
        if d.proposed > d.current {
            low = low.max(d.current + 1);
        } else {
            high = high.min(d.current - 1);
        }
    }
    (low <= high).then(|| d.proposed.clamp(low, high))
}

fn div_ceil(a: i64, b: i64) -> i64 {
    -(-a).div_euclid(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::GpuBudget;

    fn pair(prefill: u32, decode: u32) -> PerRole<u32> {
        PerRole { prefill, decode }
    }

    fn budget(max: u32, cost: PerRole<u32>) -> PairBudget {
        PairBudget {
            gpus: GpuBudget {
                min: None,
                max: Some(max),
            },
            cost,
            floor: pair(1, 1),
        }
    }

    #[test]
    fn a_swap_moves_both_or_none() {
        // 4 prefill of 1 GPU give room for one decode of 4 GPUs only all together, but one must stay: nothing moves.
        assert_eq!(
            fit_directional(&budget(8, pair(1, 4)), pair(4, 1), pair(3, 2)),
            pair(4, 1)
        );
        assert_eq!(
            fit_directional(&budget(8, pair(2, 4)), pair(2, 1), pair(1, 2)),
            pair(2, 1)
        );
        assert_eq!(
            fit_directional(&budget(10, pair(2, 4)), pair(3, 1), pair(1, 2)),
            pair(1, 2)
        );
    }

    #[test]
    fn growth_stops_at_the_ceiling_without_taking_from_the_other() {
        assert_eq!(
            fit_directional(&budget(8, pair(1, 1)), pair(2, 2), pair(6, 6)),
            pair(4, 4)
        );
        assert_eq!(
            fit_directional(&budget(8, pair(1, 1)), pair(2, 5), pair(6, 5)),
            pair(3, 5)
        );
    }
}
