//! Planners: how many workers there should be, told the time and what is seen.
//!
//! A [`Planner`] is a state machine without clock or I/O. At the times it asks for it is shown [`Observations`] (workers,
//! their last forward passes and queues, the traffic since the last tick, latencies) and answers with a [`Decision`]: target
//! replicas by role, the reason, the numbers behind it, and when it wants to be asked again. The virtual driver of a simulation and
//! a live one can both own it.
//!
//! * [`dynamo`]: Dynamo 1.6's planner, every rule of it compared with recorded decisions.
//! * [`policy`]: others to compare with, one file each: static, Kubernetes' HPA, KEDA's scalers, llm-d's thresholds.
//! * [`predictor`]: the next value of a series. [`model`]: the time of a forward pass. [`budget`]: counts made to fit.
//!
//! To add one, see `docs/planner.md`.

pub mod budget;
mod decision;
pub mod dynamo;
pub mod model;
mod observe;
pub mod policy;
pub mod predictor;
mod problem;
mod traffic;

pub use decision::{Decision, Diagnostics, Planner, Reason, Reasons};
pub use observe::{
    ForwardPass, Observations, PerRole, Pool, Role, TrailingLatency, Work, WorkerId,
};
pub use problem::ConfigProblem;
pub use traffic::TrafficWindow;

/// The code in the documentation compiles and does what it says.
#[cfg(doctest)]
#[doc = include_str!("../../docs/planner.md")]
struct Documentation;
