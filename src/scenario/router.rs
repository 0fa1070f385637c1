//! `router`: who gets which request.

use super::section::Section;
use sim::RouterSpec;
use sim::router::KvRouterSpec;

/// Names of modes; Dynamo's where it has them.
const MODES: [(&str, RouterSpec); 5] = [
    ("round-robin", RouterSpec::RoundRobin),
    ("random", RouterSpec::Random),
    ("least-loaded", RouterSpec::LeastLoaded),
    ("power-of-two", RouterSpec::PowerOfTwo),
    (
        "kv",
        RouterSpec::Kv(KvRouterSpec {
            overlap_score_credit: 1.0,
            prefill_load_scale: 1.0,
        }),
    ),
];

/// Dynamo's options of the KV-aware router that are not modelled.
const NOT_MODELLED: [&str; 14] = [
    "router_temperature",
    "temperature",
    "overlap_score_credit_decay",
    "decode_active_request_weight",
    "use_kv_events",
    "ttl",
    "replica_sync",
    "track_active_blocks",
    "track_output_blocks",
    "track_prefill_tokens",
    "assume_kv_reuse",
    "queue_threshold",
    "queue_policy",
    "shared_cache",
];

/// Reads the section. `None` after a problem.
pub fn read(section: &Section<'_>) -> Option<RouterSpec> {
    section.not_modelled(&NOT_MODELLED);
    let mode = if section.has("mode") {
        section.choice("mode", &MODES)
    } else {
        Some(RouterSpec::RoundRobin)
    };
    let overlap_score_credit = section.number("overlap_score_credit", 0.0..=1_000.0);
    let prefill_load_scale = section.number("prefill_load_scale", 0.0..=1_000.0);
    section.finish();
    match mode? {
        RouterSpec::Kv(default) => Some(RouterSpec::Kv(KvRouterSpec {
            overlap_score_credit: overlap_score_credit.unwrap_or(default.overlap_score_credit),
            prefill_load_scale: prefill_load_scale.unwrap_or(default.prefill_load_scale),
        })),
        mode => {
            for name in ["overlap_score_credit", "prefill_load_scale"] {
                if section.has(name) {
                    section.conflict(
                        name,
                        "a weight of the KV-aware router",
                        "mode kv",
                        "set router.mode to kv",
                    );
                }
            }
            Some(mode)
        }
    }
}
