//! `lifecycle`: how long workers take to start, how many GPUs there are for them, and what else becomes of them: spares,
//! changes of role, updates.

use super::section::Section;
use super::tree::Value;
use engine::{Span, Time};
use sim::Startup;
use sim::scaling::{Allowance, LifecycleSpec, Spares, Update};
use sweeps::planner::PlannerSpec;
use sweeps::scenario::{Pool, Role};

/// The longest start.
const MAX_S: f64 = 86_400.0;

/// The latest update: a year.
const MAX_UPDATE_S: f64 = 31_536_000.0;

/// Start-up times that sources state, in seconds. They state totals; parts that a scenario names come on top.
const PRESETS: [(&str, Preset); 5] = [
    ("none", Preset::of(0.0)),
    // Download and load: Dynamo's ModelExpress page.
    ("cold", Preset::of(120.0)),
    // From a shared volume, 30 to 60 s: llm-d.
    ("shared-disk", Preset::of(45.0)),
    // Weights from a neighbour's GPUs, 120 s without one: Dynamo's ModelExpress page.
    (
        "model-express",
        Preset {
            load_s: 120.0,
            load_from_neighbour_s: Some(17.0),
        },
    ),
    // A process restored with its weights: Dynamo's snapshots.
    ("snapshot", Preset::of(10.0)),
];

#[derive(Clone, Copy)]
struct Preset {
    load_s: f64,
    load_from_neighbour_s: Option<f64>,
}

impl Preset {
    const fn of(load_s: f64) -> Preset {
        Preset {
            load_s,
            load_from_neighbour_s: None,
        }
    }
}

/// How workers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    pub startup: Startup,
    /// Whether the file says nothing about the start.
    pub is_guessed: bool,
    pub gpus: Option<u32>,
    pub spec: LifecycleSpec,
    pub drain_limit: Option<Span>,
    pub stream: Option<Stream>,
}

/// Weights over the links between workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// How much a worker loads; `None` for what its model says.
    pub bytes: Option<u64>,
}

const PARTS: [&str; 6] = [
    "schedule_s",
    "pull_s",
    "load_s",
    "load_from_neighbour_s",
    "warm_up_s",
    "capture_s",
];

pub fn read(section: &Section<'_>) -> Lifecycle {
    let preset = section.choice("startup", &PRESETS);
    let total = section.number("startup_s", 0.0..=MAX_S);
    let parts = PARTS.map(|name| section.number(name, 0.0..=MAX_S));
    let gpus = section.whole32("gpus", 1..=1 << 24);
    let drain_limit = section.number("drain_limit_s", 0.0..=MAX_S);
    if section.has("startup_s") && section.has("startup") {
        let expected = "one of startup (a preset) and startup_s (a total)";
        section.conflict("startup_s", "both", expected, "remove one");
    }
    let stream = stream(section);
    for name in PARTS {
        if section.has("startup_s") && section.has(name) {
            let expected = "either the total startup_s or its parts";
            section.conflict(name, "a part beside the total", expected, "remove one");
        }
    }
    let spec = LifecycleSpec {
        spares: spares(section),
        switch: section
            .number("role_switch_s", 0.0..=MAX_S)
            .map(Span::from_s),
        update: update(section),
        gpus_per_node: nodes(section, gpus),
        shadow: section
            .number("shadow_failover_s", 0.0..=MAX_S)
            .map(Span::from_s),
    };
    section.finish();
    let says_anything = preset.is_some() || total.is_some() || parts.iter().any(Option::is_some);
    let preset = match (preset, total) {
        (Some(preset), _) => preset,
        (None, Some(total)) => Preset::of(total),
        (None, None) if says_anything => Preset::of(0.0),
        (None, None) => PRESETS[1].1,
    };
    let [schedule, pull, load, from_neighbour, warm_up, capture] = parts;
    let span = |seconds: Option<f64>| Span::from_s(seconds.unwrap_or(0.0));
    Lifecycle {
        startup: Startup {
            schedule: span(schedule),
            pull: span(pull),
            load: Span::from_s(load.unwrap_or(preset.load_s)),
            load_from_neighbour: from_neighbour
                .or(preset.load_from_neighbour_s)
                .filter(|_| stream.is_none())
                .map(Span::from_s),
            weights: None,
            warm_up: span(warm_up),
            capture: span(capture),
        },
        is_guessed: !says_anything,
        gpus,
        spec,
        drain_limit: drain_limit.map(Span::from_s),
        stream,
    }
}

/// Whether weights come over the links between workers, and how much that is.
fn stream(section: &Section<'_>) -> Option<Stream> {
    let streams = section.flag("stream_weights").unwrap_or(false);
    let gb = section.number("weights_gb", 1e-9..=1e6);
    if !streams {
        if section.has("weights_gb") {
            let expected = "stream_weights: true beside it";
            section.conflict("weights_gb", "a size of what nobody sends", expected, "");
        }
        return None;
    }
    if section.has("load_from_neighbour_s") {
        let expected = "one of both: streamed weights take what the links between workers allow";
        section.conflict(
            "load_from_neighbour_s",
            "a time beside stream_weights",
            expected,
            "remove one",
        );
    }
    if section.has("startup_s") {
        let expected = "the parts of a start: it has to be known which of them is loading weights";
        let hint = "load_s is how long it takes from elsewhere";
        section.conflict("startup_s", "a total beside stream_weights", expected, hint);
    }
    Some(Stream {
        bytes: gb.map(|gb| (gb * 1e9).round() as u64),
    })
}

fn spares(section: &Section<'_>) -> Spares {
    let count = section.whole32("spares", 0..=1 << 16).unwrap_or(0);
    let activate = section.number("activate_s", 0.0..=MAX_S);
    if section.has("activate_s") && count == 0 {
        let expected = "spares beside it: how many workers are kept warm";
        section.conflict("activate_s", "a time without spares", expected, "");
    }
    Spares {
        count,
        activate: Span::from_s(activate.unwrap_or(0.0)),
    }
}

fn nodes(section: &Section<'_>, gpus: Option<u32>) -> Option<u32> {
    let per_node = section.whole32("gpus_per_node", 1..=1 << 16)?;
    match gpus {
        None => {
            let expected = "gpus beside it: how many there are in all";
            section.conflict("gpus_per_node", per_node.to_string(), expected, "");
            None
        }
        Some(gpus) if !gpus.is_multiple_of(per_node) => {
            let expected = format!("a divisor of gpus ({gpus}): nodes are alike");
            section.conflict("gpus_per_node", per_node.to_string(), expected, "");
            None
        }
        Some(_) => Some(per_node),
    }
}

fn update(root: &Section<'_>) -> Option<Update> {
    let section = root.section("update");
    if !root.has("update") {
        section.finish();
        return None;
    }
    let at = section.number("at_s", 0.0..=MAX_UPDATE_S);
    if !section.has("at_s") {
        let expected = "seconds after the start at which it begins";
        section.mistake("at_s", "nothing", expected, "");
    }
    let (surge, unavailable) = (
        allowance(&section, "surge"),
        allowance(&section, "unavailable"),
    );
    section.finish();
    let nothing =
        |allowance: Allowance| matches!(allowance, Allowance::Workers(0) | Allowance::Percent(0));
    let (at, surge, unavailable) = (at?, surge?, unavailable?);
    if nothing(surge) && nothing(unavailable) {
        let expected = "one of surge and unavailable above 0: nothing could be replaced";
        section.conflict(
            "surge",
            "0 beside unavailable 0",
            expected,
            "unavailable: 1 needs no more GPUs",
        );
        return None;
    }
    Some(Update {
        at: Time::ZERO + Span::from_s(at),
        surge,
        unavailable,
    })
}

/// A number of workers, or a share of them as `25%`, which is Kubernetes' default.
fn allowance(section: &Section<'_>, name: &'static str) -> Option<Allowance> {
    const EXPECTED: &str = "a whole number of workers, or a share of them from 0% to 100%";
    let Some(field) = section.field(name) else {
        return Some(Allowance::Percent(25));
    };
    let share = match &field.node.value {
        Value::Text(text) => text.trim().strip_suffix('%').map(str::to_owned),
        _ => None,
    };
    let found = match share {
        Some(share) => share.trim().parse().ok().filter(|share| *share <= 100),
        None => field
            .node
            .raw
            .parse()
            .ok()
            .filter(|workers| *workers <= 1 << 16),
    };
    let is_share = field.node.raw.contains('%');
    match found {
        Some(number) if is_share => Some(Allowance::Percent(number)),
        Some(number) => Some(Allowance::Workers(number)),
        None => {
            section.mistake(name, field.node.found(), EXPECTED, "unavailable: 1, or 25%");
            None
        }
    }
}

/// Whether the pools there are can live like that; says why not.
pub fn fits(section: &Section<'_>, spec: &PlannerSpec, pools: &[Pool]) -> bool {
    let nodes_fit = spec.lifecycle.gpus_per_node.is_none_or(|per_node| {
        let spans = |pool: &&Pool| {
            let gpus = pool.gpus_per_worker();
            gpus > per_node && !gpus.is_multiple_of(per_node)
        };
        let misfit = pools.iter().find(spans);
        if let Some(pool) = misfit {
            let gpus = pool.gpus_per_worker();
            let found = format!(
                "{per_node} beside {gpus} GPUs of a worker of pool {}",
                pool.name
            );
            let expected = "a node that holds a worker, or workers that fill whole nodes";
            section.conflict("gpus_per_node", found, expected, "");
        }
        misfit.is_none()
    });
    let may_switch = spec.lifecycle.switch.is_none()
        || {
            let of = |role: Role| pools.iter().find(|pool| pool.role == role);
            let why = match (of(Role::Prefill), of(Role::Decode)) {
                (Some(prefill), Some(decode)) => differ(prefill, decode),
                _ => Some("pools without roles"),
            };
            if let Some(found) = why {
                let expected = "a pool of role prefill and one of role decode, of the same model, GPU and parallel";
                section.conflict("role_switch_s", found, expected, "");
            }
            why.is_none()
        };
    nodes_fit && may_switch
}

/// Why a worker of one pool cannot restart in the other.
fn differ(prefill: &Pool, decode: &Pool) -> Option<&'static str> {
    if prefill.parallel != decode.parallel {
        return Some("pools whose workers spread over GPUs in different ways");
    }
    if format!("{:?}", prefill.model) != format!("{:?}", decode.model) {
        return Some("pools of different models");
    }
    (format!("{:?}", prefill.gpu) != format!("{:?}", decode.gpu))
        .then_some("pools of different GPUs")
}
