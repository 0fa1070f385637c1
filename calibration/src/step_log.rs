//! Logs of steps: what an engine computed in each forward pass, and how long it took.
//!
//! Two forms are read, told apart by their first line (fields in `docs/fits.md`):
//!
//! | Form | A line is | File |
//! |---|---|---|
//! | `vllm` | settings, an added request, or a step with its batch and its four moments | `vllm.rs` |
//! | `forward-pass` | Dynamo's ForwardPassMetrics of one iteration: sums over its requests, wall time | `forward_pass.rs` |
//!
//! Both become [`Observation`]s for fits. A log of the first form can also be replayed decision by decision, since it
//! says which request got how many tokens ([`VllmLog`]).

mod forward_pass;
mod prompts;
mod vllm;

pub use prompts::Prompts;
pub use vllm::{Add, Entry, Part, Settings, Step, VllmLog};

use crate::error::{CalibrationError, Problem};
use crate::log_file::LogFile;
use crate::work::Work;
use std::path::Path;

/// A step that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// Line of the log, from 1.
    pub line: usize,
    /// What was computed.
    pub work: Work,
    /// How long it took, in seconds, positive; without the host's time where that is known.
    pub seconds: f64,
    /// What the host took before the device could begin, in seconds: scheduling, messages, waking up. `None` where the log
    /// does not tell it apart.
    pub host_seconds: Option<f64>,
}

/// The measured steps of one log, in the order of time.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLog {
    /// The file, as the caller named it.
    pub file: String,
    /// BLAKE3 of its bytes.
    pub digest: String,
    /// `vllm` or `forward-pass`.
    pub form: &'static str,
    /// What was measured; at least one.
    pub observations: Vec<Observation>,
    /// Median time between the end of a step and the beginning of the next while there was work, in seconds: part of a
    /// step for whoever waits, and added to every observation. 0 where the form's times include it.
    pub between_steps: f64,
    /// Lines that say nothing about the time of a step (idle iterations).
    pub idle: usize,
}

impl StepLog {
    /// Reads a log of either form.
    ///
    /// # Errors
    /// A file that cannot be read, or everything that is wrong with its lines.
    pub fn read(path: &Path) -> Result<StepLog, CalibrationError> {
        StepLog::parse(&LogFile::read(path)?)
    }

    /// The same from text.
    ///
    /// # Errors
    /// Everything that is wrong with its lines.
    pub fn parse(file: &LogFile) -> Result<StepLog, CalibrationError> {
        let first = file.lines().next().map(|(_, line)| line);
        let value = first.map(serde_json::from_str::<serde_json::Value>);
        match value {
            Some(Ok(value)) if value.get("kind").is_some() => {
                Ok(VllmLog::parse(file)?.observations())
            }
            Some(Ok(value)) if value.get("scheduled_requests").is_some() => {
                forward_pass::parse(file)
            }
            found => {
                let found = match found {
                    None => "an empty file".to_owned(),
                    Some(Ok(_)) => "an object with neither".to_owned(),
                    Some(Err(error)) => format!("no JSON ({error})"),
                };
                let expected =
                    "a first line with `kind` (vllm) or `scheduled_requests` (forward-pass)";
                let problem = Problem::new(&file.name, found, expected);
                Err(CalibrationError::Invalid(vec![
                    problem.suggest("docs/fits.md has the fields of both forms"),
                ]))
            }
        }
    }
}
