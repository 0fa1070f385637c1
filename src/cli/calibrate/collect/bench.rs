//! The sweep: all workers of a pool measure the same points, each in an order of its own.

use crate::cli::Failure;
use crate::cli::real::pace::Paced;
use crate::cli::real::steps::{Held, line};
use crate::cli::real::{Device, clocks};
use executor::sweep::{Limits, Point};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Passes before the clock counts, and passes counted, of a point.
const WARM_UPS: u32 = 3;
const REPEATS: u32 = 10;
/// A point that takes longer than this in all has only so many passes of each.
const LONG: Duration = Duration::from_millis(1500);
const WARM_UPS_OF_LONG: u32 = 1;
const REPEATS_OF_LONG: u32 = 3;
/// So many points are measured by each worker however long it takes: three passes of each are steps enough for a fit.
const LEAST_POINTS: usize = 20;
/// One point in so many is measured again at the end.
const AGAIN: usize = 20;
/// Passes by kind of work, of which the least times count.
const OP_REPEATS: usize = 3;
/// Of the time, the part that is kept for that.
const KEPT_FOR_AGAIN: f64 = 0.1;

/// What a worker's sweep gave.
pub struct Swept {
    pub measured: usize,
    pub left_over: usize,
    /// Second median over first, of the points measured twice.
    pub drifts: Vec<f64>,
}

/// How to measure.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    pub device: Device,
    pub limits: &'a Limits,
    pub seed: u64,
    pub budget: Duration,
    /// Each point is run once more by kind of work.
    pub per_op: bool,
}

/// All workers at once.
pub fn sweep(
    workers: Vec<Paced>,
    how: How<'_>,
    out: &mut (dyn Write + Send),
) -> Result<Vec<Swept>, Failure> {
    let rows = Mutex::new(out);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(id, executor)| {
                let mut bench = Bench {
                    executor,
                    how,
                    blocks: how.limits.scattered_blocks(how.seed),
                    id: id as u32,
                    counter: 0,
                    rows: &rows,
                };
                let points = how.limits.points(how.seed, id as u32);
                scope.spawn(move || bench.sweep(&points, start))
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("a sweep does not panic"));
        joined.collect::<Result<Vec<Swept>, Failure>>()
    })
}

/// A worker that is measured.
struct Bench<'a, 'out> {
    executor: Paced,
    how: How<'a>,
    blocks: Vec<u32>,
    id: u32,
    counter: u64,
    rows: &'a Mutex<&'out mut (dyn Write + Send)>,
}

impl Bench<'_, '_> {
    fn sweep(&mut self, points: &[Point], start: Instant) -> Result<Swept, Failure> {
        let budget = self.how.budget;
        let first_part = budget.mul_f64(1.0 - KEPT_FOR_AGAIN);
        let mut medians = Vec::new();
        for point in points {
            if start.elapsed() > first_part && medians.len() >= LEAST_POINTS {
                break;
            }
            medians.push(self.measure(point, medians.len(), false)?);
        }
        let mut drifts = Vec::new();
        for index in (0..medians.len()).step_by(AGAIN) {
            if start.elapsed() > budget {
                break;
            }
            drifts.push(self.measure(&points[index], index, true)? / medians[index]);
        }
        Ok(Swept {
            measured: medians.len(),
            left_over: points.len() - medians.len(),
            drifts,
        })
    }

    /// Measures a point several times, writes a row each, and returns the median.
    fn measure(&mut self, point: &Point, index: usize, is_again: bool) -> Result<f64, Failure> {
        let batch = point.batch(self.how.limits, &self.blocks);
        let mut pass = || {
            let passed = self.executor.pass(&batch);
            let time = passed.map_err(|error| Failure::run(format!("--real: {error}")))?;
            Ok::<_, Failure>((time, self.executor.probe_s()))
        };
        let (first, _) = pass()?;
        let is_long = first * (WARM_UPS + REPEATS) > LONG;
        let (warm_ups, repeats) = match is_long {
            true => (WARM_UPS_OF_LONG, REPEATS_OF_LONG),
            false => (WARM_UPS, REPEATS),
        };
        for _ in 1..warm_ups {
            pass()?;
        }
        let mut seconds = Vec::new();
        for _ in 0..repeats {
            let (time, probe_s) = pass()?;
            seconds.push((time.as_secs_f64(), probe_s));
        }
        let clocks = self.clocks(index);
        let ops = self.ops(point)?;
        let mut text = String::new();
        for (repeat, (one, probe_s)) in seconds.iter().enumerate() {
            self.counter += 1;
            let held = Held {
                prefill: &point.prefill,
                decode_batch: point.decode.len() as u32,
                decode_context: point.decode_context(),
            };
            let mut row = line(self.id, self.counter, *one, held);
            row["shape"] = json!(point.kind);
            row["point"] = json!(index);
            row["is_again"] = json!(is_again);
            row["probe_s"] = json!(probe_s);
            row["clocks"] = clocks.clone();
            if let Some(ops) = ops.as_ref().filter(|_| repeat == 0) {
                row["ops"] = ops.clone();
            }
            text += &format!("{row}\n");
        }
        let mut out = self
            .rows
            .lock()
            .expect("nobody panics with the rows in hand");
        out.write_all(text.as_bytes())
            .map_err(|error| Failure::run(format!("--out: cannot write: {error}")))?;
        let mut seconds: Vec<f64> = seconds.into_iter().map(|(one, _)| one).collect();
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }

    /// What the device runs at. Asking a GPU takes as long as some points do: one in twenty asks.
    fn clocks(&self, index: usize) -> Value {
        match self.how.device {
            Device::Cuda if !index.is_multiple_of(AGAIN) => Value::Null,
            device => clocks::now(device),
        }
    }

    /// Seconds by kind of work, if they are wanted.
    fn ops(&mut self, point: &Point) -> Result<Option<Value>, Failure> {
        if !self.how.per_op {
            return Ok(None);
        }
        let batch = point.batch(self.how.limits, &self.blocks);
        let times = self.executor.op_times(&batch, OP_REPEATS);
        let times = times.map_err(|error| Failure::run(format!("--real: {error}")))?;
        let pairs = times
            .iter()
            .map(|time| (time.op.name().to_owned(), json!(1e-3 * time.ms)));
        Ok(Some(pairs.collect()))
    }
}
