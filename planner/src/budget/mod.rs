//! GPU budgets: between how many GPUs the workers may use, and how counts are made to fit.
//!
//! A budget is a band of GPUs. The upper bound is hard. The lower one gives way by the GPUs of the widest replica where both
//! bounds are set, because whole replicas cannot always hit a narrow band. Counts outside the band are scaled to the nearest
//! bound in proportion, prefill first and decode with what is left; replica floors come before proportion, and if not even
//! the floors fit under the upper bound, the answer is zero. Source: Dynamo 1.6.1, `planner/core/budget.py`; its recorded
//! answers are compared by `dynosim conform planner`.

mod directional;
mod guard;
mod power;

pub use directional::fit_directional;
pub use guard::{guard_pair, guard_single};
pub use power::{PowerBudget, PowerClamp, PowerReason, fit_power};

use crate::observe::PerRole;

/// The GPUs that workers may use together; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuBudget {
    /// At least.
    pub min: Option<u32>,
    /// At most.
    pub max: Option<u32>,
}

impl GpuBudget {
    /// The same upper bound, no lower one.
    #[must_use]
    pub fn ceiling_only(self) -> GpuBudget {
        GpuBudget { min: None, ..self }
    }

    /// How far the lower bound gives way for replicas of so many GPUs.
    fn tolerance(self, widest: u32) -> i64 {
        match (self.min, self.max) {
            (Some(_), Some(_)) => i64::from(widest),
            _ => 0,
        }
    }

    fn holds(self, gpus: i64, tolerance: i64) -> bool {
        self.max.is_none_or(|max| gpus <= i64::from(max))
            && self
                .min
                .is_none_or(|min| gpus >= i64::from(min) - tolerance)
    }

    fn is_unbounded(self) -> bool {
        self.min.is_none() && self.max.is_none()
    }

    /// Whether replicas of these costs, so many of each, are within the band.
    #[must_use]
    pub fn allows(self, replicas: &[(u32, u32)]) -> bool {
        let total = replicas
            .iter()
            .map(|&(count, cost)| i64::from(count) * i64::from(cost))
            .sum();
        let widest = replicas.iter().map(|&(_, cost)| cost).max();
        self.holds(total, self.tolerance(widest.unwrap_or(0)))
    }
}

/// What a pair of roles may use and must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairBudget {
    /// The band.
    pub gpus: GpuBudget,
    /// GPUs of one replica.
    pub cost: PerRole<u32>,
    /// Replicas below which a role does not go.
    pub floor: PerRole<u32>,
}

impl PairBudget {
    fn total(&self, counts: PerRole<u32>) -> i64 {
        i64::from(counts.prefill) * i64::from(self.cost.prefill)
            + i64::from(counts.decode) * i64::from(self.cost.decode)
    }

    fn widest(&self) -> u32 {
        self.cost.prefill.max(self.cost.decode)
    }

    fn has_costs(&self) -> bool {
        self.cost.prefill > 0 && self.cost.decode > 0
    }

    /// Counts scaled into the band in proportion.
    #[must_use]
    pub fn clamp(&self, counts: PerRole<u32>) -> PerRole<u32> {
        if self.gpus.is_unbounded() || !self.has_costs() {
            return counts;
        }
        let total = self.total(counts);
        if self.gpus.holds(total, self.gpus.tolerance(self.widest())) {
            return counts;
        }
        match self.gpus.max {
            Some(max) if total > i64::from(max) => self.shrink(counts, total, max),
            _ => self.grow(counts, total),
        }
    }

    fn shrink(&self, counts: PerRole<u32>, total: i64, max: u32) -> PerRole<u32> {
        if i64::from(max) < self.total(self.floor) {
            return PerRole::default();
        }
        let scale = f64::from(max) / total as f64;
        let left_for_prefill =
            i64::from(max) - i64::from(self.floor.decode) * i64::from(self.cost.decode);
        let most = left_for_prefill.div_euclid(i64::from(self.cost.prefill));
        let scaled = (f64::from(counts.prefill) * scale).floor() as i64;
        let prefill = most.min(scaled).max(i64::from(self.floor.prefill));
        let left = i64::from(max) - prefill * i64::from(self.cost.prefill);
        let decode = left
            .div_euclid(i64::from(self.cost.decode))
            .max(i64::from(self.floor.decode));
        PerRole {
            prefill: prefill as u32,
            decode: decode as u32,
        }
    }

    fn grow(&self, counts: PerRole<u32>, total: i64) -> PerRole<u32> {
        let min = self
            .gpus
            .min
            .expect("counts below the band have a lower bound");
        let wanted = if total <= 0 {
            f64::from(min) / 2.0 / f64::from(self.cost.prefill)
        } else {
            f64::from(counts.prefill) * (f64::from(min) / total as f64)
        };
        let prefill = (wanted.ceil() as u32).max(self.floor.prefill);
        let left = (i64::from(min) - i64::from(prefill) * i64::from(self.cost.prefill)).max(0);
        let filled = left.unsigned_abs().div_ceil(u64::from(self.cost.decode)) as u32;
        let filled = filled.max(self.floor.decode);
        let grown = PerRole {
            prefill,
            decode: filled.max(counts.decode),
        };
        if self
            .gpus
            .max
            .is_none_or(|max| self.total(grown) <= i64::from(max))
        {
            return grown;
        }
        // Whole prefill replicas went past the upper bound. If decode would have had to shrink for them, as many of them as
        // fit beside decode as it is; otherwise nothing moves.
        if filled >= counts.decode {
            return counts;
        }
        let proposed = PerRole {
            prefill,
            decode: counts.decode,
        };
        fit_directional(self, counts, proposed)
    }
}

/// What one role may use and must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SingleBudget {
    /// The band.
    pub gpus: GpuBudget,
    /// GPUs of one replica.
    pub cost: u32,
    /// Replicas below which it does not go.
    pub floor: u32,
}

impl SingleBudget {
    fn holds(&self, count: u32) -> bool {
        let gpus = i64::from(count) * i64::from(self.cost);
        self.gpus.holds(gpus, self.gpus.tolerance(self.cost))
    }

    /// The count moved to the nearest bound of the band if it is outside.
    #[must_use]
    pub fn clamp(&self, count: u32) -> u32 {
        if self.gpus.is_unbounded() || self.cost == 0 || self.holds(count) {
            return count;
        }
        match self.gpus.max {
            Some(max) if u64::from(count) * u64::from(self.cost) > u64::from(max) => {
                if u64::from(max) < u64::from(self.floor) * u64::from(self.cost) {
                    0
                } else {
                    (max / self.cost).max(self.floor)
                }
            }
            _ => self
                .gpus
                .min
                .expect("a count below the band has a lower bound")
                .div_ceil(self.cost)
                .max(self.floor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(min: Option<u32>, max: Option<u32>, cost: (u32, u32), floor: (u32, u32)) -> PairBudget {
        PairBudget {
            gpus: GpuBudget { min, max },
            cost: both(cost),
            floor: both(floor),
        }
    }

    fn both((prefill, decode): (u32, u32)) -> PerRole<u32> {
        PerRole { prefill, decode }
    }

    #[test]
    fn too_many_shrink_in_proportion_and_decode_takes_the_rest() {
        // 7 x 2 + 10 x 4 = 54 GPUs for 14: prefill floor(7 x 14 / 54) = 1, its floor 2; decode (14 - 4) / 4 = 2.
        let budget = pair(None, Some(14), (2, 4), (2, 0));
        assert_eq!(budget.clamp(both((7, 10))), both((2, 2)));
    }

    #[test]
    fn the_lower_bound_gives_way_by_one_wide_replica() {
        let narrow = pair(Some(5), Some(5), (2, 2), (1, 1));
        assert_eq!(narrow.clamp(both((1, 1))), both((1, 1))); // 4 GPUs are within 5 - 2
        let only_min = pair(Some(5), None, (2, 2), (1, 1));
        assert_eq!(only_min.clamp(both((1, 1))), both((2, 1))); // ceil(1 x 5 / 4) = 2, ceil(1 / 2) = 1
    }

    #[test]
    fn floors_that_cannot_fit_give_nothing() {
        let budget = pair(None, Some(3), (2, 2), (1, 1));
        assert_eq!(budget.clamp(both((4, 4))), both((0, 0)));
        let single = SingleBudget {
            gpus: GpuBudget {
                min: None,
                max: Some(3),
            },
            cost: 4,
            floor: 1,
        };
        assert_eq!(single.clamp(2), 0);
    }

    #[test]
    fn a_single_role_moves_to_the_nearest_bound() {
        let budget = SingleBudget {
            gpus: GpuBudget {
                min: Some(10),
                max: Some(39),
            },
            cost: 4,
            floor: 0,
        };
        assert_eq!(budget.clamp(12), 9); // 48 GPUs: floor(39 / 4)
        assert_eq!(budget.clamp(2), 2); // 8 GPUs: within 10 - 4
        assert_eq!(budget.clamp(1), 3); // 4 GPUs: ceil(10 / 4)
    }
}
