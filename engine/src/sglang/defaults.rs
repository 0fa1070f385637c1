//! What an SGLang server decides for itself when its options are left out.
//!
//! In words: larger GPUs prefill in larger chunks. Of the GPU's memory a share is kept for activations (1.5 MiB for each
//! token of a chunk), CUDA graphs (2 MiB for each sequence of the largest one) and the runtime; weights and KV pool get the
//! rest. Seats follow from the pool: 512 for each longest sequence that fits, 2,048 to 4,096, but no more than one for two
//! tokens; 48 with drafts. Source: the handling of GPU memory settings in SGLang's server arguments and of request slots in its model
//! runner, in a public copy of a 0.5 release; not compared with 0.5.23.

const MIB: f64 = (1u64 << 20) as f64;
const GIB_IN_MIB: f64 = 1024.0;

/// The GPUs of a worker, as far as defaults depend on them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkerGpus {
    /// Memory of one.
    pub memory_bytes: u64,
    /// How many share each layer.
    pub tensor_parallel: u32,
}

impl WorkerGpus {
    /// `chunked_prefill_size`: input tokens of a prefill batch beyond which a prompt is cut.
    #[must_use]
    pub fn chunked_prefill_size(self) -> u32 {
        match self.memory_mib() / GIB_IN_MIB {
            gib if gib < 35.0 => 2_048,
            gib if gib < 60.0 => 4_096,
            gib if gib < 160.0 => 8_192,
            _ => 16_384,
        }
    }

    /// `mem_fraction_static`: share of the memory for weights and KV pool, to three digits as the server rounds it, where
    /// no batch computes more than `prefill_tokens`.
    #[must_use]
    pub fn mem_fraction_static(self, prefill_tokens: u32) -> f64 {
        let memory = self.memory_mib();
        let activations = 1.5 * f64::from(prefill_tokens.max(2_048));
        let graphs = 2.0 * f64::from(self.cuda_graph_max_bs());
        let runtime = 512.0 + f64::from(self.tensor_parallel) / 8.0 * GIB_IN_MIB;
        let least = if memory > 60.0 * GIB_IN_MIB {
            10.0 * GIB_IN_MIB
        } else {
            0.0
        };
        let reserved = (activations + graphs + runtime).max(least);
        ((memory - reserved) / memory * 1e3).round() / 1e3
    }

    /// `cuda_graph_max_bs`: sequences of the largest decode batch that runs as a CUDA graph.
    fn cuda_graph_max_bs(self) -> u32 {
        let is_narrow = self.tensor_parallel < 4;
        match self.memory_mib() / GIB_IN_MIB {
            gib if gib < 20.0 => 8,
            gib if gib < 35.0 && is_narrow => 24,
            gib if gib < 35.0 => 80,
            gib if gib < 60.0 && is_narrow => 32,
            gib if gib < 60.0 => 160,
            gib if gib < 160.0 && is_narrow => 256,
            _ => 512,
        }
    }

    fn memory_mib(self) -> f64 {
        self.memory_bytes as f64 / MIB
    }
}

/// What a server with `enable_dp_attention` multiplies `schedule_conservativeness` by; it also divides `chunked_prefill_size` and
/// `max_running_requests` by its ranks.
pub const CONSERVATIVENESS_OF_RANKS: f64 = 0.3;

/// `max_running_requests` where tokens are drafted and nothing else is said.
pub const SEATS_WITH_DRAFTS: u32 = 48;

/// `max_running_requests` of a pool of `tokens` tokens for sequences of up to `context_length`.
#[must_use]
pub fn max_running_requests(tokens: u32, context_length: u32) -> u32 {
    let longest = f64::from(tokens) / f64::from(context_length.max(1));
    let slots = ((longest * 512.0) as u32).clamp(2_048, 4_096);
    slots.min(tokens / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(gib: f64, tensor_parallel: u32) -> WorkerGpus {
        WorkerGpus {
            memory_bytes: (gib * GIB_IN_MIB * MIB) as u64,
            tensor_parallel,
        }
    }

    #[test]
    fn an_h100_keeps_a_sixth_of_its_memory_back() {
        let h100 = gpus(79.6475, 1);
        assert_eq!(h100.chunked_prefill_size(), 8_192);
        // 81,559 MiB - (1.5 x 8,192 + 2 x 256 + 512 + 128) = 68,119; / 81,559 = 0.8352.
        assert_eq!(h100.mem_fraction_static(8_192), 0.835);
        // On eight: 2 x 512 for graphs and 1,024 more: 81,559 - 14,848 = 66,711.
        assert_eq!(gpus(79.6475, 8).mem_fraction_static(8_192), 0.818);
        // Small chunks: still 10 GiB of large GPUs. 81,559 - 10,240 = 71,319.
        assert_eq!(h100.mem_fraction_static(1_024), 0.874);
    }

    #[test]
    fn chunks_and_graphs_grow_with_the_memory() {
        let sizes = [16.0, 24.0, 48.0, 80.0, 141.0, 192.0].map(|gib| {
            let gpus = gpus(gib, 1);
            (gpus.chunked_prefill_size(), gpus.cuda_graph_max_bs())
        });
        let expected = [
            (2_048, 8),
            (2_048, 24),
            (4_096, 32),
            (8_192, 256),
            (8_192, 256),
            (16_384, 512),
        ];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn seats_follow_from_the_pool() {
        // 400,000 / 40,960 x 512 = 5,000: cut to 4,096.
        assert_eq!(max_running_requests(400_000, 40_960), 4_096);
        // 400,000 / 131,072 x 512 = 1,562: raised to 2,048.
        assert_eq!(max_running_requests(400_000, 131_072), 2_048);
        // A small pool: one seat for two tokens.
        assert_eq!(max_running_requests(1_000, 131_072), 500);
        assert_eq!(max_running_requests(1, 1), 1);
    }
}
