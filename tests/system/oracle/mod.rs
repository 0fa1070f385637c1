//! A second simulator of the same system, written to be obviously right and from the rules alone (R1–R16 in the README
//! of the recorded vLLM schedules): no event heap, no coasting, no extents, every search linear. It first has to replay
//! the recorded schedules of the real scheduler; then the fast simulator has to agree with it, request by request and to
//! the integer, on random scenarios.
//!
//! * [`scenario`]: plain data, what is simulated; [`json`]: its form on disk (the recorded cases' own, extended)
//! * [`pool`]: the KV cache of a worker: blocks, free queue, cached contents in insertion order
//! * [`sequence`], [`scheduler`]: one worker's decisions, R1–R16
//! * [`worker`], [`router`], [`cluster`]: batches on the clock; who gets which request; clients and front end
//! * [`record`]: what a run leaves behind
//! * [`random`] with [`prompts`] and [`dice`], [`marks`]: scenarios that look for trouble, and what a run of one went through
//! * [`shrink`]: the smallest variant of a failing scenario that still fails
//! * [`recorded`]: replay of the recorded cases
//!
//! Time is in whole nanoseconds.

pub mod cluster;
pub mod dice;
pub mod json;
mod kv_index;
pub mod marks;
pub mod pool;
pub mod prompts;
pub mod random;
pub mod record;
pub mod recorded;
pub mod router;
pub mod scenario;
pub mod scheduler;
pub mod sequence;
pub mod shrink;
pub mod worker;
