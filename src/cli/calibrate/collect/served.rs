//! The part of a calibration that is served: the workers of a pool under the live driver, behind the scenario's router.
//!
//! In words: made-up traffic ([`waves`]) is served until the time is up. Of every step the host's time is known: what passed
//! between the moment at which it could have begun and the moment at which its thread began. Nothing but a live run shows
//! it, since it is the driver that hears of an end, plans, and wakes the worker, on processors that the workers use, too.
//! The steps themselves join those of the sweep: they are steps as serving has them.

use crate::cli::Failure;
use crate::cli::real::steps::of_step;
use crate::cli::real::{Machine, note};
use executor::sweep::Limits;
use executor::waves::waves;
use serde_json::json;
use sim::live::{LiveEnd, stopper};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use sweeps::digest::workload_digest;
use sweeps::scenario::{Load, Scenario};
use sweeps::simulate::{Simulation, Steps};
use sweeps::workloads::Loaded;

/// Steps of each worker that are left out: it begins cold.
const WARM_UPS: u64 = 5;

/// Serves for so long and appends a row for each step.
///
/// # Errors
/// A worker that gives up, or a file that cannot be written.
pub fn serve(
    machine: &Machine,
    scenario: &Scenario,
    limits: &Limits,
    budget: Duration,
    out: &mut (dyn Write + Send),
) -> Result<(), Failure> {
    let mut scenario = scenario.clone();
    scenario.pools.truncate(1);
    scenario.workload.load = Load {
        arrival_speedup_ratio: 1.0,
        concurrency: None,
        warmup_requests: 0,
        duration: None,
    };
    let (workload, contents) = waves(limits, scenario.pools[0].workers, scenario.seed);
    let loaded = Loaded {
        digest: workload_digest(&workload),
        workload: Arc::new(workload),
        warnings: Vec::new(),
    };
    let simulation = Simulation::new(&scenario, &loaded, Steps::Stepping)
        .map_err(|error| Failure::input([error.to_string()]))?;
    note(&format!("serving for {:.1} s", budget.as_secs_f64()));
    let (stopper, signal) = stopper();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(budget);
        stopper.stop();
    });
    let (run, paces) = machine.run_paced(&scenario, &simulation, contents, signal)?;
    if let LiveEnd::Failed { worker, why } = &run.end {
        return Err(Failure::run(format!("worker {} gave up: {why}", worker.0)));
    }
    drop(timer);
    let mut counters: BTreeMap<_, u64> = BTreeMap::new();
    let mut text = String::new();
    for step in &run.steps {
        let counter = counters.entry(step.worker).or_insert(0);
        let beside = paces[step.worker.0 as usize][*counter as usize];
        *counter += 1;
        if *counter > WARM_UPS {
            let mut row = of_step(step, *counter);
            // A step's time is without what probing took of it.
            row["wall_time"] = json!(step.wall_time().as_s() - beside.spent_s);
            row["probe_s"] = json!(beside.probe_s);
            row["worker_id"] = json!(format!("served {}", step.worker.0));
            row["shape"] = json!("served");
            text += &format!("{row}\n");
        }
    }
    out.write_all(text.as_bytes())
        .map_err(|error| Failure::run(format!("--out: cannot write: {error}")))
}
