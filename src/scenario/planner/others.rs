//! Settings of the autoscalers that are not Dynamo's: one set per role.

use super::super::section::Section;
use engine::{Span, Time};
use planner::policy::{
    Behavior, HpaSpec, KedaSpec, LlmDSpec, LlmDThresholds, Metric, MetricTarget, RateLimit,
    ScheduleEntry, SelectPolicy,
};
use planner::{PerRole, Role};
use sweeps::planner::{OracleSpec, Policy};
use sweeps::scenario::{Pool, Role as PoolRole};

const MAX_S: f64 = 86_400.0;

/// Our names of fields whose problems planners report under theirs.
pub fn field_of(field: &'static str) -> &'static str {
    match field {
        "sync_period" => "sync_period_s",
        "polling_interval" => "polling_interval_s",
        "interval" => "interval_s",
        "activation_threshold" => "activation",
        "up.utilization" => "scale_up_threshold",
        "up.queue_depth" => "scale_up_queue_depth",
        "num_gpu" | "capabilities" => "policy",
        "max_kv_tokens" => "policy",
        other => other,
    }
}

/// The same for each role: from the section itself where the pools do everything, else from `prefill` and `decode` in it.
fn each_role<T>(
    section: &Section<'_>,
    roles: &[(Role, &Pool)],
    read: impl Fn(&Section<'_>, &Pool) -> Option<T>,
) -> Option<PerRole<Option<T>>> {
    let mut specs = PerRole {
        prefill: None,
        decode: None,
    };
    let mut is_whole = true;
    for &(role, pool) in roles {
        let spec = if pool.role == PoolRole::Aggregated {
            read(section, pool)
        } else {
            let name = match role {
                Role::Prefill => "prefill",
                Role::Decode => "decode",
            };
            if !section.has(name) {
                let expected = "settings for the workers of this role";
                section.mistake(
                    name,
                    "nothing",
                    expected,
                    "policy dynamo scales both together",
                );
            }
            let below = section.section(name);
            let spec = read(&below, pool);
            below.finish();
            spec
        };
        is_whole &= spec.is_some();
        *specs.get_mut(role) = spec;
    }
    is_whole.then_some(specs)
}

fn seconds(section: &Section<'_>, name: &'static str, default: f64) -> Span {
    Span::from_s(section.number(name, 0.0..=MAX_S).unwrap_or(default))
}

pub fn hpa(section: &Section<'_>, roles: &[(Role, &Pool)]) -> Option<Policy> {
    let sync_period = seconds(section, "sync_period_s", 15.0);
    let roles = each_role(section, roles, |section, pool| spec(section, pool, false))?;
    Some(Policy::Hpa { sync_period, roles })
}

pub fn keda(section: &Section<'_>, roles: &[(Role, &Pool)]) -> Option<Policy> {
    let polling_interval = seconds(section, "polling_interval_s", 15.0);
    let roles = each_role(section, roles, |section, pool| {
        Some(KedaSpec {
            hpa: spec(section, pool, true)?,
            activation_threshold: section.number("activation", 0.0..=1e12).unwrap_or(0.0),
            cooldown_period: seconds(section, "cooldown_period_s", 60.0),
        })
    })?;
    Some(Policy::Keda {
        polling_interval,
        roles,
    })
}

/// Targets, their metrics, and what one is in the metric's unit.
const METRICS: [(&str, Option<Metric>, f64); 6] = [
    ("target_kv_use", None, 1.0),
    (
        "target_queue_per_worker",
        Some(Metric::QueuedPerWorker),
        1.0,
    ),
    ("target_queue", Some(Metric::Queued), 1.0),
    ("target_ttft_p95_ms", Some(Metric::TtftP95), 1000.0),
    ("target_itl_p95_ms", Some(Metric::ItlP95), 1000.0),
    ("target_requests_per_s", Some(Metric::RequestRate), 1.0),
];

/// What autoscalers on a metric have in common. KEDA divides every metric by the workers unless it is told not to.
fn spec(section: &Section<'_>, pool: &Pool, is_keda: bool) -> Option<HpaSpec> {
    let values = METRICS.map(|(name, ..)| section.number(name, 0.0..=1e12));
    let written: Vec<usize> = (0..METRICS.len())
        .filter(|&at| section.has(METRICS[at].0))
        .collect();
    let names = METRICS.map(|(name, ..)| name).join(", ");
    let expected = format!("one of {names}");
    match written[..] {
        [] => {
            let suggestion = "for example target_queue_per_worker: 4";
            section.mistake("target_kv_use", "no target", expected, suggestion);
        }
        [_] => {}
        [_, second, ..] => {
            section.conflict(METRICS[second].0, "two targets", expected, "remove one");
        }
    }
    let metric_type = section.choice("metric_type", &[("value", false), ("average-value", true)]);
    let replicas =
        |name: &'static str, default: u32| section.whole32(name, 0..=1 << 20).unwrap_or(default);
    let (min, max) = (replicas("min_replicas", 1), replicas("max_replicas", 8));
    let tolerance = section.number("tolerance", 0.0..=1.0).unwrap_or(0.1);
    let up = behavior(section, &UP);
    let down = behavior(section, &DOWN);
    let at = *written.first()?;
    let (_, metric, unit) = METRICS[at];
    let value = values[at]? / unit;
    let metric = metric.unwrap_or(Metric::KvUse {
        max_kv_tokens: pool.engine.usable_tokens(),
    });
    let is_average =
        metric_type.unwrap_or(is_keda || matches!(metric, Metric::Queued | Metric::RequestRate));
    let target = if is_average {
        MetricTarget::AveragePerWorker(value)
    } else {
        MetricTarget::Value(value)
    };
    let default = HpaSpec::new(metric, target, min..=max);
    Some(HpaSpec {
        tolerance,
        scale_up: up.unwrap_or(default.scale_up.clone()),
        scale_down: down.unwrap_or(default.scale_down.clone()),
        ..default
    })
}

/// Names of one direction, and Kubernetes' window of it.
struct Direction {
    window: &'static str,
    pods: &'static str,
    period: &'static str,
    default_window_s: f64,
}

const UP: Direction = Direction {
    window: "scale_up_stabilization_s",
    pods: "scale_up_pods",
    period: "scale_up_period_s",
    default_window_s: 0.0,
};
const DOWN: Direction = Direction {
    window: "scale_down_stabilization_s",
    pods: "scale_down_pods",
    period: "scale_down_period_s",
    default_window_s: 300.0,
};

/// One direction; `None` where nothing is written. Without a number of pods a direction that is written has no limit on
/// its rate.
fn behavior(section: &Section<'_>, names: &Direction) -> Option<Behavior> {
    let window = section.number(names.window, 0.0..=MAX_S);
    let pods = section.whole32(names.pods, 0..=1 << 20);
    let period = section.number(names.period, 1.0..=MAX_S);
    if section.has(names.period) && !section.has(names.pods) {
        let expected = format!("{} beside it", names.pods);
        section.conflict(names.period, "a period of nothing", expected, "remove it");
    }
    if window.is_none() && pods.is_none() {
        return None;
    }
    let limit = pods.map(|value| RateLimit::Pods {
        value,
        period: Span::from_s(period.unwrap_or(15.0)),
    });
    Some(Behavior {
        stabilization_window: Span::from_s(window.unwrap_or(names.default_window_s)),
        policies: limit.into_iter().collect(),
        select_policy: if pods == Some(0) {
            SelectPolicy::Disabled
        } else {
            SelectPolicy::Max
        },
    })
}

pub fn llm_d(section: &Section<'_>, roles: &[(Role, &Pool)]) -> Option<Policy> {
    let interval = seconds(section, "interval_s", 15.0);
    let roles = each_role(section, roles, |section, pool| {
        let default = LlmDSpec::inference_service(pool.engine.usable_tokens());
        let share =
            |name: &'static str, default: f64| section.number(name, 0.0..=10.0).unwrap_or(default);
        let depth = |name: &'static str| section.number(name, 0.0..=1e9);
        let cooldown = |name: &'static str, default: Span| seconds(section, name, default.as_s());
        let replicas = |name: &'static str, default: u32| {
            section.whole32(name, 0..=1 << 20).unwrap_or(default)
        };
        Some(LlmDSpec {
            up: LlmDThresholds {
                utilization: share("scale_up_threshold", default.up.utilization),
                queue_depth: depth("scale_up_queue_depth"),
            },
            down: LlmDThresholds {
                utilization: share("scale_down_threshold", default.down.utilization),
                queue_depth: depth("scale_down_queue_depth"),
            },
            target_utilization: share("target_utilization", default.target_utilization),
            scale_up_cooldown: cooldown("scale_up_cooldown_s", default.scale_up_cooldown),
            scale_down_cooldown: cooldown("scale_down_cooldown_s", default.scale_down_cooldown),
            min_replicas: replicas("min_replicas", default.min_replicas),
            max_replicas: replicas("max_replicas", default.max_replicas),
            max_kv_tokens: default.max_kv_tokens,
        })
    })?;
    Some(Policy::LlmD { interval, roles })
}

/// The oracle's, one set for all roles.
pub fn oracle(section: &Section<'_>) -> Policy {
    let replicas = |name: &'static str, default: u32| {
        let count = section.whole32(name, 0..=1 << 20);
        count.unwrap_or(default)
    };
    Policy::Oracle(OracleSpec {
        interval: seconds(section, "interval_s", 60.0),
        utilization: section.number("utilization", 0.0..=100.0).unwrap_or(0.7),
        min_replicas: replicas("min_replicas", 1),
        max_replicas: replicas("max_replicas", 8),
    })
}

/// `schedule: [{at_s: 600, workers: 4}]`, with `prefill` and `decode` in place of `workers` where the roles are apart.
pub fn schedule(section: &Section<'_>, roles: &[(Role, &Pool)]) -> Option<Policy> {
    let is_aggregated = roles
        .iter()
        .all(|(_, pool)| pool.role == PoolRole::Aggregated);
    let Some(items) = section.sections("schedule") else {
        if !section.has("schedule") {
            let expected = "entries like {at_s: 600, workers: 4}";
            section.mistake(
                "schedule",
                "nothing",
                expected,
                "times count from the start",
            );
        }
        return None;
    };
    let mut entries = Vec::new();
    for item in items {
        let at = item.number("at_s", 0.0..=1e7);
        if !item.has("at_s") {
            item.mistake("at_s", "nothing", "seconds from the start", "");
        }
        let count = |name: &'static str| item.whole32(name, 0..=1 << 20);
        let names: &[&'static str] = if is_aggregated {
            &["workers"]
        } else {
            &["prefill", "decode"]
        };
        let workers = if is_aggregated {
            PerRole {
                prefill: None,
                decode: count("workers"),
            }
        } else {
            PerRole {
                prefill: count("prefill"),
                decode: count("decode"),
            }
        };
        if !names.iter().any(|name| item.has(name)) {
            item.mistake(names[0], "nothing", "a number of workers", "");
        }
        item.finish();
        entries.extend(at.map(|at| ScheduleEntry {
            at: Time::ZERO + Span::from_s(at),
            workers,
        }));
    }
    Some(Policy::Schedule(entries))
}
