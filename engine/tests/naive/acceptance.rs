//! How many tokens a step with drafts brings, from the definition.

use engine::{AcceptanceMode, Speculation};

/// Tokens of a step with all drafts for an answer that has `outputs`; `fraction` is what it has of the next, in 256ths.
pub fn tokens_of_a_step(
    speculation: &Speculation,
    request: usize,
    outputs: usize,
    fraction: &mut usize,
) -> usize {
    let rates = &speculation.acceptance_rates;
    let AcceptanceMode::Sampled { seed } = speculation.mode else {
        let reach = |place: usize| rates[..=place].iter().product::<f64>();
        let mean = 1.0 + (0..rates.len()).map(reach).sum::<f64>();
        let parts = *fraction + (mean * 256.0).round() as usize;
        *fraction = parts % 256;
        return parts / 256;
    };
    for (place, rate) in rates.iter().enumerate() {
        let key = mix(mix(seed) ^ request as u64) ^ (outputs + place) as u64;
        let draw = (mix(key) >> 11) as f64 / (1u64 << 53) as f64;
        if draw >= *rate {
            return place + 1;
        }
    }
    rates.len() + 1
}

/// SplitMix64.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
