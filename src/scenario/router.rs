//! `router`: who gets which request.

use super::section::Section;
use engine::Span;
use sim::RouterSpec;
use sim::router::cost::CostWeights;
use sim::router::policy_class::QueuePolicy;
use sim::router::{EventChannel, KvRouterSpec};

/// How to choose, before options.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain(RouterSpec),
    DeviceAwareWeighted,
    SessionAffinity,
    Kv,
}

/// Names of modes; Dynamo's where it has them.
const MODES: [(&str, Mode); 7] = [
    ("round-robin", Mode::Plain(RouterSpec::RoundRobin)),
    ("random", Mode::Plain(RouterSpec::Random)),
    ("least-loaded", Mode::Plain(RouterSpec::LeastLoaded)),
    ("power-of-two", Mode::Plain(RouterSpec::PowerOfTwo)),
    ("device-aware-weighted", Mode::DeviceAwareWeighted),
    ("session-affinity", Mode::SessionAffinity),
    ("kv", Mode::Kv),
];

const QUEUE_POLICIES: [(&str, QueuePolicy); 3] = [
    ("fcfs", QueuePolicy::Fcfs),
    ("lcfs", QueuePolicy::Lcfs),
    ("wspt", QueuePolicy::Wspt),
];

/// Options of the KV-aware router.
const KV_OPTIONS: [&str; 19] = [
    "overlap_score_credit",
    "overlap_score_credit_decay",
    "prefill_load_scale",
    "decode_active_request_weight",
    "host_cache_hit_weight",
    "disk_cache_hit_weight",
    "shared_cache_multiplier",
    "router_temperature",
    "use_kv_events",
    "ttl_s",
    "predicted_ttl_s",
    "track_active_blocks",
    "track_prefill_tokens",
    "assume_kv_reuse",
    "queue_threshold",
    "queue_policy",
    "kv_event_delay_ms",
    "kv_event_jitter_ms",
    "kv_event_loss",
];

/// Dynamo's options of the KV-aware router that are not modelled.
const NOT_MODELLED: [&str; 6] = [
    "replica_sync",
    "track_output_blocks",
    "prefill_load_model",
    "approximate_cache_policy",
    "shared_cache",
    "policy_config",
];

/// Reads the section. `None` after a problem.
pub fn read(section: &Section<'_>) -> Option<RouterSpec> {
    section.not_modelled(&NOT_MODELLED);
    let mode = if section.has("mode") {
        section.choice("mode", &MODES)
    } else {
        Some(Mode::Plain(RouterSpec::RoundRobin))
    };
    let kv = kv(section);
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
        Mode::Plain(mode) => mode,
        Mode::DeviceAwareWeighted => RouterSpec::DeviceAwareWeighted {
            ratio: ratio.unwrap_or(8),
        },
        Mode::SessionAffinity => RouterSpec::SessionAffinity {
            ttl: Span((ttl.unwrap_or(300.0) * 1e12).round() as u64),
        },
        Mode::Kv => RouterSpec::Kv(kv),
    })
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

fn kv(section: &Section<'_>) -> KvRouterSpec {
    let default = KvRouterSpec::default();
    let number = |name, default| section.number(name, 0.0..=1_000.0).unwrap_or(default);
    let flag = |name, default| section.flag(name).unwrap_or(default);
    let span = |name, unit_ps: f64| {
        let number = section.number(name, 0.0..=86_400_000.0);
        number.map(|number| Span((number * unit_ps).round() as u64))
    };
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
        shared_cache_multiplier: number("shared_cache_multiplier", 0.0),
        track_prefill_tokens: flag("track_prefill_tokens", true),
        ..default.weights
    };
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
        },
        ttl: span("ttl_s", 1e12).unwrap_or(default.ttl),
        predicted_ttl: span("predicted_ttl_s", 1e12),
        track_active_blocks: flag("track_active_blocks", default.track_active_blocks),
        assume_kv_reuse: flag("assume_kv_reuse", default.assume_kv_reuse),
        queue_threshold: section.number("queue_threshold", 0.0..=1_000_000.0),
        queue_policy: queue_policy.unwrap_or(default.queue_policy),
    }
}
