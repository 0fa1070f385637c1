//! TensorRT-LLM's `speculative_config`, drafts that are made in one model with the target.

use super::{Drafts, MOST_DRAFTS, TOLD, told};
use crate::scenario::section::Section;
use ::engine::DraftMethod;

const METHODS: [(&str, DraftMethod); 3] = [
    ("mtp", DraftMethod::Mtp),
    ("eagle", DraftMethod::Eagle),
    ("eagle3", DraftMethod::Eagle),
];
/// Decoding types of TensorRT-LLM that draft otherwise.
const OTHERS: [&str; 8] = [
    "draft_target",
    "lookahead",
    "medusa",
    "ngram",
    "prompt_lookup",
    "save_hidden_states",
    "user_provided",
    "auto",
];
/// Options that change what a step does and are not modelled.
const NOT_MODELLED: [&str; 8] = [
    "acceptance_length_threshold",
    "acceptance_window",
    "draft_len_schedule",
    "eagle_choices",
    "max_concurrency",
    "relaxed_delta",
    "relaxed_topk",
    "use_dynamic_tree",
];

/// Reads the section of an engine's section. `None` if nothing is written, and after a problem.
pub fn read(engine: &Section<'_>) -> Option<Drafts> {
    if !engine.has("speculative_config") {
        return None;
    }
    let section = engine.section("speculative_config");
    section.not_modelled(&NOT_MODELLED);
    if let (Some(false), Some(field)) = (
        section.flag("eagle3_one_model"),
        section.field("eagle3_one_model"),
    ) {
        section.unmodelled(
            &field,
            "drafts of a model of their own take steps in between",
        );
    }
    let method = method(&section);
    let drafts = drafts(&section);
    let read = told(&section, &TOLD, method, drafts);
    section.finish();
    read
}

fn method(section: &Section<'_>) -> Option<DraftMethod> {
    if !section.has("decoding_type") {
        let hint = "one of MTP, Eagle and Eagle3";
        section.mistake("decoding_type", "nothing", "who drafts", hint);
        return None;
    }
    let (written, field) = section.text("decoding_type")?;
    let word = written.trim().to_lowercase().replace('-', "_");
    if OTHERS.contains(&word.as_str()) {
        section.unmodelled(&field, "MTP, Eagle and Eagle3 are modelled");
        return None;
    }
    section.choice("decoding_type", &METHODS)
}

/// `max_draft_len`, which MTP calls `num_nextn_predict_layers`.
fn drafts(section: &Section<'_>) -> Option<u32> {
    const NAMES: [&str; 2] = ["max_draft_len", "num_nextn_predict_layers"];
    let [long, short] = NAMES.map(|name| section.whole32(name, 1..=MOST_DRAFTS));
    match NAMES.map(|name| section.has(name)) {
        [false, false] => section.mistake(
            NAMES[0],
            "nothing",
            "how many tokens are drafted in a step",
            "for example `max_draft_len: 3`",
        ),
        [true, true] if long != short => section.conflict(
            NAMES[1],
            "another number than max_draft_len",
            "one of the two",
            "remove one",
        ),
        _ => {}
    }
    long.or(short)
}
