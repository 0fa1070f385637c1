//! Tables of what one engine does: `find_engine_capacity_rps`, and the regression fed and asked pass by pass.

use super::config::{ModelFields, PassFields, passes, worker_kind};
use super::read;
use planner::dynamo::{CapacityRequest, EngineLimits, EngineModel, PlannerConfig};
use planner::model::{ForwardPassModel, Regression, RegressionConfig};
use planner::{ForwardPass, Work};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacityArgs {
    worker_type: String,
    model: ModelFields,
    limits: LimitFields,
    attention_dp: u32,
    request: RequestFields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitFields {
    max_num_batched_tokens: u64,
    max_num_seqs: u64,
    max_kv_tokens: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFields {
    isl: u64,
    osl: u64,
    ttft_sla_s: Option<f64>,
    itl_sla_s: Option<f64>,
    accept_length: f64,
    kv_hit_rate: Option<f64>,
}

pub fn capacity(args: Value) -> Result<Value, String> {
    let args: CapacityArgs = read("args", args)?;
    let kind = worker_kind(&args.worker_type)?;
    let limits = EngineLimits {
        max_num_batched_tokens: args.limits.max_num_batched_tokens,
        max_num_seqs: args.limits.max_num_seqs,
        max_kv_tokens: args.limits.max_kv_tokens,
    };
    let config = PlannerConfig::default();
    let passes = args.model.model(kind, &config);
    let samples = config.max_num_fpm_samples;
    let engine = EngineModel::new(kind, Some(limits), args.attention_dp, samples, passes);
    let capacity = engine.capacity(&CapacityRequest {
        isl: args.request.isl,
        osl: args.request.osl,
        ttft_sla_s: args.request.ttft_sla_s,
        itl_sla_s: args.request.itl_sla_s,
        accept_length: args.request.accept_length,
        kv_hit_rate: args.request.kv_hit_rate,
    });
    Ok(json!(capacity.map(|capacity| json!({
        "rps": capacity.rps,
        "ttft_s": capacity.ttft_s,
        "itl_s": capacity.itl_s,
        "e2e_latency_s": capacity.e2e_s,
        "eligible": capacity.is_eligible,
    }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegressionArgs {
    worker_type: String,
    min_observations: usize,
    max_observations: usize,
    ops: Vec<Op>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Tune(Vec<PassFields>),
    Est(Vec<PassFields>),
}

pub fn regression(args: Value) -> Result<Value, String> {
    let args: RegressionArgs = read("args", args)?;
    let config = RegressionConfig {
        min_observations: args.min_observations,
        max_observations: args.max_observations,
        buckets: PlannerConfig::default().fpm_sample_bucket_size,
    };
    let mut model = Regression::new(worker_kind(&args.worker_type)?, config);
    let answers: Vec<Value> = args.ops.iter().map(|op| apply(&mut model, op)).collect();
    Ok(json!({
        "per_op": answers,
        "readiness": if model.is_ready() { "Ready" } else { "NotReady" },
        "retained": model.retained(),
    }))
}

fn apply(model: &mut Regression, op: &Op) -> Value {
    match op {
        Op::Tune(ranks) => {
            let timed = |pass: &ForwardPass| (pass.scheduled, pass.wall_time_s);
            let ranks: Vec<(Work, f64)> = passes(ranks).iter().map(timed).collect();
            model.observe(&ranks);
            json!(true)
        }
        Op::Est(ranks) => {
            let works: Vec<Work> = passes(ranks).iter().map(|pass| pass.scheduled).collect();
            json!(model.estimate_ms(&works))
        }
    }
}
