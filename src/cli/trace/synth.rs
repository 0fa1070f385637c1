//! `dynosim trace synth`: a workload from a preset, from a file of parameters, or like a given trace.

use super::closeness::compared;
use super::text::grouped;
use super::{Failure, Output, ReadArgs, json_of, note};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use traces::like::Closeness;
use traces::synth::TurnOrder;
use traces::{Arrivals, Process, Rate, SynthSpec, Trace};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    /// An hour that resembles the Mooncake conversation trace: 12,031 requests
    Conversation,
    /// Ten minutes of the same: 2,000 requests
    Quick,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  dynosim trace synth --like conversation_trace.jsonl --out like-it.jsonl"
)]
pub struct SynthArgs {
    /// Ready-made workload to start from [default: conversation]
    #[arg(long, value_enum, conflicts_with_all = ["like", "spec"])]
    preset: Option<Preset>,
    /// Fit the parameters to this trace and say how close they come
    #[arg(long, value_name = "FILE", conflicts_with = "spec")]
    like: Option<PathBuf>,
    /// File of parameters (JSON), as --save-spec writes it
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    changes: Changes,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write the parameters to this file, for --spec or a scenario's workload.synth
    #[arg(long, value_name = "FILE")]
    save_spec: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// What to change about the parameters.
#[derive(Debug, Default, Args)]
struct Changes {
    /// Number of requests
    #[arg(long, value_name = "N")]
    requests: Option<u32>,
    /// Requests per second, always the same
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Time of the last request
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// How arrivals vary around the rate: constant, poisson, or gamma:CV with a coefficient of variation
    #[arg(long, value_name = "PROCESS", value_parser = process)]
    arrivals: Option<Process>,
    /// Round times down to multiples of this; 0 for none
    #[arg(long, value_name = "MS")]
    tick_ms: Option<u32>,
    /// Share of the blocks that an unlimited cache could serve; turns become more or fewer until it is reached
    #[arg(long, value_name = "SHARE")]
    reuse: Option<f64>,
    /// Later turns wait for the answer before them instead of coming at a fixed time
    #[arg(long)]
    after_answer: bool,
}

pub fn run(args: &SynthArgs) -> Result<ExitCode, Failure> {
    let (spec, given) = starting_point(args)?;
    let spec = args.changes.apply(spec)?;
    let trace = spec
        .generate(args.seed)
        .map_err(|problems| Failure::input([problems.to_string()]))?;
    if let Some(file) = &args.save_spec {
        save(&spec, file)?;
    }
    let closeness = given.map(|given| Closeness::of(&given, &trace));
    let text = closeness.as_ref().map(compared).unwrap_or_default();
    let mut facts = serde_json::Map::new();
    facts.insert("seed".to_owned(), args.seed.into());
    if let Some(closeness) = &closeness {
        facts.insert("closeness".to_owned(), json_of(closeness));
    }
    args.output.write(&trace, None, &text, facts)
}

/// The parameters before any change, and the trace they are to resemble.
fn starting_point(args: &SynthArgs) -> Result<(SynthSpec, Option<Trace>), Failure> {
    if let Some(file) = &args.like {
        let trace = args.read.read(file)?;
        note(&format!(
            "fitting to {} requests",
            grouped(trace.rows.len() as u64)
        ));
        return Ok((SynthSpec::like(&trace), Some(trace)));
    }
    if let Some(file) = &args.spec {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::input([format!("{}: {error}", file.display())])
        };
        let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        let spec: SynthSpec = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        spec.check(&file.display().to_string())
            .map_err(|problems| Failure::input([problems.to_string()]))?;
        return Ok((spec, None));
    }
    let spec = match args.preset.unwrap_or(Preset::Conversation) {
        Preset::Conversation => SynthSpec::conversation(),
        Preset::Quick => SynthSpec::quick(),
    };
    Ok((spec, None))
}

impl Changes {
    fn apply(&self, mut spec: SynthSpec) -> Result<SynthSpec, Failure> {
        if let (Some(_), Some(_), Some(_)) = (self.requests, self.rate, self.duration) {
            let message =
                "--requests, --rate and --duration: any two of them give the third; leave one away";
            return Err(Failure::input([message.to_owned()]));
        }
        self.apply_arrivals(&mut spec);
        if let Some(tick_ms) = self.tick_ms {
            spec.tick_ms = tick_ms;
        }
        if let (
            true,
            TurnOrder::Timed {
                think_ms,
                answer_ms_per_token,
            },
        ) = (self.after_answer, &spec.turn_order)
        {
            let (think_ms, answer_ms_per_token) = (think_ms.clone(), *answer_ms_per_token);
            spec.turn_order = TurnOrder::AfterAnswer {
                think_ms,
                answer_ms_per_token,
            };
        }
        if self.after_answer && spec.turn_order == TurnOrder::Shuffled {
            let message = "--after-answer: turns of this workload are shuffled, they have no times to wait for";
            return Err(Failure::input([message.to_owned()]));
        }
        match self.reuse {
            Some(reuse) => spec
                .with_reuse(reuse)
                .map_err(|problems| Failure::input([problems.to_string()])),
            None => Ok(spec),
        }
    }

    fn apply_arrivals(&self, spec: &mut SynthSpec) {
        if let Some(process) = self.arrivals {
            spec.arrivals.process = process;
        }
        if let Some(per_s) = self.rate {
            spec.arrivals = Arrivals {
                rate: Rate::Constant { per_s },
                ..spec.arrivals.clone()
            };
            spec.duration_s = None;
        }
        match (self.requests, self.duration, self.rate) {
            (None, Some(duration_s), Some(per_s)) => {
                spec.requests = (duration_s * per_s).round().clamp(0.0, f64::from(u32::MAX)) as u32;
                spec.duration_s = Some(duration_s);
            }
            (None, Some(duration_s), None) => {
                // The same rate for another time.
                let before = spec
                    .duration_s
                    .unwrap_or_else(|| spec.arrivals.rate.when_expected(spec.requests.into()));
                let requests = f64::from(spec.requests) * duration_s / before;
                spec.requests = requests.round().clamp(0.0, f64::from(u32::MAX)) as u32;
                spec.duration_s = Some(duration_s);
            }
            (Some(requests), None, None) => {
                let share = f64::from(requests) / f64::from(spec.requests);
                spec.duration_s = spec.duration_s.map(|duration_s| duration_s * share);
                spec.requests = requests;
            }
            (Some(requests), duration_s, _) => {
                spec.requests = requests;
                spec.duration_s = duration_s;
            }
            (None, None, _) => {}
        }
    }
}

fn process(text: &str) -> Result<Process, String> {
    let process = match text.split_once(':') {
        None if text == "constant" => Some(Process::Constant),
        None if text == "poisson" => Some(Process::Poisson),
        Some(("gamma", cv)) => cv.parse().ok().map(|cv| Process::Gamma { cv }),
        _ => None,
    };
    let process = process.ok_or("expected constant, poisson or gamma:CV, for example gamma:2.5")?;
    match process.fault() {
        Some(fault) => Err(format!(
            "found {}, expected {}",
            fault.found, fault.expected
        )),
        None => Ok(process),
    }
}

/// Writes one parameter per line: quantile functions would fill thousands of lines otherwise.
fn save(spec: &SynthSpec, file: &Path) -> Result<(), Failure> {
    let serde_json::Value::Object(fields) = json_of(spec) else {
        unreachable!("a struct is an object")
    };
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("  \"{name}\": {value}"))
        .collect();
    let text = format!("{{\n{}\n}}\n", lines.join(",\n"));
    reports::write_atomically(file, |out| std::io::Write::write_all(out, text.as_bytes()))
        .map_err(|error| Failure::input([error.to_string()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &Changes) -> SynthSpec {
        changes
            .apply(SynthSpec::quick())
            .unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    #[test]
    fn two_of_requests_rate_and_duration_give_the_third() {
        // The preset has 2,000 requests in 600 s.
        let spec = changed(&Changes {
            requests: Some(500),
            ..Changes::default()
        });
        assert_eq!((spec.requests, spec.duration_s), (500, Some(150.0)));
        let spec = changed(&Changes {
            duration: Some(60.0),
            ..Changes::default()
        });
        assert_eq!((spec.requests, spec.duration_s), (200, Some(60.0)));
        let spec = changed(&Changes {
            duration: Some(60.0),
            rate: Some(5.0),
            ..Changes::default()
        });
        assert_eq!((spec.requests, spec.duration_s), (300, Some(60.0)));
        let spec = changed(&Changes {
            requests: Some(40),
            rate: Some(5.0),
            ..Changes::default()
        });
        assert_eq!((spec.requests, spec.duration_s), (40, None));
        assert_eq!(spec.arrivals.rate, Rate::Constant { per_s: 5.0 });
        let spec = changed(&Changes {
            requests: Some(40),
            duration: Some(8.0),
            ..Changes::default()
        });
        assert_eq!((spec.requests, spec.duration_s), (40, Some(8.0)));
        let all = Changes {
            requests: Some(1),
            rate: Some(1.0),
            duration: Some(1.0),
            ..Changes::default()
        };
        assert!(all.apply(SynthSpec::quick()).is_err());
    }

    #[test]
    fn arrival_processes_have_names() {
        assert_eq!(process("constant"), Ok(Process::Constant));
        assert_eq!(process("gamma:2.5"), Ok(Process::Gamma { cv: 2.5 }));
        for wrong in ["gamma", "gamma:", "gamma:-1", "gamma:nan", "Poisson", ""] {
            assert!(process(wrong).is_err(), "{wrong}");
        }
    }
}
