//! The cheapest rank without a look at all of them.
//!
//! Ranks that hold nothing of a prompt, neither in cache nor in active requests, differ in cost only by their load, their
//! *key*. What a rank holds makes the request cheaper there by a *gain* that does not depend on the load. A
//! [tournament](super::min_tree) keeps the keys, so that the least, how many are exactly as low, and the n-th of them are
//! known at the cost of its height; the few ranks that hold something take part with key less gain for the time of one
//! decision. Where so many do that this costs more than to look at all keys, all are looked at: a subtraction and a
//! comparison each.
//!
//! The choice is that of the plain scan to the last tie. That needs sums without rounding: costs are then multiples of one
//! power of two, far fewer than 2^53 of them, and it does not matter in which order parts are added. Block sizes that are a
//! power of two and weights that are sixteenths give that; others are scanned, as are temperatures above 0, where each
//! rank has its probability, credits that decay, where each cost depends on the least busy rank, and credits that exceed
//! the prompt, which cut a cost off at 0.

use super::cost::{CostWeights, Demand, Overlap, RankLoad, cost};
use super::indexer::Rank;
use super::min_tree::MinTree;

/// Ranks by what their load costs.
#[derive(Debug, Clone)]
pub struct LoadOrder {
    weights: CostWeights,
    block_size: u32,
    keys: MinTree<f64>,
    /// Keys of the ranks that take part with another one now.
    usual: Vec<(Rank, f64)>,
    /// Scratch space: all keys less gains.
    all: Vec<f64>,
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
            all: Vec::new(),
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

    /// A rank must not be chosen until its load is noted again.
    pub fn leave(&mut self, rank: Rank) {
        self.keys.set(rank as usize, f64::INFINITY);
    }

    /// How much cheaper a request is on a rank that has `overlap` cached and `shared` of the prompt's blocks in active
    /// requests than on one with nothing; `None` where that depends on the load.
    #[must_use]
    pub fn gain(&self, demand: &Demand, overlap: &Overlap, shared: u32) -> Option<f64> {
        let weights = &self.weights;
        let credit = weights.credit(overlap, 1.0);
        let saved = match (weights.track_prefill_tokens, weights.is_decode_router) {
            (false, true) if weights.overlap_score_credit > 0.0 && credit > 0.0 => return None,
            (false, _) => 0.0,
            (true, _) => {
                let (prompt, block) = (demand.prompt_tokens as f64, f64::from(self.block_size));
                // The number of cached tokens is rounded.
                if credit * block > prompt || overlap.effective(weights) * block >= prompt + 0.5 {
                    return None;
                }
                weights.prefill_load_scale * credit
            }
        };
        Some(saved + f64::from(shared))
    }

    /// The rank of least key less gain, each rank with a gain once in `gains`; `draw` says which of several that have it.
    pub fn cheapest(&mut self, gains: &[(Rank, f64)], draw: impl FnOnce(usize) -> usize) -> Rank {
        let height = self.keys.len().ilog2() as usize + 1;
        if 2 * gains.len() * height < self.keys.len() {
            self.cheapest_by_tournament(gains, draw)
        } else {
            self.cheapest_of_all(gains, draw)
        }
    }

    fn cheapest_by_tournament(
        &mut self,
        gains: &[(Rank, f64)],
        draw: impl FnOnce(usize) -> usize,
    ) -> Rank {
        for &(rank, gain) in gains {
            let key = self.keys.get(rank as usize);
            self.usual.push((rank, key));
            self.keys.set(rank as usize, key - gain);
        }
        let chosen = self.keys.nth_least(draw(self.keys.least().count));
        for (rank, key) in self.usual.drain(..) {
            self.keys.set(rank as usize, key);
        }
        chosen as Rank
    }

    fn cheapest_of_all(
        &mut self,
        gains: &[(Rank, f64)],
        draw: impl FnOnce(usize) -> usize,
    ) -> Rank {
        self.all.clear();
        self.all.extend(self.keys.loads());
        for &(rank, gain) in gains {
            self.all[rank as usize] -= gain;
        }
        let least = self.all.iter().copied().fold(f64::INFINITY, f64::min);
        let ties = self.all.iter().filter(|&&key| key == least).count();
        let mut ranks = (0..).zip(&self.all).filter(|(_, key)| **key == least);
        let (rank, _) = ranks.nth(draw(ties)).expect("a draw is below the count");
        rank
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
