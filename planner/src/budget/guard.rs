//! Budgets for one decision: it may be stopped or shortened, never turned round or made larger.
//!
//! If what there is breaks the band, the decision is dropped and what there is is mended instead. At the lower bound nothing
//! goes down, at the upper bound nothing goes up; with two roles an exchange (one up, one down) may still be fitted there.
//! Otherwise the wish is clamped in proportion, and if the clamp moved it outside of its own direction, nothing happens.

use super::{PairBudget, SingleBudget, fit_directional};
use crate::decision::Reason;
use crate::observe::PerRole;

/// The allowed count of one role and, if the wish was not simply granted or shortened, why.
#[must_use]
pub fn guard_single(budget: &SingleBudget, current: u32, proposed: u32) -> (u32, Option<Reason>) {
    if budget.cost == 0 {
        return (proposed, None);
    }
    if !budget.holds(current) {
        return (budget.clamp(current), Some(Reason::GpuBudgetReconcile));
    }
    let gpus = u64::from(current) * u64::from(budget.cost);
    let is_at_min = budget.gpus.min.is_some_and(|min| gpus <= u64::from(min));
    let is_at_max = budget.gpus.max.is_some_and(|max| gpus >= u64::from(max));
    if (is_at_min && proposed < current) || (is_at_max && proposed > current) {
        return (current, Some(Reason::GpuBudgetGuardHold));
    }
    let fitted = budget.clamp(proposed);
    if is_between(current, proposed, fitted) {
        (fitted, None)
    } else {
        (current, Some(Reason::GpuBudgetGuardHold))
    }
}

/// The same for two roles.
#[must_use]
pub fn guard_pair(
    budget: &PairBudget,
    current: PerRole<u32>,
    proposed: PerRole<u32>,
) -> (PerRole<u32>, Option<Reason>) {
    if !budget.has_costs() {
        return (budget.clamp(proposed), None);
    }
    let hold = (current, Some(Reason::GpuBudgetGuardHold));
    let gpus = budget.total(current);
    // Here the lower bound gives way whenever there is an upper one.
    let tolerance = match budget.gpus.max {
        Some(_) => i64::from(budget.widest()),
        None => 0,
    };
    if !budget.gpus.holds(gpus, tolerance) {
        return (budget.clamp(current), Some(Reason::GpuBudgetReconcile));
    }
    let moves = PerRole {
        prefill: proposed.prefill.cmp(&current.prefill),
        decode: proposed.decode.cmp(&current.decode),
    };
    let is_any_down = moves.prefill.is_lt() || moves.decode.is_lt();
    let is_any_up = moves.prefill.is_gt() || moves.decode.is_gt();
    let is_swap = is_any_down && is_any_up;
    let is_at_min = budget.gpus.min.is_some_and(|min| gpus <= i64::from(min));
    let is_at_max = budget.gpus.max.is_some_and(|max| gpus >= i64::from(max));
    if is_at_min && is_any_down && !is_any_up || is_at_max && is_any_up && !is_swap {
        return hold;
    }
    if is_swap && (is_at_min || is_at_max) {
        let fitted = fit_directional(budget, current, proposed);
        return if fitted == current {
            hold
        } else {
            (fitted, None)
        };
    }
    let fitted = budget.clamp(proposed);
    let is_in_direction = is_between(current.prefill, proposed.prefill, fitted.prefill)
        && is_between(current.decode, proposed.decode, fitted.decode);
    if is_in_direction && budget.gpus.holds(budget.total(fitted), tolerance) {
        (fitted, None)
    } else {
        hold
    }
}

fn is_between(current: u32, proposed: u32, fitted: u32) -> bool {
    current.min(proposed) <= fitted && fitted <= current.max(proposed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::GpuBudget;

    fn single(min: Option<u32>, max: Option<u32>) -> SingleBudget {
        SingleBudget {
            gpus: GpuBudget { min, max },
            cost: 2,
            floor: 1,
        }
    }

    #[test]
    fn at_a_bound_nothing_crosses_it() {
        let hold = Some(Reason::GpuBudgetGuardHold);
        assert_eq!(guard_single(&single(None, Some(8)), 4, 5), (4, hold));
        assert_eq!(guard_single(&single(Some(8), Some(20)), 4, 3), (4, hold));
        assert_eq!(guard_single(&single(None, Some(8)), 2, 9), (4, None));
    }

    #[test]
    fn outside_the_band_what_there_is_is_mended() {
        let mended = Some(Reason::GpuBudgetReconcile);
        assert_eq!(guard_single(&single(None, Some(8)), 6, 7), (4, mended));
    }

    #[test]
    fn at_the_ceiling_only_an_exchange_passes() {
        let pair = |prefill, decode| PerRole { prefill, decode };
        let budget = PairBudget {
            gpus: GpuBudget {
                min: None,
                max: Some(4),
            },
            cost: pair(1, 1),
            floor: pair(1, 1),
        };
        let hold = Some(Reason::GpuBudgetGuardHold);
        assert_eq!(
            guard_pair(&budget, pair(2, 2), pair(2, 3)),
            (pair(2, 2), hold)
        );
        assert_eq!(
            guard_pair(&budget, pair(2, 2), pair(1, 3)),
            (pair(1, 3), None)
        );
    }
}
