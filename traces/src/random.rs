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
    /// Which system prompt a session begins with.
    SystemPrompt = 4,
    /// Length of a system prompt.
    SystemTokens = 5,
    /// Length of a session's first user text.
    FirstInput = 6,
    /// Length of an answer.
    Output = 7,
    /// What a follow-up keeps of the conversation and adds to it.
    FollowUp = 8,
    /// How long a user thinks.
    Think = 9,
    /// Whose turn comes next where turns are shuffled.
    Shuffle = 10,
    /// Which sessions a sample keeps.
    Sample = 11,
    /// Lengths drawn outside of a session.
    Lengths = 12,
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
