//! Workloads in: trace files become one compact [`Trace`], whatever their format, and so do generated ones.
//!
//! ```text
//! file ── read ───┐                       ┌── describe, reuse   (what is in it)
//!                 ├──> Trace ── transform ┼── write             (a valid trace again)
//! spec ── synth ──┘      │                └── Trace::workload ──> engine::Workload ──> simulations
//!   ^                    │
//!   └─────── like ───────┘  (a spec whose traces resemble a given one)
//! ```
//!
//! * [`trace`]: the type that all others share. One row per request in order of arrival; contents are dense integers,
//!   because all that matters about them is where two are equal. [`TraceBuilder`] is the one way to make one.
//! * [`read`](mod@read): nine formats (`docs/trace-formats.md`), plain, gzip or zstd, one line at a time. To add a
//!   format: a file in `read/` with a `RowReader`, a variant of [`Format`] and how its first line is known, a section
//!   of the page.
//! * [`synth`]: sessions with shared system prompts and turns that build on each other, over [`arrivals`] of any rate and
//!   [`lengths`] of any distribution; [`like`] finds the parameters that resemble a given trace and says how closely.
//! * [`describe`] and [`reuse`]: lengths, burstiness, and what a prefix cache of any size could serve, exactly.
//! * [`transform`] and [`write`](mod@write): windows, samples, speeds, block sizes; files that read back equal.
//! * [`error`]: everything that is wrong with a file, at once, each with its place and a suggestion.
//!
//! Formats stop here: what leaves the crate is a [`Trace`] or an [`engine::Workload`], which is shared read-only by all
//! simulations of a sweep. Nothing here reads a clock or draws an unseeded random number.

mod ahead;
pub mod annotate;
pub mod arrivals;
pub mod contents;
pub mod describe;
pub mod error;
mod fault;
mod intern;
pub mod lengths;
pub mod like;
pub mod quantiles;
mod random;
pub mod rate;
pub mod read;
pub mod reuse;
pub mod synth;
pub mod trace;
pub mod transform;
pub mod write;

pub use annotate::{SessionClass, WorkerNames};
pub use arrivals::{Arrivals, Process};
pub use contents::Contents;
pub use describe::Description;
pub use error::{Place, Problem, Problems, TraceError, Warning, WarningKind};
pub use fault::Fault;
pub use lengths::Lengths;
pub use quantiles::Quantiles;
pub use rate::Rate;
pub use read::{Format, Loaded, ReadOptions, parse, read};
pub use reuse::Reuse;
pub use synth::SynthSpec;
pub use trace::{Content, NewContent, NewRow, Row, Trace, TraceBuilder};
