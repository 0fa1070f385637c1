//! `dynosim calibrate`: timing models made from measurements.

pub mod collect;
mod fit_requests;
mod fit_steps;
mod import_aic;

use super::Failure;
use clap::{Args, Subcommand};
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct CalibrateArgs {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str =
    "Example:\n  dynosim calibrate import-aic <WHEEL> --repeats first --out tables";

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn an unpacked aiconfigurator-core 0.12 wheel into one compact file per GPU, engine and version
    ImportAic(import_aic::ImportArgs),
    /// Measure steps of a scenario's model on this machine, fit step times to them, and say how far off they are
    Collect(Box<collect::CollectArgs>),
    /// Fit step times to logs of steps and say how far off they are
    FitSteps(fit_steps::FitStepsArgs),
    /// Fit step times to a log of requests, with the simulator in the loop
    FitRequests(fit_requests::FitRequestsArgs),
}

pub fn run(args: CalibrateArgs) -> Result<ExitCode, Failure> {
    match args.command {
        Command::ImportAic(args) => import_aic::run(&args),
        Command::Collect(args) => collect::run(&args),
        Command::FitSteps(args) => fit_steps::run(&args),
        Command::FitRequests(args) => fit_requests::run(&args),
    }
}
