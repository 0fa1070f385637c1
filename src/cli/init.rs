//! `dynosim init`: a scenario with comments, to begin with.

use super::{Failure, print};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The file that is written.
const TEMPLATE: &str = include_str!("init/scenario.yaml");
/// Its name unless another is given, and in its own comments.
const NAME: &str = "scenario.yaml";

/// Write a scenario with comments, to begin with.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dynosim init deployment.yaml")]
pub struct InitArgs {
    /// File to write
    #[arg(default_value = NAME)]
    file: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
}

pub fn run(args: &InitArgs) -> Result<ExitCode, Failure> {
    let shown = args.file.display().to_string();
    if args.file.exists() && !args.force {
        return Err(Failure::input([format!(
            "{shown}: found a file of this name, expected none: choose another name, or --force writes over it"
        )]));
    }
    let text = TEMPLATE.replace(&format!(" {NAME}"), &format!(" {shown}"));
    reports::write_atomically(&args.file, |out| out.write_all(text.as_bytes()))
        .map_err(|error| Failure::input([error.to_string()]))?;
    print(&format!(
        "Written to {shown}. What follows from it: dynosim check-scenario {shown}\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}
