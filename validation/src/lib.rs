//! Simulations against real runs: how far off they are, and parameters fitted to be less so.
//!
//! ```text
//! benchmarks.csv ─ serving::rows ─→ one closed-loop simulation a row ─→ serving::statistics: errors, by group
//!                                     ↑ host times, recipes ←─ serving::fit (families or GPUs left out)
//! ```

pub mod serving;
