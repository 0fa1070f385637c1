//! From a point to its metrics: scenario, workload, simulation, summary.

use super::plan::Plan;
use super::progress::note;
use crate::cli::Failure;
use engine::TimingSource;
use sweeps::digest::Digest;
use sweeps::row::Row;
use sweeps::scenario::Source;
use sweeps::simulate::{Simulation, Steps, TimingModels};
use sweeps::space::Point;
use sweeps::sweep::{Outcome, Prepared, Run};
use sweeps::workloads::Workloads;

/// What all points of a sweep share.
pub struct Bench<'a> {
    /// What is to be run.
    pub plan: &'a Plan,
    workloads: Workloads,
    models: TimingModels,
}

/// A point ready to be simulated.
pub struct Ready {
    simulation: Simulation,
    seed: u64,
    workload: Digest,
}

/// Source and basis.
fn timing_in_words(source: &TimingSource) -> String {
    format!("{} ({})", source.name, source.basis.name())
}

impl<'a> Bench<'a> {
    /// Reads the workload of the first point and every trace of an axis, so that a bad trace is bad input and not a
    /// thousand impossible points.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(plan: &'a Plan) -> Result<Bench<'a>, Failure> {
        let workloads = Workloads::new();
        let (mut seen, mut problems, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for scenario in std::iter::once(plan.first.clone()).chain(plan.workloads()) {
            let source = &scenario.workload.source;
            let is_wanted = seen.is_empty() || matches!(source, Source::Trace(_));
            if !is_wanted || seen.contains(source) {
                continue;
            }
            seen.push(source.clone());
            match workloads.get(&scenario.workload, scenario.seed) {
                Ok(loaded) => warnings.extend(loaded.warnings),
                Err(lines) => problems.extend(lines),
            }
        }
        if !problems.is_empty() {
            return Err(Failure::input(problems));
        }
        for warning in warnings {
            note(&format!("warning: {warning}"));
        }
        Ok(Bench {
            plan,
            workloads,
            models: TimingModels::default(),
        })
    }

    /// A point as a simulation, or why there can be none.
    pub fn prepare(&self, point: &Point) -> Result<Prepared<Ready>, String> {
        let scenario = self.plan.scenario(&point.overrides);
        let scenario = scenario.map_err(|wrong| wrong.to_string())?;
        let loaded = self
            .workloads
            .get(&scenario.workload, scenario.seed)
            .map_err(|lines| lines.join("; "))?;
        let simulation = Simulation::sharing(&self.models, &scenario, &loaded, Steps::Coasting)
            .map_err(|error| error.to_string())?;
        let digest = simulation.digest();
        let input = Ready {
            simulation,
            seed: scenario.seed,
            workload: loaded.digest,
        };
        Ok(Prepared { digest, input })
    }

    /// Runs a point.
    pub fn simulate(&self, ready: &Ready) -> Outcome {
        let Ready {
            simulation,
            seed,
            workload,
        } = ready;
        let summary = simulation.summary(&simulation.run());
        Outcome::Done(Run {
            row: Row::from_summary(&summary),
            guesses: simulation.timing_source().guesses.clone(),
            timing: timing_in_words(simulation.timing_source()),
            seed: *seed,
            workload: *workload,
        })
    }

    /// The traffic in a few words.
    pub fn workload_name(&self) -> String {
        match &self.plan.first.workload.source {
            Source::Trace(trace) => trace
                .path
                .file_name()
                .unwrap_or(trace.path.as_os_str())
                .display()
                .to_string(),
            Source::Synth(synth) => format!("{} generated requests", synth.spec.requests),
        }
    }
}
