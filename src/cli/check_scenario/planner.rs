//! What a planner section comes to.

use serde_json::{Value, json};
use sim::scaling::Allowance;
use sweeps::planner::{PlannerSpec, Policy};
use sweeps::scenario::Pool;

/// Who decides how often, and between which counts.
pub fn in_words(spec: &PlannerSpec, pools: &[Pool]) -> String {
    let interval = match &spec.policy {
        Policy::Static => String::new(),
        Policy::Schedule(entries) => format!(", {} entries", entries.len()),
        Policy::Dynamo { config, .. } => format!(", every {} s", config.scale_interval().as_s()),
        Policy::Oracle(spec) => format!(", intervals of {} s", spec.interval.as_s()),
        Policy::Hpa { sync_period, .. } => format!(", every {} s", sync_period.as_s()),
        Policy::Keda {
            polling_interval, ..
        } => format!(", every {} s", polling_interval.as_s()),
        Policy::LlmD { interval, .. } => format!(", every {} s", interval.as_s()),
    };
    let places = spec.places(pools).unwrap_or_default();
    let places = pools.iter().zip(places).map(|(pool, places)| {
        let (name, workers) = (&pool.name, pool.workers);
        format!(
            "{name} {workers} at the start, at most {places} at once, those that drain included"
        )
    });
    let places: Vec<String> = places.collect();
    format!("{}{interval}; {}", spec.policy.name(), places.join("; "))
}

/// How long a start takes.
pub fn startup(spec: &PlannerSpec) -> String {
    let total = spec.startup.total(false).as_s();
    let with = spec.startup.total(true).as_s();
    let neighbour = if with == total {
        String::new()
    } else {
        format!(", {with} s where a neighbour sends the weights")
    };
    let neighbour = match spec.weights.as_ref().and_then(|it| it.bytes.iter().max()) {
        Some(&bytes) => {
            let (gb, load) = (bytes as f64 / 1e9, spec.startup.load.as_s());
            format!(
                ", of it {load} s of loading, or what {gb:.1} GB from a neighbour take over the network"
            )
        }
        None => neighbour,
    };
    let gpus = spec
        .gpus
        .map_or(String::new(), |gpus| format!("; {gpus} GPUs in all"));
    format!("{total} s{neighbour}{gpus}{}", besides(spec))
}

/// Spares, changes of role, updates.
fn besides(spec: &PlannerSpec) -> String {
    let lifecycle = &spec.lifecycle;
    let mut text = String::new();
    if let Some(gpus) = lifecycle.gpus_per_node {
        text += &format!(", {gpus} in a node");
    }
    let spares = lifecycle.spares;
    if spares.count > 0 {
        let (count, seconds) = (spares.count, spares.activate.as_s());
        text += &format!("; {count} kept warm in each pool, serving {seconds} s after the call");
    }
    if let Some(shadow) = lifecycle.shadow {
        text += &format!("; a shadow serves {} s after a crash", shadow.as_s());
    }
    if let Some(switch) = lifecycle.switch {
        text += &format!("; from one role to the other in {} s", switch.as_s());
    }
    if let Some(update) = lifecycle.update {
        text += &format!(
            "; all replaced from {} s on, surge {}, unavailable {}",
            update.at.as_s(),
            share(update.surge),
            share(update.unavailable)
        );
    }
    text
}

fn share(allowance: Allowance) -> String {
    match allowance {
        Allowance::Workers(workers) => workers.to_string(),
        Allowance::Percent(percent) => format!("{percent} %"),
    }
}

pub fn json(spec: &PlannerSpec, pools: &[Pool]) -> Value {
    json!({
        "policy": spec.policy.name(),
        "places": spec.places(pools),
        "startup_s": spec.startup.total(false).as_s(),
        "startup_with_neighbour_s": spec.startup.total(true).as_s(),
        "weights_bytes": spec.weights.as_ref().map(|it| &it.bytes),
        "gpus": spec.gpus,
        "gpus_per_node": spec.lifecycle.gpus_per_node,
        "spares": spec.lifecycle.spares.count,
        "activate_s": spec.lifecycle.spares.activate.as_s(),
        "shadow_failover_s": spec.lifecycle.shadow.map(engine::Span::as_s),
        "role_switch_s": spec.lifecycle.switch.map(engine::Span::as_s),
        "update": spec.lifecycle.update.map(|update| json!({
            "at_s": update.at.as_s(),
            "surge": share(update.surge),
            "unavailable": share(update.unavailable),
        })),
    })
}
