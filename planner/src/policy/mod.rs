//! Planners other than Dynamo's, one file each; every one opens with its rule and where it is from.

mod by_role;
mod fixed;
mod hpa;
mod keda;
mod llm_d;
mod metric;
mod schedule;

pub use fixed::Fixed;
pub use hpa::{Behavior, Hpa, HpaSpec, RateLimit, SelectPolicy};
pub use keda::{Keda, KedaSpec};
pub use llm_d::{LlmD, LlmDSpec, LlmDThresholds};
pub use metric::{Metric, MetricTarget};
pub use schedule::{Entry as ScheduleEntry, Schedule};
