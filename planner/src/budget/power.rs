//! Power budgets: the watts that replicas are expected to draw together stay below a limit.
//!
//! Only ever lowers counts. If one role is to grow while the other shrinks and both at once would be too much, those that
//! shrink go first and growth waits for a later tick. If what there is fits, the wish is fitted in its own direction; if not,
//! counts shrink in proportion. A role that nobody proposed stays as it is and is paid for first; if it leaves no room for the
//! other's floor, the other does not grow.

use super::{GpuBudget, PairBudget, fit_directional};
use crate::observe::{PerRole, Role};
use std::fmt;

/// What replicas draw and may draw together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerBudget {
    /// Watts of one replica; `None` for a role that is not there.
    pub watts: PerRole<Option<u32>>,
    /// The limit in watts.
    pub limit: u32,
    /// Replicas below which a role does not go.
    pub floor: PerRole<u32>,
}

/// Why counts were lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerReason {
    /// They would draw too much.
    Clamped,
    /// Growth waits until the other role has shrunk.
    Staged,
    /// The other role leaves no room for it.
    Suppressed,
}

impl fmt::Display for PowerReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PowerReason::Clamped => "power_budget_clamped",
            PowerReason::Staged => "power_rebalance_staged",
            PowerReason::Suppressed => "power_budget_scale_up_suppressed",
        })
    }
}

/// The allowed counts and why they are lower, if they are; `None` if not even the floors fit.
pub type PowerClamp = Option<(PerRole<Option<u32>>, Option<PowerReason>)>;

/// Lowers `proposed` until it fits. Roles without a proposal are charged as they are.
#[must_use]
pub fn fit_power(
    budget: &PowerBudget,
    current: PerRole<Option<u32>>,
    proposed: PerRole<Option<u32>>,
) -> PowerClamp {
    let now = current.map(|count| count.unwrap_or(0));
    let is_adjustable = |role: Role| {
        proposed.get(role).is_some() && budget.watts.get(role).is_some_and(|watts| watts > 0)
    };
    match (is_adjustable(Role::Prefill), is_adjustable(Role::Decode)) {
        (true, true) => {
            let wish = proposed.map(|count| count.expect("an adjustable role is proposed"));
            return fit_both(budget, now, wish);
        }
        _ if budget.draw(merge(proposed, current)) <= i64::from(budget.limit) => {}
        (true, false) => return Some(fit_one(budget, Role::Prefill, current, proposed)),
        (false, true) => return Some(fit_one(budget, Role::Decode, current, proposed)),
        (false, false) => {}
    }
    Some((proposed, None))
}

impl PowerBudget {
    fn draw(&self, counts: PerRole<u32>) -> i64 {
        let of = |role| i64::from(*counts.get(role)) * i64::from(self.watts.get(role).unwrap_or(0));
        of(Role::Prefill) + of(Role::Decode)
    }

    fn fits(&self, counts: PerRole<u32>) -> bool {
        self.draw(counts) <= i64::from(self.limit)
    }

    fn as_pair(&self) -> PairBudget {
        PairBudget {
            gpus: GpuBudget {
                min: None,
                max: Some(self.limit),
            },
            cost: self.watts.map(|watts| watts.unwrap_or(0)),
            floor: self.floor,
        }
    }

    /// Growth withheld, if both moves at once would draw too much.
    fn staged(&self, now: PerRole<u32>, wish: PerRole<u32>) -> Option<PerRole<u32>> {
        let is_swap = (wish.prefill > now.prefill && wish.decode < now.decode)
            || (wish.prefill < now.prefill && wish.decode > now.decode);
        let peak = PerRole {
            prefill: now.prefill.max(wish.prefill),
            decode: now.decode.max(wish.decode),
        };
        (is_swap && !self.fits(peak)).then(|| PerRole {
            prefill: now.prefill.min(wish.prefill),
            decode: now.decode.min(wish.decode),
        })
    }
}

fn merge(proposed: PerRole<Option<u32>>, current: PerRole<Option<u32>>) -> PerRole<u32> {
    PerRole {
        prefill: proposed.prefill.or(current.prefill).unwrap_or(0),
        decode: proposed.decode.or(current.decode).unwrap_or(0),
    }
}

fn fit_both(budget: &PowerBudget, now: PerRole<u32>, wish: PerRole<u32>) -> PowerClamp {
    let because = |counts: PerRole<u32>, reason| Some((counts.map(Some), reason));
    if let Some(staged) = budget.staged(now, wish) {
        return because(staged, Some(PowerReason::Staged));
    }
    if budget.fits(wish) {
        return because(wish, None);
    }
    if budget.fits(now) {
        let fitted = fit_directional(&budget.as_pair(), now, wish);
        return because(fitted, Some(PowerReason::Clamped));
    }
    if !budget.fits(budget.floor) {
        return None;
    }
    let shrunk = budget.as_pair().clamp(wish);
    let shrunk = PerRole {
        prefill: shrunk.prefill.min(wish.prefill),
        decode: shrunk.decode.min(wish.decode),
    };
    match budget.staged(now, shrunk) {
        Some(staged) => because(staged, Some(PowerReason::Staged)),
        None => because(shrunk, Some(PowerReason::Clamped)),
    }
}

fn fit_one(
    budget: &PowerBudget,
    role: Role,
    current: PerRole<Option<u32>>,
    proposed: PerRole<Option<u32>>,
) -> (PerRole<Option<u32>>, Option<PowerReason>) {
    let wish = proposed.get(role).expect("an adjustable role is proposed");
    let watts = budget
        .watts
        .get(role)
        .expect("an adjustable role has watts");
    let mut others = merge(proposed, current);
    *others.get_mut(role) = 0;
    let left = i64::from(budget.limit) - budget.draw(others);
    let floor = *budget.floor.get(role);
    let (fitted, reason) = if left < i64::from(floor) * i64::from(watts) {
        let held = wish.min(current.get(role).unwrap_or(0));
        (held, PowerReason::Suppressed)
    } else {
        let most = (left / i64::from(watts)) as u32;
        (wish.min(most).max(floor), PowerReason::Clamped)
    };
    let mut counts = proposed;
    *counts.get_mut(role) = Some(fitted);
    (counts, (fitted != wish).then_some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(prefill: u32, decode: u32) -> PerRole<Option<u32>> {
        PerRole {
            prefill: Some(prefill),
            decode: Some(decode),
        }
    }

    fn budget(limit: u32) -> PowerBudget {
        PowerBudget {
            watts: pair(100, 100),
            limit,
            floor: PerRole {
                prefill: 1,
                decode: 1,
            },
        }
    }

    #[test]
    fn an_exchange_that_peaks_too_high_goes_in_two_steps() {
        // 1 + 4 to 4 + 1 would draw 800 W in between.
        assert_eq!(
            fit_power(&budget(500), pair(1, 4), pair(4, 1)),
            Some((pair(1, 1), Some(PowerReason::Staged)))
        );
    }

    #[test]
    fn a_role_that_was_not_proposed_is_paid_first() {
        let only_prefill = PerRole {
            prefill: Some(5),
            decode: None,
        };
        let (counts, reason) = fit_power(&budget(500), pair(1, 3), only_prefill).unwrap();
        assert_eq!(
            (counts.prefill, counts.decode, reason),
            (Some(2), None, Some(PowerReason::Clamped))
        );
    }

    #[test]
    fn floors_above_the_limit_have_no_answer() {
        assert_eq!(fit_power(&budget(150), pair(4, 4), pair(3, 3)), None);
    }
}
