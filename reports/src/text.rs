//! The summary of a run for the terminal: the metrics in AIPerf's layout, then counts, rates, memory and workers, and
//! last what the numbers stand on.

mod costs;
mod scaling;

use crate::numbers::{count, counted, percent, separated};
use crate::report::Report;
use sim::Regret;
use sim::ahead::SpeculativePrefill;
use sim::regret::Against;
use sim::summary::{
    AdversitySummary, Distribution, FaultSummary, Goodput, KvbmUse, LinksUse, SpeculationSummary,
    Summary, Transfers, WorkerSummary,
};
use std::collections::BTreeMap;

/// Runs with more workers list the pools only.
const MOST_WORKERS_LISTED: usize = 32;

/// The report as text, at most 110 characters wide unless a name is longer.
#[must_use]
pub fn summary(report: &Report) -> String {
    let summary = &report.summary;
    let sections = [
        Some(requests(summary)),
        Some(latency(summary)),
        Some(throughput(summary)),
        Some(memory(summary)),
        workers(summary),
        report.regret.as_ref().map(regret),
        Some(provenance(report)),
    ];
    sections
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Rows of cells: the first column to the left, the others to the right, each as wide as its widest cell but no less than
/// 10 characters, so that blocks under one another line up.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(if column == 0 { 34 } else { 10 })
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.chars().count());
            line += &if column == 0 {
                format!("{cell}{space}")
            } else {
                format!("  {space}{cell}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(name: &str, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(cells).collect()
}

/// Facts in words, each with its topic; further lines of a fact are indented.
fn facts(facts: &[(&str, String)]) -> String {
    let line = |topic: &str, text: &str| format!("{topic:<16}{text}\n");
    facts
        .iter()
        .flat_map(|(topic, text)| {
            text.lines()
                .zip(std::iter::once(*topic).chain(std::iter::repeat("")))
        })
        .map(|(text, topic)| line(topic, text))
        .collect()
}

fn requests(summary: &Summary) -> String {
    let counts = &summary.requests;
    let mut ends = vec![format!(
        "{} completed of {}",
        count(counts.completed),
        count(counts.total)
    )];
    if counts.rejected > 0 {
        let reasons = counts
            .rejected_by
            .iter()
            .map(|(reason, n)| format!("{} {reason}", count(*n)));
        ends.push(format!(
            "{} rejected ({})",
            count(counts.rejected),
            reasons.collect::<Vec<_>>().join(", ")
        ));
    }
    if counts.cancelled > 0 {
        ends.push(format!("{} cancelled", count(counts.cancelled)));
    }
    if counts.failed > 0 {
        let reasons = counts.failed_by.iter();
        let reasons = reasons.map(|(reason, n)| format!("{} {reason}", count(*n)));
        ends.push(format!(
            "{} failed ({})",
            count(counts.failed),
            reasons.collect::<Vec<_>>().join(", ")
        ));
    }
    if counts.unfinished > 0 {
        ends.push(format!("{} unfinished", count(counts.unfinished)));
    }
    let mut lines = vec![("Requests", ends.join(" · "))];
    if counts.warmup > 0 {
        lines.push((
            "Warm-up",
            format!(
                "{}, left out of what follows",
                counted(counts.warmup, "request")
            ),
        ));
    }
    if counts.preemptions > 0 {
        lines.push((
            "Preemptions",
            format!(
                "{} in {}",
                count(counts.preemptions),
                counted(counts.preempted, "request")
            ),
        ));
    }
    if let Some(adversity) = &summary.adversity {
        lines.extend(adversities(adversity));
    }
    facts(&lines)
}

/// What went wrong, by what did.
fn adversities(adversity: &AdversitySummary) -> Vec<(&'static str, String)> {
    let told = |parts: &[(u64, &str)]| {
        let parts = parts.iter().filter(|(number, _)| *number > 0);
        let parts = parts.map(|(number, what)| format!("{} {what}", count(*number)));
        parts.collect::<Vec<_>>().join(" · ")
    };
    let mut lines = Vec::new();
    let clients = told(&[
        (adversity.ttft_timeouts, "time-outs before the first token"),
        (adversity.timeouts, "time-outs after it"),
        (adversity.transfer_timeouts, "prompts not read in time"),
        (adversity.shed, "turned away for load"),
        (adversity.retries, "tried again"),
        (adversity.wasted_tokens, "tokens for nothing"),
    ]);
    if !clients.is_empty() {
        lines.push(("Attempts", clients));
    }
    let mut kinds: Vec<&str> = adversity.faults.iter().map(|fault| fault.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind = adversity.faults.iter().filter(|fault| fault.kind == kind);
        let sum = |of: fn(&FaultSummary) -> u64| of_kind.clone().map(of).sum::<u64>();
        let effects = told(&[
            (sum(|it| it.requests), "requests there"),
            (sum(|it| it.migrated), "moved"),
            (sum(|it| it.lost), "lost"),
            (sum(|it| it.recomputed_tokens), "tokens to compute again"),
            (sum(|it| it.missed_events), "KV events missed"),
            (
                sum(|it| it.link.map_or(0, |link| link.held_transfers)),
                "transfers held up",
            ),
            (
                sum(|it| it.link.map_or(0, |link| link.held_s.round() as u64)),
                "seconds of delay",
            ),
            (
                sum(|it| it.sla_minutes_missed.unwrap_or(0)),
                "minutes beyond the SLA",
            ),
        ]);
        let effects = if effects.is_empty() {
            "nobody there"
        } else {
            &effects
        };
        let times = count(of_kind.clone().count() as u64);
        lines.push(("Fault", format!("{times} x {kind}: {effects}")));
    }
    lines
}

fn latency(summary: &Summary) -> String {
    let head = ["avg", "min", "p50", "p90", "p95", "p99", "max"].map(str::to_owned);
    let mut rows = vec![row("Latency (ms)", head)];
    let latency = &summary.latency;
    for (name, values) in [
        ("Time to first token (TTFT)", &latency.ttft_ms),
        ("Gap between tokens (ITL)", &latency.itl_ms),
        ("Time per output token (TPOT)", &latency.tpot_ms),
        ("End to end (E2E)", &latency.e2e_ms),
        ("Queue time", &latency.queue_ms),
    ] {
        rows.push(row(name, distribution(values)));
    }
    aligned(&rows)
}

fn distribution(values: &Distribution) -> Vec<String> {
    if values.count == 0 {
        return vec!["-".to_owned(); 7];
    }
    let cells = [
        values.mean,
        values.min,
        values.p50,
        values.p90,
        values.p95,
        values.p99,
        values.max,
    ];
    cells.map(|value| separated(value, 2)).to_vec()
}

fn throughput(summary: &Summary) -> String {
    let rates = &summary.throughput;
    let number = |value: f64| separated(value, 2);
    let title = format!(
        "Throughput ({} s, {} GPUs)",
        separated(rates.duration_s, 1),
        count(rates.gpus)
    );
    let per_gpu = |value: f64| {
        if rates.gpus == 0 {
            "-".to_owned()
        } else {
            number(value)
        }
    };
    aligned(&[
        row(&title, ["total", "per GPU", "per user"].map(str::to_owned)),
        row(
            "Output tokens/s",
            [
                number(rates.output_tokens_per_s),
                per_gpu(rates.output_tokens_per_s_per_gpu),
                number(rates.output_tokens_per_s_per_user),
            ],
        ),
        row(
            "Input and output tokens/s",
            [
                number(rates.total_tokens_per_s),
                per_gpu(rates.total_tokens_per_s_per_gpu),
            ],
        ),
        row("Requests/s", [number(rates.requests_per_s)]),
    ])
}

fn memory(summary: &Summary) -> String {
    let (prefix, kv) = (&summary.prefix, &summary.kv);
    let reuse = format!(
        "{} of prompt tokens at first admission · {} over all admissions · {} by the router's belief\n\
         {} of requests had a hit",
        percent(prefix.first_admission_share),
        percent(prefix.all_admissions_share),
        percent(prefix.router_overlap_share),
        percent(prefix.requests_with_hit_share),
    );
    let used = format!(
        "{} used on average · {} at the peak of the fullest worker",
        percent(kv.mean_share),
        percent(kv.peak_share)
    );
    let goodput = summary
        .goodput
        .iter()
        .map(|goodput| ("Goodput", goodput_in_words(goodput)));
    let moved = summary
        .transfers
        .iter()
        .map(|transfers| ("KV transfers", transfers_in_words(transfers)));
    let carried =
        (!summary.network.is_empty()).then(|| ("Links", links_in_words(&summary.network)));
    let drafted = summary
        .speculation
        .iter()
        .map(|speculation| ("Speculation", speculation_in_words(speculation)));
    let tiers = summary
        .kvbm
        .iter()
        .map(|kvbm| ("KV tiers", kvbm_in_words(kvbm)));
    let ahead =
        (summary.speculative_prefill.iter()).map(|own| ("Sent ahead", sent_ahead_in_words(own)));
    let scaling = summary.scaling.iter().flat_map(scaling::facts);
    facts(
        &goodput
            .chain([("Prefix reuse", reuse), ("KV cache", used)])
            .chain(moved)
            .chain(carried)
            .chain(drafted)
            .chain(ahead)
            .chain(tiers)
            .chain(scaling)
            .chain(costs::facts(summary))
            .collect::<Vec<_>>(),
    )
}

fn sent_ahead_in_words(own: &SpeculativePrefill) -> String {
    let computed = own.prompt_tokens - own.cached_tokens;
    format!(
        "{} of the front end's own, {} refused · {} tokens computed, {} more were cached · {} followed by a turn, {} in time",
        counted(own.requests, "request"),
        own.rejected,
        separated(computed as f64, 0),
        separated(own.cached_tokens as f64, 0),
        own.followed,
        own.in_time
    )
}

fn kvbm_in_words(kvbm: &KvbmUse) -> String {
    let [mean, p99] = [kvbm.onboard_ms.mean, kvbm.onboard_ms.p99].map(|ms| separated(ms, 1));
    let mut text = format!(
        "{}, mean and p99 {mean} and {p99} ms each",
        counted(kvbm.onboardings, "onboarding")
    );
    let tiers = [
        ("host", &kvbm.host),
        ("disk", &kvbm.disk),
        ("object", &kvbm.object),
    ];
    for (name, tier) in tiers {
        let Some(tier) = tier else { continue };
        let [up, down] = [tier.onboarded_bytes, tier.offloaded_bytes]
            .map(|bytes| separated(bytes as f64 / 1e9, 1));
        text.push_str(&format!(
            "\n{name}: {} of the tokens, {} of what was not above · {up} GB up, {down} GB down · {} full at most",
            percent(tier.token_share),
            percent(tier.hit_share),
            percent(tier.peak_share)
        ));
    }
    text
}

fn transfers_in_words(transfers: &Transfers) -> String {
    let of = |times: &Distribution| {
        let [mean, p99] = [times.mean, times.p99].map(|ms| separated(ms, 1));
        format!("{mean} and {p99} ms")
    };
    let failed = match transfers.failed {
        0 => String::new(),
        failed => format!(", {} failed", count(failed)),
    };
    format!(
        "{}, {} GB{failed} · {} of their prompt tokens were there already\n\
         mean and p99: {} each\n\
         after the prefill {}, {} of it for blocks",
        counted(transfers.count, "transfer"),
        separated(transfers.bytes as f64 / 1e9, 1),
        percent(transfers.hit_share),
        of(&transfers.transfer_ms),
        of(&transfers.exposed_ms),
        of(&transfers.wait_ms),
    )
}

/// One kind of link after the other.
fn links_in_words(network: &BTreeMap<&'static str, LinksUse>) -> String {
    let kind = |(name, links): (&&str, &LinksUse)| {
        format!(
            "{name}: {} GB over {}, {} used, {} of the busiest",
            separated(links.bytes as f64 / 1e9, 1),
            counted(links.links, "way"),
            percent(links.utilisation),
            percent(links.busiest_utilisation),
        )
    };
    let kinds: Vec<String> = network.iter().map(kind).collect();
    kinds.join("\n")
}

fn speculation_in_words(speculation: &SpeculationSummary) -> String {
    format!(
        "{} tokens per step and sequence · {} of {} accepted",
        separated(speculation.acceptance_length, 2),
        percent(speculation.acceptance_rate),
        counted(speculation.draft_tokens, "draft"),
    )
}

fn goodput_in_words(goodput: &Goodput) -> String {
    let bound = |name: &str, bound: Option<f64>| bound.map(|ms| format!("{name} ≤ {ms} ms"));
    let bounds: Vec<String> = bound("TTFT", goodput.ttft_ms)
        .into_iter()
        .chain(bound("TPOT", goodput.itl_ms))
        .collect();
    format!(
        "{} ({}) within {}, {}/s\n{} of one-minute windows had 90 % of their requests within it",
        counted(goodput.requests, "request"),
        percent(goodput.share),
        if bounds.is_empty() {
            "no bound".to_owned()
        } else {
            bounds.join(" and ")
        },
        separated(goodput.requests_per_s, 2),
        percent(goodput.window_share)
    )
}

/// Of places for workers those that were used.
fn workers(summary: &Summary) -> Option<String> {
    let scales = summary.scaling.is_some();
    let all = summary.workers.iter();
    let workers: Vec<&WorkerSummary> = all.filter(|it| !scales || it.requests > 0).collect();
    if workers.is_empty() || workers.len() > MOST_WORKERS_LISTED {
        return None;
    }
    let head = [
        "requests",
        "steps",
        "busy",
        "prefill tok",
        "decode tok",
        "preempted",
        "KV peak",
    ]
    .map(str::to_owned);
    let mut rows = vec![row("Worker", head)];
    for worker in workers {
        let cells = [
            count(worker.requests),
            count(worker.steps),
            percent(worker.utilisation),
            count(worker.prefill_tokens),
            count(worker.decode_tokens),
            count(worker.preemptions),
            percent(worker.kv_peak_share),
        ];
        rows.push(row(&format!("{} {}", worker.worker, worker.pool), cells));
    }
    Some(aligned(&rows))
}

fn regret(regret: &Regret) -> String {
    let head = [
        "chosen",
        "second",
        "2nd better",
        "regret",
        "at most",
        "saved all",
        "+-",
    ];
    let number = |value: f64| separated(value, 1);
    let cells = |latency: &Against| {
        [
            number(latency.chosen_mean),
            number(latency.second_mean),
            percent(latency.second_better_share),
            number(latency.regret_mean),
            number(latency.regret_max),
            number(latency.saved_all_mean),
            number(latency.saved_all_error),
        ]
    };
    let title = format!(
        "{} against 2nd choice (ms)",
        counted(regret.compared, "decision")
    );
    aligned(&[
        row(&title, head.map(str::to_owned)),
        row("TTFT", cells(&regret.ttft_ms)),
        row("E2E", cells(&regret.e2e_ms)),
    ])
}

/// The engine, or each pool with its own where they differ.
fn engines(report: &Report) -> String {
    let mut all = report.engines.values();
    let first = all.next().cloned().unwrap_or_default();
    if all.all(|other| *other == first) {
        return first;
    }
    let pools = report.engines.iter();
    let pools: Vec<String> = pools
        .map(|(pool, engine)| format!("{pool} {engine}"))
        .collect();
    pools.join(", ")
}

fn provenance(report: &Report) -> String {
    let timing = &report.timing;
    let version = report.dynosim_version;
    let mut lines = vec![
        (
            "Scenario",
            format!(
                "{} · seed {} · digest {:.16} · dynosim {version}",
                report.scenario, report.seed, report.digest
            ),
        ),
        ("Workload", report.workload.clone()),
        ("Engine", engines(report)),
    ];
    if !report.overrides.is_empty() {
        let set = |(field, value): (&String, &String)| format!("{field}={value}");
        let all: Vec<String> = report.overrides.iter().map(set).collect();
        lines.push(("Set", all.join(", ")));
    }
    lines.push((
        "Timing",
        format!("{} ({}): {}", timing.source, timing.basis, timing.detail),
    ));
    if report.summary.extrapolated_share > 0.0 {
        let share = percent(report.summary.extrapolated_share);
        let text = format!("{share} of the time in steps lies beyond what was measured");
        lines.push(("Extrapolated", text));
    }
    lines.extend(
        timing
            .guesses
            .iter()
            .map(|guess| ("Stands on", guess.clone())),
    );
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_summary_by_the_letter() {
        assert_eq!(
            summary(&sample::report()),
            include_str!("../tests/golden/summary.txt")
        );
    }

    #[test]
    fn an_empty_run_has_dashes_instead_of_latencies() {
        let summary = sim::summarize(&sim::Recording::default(), &[], None);
        let text = super::summary(&Report {
            summary,
            ..sample::report()
        });
        let ttft = text
            .lines()
            .find(|line| line.starts_with("Time to first token"))
            .unwrap();
        assert_eq!(
            ttft.split_whitespace().filter(|word| *word == "-").count(),
            7
        );
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn what_went_wrong_is_told_by_what_did() {
        let adversity = sample::adverse().adversity.unwrap();
        let lines = adversities(&adversity);
        let expected = [
            (
                "Attempts",
                "1 time-outs before the first token · 1 time-outs after it · 4 prompts not read in time · 2 turned away for load · 3 tried again · \
                 17 tokens for nothing",
            ),
            (
                "Fault",
                "1 x crash: 2 requests there · 1 moved · 1 lost · 1,234 tokens to compute again · 1 minutes beyond the SLA",
            ),
            (
                "Fault",
                "1 x event_loss: 2 requests there · 5 KV events missed · 1 minutes beyond the SLA",
            ),
            (
                "Fault",
                "1 x link_down: 1 transfers held up · 12 seconds of delay · 1 minutes beyond the SLA",
            ),
            (
                "Fault",
                "1 x node_loss: 2 requests there · 1 minutes beyond the SLA",
            ),
        ];
        assert_eq!(
            lines,
            expected.map(|(topic, words)| (topic, words.to_owned()))
        );
    }
}
