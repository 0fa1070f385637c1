//! What scaling came to: GPU-hours by state, replicas over time, decisions.
//!
//! A worker costs its GPUs from the moment it gets them until they are free again: while it starts, serves and drains. All
//! is counted from the start of the run to its last recorded moment; what ran on after that is not charged.

use super::lifecycle::Life;
use super::record::{DecisionRecord, ScalingRecord};
use super::updates::UpdateSummary;
use super::weights_summary::WeightsSummary;
use crate::record::{RequestRecord, WorkerRecord};
use engine::{Span, Time};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a planner and the workers it started and drained came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScalingSummary {
    /// The planner's name.
    pub policy: &'static str,
    /// How often it was asked.
    pub ticks: u64,
    /// How often it gave each reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Workers that began to start after the start of the run.
    pub workers_started: u64,
    /// Workers that were called off before they served.
    pub workers_called_off: u64,
    /// Workers that were drained.
    pub workers_drained: u64,
    /// Of those that began to start, those that were spares when they were called in.
    pub workers_called_in: u64,
    /// Of those that began to start, those that had been drained in the other role.
    pub workers_switched: u64,
    /// Most workers that had GPUs at once.
    pub peak_workers: u64,
    /// Workers that served, averaged over time.
    pub mean_ready: f64,
    /// GPU-hours of all pools.
    pub gpu_hours: GpuHours,
    /// By pool.
    pub pools: Vec<PoolSummary>,
    /// What was decided, in order.
    pub decisions: Vec<DecisionSummary>,
    /// By pool: its update.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<UpdateSummary>,
    /// Weights that neighbours were asked for over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsSummary>,
}

/// GPU-hours by what the workers did.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct GpuHours {
    /// They started, or were called in.
    pub starting: f64,
    /// They were kept warm.
    pub spare: f64,
    /// They served.
    pub ready: f64,
    /// They finished what they had.
    pub draining: f64,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolSummary {
    /// Its name.
    pub pool: String,
    /// Its GPU-hours.
    pub gpu_hours: GpuHours,
    /// Fewest workers that served at once.
    pub fewest_ready: u64,
    /// Most.
    pub most_ready: u64,
}

/// A decision that changed something.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DecisionSummary {
    /// When, in seconds since the start of the run.
    pub time_s: f64,
    /// Why.
    pub reason: &'static str,
    /// Prefill workers; absent where they were left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<ChangeSummary>,
    /// Decode workers, or aggregated ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<ChangeSummary>,
    /// Longest TTFT that the policy expected, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_ttft_ms: Option<f64>,
    /// Longest ITL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_itl_ms: Option<f64>,
    /// Requests that it expected in the next window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_requests: Option<f64>,
}

/// Workers of a role before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ChangeSummary {
    /// Workers that served or were to.
    pub from: u32,
    /// Of these, those that served.
    pub ready: u32,
    /// Workers that should serve.
    pub to: u32,
}

/// When a worker was in which state, cut off at the end of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stay {
    pub starting: (Time, Time),
    pub spare: (Time, Time),
    pub activating: (Time, Time),
    pub ready: (Time, Time),
    pub draining: (Time, Time),
}

impl Life {
    /// Its states up to `end`; a state that it did not reach takes no time.
    pub(crate) fn stay(&self, end: Time) -> Stay {
        let gone = self.gone.min(end);
        let [placed, ready, drained] =
            [self.placed, self.ready, self.drained].map(|moment| moment.min(gone));
        // Who was never a spare comes to be ready without these.
        let [warm, called] = [self.warm, self.called].map(|moment| moment.min(ready));
        let called = if self.warm == Time::MAX {
            ready
        } else {
            called
        };
        Stay {
            starting: (placed, warm),
            spare: (warm, called),
            activating: (called, ready),
            ready: (ready, drained),
            draining: (drained, gone),
        }
    }
}

impl Stay {
    /// How long its GPUs were taken.
    pub fn placed(&self) -> Span {
        self.draining.1.since(self.starting.0)
    }

    /// How long it had requests to serve.
    pub fn serving(&self) -> Span {
        self.draining.1.since(self.ready.0)
    }
}

/// Whether it got its GPUs after the start of the run.
fn has_started(life: &Life) -> bool {
    let was_there = life.ready == Time::ZERO || life.warm == Time::ZERO;
    life.placed != Time::MAX && !was_there
}

/// From when until when a worker is in one of its states.
pub(crate) type Phase = fn(&Stay) -> (Time, Time);

const PS_PER_HOUR: f64 = 3.6e15;

impl GpuHours {
    /// Of all states.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.starting + self.spare + self.ready + self.draining
    }

    fn of(lives: &[&Life], end: Time, gpus: impl Fn(&Life) -> u64) -> GpuHours {
        let sum = |state: fn(&Stay) -> (Time, Time)| {
            let spans = lives.iter().map(|life| {
                let (from, until) = state(&life.stay(end));
                u128::from(until.since(from).0) * u128::from(gpus(life))
            });
            spans.sum::<u128>() as f64 / PS_PER_HOUR
        };
        GpuHours {
            starting: sum(|stay| stay.starting) + sum(|stay| stay.activating),
            spare: sum(|stay| stay.spare),
            ready: sum(|stay| stay.ready),
            draining: sum(|stay| stay.draining),
        }
    }
}

/// How often something that begins and ends was there at once: (fewest, most, mean) over `0..end`.
fn at_once(stays: impl Iterator<Item = (Time, Time)>, end: Time) -> (u64, u64, f64) {
    let mut steps: BTreeMap<Time, i64> = BTreeMap::from([(Time::ZERO, 0)]);
    let mut total = 0u128;
    for (from, until) in stays.filter(|(from, until)| from < until) {
        *steps.entry(from).or_default() += 1;
        *steps.entry(until).or_default() -= 1;
        total += u128::from(until.since(from).0);
    }
    let mut count = 0i64;
    let (mut fewest, mut most) = (u64::MAX, 0);
    for (&time, &step) in &steps {
        count += step;
        if time < end || end == Time::ZERO {
            fewest = fewest.min(count.unsigned_abs());
            most = most.max(count.unsigned_abs());
        }
    }
    let mean = if end == Time::ZERO {
        0.0
    } else {
        total as f64 / end.0 as f64
    };
    (fewest.min(most), most, mean)
}

impl ScalingRecord {
    /// The numbers of a run that ended at `end`. `pool_names` are by pool index; `requests` are those that count.
    pub(crate) fn summarize(
        &self,
        end: Time,
        workers: &[WorkerRecord],
        pool_names: &[String],
        requests: &[&RequestRecord],
    ) -> ScalingSummary {
        let gpus = |life: &Life| {
            let of_pool = workers.iter().find(|worker| worker.pool == life.pool);
            of_pool.map_or(0, |worker| u64::from(worker.gpus))
        };
        let all: Vec<&Life> = self.lives.iter().collect();
        let ready = |lives: &[&Life]| {
            let stays: Vec<_> = lives.iter().map(|life| life.stay(end).ready).collect();
            at_once(stays.into_iter(), end)
        };
        let placed = all.iter().map(|life| {
            let stay = life.stay(end);
            (stay.starting.0, stay.draining.1)
        });
        let count = |is: &dyn Fn(&Life) -> bool| all.iter().filter(|life| is(life)).count() as u64;
        let pools = pool_names.iter().enumerate().map(|(index, name)| {
            let of_pool = all.iter().copied();
            let lives: Vec<&Life> = of_pool.filter(|life| life.pool as usize == index).collect();
            let (fewest_ready, most_ready, _) = ready(&lives);
            PoolSummary {
                pool: name.clone(),
                gpu_hours: GpuHours::of(&lives, end, gpus),
                fewest_ready,
                most_ready,
            }
        });
        ScalingSummary {
            policy: self.policy,
            ticks: self.ticks,
            reasons: self.reasons.clone(),
            workers_started: count(&has_started),
            workers_called_in: count(&|life| life.called < Time::MAX && life.warm < Time::MAX),
            workers_switched: count(&|life| self.has_switched(life)),
            workers_called_off: count(&|life| life.ready == Time::MAX && life.gone != Time::MAX),
            workers_drained: count(&|life| life.drained != Time::MAX),
            peak_workers: at_once(placed, end).1,
            mean_ready: ready(&all).2,
            gpu_hours: GpuHours::of(&all, end, gpus),
            weights: self.weights(),
            pools: pools.collect(),
            decisions: self.decisions.iter().map(DecisionRecord::summary).collect(),
            updates: (self.updates.iter())
                .map(|update| update.summary(&self.lives, end, pool_names, requests))
                .collect(),
        }
    }

    /// Whether a worker of the other role restarted as this one.
    fn has_switched(&self, life: &Life) -> bool {
        let from = life.from.map(|from| self.lives[from as usize]);
        from.is_some_and(|from| life.placed < Time::MAX && life.placed == from.gone)
    }

    /// By place, for how long somebody served there.
    pub(crate) fn served(&self, end: Time, places: usize) -> Vec<Span> {
        let mut served = vec![Span::ZERO; places];
        for life in self.lives.iter().filter(|life| life.worker != u32::MAX) {
            served[life.worker as usize] += life.stay(end).serving();
        }
        served
    }

    /// By place, for how long somebody had its GPUs.
    pub(crate) fn placed(&self, end: Time, places: usize) -> Vec<Span> {
        let mut placed = vec![Span::ZERO; places];
        for life in self.lives.iter().filter(|life| life.worker != u32::MAX) {
            placed[life.worker as usize] += life.stay(end).placed();
        }
        placed
    }

    /// Most GPUs that were taken at once.
    pub(crate) fn most_gpus(&self, end: Time, workers: &[WorkerRecord]) -> u64 {
        let placed = self.lives.iter().filter(|life| life.worker != u32::MAX);
        let gpus = placed.flat_map(|life| {
            let stay = life.stay(end);
            let stay = (stay.starting.0, stay.draining.1);
            std::iter::repeat_n(stay, workers[life.worker as usize].gpus as usize)
        });
        at_once(gpus, end).1
    }

    /// Picoseconds during which GPUs were taken, summed over the GPUs.
    pub(crate) fn gpu_time_ps(&self, end: Time, workers: &[WorkerRecord]) -> u128 {
        let placed = self.lives.iter().filter(|life| life.worker != u32::MAX);
        let time = placed.map(|life| {
            let gpus = workers[life.worker as usize].gpus;
            u128::from(life.stay(end).placed().0) * u128::from(gpus)
        });
        time.sum()
    }
}

impl DecisionRecord {
    fn summary(&self) -> DecisionSummary {
        let change = |target: Option<u32>, before: super::Count| {
            let to = target.filter(|&to| to != before.staying())?;
            Some(ChangeSummary {
                from: before.staying(),
                ready: before.ready,
                to,
            })
        };
        DecisionSummary {
            time_s: self.time.as_s(),
            reason: self.reason.map_or("none", |reason| reason.as_str()),
            prefill: change(self.target.prefill, self.before.prefill),
            decode: change(self.target.decode, self.before.decode),
            estimated_ttft_ms: self.estimated_ttft.map(Span::as_ms),
            estimated_itl_ms: self.estimated_itl.map(Span::as_ms),
            predicted_requests: self
                .predicted_requests_milli
                .map(|milli| milli as f64 / 1000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000_000;

    fn life(moments: [u64; 5], worker: u32) -> Life {
        let [ordered, placed, ready, drained, gone] = moments.map(|s| match s {
            u64::MAX => Time::MAX,
            s => Time(s * S),
        });
        Life {
            worker,
            placed,
            ready,
            drained,
            gone,
            ..Life::of(0, ordered)
        }
    }

    #[test]
    fn gpu_hours_are_counted_while_gpus_are_taken_and_no_longer_than_the_run() {
        const NEVER: u64 = u64::MAX;
        let record = ScalingRecord {
            lives: vec![
                life([0, 0, 0, NEVER, NEVER], 0),
                life([100, 100, 400, 700, 800], 1),
                // Called off while it started, and one that never got a GPU.
                life([500, 500, NEVER, NEVER, 600], 2),
                life([500, NEVER, NEVER, NEVER, 550], u32::MAX),
                // Still starting at the end.
                life([900, 900, 1200, NEVER, NEVER], 1),
            ],
            ..ScalingRecord::new("test")
        };
        let worker = WorkerRecord {
            gpus: 2,
            ..WorkerRecord::default()
        };
        let end = Time(1000 * S);
        let summary = record.summarize(end, &[worker; 3], &["agg".to_owned()], &[]);
        let seconds = |hours: f64| (hours * 3600.0).round();
        // Starting: 300 + 100 + 100 s of two GPUs; ready: 1000 + 300; draining: 100.
        assert_eq!(seconds(summary.gpu_hours.starting), 1000.0);
        assert_eq!(seconds(summary.gpu_hours.ready), 2600.0);
        assert_eq!(seconds(summary.gpu_hours.draining), 200.0);
        let gpu_s = record.gpu_time_ps(end, &[worker; 3]) as f64 / 1e12;
        assert_eq!(seconds(summary.gpu_hours.total()), gpu_s);
        assert_eq!(
            (summary.workers_started, summary.workers_called_off),
            (3, 2)
        );
        assert_eq!(summary.peak_workers, 3);
        assert_eq!(summary.mean_ready, 1.3);
        let pool = &summary.pools[0];
        assert_eq!((pool.fewest_ready, pool.most_ready), (1, 2));
        assert_eq!(
            record.served(end, 3),
            [Span(1000 * S), Span(400 * S), Span(0)]
        );
    }
}
