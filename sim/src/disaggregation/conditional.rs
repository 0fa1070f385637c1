//! Conditional disaggregation: a request whose prefill is short work stays whole on its decode worker.
//!
//! Rules, each with the tokens of the prompt that the chosen decode worker has to compute (`new`):
//!
//! * `isl_bounding` (Dynamo): whole if `new < max_tokens` and `new / prompt < max_ratio`. Defaults 2048 and 0.7.
//! * `prefill_load` (Dynamo): whole if the prefill workers are busy.
//! * `isl_or_load` (Dynamo): whole if either holds.
//! * `non_cached` (llm-d): whole if `new < max_tokens`.
//!
//! A prefill worker is busy if more prompt tokens are placed on it and not computed than `threshold` times the tokens that
//! it batches.
//!
//! Source: Dynamo 1.6, disaggregated serving of the router; llm-d, decode-first with selective prefill.

// Model: the real `prefill_load` asks about the prefill worker that its router would choose; here the least loaded one
// decides, which is that worker unless cached prefixes draw the request elsewhere.

/// Which requests are not handed over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Conditional {
    /// Little to compute, and most of the prompt cached.
    IslBounding(IslBounding),
    /// Prefill workers have too much to do.
    PrefillLoad {
        /// Multiple of `max_num_batched_tokens`.
        threshold: f64,
    },
    /// Either.
    IslOrLoad(IslBounding, /** See [`Conditional::PrefillLoad`]. */ f64),
    /// Little to compute.
    NonCached {
        /// Fewer tokens than these.
        max_tokens: u32,
    },
}

/// Bounds on what is to be computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IslBounding {
    /// Fewer tokens than these,
    pub max_tokens: u32,
    /// and a smaller share of the prompt than this.
    pub max_ratio: f64,
}

impl Default for IslBounding {
    fn default() -> Self {
        IslBounding {
            max_tokens: 2048,
            max_ratio: 0.7,
        }
    }
}

/// What is known when a decode worker has been picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Circumstances {
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Those taken to be cached on the decode worker.
    pub cached_tokens: u32,
    /// Prompt tokens to be computed on the least loaded prefill worker, over those it batches.
    pub prefill_load: f64,
}

impl Conditional {
    /// Whether the request stays whole on its decode worker.
    #[must_use]
    pub fn keeps_whole(&self, now: &Circumstances) -> bool {
        let new = now.input_tokens.saturating_sub(now.cached_tokens);
        match *self {
            Conditional::IslBounding(bounds) => bounds.holds(now),
            Conditional::PrefillLoad { threshold } => now.prefill_load > threshold,
            Conditional::IslOrLoad(bounds, threshold) => {
                bounds.holds(now) || now.prefill_load > threshold
            }
            Conditional::NonCached { max_tokens } => new < max_tokens,
        }
    }
}

impl IslBounding {
    fn holds(&self, now: &Circumstances) -> bool {
        let new = now.input_tokens.saturating_sub(now.cached_tokens);
        new < self.max_tokens && f64::from(new) < self.max_ratio * f64::from(now.input_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_at_its_bounds() {
        let isl = Conditional::IslBounding(IslBounding::default());
        let at = |input_tokens, cached_tokens, prefill_load| Circumstances {
            input_tokens,
            cached_tokens,
            prefill_load,
        };
        // 2,047 new of 10,000 stay, 2,048 go.
        assert!(isl.keeps_whole(&at(10_000, 7_953, 0.0)));
        assert!(!isl.keeps_whole(&at(10_000, 7_952, 0.0)));
        // 699 of 1,000 stay, 700 go.
        assert!(isl.keeps_whole(&at(1_000, 301, 0.0)));
        assert!(!isl.keeps_whole(&at(1_000, 300, 0.0)));
        let load = Conditional::PrefillLoad { threshold: 2.0 };
        assert!(!load.keeps_whole(&at(1_000, 900, 2.0)));
        assert!(load.keeps_whole(&at(1_000, 0, 2.1)));
        let either = Conditional::IslOrLoad(IslBounding::default(), 2.0);
        assert!(either.keeps_whole(&at(1_000, 900, 0.0)) && either.keeps_whole(&at(1_000, 0, 3.0)));
        assert!(!either.keeps_whole(&at(1_000, 0, 1.0)));
        let llm_d = Conditional::NonCached { max_tokens: 100 };
        assert!(llm_d.keeps_whole(&at(99, 0, 0.0)) && !llm_d.keeps_whole(&at(100, 0, 9.0)));
    }
}
