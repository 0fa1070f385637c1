//! Budgets against what they promise, and the fit against a search that tries everything.

use planner::PerRole;
use planner::budget::{
    GpuBudget, PairBudget, SingleBudget, fit_directional, guard_pair, guard_single,
};
use proptest::prelude::*;

fn pair(range: std::ops::Range<u32>) -> impl Strategy<Value = PerRole<u32>> {
    (range.clone(), range).prop_map(|(prefill, decode)| PerRole { prefill, decode })
}

fn bound() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(0u32..60)
}

prop_compose! {
    fn budget()(min in bound(), max in bound(), cost in pair(1..9), floor in pair(0..4)) -> PairBudget {
        PairBudget { gpus: GpuBudget { min, max }, cost, floor }
    }
}

fn gpus(budget: &PairBudget, counts: PerRole<u32>) -> u32 {
    counts.prefill * budget.cost.prefill + counts.decode * budget.cost.decode
}

fn is_between(a: u32, b: u32, x: u32) -> bool {
    a.min(b) <= x && x <= a.max(b)
}

/// The best pair of all between what there is and what is wanted; what there is if none fits.
fn best_of_all(budget: &PairBudget, now: PerRole<u32>, wish: PerRole<u32>) -> PerRole<u32> {
    let range = |a: u32, b: u32| a.min(b)..=a.max(b);
    let is_swap = (wish.prefill > now.prefill) != (wish.decode > now.decode)
        && wish.prefill != now.prefill
        && wish.decode != now.decode;
    let mut best = None;
    for prefill in range(now.prefill, wish.prefill) {
        for decode in range(now.decode, wish.decode) {
            let counts = PerRole { prefill, decode };
            let costs = [(prefill, budget.cost.prefill), (decode, budget.cost.decode)];
            let has_floors = prefill >= budget.floor.prefill && decode >= budget.floor.decode;
            let is_half = is_swap && (prefill == now.prefill) != (decode == now.decode);
            if !has_floors || is_half || !budget.gpus.allows(&costs) {
                continue;
            }
            let step = |a: u32, b: u32| i64::from(a.abs_diff(b));
            let moved = (step(prefill, now.prefill), step(decode, now.decode));
            let skew =
                moved.0 * step(wish.decode, now.decode) - moved.1 * step(wish.prefill, now.prefill);
            let distance = step(prefill, wish.prefill) + step(decode, wish.decode);
            let score = (distance, skew.abs(), -(moved.0 + moved.1), prefill, decode);
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, counts));
            }
        }
    }
    best.map_or(now, |(_, counts)| counts)
}

proptest! {
    #[test]
    fn the_fit_is_the_best_of_all(budget in budget(), now in pair(0..12), wish in pair(0..12)) {
        prop_assert_eq!(fit_directional(&budget, now, wish), best_of_all(&budget, now, wish));
    }

    #[test]
    fn a_guarded_wish_is_never_turned_round(budget in budget(), now in pair(0..12), wish in pair(0..12)) {
        let (counts, reason) = guard_pair(&budget, now, wish);
        if reason.is_none() {
            prop_assert!(is_between(now.prefill, wish.prefill, counts.prefill));
            prop_assert!(is_between(now.decode, wish.decode, counts.decode));
            prop_assert!(budget.gpus.max.is_none_or(|max| gpus(&budget, counts) <= max));
        }
    }

    #[test]
    fn a_clamp_never_breaks_the_ceiling(budget in budget(), wish in pair(0..12)) {
        let clamped = budget.clamp(wish);
        let is_mended = budget.gpus.min.is_none_or(|min| budget.gpus.max.is_none_or(|max| min <= max));
        if is_mended {
            prop_assert!(budget.gpus.max.is_none_or(|max| gpus(&budget, clamped) <= max));
        }
    }

    #[test]
    fn one_role_stays_within_its_direction(
        (min, max) in (bound(), bound()), cost in 1u32..9, floor in 0u32..4, now in 0u32..12, wish in 0u32..12,
    ) {
        let budget = SingleBudget { gpus: GpuBudget { min, max }, cost, floor };
        let (count, reason) = guard_single(&budget, now, wish);
        if reason.is_none() {
            prop_assert!(is_between(now, wish, count));
        }
    }
}
