//! What a run costs, in words: dollars by price and state, energy.

use crate::numbers::{separated, short};
use sim::costs::{CostSummary, EnergySummary, SpotSummary};
use sim::{Summary, summary::Goodput};

/// Topics and what is said about them.
pub(super) fn facts(summary: &Summary) -> Vec<(&'static str, String)> {
    let costs = summary
        .costs
        .iter()
        .map(|it| ("Costs", costs(it, summary.goodput.as_ref())));
    let energy = summary.energy.iter().map(|it| ("Energy", energy(it)));
    costs.chain(energy).collect()
}

fn usd(value: f64) -> String {
    format!("${}", separated(value, 2))
}

/// Dollars for something, which may be far below a cent.
fn rate(value: f64) -> String {
    format!("${}", short(value))
}

fn costs(costs: &CostSummary, goodput: Option<&Goodput>) -> String {
    let mut text = format!(
        "{}, {} per hour · per million tokens {}, of output {}",
        usd(costs.usd),
        usd(costs.usd_per_hour),
        rate(costs.usd_per_million_tokens),
        rate(costs.usd_per_million_output_tokens),
    );
    if let (Some(good), Some(_)) = (costs.usd_per_thousand_good_requests, goodput) {
        text += &format!("\n{} per thousand requests within the SLA", rate(good));
    }
    for price in &costs.prices {
        let hours = |hours: f64| separated(hours, 2);
        let unused = if price.unused_gpu_hours > 0.0 {
            format!(" and {} not used", hours(price.unused_gpu_hours))
        } else {
            String::new()
        };
        text += &format!(
            "\n{}: {} GPU-hours{unused} at {}: {}",
            price.price,
            hours(price.gpu_hours),
            rate(price.usd_per_gpu_hour),
            usd(price.usd),
        );
    }
    for pool in &costs.pools {
        let spare = match pool.spare_usd {
            0.0 => String::new(),
            some => format!("{} spare, ", usd(some)),
        };
        text += &format!(
            "\n{}: {} starting, {spare}{} serving, {} draining",
            pool.pool,
            usd(pool.starting_usd),
            usd(pool.ready_usd),
            usd(pool.draining_usd),
        );
    }
    if let Some(spot) = &costs.spot {
        text += &format!("\n{}", on_spot(spot));
    }
    text
}

/// What spot GPUs saved, and what their interruptions did.
fn on_spot(spot: &SpotSummary) -> String {
    let whole = |value: u64| separated(value as f64, 0);
    let saved = |share: f64| format!("{} %", separated(100.0 * share, 1));
    let of_good = spot.on_demand_usd_per_thousand_good_requests;
    let of_good = of_good.map_or(String::new(), |good| {
        format!(", {} per thousand requests within the SLA", rate(good))
    });
    format!(
        "spot: {} interruptions met {} requests: {} moved, {} lost, {} tokens to compute again\n\
         on demand: {}{of_good} · spot saves {} (by the price list {})",
        whole(spot.interruptions),
        whole(spot.requests),
        whole(spot.migrated),
        whole(spot.lost),
        whole(spot.recomputed_tokens),
        usd(spot.on_demand_usd),
        saved(spot.saved_share),
        saved(spot.listed_saved_share),
    )
}

fn energy(energy: &EnergySummary) -> String {
    let number = |value: f64| separated(value, 2);
    let price = energy
        .usd
        .map_or(String::new(), |price| format!(", {}", usd(price)));
    format!(
        "{} kWh{price}, {} kW on average, {} kWh per million output tokens (estimate)\n\
         GPUs: {} kWh in steps with prompts, {} in decode, {} between steps",
        number(energy.kwh),
        number(energy.mean_kw),
        number(energy.kwh_per_million_output_tokens),
        number(energy.prefill_kwh),
        number(energy.decode_kwh),
        number(energy.idle_kwh),
    )
}
