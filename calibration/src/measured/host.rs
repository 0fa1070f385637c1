//! What no kernel table holds: the time an engine's host takes over a step and over a request.
//!
//! A handful of numbers per engine, the same for every model and width, fitted on public serving benchmarks by
//! `dynosim validate serving --fit` (see `docs/accuracy.md`); all can be given instead.

use crate::tables::Backend;
use serde::{Deserialize, Serialize};

/// Host times of an engine, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HostTimes {
    /// Each step: scheduling, input preparation, launch of the CUDA graph.
    pub step_us: f64,
    /// Each step, for each sequence in it: sampling, detokenisation, streaming.
    pub sequence_us: f64,
    /// Each step with prompt tokens, which no CUDA graph covers: the launches of its kernels.
    pub prefill_step_us: f64,
    /// Each request, in the front end, one after the other: parsing, tokenisation.
    pub request_us: f64,
    /// The same for each of its prompt tokens.
    pub prompt_token_us: f64,
}

impl HostTimes {
    /// None at all.
    pub const ZERO: HostTimes = HostTimes {
        step_us: 0.0,
        sequence_us: 0.0,
        prefill_step_us: 0.0,
        request_us: 0.0,
        prompt_token_us: 0.0,
    };

    /// Those of an engine, as fitted.
    #[must_use]
    pub const fn of(backend: Backend) -> HostTimes {
        match backend {
            Backend::Vllm => HostTimes {
                step_us: 1_500.0,
                sequence_us: 40.0,
                prefill_step_us: 0.0,
                request_us: 1_000.0,
                prompt_token_us: 1.0,
            },
            Backend::Sglang => HostTimes {
                step_us: 1_000.0,
                sequence_us: 25.0,
                prefill_step_us: 8_000.0,
                request_us: 1_000.0,
                prompt_token_us: 0.5,
            },
            Backend::Trtllm => HostTimes {
                step_us: 500.0,
                sequence_us: 5.0,
                prefill_step_us: 8_000.0,
                request_us: 500.0,
                prompt_token_us: 0.0,
            },
        }
    }

    /// Names and values, in a fixed order.
    #[must_use]
    pub const fn fields(&self) -> [(&'static str, f64); 5] {
        [
            ("step_us", self.step_us),
            ("sequence_us", self.sequence_us),
            ("prefill_step_us", self.prefill_step_us),
            ("request_us", self.request_us),
            ("prompt_token_us", self.prompt_token_us),
        ]
    }
}

/// The rows that a CUDA graph computes for a batch: graphs are captured for 1, 2, 4, then every 8 up to 256, then every
/// 16 up to 512; larger batches run as they are.
// Model: vLLM's and SGLang's default capture sizes at their usual largest batch; a few GEMM rows more or less.
#[must_use]
pub fn captured_rows(batch: u32) -> u32 {
    match batch {
        0..=2 => batch,
        3..=4 => 4,
        5..=256 => batch.next_multiple_of(8),
        257..=512 => batch.next_multiple_of(16),
        _ => batch,
    }
}
