//! What GPUs draw, from measured shares of their rated power: an estimate.
//!
//! A GPU of a worker is in one of three states while it is taken: a step that computes prompt tokens, a step that only
//! decodes, or none. Each state has a share of the rated power. Shares by default are those of `splitwise_perf_model.csv`
//! (Splitwise, ISCA 2024: Llama-2-70B and BLOOM-176B on A100-80GB, mean power over requests of which all but a few per cent
//! of the time are decode, and the peak in between):
//!
//! | | 2 GPUs | 4 | 8 |
//! |---|---|---|---|
//! | decode, share of the rated power | 0.74 | 0.60 | 0.43 (70B), 0.63 (176B) |
//! | peak, in the prompt | 1.00 to 1.09 | 0.64 to 1.05 | 0.46 to 1.03 |
//!
//! The same GPU on more GPUs' worth of a model waits more for the others, so the share falls with their number.
// Model: a state has one power, whatever the batch. Mean of a whole request against the 220 measured rows with prompts up to
// 2,048 tokens: 10 % off on average, 45 % at most; other GPUs than the A100 were not measured, nor was one that idles.

use super::{away_of, end_of, per, tokens};
use crate::record::Recording;
use serde::Serialize;

/// Power of the GPUs of a pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolPower {
    /// Rated power of a GPU in watts.
    pub gpu_power_w: f64,
    /// Share of it in steps that compute prompt tokens.
    pub prefill_share: f64,
    /// In steps that only decode.
    pub decode_share: f64,
    /// Between steps, and while a worker starts.
    pub idle_share: f64,
}

impl PoolPower {
    /// The prompt phase lies between what rows of whole requests leave for it and its peak.
    pub const PREFILL_SHARE: f64 = 0.9;
    /// Not part of the measurement: a guess.
    pub const IDLE_SHARE: f64 = 0.15;

    /// Measured mean of decode on so many GPUs together; between 2 and 8 the next that was measured, and at 8 the mean of
    /// both models.
    #[must_use]
    pub const fn decode_share(gpus: u32) -> f64 {
        match gpus {
            0..=2 => 0.74,
            3..=4 => 0.60,
            _ => 0.54,
        }
    }
}

/// How energy is estimated.
#[derive(Debug, Clone, PartialEq)]
pub struct EnergySpec {
    /// By pool index.
    pub pools: Vec<PoolPower>,
    /// Power of the data centre over that of its GPUs.
    pub pue: f64,
    /// Dollars for a kilowatt-hour.
    pub usd_per_kwh: Option<f64>,
}

/// The energy of a run: an estimate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EnergySummary {
    /// Always `estimated`.
    pub basis: &'static str,
    /// GPUs and what the data centre adds to them, in kilowatt-hours.
    pub kwh: f64,
    /// Of GPUs in steps with prompt tokens.
    pub prefill_kwh: f64,
    /// Of GPUs in steps that only decode.
    pub decode_kwh: f64,
    /// Of GPUs that had no step, those of workers that start among them.
    pub idle_kwh: f64,
    /// Mean power over the run in kilowatts, all included.
    pub mean_kw: f64,
    /// Kilowatt-hours for a million generated tokens of completed requests, all included.
    pub kwh_per_million_output_tokens: f64,
    /// What `kwh` costs; absent without a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
}

/// Picoseconds times watts in a kilowatt-hour.
const PS_W_PER_KWH: f64 = 3.6e18;

/// The energy of a run.
#[must_use]
pub fn energy(recording: &Recording, spec: &EnergySpec) -> EnergySummary {
    let end = end_of(recording);
    let places = recording.workers.len();
    let mut placed = match &recording.scaling {
        Some(scaling) => scaling.placed(end, places),
        None => vec![end.since(engine::Time::ZERO); places],
    };
    for (worker, from, until) in away_of(recording, end) {
        placed[worker as usize].0 -= until.since(from).0;
    }
    let (mut prefill, mut decode, mut idle) = (0.0, 0.0, 0.0);
    for (worker, placed) in recording.workers.iter().zip(placed) {
        let power = &spec.pools[worker.pool as usize];
        let kwh = |ps: u64, share: f64| {
            f64::from(worker.gpus) * ps as f64 * power.gpu_power_w * share / PS_W_PER_KWH
        };
        // A last step may end after the last recorded moment.
        let busy = worker.busy.0.min(placed.0);
        let prompts = worker.prefill_busy.0.min(busy);
        prefill += kwh(prompts, power.prefill_share);
        decode += kwh(busy - prompts, power.decode_share);
        idle += kwh(placed.0 - busy, power.idle_share);
    }
    let kwh = (prefill + decode + idle) * spec.pue;
    EnergySummary {
        basis: "estimated",
        kwh,
        prefill_kwh: prefill,
        decode_kwh: decode,
        idle_kwh: idle,
        mean_kw: per(kwh, end.0 as f64 / super::PS_PER_HOUR),
        kwh_per_million_output_tokens: per(kwh, tokens(recording).1 as f64 / 1e6),
        usd: spec.usd_per_kwh.map(|price| price * kwh),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Outcome, RequestRecord, WorkerRecord};
    use engine::{Span, Time};

    #[test]
    fn a_gpu_draws_by_what_it_does() {
        let hours = |hours: f64| Span::from_s(3600.0 * hours);
        let worker = WorkerRecord {
            gpus: 2,
            busy: hours(6.0),
            prefill_busy: hours(1.0),
            ..WorkerRecord::default()
        };
        let request = RequestRecord {
            arrival: Time::ZERO,
            placed: Time::ZERO,
            first_scheduled: Time::ZERO,
            first_token: Time::ZERO + hours(1.0),
            finish: Time::ZERO + hours(10.0),
            worker: 0,
            input_tokens: 1,
            output_tokens: 1_000_000,
            cached_tokens: 0,
            router_overlap_tokens: 0,
            preemptions: 0,
            outcome: Outcome::Completed,
            is_warmup: false,
        };
        let run = Recording {
            requests: vec![request],
            workers: vec![worker],
            ..Recording::default()
        };
        let spec = EnergySpec {
            pools: vec![PoolPower {
                gpu_power_w: 500.0,
                prefill_share: 1.0,
                decode_share: 0.6,
                idle_share: 0.1,
            }],
            pue: 1.25,
            usd_per_kwh: Some(0.1),
        };
        let told = energy(&run, &spec);
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        };
        // Two GPUs of 0.5 kW: an hour of prompts, five of decode, four of nothing.
        near(told.prefill_kwh, 1.0);
        near(told.decode_kwh, 3.0);
        near(told.idle_kwh, 0.4);
        near(told.kwh, 5.5);
        near(told.mean_kw, 0.55);
        near(told.kwh_per_million_output_tokens, 5.5);
        near(told.usd.unwrap(), 0.55);
    }

    /// The rows of the measurement: (GPUs, peak share, mean share, prompt ms, end-to-end ms).
    fn measured(text: &str) -> Vec<(u32, f64, f64, f64)> {
        let rows = text.lines().skip(1).filter_map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |index: usize| cells[index].parse::<f64>().unwrap_or(0.0);
            let is_plausible = number(6) > 0.0 && number(2) <= 2048.0;
            let gpus = cells[10].trim().parse().expect("GPUs are a whole number");
            is_plausible.then(|| (gpus, number(6), number(7), number(9)))
        });
        rows.collect()
    }

    #[test]
    fn shares_are_those_of_the_measurement() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../shared/data/measured/splitwise_perf_model.csv"
        );
        let Ok(text) = std::fs::read_to_string(path) else {
            println!("skipped: there is no {path}");
            return;
        };
        let rows = measured(&text);
        assert_eq!(rows.len(), 220);
        let errors = rows.iter().map(|&(gpus, mean, prompt_ms, e2e_ms)| {
            let decode = PoolPower::decode_share(gpus) * (e2e_ms - prompt_ms);
            let told = (PoolPower::PREFILL_SHARE * prompt_ms + decode) / e2e_ms;
            (told / mean - 1.0).abs()
        });
        let errors: Vec<f64> = errors.collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let most = errors.iter().copied().fold(0.0, f64::max);
        println!("mean {mean:.4}, most {most:.4}");
        assert!(mean < 0.11 && most < 0.46, "mean {mean}, most {most}");
    }
}
