//! Spot GPUs: cheaper, and taken back now and then.
//!
//! They are paid while somebody has them, the notice included. What they save is told against the same deployment, workload
//! and seed on demand, where nobody takes anything back: that is a run of its own, so that requests that were lost or late for
//! an interruption, and work that was done twice, are part of the price. *Listed* is what the price list alone promises for
//! the GPU-hours that there were.

use super::{CostSpec, CostSummary, Price};
use crate::adversity::faults::FaultKind;
use crate::record::Recording;
use engine::{Span, Time};
use serde::Serialize;

/// How GPUs are taken back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot {
    /// Mean time until a worker is interrupted.
    pub mtbf: Span,
    /// From the interruption until the worker is gone.
    pub notice: Span,
    /// From then until there is another in its place; with a planner, until its GPUs can be had again.
    pub away: Span,
    /// Dollars for such a GPU and an hour where nobody takes it back.
    pub on_demand_usd: f64,
}

/// What spot GPUs saved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpotSummary {
    /// Times that a worker was told that it would be taken back.
    pub interruptions: u64,
    /// Requests on these workers when they were told.
    pub requests: u64,
    /// Of these, requests that others went on with.
    pub migrated: u64,
    /// Of these, requests that were lost.
    pub lost: u64,
    /// Tokens that had to be computed again for those that others went on with.
    pub recomputed_tokens: u64,
    /// Share that the price list saves: of what the same GPU-hours, spot and others, cost on demand.
    pub listed_saved_share: f64,
    /// What the same deployment costs on demand.
    pub on_demand_usd: f64,
    /// The same per thousand requests that meet the SLA; absent without one, and where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand_usd_per_thousand_good_requests: Option<f64>,
    /// Share of its requests that meet the SLA; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand_good_share: Option<f64>,
    /// Share saved, of the dollars per thousand requests that meet the SLA; without an SLA of the dollars.
    pub saved_share: f64,
}

impl CostSpec {
    /// True if some GPUs are taken back.
    #[must_use]
    pub fn has_spot(&self) -> bool {
        self.prices.iter().any(|price| price.spot.is_some())
    }

    /// The same GPUs where nobody takes them back.
    #[must_use]
    pub fn on_demand(&self) -> CostSpec {
        let on_demand = |price: &Price| Price {
            usd_per_gpu_hour: price
                .spot
                .map_or(price.usd_per_gpu_hour, |it| it.on_demand_usd),
            spot: None,
            ..price.clone()
        };
        CostSpec {
            prices: self.prices.iter().map(on_demand).collect(),
        }
    }
}

impl SpotSummary {
    /// What a run saved against one on demand, whose requests met the SLA to this share. `spec` are the prices of the run.
    #[must_use]
    pub fn of(
        recording: &Recording,
        spec: &CostSpec,
        costs: &CostSummary,
        on_demand: &CostSummary,
        on_demand_good_share: Option<f64>,
    ) -> SpotSummary {
        let record = recording.adversity.as_ref();
        let faults = record.map_or(&[][..], |record| &record.faults);
        let is_one = |kind: FaultKind| matches!(kind, FaultKind::Interruption { .. });
        let all = || faults.iter().filter(|fault| is_one(fault.kind));
        let at_list: f64 = (spec.prices.iter().zip(&costs.prices))
            .map(|(price, told)| {
                let usd = price
                    .spot
                    .map_or(price.usd_per_gpu_hour, |it| it.on_demand_usd);
                (told.gpu_hours + told.unused_gpu_hours) * usd
            })
            .sum();
        let good = costs.usd_per_thousand_good_requests;
        let on_demand_good = on_demand.usd_per_thousand_good_requests;
        let saved_share = match (good, on_demand_good) {
            (Some(spot), Some(on_demand)) => saved(spot, on_demand),
            _ => saved(costs.usd, on_demand.usd),
        };
        SpotSummary {
            interruptions: all().count() as u64,
            requests: all().map(|it| u64::from(it.requests)).sum(),
            migrated: all().map(|it| u64::from(it.migrated)).sum(),
            lost: all().map(|it| u64::from(it.lost)).sum(),
            recomputed_tokens: all().map(|it| it.recomputed_tokens).sum(),
            listed_saved_share: saved(costs.usd, at_list),
            on_demand_usd: on_demand.usd,
            on_demand_usd_per_thousand_good_requests: on_demand_good,
            on_demand_good_share,
            saved_share,
        }
    }
}

/// Share of `before` that is saved.
fn saved(now: f64, before: f64) -> f64 {
    if before > 0.0 {
        1.0 - now / before
    } else {
        0.0
    }
}

/// When workers that stay in their places were taken back: worker, from when, until when, within `0..end`.
pub(crate) fn away_of(recording: &Recording, end: Time) -> Vec<(u32, Time, Time)> {
    let record = recording.adversity.as_ref();
    let record = record.filter(|_| recording.scaling.is_none());
    let faults = record.map_or(&[][..], |record| &record.faults);
    let away = faults.iter().filter_map(|fault| match fault.kind {
        FaultKind::Interruption { notice, .. } => {
            let from = (fault.began + notice).min(end);
            Some((fault.worker?, from, fault.ended.min(end)))
        }
        _ => None,
    });
    away.collect()
}

/// GPU time of such workers in picoseconds.
pub(crate) fn away_gpu_ps(recording: &Recording, end: Time) -> u128 {
    let away = away_of(recording, end).into_iter();
    let gpu_ps = |(worker, from, until): (u32, Time, Time)| {
        let gpus = recording.workers[worker as usize].gpus;
        u128::from(until.since(from).0) * u128::from(gpus)
    };
    away.map(gpu_ps).sum()
}
