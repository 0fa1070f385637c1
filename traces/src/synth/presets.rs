//! Ready-made workloads.

use super::{Draws, FollowUp, SessionKind, SynthSpec, SystemPrompts, TurnOrder};
use crate::arrivals::Arrivals;
use crate::lengths::Lengths;
use crate::quantiles::Quantiles;

impl SynthSpec {
    /// An hour of chat that resembles the Mooncake conversation trace (FAST 2025): 12,031 requests in 3,537 s in bursts
    /// of 3 s, one system prompt, long prompts (mean 12,035 tokens) with a heavy tail, answers of 343 tokens, 36.6 % of
    /// the blocks seen before.
    #[must_use]
    pub fn conversation() -> SynthSpec {
        SynthSpec {
            requests: 12_031,
            duration_s: Some(3537.0),
            arrivals: Arrivals::poisson(12_031.0 / 3537.0),
            tick_ms: 3000,
            block_size: 512,
            system_prompts: vec![SystemPrompts {
                count: 1,
                zipf_exponent: 0.0,
                share: 1.0,
                tokens: Lengths::Fixed(890),
            }],
            sessions: vec![SessionKind {
                weight: 1.0,
                first_input_tokens: Lengths::Lognormal {
                    mean: 12_500.0,
                    stddev: 36_000.0,
                    max: 125_000,
                },
                output_tokens: Lengths::Normal {
                    mean: 280.0,
                    stddev: 252.0,
                    max: 2000,
                },
                turns: Lengths::Geometric { mean: 1.7, max: 50 },
                follow_ups: vec![
                    FollowUp::Append {
                        weight: 0.81,
                        user_tokens: Lengths::Lognormal {
                            mean: 1200.0,
                            stddev: 4000.0,
                            max: 131_072,
                        },
                    },
                    FollowUp::Revise {
                        weight: 0.16,
                        kept_share: Quantiles::between(0.05, 0.95),
                        user_tokens: Lengths::Lognormal {
                            mean: 11_000.0,
                            stddev: 9000.0,
                            max: 131_072,
                        },
                    },
                    FollowUp::Repeat { weight: 0.03 },
                ],
            }],
            turn_order: TurnOrder::Timed {
                think_ms: Lengths::Lognormal {
                    mean: 230_000.0,
                    stddev: 400_000.0,
                    max: 3_600_000,
                },
                answer_ms_per_token: 30.0,
            },
            draws: Draws::Independent,
            max_input_tokens: 131_072,
        }
    }

    /// Ten minutes of the same: 2,000 requests, enough to try things out.
    #[must_use]
    pub fn quick() -> SynthSpec {
        let mut spec = SynthSpec {
            requests: 2000,
            duration_s: Some(600.0),
            ..SynthSpec::conversation()
        };
        spec.turn_order = TurnOrder::Timed {
            think_ms: Lengths::Lognormal {
                mean: 110_000.0,
                stddev: 200_000.0,
                max: 600_000,
            },
            answer_ms_per_token: 30.0,
        };
        spec.sessions[0].turns = Lengths::Geometric { mean: 1.9, max: 50 };
        spec
    }

    /// Requests that have nothing in common and wait for nobody: an arrival process over drawn lengths.
    #[must_use]
    pub fn independent(
        requests: u32,
        arrivals: Arrivals,
        input: Lengths,
        output: Lengths,
    ) -> SynthSpec {
        SynthSpec {
            requests,
            duration_s: None,
            arrivals,
            tick_ms: 0,
            system_prompts: Vec::new(),
            max_input_tokens: input.longest(),
            sessions: vec![SessionKind {
                weight: 1.0,
                first_input_tokens: input,
                output_tokens: output,
                turns: Lengths::Fixed(1),
                follow_ups: Vec::new(),
            }],
            ..SynthSpec::conversation()
        }
    }
}

impl Default for SynthSpec {
    fn default() -> Self {
        SynthSpec::conversation()
    }
}
