//! `router`: who gets which request.

use super::section::Section;
use super::{beside, policy_file};
use engine::Span;
use sim::RouterSpec;
use sim::router::cost::CostWeights;
use sim::router::policy_class::{PolicyProfile, QueueLimits, QueuePolicy};
use sim::router::replicas::ReplicaSpec;
use sim::router::{EventChannel, KvRouterSpec, PrefillLoadModel, Pruning, Retention};
use std::path::Path;
use std::sync::Arc;
use sweeps::scenario::Pool;

/// How to choose, before options.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    RoundRobin,
    Random,
    LeastLoaded,
    PowerOfTwo,
    DeviceAwareWeighted,
    SessionAffinity,
    Kv,
    Direct,
    Clairvoyant,
}

/// Names of modes; Dynamo's where it has them.
const MODES: [(&str, Mode); 9] = [
    ("round-robin", Mode::RoundRobin),
    ("random", Mode::Random),
    ("least-loaded", Mode::LeastLoaded),
    ("power-of-two", Mode::PowerOfTwo),
    ("device-aware-weighted", Mode::DeviceAwareWeighted),
    ("session-affinity", Mode::SessionAffinity),
    ("kv", Mode::Kv),
    ("direct", Mode::Direct),
    ("clairvoyant", Mode::Clairvoyant),
];

const QUEUE_POLICIES: [(&str, QueuePolicy); 3] = [
    ("fcfs", QueuePolicy::Fcfs),
    ("lcfs", QueuePolicy::Lcfs),
    ("wspt", QueuePolicy::Wspt),
];

const APPROXIMATE_POLICIES: [(&str, bool); 2] = [("ttl", false), ("lru", true)];

/// Share of the limit that pruning leaves.
const PRUNE_TARGET_RATIO: f64 = 0.8;

/// Most routers in front of one group of workers.
const MAX_REPLICAS: u32 = 1000;

/// Options of the KV-aware router.
const KV_OPTIONS: [&str; 30] = [
    "overlap_score_credit",
    "overlap_score_credit_decay",
    "prefill_load_scale",
    "decode_active_request_weight",
    "host_cache_hit_weight",
    "disk_cache_hit_weight",
    "shared_cache_type",
    "shared_cache_multiplier",
    "prefill_load_model",
    "router_temperature",
    "use_kv_events",
    "ttl_s",
    "approximate_cache_policy",
    "max_tree_size",
    "prune_target_ratio",
    "predicted_ttl_s",
    "track_active_blocks",
    "track_output_blocks",
    "track_prefill_tokens",
    "assume_kv_reuse",
    "queue_threshold",
    "queue_policy",
    "policy_config",
    "kv_event_delay_ms",
    "kv_event_jitter_ms",
    "kv_event_loss",
    "kv_event_recovery",
    "replicas",
    "replica_sync",
    "replica_sync_delay_ms",
];

/// Dynamo's names for a load model; that of AIConfigurator was renamed.
const LOAD_MODELS: [(&str, PrefillLoadModel); 3] = [
    ("none", PrefillLoadModel::None),
    ("ais", PrefillLoadModel::Estimated),
    ("aic", PrefillLoadModel::Estimated),
];

/// Caches that all workers share, and what a block there saves where nobody says it.
const SHARED_CACHES: [(&str, f64); 2] = [("none", 0.0), (HICACHE, 0.5)];
const HICACHE: &str = "hicache";

/// Reads the section. `None` after a problem.
pub fn read(section: &Section<'_>, folder: &Path) -> Option<RouterSpec> {
    let mode = if section.has("mode") {
        section.choice("mode", &MODES)
    } else {
        Some(Mode::RoundRobin)
    };
    let kv = kv(section, folder);
    let ratio = section.whole32("cuda_to_cpu_ratio", 1..=1_000_000);
    let ttl = section.number("session_affinity_ttl_s", 1.0..=31_536_000.0);
    section.finish();
    let mode = mode?;
    if mode != Mode::Kv {
        for name in KV_OPTIONS {
            belongs_to(section, name, "kv");
        }
    }
    if mode != Mode::DeviceAwareWeighted {
        belongs_to(section, "cuda_to_cpu_ratio", "device-aware-weighted");
    }
    if mode != Mode::SessionAffinity {
        belongs_to(section, "session_affinity_ttl_s", "session-affinity");
    }
    Some(match mode {
        Mode::RoundRobin => RouterSpec::RoundRobin,
        Mode::Random => RouterSpec::Random,
        Mode::LeastLoaded => RouterSpec::LeastLoaded,
        Mode::PowerOfTwo => RouterSpec::PowerOfTwo,
        Mode::Direct => RouterSpec::Direct,
        Mode::Clairvoyant => RouterSpec::Clairvoyant,
        Mode::DeviceAwareWeighted => RouterSpec::DeviceAwareWeighted {
            ratio: ratio.unwrap_or(8),
        },
        Mode::SessionAffinity => RouterSpec::SessionAffinity {
            ttl: Span((ttl.unwrap_or(300.0) * 1e12).round() as u64),
        },
        Mode::Kv => RouterSpec::Kv(kv),
    })
}

/// Reports what a router cannot ask of these pools.
pub fn check_with(section: &Section<'_>, router: Option<&RouterSpec>, pools: &[Pool]) {
    let counts_answers = matches!(router, Some(RouterSpec::Kv(kv)) if kv.track_output_blocks);
    let drafts = |pool: &&Pool| pool.engine.speculation().is_some();
    if let Some(pool) = pools.iter().find(drafts).filter(|_| counts_answers) {
        let found = format!("it with drafts in pool {}", pool.name);
        let expected = "engines that generate one token per step";
        section.conflict(
            "track_output_blocks",
            found,
            expected,
            "remove one of the two",
        );
    }
    let has_storage = |pool: &Pool| {
        pool.host
            .as_ref()
            .is_some_and(|host| host.storage.is_some())
    };
    if let Some((name, _)) = section.text("shared_cache_type")
        && name.trim().eq_ignore_ascii_case(HICACHE)
        && !pools.iter().any(has_storage)
    {
        let found = "hicache without a storage in any pool";
        let expected = "pools[].hicache.storage_gb, what all workers share";
        section.conflict("shared_cache_type", found, expected, "");
    }
}

/// Complains about an option that another mode has.
fn belongs_to(section: &Section<'_>, name: &'static str, mode: &str) {
    if section.has(name) {
        let suggestion = format!("set router.mode to {mode}");
        section.conflict(
            name,
            format!("an option of mode {mode}"),
            format!("mode {mode}"),
            &suggestion,
        );
    }
}

fn kv(section: &Section<'_>, folder: &Path) -> KvRouterSpec {
    let default = KvRouterSpec::default();
    let number = |name, default| section.number(name, 0.0..=1_000.0).unwrap_or(default);
    let flag = |name, default| section.flag(name).unwrap_or(default);
    let span = |name, unit_ps: f64| {
        let number = section.number(name, 0.0..=86_400_000.0);
        number.map(|number| Span((number * unit_ps).round() as u64))
    };
    let shared = section.choice("shared_cache_type", &SHARED_CACHES);
    let load_model = section.choice("prefill_load_model", &LOAD_MODELS);
    let weights = CostWeights {
        overlap_score_credit: number("overlap_score_credit", default.weights.overlap_score_credit),
        overlap_score_credit_decay: number("overlap_score_credit_decay", 0.0),
        prefill_load_scale: number("prefill_load_scale", default.weights.prefill_load_scale),
        decode_active_request_weight: number("decode_active_request_weight", 0.0),
        host_cache_hit_weight: number(
            "host_cache_hit_weight",
            default.weights.host_cache_hit_weight,
        ),
        disk_cache_hit_weight: number(
            "disk_cache_hit_weight",
            default.weights.disk_cache_hit_weight,
        ),
        shared_cache_multiplier: number("shared_cache_multiplier", shared.unwrap_or(0.0)),
        track_prefill_tokens: flag("track_prefill_tokens", true),
        ..default.weights
    };
    if load_model == Some(PrefillLoadModel::Estimated) && !weights.track_prefill_tokens {
        let found = "a model of prefills that do not count";
        let expected = "track_prefill_tokens, or no load model";
        section.conflict("prefill_load_model", found, expected, "");
    }
    if section.has("kv_event_recovery") && !section.has("kv_event_loss") {
        let found = "recovery where nothing is lost";
        let hint = "set router.kv_event_loss";
        section.conflict("kv_event_recovery", found, "kv_event_loss", hint);
    }
    let queue_policy = if section.has("queue_policy") {
        section.choice("queue_policy", &QUEUE_POLICIES)
    } else {
        None
    };
    KvRouterSpec {
        weights,
        router_temperature: number("router_temperature", default.router_temperature),
        use_kv_events: flag("use_kv_events", default.use_kv_events),
        events: EventChannel {
            delay: span("kv_event_delay_ms", 1e9).unwrap_or_default(),
            jitter: span("kv_event_jitter_ms", 1e9).unwrap_or_default(),
            loss: section.number("kv_event_loss", 0.0..=1.0).unwrap_or(0.0),
            recovers: flag("kv_event_recovery", false),
        },
        ttl: span("ttl_s", 1e12).unwrap_or(default.ttl),
        retention: retention(section),
        predicted_ttl: span("predicted_ttl_s", 1e12),
        track_active_blocks: flag("track_active_blocks", default.track_active_blocks),
        track_output_blocks: flag("track_output_blocks", default.track_output_blocks),
        assume_kv_reuse: flag("assume_kv_reuse", default.assume_kv_reuse),
        queue_threshold: section.number("queue_threshold", 0.0..=1_000_000.0),
        queue_policy: queue_policy.unwrap_or(default.queue_policy),
        policy_classes: policy_classes(section, folder).map(Arc::new),
        replicas: replicas(section),
        prefill_load_model: load_model.unwrap_or(default.prefill_load_model),
    }
}

/// How long a router without events remembers.
fn retention(section: &Section<'_>) -> Retention {
    let is_lru = section.choice("approximate_cache_policy", &APPROXIMATE_POLICIES) == Some(true);
    let max_tree_size = section.whole("max_tree_size", 1..=1 << 40);
    let ratio = section.number("prune_target_ratio", 0.0..=1.0);
    let events = !section.has("use_kv_events") || section.flag("use_kv_events") == Some(true);
    for name in ["approximate_cache_policy", "max_tree_size"] {
        if events && section.has(name) {
            let found = "what a router remembers of its own choices, beside events";
            section.conflict(
                name,
                found,
                "use_kv_events: false",
                "set it, or remove this",
            );
        }
    }
    if section.has("prune_target_ratio") && !section.has("max_tree_size") {
        let expected = "max_tree_size, the limit that it is a share of";
        section.conflict("prune_target_ratio", "a share alone", expected, "");
    }
    if is_lru {
        for name in ["ttl_s", "max_tree_size"] {
            if section.has(name) {
                let found = "another limit beside approximate_cache_policy lru";
                section.conflict(name, found, "the size of the workers' caches", "remove it");
            }
        }
        return Retention::Lru { outputs: true };
    }
    max_tree_size.map_or(Retention::Ttl, |max_tree_size| {
        Retention::Pruned(Pruning {
            max_tree_size,
            prune_target_ratio: ratio.unwrap_or(PRUNE_TARGET_RATIO),
        })
    })
}

/// The classes of a policy file.
fn policy_classes(section: &Section<'_>, folder: &Path) -> Option<PolicyProfile> {
    let (name, field) = section.text("policy_config")?;
    for other in ["queue_threshold", "queue_policy"] {
        if section.has(other) {
            let found = format!("{other} beside policy_config");
            let expected = "the classes of the file to say it";
            section.conflict(other, found, expected, "remove one of the two");
        }
    }
    let path = beside(folder, &name, &field.node.place);
    let mistake = |found: String| {
        let expected = "a policy file of Dynamo";
        section.mistake("policy_config", found, expected, "see docs/routers.md");
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            mistake(format!("{}: {error}", path.display()));
            return None;
        }
    };
    let profile = match policy_file::profile(&text) {
        Ok(profile) => profile,
        Err(errors) => {
            for error in errors {
                mistake(format!("{name}: {error}"));
            }
            return None;
        }
    };
    for class in profile.classes() {
        if class.limits != QueueLimits::default() {
            let found = format!("{name}: limits of what may wait in {}", class.name);
            let expected = "no limits: requests that a full queue refuses are not modelled";
            section.conflict("policy_config", found, expected, "remove them");
        }
    }
    Some(profile)
}

/// How many routers there are, and what they tell each other.
fn replicas(section: &Section<'_>) -> ReplicaSpec {
    let count = section.whole32("replicas", 1..=MAX_REPLICAS);
    let syncs = section.flag("replica_sync");
    let delay_ms = section.number("replica_sync_delay_ms", 0.0..=86_400_000.0);
    let found = |name| format!("{name} with one router");
    for name in ["replica_sync", "replica_sync_delay_ms"] {
        if section.has(name) && count.unwrap_or(1) == 1 {
            let expected = "two routers or more";
            section.conflict(name, found(name), expected, "set router.replicas");
        }
    }
    if section.has("replica_sync_delay_ms") && syncs == Some(false) {
        let hint = "set router.replica_sync to true";
        let found = "a delay of what is not sent";
        section.conflict("replica_sync_delay_ms", found, "replica_sync", hint);
    }
    for queue in ["queue_threshold", "policy_config"] {
        if section.has(queue) && delay_ms.is_some_and(|delay_ms| delay_ms > 0.0) {
            let found = format!("a delay beside {queue}");
            let expected = "0: a queue that waits for late messages is not modelled";
            let hint = "remove one of the two";
            section.conflict("replica_sync_delay_ms", found, expected, hint);
        }
    }
    let delay = Span((delay_ms.unwrap_or(0.0) * 1e9).round() as u64);
    let is_synced = syncs.unwrap_or(delay_ms.is_some());
    ReplicaSpec {
        count: count.unwrap_or(1),
        sync_delay: is_synced.then_some(delay),
    }
}
