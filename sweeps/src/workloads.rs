//! Workloads by their description: each is read or generated once and shared read-only by all simulations.

use crate::digest::{Digest, workload_digest};
use crate::scenario::{Source, TraceSource, WorkloadSpec};
use engine::{Contents, Time, Workload};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use traces::{ReadOptions, Trace, TraceError, transform};

/// A workload and what was noticed while it was made.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The requests.
    pub workload: Arc<Workload>,
    /// Over everything that matters to a simulation.
    pub digest: Digest,
    /// What was read with a shrug, one sentence each.
    pub warnings: Vec<String>,
}

/// A workload, or everything that is wrong with its source.
pub type Made = Result<Loaded, Vec<String>>;

/// The workloads made so far.
#[derive(Debug, Default)]
pub struct Workloads {
    made: Mutex<HashMap<String, Arc<OnceLock<Made>>>>,
}

impl Workloads {
    /// None made yet.
    #[must_use]
    pub fn new() -> Self {
        Workloads::default()
    }

    /// The workload of a scenario; made by the first who asks, others wait.
    ///
    /// # Errors
    /// Everything that is wrong with the trace or the generator's parameters.
    pub fn get(&self, spec: &WorkloadSpec, seed: u64) -> Made {
        // A trace is what it is; only the sample and the generator draw anything.
        let key = format!(
            "{:?} {:?} {:?} {} {seed}",
            spec.source, spec.annotations, spec.workers, spec.load.arrival_speedup_ratio
        );
        let slot = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.entry(key).or_default().clone()
        };
        slot.get_or_init(|| make(spec, seed)).clone()
    }
}

/// Reads or generates the workload of a scenario.
///
/// # Errors
/// Everything that is wrong with the trace or the generator's parameters.
pub fn make(spec: &WorkloadSpec, seed: u64) -> Made {
    let (trace, warnings) = source(spec, seed)?;
    Ok(loaded(&trace, warnings, spec))
}

/// The same with the tokens of all prompts, for executors.
///
/// # Errors
/// Everything that is wrong with the trace or the generator's parameters.
pub fn make_with_contents(
    spec: &WorkloadSpec,
    seed: u64,
) -> Result<(Loaded, Contents), Vec<String>> {
    let (trace, warnings) = source(spec, seed)?;
    Ok((loaded(&trace, warnings, spec), trace.contents()))
}

fn source(spec: &WorkloadSpec, seed: u64) -> Result<(Trace, Vec<String>), Vec<String>> {
    let (mut trace, warnings) = match &spec.source {
        Source::Trace(source) => read(source, seed)?,
        Source::Synth(source) => {
            let lines = |problems: traces::Problems| vec![problems.to_string()];
            let with_reuse = source
                .reuse
                .map(|reuse| source.spec.with_reuse(reuse))
                .transpose()
                .map_err(lines)?;
            let spec = with_reuse.as_ref().unwrap_or(&source.spec);
            (spec.generate(seed).map_err(lines)?, Vec::new())
        }
    };
    traces::annotate::classify(&mut trace, &spec.annotations, seed);
    if let Some(names) = &spec.workers {
        let source = spec.source.name();
        traces::annotate::check_workers(&trace, &source, names)
            .map_err(|problems| vec![problems.to_string()])?;
    }
    Ok((trace, warnings))
}

fn loaded(trace: &Trace, warnings: Vec<String>, spec: &WorkloadSpec) -> Loaded {
    let mut workload = trace.workload();
    let ratio = spec.load.arrival_speedup_ratio;
    if ratio != 1.0 {
        for request in &mut workload.requests {
            request.arrival = Time((request.arrival.0 as f64 / ratio).round() as u64);
        }
    }
    Loaded {
        digest: workload_digest(&workload),
        workload: Arc::new(workload),
        warnings,
    }
}

fn read(source: &TraceSource, seed: u64) -> Result<(Trace, Vec<String>), Vec<String>> {
    let options = ReadOptions {
        format: source.format,
        block_size: source.block_size,
        is_strict: source.is_strict,
    };
    let loaded = traces::read(&source.path, &options).map_err(|error| match error {
        TraceError::Open { file, source } => vec![format!("{file}: {source}")],
        invalid => vec![invalid.to_string()],
    })?;
    let mut trace = loaded.trace;
    if source.start.is_some() || source.end.is_some() {
        let start = source.start.unwrap_or_default();
        let end = source.end.unwrap_or(engine::Span(u64::MAX));
        trace = transform::window(&trace, start, end).map_err(|error| vec![error.to_string()])?;
    }
    if let Some(fraction) = source.fraction {
        trace =
            transform::sample(&trace, fraction, seed).map_err(|error| vec![error.to_string()])?;
    }
    if let Some(limit) = source.limit {
        trace = transform::limit(&trace, limit).map_err(|error| vec![error.to_string()])?;
    }
    Ok((
        trace,
        loaded.warnings.iter().map(ToString::to_string).collect(),
    ))
}
