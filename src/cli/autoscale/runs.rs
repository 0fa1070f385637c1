//! Which deployments are compared, and their runs.

use super::super::Failure;
use super::super::replay::load_scenario;
use super::fleets;
use crate::scenario::Set;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use sweeps::constraint::Constraint;
use sweeps::row::Row;
use sweeps::run::run;
use sweeps::scenario::Scenario;
use sweeps::simulate::{Simulation, Steps, TimingModels};
use sweeps::workloads::Loaded;

/// What a deployment is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As many workers as ever.
    Fixed,
    /// A planner that could be had.
    Planner,
    /// One that knows the future.
    Oracle,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Fixed => "fixed",
            Kind::Planner => "planner",
            Kind::Oracle => "oracle",
        }
    }
}

/// A deployment to be tried.
pub struct Candidate {
    pub name: String,
    pub kind: Kind,
    pub scenario: Scenario,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Run {
    pub name: String,
    pub kind: Kind,
    pub gpu_hours: f64,
    /// What they cost, with prices.
    pub usd: Option<f64>,
    /// The metric that is to be kept; `None` where nothing had it.
    pub metric: Option<f64>,
    pub keeps: bool,
    /// Share of requests within the SLA, with one.
    pub sla_share: Option<f64>,
    pub mean_workers: f64,
    pub most_workers: u64,
    /// Workers that were started.
    pub started: u64,
    /// Requests that were refused.
    pub rejected: u64,
}

/// Utilisations at which the oracle is tried.
const UTILIZATIONS: [f64; 10] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2];

/// The option for the start-up time.
const STARTUP: &str = "--startup-s";

/// It as a field.
pub fn startup(seconds: Option<&str>) -> Option<Set> {
    seconds.map(|seconds| Set {
        place: STARTUP.to_owned(),
        ..Set::by_option("lifecycle", &format!("{{startup_s: {seconds}}}"))
    })
}

/// The same deployment with a fixed number of workers.
pub fn without_planner(overrides: &[Set]) -> Vec<Set> {
    let mut all = overrides.to_vec();
    all.extend(["planner", "lifecycle"].map(|field| Set::by_option(field, "null")));
    all
}

impl Candidate {
    /// Fixed fleets up to `most` workers, planners, the oracle.
    pub fn all(
        path: &Path,
        overrides: &[Set],
        base: &Scenario,
        most: u32,
    ) -> Result<Vec<Candidate>, Failure> {
        let mut candidates = Vec::new();
        candidates.extend(fleets::fixed(base, most));
        // A start-up time has its place beside a planner alone.
        let said = |set: &&Set| set.place != STARTUP;
        let said: Vec<Set> = overrides.iter().filter(said).cloned().collect();
        if load_scenario(path, &said)?.planner.is_some() {
            let own = load_scenario(path, overrides)?;
            let policy = own.planner.as_ref().map_or("", |it| it.policy.name());
            candidates.push(Candidate {
                name: format!("the scenario's own, {policy}"),
                kind: Kind::Planner,
                scenario: own,
            });
        }
        for (name, kind, planner) in planners(base, most) {
            let mut all = overrides.to_vec();
            all.push(Set::by_option("planner", &planner));
            all.extend(fleets::bound(base, most));
            let scenario = load_scenario(path, &all)?;
            candidates.push(Candidate {
                name,
                kind,
                scenario,
            });
        }
        Ok(candidates)
    }

    /// How long its workers take to start, in seconds.
    pub fn startup_s(&self) -> Option<f64> {
        let planner = self.scenario.planner.as_ref();
        planner.map(|planner| planner.startup.total(false).as_s())
    }
}

/// Planners with their usual settings, bounded by `most` workers.
fn planners(base: &Scenario, most: u32) -> Vec<(String, Kind, String)> {
    let gpus = fleets::gpus(base, most);
    let itl_ms = base.sla.and_then(|sla| sla.itl_ms).unwrap_or(50.0);
    let ttft_ms = base.sla.and_then(|sla| sla.ttft_ms).unwrap_or(2000.0);
    let dynamo = |target: &str, more: &str| {
        format!("{{policy: dynamo, optimization_target: {target}, max_gpu_budget: {gpus}{more}}}")
    };
    let both = ", enable_load_scaling: true, throughput_adjustment_interval_seconds: 60";
    let load = ", enable_load_scaling: true, enable_throughput_scaling: false";
    // Settings of another autoscaler: those of prefill workers, of decode workers, of workers that do both.
    let other = |policy: &str, [prefill, decode, both]: [&str; 3]| {
        fleets::by_role(base, most, policy, [prefill, decode, both])
    };
    let ttft = format!("target_ttft_p95_ms: {}", ttft_ms / 4.0);
    let itl = format!("target_itl_p95_ms: {}", itl_ms / 4.0);
    let queues = "target_queue_per_worker: 2";
    let kv_use = "target_kv_use: 0.3";
    let depth = "scale_up_queue_depth: 4, scale_down_queue_depth: 1";
    let real = [
        ("dynamo, throughput", dynamo("throughput", "")),
        ("dynamo, latency", dynamo("latency", "")),
        ("dynamo, sla by load", dynamo("sla", load)),
        ("dynamo, sla by load and traffic", dynamo("sla", both)),
        (
            "dynamo, sla by traffic",
            dynamo("sla", ", throughput_adjustment_interval_seconds: 60"),
        ),
        ("hpa on queues", other("hpa", [queues; 3])),
        ("hpa on KV use", other("hpa", [queues, kv_use, kv_use])),
        ("keda on TTFT", other("keda", [&ttft, &itl, &ttft])),
        ("llm-d on KV use and queues", other("llm-d", [depth; 3])),
    ];
    let real = real.map(|(name, planner)| (name.to_owned(), Kind::Planner, planner));
    let oracle = UTILIZATIONS.map(|utilization| {
        let most = fleets::most_of_a_role(base, most);
        let planner =
            format!("{{policy: oracle, utilization: {utilization}, max_replicas: {most}}}");
        (
            format!("oracle at {:.0} %", 100.0 * utilization),
            Kind::Oracle,
            planner,
        )
    });
    real.into_iter().chain(oracle).collect()
}

/// Runs them on all processors; in the order of the candidates, and what the numbers stand on.
pub fn run_all(
    candidates: &[Candidate],
    loaded: &Loaded,
    keep: &Constraint,
) -> Result<(Vec<Run>, Vec<String>), Failure> {
    let models = TimingModels::default();
    let simulations: Vec<Simulation> = candidates
        .iter()
        .map(|candidate| {
            let simulation =
                Simulation::sharing(&models, &candidate.scenario, loaded, Steps::Coasting);
            simulation.map_err(|error| Failure::input([error.to_string()]))
        })
        .collect::<Result<_, _>>()?;
    let mut guesses = BTreeSet::new();
    let real = candidates.iter().zip(&simulations);
    for (_, simulation) in real.filter(|(candidate, _)| candidate.kind != Kind::Oracle) {
        guesses.extend(simulation.timing_source().guesses.iter().cloned());
    }
    let one = |index: usize| simulate(&candidates[index], &simulations[index], keep);
    let runs = run(
        candidates.len(),
        0,
        one,
        |_, _, _| ControlFlow::Continue(()),
    );
    let runs = runs.into_iter().map(|run| {
        let run = run.expect("no run was left out");
        run.map_err(|panicked| Failure::run(panicked.0))
    });
    Ok((
        runs.collect::<Result<_, _>>()?,
        guesses.into_iter().collect(),
    ))
}

/// GPU-hours that the workload takes at the least, whoever schedules it; `None` where requests may go unserved.
pub fn bound(base: &Scenario, loaded: &Loaded, runs: &[Run]) -> Result<Option<f64>, Failure> {
    if !base.adversity.is_nothing() || base.workload.load.duration.is_some() {
        return Ok(None);
    }
    let models = TimingModels::default();
    let simulation = Simulation::sharing(&models, base, loaded, Steps::Coasting)
        .map_err(|error| Failure::input([error.to_string()]))?;
    let workload = &loaded.workload;
    let bound = sweeps::bound::bound(&base.pools, simulation.timing(), workload);
    let served = |run: &Run| run.rejected <= bound.left_out;
    Ok(runs.iter().all(served).then_some(bound.gpu_hours))
}

fn simulate(candidate: &Candidate, simulation: &Simulation, keep: &Constraint) -> Run {
    let recording = simulation.run();
    let scenario = &candidate.scenario;
    let summary = simulation.summary(&recording);
    let row = Row::from_summary(&summary);
    let metric = row.number(&keep.metric);
    let is_whole = summary.requests.unfinished == 0;
    let workers = scenario.pools.iter().map(|pool| u64::from(pool.workers));
    let fixed: u64 = workers.sum();
    let scaling = summary.scaling.as_ref();
    Run {
        name: candidate.name.clone(),
        kind: candidate.kind,
        gpu_hours: summary.throughput.gpu_hours,
        usd: summary.costs.as_ref().map(|costs| costs.usd),
        metric,
        keeps: is_whole && metric.is_some_and(|value| keep.is_met(value)),
        sla_share: summary.goodput.as_ref().map(|goodput| goodput.share),
        mean_workers: scaling.map_or(fixed as f64, |scaling| scaling.mean_ready),
        most_workers: scaling.map_or(fixed, |scaling| scaling.peak_workers),
        started: scaling.map_or(0, |scaling| scaling.workers_started),
        rejected: summary.requests.rejected,
    }
}
