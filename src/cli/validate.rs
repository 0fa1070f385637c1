//! `dynosim validate`: how far our numbers are from somebody's.

mod real;
mod serving;
mod timing;

use super::Failure;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct ValidateArgs {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str =
    "Example:\n  dynosim validate timing calibration/tests/data/reference_sample.csv";

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare step times and KV capacities with those that AIConfigurator computed; worst rows first
    Timing(timing::TimingArgs),
    /// Run a scenario for real on this machine, simulate it, and set both side by side
    Real(Box<real::RealArgs>),
    /// Simulate real serving benchmarks as they were run, and say how far off TTFT, TPOT and throughput are
    Serving(serving::ServingArgs),
}

pub fn run(args: ValidateArgs) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Timing(args) => timing::run(&args),
        Command::Real(args) => real::run(&args),
        Command::Serving(args) => serving::run(&args),
    }
}
