//! `disaggregation`: which requests are handed from pools that prefill to pools that decode, and in what order.

use super::network;
use super::pools::SECTION as POOLS;
use super::section::Section;
use engine::Span;
use sim::disaggregation::conditional::IslBounding;
use sim::disaggregation::{Conditional, DisaggregationSpec, HandoffOrder};
use sim::links::NetworkSpec;
use sim::{Role as Part, RouterSpec};
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
        Some(pools) if has_parts(Some(pools)) => both_roles(root, pools)
            .and_then(|roles| disaggregated(root, &disaggregation, pools, roles, router))
            .zip(network::read(root, &links, pools))
            .map(|(spec, network)| DisaggregationSpec { network, ..spec }),
        Some(_) => {
            for name in ["network", "disaggregation"] {
                if root.has(name) {
                    root.conflict(
                        name,
                        "a section that nothing uses",
                        "pools of role prefill and of role decode beside it",
                        "",
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
        }
        order(&disaggregation);
        rule(&disaggregation);
        numbers(&disaggregation);
    }
    links.finish();
    disaggregation.finish();
    spec
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
    if pools
        .iter()
        .any(|pool| pool.spec().engine.as_vllm().is_none())
    {
        return complain(
            "a backend other than vllm in pools of role prefill or decode",
            "engine.backend vllm: how others hand over is not modelled yet",
        );
    }
    if !pools.iter().all(|pool| pool.engine.does_parts()) {
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
    let order = order(section);
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
        order: order.unwrap_or(HandoffOrder::SourceFirst),
        conditional,
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

fn order(section: &Section<'_>) -> Option<HandoffOrder> {
    section
        .has("order")
        .then(|| section.choice("order", &ORDERS))?
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
