//! Random numbers for scenarios.

use rand::RngExt;
use rand_pcg::Pcg64;

/// A generator whose stream is fixed by its definition.
pub struct Dice(Pcg64);

impl Dice {
    /// A stream of its own per seed and purpose.
    pub fn new(seed: u64, purpose: u64) -> Dice {
        Dice(Pcg64::new(u128::from(seed), u128::from(purpose)))
    }

    /// Both ends included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        self.0.random_range(low as u64..=high.max(low) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.between(1, 100) <= percent
    }

    pub fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.between(0, values.len() - 1)].clone()
    }
}
