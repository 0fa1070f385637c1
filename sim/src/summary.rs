//! The numbers of a run, with stable names: the field names here are the names in JSON reports and sweep rows.

use crate::ahead::SpeculativePrefill;
use crate::costs::{CostSummary, EnergySummary};
use crate::scaling::ScalingSummary;
use serde::Serialize;
use std::collections::BTreeMap;

/// The summary of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// How many requests ended how.
    pub requests: RequestCounts,
    /// Over completed requests, warm-up left out.
    pub latency: Latency,
    /// Over first arrival to last finish.
    pub throughput: Throughput,
    /// Requests that meet the SLA; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goodput: Option<Goodput>,
    /// Prefix reuse by its several definitions.
    pub prefix: PrefixReuse,
    /// KV cache use over all workers.
    pub kv: KvUse,
    /// Share of the time in steps that lies beyond what the timing model was measured or fitted at.
    pub extrapolated_share: f64,
    /// KV that went from prefill to decode workers; absent where each worker does both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfers: Option<Transfers>,
    /// What the links between workers carried, by kind: `worker`, `nvlink`, `nic`, `leaf`, `spine`, `core`; absent where each
    /// worker does both.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub network: BTreeMap<&'static str, LinksUse>,
    /// What drafts brought; absent where no engine speculates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculation: Option<SpeculationSummary>,
    /// What the front end sent ahead of next turns; absent where nobody asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculative_prefill: Option<SpeculativePrefill>,
    /// KV below the GPUs' caches; absent where no worker has such tiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvbm: Option<KvbmUse>,
    /// What went wrong; absent where nothing can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adversity: Option<AdversitySummary>,
    /// What a planner did; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSummary>,
    /// What its GPU time costs; absent without prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<CostSummary>,
    /// What its GPUs draw, an estimate; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy: Option<EnergySummary>,
    /// By worker index; with a planner by place, where one worker may have followed the other.
    pub workers: Vec<WorkerSummary>,
}

/// How many requests ended how; `total = completed + rejected + cancelled + failed + unfinished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestCounts {
    /// All requests of the workload that were part of the run.
    pub total: u64,
    /// Delivered in full.
    pub completed: u64,
    /// Refused.
    pub rejected: u64,
    /// Refused, by reason.
    pub rejected_by: BTreeMap<&'static str, u64>,
    /// Not wanted any more by their clients.
    pub cancelled: u64,
    /// Given up by their clients or lost by the system, after all retries.
    pub failed: u64,
    /// The same, by reason.
    pub failed_by: BTreeMap<&'static str, u64>,
    /// Neither, when the run ended.
    pub unfinished: u64,
    /// Left out of the statistics.
    pub warmup: u64,
    /// Preemptions over all requests.
    pub preemptions: u64,
    /// Requests preempted at least once.
    pub preempted: u64,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// Arrival to first token.
    pub ttft_ms: Distribution,
    /// Every gap between two tokens of a request.
    pub itl_ms: Distribution,
    /// (E2E − TTFT) / (output − 1), one value per request with two tokens or more.
    pub tpot_ms: Distribution,
    /// Arrival to last token.
    pub e2e_ms: Distribution,
    /// Arrival to the start of the first step.
    pub queue_ms: Distribution,
}

/// An exact distribution; quantiles are nearest-rank. All zero when `count` is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Least value.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Greatest value.
    pub max: f64,
}

/// Rates over the time from the first arrival to the last finish.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// That time.
    pub duration_s: f64,
    /// Completed requests per second.
    pub requests_per_s: f64,
    /// Generated tokens per second.
    pub output_tokens_per_s: f64,
    /// Prompt and generated tokens per second.
    pub total_tokens_per_s: f64,
    /// GPUs of the deployment; with a planner the most that were taken at once.
    pub gpus: u64,
    /// GPUs × time from the start of the run to its end; with a planner while workers start, serve and drain.
    pub gpu_hours: f64,
    /// Generated tokens per second and GPU; with a planner per second of GPU time.
    pub output_tokens_per_s_per_gpu: f64,
    /// Prompt and generated tokens per second and GPU, likewise.
    pub total_tokens_per_s_per_gpu: f64,
    /// Mean of 1/TPOT over requests with two tokens or more.
    pub output_tokens_per_s_per_user: f64,
}

/// Requests that meet the SLA (TTFT and TPOT bounds, whichever are given).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goodput {
    /// Bound on TTFT.
    pub ttft_ms: Option<f64>,
    /// Bound on TPOT (the SLA's `itl_ms`).
    pub itl_ms: Option<f64>,
    /// Completed requests that meet both.
    pub requests: u64,
    /// Their share of all requests that count (rejected ones are misses).
    pub share: f64,
    /// Such requests per second.
    pub requests_per_s: f64,
    /// Share of one-minute windows (by arrival) in which at least 90 % of requests met both.
    pub window_share: f64,
}

/// Prefix reuse by its several definitions; they are different numbers and stay so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrefixReuse {
    /// Prompt tokens found in the KV cache at first admission / prompt tokens, over admitted requests.
    pub first_admission_share: f64,
    /// The same over all admissions, those after a preemption included (prompt and regenerated tokens).
    pub all_admissions_share: f64,
    /// Tokens the router believed to be cached on the worker it chose / prompt tokens; 0 for routers without such a belief.
    pub router_overlap_share: f64,
    /// Requests with any hit / admitted requests.
    pub requests_with_hit_share: f64,
}

/// KV cache use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KvUse {
    /// Highest share of a worker's blocks in use by running sequences at once, over all workers.
    pub peak_share: f64,
    /// Tokens held by running sequences / capacity in tokens, averaged over the time of the run and all workers.
    pub mean_share: f64,
}

/// KV that went from prefill to decode workers; warm-up requests included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Transfers {
    /// Requests handed over, their transfers over.
    pub count: u64,
    /// Of these, those whose transfer failed.
    pub failed: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Prompt tokens that decode workers had already / prompt tokens of those requests.
    pub hit_share: f64,
    /// End of the prefill to blocks on the decode worker; 0 where they were there before.
    pub wait_ms: Distribution,
    /// Start of the transfer to its end.
    pub transfer_ms: Distribution,
    /// End of the prefill to the end of the transfer: what the handover adds to TTFT, but for the next step.
    pub exposed_ms: Distribution,
}

/// What the links of one kind carried over the whole run, each direction a link of its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LinksUse {
    /// How many there are.
    pub links: u64,
    /// Bytes of the transfers that crossed them, once for each link they crossed.
    pub bytes: u64,
    /// Of these, what they could have carried in the time of the run.
    pub utilisation: f64,
    /// The same of the link with the highest.
    pub busiest_utilisation: f64,
    /// Share of the run in which something moved over that one which was busy longest.
    pub busiest_share: f64,
}

/// What drafts brought over the whole run, warm-up included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpeculationSummary {
    /// Drafted tokens that were verified.
    pub draft_tokens: u64,
    /// Of these, accepted.
    pub accepted_tokens: u64,
    /// Accepted / verified.
    pub acceptance_rate: f64,
    /// Tokens per decode step and sequence: 1 + accepted / such steps.
    pub acceptance_length: f64,
}

/// KV below the GPUs' caches, warm-up requests included. All shares are over the admissions of workers that have tiers,
/// those after a preemption included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KvbmUse {
    /// Onboardings: requests that waited for KV from a tier, each time.
    pub onboardings: u64,
    /// Start of an onboarding to its last byte.
    pub onboard_ms: Distribution,
    /// G2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<TierUse>,
    /// G3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<TierUse>,
    /// G4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<TierUse>,
}

/// One tier of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TierUse {
    /// Blocks that fit, over all workers.
    pub capacity_blocks: u64,
    /// Highest share of a worker's tier that was in use.
    pub peak_share: f64,
    /// Tokens taken from it / tokens of admitted requests.
    pub token_share: f64,
    /// Tokens taken from it / tokens of admitted requests that neither the GPU nor the tiers above had.
    pub hit_share: f64,
    /// Onboardings that took something from it / admissions.
    pub request_share: f64,
    /// Blocks read.
    pub onboarded_blocks: u64,
    /// Their size.
    pub onboarded_bytes: u64,
    /// Blocks that came.
    pub offloaded_blocks: u64,
    /// Their size.
    pub offloaded_bytes: u64,
    /// Blocks read into host memory while requests waited.
    pub prefetched_blocks: u64,
    /// Their size.
    pub prefetched_bytes: u64,
    /// Blocks that made room for others.
    pub evicted_blocks: u64,
    /// Blocks that the frequency filter kept out.
    pub filtered_blocks: u64,
    /// Blocks that found no room.
    pub dropped_blocks: u64,
}

/// What went wrong, warm-up requests included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdversitySummary {
    /// Times that a client tried again.
    pub retries: u64,
    /// Attempts that ran into the limit on the first token.
    pub ttft_timeouts: u64,
    /// Attempts that ran into the limit on the last token.
    pub timeouts: u64,
    /// Prompts whose KV was not read in time, and which decode workers computed themselves.
    pub transfer_timeouts: u64,
    /// Attempts that were turned away because all workers were busy.
    pub shed: u64,
    /// Tokens delivered to attempts that were cancelled, failed or repeated.
    pub wasted_tokens: u64,
    /// Moves of requests to another worker after theirs was lost.
    pub migrated: u64,
    /// Attempts that were lost with their worker.
    pub lost: u64,
    /// Tokens of prompts and answers whose KV was lost and that were computed again after a move, if no cache had them.
    pub recomputed_tokens: u64,
    /// In the order in which they began.
    pub faults: Vec<FaultSummary>,
}

/// One fault and what it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultSummary {
    /// What broke, by the name it has in scenarios.
    pub kind: &'static str,
    /// Which worker; absent for a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// Which node; absent for what is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// Workers that were lost with it; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u64>,
    /// When.
    pub began_s: f64,
    /// Until when.
    pub ended_s: f64,
    /// Attempts that were there, or under way at the router.
    pub requests: u64,
    /// Of these, those that another worker went on with.
    pub migrated: u64,
    /// Of these, those that were lost.
    pub lost: u64,
    /// See [`AdversitySummary::recomputed_tokens`].
    pub recomputed_tokens: u64,
    /// KV events that the router missed.
    pub missed_events: u64,
    /// Which links and what it cost, if it is links that broke.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkFaultSummary>,
    /// One-minute windows (by arrival) that it overlaps and in which less than 90 % of requests met the SLA; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sla_minutes_missed: Option<u64>,
}

/// Links that broke and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LinkFaultSummary {
    /// Which kind, by the name it has in scenarios.
    pub link: &'static str,
    /// Which of them.
    pub number: u32,
    /// Transfers that it held up.
    pub held_transfers: u64,
    /// For how long all together: each second counts by the part of the rate that a transfer lacks of what it would have had.
    pub held_s: f64,
    /// Their size.
    pub held_bytes: u64,
}

/// What one worker did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerSummary {
    /// Its index.
    pub worker: u32,
    /// Its pool.
    pub pool: String,
    /// Requests placed on it.
    pub requests: u64,
    /// Steps run.
    pub steps: u64,
    /// Share of the run spent in steps.
    pub utilisation: f64,
    /// Tokens computed in prefill.
    pub prefill_tokens: u64,
    /// Tokens generated by decode steps.
    pub decode_tokens: u64,
    /// Preemptions.
    pub preemptions: u64,
    /// Highest share of its blocks in use.
    pub kv_peak_share: f64,
}

/// A service-level agreement.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sla {
    /// Upper bound on TTFT in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Upper bound on TPOT in milliseconds.
    pub itl_ms: Option<f64>,
}
