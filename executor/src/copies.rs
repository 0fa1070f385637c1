//! Which copies of KV blocks a calibration measures: what offload, onboarding and a block's way to another worker cost.
//!
//! | Direction | From, to |
//! |---|---|
//! | within | block to block of one pool |
//! | out | scattered blocks of the pool, to a contiguous buffer of the host |
//! | in | the way back |
//!
//! Counts of blocks double from 1 to half of the pool, at most 4,096. On a CPU the pool lies in the host's memory already:
//! its copies say what this machine's memory does, and that the measurement works.

use crate::sweep::Limits;
use engine::kv_cache::BlockId;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Block to block.
    Within,
    /// To the host.
    Out,
    /// From the host.
    In,
}

impl Direction {
    /// All of them.
    pub const ALL: [Direction; 3] = [Direction::Within, Direction::Out, Direction::In];

    /// In logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Within => "within",
            Direction::Out => "out",
            Direction::In => "in",
        }
    }
}

/// Copies of one kind, each timed on its own.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyTimes {
    /// Which way.
    pub direction: Direction,
    /// Blocks copied at once.
    pub blocks: usize,
    /// Bytes of a block, all layers, keys and values.
    pub block_bytes: u64,
    /// Seconds of each, in rising order.
    pub seconds: Vec<f64>,
}

impl CopyTimes {
    /// Bytes that went over.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks as u64 * self.block_bytes
    }

    /// The value that so large a share of the copies reached, nearest rank; seconds.
    ///
    /// # Panics
    /// Without a single copy.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (self.seconds.len() as f64 * share).ceil() as usize;
        self.seconds[rank.max(1) - 1]
    }
}

/// Blocks for each copy: counts that double.
#[must_use]
pub fn counts(limits: &Limits) -> Vec<usize> {
    let most = (limits.blocks as usize / 2).min(4096);
    let doubling = std::iter::successors(Some(1), |count| Some(2 * count));
    doubling.take_while(|count| *count <= most).collect()
}

/// The blocks of a copy: the first of `scattered`, twice as many where blocks are copied to blocks.
///
/// # Panics
/// If there are too few.
#[must_use]
pub fn chosen(direction: Direction, count: usize, scattered: &[BlockId]) -> &[BlockId] {
    match direction {
        Direction::Within => &scattered[..2 * count],
        Direction::Out | Direction::In => &scattered[..count],
    }
}

/// Time = latency + bytes / bandwidth, by least squares on relative errors of the medians: seconds, bytes per second.
#[must_use]
pub fn line(times: &[CopyTimes]) -> Option<(f64, f64)> {
    // Weights 1/y²: minimise Σ ((a + b·x)/y − 1)².
    let (mut aa, mut ab, mut bb, mut a, mut b) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for one in times {
        let (x, y) = (one.bytes() as f64, one.quantile(0.5));
        let (u, v) = (1.0 / y, x / y);
        aa += u * u;
        ab += u * v;
        bb += v * v;
        a += u;
        b += v;
    }
    let determinant = aa * bb - ab * ab;
    let slope = (aa * b - ab * a) / determinant;
    let latency = (bb * a - ab * b) / determinant;
    // A latency below zero is one that is not seen.
    let (latency, slope) = if latency < 0.0 {
        (0.0, b / bb)
    } else {
        (latency, slope)
    };
    (times.len() > 1 && slope.is_finite() && slope > 0.0).then(|| (latency, 1.0 / slope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_double_and_a_line_is_found() {
        let limits = Limits {
            step_tokens: 64,
            sequences: 8,
            longest: 300,
            blocks: 100,
            block_size: 16,
        };
        assert_eq!(counts(&limits), [1, 2, 4, 8, 16, 32]);
        // 10 us and 2 GB/s: 1,000 bytes more take 0.5 us more.
        let times = |blocks: usize| CopyTimes {
            direction: Direction::Out,
            blocks,
            block_bytes: 1000,
            seconds: vec![10e-6 + 0.5e-6 * blocks as f64; 3],
        };
        let (latency, rate) = line(&counts(&limits).into_iter().map(times).collect::<Vec<_>>())
            .expect("six points on a line");
        assert!((latency - 10e-6).abs() < 1e-9, "{latency}");
        assert!((rate / 2e9 - 1.0).abs() < 1e-6, "{rate}");
        assert_eq!(line(&[times(1)]), None);
        let scattered: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(chosen(Direction::Within, 2, &scattered), [100, 99, 98, 97]);
        assert_eq!(chosen(Direction::In, 2, &scattered), [100, 99]);
    }
}
