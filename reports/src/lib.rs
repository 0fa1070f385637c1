//! Results out: what a run or a sweep left behind, in the forms that people and programs read.
//!
//! | Module | Writes |
//! |---|---|
//! | [`report`] | the JSON report of a run, with stable names and its provenance |
//! | [`text`] | the same as a table for the terminal |
//! | [`aiperf`] | the same under AIPerf's names, aggregated and per request |
//! | [`table`] | rows with typed cells as CSV or Parquet |
//! | [`rows`] | per-request and per-window rows of a run |
//! | [`timeline`] | a trace for Perfetto or `chrome://tracing` |
//! | [`plot`] | charts as PNG and SVG, [`terminal`] charts without colours or graphics |
//!
//! Every file appears whole or not at all ([`files`]). Formats of the outside world stop here: the other crates know
//! nothing of CSV, Parquet or pictures.

pub mod aiperf;
pub mod files;
mod numbers;
pub mod plot;
pub mod report;
pub mod rows;
#[cfg(test)]
mod sample;
pub mod scaling;
pub mod table;
pub mod terminal;
pub mod text;
pub mod timeline;

pub use files::{Error, write_atomically};
pub use report::{Provenance, Report, Timing};
pub use table::{Cell, Table};
