//! `dynosim`: simulate and plan deployments that serve large language models.

mod cli;
mod conform;
mod scenario;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(failure) => failure.print(),
    }
}
