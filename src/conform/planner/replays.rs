//! Cases of kind `replay` and `ticks`: a planner asked tick by tick.
//!
//! A replay was recorded in a closed loop and is shown to ours as it was: every snapshot of the simulated deployment, in
//! order, whatever ours decided. Compared are what is due at each tick, what the planner derived from the snapshot, its targets
//! and the numbers behind them. Ticks are the same without a deployment around: the planner's core is told its input as it is.

use super::Pair;
use super::config::{
    CapabilityFields, ConfigFields, ModelFields, PassFields, or_null, passes, worker_kind,
};
use super::read;
use super::traffic::{HistoryFields, WindowFields};
use planner::dynamo::{
    Capabilities, DynamoPlanner, Inventory, PlannerConfig, ScalingCore, ScheduledTick, Step,
    Target, Targets, TickInput, Traffic,
};
use planner::model::ForwardPassModel;
use planner::{Diagnostics, Observations, PerRole, Pool, Reason, TrailingLatency, WorkerId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case<T> {
    config: ConfigFields,
    resolved: Value,
    capabilities: BTreeMap<String, CapabilityFields>,
    perf_model: BTreeMap<String, ModelFields>,
    #[serde(default = "Vec::new")]
    warmup: Vec<HistoryFields>,
    ticks: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayTick {
    snapshot: Snapshot,
    expected: Value,
}

/// The deployment at a tick. Counts are recorded beside the lists of workers.
#[derive(Deserialize)]
struct Snapshot {
    active_prefill_ids: Vec<u32>,
    starting_prefill_ids: Vec<u32>,
    draining_prefill_ids: Vec<u32>,
    active_decode_ids: Vec<u32>,
    starting_decode_ids: Vec<u32>,
    draining_decode_ids: Vec<u32>,
    prefill_fpm_snapshots: Vec<PassFields>,
    decode_fpm_snapshots: Vec<PassFields>,
    traffic: WindowFields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CoreTick {
    input: CoreInput,
    expected: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CoreInput {
    #[serde(rename = "now_s")]
    _now_s: f64,
    worker_counts: CountFields,
    traffic: Option<HistoryFields>,
    #[serde(default)]
    prefill_fpm: Vec<PassFields>,
    #[serde(default)]
    decode_fpm: Vec<PassFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct CountFields {
    ready_num_prefill: Option<u32>,
    ready_num_decode: Option<u32>,
    expected_num_prefill: Option<u32>,
    expected_num_decode: Option<u32>,
    prefill_scaling_in_progress: bool,
    decode_scaling_in_progress: bool,
    pending_num_prefill: u32,
    pending_num_decode: u32,
}

/// What a planner is made of.
struct Parts {
    config: PlannerConfig,
    capabilities: PerRole<Option<Capabilities>>,
    models: PerRole<Option<Box<dyn ForwardPassModel>>>,
    history: Vec<Traffic>,
}

impl<T> Case<T> {
    fn parts(&self) -> Result<Parts, String> {
        let config = self.config.config()?;
        let capabilities = |role: &str| self.capabilities.get(role).map(Capabilities::from);
        let model = |name: &str| -> Result<Option<Box<dyn ForwardPassModel>>, String> {
            let kind = worker_kind(name)?;
            let fields = self.perf_model.get(name);
            Ok(fields.map(|fields| fields.model(kind, &config)))
        };
        let decode = match model("aggregated")? {
            None => model("decode")?,
            both => both,
        };
        Ok(Parts {
            capabilities: PerRole {
                prefill: capabilities("prefill"),
                decode: capabilities("decode"),
            },
            models: PerRole {
                prefill: model("prefill")?,
                decode,
            },
            history: self.warmup.iter().map(Traffic::from).collect(),
            config,
        })
    }

    fn resolved(&self, config: &PlannerConfig) -> Pair {
        Pair {
            what: "resolved".to_owned(),
            recorded: self.resolved.clone(),
            ours: json!({
                "scale_interval_seconds": config.scale_interval().as_s(),
                "enable_load_scaling": config.scales_by_load(),
                "enable_throughput_scaling": config.scales_by_throughput(),
                "load_adjustment_interval_seconds": config.load_adjustment_interval_seconds,
                "throughput_adjustment_interval_seconds": config.throughput_adjustment_interval_seconds,
            }),
        }
    }
}

pub fn closed_loop(case: Value) -> Result<Vec<Pair>, String> {
    let case: Case<ReplayTick> = read("case", case)?;
    let parts = case.parts()?;
    let mut pairs = vec![case.resolved(&parts.config)];
    let is_aggregated = parts.config.mode == planner::dynamo::Mode::Aggregated;
    let mut planner = DynamoPlanner::new(
        parts.config,
        parts.capabilities,
        parts.models,
        &parts.history,
    )
    .map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!("config: {}", lines.join("; "))
    })?;
    for (at, tick) in case.ticks.iter().enumerate() {
        let step = planner.step(&tick.snapshot.observations());
        pairs.push(Pair {
            what: format!("tick {at}"),
            recorded: tick.expected.clone(),
            ours: step_json(&step, is_aggregated),
        });
    }
    Ok(pairs)
}

pub fn ticks(case: Value) -> Result<Vec<Pair>, String> {
    let case: Case<CoreTick> = read("case", case)?;
    let parts = case.parts()?;
    let mut pairs = vec![case.resolved(&parts.config)];
    let is_sla = parts.config.optimization_target == Target::Sla;
    if is_sla && parts.models.prefill.is_none() && parts.models.decode.is_none() {
        return Err("perf_model: none, expected one for optimization_target sla".to_owned());
    }
    let capabilities = parts.capabilities.map(Option::unwrap_or_default);
    let mut core = ScalingCore::new(parts.config, capabilities, parts.models, &parts.history);
    for (at, tick) in case.ticks.iter().enumerate() {
        let scheduled = core.next_tick();
        let scale_to = core.tick(&tick.input.tick_input());
        pairs.push(Pair {
            what: format!("tick {at}"),
            recorded: tick.expected.clone(),
            ours: json!({
                "scheduled_tick": {
                    "at_s": scheduled.at.as_s(),
                    "run_load_scaling": scheduled.runs_load,
                    "run_throughput_scaling": scheduled.runs_throughput,
                    "need_traffic_metrics": scheduled.needs_traffic,
                },
                "scale_to": targets_json(scale_to),
                "diagnostics": diagnostics_json(core.diagnostics()),
            }),
        });
    }
    Ok(pairs)
}

impl Snapshot {
    fn observations(&self) -> Observations {
        let pool =
            |active: &[u32], starting: &[u32], draining: &[u32], fields: &[PassFields]| Pool {
                ready: active.iter().copied().map(WorkerId).collect(),
                starting: starting.len() as u32,
                draining: draining.len() as u32,
                passes: passes(fields),
            };
        Observations {
            pools: PerRole {
                prefill: pool(
                    &self.active_prefill_ids,
                    &self.starting_prefill_ids,
                    &self.draining_prefill_ids,
                    &self.prefill_fpm_snapshots,
                ),
                decode: pool(
                    &self.active_decode_ids,
                    &self.starting_decode_ids,
                    &self.draining_decode_ids,
                    &self.decode_fpm_snapshots,
                ),
            },
            traffic: (&self.traffic).into(),
            latency: TrailingLatency::default(),
            waiting_in_front: 0,
        }
    }
}

impl CoreInput {
    fn tick_input(&self) -> TickInput {
        let counts = &self.worker_counts;
        TickInput {
            inventory: Inventory {
                ready: PerRole {
                    prefill: counts.ready_num_prefill,
                    decode: counts.ready_num_decode,
                },
                expected: PerRole {
                    prefill: counts.expected_num_prefill,
                    decode: counts.expected_num_decode,
                },
                is_scaling: PerRole {
                    prefill: counts.prefill_scaling_in_progress,
                    decode: counts.decode_scaling_in_progress,
                },
                pending: PerRole {
                    prefill: counts.pending_num_prefill,
                    decode: counts.pending_num_decode,
                },
            },
            traffic: self.traffic.as_ref().map(Traffic::from),
            passes: PerRole {
                prefill: passes(&self.prefill_fpm),
                decode: passes(&self.decode_fpm),
            },
        }
    }
}

fn step_json(step: &Step, is_aggregated: bool) -> Value {
    let decision = &step.decision;
    // An aggregated deployment has no prefill workers to target; the recorded planner says zero of them.
    let prefill = match (is_aggregated, decision.targets.decode) {
        (true, decode) => decode.map(|_| 0),
        (false, _) => decision.targets.prefill,
    };
    json!({
        "scheduled_tick": scheduled_json(&step.scheduled),
        "worker_counts": inventory_json(&step.input.inventory),
        "traffic": or_null(step.input.traffic.map(|traffic| json!({
            "duration_s": traffic.duration_s,
            "num_req": traffic.requests,
            "isl": traffic.isl,
            "osl": traffic.osl,
            "kv_hit_rate": traffic.kv_hit_rate,
            "accept_length": traffic.accept_length,
        }))),
        "scale_to": targets_json(step.scale_to),
        "decision": {
            "target_prefill": prefill,
            "target_decode": decision.targets.decode,
            "next_tick_ms": decision.next_tick.map(|at| at.as_ms()),
        },
        "diagnostics": diagnostics_json(&decision.diagnostics),
    })
}

fn scheduled_json(tick: &ScheduledTick) -> Value {
    json!({
        "at_s": tick.at.as_s(),
        "run_load_scaling": tick.runs_load,
        "run_throughput_scaling": tick.runs_throughput,
        "need_traffic_metrics": tick.needs_traffic,
        "use_full_traffic_metrics": tick.needs_full_traffic,
        "traffic_metrics_duration_s": tick.traffic_span.as_s(),
        "need_worker_fpm": tick.needs_passes,
    })
}

fn inventory_json(inventory: &Inventory) -> Value {
    json!({
        "ready_num_prefill": inventory.ready.prefill,
        "ready_num_decode": inventory.ready.decode,
        "expected_num_prefill": inventory.expected.prefill,
        "expected_num_decode": inventory.expected.decode,
        "prefill_scaling_in_progress": inventory.is_scaling.prefill,
        "decode_scaling_in_progress": inventory.is_scaling.decode,
        "pending_num_prefill": inventory.pending.prefill,
        "pending_num_decode": inventory.pending.decode,
    })
}

fn targets_json(targets: Option<Targets>) -> Value {
    or_null(
        targets
            .map(|targets| json!({ "num_prefill": targets.prefill, "num_decode": targets.decode })),
    )
}

fn diagnostics_json(found: &Diagnostics) -> Value {
    let word = |reason: Option<Reason>| or_null(reason.map(Reason::as_str));
    json!({
        "estimated_ttft_ms": found.estimated_ttft_ms,
        "estimated_itl_ms": found.estimated_itl_ms,
        "predicted_num_req": found.predicted_requests,
        "predicted_isl": found.predicted_isl,
        "predicted_osl": found.predicted_osl,
        "predicted_kv_hit_rate": found.predicted_kv_hit_rate,
        "engine_rps_prefill": found.engine_rps.prefill,
        "engine_rps_decode": found.engine_rps.decode,
        "throughput_lower_bound_prefill": found.throughput_lower_bound.prefill,
        "throughput_lower_bound_decode": found.throughput_lower_bound.decode,
        "load_decision_reason": word(found.load.overall),
        "load_decision_reason_prefill": word(found.load.role.prefill),
        "load_decision_reason_decode": word(found.load.role.decode),
        "throughput_decision_reason": word(found.throughput.overall),
        "throughput_decision_reason_prefill": word(found.throughput.role.prefill),
        "throughput_decision_reason_decode": word(found.throughput.role.decode),
        // Without external plugins nothing rejects a tick.
        "execute_action": "apply",
    })
}
