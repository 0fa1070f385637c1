//! `dynosim calibrate`: timing models made from measurements.

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
}

pub fn run(args: CalibrateArgs) -> Result<ExitCode, Failure> {
    match args.command {
        Command::ImportAic(args) => import_aic::run(&args),
    }
}
