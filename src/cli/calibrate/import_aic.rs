//! `dynosim calibrate import-aic`: measured tables made from AIConfigurator's database.

use crate::cli::{Failure, make_folder, print};
use calibration::tables::import::{self, Repeats, Slice};
use calibration::tables::{Backend, file};
use clap::{Args, ValueEnum};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLE: &str =
    "Example:\n  dynosim calibrate import-aic <WHEEL> --repeats first --out tables";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct ImportArgs {
    /// The unpacked wheel (pip download --no-deps aiconfigurator-core==0.12.0, then unzip)
    dir: PathBuf,
    /// Folder to write into
    #[arg(long, default_value = "tables")]
    out: PathBuf,
    /// Only this GPU, for example h200_sxm; may be given several times
    #[arg(long)]
    gpu: Vec<String>,
    /// Only this engine: vllm, sglang or trtllm; may be given several times
    #[arg(long)]
    backend: Vec<String>,
    /// How much of the tables to take
    #[arg(long, value_enum, default_value_t = SliceArg::All)]
    slice: SliceArg,
    /// What to do with a place that one kernel measured twice in one file
    #[arg(long, value_enum, default_value_t = RepeatsArg::Refuse)]
    repeats: RepeatsArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RepeatsArg {
    /// It is an error
    Refuse,
    /// The first row counts
    First,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SliceArg {
    /// All that is understood
    All,
    /// What dense models with heads of 128 need, as embedded
    Dense,
}

pub fn run(args: &ImportArgs) -> Result<ExitCode, Failure> {
    let input = |error: calibration::CalibrationError| Failure::input([error.to_string()]);
    let backends = args
        .backend
        .iter()
        .map(|name| Backend::find(name))
        .collect::<Result<Vec<_>, _>>()
        .map_err(input)?;
    let root = import::find_root(&args.dir).map_err(input)?;
    let mut found = import::list(&root).map_err(input)?;
    if let Some(unknown) = args
        .gpu
        .iter()
        .find(|gpu| found.iter().all(|found| found.gpu != **gpu))
    {
        let mut known: Vec<&str> = found.iter().map(|found| found.gpu.as_str()).collect();
        known.dedup();
        return Err(Failure::input([format!(
            "--gpu {unknown}: the database has {}",
            known.join(", ")
        )]));
    }
    found.retain(|found| {
        (args.gpu.is_empty() || args.gpu.contains(&found.gpu))
            && (backends.is_empty() || backends.contains(&found.backend))
    });
    let slice = match args.slice {
        SliceArg::All => Slice::All,
        SliceArg::Dense => Slice::Dense,
    };
    let repeats = match args.repeats {
        RepeatsArg::Refuse => Repeats::Refuse,
        RepeatsArg::First => Repeats::First,
    };
    // All of them are read and checked before the first is written.
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for found in &found {
        match import::import(&root, found, slice, repeats) {
            Ok(profile) => {
                let name = format!(
                    "{}-{}-{}.tables",
                    found.gpu,
                    found.backend.name(),
                    found.version
                );
                let used: usize = profile.provenance.files.iter().map(|file| file.used).sum();
                files.push((name, used, file::encode(&profile)));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::input(problems));
    }
    make_folder("--out", &args.out)?;
    let mut text = String::new();
    for (name, used, bytes) in &files {
        reports::write_atomically(&args.out.join(name), |out| out.write_all(bytes))
            .map_err(|error| Failure::run(error.to_string()))?;
        let _ = writeln!(
            text,
            "{name:<40} {used:>8} rows {:>8} KiB",
            bytes.len().div_ceil(1_024)
        );
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
