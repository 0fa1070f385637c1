//! The command line: one file per subcommand.
//!
//! Results go to stdout, progress and warnings to stderr. `--json` prints one JSON object instead of text. Exit codes:
//! 0 good, 1 a comparison or a run failed, 2 wrong usage or input, 130 ended by Ctrl-C.

mod autoscale;
mod calibrate;
mod check_scenario;
mod compare;
mod conform;
mod init;
mod real;
mod replay;
mod sweep;
mod trace;
mod validate;

use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// A comparison or a run failed.
pub const FAILED: u8 = 1;
/// Wrong usage or input.
pub const BAD_INPUT: u8 = 2;

/// Simulate and plan deployments that serve large language models.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLE)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "Example:\n  dynosim sweep                       map the Pareto frontier of an embedded workload\n  \
    dynosim replay scenario.yaml --trace trace.jsonl";

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a scenario with comments, to begin with
    Init(init::InitArgs),
    /// Judge a scenario and print what follows from it
    CheckScenario(check_scenario::CheckArgs),
    /// Replay a workload through one deployment and print what users would see
    Replay(replay::ReplayArgs),
    /// Run many deployments and map the Pareto frontier, or find the smallest that meets an SLA
    Sweep(sweep::SweepArgs),
    /// Say how many GPU-hours autoscaling saves while a latency is kept, and under which planner
    Autoscale(autoscale::AutoscaleArgs),
    /// Compare two results and say which differences are real
    Compare(compare::CompareArgs),
    /// Describe, convert, cut, scale and generate workload traces
    Trace(trace::TraceArgs),
    /// Replay schedules recorded from real engines and compare every decision
    Conform(conform::ConformArgs),
    /// Make measured tables from a database of kernel times
    Calibrate(calibrate::CalibrateArgs),
    /// Compare our step times and capacities with reference values
    Validate(validate::ValidateArgs),
}

/// Why a command ended without a result.
#[derive(Debug)]
pub struct Failure {
    /// Printed to stderr, a line each.
    pub messages: Vec<String>,
    /// [`FAILED`], [`BAD_INPUT`], or that of an interrupted run.
    pub code: u8,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What is to be said on stderr, and the exit code.
    pub fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Init(args) => init::run(&args),
            Command::CheckScenario(args) => check_scenario::run(&args),
            Command::Replay(args) => replay::run(args),
            Command::Sweep(args) => sweep::run(args),
            Command::Autoscale(args) => autoscale::run(args),
            Command::Compare(args) => compare::run(args),
            Command::Trace(args) => trace::run(args),
            Command::Conform(args) => conform::run(args),
            Command::Calibrate(args) => calibrate::run(args),
            Command::Validate(args) => validate::run(args),
        }
    }
}

impl Failure {
    /// Something is wrong with what the user gave.
    pub fn input(messages: impl IntoIterator<Item = String>) -> Failure {
        Failure {
            messages: messages.into_iter().collect(),
            code: BAD_INPUT,
        }
    }

    /// A run or a comparison failed.
    pub fn run(message: impl Into<String>) -> Failure {
        Failure {
            messages: vec![message.into()],
            code: FAILED,
        }
    }

    /// Says it on stderr.
    pub fn print(&self) -> ExitCode {
        for message in &self.messages {
            // A closed stderr is no reason to fail differently.
            let _ = writeln!(io::stderr(), "{message}");
        }
        ExitCode::from(self.code)
    }
}

/// Makes the folder of an option, with those it lies in.
pub fn make_folder(option: &str, path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|error| {
        let is_taken = path.exists() && !path.is_dir();
        let why = if is_taken {
            "it is a file, expected a folder or nothing".to_owned()
        } else {
            error.to_string()
        };
        let path = path.display();
        Failure::input([format!("{option} {path}: cannot make the folder: {why}")])
    })
}

/// Writes a result to stdout. A reader that went away early (`| head`) has what it wanted.
pub fn print(text: &str) -> Result<(), Failure> {
    match io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}
