//! Workloads in: trace files become one compact [`Trace`], whatever their format.
//!
//! [`trace`] is the type that readers, generators and transforms share; [`Trace::workload`] hands it to the simulator.

pub mod arrivals;
pub mod contents;
pub mod error;
mod fault;
mod intern;
pub mod lengths;
pub mod quantiles;
mod random;
pub mod rate;
pub mod reuse;
pub mod trace;

pub use arrivals::{Arrivals, Process};
pub use contents::Contents;
pub use fault::Fault;
pub use lengths::Lengths;
pub use quantiles::Quantiles;
pub use rate::Rate;
pub use reuse::Reuse;
pub use trace::{Content, NewContent, NewRow, Row, Trace, TraceBuilder};
