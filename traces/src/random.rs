//! Random streams that do not disturb one another.
//!
//! Every draw belongs to a purpose and an entity (the output length of turn 3 of session 17), and each such pair has a
//! generator of its own, made from the seed by mixing. One draw more for one entity shifts nothing else, and the same
//! seed gives the same workload whatever else is configured.

use rand_pcg::Pcg64Mcg;

/// What a random stream is for. The numbers are part of every result: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Gap before an arrival.
    Gap = 1,
    /// Which kind a session is.
    Kind = 2,
    /// How many turns a session has.
    Turns = 3,
    /// Which group of system prompts a session belongs to.
    SystemPrompt = 4,
    /// Length of a system prompt.
    SystemTokens = 5,
    /// Length of a session's first user text.
    FirstInput = 6,
    /// Length of an answer.
    Output = 7,
    /// In which way a turn follows another.
    FollowUp = 8,
    /// How long a user thinks.
    Think = 9,
    /// Whose turn comes next where turns are shuffled.
    Shuffle = 10,
    /// Which sessions a sample keeps.
    Sample = 11,
    /// Lengths drawn outside of a session.
    Lengths = 12,
    /// How much of the previous prompt a follow-up keeps.
    Kept = 13,
    /// Length of the text that a follow-up adds.
    UserText = 14,
    /// Whether a fraction of a turn is one.
    Round = 15,
    /// Which of the prompts of its group a session begins with.
    SystemRank = 16,
    /// Which class of requests a session belongs to.
    Class = 17,
}

/// Steps of Roberts' sequences (2018), which fill the square and the cube of five dimensions more evenly than chance
/// would: powers of 1/φ, where φ solves φ^(dimensions + 1) = φ + 1, times 2^64.
const EVEN_STEPS: [u64; 7] = [
    // 0.7548776662 and its square: the pairs (kind, system prompt) and (turns, first text) of sessions.
    0xc13f_a9a9_02a6_328f,
    0x91e1_0da5_c79e_7b1c,
    // 0.8812714616 and its powers: answer, way, kept share, new text and thinking of requests.
    0xe19b_01aa_9d42_c633,
    0xc6d1_d6c8_ed0c_9631,
    0xaf36_d01e_f751_8dbb,
    0x9a69_443f_36f7_10e6,
    0x8814_03b9_339b_d42d,
];

/// The `index`-th number from 0 to 1 for `purpose`, spread evenly together with those for the purposes of its group.
/// The sequence begins at a place that depends on the seed and on `group`.
pub(crate) fn evenly(seed: u64, purpose: Purpose, group: u64, index: u64) -> f64 {
    let step = match purpose {
        Purpose::Kind | Purpose::Turns => 0,
        Purpose::SystemPrompt | Purpose::FirstInput => 1,
        Purpose::Output => 2,
        Purpose::FollowUp => 3,
        Purpose::Kept => 4,
        Purpose::UserText => 5,
        Purpose::Think => 6,
        _ => unreachable!("{purpose:?} is not drawn evenly"),
    };
    let start = mix(mix(mix(seed).wrapping_add(purpose as u64)) ^ mix(group));
    (start.wrapping_add(index.wrapping_mul(EVEN_STEPS[step])) >> 11) as f64 / (1u64 << 53) as f64
}

/// The generator for `purpose` and `entity` under `seed`.
pub(crate) fn stream(seed: u64, purpose: Purpose, entity: u64) -> Pcg64Mcg {
    let high = mix(mix(seed).wrapping_add(purpose as u64));
    let low = mix(high ^ mix(entity));
    Pcg64Mcg::new((u128::from(high) << 64) | u128::from(low))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014), after one step of its counter.
const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn first_draws_of_neighbouring_entities_are_uniform_and_uncorrelated() {
        // Mean of 10,000 uniforms: 1/2 ± 0.0029 (one sigma); lag-one covariance: 0 ± 1/12/100 = 0.00083.
        let draws: Vec<f64> = (0..10_000)
            .map(|entity| stream(7, Purpose::Output, entity).random::<f64>())
            .collect();
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        let covariance = draws
            .windows(2)
            .map(|w| (w[0] - 0.5) * (w[1] - 0.5))
            .sum::<f64>()
            / 9_999.0;
        assert!((mean - 0.5).abs() < 0.0116, "{mean}");
        assert!(covariance.abs() < 0.0034, "{covariance}");
    }

    #[test]
    fn seed_purpose_and_entity_all_matter() {
        let first = |seed, purpose, entity| stream(seed, purpose, entity).random::<u64>();
        let draws = [
            first(0, Purpose::Gap, 0),
            first(1, Purpose::Gap, 0),
            first(0, Purpose::Kind, 0),
            first(0, Purpose::Gap, 1),
            first(1, Purpose::Kind, 1),
        ];
        for (index, draw) in draws.iter().enumerate() {
            assert!(!draws[..index].contains(draw));
        }
        assert_eq!(first(0, Purpose::Gap, 0), draws[0]);
    }
}
