//! `costs`: prices of GPU time, and `energy`: what GPUs draw. Both are counted after a run and change nothing in it.

use super::section::Section;
use super::spot;
use sim::costs::{CostSpec, EnergySpec, PoolPower, Price};
use sweeps::scenario::Pool;

/// Dollars for a GPU and an hour.
const MOST_USD: f64 = 1e6;
/// The default of `energy.pue`: the GPUs alone.
const GPUS_ALONE: f64 = 1.0;

/// The prices; `None` without the section, and after a problem.
pub fn costs(section: &Section<'_>, pools: &[Pool]) -> Option<CostSpec> {
    if !section.is_written() {
        return None;
    }
    let list = section.sections("prices");
    if !section.has("prices") {
        section.mistake(
            "prices",
            "nothing",
            "a list of prices",
            "for example `prices: [{name: on-demand, usd_per_gpu_hour: 2.5}]`",
        );
    }
    section.finish();
    let list = list?;
    let prices: Option<Vec<Price>> = list.iter().map(|item| price(item, pools)).collect();
    let prices = prices?;
    let is_whole = pools
        .iter()
        .zip(0..)
        .map(|(pool, index)| has_end(section, pool, index, &prices));
    let is_whole = is_whole.collect::<Vec<_>>().into_iter().all(|it| it);
    is_whole.then_some(CostSpec { prices })
}

fn price(section: &Section<'_>, pools: &[Pool]) -> Option<Price> {
    let name = section.text("name").map(|(name, _)| name);
    let usd = section.number("usd_per_gpu_hour", 0.0..=MOST_USD);
    for (field, hint) in [
        ("name", "for example `name: on-demand`"),
        ("usd_per_gpu_hour", "for example `usd_per_gpu_hour: 2.5`"),
    ] {
        if !section.has(field) {
            section.mistake(field, "nothing", "a value", hint);
        }
    }
    let gpus = section.whole32("gpus", 1..=1 << 24);
    let is_reserved = section.flag("reserved").unwrap_or(false);
    if is_reserved && !section.has("gpus") {
        let hint = "reserved GPUs are paid whether they are used or not, so they are counted";
        section.mistake("gpus", "nothing", "how many are reserved", hint);
    }
    let of = of_pools(section, pools);
    let spot = spot::read(section);
    let source = section.text("source").map(|(text, _)| text);
    section.finish();
    Some(Price {
        name: name?,
        usd_per_gpu_hour: usd?,
        gpus,
        is_reserved,
        pools: of?,
        spot: spot?,
        source,
    })
}

/// Indices of the pools that a price is for; all without a list. `None` after a problem.
fn of_pools(section: &Section<'_>, pools: &[Pool]) -> Option<Vec<u32>> {
    if !section.has("pools") {
        return Some((0..pools.len() as u32).collect());
    }
    let (items, _) = section.list("pools")?;
    let names = pools.iter().map(|pool| pool.name.as_str());
    let names: Vec<&str> = names.collect();
    let mut found = Vec::new();
    for item in items {
        let name = item.raw.trim();
        match names.iter().position(|known| *known == name) {
            Some(index) => found.push(index as u32),
            None => {
                let expected = format!("names of pools: {}", names.join(", "));
                section.mistake("pools", item.found(), expected, "");
                return None;
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

/// Whether all GPUs of a pool have a price, and every price for it is of use.
fn has_end(section: &Section<'_>, pool: &Pool, index: u32, prices: &[Price]) -> bool {
    let of_pool: Vec<&Price> = prices
        .iter()
        .filter(|price| price.pools.contains(&index))
        .collect();
    let endless = of_pool.iter().position(|price| price.gpus.is_none());
    let name = &pool.name;
    match endless {
        None => {
            let found = format!("no price without `gpus` for pool {name}");
            let expected = "a last price for what is more than the others have";
            section.conflict("prices", found, expected, "leave out its `gpus`");
            false
        }
        Some(endless) if endless + 1 < of_pool.len() => {
            let found = format!(
                "a price behind `{}` for pool {name}, which nobody pays",
                of_pool[endless].name
            );
            let expected = "the price without `gpus` last";
            section.conflict(
                "prices",
                found,
                expected,
                "prices are filled in their order",
            );
            false
        }
        Some(_) => spot::is_alone(section, name, &of_pool),
    }
}

/// How energy is estimated; `None` without the section, and after a problem.
pub fn energy(section: &Section<'_>, pools: &[Pool]) -> Option<EnergySpec> {
    if !section.is_written() {
        return None;
    }
    const MOST_W: f64 = 1e5;
    let watts = section.number("gpu_power_w", 1.0..=MOST_W);
    let share = |name| section.number(name, 0.0..=1.5);
    let [prefill, decode, idle] = ["prefill_share", "decode_share", "idle_share"].map(share);
    let pue = section.number("pue", 1.0..=10.0);
    let usd_per_kwh = section.number("usd_per_kwh", 0.0..=MOST_USD);
    section.finish();
    let power = |pool: &Pool| {
        let rated = pool.gpu.and_then(|gpu| gpu.power_w());
        let rated = watts.or(rated.map(|rated| rated.value));
        if rated.is_none() && !section.has("gpu_power_w") {
            let gpu = pool.gpu.map_or("a GPU without a name", |gpu| gpu.name);
            let found = format!("nothing, and {gpu} in pool {}", pool.name);
            let hint = "the rated power of a GPU in watts, for example 700";
            section.conflict("gpu_power_w", found, "the power of its GPUs", hint);
        }
        Some(PoolPower {
            gpu_power_w: rated?,
            prefill_share: prefill.unwrap_or(PoolPower::PREFILL_SHARE),
            decode_share: decode.unwrap_or(PoolPower::decode_share(pool.gpus_per_worker())),
            idle_share: idle.unwrap_or(PoolPower::IDLE_SHARE),
        })
    };
    let pools: Vec<Option<PoolPower>> = pools.iter().map(power).collect();
    let pools: Option<Vec<PoolPower>> = pools.into_iter().collect();
    Some(EnergySpec {
        pools: pools?,
        pue: pue.unwrap_or(GPUS_ALONE),
        usd_per_kwh,
    })
}
