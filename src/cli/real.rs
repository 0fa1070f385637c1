//! Real steps: what a scenario must have to be run for real, the workers that run it, and how such a run ends.

pub mod clocks;
mod device;
pub mod pace;
pub mod steps;

pub use device::Device;

use super::Failure;
use clap::Args;
use device::Loaded;
use engine::{Contents, EngineConfig, Executor, TimingSource};
use executor::worker::Worker;
use executor::{Memory, ModelConfig, Tokens, WeightSource, available_memory};
use pace::{Beside, Paced};
use sim::live::{LiveEnd, LiveRun, StopSignal, Stopper, stopper};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sweeps::scenario::{Pool, Scenario};
use sweeps::simulate::Simulation;

/// The workers of a real run.
#[derive(Debug, Args, Clone, Default)]
pub struct WorkerArgs {
    /// With --real: a safetensors file, or a folder of them [default: random weights by the scenario's seed]
    #[arg(long, value_name = "PATH", requires = "real")]
    weights: Option<PathBuf>,
    /// With --real: threads of each worker [default: processors by workers]
    #[arg(long, value_name = "N", requires = "real", value_parser = clap::value_parser!(u32).range(1..=1024))]
    worker_threads: Option<u32>,
}

/// Exit code of a run that Ctrl-C ended: 128 and the number of the signal.
const INTERRUPTED: u8 = 130;

/// A model that is ready to be run.
pub struct Machine {
    device: Device,
    model: Loaded,
    seed: u64,
    weights: String,
    path: String,
}

impl Machine {
    /// Checks what a scenario has against what can be run, and takes or makes the weights.
    ///
    /// # Errors
    /// All that cannot be run, with exit code 2.
    pub fn set_up(
        scenario: &Scenario,
        device: Device,
        args: &WorkerArgs,
    ) -> Result<Machine, Failure> {
        let gpu = device.probe()?;
        let mut problems = not_run_for_real(scenario);
        let config = match model_path(scenario) {
            Err(problem) => Err(vec![problem]),
            Ok(path) => ModelConfig::read(Path::new(&path))
                .map(|config| (path, config))
                .map_err(|error| vec![error.to_string()]),
        };
        let source = match &args.weights {
            None => Ok(WeightSource::Generated(scenario.seed)),
            Some(path) => WeightSource::open(path).map_err(|error| vec![error.to_string()]),
        };
        let (path, config, source) = match (config, source) {
            (Ok((path, config)), Ok(source)) if problems.is_empty() => (path, config, source),
            (config, source) => {
                problems.extend(config.err().into_iter().flatten());
                problems.extend(source.err().into_iter().flatten());
                return Err(Failure::input(problems));
            }
        };
        let workers: u32 = scenario.pools.iter().map(|pool| pool.workers).sum();
        let memory = match &gpu {
            None => available_memory(),
            Some(gpu) => Some(gpu.memory * gpu.count as u64),
        };
        fits(scenario, &config, device, memory).map_err(|problem| Failure::input([problem]))?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let share = (processors / workers.max(1) as usize).max(1);
        let weights = source.in_words();
        let threads = args
            .worker_threads
            .map_or(share, |threads| threads as usize);
        Ok(Machine {
            device,
            model: Loaded::new(gpu, config, source, threads)?,
            seed: scenario.seed,
            weights,
            path,
        })
    }

    /// The tokens of a workload in the model's vocabulary.
    pub fn tokens(&self, contents: Contents) -> Arc<Tokens> {
        let vocab = self.model.config().vocab;
        Arc::new(Tokens::new(contents, vocab, self.seed))
    }

    /// A worker of a pool.
    ///
    /// # Errors
    /// Memory or threads that cannot be had.
    pub fn worker(&self, pool: &Pool, tokens: &Arc<Tokens>) -> Result<Worker, Failure> {
        let engine = pool.engine.as_vllm().expect("other engines were refused");
        self.model.worker(engine, tokens)
    }

    /// Where step times come from, for reports.
    pub fn source(&self, scenario: &Scenario) -> TimingSource {
        TimingSource {
            name: self.device.name().to_owned(),
            basis: engine::Basis::Measured,
            detail: format!("every step computed on the real clock: {}", self.in_words()),
            guesses: scenario.guesses(),
        }
    }

    /// Model, weights and threads in one line.
    pub fn in_words(&self) -> String {
        let parameters = self.model.config().parameters() as f64 / 1e6;
        format!(
            "{} ({parameters:.1} million parameters, {}), {}",
            self.path,
            self.weights,
            self.model.in_words()
        )
    }

    /// Runs a simulation for real and proves that the decisions are those of the virtual clock: the journal, played into a
    /// fresh cluster, must lead to the same actions.
    ///
    /// # Errors
    /// Memory, threads or timers that cannot be had, or a journal that does not play.
    pub fn run(
        &self,
        scenario: &Scenario,
        simulation: &Simulation,
        contents: Contents,
        signal: StopSignal,
    ) -> Result<LiveRun, Failure> {
        self.run_as(scenario, simulation, contents, signal, |worker, _| {
            Ok(Box::new(worker))
        })
    }

    /// The same with the pace of each worker beside its steps, in their order.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_paced(
        &self,
        scenario: &Scenario,
        simulation: &Simulation,
        contents: Contents,
        signal: StopSignal,
    ) -> Result<(LiveRun, Vec<Vec<Beside>>), Failure> {
        let mut logs = Vec::new();
        let run = self.run_as(scenario, simulation, contents, signal, |worker, pool| {
            let engine = pool.engine.as_vllm().expect("other engines were refused");
            let sequences = engine.max_num_seqs.min(engine.max_num_batched_tokens);
            let paced = Paced::new(worker, sequences)?;
            logs.push(paced.log());
            Ok(Box::new(paced))
        })?;
        Ok((run, logs.iter().map(pace::read).collect()))
    }

    fn run_as(
        &self,
        scenario: &Scenario,
        simulation: &Simulation,
        contents: Contents,
        signal: StopSignal,
        mut seat: impl FnMut(Worker, &Pool) -> Result<Box<dyn Executor>, Failure>,
    ) -> Result<LiveRun, Failure> {
        let tokens = self.tokens(contents);
        let mut executors: Vec<Box<dyn Executor>> = Vec::new();
        for pool in &scenario.pools {
            for _ in 0..pool.workers {
                executors.push(seat(self.worker(pool, &tokens)?, pool)?);
            }
        }
        let run = simulation
            .run_real(executors, signal)
            .map_err(|error| Failure::run(format!("the real run failed: {error}")))?;
        let played = run.journal.play(&mut simulation.fresh_real_cluster());
        played.map_err(|departure| {
            Failure::run(format!(
                "the journal of the real run does not replay: {departure:?}"
            ))
        })?;
        note(&format!(
            "journal of {} events replayed on the virtual clock: the same actions",
            run.journal.entries.len()
        ));
        for (answer, record) in tokens.answers().iter().zip(&run.recording.requests) {
            assert!(
                record.outcome != sim::Outcome::Completed
                    || answer.len() == record.output_tokens as usize,
                "a completed request has as many tokens as the books say"
            );
        }
        Ok(run)
    }
}

/// The path of the model's config.json, or what is there instead.
fn model_path(scenario: &Scenario) -> Result<String, String> {
    let expected = "the path of a Hugging Face config.json of a dense decoder (model: FILE)";
    let models = scenario.pools.iter().map(|pool| pool.model.as_ref());
    match models.flatten().next() {
        None => Err(format!("--real: found no model, expected {expected}")),
        Some(model) if !Path::new(&model.id).exists() => Err(format!(
            "--real: model: found the name {}, expected {expected}: a name says the shape, not the formulas",
            model.id
        )),
        Some(model) => Ok(model.id.clone()),
    }
}

/// What a scenario has that is simulated and not run, a sentence each.
fn not_run_for_real(scenario: &Scenario) -> Vec<String> {
    let mut problems: Vec<String> = scenario
        .oracles()
        .iter()
        .map(|oracle| {
            format!(
                "--real: found {oracle}; expected nothing that knows the future on the real clock"
            )
        })
        .collect();
    if !scenario.adversity.is_nothing() {
        problems.push(
            "--real: found clients, admission or faults, expected a deployment in which nothing goes wrong"
                .to_owned(),
        );
    }
    if scenario.planner.is_some() {
        let found = "--real: found a planner, expected a fixed number of workers";
        problems.push(format!("{found}: real workers do not come and go"));
    }
    if scenario.disaggregation.is_some() {
        let found =
            "--real: found pools of role prefill and decode, expected workers that do everything";
        problems.push(format!(
            "{found}: KV does not move between real workers yet"
        ));
    }
    for pool in &scenario.pools {
        let name = &pool.name;
        let mut refuse = |found: &str, expected: &str| {
            problems.push(format!(
                "--real: pool {name}: found {found}, expected {expected}"
            ));
        };
        if !matches!(pool.engine, EngineConfig::Vllm(_)) {
            let backend = pool.engine.backend();
            refuse(
                &format!("backend {backend}"),
                "vllm: only its scheduler keeps the block tables that a model reads",
            );
        }
        let parallel = pool.parallel;
        if parallel.tensor * parallel.pipeline * parallel.data > 1 {
            refuse(
                "more than one GPU per worker",
                "tp, pp and dp of 1: a real worker is one device",
            );
        }
        if pool.engine.speculation().is_some() {
            refuse(
                "drafts",
                "none: their acceptance is a model, not a computation",
            );
        }
        if pool.kvbm.is_some() {
            refuse(
                "tiers below the GPU's cache",
                "none: real workers have no such tiers yet",
            );
        }
    }
    problems
}

/// Whether weights and KV of all workers fit into the memory that is free.
fn fits(
    scenario: &Scenario,
    config: &ModelConfig,
    device: Device,
    available: Option<u64>,
) -> Result<(), String> {
    let workers = scenario.pools.iter().flat_map(|pool| {
        let engine = pool.engine.as_vllm().expect("other engines were refused");
        let each = (
            engine.num_gpu_blocks,
            engine.block_size,
            engine.max_num_batched_tokens,
        );
        std::iter::repeat_n(each, pool.workers as usize)
    });
    let workers: Vec<(u32, u32, u32)> = workers.collect();
    let mut needed = Memory::needed(config, &workers);
    let mut block = u64::from(workers[0].1) * config.kv_bytes_per_token();
    if device == Device::Cuda {
        // bf16 for f32, and each worker has the weights.
        needed.weights = needed.weights / 2 * workers.len() as u64;
        needed.kv /= 2;
        needed.activations /= 2;
        block /= 2;
    }
    let Some(available) = available.filter(|available| *available < needed.total()) else {
        return Ok(());
    };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let other = needed.weights + needed.activations;
    let hint = match (available * 9 / 10).checked_sub(other) {
        None => "take a smaller model or fewer workers".to_owned(),
        Some(left) => {
            let most = left / block / workers.len() as u64;
            format!("engine.num_gpu_blocks of {most} would fit")
        }
    };
    Err(format!(
        "--real: found {:.2} GiB of free memory, expected {:.2} GiB: weights {:.2}, KV blocks of all workers {:.2}, activations \
         {:.2}; {hint}",
        gib(available),
        gib(needed.total()),
        gib(needed.weights),
        gib(needed.kv),
        gib(needed.activations)
    ))
}

/// A signal that comes with Ctrl-C. The second Ctrl-C ends the program at once.
pub fn stop_on_interrupt() -> StopSignal {
    let (stopper, signal) = stopper();
    watch_interrupts(stopper);
    signal
}

#[cfg(unix)]
fn watch_interrupts(stopper: Stopper) {
    use signal_hook::consts::SIGINT;
    use signal_hook::iterator::Signals;
    let Ok(mut signals) = Signals::new([SIGINT]) else {
        // Without the handler Ctrl-C ends the program as ever.
        return;
    };
    std::thread::spawn(move || {
        let mut interrupts = signals.forever();
        if interrupts.next().is_some() {
            note("\ninterrupted: the run ends here, what it has is reported; again to end at once");
            stopper.stop();
        }
        if interrupts.next().is_some() {
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
}

#[cfg(not(unix))]
fn watch_interrupts(_: Stopper) {}

/// Why a run ended before its end, with what became of the requests.
pub fn ended_early(run: &LiveRun) -> Option<Failure> {
    let why = match &run.end {
        LiveEnd::Complete => return None,
        LiveEnd::Stopped => "interrupted".to_owned(),
        LiveEnd::Failed { worker, why } => format!("worker {} gave up: {why}", worker.0),
    };
    let sum = run.accounted();
    Some(Failure {
        messages: vec![format!(
            "{why}; of {} requests {} were completed, {} rejected, {} in progress, {} not sent; the results cover the time \
             until then",
            run.recording.requests.len(),
            sum.completed,
            sum.rejected,
            sum.in_progress,
            sum.unsent
        )],
        code: match run.end {
            LiveEnd::Stopped => INTERRUPTED,
            LiveEnd::Complete | LiveEnd::Failed { .. } => super::FAILED,
        },
    })
}

/// A line on stderr. A closed stderr is no reason to fail.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
