//! How fast a worker computes at the moment, told by a small pass that is always the same.
//!
//! In words: beside its steps a worker runs a *probe*, two tokens without context, twice in a row, of which the second time
//! counts; never so often that it takes more than a fiftieth of the time. How much longer that took than at the worker's
//! fastest is its *pace* there. The probe runs the model's own loops over its own weights, so that it slows down as steps do
//! when somebody outside takes a part of the processor (another machine on the same core, its traffic in the shared cache, a
//! lower clock). It knows nothing of requests, batches and contexts: a run can be simulated at the pace that it had without
//! being told how long its steps were.

use crate::cli::Failure;
use engine::{Batch, Executor, ExecutorError, RequestId, executor::Row};
use executor::ops::OpTime;
use executor::worker::Worker;
use sim::live::RealStep;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Of the time, the part that probes may take.
const SHARE: f64 = 0.02;
/// Passes before the first probe that counts.
const WARM_UPS: u32 = 10;
/// Sequences of a probe, if the worker takes as many: as the products of the CPU take at once.
const ROWS: u32 = 2;
/// The pace is told by windows of this length, in seconds.
const WINDOW_S: f64 = 0.1;
/// A probe that took longer than so many times the fastest was interrupted; whether one is says nothing about the others.
const MOST: f64 = 3.0;
/// Of all probes, the share that is faster than what counts as a worker's fastest.
const FASTEST: f64 = 0.05;

/// What was probed beside a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beside {
    /// The last probe after the step, in seconds.
    pub probe_s: f64,
    /// What probing took of the time of the step, in seconds; 0 where the probe is an earlier one.
    pub spent_s: f64,
}

/// By step of a worker.
pub type PaceLog = Arc<Mutex<Vec<Beside>>>;

/// All that a log has.
pub fn read(log: &PaceLog) -> Vec<Beside> {
    log.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A worker that is probed.
pub struct Paced {
    worker: Worker,
    probe: Batch,
    /// When the next probe may run.
    due: Instant,
    last_s: f64,
    log: PaceLog,
}

impl Paced {
    /// Warms up and probes once. The worker takes steps of so many sequences.
    ///
    /// # Errors
    /// The device gave up.
    pub fn new(worker: Worker, sequences: u32) -> Result<Paced, Failure> {
        // The null block: nobody reads it. Both sequences write the same into it.
        let row = Row {
            request: RequestId(0),
            new_tokens: 1,
            computed_before: 0,
            samples: true,
            blocks: vec![0],
        };
        let mut paced = Paced {
            worker,
            probe: Batch {
                rows: vec![row; ROWS.min(sequences) as usize],
            },
            due: Instant::now(),
            last_s: 0.0,
            log: PaceLog::default(),
        };
        let mut warm_up = || {
            for _ in 0..WARM_UPS {
                paced.worker.pass(&paced.probe)?;
            }
            paced.look()
        };
        warm_up().map_err(|error| Failure::run(format!("--real: {error}")))?;
        Ok(paced)
    }

    /// What is probed beside its steps; goes on growing while it runs.
    pub fn log(&self) -> PaceLog {
        self.log.clone()
    }

    /// The last probe, in seconds.
    pub fn probe_s(&self) -> f64 {
        self.last_s
    }

    /// Runs a batch to the end and forgets the tokens; a probe that is due runs afterwards.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn pass(&mut self, batch: &Batch) -> Result<std::time::Duration, ExecutorError> {
        let start = Instant::now();
        self.worker.pass(batch)?;
        let time = start.elapsed();
        self.look()?;
        Ok(time)
    }

    /// As [`Worker::op_times`].
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn op_times(
        &mut self,
        batch: &Batch,
        repeats: usize,
    ) -> Result<Vec<OpTime>, ExecutorError> {
        self.worker.op_times(batch, repeats)
    }

    /// Probes if it is time, and returns what that took.
    fn look(&mut self) -> Result<f64, ExecutorError> {
        let start = Instant::now();
        if start < self.due {
            return Ok(0.0);
        }
        self.worker.pass(&self.probe)?;
        let warm = Instant::now();
        self.worker.pass(&self.probe)?;
        let end = Instant::now();
        self.last_s = (end - warm).as_secs_f64();
        let spent = end - start;
        self.due = end + spent.mul_f64(1.0 / SHARE - 1.0);
        Ok(spent.as_secs_f64())
    }
}

impl Executor for Paced {
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
        let tokens = self.worker.run(batch)?;
        let spent_s = self.look()?;
        let probe_s = self.last_s;
        let beside = Beside { probe_s, spent_s };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(beside);
        Ok(tokens)
    }
}

/// What a probe takes while nobody disturbs it: its time at the fast end of all, in seconds.
pub fn fastest(mut probes: Vec<f64>) -> f64 {
    assert!(
        !probes.is_empty(),
        "a worker is probed before its first step"
    );
    probes.sort_by(f64::total_cmp);
    probes[(probes.len() as f64 * FASTEST) as usize]
}

/// How much longer everything took beside a probe.
pub fn pace(probe_s: f64, fastest_s: f64) -> f64 {
    (probe_s / fastest_s).min(MOST)
}

/// The pace of a worker from the beginning of a run, window by window.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// By window: how much longer steps take than at the worker's fastest, what probing takes included; at least 1.
    factors: Vec<f64>,
}

impl Course {
    /// From the steps of a worker and what was probed beside each, where steps slow down by this power of the pace.
    pub fn of<'a>(
        steps: impl Iterator<Item = (&'a RealStep, &'a Beside)>,
        fastest_s: f64,
        power: f64,
    ) -> Course {
        /// Sums over a window.
        #[derive(Clone, Copy, Default)]
        struct Sums {
            probes: f64,
            paces: f64,
            computed_s: f64,
            spent_s: f64,
        }
        let mut windows: Vec<Sums> = Vec::new();
        for (step, beside) in steps {
            let index = window(step.began.as_s());
            if windows.len() <= index {
                windows.resize(index + 1, Sums::default());
            }
            let sums = &mut windows[index];
            if beside.spent_s > 0.0 {
                sums.probes += 1.0;
                sums.paces += pace(beside.probe_s, fastest_s);
            }
            sums.computed_s += step.end.since(step.began).as_s() - beside.spent_s;
            sums.spent_s += beside.spent_s;
        }
        let known = windows.iter().find(|sums| sums.probes > 0.0);
        let mut last = known.map_or(1.0, |sums| sums.paces / sums.probes);
        let factor = |sums: &Sums| {
            if sums.probes > 0.0 {
                last = sums.paces / sums.probes;
            }
            let probing = sums.spent_s / sums.computed_s.max(sums.spent_s).max(f64::MIN_POSITIVE);
            (last.powf(power) * (1.0 + probing)).max(1.0)
        };
        Course {
            factors: windows.iter().map(factor).collect(),
        }
    }

    /// How much longer a step takes that begins so many seconds after the run.
    pub fn at(&self, seconds: f64) -> f64 {
        let last = self.factors.len().saturating_sub(1);
        let factor = self.factors.get(window(seconds).min(last));
        factor.copied().unwrap_or(1.0)
    }

    /// Beginning, end and factor of the stretches of one pace, in seconds; the last has no end.
    pub fn stretches(&self) -> Vec<(f64, Option<f64>, f64)> {
        let count = self.factors.len();
        let stretch = |(index, factor): (usize, &f64)| {
            let end = (index + 1 < count).then(|| (index + 1) as f64 * WINDOW_S);
            (index as f64 * WINDOW_S, end, *factor)
        };
        self.factors.iter().enumerate().map(stretch).collect()
    }

    /// Its factors.
    pub fn factors(&self) -> &[f64] {
        &self.factors
    }
}

fn window(seconds: f64) -> usize {
    (seconds / WINDOW_S) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Span, Time};
    use sim::event::WorkerId;

    fn step(began_s: f64, probe_s: f64, is_new: bool) -> (RealStep, Beside) {
        let time = |seconds: f64| Time(Span::from_s(seconds).0);
        let step = RealStep {
            worker: WorkerId(0),
            handed_over: time(began_s),
            ready: time(began_s),
            began: time(began_s),
            end: time(began_s + 0.01),
            prefill: Vec::new(),
            decode_batch: 1,
            decode_context: 1,
            samples: 1,
        };
        let spent_s = if is_new { 1e-9 } else { 0.0 };
        (step, Beside { probe_s, spent_s })
    }

    #[test]
    fn windows_without_a_probe_go_on_at_the_pace_before() {
        let steps = [
            step(0.12, 2.0, true),
            step(0.14, 2.0, false),
            step(0.16, 1.0, true),
            // Interrupted: it counts as three times the fastest.
            step(0.31, 50.0, true),
            step(0.55, 0.9, true),
        ];
        let course = Course::of(steps.iter().map(|(step, beside)| (step, beside)), 1.0, 1.0);
        // Before the first probe its pace, after the last that one's; nothing is faster than the fastest.
        let found = [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 7.0].map(|at| course.at(at));
        for (found, expected) in found.into_iter().zip([1.5, 1.5, 1.5, 3.0, 3.0, 1.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(course.stretches()[5].1, None);
        assert_eq!(Course::of(std::iter::empty(), 1.0, 1.0).at(3.0), 1.0);
    }

    #[test]
    fn the_fastest_is_no_single_probe() {
        let probes: Vec<f64> = (0..100).map(|index| 1.0 + f64::from(index)).collect();
        assert_eq!(fastest(probes), 6.0);
        assert_eq!(fastest(vec![2.0]), 2.0);
    }
}
