//! `costs.prices[].spot`: GPUs that a provider may take back, and what they would cost if it did not.

use super::section::Section;
use engine::Span;
use sim::adversity::faults::SpotRule;
use sim::costs::{CostSpec, Price, Spot};
use sweeps::planner::PlannerSpec;
use sweeps::scenario::Pool;

/// Longest time, 200 days.
const MAX_S: f64 = 200.0 * 86_400.0;
/// Longest notice, a day.
const MAX_NOTICE_S: f64 = 86_400.0;
/// Dollars for a GPU and an hour.
const MAX_USD: f64 = 1e6;
/// An interruption of a worker every so often at the least.
const MIN_MTBF_S: f64 = 1.0;

/// How often and how its GPUs are taken back; inside, nothing for other prices. `None` after a problem.
pub fn read(price: &Section<'_>) -> Option<Option<Spot>> {
    let section = price.section("spot");
    if !section.is_written() {
        return Some(None);
    }
    for name in ["gpus", "reserved"] {
        if price.has(name) {
            price.conflict(
                name,
                "a number of GPUs beside spot",
                "none: a spot price is for all workers of its pools",
                "give the others a pool of their own",
            );
        }
    }
    let mtbf = needed(&section, "mtbf_s", MIN_MTBF_S, MAX_S, "mtbf_s: 14400");
    let notice = needed(&section, "notice_s", 0.0, MAX_NOTICE_S, "notice_s: 120");
    let away = needed(&section, "away_s", f64::MIN_POSITIVE, MAX_S, "away_s: 600");
    let on_demand = needed(&section, "on_demand_usd", 0.0, MAX_USD, "on_demand_usd: 4");
    section.finish();
    Some(Some(Spot {
        mtbf: Span::from_s(mtbf?),
        notice: Span::from_s(notice?),
        away: Span::from_s(away?),
        on_demand_usd: on_demand?,
    }))
}

fn needed(
    section: &Section<'_>,
    name: &'static str,
    least: f64,
    most: f64,
    example: &str,
) -> Option<f64> {
    if !section.has(name) {
        let hint = format!("for example `{example}`");
        section.mistake(name, "nothing", "a number", &hint);
    }
    section.number(name, least..=most)
}

/// Whether a spot price is the only one of its pool.
pub fn is_alone(section: &Section<'_>, pool: &str, prices: &[&Price]) -> bool {
    let is_alone = prices.len() == 1 || prices.iter().all(|price| price.spot.is_none());
    if !is_alone {
        section.conflict(
            "prices",
            format!("a spot price beside another for pool {pool}"),
            "it alone: which of its workers are spot would be open",
            "give spot workers a pool of their own, and name it in `pools` of their price",
        );
    }
    is_alone
}

/// The interruptions that the prices bring about.
pub fn rules(
    section: &Section<'_>,
    costs: Option<&CostSpec>,
    pools: Option<&[Pool]>,
    planner: Option<&PlannerSpec>,
) -> Vec<SpotRule> {
    let (Some(costs), Some(pools)) = (costs, pools) else {
        return Vec::new();
    };
    let places = match planner {
        Some(planner) => planner.places(pools),
        None => Some(pools.iter().map(|pool| pool.workers).collect()),
    };
    let Some(places) = places else {
        return Vec::new();
    };
    let mut first = 0;
    let mut rules = Vec::new();
    for (pool, workers) in (0..).zip(places) {
        let mut of_pool = costs.prices.iter().filter(|it| it.pools.contains(&pool));
        if let Some(spot) = of_pool.find_map(|price| price.spot) {
            let until_next = match planner {
                Some(_) => spot.notice,
                None => spot.notice + spot.away,
            };
            rules.push(SpotRule {
                first,
                workers,
                mtbf: spot.mtbf,
                notice: spot.notice,
                away: spot.away,
                lasts: until_next,
            });
        }
        first += workers;
    }
    if !rules.is_empty() && planner.is_some_and(|planner| planner.gpus.is_none()) {
        section.conflict(
            "prices",
            "spot beside a planner with as many GPUs as it asks for",
            "lifecycle.gpus: what is taken back is missing from something",
            "for example `lifecycle: {gpus: 8}`",
        );
    }
    rules
}
