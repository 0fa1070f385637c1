//! Workloads in: trace files become one compact [`Trace`], whatever their format.
//!
//! [`trace`] is the type that readers, generators and transforms share; [`Trace::workload`] hands it to the simulator.

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

pub use describe::Description;
pub use error::{Place, Problem, Problems, TraceError, Warning, WarningKind};
pub use arrivals::{Arrivals, Process};
pub use contents::Contents;
pub use fault::Fault;
pub use lengths::Lengths;
pub use quantiles::Quantiles;
pub use rate::Rate;
pub use read::{Format, Loaded, ReadOptions, parse, read};
pub use reuse::Reuse;
pub use synth::SynthSpec;
pub use trace::{Content, NewContent, NewRow, Row, Trace, TraceBuilder};
