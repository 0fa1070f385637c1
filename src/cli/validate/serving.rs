//! `dynosim validate serving`: simulations against real serving benchmarks.

use crate::cli::{Failure, print};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use validation::serving::{
    Benchmarks, Errors, Fitted, Pair, Parameters, Prediction, Row, Subject, errors, fit,
};

const EXAMPLE: &str = "Example:\n  dynosim validate serving validation/tests/data/benchmarks.csv";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct ServingArgs {
    /// CSV of benchmarks (columns: docs/accuracy.md)
    file: PathBuf,
    /// Folder with files made by `dynosim calibrate import-aic`, used before the embedded ones
    #[arg(long)]
    tables: Option<PathBuf>,
    /// Fit host times and recipes on this file instead of taking the built-in ones, and print them
    #[arg(long)]
    fit: bool,
    /// Predict each group of rows by a fit on all others
    #[arg(long, value_enum, conflicts_with = "fit")]
    leave_out: Option<Group>,
    /// Draw predicted against measured into this file (.png or .svg)
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Write every row with its prediction into this CSV file
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Rows of one model family
    Family,
    /// Rows of one GPU
    Gpu,
}
