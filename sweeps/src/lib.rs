//! Many simulations: what is varied, how it is run, what comes out of it.
//!
//! ```text
//! Space ──points──▶ sweep ──▶ Finished (Row of metrics) ──▶ Ranking ──▶ explain
//!                    │  ▲
//!                    ▼  │ resume
//!                  Journal
//! ```
//!
//! * [`space`], [`values`]: which scenario fields take which values, expanded to points in a defined order.
//! * [`run`], [`sweep`], [`journal`], [`digest`]: points in parallel, results in order, nothing lost when killed.
//! * [`row`], [`rows`], [`metric`]: a summary as a flat row of named numbers; which way is better.
//! * [`constraint`], [`criteria`], [`frontier`], [`explain`]: SLA and other bounds, Pareto frontier, winner and why.
//! * [`bound`]: GPU-hours below which no fleet of such workers serves a workload.
//! * [`find`]: fewest workers or highest rate under the SLA by bisection over full simulations.
//! * [`replicates`], [`compare`], [`paired`], [`records`]: confidence intervals over seeds; which difference between two results is real.
//! * [`table`], [`chart`], [`curves`], [`report`]: a sweep as CSV and Parquet, as pictures, as JSON, through the crate `reports`.
//!
//! * [`scenario`], [`workloads`], [`simulate`]: what one simulation is made of.
//!
//! What a point *is* and how it is simulated is given by the caller as closures; everything here is independent of it.

mod annotations;
pub mod bound;
pub mod chart;
pub mod compare;
pub mod constraint;
pub mod criteria;
pub mod curves;
pub mod digest;
pub mod explain;
pub mod find;
pub mod frontier;
pub mod journal;
pub mod metric;
pub mod paired;
pub mod planner;
pub mod records;
pub mod replicates;
pub mod report;
pub mod row;
pub mod rows;
pub mod run;
pub mod scenario;
pub mod sglang_server;
pub mod simulate;
pub mod space;
mod space_error;
pub mod sweep;
pub mod table;
pub mod trtllm_server;
pub mod values;
pub mod workloads;
