//! Drafts: who makes them and how many, under each engine's own names; how many of them are accepted and what drafting costs,
//! which engines measure and a simulation is told. Here vLLM's `speculative_config` and what all have in common.

pub mod sglang;
pub mod trtllm;

use super::Section;
use crate::scenario::tree::Value;
use ::engine::{AcceptanceMode, DraftMethod, Speculation};

const METHODS: [(&str, DraftMethod); 6] = [
    ("mtp", DraftMethod::Mtp),
    ("deepseek_mtp", DraftMethod::Mtp),
    ("eagle", DraftMethod::Eagle),
    ("eagle3", DraftMethod::Eagle),
    ("draft_model", DraftMethod::DraftModel),
    ("ngram", DraftMethod::Ngram),
];
/// Methods of vLLM that draft otherwise.
const OTHER_METHODS: [&str; 4] = ["medusa", "mlp_speculator", "suffix", "custom_class"];
const ACCEPTANCE: [(&str, bool); 2] = [("expected", true), ("sampled", false)];
/// Options of vLLM that change what a step does and are not modelled.
const NOT_MODELLED: [&str; 7] = [
    "disable_by_batch_size",
    "disable_padded_drafter_batch",
    "draft_tensor_parallel_size",
    "max_model_len",
    "prompt_lookup_max",
    "prompt_lookup_min",
    "speculative_token_tree",
];
/// Most drafts of a step.
const MOST_DRAFTS: u32 = 64;

/// What is said of drafts.
#[derive(Debug, Clone, PartialEq)]
pub struct Drafts {
    pub speculation: Speculation,
    /// Share of a step that a draft takes; `None` leaves it to the model's layers.
    pub share: Option<f64>,
}

/// Reads the section of an engine's section. `None` if nothing is written, and after a problem.
pub fn read(engine: &Section<'_>) -> Option<Drafts> {
    if !engine.has("speculative_config") {
        return None;
    }
    let section = engine.section("speculative_config");
    section.not_modelled(&NOT_MODELLED);
    let method = method(&section);
    let drafts = drafts(&section);
    let read = told(&section, &TOLD, method, drafts);
    section.finish();
    read
}

/// Names of what a simulation has to be told.
struct Told {
    rates: &'static str,
    acceptance: &'static str,
    share: &'static str,
}

/// Those in a section of drafts.
const TOLD: Told = Told {
    rates: "acceptance_rates",
    acceptance: "acceptance",
    share: "draft_share",
};

/// Reads that, and puts it together with what the engine is told.
fn told(
    section: &Section<'_>,
    names: &Told,
    method: Option<DraftMethod>,
    drafts: Option<u32>,
) -> Option<Drafts> {
    let rates = rates(section, names.rates, drafts);
    let share = section.number(names.share, 0.0..=10.0);
    if method == Some(DraftMethod::DraftModel) && !section.has(names.share) {
        section.mistake(
            names.share,
            "nothing",
            "the time of a draft as a share of a step of the model",
            &format!(
                "for example `{}: 0.1`; the ratio of the models' weights is a start",
                names.share
            ),
        );
    }
    let is_expected = section.choice(names.acceptance, &ACCEPTANCE);
    Some(Drafts {
        speculation: Speculation {
            method: method?,
            num_speculative_tokens: drafts?,
            acceptance_rates: rates?,
            mode: match is_expected {
                Some(false) => AcceptanceMode::Sampled { seed: 0 },
                Some(true) | None => AcceptanceMode::Expected,
            },
        },
        share,
    })
}

fn method(section: &Section<'_>) -> Option<DraftMethod> {
    if !section.has("method") {
        let hint = "one of mtp, eagle, eagle3, draft_model and ngram";
        section.mistake("method", "nothing", "who drafts", hint);
        return None;
    }
    let (written, field) = section.text("method")?;
    if OTHER_METHODS.contains(&written.as_str()) {
        section.unmodelled(&field, "eagle is nearest to it");
        return None;
    }
    section.choice("method", &METHODS)
}

fn drafts(section: &Section<'_>) -> Option<u32> {
    if !section.has("num_speculative_tokens") {
        section.mistake(
            "num_speculative_tokens",
            "nothing",
            "how many tokens are drafted in a step",
            "for example `num_speculative_tokens: 2`",
        );
    }
    section.whole32("num_speculative_tokens", 1..=MOST_DRAFTS)
}

/// One rate per draft, or one for all.
fn rates(section: &Section<'_>, name: &'static str, drafts: Option<u32>) -> Option<Vec<f64>> {
    let hint =
        &format!("for example `{name}: [0.85, 0.3]`: the second where the first was accepted");
    if !section.has(name) {
        let expected = "how often the draft at each position is accepted, from 0 to 1";
        section.mistake(name, "nothing", expected, hint);
        return None;
    }
    let (items, field) = section.list(name)?;
    let rates: Option<Vec<f64>> = items
        .iter()
        .map(|item| match item.value {
            Value::Number(rate) if (0.0..=1.0).contains(&rate) => Some(rate),
            _ => None,
        })
        .collect();
    let Some(rates) = rates else {
        let found = field.node.found();
        section.mistake(name, found, "numbers from 0 to 1", hint);
        return None;
    };
    let drafts = drafts? as usize;
    if rates.len() != drafts {
        let found = format!("{} of them", rates.len());
        let expected = format!("one for each of {drafts} drafts");
        section.conflict(name, found, expected, hint);
        return None;
    }
    Some(rates)
}
