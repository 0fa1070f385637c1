//! Frequency-aware: the block with the fewest uses goes first, of equals the least recently used.
//!
//! Counts alone never forget: a prompt that was popular yesterday would stay for ever. So a block's class is its uses plus
//! the highest class evicted so far; what is used today starts where yesterday's losers ended.
//!
//! Source: LFU with dynamic aging, Arlitt et al., Performance Evaluation Review 27(4), 2000.

use super::Life;

pub fn class(life: &Life, floor: u64) -> u64 {
    floor + u64::from(life.uses)
}
