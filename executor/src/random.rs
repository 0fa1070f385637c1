//! Random weights by counter: number `i` of a tensor is a function of (seed, name, i), whoever asks and in what order.
//!
//! In words: the name is hashed (FNV-1a), seed, name and counter are mixed by the finaliser of SplitMix64, and the four
//! 16-bit parts of the result are summed: by the central limit nearly normal (bounds ±3.5 σ), with no transcendental
//! function, so that every machine makes the same bits.

/// Numbers of one tensor.
#[derive(Debug, Clone, Copy)]
pub struct Counter(u64);

/// Standard deviation of the sum of four whole numbers from 0 to 65,535.
const DEVIATION: f32 = 37_837.227;
/// Their mean.
const MEAN: f32 = 131_070.0;

impl Counter {
    /// The numbers of the tensor `name`.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Counter {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Counter(mix(hash ^ mix(seed)))
    }

    /// What the numbers are a function of, besides their index: for the kernel that makes the same ones.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub const fn state(self) -> u64 {
        self.0
    }

    /// 64 random bits.
    #[must_use]
    pub fn bits(self, index: u64) -> u64 {
        mix(self
            .0
            .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number of mean 0 and standard deviation 1.
    #[must_use]
    pub fn normal(self, index: u64) -> f32 {
        let bits = self.bits(index);
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        (sum as f32 - MEAN) / DEVIATION
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_nearly_normal_and_their_own() {
        let counter = Counter::new(7, "model.embed_tokens.weight");
        let numbers: Vec<f32> = (0..40_000).map(|index| counter.normal(index)).collect();
        let mean = numbers.iter().sum::<f32>() / 40_000.0;
        let variance = numbers.iter().map(|x| x * x).sum::<f32>() / 40_000.0;
        // Four standard errors: 4/√n of the mean, about 4·√(2/n) of the variance.
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.03, "{variance}");
        let other = Counter::new(7, "lm_head.weight");
        assert_ne!(other.normal(0), numbers[0]);
        assert_ne!(
            Counter::new(8, "model.embed_tokens.weight").normal(0),
            numbers[0]
        );
    }
}
