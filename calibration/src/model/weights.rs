//! How many weights a model has, and what they take on a GPU.

use super::{ExpertStorage, Experts, LatentAttention, Model, Widths};

/// Parameters by what a number of them takes.
struct Parameters {
    /// Embedding, LM head, norms, biases, routers: always 16 bits.
    in_16_bits: u64,
    /// Projections of attention and FFNs, shared experts among them.
    in_projections: u64,
    /// Experts that a router chooses from.
    in_experts: u64,
}

impl Model {
    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let all = self.parameters_by_storage();
        all.in_16_bits + all.in_projections + all.in_experts
    }

    /// Bytes of all weights.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        // Model: the scales of fp8 weights are left out (4 bytes per 128 x 128 block, 0.02 %).
        let all = self.parameters_by_storage();
        2 * all.in_16_bits
            + self.weights.bytes() * all.in_projections
            + self.experts.map_or(0, |experts| self.expert_bytes(experts))
    }

    /// Bytes of the experts that a router chooses from.
    pub(crate) fn expert_bytes(&self, experts: Experts) -> u64 {
        let count = u64::from(self.layers - experts.dense_layers) * u64::from(experts.count);
        let [hidden, size] = [self.hidden, experts.intermediate];
        match experts.storage {
            ExpertStorage::AsProjections => {
                count * 3 * u64::from(hidden) * u64::from(size) * self.weights.bytes()
            }
            // 32 numbers of half a byte and their scale of one. Model: padded as vLLM's Marlin kernels want them on
            // Hopper; other kernels pad less and take up to 8 % less.
            ExpertStorage::Mxfp4 => {
                let padded = [hidden.next_multiple_of(256), size.next_multiple_of(128)];
                let [hidden, size] = padded.map(u64::from);
                count * 3 * hidden * size / 32 * 17
            }
        }
    }

    /// Bytes of the weights on each GPU of a worker: projections, embedding and LM head are split, norms and the
    /// down-projections of latent attention are copied, KV heads are copied when there are fewer of them than GPUs. The GPU
    /// with most experts counts where they cannot be dealt out evenly.
    #[must_use]
    pub fn weight_bytes_per_gpu(&self, widths: Widths) -> u64 {
        let Widths { tensor, expert } = widths;
        if tensor == 1 {
            return self.weight_bytes();
        }
        // Routers are on every GPU, and shared experts are split over all of them, whatever the groups.
        let beside_experts = self.experts.map_or(0, |experts| {
            let shared = experts.shared * (experts.intermediate / tensor);
            let elsewhere = experts.count - experts.count.div_ceil(expert);
            u64::from(self.layers - experts.dense_layers)
                * u64::from(self.hidden)
                * (3 * u64::from(shared) * self.weights.bytes() + 2 * u64::from(elsewhere))
        });
        let shard = Model {
            heads: self.heads / tensor,
            kv_heads: self.kv_heads_per_gpu(tensor),
            intermediate: self.intermediate / tensor,
            experts: self.experts.map(|experts| Experts {
                count: experts.count.div_ceil(expert),
                intermediate: (experts.intermediate / (tensor / expert)).max(1),
                shared: 0,
                ..experts
            }),
            // The vocabulary is padded to a multiple of 64 and split.
            vocab: self.vocab.next_multiple_of(64).div_ceil(tensor),
            id: String::new(),
            ..*self
        };
        shard.weight_bytes() + beside_experts
    }

    fn parameters_by_storage(&self) -> Parameters {
        let [layers, hidden, intermediate] =
            [self.layers, self.hidden, self.intermediate].map(u64::from);
        let q = u64::from(self.heads) * u64::from(self.head_dim);
        let kv = u64::from(self.kv_heads) * u64::from(self.head_dim);
        let embeddings = u64::from(self.vocab) * hidden * if self.is_tied { 1 } else { 2 };
        let bias = if self.has_qkv_bias { q + 2 * kv } else { 0 };
        let qk_norm = if self.has_qk_norm {
            2 * u64::from(self.head_dim)
        } else {
            0
        };
        // Model: biases of the experts and attention sinks (gpt-oss, 0.05 % of its numbers) are left out.
        let mut in_16_bits = embeddings + hidden + layers * (2 * hidden + bias + qk_norm);
        let attention = match self.latent {
            None => 2 * hidden * q + 2 * hidden * kv,
            Some(latent) => {
                in_16_bits += layers * u64::from(latent.q_rank + latent.kv_rank);
                self.latent_projections(latent)
            }
        };
        let mut in_projections = layers * attention;
        let mut in_experts = 0;
        match self.experts {
            None => in_projections += layers * 3 * hidden * intermediate,
            Some(experts) => {
                let dense = u64::from(experts.dense_layers);
                let expert = 3 * hidden * u64::from(experts.intermediate);
                let [count, shared] = [experts.count, experts.shared].map(u64::from);
                in_16_bits += (layers - dense) * hidden * count;
                in_projections +=
                    dense * 3 * hidden * intermediate + (layers - dense) * shared * expert;
                in_experts = (layers - dense) * count * expert;
            }
        }
        Parameters {
            in_16_bits,
            in_projections,
            in_experts,
        }
    }

    /// Weights of latent attention in one layer.
    fn latent_projections(&self, latent: LatentAttention) -> u64 {
        let LatentAttention {
            q_rank,
            kv_rank,
            nope_dim,
            rope_dim,
            value_dim,
        } = latent;
        let [q_rank, kv_rank, nope, rope, value] =
            [q_rank, kv_rank, nope_dim, rope_dim, value_dim].map(u64::from);
        let [hidden, heads] = [self.hidden, self.heads].map(u64::from);
        let queries = match q_rank {
            0 => hidden * heads * (nope + rope),
            _ => hidden * q_rank + q_rank * heads * (nope + rope),
        };
        queries
            + hidden * (kv_rank + rope)
            + kv_rank * heads * (nope + value)
            + heads * value * hidden
    }
}
