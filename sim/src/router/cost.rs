//! What a request costs on a rank, in blocks; the router takes the cheapest.
//!
//! ```text
//! effective = device + host_weight * host + disk_weight * disk              cached = round(effective * block_size)
//! decay     = 1 / (1 + credit_decay * ((A - least A) / block_size) / max(1, ceil(prompt / block_size)))
//! credit    = overlap_credit * decay * device + host_weight * host + disk_weight * disk + shared_multiplier * shared
//! raw       = A + max(0, prompt - cached) + cached       (the prompt alone without a load record; 0 if not tracked)
//! cost      = prefill_scale * max(0, raw / block_size - credit) + B + request_weight * R
//! ```
//!
//! A: prompt tokens booked on the rank whose first token has not arrived. B: blocks of active requests there, with those
//! the request would add. R: requests there. `host` and `disk` count blocks beyond the tier before; `shared` those of a
//! cache shared by all that lie beyond the device's. Credit and decay apply to the device part alone. A decode router that
//! tracks no prefill but gives credit takes it from B instead: `max(0, B - credit) + request_weight * R`. Preferred taints
//! multiply the cost by `exp(-tanh(sum of the weights of those the worker has))`.
//!
//! Source: dynamo-kv-router 1.6, selector; recorded in `tests/golden/router/sel_*.json`.

/// Settings of the cost, Dynamo's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CostWeights {
    /// Prefill saved per block on the device, in blocks; may exceed 1.
    pub overlap_score_credit: f64,
    /// How fast the credit fades on ranks that have more prefill to do than the least busy one.
    pub overlap_score_credit_decay: f64,
    /// Weight of the prefill part.
    pub prefill_load_scale: f64,
    /// Cost of an active request, in blocks.
    pub decode_active_request_weight: f64,
    /// What a block in host memory is worth.
    pub host_cache_hit_weight: f64,
    /// What a block on disk or further away is worth.
    pub disk_cache_hit_weight: f64,
    /// What a block in a shared cache is worth.
    pub shared_cache_multiplier: f64,
    /// Whether prefill counts.
    pub track_prefill_tokens: bool,
    /// Whether the router places decodes only.
    pub is_decode_router: bool,
}

impl Default for CostWeights {
    fn default() -> Self {
        CostWeights {
            overlap_score_credit: 1.0,
            overlap_score_credit_decay: 0.0,
            prefill_load_scale: 1.0,
            decode_active_request_weight: 0.0,
            host_cache_hit_weight: 0.75,
            disk_cache_hit_weight: 0.25,
            shared_cache_multiplier: 0.0,
            track_prefill_tokens: true,
            is_decode_router: false,
        }
    }
}

impl CostWeights {
    /// The deprecated `overlap_score_weight`: it scales prefill, and 0 takes the credit away.
    #[must_use]
    pub fn with_overlap_score_weight(mut self, weight: f64) -> Self {
        self.prefill_load_scale = weight;
        if weight == 0.0 {
            self.overlap_score_credit = 0.0;
        }
        self
    }

    /// Blocks of prefill that are taken off for what a rank holds; of those on the device only the part `decay`.
    #[must_use]
    pub fn credit(&self, overlap: &Overlap, decay: f64) -> f64 {
        self.overlap_score_credit * decay * f64::from(overlap.device)
            + overlap.below_device(self)
            + self.shared_cache_multiplier * f64::from(overlap.shared)
    }
}

/// Leading blocks of a request that a rank holds, by tier, each beyond the tier before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    /// In GPU memory.
    pub device: u32,
    /// In host memory.
    pub host: u32,
    /// On disk or beyond.
    pub disk: u32,
    /// In a cache shared by all, at positions behind `device`.
    pub shared: u32,
}

impl Overlap {
    /// Blocks, weighted by what their tier is worth.
    #[must_use]
    pub fn effective(&self, weights: &CostWeights) -> f64 {
        f64::from(self.device) + self.below_device(weights)
    }

    fn below_device(&self, weights: &CostWeights) -> f64 {
        weights.host_cache_hit_weight * f64::from(self.host)
            + weights.disk_cache_hit_weight * f64::from(self.disk)
    }

    /// Blocks of all private tiers.
    #[must_use]
    pub fn raw(&self) -> u32 {
        self.device + self.host + self.disk
    }

    /// Prompt tokens taken to be cached.
    #[must_use]
    pub fn cached_tokens(&self, weights: &CostWeights, block_size: u32) -> u64 {
        (self.effective(weights) * f64::from(block_size)).round() as u64
    }
}

/// What is under way on a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RankLoad {
    /// Prompt tokens whose prefill has not ended.
    pub active_prefill_tokens: u64,
    /// Blocks of active requests.
    pub active_decode_blocks: u64,
    /// Requests.
    pub active_requests: u64,
    /// Blocks that the request would add.
    pub additional_active_blocks: u64,
}

impl RankLoad {
    /// Blocks with the request.
    #[must_use]
    pub fn decode_blocks(&self) -> u64 {
        self.active_decode_blocks + self.additional_active_blocks
    }
}

/// A request on its way to a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Tokens per block.
    pub block_size: u32,
}

impl Demand {
    /// Blocks of the prompt, the last perhaps partial.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.prompt_tokens.div_ceil(u64::from(self.block_size))
    }
}

/// The cost of a request on a rank. `least_prefill` is the least `active_prefill_tokens` of all ranks that may be chosen.
#[must_use]
pub fn cost(
    weights: &CostWeights,
    demand: &Demand,
    overlap: &Overlap,
    load: Option<&RankLoad>,
    least_prefill: u64,
) -> f64 {
    let block_size = f64::from(demand.block_size);
    let mut decay = 1.0;
    if weights.track_prefill_tokens && weights.overlap_score_credit_decay > 0.0 {
        let excess = load.map_or(0, |load| load.active_prefill_tokens - least_prefill);
        let excess = excess as f64 / block_size / demand.blocks().max(1) as f64;
        decay = 1.0 / (1.0 + weights.overlap_score_credit_decay * excess);
    }
    let credit = weights.credit(overlap, decay);
    let blocks = load.map_or(0, RankLoad::decode_blocks) as f64;
    let requests =
        weights.decode_active_request_weight * load.map_or(0, |load| load.active_requests) as f64;
    if !weights.track_prefill_tokens {
        let is_credited = weights.is_decode_router && weights.overlap_score_credit > 0.0;
        let blocks = if is_credited {
            (blocks - credit).max(0.0)
        } else {
            blocks
        };
        return blocks + requests;
    }
    let raw = load.map_or(demand.prompt_tokens, |load| {
        let cached = overlap.cached_tokens(weights, demand.block_size);
        load.active_prefill_tokens + demand.prompt_tokens.saturating_sub(cached) + cached
    });
    let prefill = (raw as f64 / block_size - credit).max(0.0);
    weights.prefill_load_scale * prefill + blocks + requests
}

/// What preferred taints of a summed weight multiply the cost by.
#[must_use]
pub fn taint_multiplier(weight: f64) -> f64 {
    (-weight.tanh()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        prompt_tokens: 512,
        block_size: 16,
    };

    fn load(active_prefill_tokens: u64, active_decode_blocks: u64) -> RankLoad {
        RankLoad {
            active_prefill_tokens,
            active_decode_blocks,
            ..RankLoad::default()
        }
    }

    #[test]
    fn the_parts_add_up() {
        let overlap = Overlap {
            device: 10,
            host: 4,
            disk: 8,
            shared: 0,
        };
        let weights = CostWeights {
            decode_active_request_weight: 0.5,
            ..CostWeights::default()
        };
        // Credit 10 + 0.75 * 4 + 0.25 * 8 = 15; (160 + 512) / 16 = 42; 42 - 15 + 40 + 7 + 0.5 * 3.
        let load = RankLoad {
            additional_active_blocks: 7,
            active_requests: 3,
            ..load(160, 40)
        };
        assert_eq!(cost(&weights, &DEMAND, &overlap, Some(&load), 160), 75.5);
        // Twice as many active prefill blocks above the least as the request has blocks: a third of the credit of 10.
        let weights = CostWeights {
            overlap_score_credit_decay: 1.0,
            ..CostWeights::default()
        };
        let device = Overlap {
            device: 30,
            ..Overlap::default()
        };
        let busy = RankLoad {
            active_prefill_tokens: 1024,
            ..RankLoad::default()
        };
        assert_eq!(
            cost(&weights, &DEMAND, &device, Some(&busy), 0),
            96.0 - 10.0
        );
    }

    #[test]
    fn more_cached_than_asked_for_still_counts_as_work() {
        // 40 blocks of 16 for a prompt of 512: raw = 0 + 0 + 640, 40 blocks, all credited.
        let overlap = Overlap {
            device: 40,
            ..Overlap::default()
        };
        assert_eq!(
            cost(
                &CostWeights::default(),
                &DEMAND,
                &overlap,
                Some(&load(0, 3)),
                0
            ),
            3.0
        );
        let weights = CostWeights {
            overlap_score_credit: 0.0,
            ..CostWeights::default()
        };
        assert_eq!(
            cost(&weights, &DEMAND, &overlap, Some(&load(0, 3)), 0),
            43.0
        );
    }
}
