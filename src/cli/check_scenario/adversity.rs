//! What a scenario says about clients, overload and faults, in words and as JSON.

use serde_json::{Value, json};
use sim::AdversitySpec;
use sim::adversity::clients::{CancelWhen, ClientSpec};
use sim::adversity::faults::{FaultKind, FaultSpec};
use sim::adversity::shedding::Shedding;

/// By topic; nothing about what does not go wrong.
pub fn in_words(spec: &AdversitySpec) -> Vec<(&'static str, String)> {
    let topics = [
        ("Clients", clients(&spec.clients)),
        ("Admission", admission(&spec.shedding)),
        ("Faults", faults(&spec.faults)),
    ];
    let said = topics.into_iter().filter(|(_, words)| !words.is_empty());
    said.map(|(topic, words)| (topic, words.join("; ")))
        .collect()
}

fn clients(spec: &ClientSpec) -> Vec<String> {
    let cancel = spec.cancel.map(|cancel| {
        let when = match cancel.when {
            CancelWhen::After(mean) => format!("{} s in the mean", mean.as_s()),
            CancelWhen::AfterTokens(tokens) => format!("{tokens} tokens"),
        };
        format!("{} % cancel after {when}", 100.0 * cancel.share)
    });
    let ttft = spec
        .ttft_timeout
        .map(|limit| format!("first token within {} s", limit.as_s()));
    let last = spec
        .timeout
        .map(|limit| format!("last token within {} s", limit.as_s()));
    let retries = (spec.retries > 0).then(|| {
        format!(
            "up to {} retries, the first within {} s",
            spec.retries,
            spec.backoff.as_s()
        )
    });
    [cancel, ttft, last, retries]
        .into_iter()
        .flatten()
        .collect()
}

fn admission(spec: &Shedding) -> Vec<String> {
    let parts = [
        spec.active_decode_blocks
            .map(|share| format!("{} % of the KV blocks held", 100.0 * share)),
        spec.active_prefill_tokens
            .map(|tokens| format!("{tokens} prompt tokens to compute")),
        spec.active_prefill_tokens_frac
            .map(|share| format!("{share} steps of prompt tokens to compute")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return parts;
    }
    vec![format!(
        "refused while all workers are beyond {}",
        parts.join(" or ")
    )]
}

fn faults(spec: &FaultSpec) -> Vec<String> {
    let whose = |part: u32, kind: FaultKind| match (kind, kind.site()) {
        (FaultKind::NodeLoss, _) => format!("{} of node {part}", kind.name()),
        (_, Some(site)) => format!("{} of {} {part}", kind.name(), site.name()),
        _ if kind.is_of_a_worker() => format!("{} of worker {part}", kind.name()),
        _ => kind.name().to_owned(),
    };
    let scripted = spec.timeline.iter().map(|fault| {
        let what = whose(fault.worker, fault.kind);
        format!("{what} at {} s", fault.at.as_s())
    });
    let random = spec.random.iter().map(|rule| {
        let what = match rule.worker {
            Some(worker) => whose(worker, rule.kind),
            None if rule.kind.is_of_a_worker() => format!("{} of each worker", rule.kind.name()),
            None if rule.kind == FaultKind::NodeLoss => "node_loss of each node".to_owned(),
            None => match rule.kind.site() {
                Some(site) => format!("{} of each {}", rule.kind.name(), site.name()),
                None => rule.kind.name().to_owned(),
            },
        };
        format!("{what} every {} s in the mean", rule.mtbf.as_s())
    });
    let spot = spec.spot.iter().map(|rule| {
        let last = rule.first + rule.workers - 1;
        format!(
            "interruption of each of workers {} to {last} every {} s in the mean, with {} s of notice",
            rule.first,
            rule.mtbf.as_s(),
            rule.notice.as_s()
        )
    });
    let moves = (spec.migration_limit > 0)
        .then(|| format!("requests move up to {} times", spec.migration_limit));
    let rules = random.chain(spot);
    scripted.chain(rules).chain(moves).collect()
}

/// The same for programs; null where nothing goes wrong.
pub fn json(spec: &AdversitySpec) -> Value {
    if spec.is_nothing() {
        return Value::Null;
    }
    json!({
        "clients": clients(&spec.clients),
        "admission": admission(&spec.shedding),
        "faults": faults(&spec.faults),
    })
}
