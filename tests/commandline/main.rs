//! The program as its users meet it: the built binary, on files, with good input and bad.
//!
//! Exit codes are 0 (good), 1 (a comparison or run failed), 2 (usage or input); results go to stdout, all else to stderr;
//! what is refused leaves nothing behind. `tests/sweep.rs` has what belongs to sweeps alone.
#![expect(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod annotations;
mod bad_scenarios;
mod bad_traces;
mod conform;
mod conform_planner;
mod conform_router;
mod costs;
mod cuda;
mod documents;
mod engines;
mod faults;
mod files;
mod fits;
mod init;
mod manners;
mod program;
mod real;
mod replay;
mod routers;
mod scaling;
mod studies;
mod sweep;
mod traces;
