//! What a run costs: its GPU time at the prices of the user, and the energy of its GPUs, an estimate.
//!
//! *Money.* A price list is filled in its order. At every instant the GPUs that workers have take the places of the first
//! price, what is more those of the second, and so on; the last has no end. GPUs of workers that serve come first, then those
//! that drain, then those that start, then spares; among these pools in order. A *reserved* price is paid for all its GPUs from the
//! start of the run to its end, taken or not; any other only while they are taken. Everything is an integral over integers;
//! prices come in at the end.
//!
//! *Energy* and *spot* GPUs have files of their own: [`energy`], `spot`.

mod energy;
mod spot;
mod usage;

pub use energy::{EnergySpec, EnergySummary, PoolPower, energy};
pub use spot::{Spot, SpotSummary};
pub(crate) use spot::{away_gpu_ps, away_of};

use crate::record::{Outcome, Recording};
use engine::Time;
use serde::Serialize;
use usage::Usage;

/// A price of GPU time.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// What the user calls it.
    pub name: String,
    /// Dollars for a GPU and an hour.
    pub usd_per_gpu_hour: f64,
    /// GPUs that can be had at it; `None` for as many as are needed.
    pub gpus: Option<u32>,
    /// Whether they are paid while nobody has them.
    pub is_reserved: bool,
    /// Indices of the pools whose GPUs it is for, in order.
    pub pools: Vec<u32>,
    /// How its GPUs are taken back; `None` for those that are not.
    pub spot: Option<Spot>,
    /// Who says so.
    pub source: Option<String>,
}

/// The prices of a deployment, in the order in which they are filled. For each pool the last that is for it has no end.
#[derive(Debug, Clone, PartialEq)]
pub struct CostSpec {
    /// At least one.
    pub prices: Vec<Price>,
}

/// What the GPU time of a run costs, in dollars.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostSummary {
    /// All of it.
    pub usd: f64,
    /// Per hour of the run.
    pub usd_per_hour: f64,
    /// Per million prompt and generated tokens of completed requests, warm-up included.
    pub usd_per_million_tokens: f64,
    /// Per million generated ones.
    pub usd_per_million_output_tokens: f64,
    /// Per thousand requests that meet the SLA; absent without one, and where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_thousand_good_requests: Option<f64>,
    /// Of `usd`, what reserved GPUs cost while nobody had them.
    pub unused_usd: f64,
    /// By price.
    pub prices: Vec<PriceSummary>,
    /// By pool and what its workers did; together with `unused_usd` they make `usd`.
    pub pools: Vec<PoolCost>,
    /// What spot GPUs saved; absent without a spot price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<SpotSummary>,
}

/// GPU time at one price.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PriceSummary {
    /// Its name.
    pub price: String,
    /// Dollars for a GPU and an hour.
    pub usd_per_gpu_hour: f64,
    /// GPU-hours that workers had at it.
    pub gpu_hours: f64,
    /// GPU-hours that were paid and not used.
    pub unused_gpu_hours: f64,
    /// What it comes to.
    pub usd: f64,
    /// Who says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Dollars of a pool by what its workers did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolCost {
    /// Its name.
    pub pool: String,
    /// They started.
    pub starting_usd: f64,
    /// They were spares.
    pub spare_usd: f64,
    /// They served.
    pub ready_usd: f64,
    /// They finished what they had.
    pub draining_usd: f64,
}

const PS_PER_HOUR: f64 = 3.6e15;

/// What the run costs. `pool_names` are by pool index, `good_requests` those that meet the SLA.
///
/// # Panics
/// When a pool has no price without an end.
#[must_use]
pub fn costs(
    recording: &Recording,
    spec: &CostSpec,
    pool_names: &[String],
    good_requests: Option<u64>,
) -> CostSummary {
    let end = end_of(recording);
    let usage = Usage::of(recording, end, spec, pool_names.len());
    let usd = |price: usize, gpu_ps: u128| {
        gpu_ps as f64 / PS_PER_HOUR * spec.prices[price].usd_per_gpu_hour
    };
    let prices: Vec<PriceSummary> = (0..spec.prices.len())
        .map(|index| {
            let price = &spec.prices[index];
            let (taken, unused) = (usage.of_price(index), usage.unused(index));
            PriceSummary {
                price: price.name.clone(),
                usd_per_gpu_hour: price.usd_per_gpu_hour,
                gpu_hours: taken as f64 / PS_PER_HOUR,
                unused_gpu_hours: unused as f64 / PS_PER_HOUR,
                usd: usd(index, taken + unused),
                source: price.source.clone(),
            }
        })
        .collect();
    let pools = pool_names.iter().enumerate().map(|(pool, name)| {
        let of_state = |state: usize| -> f64 {
            let of_price = |price| usd(price, usage.taken(price, state, pool));
            (0..spec.prices.len()).map(of_price).sum()
        };
        PoolCost {
            pool: name.clone(),
            ready_usd: of_state(usage::READY),
            draining_usd: of_state(usage::DRAINING),
            starting_usd: of_state(usage::STARTING),
            spare_usd: of_state(usage::SPARE),
        }
    });
    let total: f64 = prices.iter().map(|price| price.usd).sum();
    let (prompt, output) = tokens(recording);
    let good = good_requests.filter(|&good| good > 0);
    CostSummary {
        usd: total,
        usd_per_hour: per(total, end.0 as f64 / PS_PER_HOUR),
        usd_per_million_tokens: per(total, (prompt + output) as f64 / 1e6),
        usd_per_million_output_tokens: per(total, output as f64 / 1e6),
        usd_per_thousand_good_requests: good.map(|good| total / good as f64 * 1e3),
        unused_usd: (0..prices.len())
            .map(|price| usd(price, usage.unused(price)))
            .sum(),
        prices,
        pools: pools.collect(),
        spot: None,
    }
}

/// The last recorded moment.
fn end_of(recording: &Recording) -> Time {
    let moments = recording.sent().map(|(_, request)| request.last_moment());
    moments.max().unwrap_or_default()
}

/// Prompt and generated tokens of completed requests.
fn tokens(recording: &Recording) -> (u64, u64) {
    let sent = recording.sent().map(|(_, request)| request);
    let completed = sent.filter(|request| request.outcome == Outcome::Completed);
    completed.fold((0, 0), |(prompt, output), request| {
        (
            prompt + u64::from(request.input_tokens),
            output + u64::from(request.output_tokens),
        )
    })
}

/// `amount / base`, 0 without a base.
fn per(amount: f64, base: f64) -> f64 {
    if base > 0.0 { amount / base } else { 0.0 }
}
