//! Step times composed from measured tables as AIConfigurator 0.12 composes them, for comparison with it.
//!
//! A pass is a sum of kernels, each read from its table: embedding, and per layer two norms, QKV projection, attention,
//! output projection, gate and up projection, activation, down projection (or router, dispatch and experts), and over
//! several GPUs an all-reduce after attention and FFN; at the end the LM head. Nothing overlaps, nothing is launched or sampled. The rules were verified
//! against its reference values (`docs/calibration.md` has the table); where they are odd they are followed here and not
//! in the timing source `measured`, which stands on the same readings:
//!
//! * what fused kernels around prompt attention do (RoPE, KV write, query and key norms) is priced without its tokens;
//! * a chunk of a prompt costs its share of the whole prompt's attention, wherever it lies;
//! * decode attention is the mean of five readings around the KV length;
//! * latent attention in a step of prompts and decodes costs what one prompt of all its tokens does.

mod attention;
mod decoder;
mod ffn;
mod kernel;
mod memory;
mod pricing;
pub mod reference;
pub mod reference_ops;
pub mod roofline;
mod shape;

pub(crate) use decoder::Phase;
pub use decoder::{Composed, Decoder, Formats, Mixed, MixedStep, OpTime, Setting};
pub use kernel::Missing;
pub use memory::{AicMemory, kv_capacity};
pub use shape::{AttentionShape, FfnShape, Shape};

/// A decoder with one FFN per layer; [`Decoder::new`].
pub type Dense<'a> = Decoder<'a>;
