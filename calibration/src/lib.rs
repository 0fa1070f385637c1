//! How long a step takes, and how much fits: timing models, model and GPU registries, memory.
//!
//! A scenario names a timing source as plain data, a [`TimingSpec`]. [`TimingSpec::compile`] turns it, together with
//! what a worker knows about itself (a [`WorkerContext`]: KV capacity, model, GPU, tensor parallelism, precisions), into
//! an [`engine::StepTime`], once per kind of worker; the simulation then only asks that.
//!
//! ```text
//! scenario ─ TimingSpec ─┐
//! model.rs ─ Model ──────┼─ compile ─→ Box<dyn StepTime> ─→ decode(batch, context) → Piece      (coasted)
//! gpu.rs ─── Gpu ────────┘                                  mixed(StepShape)       → Span       (one by one)
//! tables/    measured kernels of a GPU and engine; aic/ what AIConfigurator makes of them
//! memory.rs  Model × Gpu × widths × engine ─→ KvCapacity: KV blocks of a worker, or why the weights do not fit
//! ```
//!
//! | Source | File | Basis | Depends on |
//! |---|---|---|---|
//! | [`Linear`] | `linear.rs` | given | tokens, context |
//! | [`Polynomial`] | `polynomial.rs` | estimated | prefill tokens, share of the KV cache in use |
//! | [`Roofline`] | `roofline.rs` | estimated | model, GPU, TP, precision, tokens, context |
//! | [`Measured`] | `measured.rs`, tables in `tables/` | measured | model, GPU, TP, precision, tokens, context |
//! | [`Fitted`] | `fitted.rs`, made by `fit_steps.rs` from `step_log.rs` | fitted | tokens, attended pairs, context |
//!
//! [`Staged`] and [`Drafting`] put pipeline stages and drafts on top of any of them.
//!
//! **The contract with coasting.** For a fixed decode batch the step time is piecewise linear in the summed context
//! with integer picoseconds, so that the end of k steps is a closed form. A model that is not piecewise linear is cut
//! into chords when it is compiled; the bound of its error stands beside the code that cuts and is held by a test.
//! Measured tables are compiled when a batch is first asked for.
//!
//! **Trust.** Every source says what it rests on ([`engine::TimingSource`]): its basis and one sentence per guess. Values
//! of the registries carry their origin ([`gpu::Sourced`]). What is simplified is marked `// Model:`.
//!
//! Bad input (negative, NaN, zero capacity, a TP the model cannot be split into, an unknown name) is collected and
//! returned at once as [`CalibrationError`], each problem with the nearest right choice.

pub mod aic;
pub mod drafting;
mod error;
pub mod fit_steps;
pub mod fitted;
pub mod gpu;
mod hf_config;
pub mod least_squares;
pub mod linear;
pub mod log_file;
pub mod measured;
pub mod memory;
pub mod model;
pub mod polynomial;
pub mod roofline;
pub mod staged;
pub mod step_log;
pub mod tables;
mod timing_spec;
pub mod work;

pub use drafting::Drafting;
pub use error::{CalibrationError, Problem};
pub use fitted::{Fitted, FittedProfile};
pub use gpu::Gpu;
pub use linear::Linear;
pub use measured::{HostTimes, Measured, MeasuredSpec};
pub use memory::{KvCapacity, KvQuestion, kv_capacity};
pub use model::{Model, Precision, Widths};
pub use polynomial::{Polynomial, PolynomialSpec};
pub use roofline::{Deployment, Roofline, RooflineSpec};
pub use staged::{Hop, Staged};
pub use timing_spec::{TimingSpec, WorkerContext};
