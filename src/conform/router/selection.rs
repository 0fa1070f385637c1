//! Cases of kind `selection`: costs, probabilities and the outcome of one choice.

use super::{Comparison, differ, read};
use serde::Deserialize;
use serde_json::Value;
use sim::router::cost::{CostWeights, Demand, Overlap, RankLoad, cost, taint_multiplier};
use sim::router::selection::{Eligibility, SelectionError, eligible, probabilities};
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    block_size: u32,
    worker_type: String,
    router_config: ConfigLine,
    workers: Vec<WorkerLine>,
    request: RequestLine,
    draws: u64,
}

/// Settings as cases write them; the others have their defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigLine {
    overlap_score_credit: Option<f64>,
    overlap_score_credit_decay: Option<f64>,
    overlap_score_weight: Option<f64>,
    prefill_load_scale: Option<f64>,
    decode_active_request_weight: Option<f64>,
    host_cache_hit_weight: Option<f64>,
    disk_cache_hit_weight: Option<f64>,
    shared_cache_type: Option<String>,
    shared_cache_multiplier: Option<f64>,
    router_temperature: Option<f64>,
    #[serde(alias = "track_prefill_tokens")]
    router_track_prefill_tokens: Option<bool>,
    pub router_queue_threshold: Option<f64>,
    pub router_queue_policy: Option<String>,
}

impl ConfigLine {
    /// Writes what is set over `weights`.
    pub fn over(&self, weights: CostWeights) -> CostWeights {
        let weights = self
            .overlap_score_weight
            .map_or(weights, |w| weights.with_overlap_score_weight(w));
        let default_multiplier = match self.shared_cache_type.as_deref() {
            Some("hicache") => 0.5,
            _ => weights.shared_cache_multiplier,
        };
        CostWeights {
            overlap_score_credit: self
                .overlap_score_credit
                .unwrap_or(weights.overlap_score_credit),
            overlap_score_credit_decay: self
                .overlap_score_credit_decay
                .unwrap_or(weights.overlap_score_credit_decay),
            prefill_load_scale: self
                .prefill_load_scale
                .unwrap_or(weights.prefill_load_scale),
            decode_active_request_weight: self
                .decode_active_request_weight
                .unwrap_or(weights.decode_active_request_weight),
            host_cache_hit_weight: self
                .host_cache_hit_weight
                .unwrap_or(weights.host_cache_hit_weight),
            disk_cache_hit_weight: self
                .disk_cache_hit_weight
                .unwrap_or(weights.disk_cache_hit_weight),
            shared_cache_multiplier: self.shared_cache_multiplier.unwrap_or(default_multiplier),
            track_prefill_tokens: self
                .router_track_prefill_tokens
                .unwrap_or(weights.track_prefill_tokens),
            is_decode_router: weights.is_decode_router,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerLine {
    worker: u64,
    ranks: Vec<RankLine>,
    #[serde(default)]
    taints: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RankLine {
    dp: u32,
    device_blocks: u32,
    host_blocks: u32,
    disk_blocks: u32,
    external_blocks: u32,
    load: Option<LoadLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadLine {
    active_prefill_tokens: u64,
    active_decode_blocks: u64,
    active_requests: u64,
    additional_active_blocks: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    isl_tokens: u64,
    #[serde(default)]
    token_seq_blocks: u64,
    #[serde(default)]
    preferred_taints: BTreeMap<String, f64>,
    #[serde(default)]
    required_taints: Vec<String>,
    #[serde(default)]
    overloaded_workers: Vec<u64>,
    #[serde(default)]
    shared_ranges: Vec<(u32, u32)>,
    pinned: Option<Pin>,
    #[serde(default, rename = "override")]
    config: ConfigLine,
}

#[derive(Deserialize)]
pub struct Pin {
    pub worker: u64,
    pub dp: u32,
}

#[derive(Deserialize)]
struct Expected {
    costs: Vec<CostLine>,
    effective_overlap: Vec<OverlapLine>,
    #[serde(default)]
    probabilities: Vec<ChanceLine>,
    chosen_counts: Vec<CountLine>,
    draws: u64,
    error: Option<String>,
    result_of_first_draw: Option<Chosen>,
}

#[derive(Debug, Clone, Deserialize)]
struct CostLine {
    worker: u64,
    dp: u32,
    logit: f64,
    taint_multiplier: f64,
    cost: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct OverlapLine {
    worker: u64,
    dp: u32,
    blocks: f64,
    cached_tokens: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct ChanceLine {
    worker: u64,
    dp: u32,
    p: f64,
}

#[derive(Deserialize)]
struct CountLine {
    worker: u64,
    dp: u32,
    n: u64,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    worker: u64,
    dp: u32,
    cached_tokens: u64,
    effective_overlap_blocks: f64,
    max_raw_cached_tokens: u64,
    selected_raw_cached_tokens: u64,
    potential_decode_blocks: u64,
    required_blocks: u64,
}

/// A rank of a worker, as the choice sees it.
struct RankView<'a> {
    worker: &'a WorkerLine,
    dp: u32,
    overlap: Overlap,
    load: Option<RankLoad>,
}

pub fn compare(input: Value, expected: Value) -> Result<Comparison, String> {
    let (input, expected): (Input, Expected) = (read("input", input)?, read("expected", expected)?);
    let weights = CostWeights {
        is_decode_router: input.worker_type == "decode",
        ..input.router_config.over(CostWeights::default())
    };
    let choice = Choice::new(&input, input.request.config.over(weights));
    let temperature = input
        .request
        .config
        .router_temperature
        .or(input.router_config.router_temperature);
    let compared =
        expected.costs.len() + expected.effective_overlap.len() + expected.probabilities.len() + 1;
    Ok((
        compared as u64,
        choice.difference(temperature.unwrap_or(0.0), &expected, input.draws),
    ))
}

struct Choice<'a> {
    input: &'a Input,
    weights: CostWeights,
    demand: Demand,
    ranks: Vec<RankView<'a>>,
}

impl<'a> Choice<'a> {
    fn new(input: &'a Input, weights: CostWeights) -> Self {
        let view = |worker: &'a WorkerLine, rank: &RankLine| RankView {
            worker,
            dp: rank.dp,
            overlap: Overlap {
                device: rank.device_blocks,
                host: rank.host_blocks,
                disk: rank.disk_blocks + rank.external_blocks,
                shared: shared_beyond(&input.request.shared_ranges, rank.device_blocks),
            },
            load: rank.load.as_ref().map(|load| RankLoad {
                active_prefill_tokens: load.active_prefill_tokens,
                active_decode_blocks: load.active_decode_blocks,
                active_requests: load.active_requests,
                additional_active_blocks: load.additional_active_blocks,
            }),
        };
        let ranks = input.workers.iter();
        let ranks =
            ranks.flat_map(|worker| worker.ranks.iter().map(move |rank| view(worker, rank)));
        let demand = Demand {
            prompt_tokens: input.request.isl_tokens,
            block_size: input.block_size,
        };
        Choice {
            input,
            weights,
            demand,
            ranks: ranks.collect(),
        }
    }

    fn candidates(&self) -> Result<Vec<usize>, SelectionError> {
        let request = &self.input.request;
        let view = |rank: &RankView<'_>| Eligibility {
            is_allowed: request
                .required_taints
                .iter()
                .all(|taint| rank.worker.taints.contains(taint)),
            is_overloaded: request.overloaded_workers.contains(&rank.worker.worker),
            is_pin: request
                .pinned
                .as_ref()
                .map(|pin| (pin.worker, pin.dp) == (rank.worker.worker, rank.dp)),
        };
        eligible(&self.ranks.iter().map(view).collect::<Vec<_>>())
    }

    /// Logit, multiplier and cost of each candidate.
    fn costs(&self, candidates: &[usize]) -> Vec<CostLine> {
        let prefill = |&at: &usize| {
            self.ranks[at]
                .load
                .map_or(0, |load| load.active_prefill_tokens)
        };
        let least = candidates.iter().map(prefill).min().unwrap_or(0);
        let request = &self.input.request;
        let line = |&at: &usize| {
            let rank = &self.ranks[at];
            let logit = cost(
                &self.weights,
                &self.demand,
                &rank.overlap,
                rank.load.as_ref(),
                least,
            );
            let taints = rank
                .worker
                .taints
                .iter()
                .filter_map(|taint| request.preferred_taints.get(taint));
            let multiplier = if request.pinned.is_some() {
                1.0
            } else {
                taint_multiplier(taints.sum())
            };
            CostLine {
                worker: rank.worker.worker,
                dp: rank.dp,
                logit,
                taint_multiplier: multiplier,
                cost: logit * multiplier,
            }
        };
        candidates.iter().map(line).collect()
    }

    fn overlaps(&self) -> Vec<OverlapLine> {
        let line = |rank: &RankView<'_>| OverlapLine {
            worker: rank.worker.worker,
            dp: rank.dp,
            blocks: rank.overlap.effective(&self.weights),
            cached_tokens: rank
                .overlap
                .cached_tokens(&self.weights, self.input.block_size),
        };
        let mut lines: Vec<_> = self
            .ranks
            .iter()
            .map(line)
            .filter(|line| line.blocks > 0.0)
            .collect();
        lines.sort_by_key(|line| (line.worker, line.dp));
        lines
    }

    fn chosen(&self, candidates: &[usize], at: usize) -> Chosen {
        let rank = &self.ranks[at];
        let tokens = |blocks: u32| u64::from(blocks) * u64::from(self.input.block_size);
        let raw = candidates
            .iter()
            .map(|&at| tokens(self.ranks[at].overlap.raw()));
        let blocks = rank.load.map_or(0, |load| load.decode_blocks());
        Chosen {
            worker: rank.worker.worker,
            dp: rank.dp,
            cached_tokens: rank
                .overlap
                .cached_tokens(&self.weights, self.input.block_size),
            effective_overlap_blocks: rank.overlap.effective(&self.weights),
            max_raw_cached_tokens: raw.max().unwrap_or(0),
            selected_raw_cached_tokens: tokens(rank.overlap.raw()),
            potential_decode_blocks: blocks + self.demand.blocks()
                - self.input.request.token_seq_blocks,
            required_blocks: self.demand.blocks(),
        }
    }

    fn difference(&self, temperature: f64, expected: &Expected, draws: u64) -> Option<String> {
        let mut overlaps = expected.effective_overlap.clone();
        overlaps.sort_by_key(|line| (line.worker, line.dp));
        let overlap_difference = differ("effective_overlap", &overlaps, &self.overlaps());
        let candidates = match self.candidates() {
            Ok(candidates) => candidates,
            Err(error) => {
                let error = differ("error", &expected.error, &Some(format!("{error:?}")));
                return overlap_difference.or(error);
            }
        };
        let costs = self.costs(&candidates);
        let mut chances = Vec::new();
        probabilities(
            &costs.iter().map(|line| line.cost).collect::<Vec<_>>(),
            temperature,
            &mut chances,
        );
        let certain = chances.iter().position(|&chance| chance == 1.0);
        let chosen = certain.map(|at| self.chosen(&candidates, candidates[at]));
        let is_known = expected.result_of_first_draw.is_some();
        let chances: Vec<ChanceLine> = costs
            .iter()
            .zip(chances)
            .filter(|(_, p)| *p > 0.0)
            .map(|(line, p)| ChanceLine {
                worker: line.worker,
                dp: line.dp,
                p,
            })
            .collect();
        overlap_difference
            .or_else(|| differ("error", &expected.error, &None))
            .or_else(|| costs_differ(&expected.costs, &costs))
            .or_else(|| chances_differ(&expected.probabilities, &chances))
            .or_else(|| counts_differ(&expected.chosen_counts, &chances, expected.draws.max(draws)))
            .or_else(|| {
                is_known.then(|| {
                    differ(
                        "result_of_first_draw",
                        &expected.result_of_first_draw,
                        &chosen,
                    )
                })?
            })
    }
}

/// Blocks of sorted ranges at positions from `device` on.
fn shared_beyond(ranges: &[(u32, u32)], device: u32) -> u32 {
    ranges
        .iter()
        .map(|&(lo, hi)| hi.saturating_sub(lo.max(device)))
        .sum()
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

fn costs_differ(recorded: &[CostLine], ours: &[CostLine]) -> Option<String> {
    let sorted = |lines: &[CostLine]| {
        let mut lines = lines.to_vec();
        lines.sort_by_key(|line| (line.worker, line.dp));
        lines
    };
    let (recorded, ours) = (sorted(recorded), sorted(ours));
    let is_equal = |(a, b): (&CostLine, &CostLine)| {
        (a.worker, a.dp) == (b.worker, b.dp)
            && is_close(a.logit, b.logit)
            && is_close(a.taint_multiplier, b.taint_multiplier)
            && is_close(a.cost, b.cost)
    };
    let equal = recorded.len() == ours.len() && recorded.iter().zip(&ours).all(is_equal);
    (!equal).then(|| format!("costs\n    recorded  {recorded:?}\n    dynosim   {ours:?}"))
}

fn chances_differ(recorded: &[ChanceLine], ours: &[ChanceLine]) -> Option<String> {
    let sorted = |lines: &[ChanceLine]| {
        let mut lines = lines.to_vec();
        lines.sort_by_key(|line| (line.worker, line.dp));
        lines
    };
    let (recorded, ours) = (sorted(recorded), sorted(ours));
    let is_equal = |(a, b): (&ChanceLine, &ChanceLine)| {
        (a.worker, a.dp) == (b.worker, b.dp) && is_close(a.p, b.p)
    };
    let equal = recorded.len() == ours.len() && recorded.iter().zip(&ours).all(is_equal);
    (!equal).then(|| format!("probabilities\n    recorded  {recorded:?}\n    dynosim   {ours:?}"))
}

/// What the real router drew must be likely under our probabilities: within five standard deviations.
fn counts_differ(recorded: &[CountLine], ours: &[ChanceLine], draws: u64) -> Option<String> {
    let chance = |line: &CountLine| {
        let own = ours
            .iter()
            .find(|chance| (chance.worker, chance.dp) == (line.worker, line.dp));
        own.map_or(0.0, |chance| chance.p)
    };
    recorded.iter().find_map(|line| {
        let p = chance(line);
        let deviation = (draws as f64 * p * (1.0 - p)).sqrt();
        let expected = draws as f64 * p;
        let is_likely = (line.n as f64 - expected).abs() <= 5.0 * deviation;
        (!is_likely).then(|| {
            let CountLine { worker, dp, n } = line;
            format!("chosen_counts of worker {worker} rank {dp}\n    recorded  {n} of {draws}\n    dynosim   {expected} expected")
        })
    })
}
