//! Simulations against real runs: how far off they are, and parameters fitted to be less so.
//!
//! ```text
//! benchmarks.csv ─ serving::rows ─→ one closed-loop simulation a row ─→ serving::statistics: errors, by group
//!                                     ↑ host times, recipes ←─ serving::fit (families or GPUs left out)
//! requests.jsonl ─ request_log ───→ the whole log in the simulator ──→ outcome: TTFT, TPOT, E2E beside the measured ones
//!                                     ↑ step times ←─ request_fit (on the first part, the rest held out)
//! steps.jsonl ──── step_replay ───→ the log's requests, step times by a fit to another log
//! ```

pub mod outcome;
pub mod request_fit;
pub mod request_log;
pub mod serving;
pub mod step_replay;
