//! Random numbers without state: a draw is a function of (seed, purpose, entity), so one draw more shifts no other.

/// What a draw is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A router's choice among workers, by request.
    Route = 1,
    /// The second choice of power-of-two routing, by request.
    RouteSecond = 2,
    /// Which of several equally good workers, by request.
    RouteTie = 3,
    /// Whether KV events are lost, by worker and report.
    KvEventLoss = 4,
    /// How late KV events come, by worker and report.
    KvEventDelay = 5,
    /// Whether a transfer fails, by request.
    TransferFailure = 6,
    /// Whether a client cancels, by its request.
    Cancel = 17,
    /// When it does, by its request.
    CancelTime = 18,
    /// How long a client waits before it tries again, by attempt.
    Backoff = 19,
    /// When a part breaks next, by rule, part and number.
    Fault = 20,
    /// Whether a decision is among those asked for their regret, by request.
    Regret = 16,
}

/// A number below `bound` (≥ 1), uniform up to 2^-32.
#[must_use]
pub fn draw(seed: u64, purpose: Purpose, entity: u64, bound: usize) -> usize {
    let bits = mix(mix(mix(seed) ^ purpose as u64) ^ entity);
    (((bits >> 32) * bound as u64) >> 32) as usize
}

/// A number in 0..1, uniform.
#[must_use]
pub fn unit(seed: u64, purpose: Purpose, entity: u64) -> f64 {
    let bits = mix(mix(mix(seed) ^ purpose as u64) ^ entity);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014) over its increment.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_fixed_and_spread_evenly() {
        let mut counts = [0u32; 5];
        for entity in 0..50_000 {
            counts[draw(7, Purpose::Route, entity, 5)] += 1;
        }
        // 10,000 expected in each; five standard deviations are 447.
        assert!(
            counts.iter().all(|&count| count.abs_diff(10_000) < 447),
            "{counts:?}"
        );
        assert_eq!(
            draw(7, Purpose::Route, 3, 1000),
            draw(7, Purpose::Route, 3, 1000)
        );
        let differs = (0..100).any(|entity| {
            draw(7, Purpose::Route, entity, 1000) != draw(7, Purpose::RouteSecond, entity, 1000)
        });
        assert!(differs);
    }
}
