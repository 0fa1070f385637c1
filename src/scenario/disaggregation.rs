//! `disaggregation`: which requests are handed from pools that prefill to pools that decode, and in what order.

use super::network;
use super::pools::SECTION as POOLS;
use super::section::Section;
use super::topology;
use engine::Span;
use sim::disaggregation::conditional::IslBounding;
use sim::disaggregation::{
    Conditional, DisaggregationSpec, DomainPolicy, Enforcement, HandoffOrder, Overlap,
};
use sim::links::NetworkSpec;
use sim::links::topology::Domain;
use sim::{Role as Part, RouterSpec};
use sweeps::planner::PlannerSpec;
use sweeps::scenario::{Pool, Role};

const ORDERS: [(&str, HandoffOrder); 3] = [
    ("source-first", HandoffOrder::SourceFirst),
    ("decode-first", HandoffOrder::DecodeFirst),
    ("destination-first", HandoffOrder::DestinationFirst),
];

/// Rules of conditional disaggregation, before their bounds.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    IslBounding,
    PrefillLoad,
    IslOrLoad,
    NonCached,
}

const RULES: [(&str, Rule); 4] = [
    ("isl-bounding", Rule::IslBounding),
    ("prefill-load", Rule::PrefillLoad),
    ("isl-or-load", Rule::IslOrLoad),
    ("non-cached", Rule::NonCached),
];

/// Prefill workers with more prompt tokens to compute than so many of their batches are busy, unless the scenario says.
const DEFAULT_PREFILL_LOAD: f64 = 2.0;

/// How the pools of a scenario work together; `None` where each worker does everything, and after a problem.
pub fn read(
    root: &Section<'_>,
    pools: Option<&[Pool]>,
    router: Option<&RouterSpec>,
    planner: Option<&PlannerSpec>,
) -> Option<DisaggregationSpec> {
    let (links, disaggregation) = (root.section("network"), root.section("disaggregation"));
    let spec = match pools {
        Some(_) if router == Some(&RouterSpec::Clairvoyant) && work_together(pools) => {
            root.conflict(
                "router",
                "mode clairvoyant before pools of role prefill and decode, or with ranks (parallel.dp)",
                "workers that do everything and do not feel each other: it tries all of them at once",
                "",
            );
            None
        }
        Some(pools) if has_parts(Some(pools)) => {
            let domain = domain(&disaggregation, router);
            if root.has("planner") && domain.is_some() {
                disaggregation.conflict(
                    "kv_transfer_domain",
                    "a domain beside a planner",
                    "none: who is near whom while workers come and go is not modelled",
                    "",
                );
            }
            let places = places(pools, planner);
            both_roles(root, pools)
                .and_then(|roles| disaggregated(root, &disaggregation, pools, roles, router))
                .zip(network::read(root, &links, pools, &places, domain.as_ref()))
                .map(|(spec, (network, topology))| DisaggregationSpec {
                    network,
                    topology,
                    domain: domain.map(|domain| domain.policy),
                    ..spec
                })
        }
        Some(_) => {
            // Where the planner has problems they come first.
            let sends_weights = planner.map_or(root.has("planner"), |it| it.weights.is_some());
            for name in ["network", "disaggregation"] {
                if root.has(name) && !(sends_weights && name == "network") {
                    root.conflict(
                        name,
                        "a section that nothing uses",
                        "pools of role prefill and of role decode beside it",
                        if name == "network" {
                            "a planner's workers use one with lifecycle.stream_weights"
                        } else {
                            ""
                        },
                    );
                }
            }
            None
        }
        None => None,
    };
    // What is written is judged even if nothing uses it.
    if spec.is_none() {
        if root.has("network") {
            network::speed(&links);
            let wiring = links.section(topology::SECTION);
            if links.has(topology::SECTION) {
                topology::judge(&wiring);
            }
            wiring.finish();
        }
        order(&disaggregation);
        domain(&disaggregation, None);
        overlap_kind(&disaggregation);
        rule(&disaggregation);
        numbers(&disaggregation);
    }
    links.finish();
    disaggregation.finish();
    spec
}

/// The pools with all workers that there may be.
pub fn places(pools: &[Pool], planner: Option<&PlannerSpec>) -> Vec<Pool> {
    let places = planner.and_then(|planner| planner.places(pools));
    let mut pools = pools.to_vec();
    for (pool, places) in pools.iter_mut().zip(places.into_iter().flatten()) {
        pool.workers = places;
    }
    pools
}

/// Whether some pool does a part of each request only.
fn has_parts(pools: Option<&[Pool]>) -> bool {
    let mut pools = pools.into_iter().flatten();
    pools.any(|pool| pool.role != Role::Aggregated)
}

/// Whether schedulers depend on each other: parts of a request on different workers, or ranks that step together.
fn work_together(pools: Option<&[Pool]>) -> bool {
    has_parts(pools)
        || pools
            .into_iter()
            .flatten()
            .any(|pool| pool.parallel.data > 1)
}

/// By pool, what its workers do.
fn both_roles(root: &Section<'_>, pools: &[Pool]) -> Option<Vec<Part>> {
    let has = |role: Role| pools.iter().any(|pool| pool.role == role);
    let complain = |found: &str, expected: &str| {
        root.conflict(POOLS, found, expected, "");
        None
    };
    if has(Role::Aggregated) {
        return complain(
            "pools of role aggregated beside others",
            "either aggregated pools, or prefill and decode pools: both at once are not modelled yet",
        );
    }
    if !has(Role::Decode) {
        return complain("prefill pools alone", "a pool of role decode that goes on");
    }
    if !has(Role::Prefill) {
        return complain("decode pools alone", "a pool of role prefill before them");
    }
    let backend = pools[0].engine.backend();
    if pools.iter().any(|pool| pool.engine.backend() != backend) {
        return complain(
            "different backends in pools of role prefill and decode",
            "one engine.backend for all: they do not hand KV to each other",
        );
    }
    if !matches!(backend, "vllm" | "sglang") {
        return complain(
            "a backend other than vllm and sglang in pools of role prefill or decode",
            "engine.backend vllm or sglang: how others hand over is not modelled yet",
        );
    }
    if !pools.iter().all(|pool| pool.engine.hands_over()) {
        return complain(
            "stages, ranks or drafts in pools of role prefill or decode",
            "pp and dp of 1 and no speculative_config: how they hand over is not modelled yet",
        );
    }
    let part = |pool: &Pool| match pool.role {
        Role::Prefill => Part::Prefill,
        Role::Decode | Role::Aggregated => Part::Decode,
    };
    Some(pools.iter().map(part).collect())
}

/// The section `disaggregation`, with a network still to be filled in.
fn disaggregated(
    root: &Section<'_>,
    section: &Section<'_>,
    pools: &[Pool],
    roles: Vec<Part>,
    router: Option<&RouterSpec>,
) -> Option<DisaggregationSpec> {
    let is_sglang = pools[0].engine.as_sglang().is_some();
    let order = order(section).unwrap_or(match is_sglang {
        true => HandoffOrder::DestinationFirst,
        false => HandoffOrder::SourceFirst,
    });
    if is_sglang && !check_sglang(section, order) {
        return None;
    }
    let overlap = overlap(section, order, pools);
    let rule = rule(section);
    let numbers = numbers(section);
    let asks_for_caches =
        |(rule, _): &&(Rule, String)| matches!(rule, Rule::IslBounding | Rule::IslOrLoad);
    let knows_caches = router.is_none_or(|router| matches!(router, RouterSpec::Kv(_)));
    if let Some((_, name)) = rule.as_ref().filter(asks_for_caches)
        && !knows_caches
    {
        section.conflict(
            "conditional",
            format!("{name} with a router that knows nothing of caches"),
            "router.mode kv, which says what a decode worker has cached",
            "",
        );
        return None;
    }
    let kv_bytes_per_token = kv_bytes_per_token(root, section, pools);
    let bounds = IslBounding {
        max_tokens: numbers.max_local_tokens,
        max_ratio: numbers.max_local_ratio,
    };
    let conditional = rule.map(|(rule, _)| match rule {
        Rule::IslBounding => Conditional::IslBounding(bounds),
        Rule::PrefillLoad => Conditional::PrefillLoad {
            threshold: numbers.prefill_load_threshold,
        },
        Rule::IslOrLoad => Conditional::IslOrLoad(bounds, numbers.prefill_load_threshold),
        Rule::NonCached => Conditional::NonCached {
            max_tokens: bounds.max_tokens,
        },
    });
    Some(DisaggregationSpec {
        roles,
        order,
        conditional,
        overlap: overlap?,
        topology: None,
        domain: None,
        network: NetworkSpec {
            bytes_per_s: 1,
            per_gpu: false,
            core_bytes_per_s: None,
            latency: Span::ZERO,
            setup: Span::ZERO,
        },
        kv_bytes_per_token: kv_bytes_per_token?,
        failure_rate: numbers.transfer_failure_rate,
    })
}

/// What SGLang's two servers do not do.
fn check_sglang(section: &Section<'_>, order: HandoffOrder) -> bool {
    let mut is_fine = order == HandoffOrder::DestinationFirst;
    if !is_fine {
        let expected =
            "destination-first: SGLang's decode server has memory before the prefill begins";
        section.conflict("order", "another order than SGLang's", expected, "");
    }
    let mut refuse = |name, found: &str, expected: &str| {
        if section.has(name) {
            section.conflict(name, found, expected, "remove it");
            is_fine = false;
        }
    };
    refuse(
        "conditional",
        "requests that stay whole on an SGLang decode server",
        "none: such a server computes no prompts",
    );
    refuse(
        "transfer_failure_rate",
        "transfers that fail between SGLang servers",
        "none: SGLang gives such requests up, which is not modelled yet",
    );
    is_fine
}

fn order(section: &Section<'_>) -> Option<HandoffOrder> {
    section
        .has("order")
        .then(|| section.choice("order", &ORDERS))?
}

/// What moves while the rest is computed, before the number of layers is known.
#[derive(Clone, Copy, PartialEq)]
enum OverlapKind {
    None,
    Chunk,
    Layer,
}

fn overlap_kind(section: &Section<'_>) -> Option<OverlapKind> {
    const KINDS: [(&str, OverlapKind); 3] = [
        ("none", OverlapKind::None),
        ("chunk", OverlapKind::Chunk),
        ("layer", OverlapKind::Layer),
    ];
    section.whole32("layers", 2..=10_000);
    section
        .has("overlap")
        .then(|| section.choice("overlap", &KINDS))?
}

/// What moves while the rest is computed: by default what is possible between steps.
fn overlap(section: &Section<'_>, order: HandoffOrder, pools: &[Pool]) -> Option<Overlap> {
    let kind = overlap_kind(section);
    let reserves_first = order == HandoffOrder::DestinationFirst;
    if kind.is_some_and(|kind| kind != OverlapKind::None) && !reserves_first {
        section.conflict(
            "overlap",
            "a transfer during the prefill to blocks that are reserved after it",
            "overlap: none, or order: destination-first, which reserves them before",
            "",
        );
        return None;
    }
    if kind != Some(OverlapKind::Layer) && section.has("layers") {
        section.conflict(
            "layers",
            "layers that do not move one by one",
            "overlap: layer",
            "",
        );
    }
    match kind {
        Some(OverlapKind::None) => Some(Overlap::None),
        Some(OverlapKind::Chunk) | None => Some(Overlap::Chunk),
        Some(OverlapKind::Layer) => {
            let of_model = pools.iter().find_map(|pool| pool.model.as_ref());
            let written = section.whole32("layers", 2..=10_000);
            let layers = written.or(of_model.map(|model| model.layers));
            if layers.is_none() && !section.has("layers") {
                section.mistake(
                    "layers",
                    "nothing",
                    "how many layers there are, or a model",
                    "",
                );
            }
            layers.map(Overlap::Layer)
        }
    }
}

/// `kv_transfer_*`: where the second worker of a request is looked for.
pub struct DomainFields<'a> {
    /// As the cluster wants it.
    pub policy: DomainPolicy,
    /// Where it is written.
    pub section: &'a Section<'a>,
}

/// Dynamo's `DYN_KV_TRANSFER_DOMAIN`, `_ENFORCEMENT` and `_PREFERRED_WEIGHT`.
fn domain<'a>(section: &'a Section<'a>, router: Option<&RouterSpec>) -> Option<DomainFields<'a>> {
    let domains = [Domain::Host, Domain::Rack, Domain::Zone].map(|domain| (domain.name(), domain));
    let (enforcement, preferred) = ("kv_transfer_enforcement", "kv_transfer_preferred_weight");
    let kinds = [("required", false), ("preferred", true)];
    let is_preferred = match section.has(enforcement) {
        true => section.choice(enforcement, &kinds)?,
        false => false,
    };
    let weight = section.number(preferred, 0.0..=1.0);
    if !section.has("kv_transfer_domain") {
        for name in [enforcement, preferred] {
            if section.has(name) {
                section.conflict(
                    name,
                    "no domain to keep to",
                    "kv_transfer_domain beside it",
                    "",
                );
            }
        }
        return None;
    }
    let domain = section.choice("kv_transfer_domain", &domains)?;
    let enforcement = match (is_preferred, weight) {
        (false, _) => {
            if section.has(preferred) {
                let expected = "kv_transfer_enforcement: preferred beside it";
                section.conflict(preferred, "a weight of what is required", expected, "");
            }
            Enforcement::Required
        }
        (true, Some(weight)) => Enforcement::Preferred(weight),
        (true, None) => {
            if !section.has(preferred) {
                let expected = "the weight of workers nearby, 0 to 1";
                section.mistake(preferred, "nothing", expected, "for example 0.85");
            }
            return None;
        }
    };
    let has_costs = router.is_none_or(|router| matches!(router, RouterSpec::Kv(_)));
    if is_preferred && !has_costs {
        section.conflict(
            "kv_transfer_enforcement",
            "preferred with a router that has no costs",
            "router.mode kv, whose cost the preference lowers, or required",
            "",
        );
        return None;
    }
    Some(DomainFields {
        policy: DomainPolicy {
            domain,
            enforcement,
        },
        section,
    })
}

/// The rule and its name as written.
fn rule(section: &Section<'_>) -> Option<(Rule, String)> {
    let (name, _) = section.text("conditional")?;
    Some((section.choice("conditional", &RULES)?, name))
}

struct Numbers {
    max_local_tokens: u32,
    max_local_ratio: f64,
    prefill_load_threshold: f64,
    transfer_failure_rate: f64,
}

fn numbers(section: &Section<'_>) -> Numbers {
    let default = IslBounding::default();
    let tokens = section.whole32("max_local_tokens", 1..=1 << 30);
    let ratio = section.number("max_local_ratio", 0.0..=1.0);
    let threshold = section.number("prefill_load_threshold", 0.0..=1e6);
    let failures = section.number("transfer_failure_rate", 0.0..=1.0);
    let rule = section
        .text("conditional")
        .map(|(name, _)| name.to_lowercase());
    let uses = |word: &str| rule.as_ref().is_some_and(|rule| rule.contains(word));
    let unused = |name: &'static str, expected: &str| {
        if section.has(name) {
            section.conflict(name, "a bound that no rule looks at", expected, "");
        }
    };
    if !uses("isl") && !uses("non") {
        unused(
            "max_local_tokens",
            "conditional: isl-bounding, isl-or-load or non-cached",
        );
    }
    if !uses("isl") {
        unused(
            "max_local_ratio",
            "conditional: isl-bounding or isl-or-load",
        );
    }
    if !uses("load") {
        unused(
            "prefill_load_threshold",
            "conditional: prefill-load or isl-or-load",
        );
    }
    Numbers {
        max_local_tokens: tokens.unwrap_or(default.max_tokens),
        max_local_ratio: ratio.unwrap_or(default.max_ratio),
        prefill_load_threshold: threshold.unwrap_or(DEFAULT_PREFILL_LOAD),
        transfer_failure_rate: failures.unwrap_or(0.0),
    }
}

/// As written, or the model's; all pools have to store KV alike.
fn kv_bytes_per_token(root: &Section<'_>, section: &Section<'_>, pools: &[Pool]) -> Option<u64> {
    let of = |pool: &Pool| {
        let model = pool.model.as_ref();
        model.map(|model| model.kv_bytes_per_token(pool.kv_cache))
    };
    let sizes: Vec<u64> = pools.iter().filter_map(of).collect();
    if sizes.iter().any(|&size| size != sizes[0]) {
        root.conflict(
            POOLS,
            "KV caches of different models or precisions",
            "one model and one kv_cache_dtype for prefill and decode: KV is moved as it is",
            "",
        );
        return None;
    }
    if section.has("kv_bytes_per_token") {
        return section.whole("kv_bytes_per_token", 1..=1 << 40);
    }
    if sizes.is_empty() {
        section.mistake(
            "kv_bytes_per_token",
            "nothing",
            "the size of a token's KV, or a model from which it follows",
            "for example 131072, that of Llama-3.1-8B in 16 bits",
        );
    }
    sizes.first().copied()
}
