//! What a planner did, in words: replicas, GPU-hours, decisions and their reasons.

use crate::numbers::{count, counted, separated};
use sim::ScalingSummary;
use sim::scaling::{ChangeSummary, DecisionSummary, UpdateSummary, WeightsSummary};

/// Decisions that are listed; the JSON report has all.
const MOST_DECISIONS: usize = 8;

/// Topics and what is said about them.
pub(super) fn facts(scaling: &ScalingSummary) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Planner", planner(scaling)),
        ("GPU-hours", gpu_hours(scaling)),
    ];
    if !scaling.updates.is_empty() {
        let updates: Vec<String> = scaling.updates.iter().map(update).collect();
        facts.push(("Update", updates.join("\n")));
    }
    if let Some(it) = &scaling.weights {
        facts.push(("Weights", weights(it)));
    }
    if !scaling.decisions.is_empty() {
        facts.push(("Decisions", decisions(&scaling.decisions)));
    }
    facts
}

fn planner(scaling: &ScalingSummary) -> String {
    let pools = scaling.pools.iter().map(|pool| {
        let (fewest, most) = (count(pool.fewest_ready), count(pool.most_ready));
        format!("{} {fewest} to {most}", pool.pool)
    });
    let reasons = scaling.reasons.iter();
    let reasons: Vec<String> = reasons
        .map(|(reason, times)| format!("{reason} {}", count(*times)))
        .collect();
    let mut text = format!(
        "{}, asked {} · {} started, {} drained, {} called off\nworkers that served: {}, {} on average",
        scaling.policy,
        counted(scaling.ticks, "time"),
        counted(scaling.workers_started, "worker"),
        count(scaling.workers_drained),
        count(scaling.workers_called_off),
        pools.collect::<Vec<_>>().join(", "),
        separated(scaling.mean_ready, 2),
    );
    for (workers, what) in [
        (scaling.workers_called_in, "spares called in"),
        (scaling.workers_switched, "changed their role"),
    ] {
        if workers > 0 {
            text += &format!("\n{what}: {}", count(workers));
        }
    }
    if !reasons.is_empty() {
        text += &format!("\nreasons: {}", reasons.join(", "));
    }
    text
}

fn gpu_hours(scaling: &ScalingSummary) -> String {
    let hours = &scaling.gpu_hours;
    let number = |value: f64| separated(value, 2);
    let spare = match hours.spare {
        0.0 => String::new(),
        spare => format!(", {} spare", number(spare)),
    };
    format!(
        "{}: {} starting{spare}, {} serving, {} draining",
        number(hours.total()),
        number(hours.starting),
        number(hours.ready),
        number(hours.draining),
    )
}

fn weights(weights: &WeightsSummary) -> String {
    let mut text = format!(
        "neighbours sent {} GB: {} in {} s in the mean",
        separated(weights.bytes as f64 / 1e9, 1),
        counted(weights.streamed, "start"),
        separated(weights.stream_ms.mean / 1e3, 1),
    );
    for (starts, what) in [
        (weights.went_on, "went on from another source"),
        (weights.fell_back, "loaded from elsewhere"),
    ] {
        if starts > 0 {
            text += &format!(", {} {what}", count(starts));
        }
    }
    text
}

fn update(update: &UpdateSummary) -> String {
    let took = match update.took_s {
        Some(took) => format!("in {} s", separated(took, 0)),
        None => "not to the end".to_owned(),
    };
    let seen = |name: &str, ttft: &sim::Distribution| {
        let (p90, requests) = (separated(ttft.p90, 0), counted(ttft.count, "request"));
        format!("{name} {p90} ms ({requests})")
    };
    format!(
        "{}: {} replaced from {} s on {took}, surge {}, unavailable {}\n\
         both generations served for {} s, never fewer than {} workers\n\
         TTFT p90 {}, {}",
        update.pool,
        counted(update.replaced, "worker"),
        separated(update.began_s, 0),
        count(update.surge),
        count(update.unavailable),
        separated(update.mixed_s, 0),
        count(update.fewest_ready),
        seen("meanwhile", &update.ttft_ms),
        seen("otherwise", &update.other_ttft_ms),
    )
}

fn decisions(decisions: &[DecisionSummary]) -> String {
    let change = |role: &str, change: Option<ChangeSummary>| {
        change.map(|change| format!("{role}{} → {}", change.from, change.to))
    };
    let line = |decision: &DecisionSummary| {
        let prefill = change("prefill ", decision.prefill);
        let role = if decision.prefill.is_some() {
            "decode "
        } else {
            ""
        };
        let decode = change(role, decision.decode);
        let changes: Vec<String> = prefill.into_iter().chain(decode).collect();
        format!(
            "at {} s {} ({})",
            separated(decision.time_s, 0),
            changes.join(", "),
            decision.reason
        )
    };
    let mut lines: Vec<String> = decisions.iter().take(MOST_DECISIONS).map(line).collect();
    if decisions.len() > MOST_DECISIONS {
        let more = decisions.len() - MOST_DECISIONS;
        lines.push(format!("and {more} more, all in --json"));
    }
    lines.join("\n")
}
