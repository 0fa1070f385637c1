//! Settings, capabilities and performance models as recorded cases have them.

use planner::budget::GpuBudget;
use planner::dynamo::{Capabilities, LoadThresholds, Mode, PlannerConfig, Target};
use planner::model::{Analytic, ForwardPassModel, Regression, RegressionConfig, WorkerKind};
use planner::predictor::{KalmanConfig, PredictorSpec};
use planner::{ForwardPass, PerRole, Work, WorkerId};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The settings that a case changes; all others have their defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFields {
    mode: Option<String>,
    optimization_target: Option<String>,
    ttft_ms: Option<f64>,
    itl_ms: Option<f64>,
    throughput_adjustment_interval_seconds: Option<u32>,
    load_adjustment_interval_seconds: Option<u32>,
    enable_throughput_scaling: Option<bool>,
    enable_load_scaling: Option<bool>,
    max_throughput_scaling_replicas: Option<u32>,
    #[serde(flatten)]
    predictor: PredictorFields,
    max_num_fpm_samples: Option<usize>,
    fpm_sample_bucket_size: Option<usize>,
    load_scaling_down_sensitivity: Option<f64>,
    load_min_observations: Option<usize>,
    prefill_scale_up_queue_tokens: Option<f64>,
    prefill_scale_down_queue_tokens: Option<f64>,
    decode_scale_up_kv_rate: Option<f64>,
    decode_scale_down_kv_rate: Option<f64>,
    speculative_nextn: Option<u32>,
    max_gpu_budget: Option<i64>,
    min_gpu_budget: Option<i64>,
    min_endpoint: Option<u32>,
    prefill_min_endpoint: Option<u32>,
    decode_min_endpoint: Option<u32>,
    ais_perf_model: Option<PerfModelFields>,
}

/// Settings of a predictor.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PredictorFields {
    pub load_predictor: Option<String>,
    load_predictor_log1p: Option<bool>,
    prophet_window_size: Option<usize>,
    kalman_q_level: Option<f64>,
    kalman_q_trend: Option<f64>,
    kalman_r: Option<f64>,
    kalman_min_points: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct PerfModelFields {
    roles: BTreeMap<String, RoleFields>,
}

#[derive(Debug, Deserialize)]
struct RoleFields {
    attention_dp: u32,
}

/// What workers of a role can do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityFields {
    num_gpu: Option<u32>,
    max_num_batched_tokens: Option<u64>,
    max_num_seqs: Option<u64>,
    context_length: Option<u64>,
    max_kv_tokens: Option<u64>,
    #[serde(rename = "kv_cache_block_size")]
    _kv_cache_block_size: Option<u64>,
    speculative_nextn: Option<u32>,
}

/// What makes the time of a forward pass.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelFields {
    Analytic { c0: f64, cp: f64, cd: f64, ckv: f64 },
    FpmRegression,
}

impl ConfigFields {
    pub fn config(&self) -> Result<PlannerConfig, String> {
        let usual = PlannerConfig::default();
        let throughput_s = self
            .throughput_adjustment_interval_seconds
            .unwrap_or(usual.throughput_adjustment_interval_seconds);
        let bound = |gpus: i64| u32::try_from(gpus).ok();
        let ranks = |role: &str| {
            let model = self.ais_perf_model.as_ref()?;
            Some(model.roles.get(role)?.attention_dp)
        };
        Ok(PlannerConfig {
            mode: self.mode.as_deref().map_or(Ok(usual.mode), mode)?,
            optimization_target: self
                .optimization_target
                .as_deref()
                .map_or(Ok(usual.optimization_target), target)?,
            ttft_ms: self.ttft_ms.unwrap_or(usual.ttft_ms),
            itl_ms: self.itl_ms.unwrap_or(usual.itl_ms),
            throughput_adjustment_interval_seconds: throughput_s,
            load_adjustment_interval_seconds: self
                .load_adjustment_interval_seconds
                .unwrap_or(usual.load_adjustment_interval_seconds),
            scale_interval_seconds: None,
            enable_throughput_scaling: self
                .enable_throughput_scaling
                .unwrap_or(usual.enable_throughput_scaling),
            enable_load_scaling: self
                .enable_load_scaling
                .unwrap_or(usual.enable_load_scaling),
            max_throughput_scaling_replicas: self
                .max_throughput_scaling_replicas
                .unwrap_or(usual.max_throughput_scaling_replicas),
            load_predictor: self.predictor.spec(f64::from(throughput_s))?,
            max_num_fpm_samples: self
                .max_num_fpm_samples
                .unwrap_or(usual.max_num_fpm_samples),
            fpm_sample_bucket_size: self
                .fpm_sample_bucket_size
                .unwrap_or(usual.fpm_sample_bucket_size),
            load_scaling_down_sensitivity: self
                .load_scaling_down_sensitivity
                .unwrap_or(usual.load_scaling_down_sensitivity),
            load_min_observations: self
                .load_min_observations
                .unwrap_or(usual.load_min_observations),
            thresholds: LoadThresholds {
                prefill_scale_up_queue_tokens: self.prefill_scale_up_queue_tokens,
                prefill_scale_down_queue_tokens: self.prefill_scale_down_queue_tokens,
                decode_scale_up_kv_rate: self.decode_scale_up_kv_rate,
                decode_scale_down_kv_rate: self.decode_scale_down_kv_rate,
            },
            speculative_nextn: self.speculative_nextn.unwrap_or(usual.speculative_nextn),
            gpu_budget: GpuBudget {
                min: self.min_gpu_budget.map_or(usual.gpu_budget.min, bound),
                max: self.max_gpu_budget.map_or(usual.gpu_budget.max, bound),
            },
            min_endpoint: self.min_endpoint.unwrap_or(usual.min_endpoint),
            prefill_min_endpoint: self.prefill_min_endpoint,
            decode_min_endpoint: self.decode_min_endpoint,
            attention_dp: PerRole {
                prefill: ranks("prefill").unwrap_or(1),
                decode: ranks("decode").or(ranks("aggregated")).unwrap_or(1),
            },
        })
    }
}

fn mode(word: &str) -> Result<Mode, String> {
    Ok(match word {
        "agg" => Mode::Aggregated,
        "disagg" => Mode::Disaggregated,
        "prefill" => Mode::Prefill,
        "decode" => Mode::Decode,
        _ => {
            return Err(format!(
                "mode {word}: expected agg, disagg, prefill or decode"
            ));
        }
    })
}

fn target(word: &str) -> Result<Target, String> {
    Ok(match word {
        "throughput" => Target::Throughput,
        "latency" => Target::Latency,
        "load" => Target::Load,
        "sla" => Target::Sla,
        _ => {
            return Err(format!(
                "optimization_target {word}: expected throughput, latency, load or sla"
            ));
        }
    })
}

impl PredictorFields {
    /// Ours for it: `arima` and `prophet` are other predictors that do the same work.
    pub fn spec(&self, interval_s: f64) -> Result<PredictorSpec, String> {
        let usual = KalmanConfig::default();
        let log1p = self.load_predictor_log1p.unwrap_or(false);
        Ok(match self.load_predictor.as_deref().unwrap_or("arima") {
            "constant" => PredictorSpec::Constant,
            "kalman" => PredictorSpec::Kalman(KalmanConfig {
                q_level: self.kalman_q_level.unwrap_or(usual.q_level),
                q_trend: self.kalman_q_trend.unwrap_or(usual.q_trend),
                r: self.kalman_r.unwrap_or(usual.r),
                min_points: self.kalman_min_points.unwrap_or(usual.min_points),
                log1p,
            }),
            "arima" => PredictorSpec::Autoregressive { log1p },
            "prophet" => PredictorSpec::TrendSeasonal {
                log1p,
                window: self.prophet_window_size.unwrap_or(50),
                interval_s,
            },
            word => {
                return Err(format!(
                    "load_predictor {word}: expected constant, kalman, arima or prophet"
                ));
            }
        })
    }
}

impl From<&CapabilityFields> for Capabilities {
    fn from(fields: &CapabilityFields) -> Self {
        Capabilities {
            num_gpu: fields.num_gpu,
            max_num_batched_tokens: fields.max_num_batched_tokens,
            max_num_seqs: fields.max_num_seqs,
            context_length: fields.context_length,
            max_kv_tokens: fields.max_kv_tokens,
            speculative_nextn: fields.speculative_nextn,
        }
    }
}

impl ModelFields {
    pub fn model(self, kind: WorkerKind, config: &PlannerConfig) -> Box<dyn ForwardPassModel> {
        match self {
            ModelFields::Analytic { c0, cp, cd, ckv } => Box::new(Analytic {
                base_ms: c0,
                per_prefill_token_ms: cp,
                per_decode_request_ms: cd,
                per_kv_token_ms: ckv,
            }),
            ModelFields::FpmRegression => Box::new(Regression::new(
                kind,
                RegressionConfig {
                    min_observations: config.load_min_observations,
                    max_observations: config.max_num_fpm_samples,
                    buckets: config.fpm_sample_bucket_size,
                },
            )),
        }
    }
}

/// A forward pass as engines report it. Variances are recorded but no rule reads them.
#[derive(Debug, Deserialize)]
pub struct PassFields {
    #[serde(default)]
    worker_id: u32,
    dp_rank: u32,
    wall_time: f64,
    num_prefill_requests: u64,
    sum_prefill_tokens: u64,
    sum_prefill_kv_tokens: u64,
    num_decode_requests: u64,
    sum_decode_kv_tokens: u64,
    #[serde(default)]
    num_queued_prefill: u64,
    #[serde(default)]
    sum_queued_prefill_tokens: u64,
    #[serde(default)]
    num_queued_decode: u64,
    #[serde(default)]
    sum_queued_decode_kv_tokens: u64,
}

impl From<&PassFields> for ForwardPass {
    fn from(fields: &PassFields) -> Self {
        ForwardPass {
            worker: WorkerId(fields.worker_id),
            rank: fields.dp_rank,
            wall_time_s: fields.wall_time,
            scheduled: Work {
                prefill_requests: fields.num_prefill_requests,
                prefill_tokens: fields.sum_prefill_tokens,
                prefill_kv_tokens: fields.sum_prefill_kv_tokens,
                decode_requests: fields.num_decode_requests,
                decode_kv_tokens: fields.sum_decode_kv_tokens,
            },
            queued: Work {
                prefill_requests: fields.num_queued_prefill,
                prefill_tokens: fields.sum_queued_prefill_tokens,
                prefill_kv_tokens: 0,
                decode_requests: fields.num_queued_decode,
                decode_kv_tokens: fields.sum_queued_decode_kv_tokens,
            },
        }
    }
}

/// Passes of a list.
pub fn passes(fields: &[PassFields]) -> Vec<ForwardPass> {
    fields.iter().map(ForwardPass::from).collect()
}

/// A worker kind by its name.
pub fn worker_kind(word: &str) -> Result<WorkerKind, String> {
    Ok(match word {
        "prefill" => WorkerKind::Prefill,
        "decode" => WorkerKind::Decode,
        "aggregated" => WorkerKind::Aggregated,
        _ => {
            return Err(format!(
                "worker_type {word}: expected prefill, decode or aggregated"
            ));
        }
    })
}

/// A value that may be absent, as JSON.
pub fn or_null<T: Into<Value>>(value: Option<T>) -> Value {
    value.map_or(Value::Null, Into::into)
}
