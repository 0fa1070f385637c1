//! `lifecycle`: how long workers take to start, and how many GPUs there are for them.

use super::section::Section;
use engine::Span;
use sim::Startup;

/// The longest start.
const MAX_S: f64 = 86_400.0;

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
    if section.has("startup_s") && section.has("startup") {
        let expected = "one of startup (a preset) and startup_s (a total)";
        section.conflict("startup_s", "both", expected, "remove one");
    }
    for name in PARTS {
        if section.has("startup_s") && section.has(name) {
            let expected = "either the total startup_s or its parts";
            section.conflict(name, "a part beside the total", expected, "remove one");
        }
    }
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
                .map(Span::from_s),
            warm_up: span(warm_up),
            capture: span(capture),
        },
        is_guessed: !says_anything,
        gpus,
    }
}
