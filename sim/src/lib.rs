//! The serving system on a clock: cluster, routers, drivers, metrics.

pub mod record;
pub mod summary;

pub use record::{GapRun, Outcome, Recording, Rejection, RequestRecord, WorkerRecord};
pub use summary::{Distribution, Goodput, Sla, Summary};
