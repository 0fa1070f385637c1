//! Overload is turned away: a request is refused (503) while every worker that could take it is busy.
//!
//! A worker is busy if sequences hold more than `active_decode_blocks` of its KV blocks, or if more prompt tokens than
//! `active_prefill_tokens` (or than `active_prefill_tokens_frac` of what it batches) were sent there and are not computed.
//! Prompt tokens that the router believes to be cached are not counted. Source: Dynamo 1.2, request rejection (off by
//! default; its presets are 0.70, 0.85 and 0.95 of the blocks, and 5,000, 10,000 and 20,000 tokens).

// Model: the front end knows the blocks at the end of the last step; the real one hears of them a message later.

/// Above which load a worker is busy; `None` never.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shedding {
    /// Share of the KV blocks that sequences hold.
    pub active_decode_blocks: Option<f64>,
    /// Prompt tokens placed and not computed.
    pub active_prefill_tokens: Option<u64>,
    /// The same, as a multiple of the tokens that a step takes.
    pub active_prefill_tokens_frac: Option<f64>,
}

/// The load of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerLoad {
    pub held_blocks: u64,
    pub blocks: u64,
    pub prefill_tokens: u64,
    pub max_num_batched_tokens: u64,
}

impl Shedding {
    /// True if requests may be turned away.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self != Shedding::default()
    }

    pub(crate) fn is_busy(&self, load: &WorkerLoad) -> bool {
        let blocks = |share: f64| load.held_blocks as f64 > share * load.blocks as f64;
        let tokens = |tokens: u64| load.prefill_tokens > tokens;
        let batches =
            |share: f64| load.prefill_tokens as f64 > share * load.max_num_batched_tokens as f64;
        self.active_decode_blocks.is_some_and(blocks)
            || self.active_prefill_tokens.is_some_and(tokens)
            || self.active_prefill_tokens_frac.is_some_and(batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_have_to_be_exceeded() {
        let load = WorkerLoad {
            held_blocks: 85,
            blocks: 100,
            prefill_tokens: 5_000,
            max_num_batched_tokens: 2_500,
        };
        let blocks = |share| Shedding {
            active_decode_blocks: Some(share),
            ..Shedding::default()
        };
        let tokens = |tokens| Shedding {
            active_prefill_tokens: Some(tokens),
            ..Shedding::default()
        };
        let batches = |share| Shedding {
            active_prefill_tokens_frac: Some(share),
            ..Shedding::default()
        };
        assert!(!blocks(0.85).is_busy(&load) && blocks(0.84).is_busy(&load));
        assert!(!tokens(5_000).is_busy(&load) && tokens(4_999).is_busy(&load));
        assert!(!batches(2.0).is_busy(&load) && batches(1.9).is_busy(&load));
        assert!(!Shedding::default().is_on() && !Shedding::default().is_busy(&load));
    }
}
