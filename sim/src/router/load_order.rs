//! The cheapest rank without a look at all of them.
//!
//! Ranks that hold nothing of a prompt, neither in cache nor in active requests, differ in cost only by their load: each
//! costs `key(rank) + base(request)`. A [tournament](super::min_tree) keeps the keys, so that the cheapest of these ranks,
//! how many are exactly as cheap, and the n-th of them are known at the cost of its height. The few ranks that do hold
//! something take part with `cost - base` for the time of one decision. Where so many do that this costs more than to look
//! at all ranks, all are looked at.
//!
//! The choice is that of the plain scan to the last tie. That needs sums without rounding: costs are then multiples of one
//! power of two, far fewer than 2^53 of them, and it does not matter in which order parts are added. Block sizes that are a
//! power of two and weights that are sixteenths give that; others are scanned, as are temperatures above 0, where each
//! rank has its probability, and credits that decay, where each cost depends on the least busy rank.

use super::cost::{CostWeights, Demand, Overlap, RankLoad, cost};
use super::indexer::Rank;
use super::min_tree::MinTree;

/// Ranks by what their load costs.
#[derive(Debug, Clone)]
pub struct LoadOrder {
    weights: CostWeights,
    block_size: u32,
    keys: MinTree<f64>,
    /// Keys of the ranks that take part with another cost now.
    usual: Vec<(Rank, f64)>,
}

/// A rank that holds some of the prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Holder {
    /// The rank.
    pub rank: Rank,
    /// What it has cached.
    pub overlap: Overlap,
    /// Its load, with the blocks that the request would add.
    pub load: RankLoad,
}

impl LoadOrder {
    /// Idle ranks; `None` where the choice needs the cost of each.
    #[must_use]
    pub fn new(
        weights: CostWeights,
        temperature: f64,
        block_size: u32,
        ranks: usize,
    ) -> Option<Self> {
        let CostWeights {
            overlap_score_credit,
            overlap_score_credit_decay,
            prefill_load_scale,
            decode_active_request_weight,
            host_cache_hit_weight,
            disk_cache_hit_weight,
            shared_cache_multiplier,
            track_prefill_tokens: _,
            is_decode_router: _,
        } = weights;
        let is_exact = [
            overlap_score_credit,
            prefill_load_scale,
            decode_active_request_weight,
            host_cache_hit_weight,
            disk_cache_hit_weight,
            shared_cache_multiplier,
        ]
        .iter()
        .all(|weight| (weight * 16.0).fract() == 0.0 && (0.0..=16.0).contains(weight));
        let is_apart = temperature == 0.0 && overlap_score_credit_decay == 0.0;
        let is_power = block_size.is_power_of_two() && block_size <= 1 << 16;
        (is_exact && is_apart && is_power && ranks > 0).then(|| LoadOrder {
            weights,
            block_size,
            keys: MinTree::of(&vec![0.0; ranks]),
            usual: Vec::new(),
        })
    }

    /// Takes note of a rank's load.
    pub fn note(&mut self, rank: Rank, load: &RankLoad) {
        let nothing = Demand {
            prompt_tokens: 0,
            block_size: self.block_size,
        };
        let key = cost(&self.weights, &nothing, &Overlap::default(), Some(load), 0);
        self.keys.set(rank as usize, key);
    }

    /// Whether the cheapest is found sooner here than by a look at all, if so many ranks hold some of the prompt.
    #[must_use]
    pub fn pays_off(&self, holders: usize) -> bool {
        let height = self.keys.len().ilog2() as usize + 1;
        2 * holders * height < self.keys.len()
    }

    /// The cheapest rank; `draw` says which of several that cost the same. A request that adds `blocks` blocks to ranks
    /// that hold none of its prompt; all others are `holders`.
    pub fn cheapest(
        &mut self,
        demand: &Demand,
        blocks: u32,
        holders: &[Holder],
        draw: impl FnOnce(usize) -> usize,
    ) -> Rank {
        let idle = RankLoad {
            additional_active_blocks: u64::from(blocks),
            ..RankLoad::default()
        };
        let base = cost(&self.weights, demand, &Overlap::default(), Some(&idle), 0);
        for Holder {
            rank,
            overlap,
            load,
        } in holders
        {
            let cost = cost(&self.weights, demand, overlap, Some(load), 0);
            self.usual.push((*rank, self.keys.get(*rank as usize)));
            self.keys.set(*rank as usize, cost - base);
        }
        let chosen = self.keys.nth_least(draw(self.keys.least().count));
        for (rank, key) in self.usual.drain(..) {
            self.keys.set(rank as usize, key);
        }
        chosen as Rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_costs_that_add_up_exactly_are_kept_in_order() {
        let order = |weights, temperature, block_size| {
            LoadOrder::new(weights, temperature, block_size, 4).is_some()
        };
        let default = CostWeights::default();
        assert!(order(default, 0.0, 16) && order(default, 0.0, 1));
        assert!(!order(default, 0.1, 16) && !order(default, 0.0, 48));
        let scaled = |prefill_load_scale| CostWeights {
            prefill_load_scale,
            ..default
        };
        assert!(order(scaled(0.5), 0.0, 16) && !order(scaled(0.3), 0.0, 16));
        let decays = CostWeights {
            overlap_score_credit_decay: 0.5,
            ..default
        };
        assert!(!order(decays, 0.0, 16));
    }
}
