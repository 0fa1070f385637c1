//! Workloads in: trace files become one compact [`Trace`], whatever their format.
//!
//! [`trace`] is the type that readers, generators and transforms share; [`Trace::workload`] hands it to the simulator.

mod intern;
pub mod trace;

pub use trace::{Content, NewContent, NewRow, Row, Trace, TraceBuilder};
