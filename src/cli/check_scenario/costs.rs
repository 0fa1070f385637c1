//! What sections costs and energy come to.

use serde_json::{Value, json};
use sim::costs::{CostSpec, EnergySpec};

/// The prices in their order.
pub fn in_words(spec: &CostSpec) -> String {
    let price = |price: &sim::costs::Price| {
        let gpus = match (price.gpus, price.is_reserved) {
            (Some(gpus), true) => format!(", {gpus} GPUs reserved"),
            (Some(gpus), false) => format!(", at most {gpus} GPUs"),
            (None, _) => String::new(),
        };
        let spot = price.spot.map_or(String::new(), |spot| {
            format!(", spot (${} on demand)", spot.on_demand_usd)
        });
        format!(
            "{} ${} per GPU-hour{gpus}{spot}",
            price.name, price.usd_per_gpu_hour
        )
    };
    let prices: Vec<String> = spec.prices.iter().map(price).collect();
    prices.join("; ")
}

/// The power of each pool's GPUs.
pub fn power(spec: &EnergySpec, names: &[&str]) -> String {
    let pool = |(name, power): (&&str, &sim::costs::PoolPower)| {
        format!(
            "{name} {} W per GPU: {} with prompts, {} in decode, {} idle",
            power.gpu_power_w, power.prefill_share, power.decode_share, power.idle_share
        )
    };
    let pools: Vec<String> = names.iter().zip(&spec.pools).map(pool).collect();
    format!("{}; PUE {} (estimate)", pools.join("; "), spec.pue)
}

pub fn json(spec: &CostSpec) -> Value {
    let spot = |spot: sim::costs::Spot| {
        json!({
            "mtbf_s": spot.mtbf.as_s(), "notice_s": spot.notice.as_s(), "away_s": spot.away.as_s(),
            "on_demand_usd": spot.on_demand_usd,
        })
    };
    let price = |price: &sim::costs::Price| {
        json!({
            "name": price.name, "usd_per_gpu_hour": price.usd_per_gpu_hour, "gpus": price.gpus,
            "reserved": price.is_reserved, "pools": price.pools, "source": price.source,
            "spot": price.spot.map(spot),
        })
    };
    spec.prices.iter().map(price).collect()
}

pub fn energy_json(spec: &EnergySpec) -> Value {
    let pool = |power: &sim::costs::PoolPower| {
        json!({
            "gpu_power_w": power.gpu_power_w, "prefill_share": power.prefill_share,
            "decode_share": power.decode_share, "idle_share": power.idle_share,
        })
    };
    let pools: Vec<Value> = spec.pools.iter().map(pool).collect();
    json!({ "pools": pools, "pue": spec.pue, "usd_per_kwh": spec.usd_per_kwh })
}
