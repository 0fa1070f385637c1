//! From records to the numbers of a run.
//!
//! *Who counts.* Warm-up requests are left out of everything but the counts of requests; the counters of workers cover
//! the whole run. Latencies are those of completed requests, gaps those of all requests; throughput is what completed
//! requests brought between the first arrival and the last completion. A rejected or unfinished request misses the SLA.
//!
//! *How.* Times stay integers until the last division: a percentile is the ceil(p n)-th smallest value, a mean an integer
//! sum over n. TPOT, a ratio, is a float per request; floats are summed as fixed-point integers, so that the order of the
//! requests does not matter. A number without a base (no request, no time) is 0, never NaN or infinite.

use crate::adversity::record::{AdversityRecord, FaultRecord};
use crate::ahead::speculative_prefill;
use crate::disaggregation::TransferRecord;
use crate::kvbm::{KvbmRecord, TierRecord};
use crate::links::{LinkKind, LinkUse};
use crate::quantile::values_at_ranks;
use crate::record::{GapRun, Outcome, Recording, RequestRecord, WorkerRecord};
use crate::summary::{
    AdversitySummary, Distribution, FaultSummary, Goodput, KvUse, KvbmUse, Latency,
    LinkFaultSummary, LinksUse, PrefixReuse, RequestCounts, Sla, SpeculationSummary, Summary,
    Throughput, TierUse, Transfers, WorkerSummary,
};
use engine::{Span, Time};
use std::collections::BTreeMap;

const PS_PER_MS: f64 = 1e9;
const PS_PER_S: f64 = 1e12;
const PS_PER_HOUR: f64 = 3.6e15;
/// Length of the windows of [`Goodput::window_share`].
const SLA_WINDOW: Span = Span(60_000_000_000_000);
/// Per cent of a window's requests that must meet the SLA for the window to count as good.
const WINDOW_PERCENT: u64 = 90;

/// The summary of a run. `pool_names` are by pool index; goodput is judged only when an SLA is given. What it costs is
/// counted by [`crate::costs`].
///
/// # Panics
/// When a worker's pool has no name.
#[must_use]
pub fn summarize(recording: &Recording, pool_names: &[String], sla: Option<Sla>) -> Summary {
    let sent: Vec<&RequestRecord> = recording.sent().map(|(_, request)| request).collect();
    let counted: Vec<&RequestRecord> = sent
        .iter()
        .copied()
        .filter(|request| !request.is_warmup)
        .collect();
    let completed: Vec<&RequestRecord> = counted
        .iter()
        .copied()
        .filter(|request| request.outcome == Outcome::Completed)
        .collect();
    let measured = measured_time(&counted, &completed);
    let own = recording.ahead.iter().map(|ahead| &ahead.life);
    let all: Vec<&RequestRecord> = (sent.iter().copied())
        .chain(own.filter(|life| life.was_sent()))
        .collect();
    let run = run_time(&all);
    let tpot_ps: Vec<f64> = completed
        .iter()
        .filter_map(|request| tpot_ps(request))
        .collect();
    let end = all.iter().map(|request| request.last_moment()).max();
    let end = end.unwrap_or_default();
    let scaling = recording.scaling.as_ref();
    let gpus = GpuUse::of(recording, end);
    let served = match scaling {
        Some(scaling) => scaling.served(end, recording.workers.len()),
        None => vec![run; recording.workers.len()],
    };
    let scaling = scaling.map(|it| it.summarize(end, &recording.workers, pool_names, &counted));
    Summary {
        requests: count_requests(&sent),
        latency: Latency {
            ttft_ms: spans_in_ms(completed.iter().map(|request| ttft(request))),
            itl_ms: gaps_in_ms(&recording.gaps),
            tpot_ms: ratios_in_ms(&tpot_ps),
            e2e_ms: spans_in_ms(
                completed
                    .iter()
                    .map(|request| request.finish.since(request.arrival)),
            ),
            queue_ms: spans_in_ms(
                completed
                    .iter()
                    .map(|request| request.first_scheduled.since(request.arrival)),
            ),
        },
        throughput: throughput(&completed, measured, &gpus, &tpot_ps),
        goodput: sla.map(|sla| goodput(&counted, sla, measured)),
        prefix: prefix_reuse(&counted, &recording.workers),
        kv: kv_use(&recording.workers, &served),
        extrapolated_share: extrapolated_share(&recording.workers),
        transfers: transfers(recording),
        network: network(&recording.links, run),
        speculation: speculation(&recording.workers),
        speculative_prefill: speculative_prefill(recording),
        kvbm: recording
            .kvbm
            .as_ref()
            .map(|kvbm| kvbm_use(kvbm, &recording.workers)),
        adversity: recording
            .adversity
            .as_ref()
            .map(|record| adversity(record, &counted, sla)),
        scaling,
        costs: None,
        energy: None,
        workers: (0..)
            .zip(&recording.workers)
            .zip(served)
            .map(|((index, worker), served)| worker_summary(index, worker, pool_names, served))
            .collect(),
    }
}

/// TTFT of requests.
pub(crate) fn ttfts_in_ms(requests: &[&RequestRecord]) -> Distribution {
    spans_in_ms(requests.iter().map(|request| ttft(request)))
}

/// Arrival to first token.
fn ttft(request: &RequestRecord) -> Span {
    request.first_token.since(request.arrival)
}

/// (E2E − TTFT) / (output − 1) in picoseconds; `None` with less than two tokens.
fn tpot_ps(request: &RequestRecord) -> Option<f64> {
    let gaps = request
        .output_tokens
        .checked_sub(1)
        .filter(|&gaps| gaps > 0)?;
    Some(request.finish.since(request.first_token).0 as f64 / f64::from(gaps))
}

/// First arrival to last completion of the requests that count.
fn measured_time(counted: &[&RequestRecord], completed: &[&RequestRecord]) -> Span {
    let first = counted.iter().map(|request| request.arrival).min();
    let last = completed.iter().map(|request| request.finish).max();
    first
        .zip(last)
        .map_or(Span::ZERO, |(first, last)| last.since(first))
}

/// First arrival to the last recorded moment, warm-up included.
fn run_time(requests: &[&RequestRecord]) -> Span {
    let first = requests.iter().map(|request| request.arrival).min();
    let last = requests.iter().map(|request| request.last_moment()).max();
    first
        .zip(last)
        .map_or(Span::ZERO, |(first, last)| last.since(first))
}

impl RequestRecord {
    /// The latest moment of its life that has come to pass.
    #[must_use]
    pub fn last_moment(&self) -> Time {
        let moments = [
            self.finish,
            self.first_token,
            self.first_scheduled,
            self.placed,
        ];
        moments
            .into_iter()
            .find(|&moment| moment != Time::MAX)
            .unwrap_or(self.arrival)
            .max(self.arrival)
    }
}

fn count_requests(requests: &[&RequestRecord]) -> RequestCounts {
    let mut counts = RequestCounts {
        total: requests.len() as u64,
        completed: 0,
        rejected: 0,
        rejected_by: BTreeMap::new(),
        cancelled: 0,
        failed: 0,
        failed_by: BTreeMap::new(),
        unfinished: 0,
        warmup: 0,
        preemptions: 0,
        preempted: 0,
    };
    for request in requests {
        match request.outcome {
            Outcome::Completed => counts.completed += 1,
            Outcome::Unfinished => counts.unfinished += 1,
            Outcome::Cancelled => counts.cancelled += 1,
            Outcome::Failed(reason) => {
                counts.failed += 1;
                *counts.failed_by.entry(reason.name()).or_default() += 1;
            }
            Outcome::Rejected(reason) => {
                counts.rejected += 1;
                *counts.rejected_by.entry(reason.name()).or_default() += 1;
            }
        }
        counts.warmup += u64::from(request.is_warmup);
        counts.preemptions += u64::from(request.preemptions);
        counts.preempted += u64::from(request.preemptions > 0);
    }
    counts
}

/// The rank of a percentile: `ceil(percent * count / 100)`, at least 1.
pub(crate) fn rank(percent: u64, count: u64) -> u64 {
    (u128::from(count) * u128::from(percent))
        .div_ceil(100)
        .max(1) as u64
}

const PERCENTILES: [u64; 4] = [50, 90, 95, 99];

/// The distribution of times in picoseconds.
pub(crate) fn spans_in_ms(spans: impl Iterator<Item = Span>) -> Distribution {
    let mut values: Vec<u64> = spans.map(|span| span.0).collect();
    let (Some(&min), Some(&max)) = (values.iter().min(), values.iter().max()) else {
        return Distribution::default();
    };
    let sum: u128 = values.iter().map(|&value| u128::from(value)).sum();
    let mean = sum as f64 / values.len() as f64;
    distribution(
        values.len() as u64,
        mean,
        min as f64,
        percentiles(&mut values).map(|value| value as f64),
        max as f64,
    )
}

/// The distribution of ratios in picoseconds, none of them negative.
fn ratios_in_ms(ratios: &[f64]) -> Distribution {
    // Floats that are not negative have the order of their bits.
    let mut bits: Vec<u64> = ratios.iter().map(|ratio| ratio.to_bits()).collect();
    let (Some(&min), Some(&max)) = (bits.iter().min(), bits.iter().max()) else {
        return Distribution::default();
    };
    let mean = fixed_point_sum(ratios.iter().copied()) / ratios.len() as f64;
    let percentiles = percentiles(&mut bits).map(f64::from_bits);
    distribution(
        ratios.len() as u64,
        mean,
        f64::from_bits(min),
        percentiles,
        f64::from_bits(max),
    )
}

/// The distribution of gaps, from runs.
fn gaps_in_ms(runs: &[GapRun]) -> Distribution {
    let (mut count, mut sum) = (0u64, 0i128);
    let (mut min, mut max) = (u64::MAX, 0);
    for run in runs.iter().filter(|run| run.steps > 0 && run.sequences > 0) {
        let (steps, sequences) = (u64::from(run.steps), u64::from(run.sequences));
        count += steps * sequences;
        // Products of two 64-bit numbers: equal gaps, and 0 + 1 + ... + (steps - 1) slopes on top.
        let level = i128::from(run.first.0) * i128::from(steps * sequences);
        let slopes = i128::from(run.slope_ps) * i128::from(steps * (steps - 1) / 2);
        sum += level + slopes * i128::from(sequences);
        let last = run
            .first
            .0
            .wrapping_add_signed(run.slope_ps * (steps as i64 - 1));
        min = min.min(run.first.0).min(last);
        max = max.max(run.first.0).max(last);
    }
    if count == 0 {
        return Distribution::default();
    }
    let values = values_at_ranks(runs, &PERCENTILES.map(|percent| rank(percent, count)));
    let percentiles = [values[0], values[1], values[2], values[3]].map(|value| value as f64);
    distribution(
        count,
        sum as f64 / count as f64,
        min as f64,
        percentiles,
        max as f64,
    )
}

/// The [`PERCENTILES`] of at least one value, which are put in another order.
fn percentiles(values: &mut [u64]) -> [u64; 4] {
    let count = values.len() as u64;
    let mut start = 0;
    PERCENTILES.map(|percent| {
        // Everything before `start` is known to be no greater than what follows.
        let index = rank(percent, count) as usize - 1;
        let (_, value, _) = values[start..].select_nth_unstable(index - start);
        start = index;
        *value
    })
}

/// From picoseconds to milliseconds.
fn distribution(count: u64, mean: f64, min: f64, percentiles: [f64; 4], max: f64) -> Distribution {
    let ms = |ps: f64| ps / PS_PER_MS;
    let [p50, p90, p95, p99] = percentiles.map(ms);
    Distribution {
        count,
        mean: ms(mean),
        min: ms(min),
        p50,
        p90,
        p95,
        p99,
        max: ms(max),
    }
}

/// The sum of floats that are not negative, each cut to a multiple of 2^-24: the same in any order.
fn fixed_point_sum(values: impl Iterator<Item = f64>) -> f64 {
    const ONE: f64 = (1u32 << 24) as f64;
    let sum: u128 = values.map(|value| (value * ONE) as u128).sum();
    sum as f64 / ONE
}

/// `part / whole`, 0 when there is no whole.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// GPUs and for how long they were taken.
struct GpuUse {
    /// Most at once.
    most: u64,
    /// Summed over the GPUs, in picoseconds.
    time_ps: u128,
    /// Whether their number changed.
    scales: bool,
}

impl GpuUse {
    fn of(recording: &Recording, end: Time) -> GpuUse {
        let workers = &recording.workers;
        let all: u64 = workers.iter().map(|worker| u64::from(worker.gpus)).sum();
        match &recording.scaling {
            Some(scaling) => GpuUse {
                most: scaling.most_gpus(end, workers),
                time_ps: scaling.gpu_time_ps(end, workers),
                scales: true,
            },
            None => GpuUse {
                most: all,
                time_ps: u128::from(all) * u128::from(end.0)
                    - crate::costs::away_gpu_ps(recording, end),
                scales: false,
            },
        }
    }

    /// Per GPU; where their number changes, `total` over the time for which they were taken.
    fn rate(&self, total: f64, per_s: f64) -> f64 {
        if self.scales {
            share(total, self.time_ps as f64 / PS_PER_S)
        } else {
            share(per_s, self.most as f64)
        }
    }
}

fn throughput(
    completed: &[&RequestRecord],
    measured: Span,
    gpus: &GpuUse,
    tpot_ps: &[f64],
) -> Throughput {
    let seconds = measured.as_s();
    let input: u64 = completed
        .iter()
        .map(|request| u64::from(request.input_tokens))
        .sum();
    let output: u64 = completed
        .iter()
        .map(|request| u64::from(request.output_tokens))
        .sum();
    let output_tokens_per_s = share(output as f64, seconds);
    let total_tokens_per_s = share((input + output) as f64, seconds);
    // A user whose tokens all came at one instant has no rate.
    let rates = tpot_ps
        .iter()
        .filter(|&&tpot| tpot > 0.0)
        .map(|tpot| PS_PER_S / tpot);
    let mean_rate = share(fixed_point_sum(rates.clone()), rates.count() as f64);
    Throughput {
        duration_s: seconds,
        requests_per_s: share(completed.len() as f64, seconds),
        output_tokens_per_s,
        total_tokens_per_s,
        gpus: gpus.most,
        gpu_hours: gpus.time_ps as f64 / PS_PER_HOUR,
        output_tokens_per_s_per_gpu: gpus.rate(output as f64, output_tokens_per_s),
        total_tokens_per_s_per_gpu: gpus.rate((input + output) as f64, total_tokens_per_s),
        output_tokens_per_s_per_user: mean_rate,
    }
}

impl Sla {
    /// True for a completed request within both bounds; one token alone has no TPOT to miss.
    #[must_use]
    pub fn is_met_by(&self, request: &RequestRecord) -> bool {
        let within =
            |ps: f64, bound_ms: Option<f64>| bound_ms.is_none_or(|bound| ps / PS_PER_MS <= bound);
        request.outcome == Outcome::Completed
            && within(ttft(request).0 as f64, self.ttft_ms)
            && within(tpot_ps(request).unwrap_or(0.0), self.itl_ms)
    }
}

/// The SLA window that a request belongs to.
fn window_of(request: &RequestRecord) -> u64 {
    request.arrival.0 / SLA_WINDOW.0
}

/// SLA window → (requests that arrived in it, those that met the SLA).
fn sla_windows(counted: &[&RequestRecord], sla: Sla) -> BTreeMap<u64, (u64, u64)> {
    // Arrivals mostly come in order, so the window at hand is looked up once for many requests.
    let mut windows: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for of_window in counted.chunk_by(|a, b| window_of(a) == window_of(b)) {
        let met = of_window
            .iter()
            .filter(|request| sla.is_met_by(request))
            .count() as u64;
        let window = windows.entry(window_of(of_window[0])).or_default();
        window.0 += of_window.len() as u64;
        window.1 += met;
    }
    windows
}

/// Whether enough of the requests that arrived in a window met the SLA.
fn is_good_window((all, met): &(u64, u64)) -> bool {
    100 * met >= WINDOW_PERCENT * all
}

fn goodput(counted: &[&RequestRecord], sla: Sla, measured: Span) -> Goodput {
    let windows = sla_windows(counted, sla);
    let requests: u64 = windows.values().map(|(_, met)| met).sum();
    let good_windows = windows
        .values()
        .filter(|window| is_good_window(window))
        .count();
    Goodput {
        ttft_ms: sla.ttft_ms,
        itl_ms: sla.itl_ms,
        requests,
        share: share(requests as f64, counted.len() as f64),
        requests_per_s: share(requests as f64, measured.as_s()),
        window_share: share(good_windows as f64, windows.len() as f64),
    }
}

fn adversity(
    record: &AdversityRecord,
    counted: &[&RequestRecord],
    sla: Option<Sla>,
) -> AdversitySummary {
    let windows = sla.map(|sla| sla_windows(counted, sla));
    let fault = |fault: &FaultRecord| {
        let missed = |windows: &BTreeMap<u64, (u64, u64)>| {
            let overlapped = fault.began.0 / SLA_WINDOW.0..=fault.ended.0 / SLA_WINDOW.0;
            let overlapped = windows.range(overlapped);
            overlapped.filter(|(_, it)| !is_good_window(it)).count() as u64
        };
        FaultSummary {
            kind: fault.kind.name(),
            worker: fault.worker,
            node: fault.node,
            workers: fault.node.map(|_| u64::from(fault.workers)),
            began_s: fault.began.as_s(),
            ended_s: fault.ended.as_s(),
            requests: u64::from(fault.requests),
            migrated: u64::from(fault.migrated),
            lost: u64::from(fault.lost),
            recomputed_tokens: fault.recomputed_tokens,
            missed_events: fault.missed_events,
            link: fault.link.map(|link| LinkFaultSummary {
                link: link.site.name(),
                number: link.number,
                held_transfers: u64::from(link.cost.transfers),
                held_s: link.cost.held.as_s(),
                held_bytes: link.cost.bytes,
            }),
            sla_minutes_missed: windows.as_ref().map(missed),
        }
    };
    let faults: Vec<FaultSummary> = record.faults.iter().map(fault).collect();
    let sum = |of: fn(&FaultSummary) -> u64| faults.iter().map(of).sum();
    AdversitySummary {
        retries: record.retries,
        ttft_timeouts: record.ttft_timeouts,
        timeouts: record.timeouts,
        transfer_timeouts: record.transfer_timeouts,
        shed: record.shed,
        wasted_tokens: record.wasted_tokens,
        migrated: sum(|it| it.migrated),
        lost: sum(|it| it.lost),
        recomputed_tokens: sum(|it| it.recomputed_tokens),
        faults,
    }
}

fn prefix_reuse(counted: &[&RequestRecord], workers: &[WorkerRecord]) -> PrefixReuse {
    let (mut admitted, mut with_hit, mut prompt, mut cached) = (0u64, 0u64, 0u64, 0u64);
    let (mut placed_prompt, mut overlap) = (0u64, 0u64);
    for request in counted {
        if request.first_scheduled != Time::MAX {
            admitted += 1;
            with_hit += u64::from(request.cached_tokens > 0);
            prompt += u64::from(request.input_tokens);
            cached += u64::from(request.cached_tokens);
        }
        if request.placed != Time::MAX {
            placed_prompt += u64::from(request.input_tokens);
            overlap += u64::from(request.router_overlap_tokens);
        }
    }
    let admitted_tokens: u64 = workers.iter().map(|worker| worker.admitted_tokens).sum();
    let hit_tokens: u64 = workers.iter().map(|worker| worker.hit_tokens).sum();
    PrefixReuse {
        first_admission_share: share(cached as f64, prompt as f64),
        all_admissions_share: share(hit_tokens as f64, admitted_tokens as f64),
        router_overlap_share: share(overlap as f64, placed_prompt as f64),
        requests_with_hit_share: share(with_hit as f64, admitted as f64),
    }
}

fn extrapolated_share(workers: &[WorkerRecord]) -> f64 {
    let extrapolated: u64 = workers.iter().map(|worker| worker.extrapolated.0).sum();
    let busy: u64 = workers.iter().map(|worker| worker.busy.0).sum();
    share(extrapolated as f64, busy as f64)
}

/// What the handovers of a run took; `None` if there were none.
fn transfers(recording: &Recording) -> Option<Transfers> {
    let ended = || {
        let all = recording.transfers.iter();
        all.filter(|transfer| transfer.ended != Time::MAX)
    };
    let count = ended().count() as u64;
    let prompt =
        |transfer: &TransferRecord| u64::from(recording.request(transfer.request).input_tokens);
    let hits: u64 = ended().map(|transfer| u64::from(transfer.hit_tokens)).sum();
    let tokens: u64 = ended().map(prompt).sum();
    (count > 0).then(|| Transfers {
        count,
        failed: ended().filter(|transfer| transfer.has_failed).count() as u64,
        bytes: ended().map(|transfer| transfer.bytes).sum(),
        hit_share: hits as f64 / tokens as f64,
        wait_ms: spans_in_ms(ended().map(|it| it.reserved.since(it.prefilled))),
        transfer_ms: spans_in_ms(ended().map(|it| it.ended.since(it.began))),
        exposed_ms: spans_in_ms(ended().map(|it| it.ended.since(it.prefilled))),
    })
}

/// What the links of each kind that there is carried.
fn network(links: &[LinkUse], run: Span) -> BTreeMap<&'static str, LinksUse> {
    let of = |kind: LinkKind| {
        let all = || links.iter().filter(move |link| link.kind == kind);
        let could = |link: &LinkUse| link.bytes_per_s as f64 * run.0 as f64 / PS_PER_S;
        let used = |link: &LinkUse| share(link.record.bytes as f64, could(link));
        let bytes = all().map(|link| link.record.bytes).sum::<u64>();
        let links = all().count() as u64;
        let use_of_kind = LinksUse {
            links,
            bytes,
            utilisation: share(bytes as f64, all().map(could).sum()),
            busiest_utilisation: all().map(used).fold(0.0, f64::max),
            busiest_share: all()
                .map(|link| share(link.record.busy.0 as f64, run.0 as f64))
                .fold(0.0, f64::max),
        };
        (links > 0).then_some((kind.name(), use_of_kind))
    };
    LinkKind::ALL.into_iter().filter_map(of).collect()
}

/// What drafts brought; `None` if no sequence could have any.
fn speculation(workers: &[WorkerRecord]) -> Option<SpeculationSummary> {
    let sum = |of: fn(&WorkerRecord) -> u64| workers.iter().map(of).sum::<u64>();
    let steps = sum(|worker| worker.drafted.verifications);
    let drafts = sum(|worker| worker.drafted.drafts);
    let accepted = sum(|worker| worker.drafted.accepted);
    (steps > 0).then(|| SpeculationSummary {
        draft_tokens: drafts,
        accepted_tokens: accepted,
        acceptance_rate: share(accepted as f64, drafts as f64),
        acceptance_length: 1.0 + accepted as f64 / steps as f64,
    })
}

fn kvbm_use(kvbm: &KvbmRecord, workers: &[WorkerRecord]) -> KvbmUse {
    let with_tiers = || {
        let all = workers.iter().zip(&kvbm.workers);
        all.filter(|(_, has_tiers)| **has_tiers)
            .map(|(worker, _)| worker)
    };
    let admitted: u64 = with_tiers().map(|worker| worker.admitted_tokens).sum();
    let admissions: u64 = with_tiers().map(|worker| worker.admissions).sum();
    let hits: u64 = with_tiers().map(|worker| worker.hit_tokens).sum();
    let mut missing = admitted - hits;
    let mut tier = |medium: usize| {
        let mut tiers = kvbm
            .tiers
            .iter()
            .filter(|tier| tier.medium == medium)
            .peekable();
        tiers.peek()?;
        let mut all = TierRecord::default();
        let mut peak_share = 0.0_f64;
        for tier in tiers {
            all = all.plus(tier);
            peak_share =
                peak_share.max(share(tier.peak_blocks as f64, tier.capacity_blocks as f64));
        }
        let taken = kvbm.fetches.iter().map(|fetch| fetch.tokens[medium]);
        let requests = taken.clone().filter(|&tokens| tokens > 0).count();
        let tokens: u64 = taken.map(u64::from).sum();
        let missed = missing;
        missing = missing.saturating_sub(tokens);
        Some(TierUse {
            capacity_blocks: all.capacity_blocks,
            peak_share,
            token_share: share(tokens as f64, admitted as f64),
            hit_share: share(tokens as f64, missed as f64),
            request_share: share(requests as f64, admissions as f64),
            onboarded_blocks: all.onboarded_blocks,
            onboarded_bytes: all.onboarded_bytes,
            offloaded_blocks: all.offloaded_blocks,
            offloaded_bytes: all.offloaded_bytes,
            prefetched_blocks: all.prefetched_blocks,
            prefetched_bytes: all.prefetched_bytes,
            evicted_blocks: all.evicted_blocks,
            filtered_blocks: all.filtered_blocks,
            dropped_blocks: all.dropped_blocks,
        })
    };
    let (host, disk, object) = (tier(0), tier(1), tier(2));
    KvbmUse {
        onboardings: kvbm.fetches.len() as u64,
        onboard_ms: spans_in_ms(kvbm.fetches.iter().map(|it| it.ended.since(it.began))),
        host,
        disk,
        object,
    }
}

/// `served`: by worker, for how long there was one.
fn kv_use(workers: &[WorkerRecord], served: &[Span]) -> KvUse {
    let held: u128 = workers.iter().map(|worker| worker.held_token_ps).sum();
    let capacity: u128 = workers
        .iter()
        .zip(served)
        .map(|(worker, served)| {
            u128::from(worker.kv_blocks) * u128::from(worker.block_size) * u128::from(served.0)
        })
        .sum();
    // Model: a run that stops with work in flight may have held tokens after the last recorded moment; capped at 1.
    let mean_share = share(held as f64, capacity as f64).min(1.0);
    KvUse {
        peak_share: workers.iter().map(peak_share).fold(0.0, f64::max),
        mean_share,
    }
}

fn peak_share(worker: &WorkerRecord) -> f64 {
    share(worker.peak_blocks as f64, worker.kv_blocks as f64)
}

fn worker_summary(
    index: u32,
    worker: &WorkerRecord,
    pool_names: &[String],
    served: Span,
) -> WorkerSummary {
    WorkerSummary {
        worker: index,
        pool: pool_names
            .get(worker.pool as usize)
            .expect("every pool has a name")
            .clone(),
        requests: worker.requests,
        steps: worker.steps,
        // Model: capped for the same reason as the mean KV share.
        utilisation: share(worker.busy.0 as f64, served.0 as f64).min(1.0),
        prefill_tokens: worker.prefill_tokens,
        decode_tokens: worker.decode_tokens,
        preemptions: worker.preemptions,
        kv_peak_share: peak_share(worker),
    }
}
