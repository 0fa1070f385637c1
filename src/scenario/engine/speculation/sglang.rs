//! SGLang's `speculative_…` options, beside its others.

use super::{Drafts, MOST_DRAFTS, Told, told};
use crate::scenario::section::Section;
use ::engine::DraftMethod;
use ::engine::sglang::SglangDrafts;

/// Its fields.
pub const FIELDS: [&str; 7] = [
    ALGORITHM,
    STEPS,
    TOPK,
    TOKENS,
    TOLD.rates,
    TOLD.acceptance,
    TOLD.share,
];
const ALGORITHM: &str = "speculative_algorithm";
const STEPS: &str = "speculative_num_steps";
const TOPK: &str = "speculative_eagle_topk";
const TOKENS: &str = "speculative_num_draft_tokens";
const TOLD: Told = Told {
    rates: "speculative_acceptance_rates",
    acceptance: "speculative_acceptance",
    share: "speculative_draft_share",
};

const ALGORITHMS: [(&str, DraftMethod); 4] = [
    ("eagle", DraftMethod::Eagle),
    ("eagle3", DraftMethod::Eagle),
    ("nextn", DraftMethod::Mtp),
    ("standalone", DraftMethod::DraftModel),
];
/// Algorithms of SGLang that draft otherwise.
const OTHERS: [&str; 5] = ["ngram", "lookahead", "dflash", "frozen_kv_mtp", "medusa"];
/// Most branches.
const MOST_BRANCHES: u32 = 32;

/// Reads the options. `None` if there are none, and after a problem.
pub fn read(section: &Section<'_>) -> Option<(SglangDrafts, Option<f64>)> {
    let written: Vec<&'static str> = FIELDS
        .into_iter()
        .filter(|name| section.has(name))
        .collect();
    let first = *written.first()?;
    if !section.has(ALGORITHM) {
        let found = format!("drafts without {ALGORITHM}");
        let hint = format!("for example `{ALGORITHM}: EAGLE`");
        section.conflict(first, found, "who drafts beside it", &hint);
        return None;
    }
    let method = algorithm(section)?;
    let missing = |name: &str, expected: &str, hint: &str| {
        section.conflict(ALGORITHM, format!("drafts without {name}"), expected, hint);
    };
    if !section.has(STEPS) {
        let hint = "for example `speculative_num_steps: 3`; a real server chooses by the model, which is not known here";
        missing(
            STEPS,
            "how many tokens are drafted one behind the other",
            hint,
        );
    }
    if !section.has(TOLD.rates) {
        let hint = "for example `speculative_acceptance_rates: [0.8, 0.7, 0.6]`, one for each step";
        missing(
            TOLD.rates,
            "how often the draft at each position is accepted",
            hint,
        );
    }
    let steps = section.whole32(STEPS, 1..=MOST_DRAFTS);
    let topk = match section.has(TOPK) {
        true => section.whole32(TOPK, 1..=MOST_BRANCHES),
        false => Some(1),
    };
    let tokens = section.whole32(TOKENS, 2..=1_024);
    if !section.has(STEPS) || !section.has(TOLD.rates) {
        return None;
    }
    let Drafts { speculation, share } = told(section, &TOLD, Some(method), steps)?;
    let chain = SglangDrafts {
        topk: topk?,
        ..SglangDrafts::chain(speculation)
    };
    if chain.topk > 1 && !section.has(TOKENS) {
        let hint = "for example `speculative_num_draft_tokens: 8`";
        missing(TOKENS, "how many tokens of the tree are verified", hint);
        return None;
    }
    let least = chain.num_draft_tokens;
    let most = if chain.topk == 1 {
        least
    } else {
        chain.most_draft_tokens()
    };
    let num_draft_tokens = if section.has(TOKENS) { tokens? } else { least };
    if !(least..=most).contains(&num_draft_tokens) {
        let expected = match chain.topk {
            1 => format!(
                "{least}: the steps and the root, to which SGLang sets it where there is one branch"
            ),
            _ => format!("{least} to {most}: as deep as its steps, and no more than the tree has"),
        };
        section.conflict(TOKENS, num_draft_tokens.to_string(), expected, "");
        return None;
    }
    Some((
        SglangDrafts {
            num_draft_tokens,
            ..chain
        },
        share,
    ))
}

fn algorithm(section: &Section<'_>) -> Option<DraftMethod> {
    let (written, field) = section.text(ALGORITHM)?;
    if OTHERS.contains(&written.trim().to_lowercase().as_str()) {
        section.unmodelled(&field, "EAGLE, EAGLE3, NEXTN and STANDALONE are modelled");
        return None;
    }
    section.choice(ALGORITHM, &ALGORITHMS)
}
