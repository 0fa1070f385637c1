//! By importance: blocks of the least important requests go first, of equals the least recently used.
//!
//! A block is as important as the most important request that used it. Priorities are vLLM's: smaller is more important.

use super::Life;

pub fn class(life: &Life) -> u64 {
    i64::from(i32::MAX).abs_diff(i64::from(life.priority))
}
