//! Traffic windows as recorded, how they merge (`_merge_traffic`), and how opinions do (`type_aware_merge`).

use super::read;
use planner::TrafficWindow;
use planner::dynamo::Traffic;
use planner::dynamo::merge::{Bound, Merged, Opinion, Proposal, Verdict, merge};
use planner::{PerRole, Role};
use serde::Deserialize;
use serde_json::{Value, json};

/// A window with the counts of its means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowFields {
    duration_s: f64,
    num_req: f64,
    avg_isl: f64,
    avg_osl: f64,
    shape_count: f64,
    avg_ttft_ms: f64,
    ttft_count: f64,
    avg_itl_ms: f64,
    itl_count: f64,
    avg_kv_hit_rate: Option<f64>,
    hit_rate_count: f64,
    avg_accept_length: Option<f64>,
    accept_length_forward_count: f64,
}

/// A window as the predictors see it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryFields {
    duration_s: f64,
    num_req: f64,
    isl: f64,
    osl: f64,
    kv_hit_rate: Option<f64>,
    accept_length: Option<f64>,
}

impl From<&WindowFields> for TrafficWindow {
    fn from(fields: &WindowFields) -> Self {
        TrafficWindow {
            duration_s: fields.duration_s,
            requests: fields.num_req,
            completed: fields.shape_count,
            isl: fields.avg_isl,
            osl: fields.avg_osl,
            ttft_count: fields.ttft_count,
            ttft_ms: fields.avg_ttft_ms,
            itl_count: fields.itl_count,
            itl_ms: fields.avg_itl_ms,
            admitted: fields.hit_rate_count,
            kv_hit_rate: fields.avg_kv_hit_rate,
            decode_steps: fields.accept_length_forward_count,
            accept_length: fields.avg_accept_length,
        }
    }
}

impl From<&HistoryFields> for Traffic {
    fn from(fields: &HistoryFields) -> Self {
        Traffic {
            duration_s: fields.duration_s,
            requests: fields.num_req,
            isl: fields.isl,
            osl: fields.osl,
            kv_hit_rate: fields.kv_hit_rate,
            accept_length: fields.accept_length,
        }
    }
}

pub fn merge_windows(args: Value) -> Result<Value, String> {
    let windows: Vec<WindowFields> = read("args", args)?;
    let windows = windows.iter().map(TrafficWindow::from);
    let merged = windows
        .reduce(|earlier, later| earlier.merged(&later))
        .ok_or("args: expected at least one window")?;
    Ok(json!({
        "duration_s": merged.duration_s,
        "num_req": merged.requests,
        "shape_count": merged.completed,
        "avg_isl": merged.isl,
        "avg_osl": merged.osl,
        "ttft_count": merged.ttft_count,
        "avg_ttft_ms": merged.ttft_ms,
        "itl_count": merged.itl_count,
        "avg_itl_ms": merged.itl_ms,
        "hit_rate_count": merged.admitted,
        "avg_kv_hit_rate": merged.kv_hit_rate,
        "accept_length_forward_count": merged.decode_steps,
        "avg_accept_length": merged.accept_length,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeArgs {
    plugins: Vec<PluginFields>,
    baseline: RoleCounts,
    set_allowed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginFields {
    #[serde(rename = "plugin")]
    _plugin: String,
    priority: i32,
    kind: String,
    targets: Vec<TargetFields>,
    #[serde(rename = "final")]
    is_final: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFields {
    component: String,
    #[serde(rename = "type")]
    bound: String,
    replicas: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleCounts {
    prefill: Option<u32>,
    decode: Option<u32>,
}

pub fn merge_opinions(args: Value) -> Result<Value, String> {
    let args: MergeArgs = read("args", args)?;
    let proposals: Result<Vec<Proposal>, String> = args.plugins.iter().map(proposal).collect();
    let present = PerRole {
        prefill: args.baseline.prefill,
        decode: args.baseline.decode,
    };
    let merged = merge(&proposals?, present, args.set_allowed);
    Ok(json!({
        "short_circuited": merged.is_none(),
        "targets": merged.map(|merged| merged_json(&merged)),
    }))
}

/// Counts by role, or the list of opinions that counts alone.
fn merged_json(merged: &Merged) -> Value {
    match merged {
        Merged::Counts(counts) => json!({ "prefill": counts.prefill, "decode": counts.decode }),
        Merged::Final(opinions) => opinions
            .iter()
            .map(|opinion| {
                let component = match opinion.role {
                    Role::Prefill => "prefill",
                    Role::Decode => "decode",
                };
                let bound = match opinion.bound {
                    Bound::Set => "SET",
                    Bound::AtLeast => "AT_LEAST",
                    Bound::AtMost => "AT_MOST",
                };
                json!({ "component": component, "type": bound, "replicas": opinion.replicas })
            })
            .collect(),
    }
}

fn proposal(plugin: &PluginFields) -> Result<Proposal, String> {
    let opinions: Result<Vec<Option<Opinion>>, String> =
        plugin.targets.iter().map(opinion).collect();
    let verdict = match &*plugin.kind {
        "accept" => Verdict::Accept,
        "reject" => Verdict::Reject,
        "override" => Verdict::Propose {
            opinions: opinions?.into_iter().flatten().collect(),
            is_final: plugin.is_final,
        },
        kind => return Err(format!("kind {kind}: expected accept, reject or override")),
    };
    Ok(Proposal {
        priority: plugin.priority,
        verdict,
    })
}

/// `None` for a target without a number.
fn opinion(target: &TargetFields) -> Result<Option<Opinion>, String> {
    let role = match &*target.component {
        "prefill" => Role::Prefill,
        "decode" => Role::Decode,
        word => return Err(format!("component {word}: expected prefill or decode")),
    };
    let bound = match &*target.bound {
        "SET" => Bound::Set,
        "AT_LEAST" => Bound::AtLeast,
        "AT_MOST" => Bound::AtMost,
        word => return Err(format!("type {word}: expected SET, AT_LEAST or AT_MOST")),
    };
    Ok(target.replicas.map(|replicas| Opinion {
        role,
        bound,
        replicas,
    }))
}
