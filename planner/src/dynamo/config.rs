//! The planner's settings, under Dynamo's names and with its defaults. What can be wrong with them is in [`check`](super::check).

use crate::budget::{GpuBudget, PairBudget, SingleBudget};
use crate::observe::{PerRole, Role};
use crate::predictor::PredictorSpec;
use engine::Span;

/// Which workers the planner scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Workers that do both.
    Aggregated,
    /// Prefill and decode workers, together.
    Disaggregated,
    /// Prefill workers only.
    Prefill,
    /// Decode workers only.
    Decode,
}

impl Mode {
    /// The roles it scales. Aggregated workers count as decode.
    #[must_use]
    pub fn roles(self) -> &'static [Role] {
        match self {
            Mode::Aggregated | Mode::Decode => &[Role::Decode],
            Mode::Disaggregated => &Role::BOTH,
            Mode::Prefill => &[Role::Prefill],
        }
    }

    /// Whether it scales this role.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        self.roles().contains(&role)
    }
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Queues of a whole context, full KV caches.
    Throughput,
    /// Queues of a tenth of a context, KV caches at 40 %.
    Latency,
    /// Thresholds of the caller.
    Load,
    /// Estimated TTFT and ITL, and traffic forecasts.
    Sla,
}

/// Thresholds for [`Target::Load`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LoadThresholds {
    /// Queued prompt tokens on any rank that ask for one worker more.
    pub prefill_scale_up_queue_tokens: Option<f64>,
    /// Queued prompt tokens on every rank that allow one worker less.
    pub prefill_scale_down_queue_tokens: Option<f64>,
    /// KV use on any rank, in per cent, that asks for one worker more.
    pub decode_scale_up_kv_rate: Option<f64>,
    /// KV use on every rank, in per cent, that allows one worker less.
    pub decode_scale_down_kv_rate: Option<f64>,
}

/// The planner's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannerConfig {
    /// Which workers it scales.
    pub mode: Mode,
    /// What decides.
    pub optimization_target: Target,
    /// TTFT to keep, in milliseconds.
    pub ttft_ms: f64,
    /// ITL to keep, in milliseconds.
    pub itl_ms: f64,
    /// Seconds between decisions by predicted traffic.
    pub throughput_adjustment_interval_seconds: u32,
    /// Seconds between decisions by load.
    pub load_adjustment_interval_seconds: u32,
    /// Seconds between ticks; by default the greatest common divisor of the intervals in use.
    pub scale_interval_seconds: Option<f64>,
    /// Whether predicted traffic decides; only for [`Target::Sla`].
    pub enable_throughput_scaling: bool,
    /// Whether load decides; always for targets other than [`Target::Sla`].
    pub enable_load_scaling: bool,
    /// Replicas by which one decision by traffic may move a role.
    pub max_throughput_scaling_replicas: u32,
    /// What predicts traffic.
    pub load_predictor: PredictorSpec,
    /// Forward passes that averages and regressions look back on.
    pub max_num_fpm_samples: usize,
    /// Cells of the regression's grid; a square number.
    pub fpm_sample_bucket_size: usize,
    /// Share of the SLA, in per cent, that those left must keep for a worker to go.
    pub load_scaling_down_sensitivity: f64,
    /// Forward passes before the regression counts.
    pub load_min_observations: usize,
    /// Thresholds for [`Target::Load`].
    pub thresholds: LoadThresholds,
    /// Tokens that speculative decoding proposes, where workers do not say.
    pub speculative_nextn: u32,
    /// GPUs that the workers may use.
    pub gpu_budget: GpuBudget,
    /// Replicas below which no role goes.
    pub min_endpoint: u32,
    /// The same for prefill workers.
    pub prefill_min_endpoint: Option<u32>,
    /// The same for decode workers.
    pub decode_min_endpoint: Option<u32>,
    /// Attention-data-parallel ranks that make one forward pass together.
    pub attention_dp: PerRole<u32>,
}

impl Default for PlannerConfig {
    fn default() -> Self {
        PlannerConfig {
            mode: Mode::Disaggregated,
            optimization_target: Target::Throughput,
            ttft_ms: 500.0,
            itl_ms: 50.0,
            throughput_adjustment_interval_seconds: 180,
            load_adjustment_interval_seconds: 5,
            scale_interval_seconds: None,
            enable_throughput_scaling: true,
            enable_load_scaling: false,
            max_throughput_scaling_replicas: 8,
            load_predictor: PredictorSpec::Autoregressive { log1p: false },
            max_num_fpm_samples: 64,
            fpm_sample_bucket_size: 16,
            load_scaling_down_sensitivity: 80.0,
            load_min_observations: 5,
            thresholds: LoadThresholds::default(),
            speculative_nextn: 0,
            gpu_budget: GpuBudget {
                min: None,
                max: Some(8),
            },
            min_endpoint: 1,
            prefill_min_endpoint: None,
            decode_min_endpoint: None,
            attention_dp: PerRole {
                prefill: 1,
                decode: 1,
            },
        }
    }
}

/// What a worker of a role can do, as its engine reports it. `None` is not reported; zero is a report that it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// GPUs of one replica.
    pub num_gpu: Option<u32>,
    /// Tokens in one forward pass.
    pub max_num_batched_tokens: Option<u64>,
    /// Requests in one forward pass.
    pub max_num_seqs: Option<u64>,
    /// Longest context, in tokens.
    pub context_length: Option<u64>,
    /// Tokens that the KV cache holds.
    pub max_kv_tokens: Option<u64>,
    /// Tokens that speculative decoding proposes.
    pub speculative_nextn: Option<u32>,
}

impl PlannerConfig {
    /// Whether estimates against the SLA decide.
    #[must_use]
    pub fn is_sla(&self) -> bool {
        self.optimization_target == Target::Sla
    }

    /// Whether predicted traffic decides.
    #[must_use]
    pub fn scales_by_throughput(&self) -> bool {
        self.is_sla() && self.enable_throughput_scaling
    }

    /// Whether load decides.
    #[must_use]
    pub fn scales_by_load(&self) -> bool {
        !self.is_sla() || self.enable_load_scaling
    }

    /// Replicas below which a role does not go.
    #[must_use]
    pub fn floor(&self, role: Role) -> u32 {
        let own = match role {
            Role::Prefill => self.prefill_min_endpoint,
            Role::Decode => self.decode_min_endpoint,
        };
        own.unwrap_or(self.min_endpoint)
    }

    /// Time between ticks.
    #[must_use]
    pub fn scale_interval(&self) -> Span {
        Span::from_s(self.scale_interval_seconds.unwrap_or_else(|| {
            let load = self.load_adjustment_interval_seconds;
            let divisor = if self.scales_by_throughput() {
                gcd(load, self.throughput_adjustment_interval_seconds)
            } else {
                load
            };
            f64::from(divisor)
        }))
    }

    /// The budget of one role, if its cost is known.
    pub(super) fn single_budget(
        &self,
        role: Role,
        capabilities: &PerRole<Capabilities>,
    ) -> Option<SingleBudget> {
        Some(SingleBudget {
            gpus: self.gpu_budget,
            cost: capabilities.get(role).num_gpu?,
            floor: self.floor(role),
        })
    }

    /// The budget of both roles, if their costs are known.
    pub(super) fn pair_budget(&self, capabilities: &PerRole<Capabilities>) -> Option<PairBudget> {
        Some(PairBudget {
            gpus: self.gpu_budget,
            cost: PerRole {
                prefill: capabilities.prefill.num_gpu?,
                decode: capabilities.decode.num_gpu?,
            },
            floor: PerRole {
                prefill: self.floor(Role::Prefill),
                decode: self.floor(Role::Decode),
            },
        })
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
