//! The planner as a state machine: told the time and what is seen, it says how many workers there should be, why, and when it
//! wants to be asked again.
//!
//! A planner reads no clock and does no I/O, so the virtual driver of a simulation and a live one can both own it. It says
//! targets, not moves: whoever owns the workers compares a target with the workers that serve or start, starts what is
//! missing, and takes away first what is still starting, then what serves.

use crate::observe::{Observations, PerRole};
use engine::Time;
use std::fmt;

/// How many workers there should be.
pub trait Planner: fmt::Debug + Send + Sync {
    /// The policy's name, for reports.
    fn name(&self) -> &'static str;

    /// When it wants to be asked first, for a run that starts at time zero; `None` if never.
    fn first_tick(&self) -> Option<Time>;

    /// Its decision at `now`, which is the time it asked for.
    fn tick(&mut self, now: Time, seen: &Observations) -> Decision;

    /// A copy with all its state, so that a simulation can be forked.
    fn boxed(&self) -> Box<dyn Planner>;
}

impl Clone for Box<dyn Planner> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

/// What a planner wants.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// Workers that should serve or start; `None` where everything may stay as it is.
    pub targets: PerRole<Option<u32>>,
    /// Why, in one word.
    pub reason: Option<Reason>,
    /// When it wants to be asked again; `None` if never.
    pub next_tick: Option<Time>,
    /// The numbers behind it.
    pub diagnostics: Diagnostics,
}

/// Numbers behind a decision, as far as the policy has them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Diagnostics {
    /// Longest TTFT that a worker is estimated to give the next request, in milliseconds.
    pub estimated_ttft_ms: Option<f64>,
    /// Longest ITL that a worker is estimated to give the next request, in milliseconds.
    pub estimated_itl_ms: Option<f64>,
    /// Requests expected in the next window.
    pub predicted_requests: Option<f64>,
    /// Their mean prompt, in tokens.
    pub predicted_isl: Option<f64>,
    /// Their mean output, in tokens.
    pub predicted_osl: Option<f64>,
    /// Their share of cached prompt blocks.
    pub predicted_kv_hit_rate: Option<f64>,
    /// Requests per second that one worker is estimated to sustain at the SLA.
    pub engine_rps: PerRole<Option<f64>>,
    /// Replicas below which load scaling does not go.
    pub throughput_lower_bound: PerRole<u32>,
    /// What load scaling decided.
    pub load: Reasons,
    /// What throughput scaling decided.
    pub throughput: Reasons,
}

/// A reason as a whole and by role, where roles are decided apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons {
    /// As a whole.
    pub overall: Option<Reason>,
    /// By role.
    pub role: PerRole<Option<Reason>>,
}

impl Reasons {
    /// The same reason for the whole and both roles.
    pub(crate) fn all(reason: Reason) -> Self {
        Reasons {
            overall: Some(reason),
            role: PerRole {
                prefill: Some(reason),
                decode: Some(reason),
            },
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a planner decided as it did. The first ones are Dynamo's words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// The word in reports, for Dynamo's reasons Dynamo's own.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }
        }
    };
}

reasons! {
    /// More workers.
    ScaleUp = "scale_up",
    /// Fewer.
    ScaleDown = "scale_down",
    /// Fewer were wanted, but the predicted traffic needs these.
    ScaleDownCappedByThroughput = "scale_down_capped_by_throughput",
    /// Fewer would do now, but those left would not cope with the rest's load.
    ScaleDownRefusedConsolidation = "scale_down_refused_consolidation",
    /// As many.
    NoChange = "no_change",
    /// An earlier decision is still being carried out.
    ScalingInProgress = "scaling_in_progress",
    /// No engine reported a forward pass.
    NoForwardPasses = "no_fpm_data",
    /// The engines that report are not the ones that are ready.
    WorkerCountMismatch = "worker_count_mismatch",
    /// The performance model, or a limit it needs, is missing.
    InsufficientData = "insufficient_data",
    /// This kind of scaling is switched off.
    Disabled = "disabled",
    /// The GPU budget allows no such move.
    GpuBudgetGuardHold = "gpu_budget_guard_hold",
    /// The workers there are break the GPU budget; this mends it.
    GpuBudgetReconcile = "gpu_budget_reconcile",
    /// The predicted traffic needs other counts.
    Scale = "scale",
    /// The predicted traffic bounds load scaling from below.
    SetLowerBound = "set_lower_bound",
    /// The performance model cannot size an engine yet.
    ModelNotReady = "model_not_ready",
    /// The other role's model cannot, and both move together.
    PartnerNotReady = "partner_not_ready",
    /// No traffic window to predict from.
    NoTrafficData = "no_traffic_data",
    /// The predictor gave no number.
    PredictFailed = "predict_failed",
    /// The metric is within the tolerance of its target.
    WithinTolerance = "within_tolerance",
    /// A recommendation of the stabilisation window holds it.
    Stabilized = "stabilized",
    /// Allowed moves per period, or a cool-down, hold it.
    RateLimited = "rate_limited",
    /// The smallest or largest count holds it.
    AtLimit = "at_limit",
    /// The metric has no value.
    NoMetric = "no_metric",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
