//! Step times composed from measured tables as AIConfigurator 0.12 composes them, for comparison with it.
//!
//! A pass is a sum of kernels, each read from its table: embedding, and per layer two norms, QKV projection, attention,
//! output projection, gate and up projection, activation, down projection, and over several GPUs an all-reduce after
//! attention and FFN; at the end the LM head. Nothing overlaps, nothing is launched or sampled. The rules were verified
//! against its reference values (`docs/calibration.md` has the table); where they are odd they are followed here and not
//! in the timing source `measured`, which stands on the same readings:
//!
//! * what fused kernels around prompt attention do (RoPE, KV write, query and key norms) is priced without its tokens;
//! * a chunk of a prompt costs its share of the whole prompt's attention, wherever it lies;
//! * decode attention is the mean of five readings around the KV length.

mod dense;
mod memory;
pub mod reference;
pub mod roofline;

pub use dense::{Composed, Dense, Formats, Mixed, MixedStep, OpTime};
pub use memory::{AicMemory, kv_capacity};
