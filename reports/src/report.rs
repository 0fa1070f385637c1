//! The JSON report of a run: where its numbers come from, then the numbers, under names that do not change.
//!
//! `docs/metrics.md` defines every field. A program that reads reports looks at `schema_version` first: it grows when a field
//! is renamed, removed or redefined, not when one is added.

use crate::files::{Error, write_atomically};
use engine::TimingSource;
use serde::Serialize;
use sim::{Regret, Summary};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Grows when a field of the report is renamed, removed or redefined.
pub const SCHEMA_VERSION: u32 = 1;

/// The report of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The program's version.
    pub dynosim_version: &'static str,
    /// The scenario: its file or its name.
    pub scenario: String,
    /// The traffic in words: its file and the part of it that was sent, or its generator, and how it was sent.
    pub workload: String,
    /// Fields of the scenario that were set from outside, with their values as given; the last word on each.
    pub overrides: BTreeMap<String, String>,
    /// The seed of all random streams.
    pub seed: u64,
    /// Digest over scenario, workload, timing and version: equal digests have equal results.
    pub digest: String,
    /// Digest over the requests alone: results over the same workload can be compared request by request.
    pub workload_digest: String,
    /// The engine of each pool: `vllm`, `sglang` or `trtllm`.
    pub engines: BTreeMap<String, String>,
    /// Where step times come from.
    pub timing: Timing,
    /// The numbers.
    #[serde(flatten)]
    pub summary: Summary,
    /// What the second choices of a sample of routing decisions would have given; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regret: Option<Regret>,
}

/// Where step times come from and how far they can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// Short stable name: `linear`, `polynomial`, `roofline`, ...
    pub source: String,
    /// `given`, `measured`, `fitted` or `estimated`.
    pub basis: &'static str,
    /// One line with the parameters.
    pub detail: String,
    /// What was assumed because nothing better was known, a sentence each.
    pub guesses: Vec<String>,
}

impl From<TimingSource> for Timing {
    fn from(source: TimingSource) -> Timing {
        Timing {
            source: source.name,
            basis: source.basis.name(),
            detail: source.detail,
            guesses: source.guesses,
        }
    }
}

/// What a report says about a run besides its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// See [`Report::scenario`].
    pub scenario: String,
    /// See [`Report::workload`].
    pub workload: String,
    /// See [`Report::overrides`].
    pub overrides: BTreeMap<String, String>,
    /// See [`Report::seed`].
    pub seed: u64,
    /// See [`Report::digest`].
    pub digest: String,
    /// See [`Report::workload_digest`].
    pub workload_digest: String,
    /// See [`Report::engines`].
    pub engines: BTreeMap<String, String>,
    /// See [`Report::timing`]; guesses made elsewhere (block counts, unmeasured hardware) belong to its list as well.
    pub timing: Timing,
}

impl Report {
    /// The report of a run of this version of the program.
    #[must_use]
    pub fn new(provenance: Provenance, summary: Summary) -> Report {
        let Provenance {
            scenario,
            workload,
            overrides,
            seed,
            digest,
            workload_digest,
            engines,
            timing,
        } = provenance;
        let dynosim_version = env!("CARGO_PKG_VERSION");
        Report {
            schema_version: SCHEMA_VERSION,
            dynosim_version,
            scenario,
            workload,
            overrides,
            seed,
            digest,
            workload_digest,
            engines,
            timing,
            summary,
            regret: None,
        }
    }

    /// The report as indented JSON with a final line feed.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data") + "\n"
    }

    /// Writes [`Report::json`] to a file.
    ///
    /// # Errors
    /// When the file cannot be written; nothing half-written is left.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_atomically(path, |out| out.write_all(self.json().as_bytes()))
    }

    /// Where the numbers come from in one line, for the small print of pictures.
    #[must_use]
    pub fn footer(&self) -> String {
        let Timing {
            source,
            basis,
            guesses,
            ..
        } = &self.timing;
        let guessed = match guesses.len() {
            0 => String::new(),
            1 => ", 1 guess".to_owned(),
            more => format!(", {more} guesses"),
        };
        format!(
            "dynosim {} · timing: {source} ({basis}{guessed}) · seed {} · digest {:.12}",
            self.dynosim_version, self.seed, self.digest
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::sample;
    use engine::Span;
    use serde_json::Value;
    use sim::Regret;
    use sim::ScalingSummary;
    use sim::costs::{CostSummary, EnergySummary, PoolCost, PriceSummary, SpotSummary};
    use sim::scaling::{
        ChangeSummary, DecisionSummary, GpuHours, LoadSummary, PoolSummary, UpdateSummary,
        WeightsSummary,
    };
    use sim::virtual_clock::Sample;
    use std::collections::{BTreeMap, BTreeSet};

    /// The paths of all leaves: `a.b`, `a[].b`.
    fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    paths(field, &format!("{path}{dot}{name}"), found);
                }
            }
            Value::Array(items) => items
                .iter()
                .for_each(|item| paths(item, &format!("{path}[]"), found)),
            _ => {
                found.insert(path.to_owned());
            }
        }
    }

    fn fields_of_a_report() -> BTreeSet<String> {
        let sample = Sample {
            decisions: 0,
            seed: 0,
            horizon: Span::ZERO,
        };
        let adverse = sample::adverse();
        let mut report = super::Report {
            regret: Some(Regret::new(sample, &[])),
            ..sample::report()
        };
        report.summary.requests = adverse.requests;
        report.summary.adversity = adverse.adversity;
        report.summary.scaling = Some(scaling());
        report.summary.costs = Some(costs());
        report.summary.energy = Some(energy());
        let mut found = BTreeSet::new();
        let report = serde_json::from_str(&report.json()).unwrap();
        paths(&report, "", &mut found);
        found
    }

    /// One of everything that a planner's part may have.
    fn scaling() -> ScalingSummary {
        let hours = GpuHours::default();
        let change = ChangeSummary {
            from: 1,
            ready: 1,
            to: 2,
        };
        ScalingSummary {
            policy: "dynamo",
            ticks: 1,
            reasons: BTreeMap::from([("scale_up", 1)]),
            workers_started: 1,
            workers_called_off: 0,
            workers_drained: 0,
            workers_called_in: 0,
            workers_switched: 0,
            peak_workers: 2,
            mean_ready: 1.5,
            gpu_hours: hours,
            pools: vec![PoolSummary {
                pool: "agg".to_owned(),
                gpu_hours: hours,
                fewest_ready: 1,
                most_ready: 2,
            }],
            decisions: vec![DecisionSummary {
                time_s: 1.0,
                reason: "scale_up",
                prefill: Some(change),
                decode: Some(change),
                estimated_ttft_ms: Some(1.0),
                estimated_itl_ms: Some(1.0),
                predicted_requests: Some(1.0),
            }],
            updates: vec![UpdateSummary {
                pool: "agg".to_owned(),
                began_s: 10.0,
                took_s: Some(5.0),
                replaced: 1,
                surge: 1,
                unavailable: 0,
                mixed_s: 0.0,
                fewest_ready: 1,
                ttft_ms: sim::Distribution::default(),
                other_ttft_ms: sim::Distribution::default(),
            }],
            weights: Some(WeightsSummary {
                starts: 1,
                streamed: 1,
                fell_back: 0,
                went_on: 0,
                bytes: 16_000_000_000,
                stream_ms: sim::Distribution::default(),
                loads: vec![LoadSummary {
                    worker: 1,
                    from: Some(0),
                    began_s: 1.0,
                    ended_s: Some(2.0),
                    bytes: 16_000_000_000,
                    fell_back: false,
                }],
            }),
        }
    }

    fn costs() -> CostSummary {
        CostSummary {
            usd: 1.0,
            usd_per_hour: 1.0,
            usd_per_million_tokens: 1.0,
            usd_per_million_output_tokens: 1.0,
            usd_per_thousand_good_requests: Some(1.0),
            unused_usd: 0.0,
            prices: vec![PriceSummary {
                price: "on-demand".to_owned(),
                usd_per_gpu_hour: 1.0,
                gpu_hours: 1.0,
                unused_gpu_hours: 0.0,
                usd: 1.0,
                source: Some("a contract".to_owned()),
            }],
            pools: vec![PoolCost {
                pool: "agg".to_owned(),
                starting_usd: 0.0,
                spare_usd: 0.0,
                ready_usd: 1.0,
                draining_usd: 0.0,
            }],
            spot: Some(SpotSummary {
                interruptions: 1,
                requests: 3,
                migrated: 1,
                lost: 1,
                recomputed_tokens: 100,
                listed_saved_share: 0.7,
                on_demand_usd: 3.0,
                on_demand_usd_per_thousand_good_requests: Some(3.0),
                on_demand_good_share: Some(1.0),
                saved_share: 0.6,
            }),
        }
    }

    fn energy() -> EnergySummary {
        EnergySummary {
            basis: "estimated",
            kwh: 1.0,
            prefill_kwh: 0.5,
            decode_kwh: 0.25,
            idle_kwh: 0.25,
            mean_kw: 1.0,
            kwh_per_million_output_tokens: 1.0,
            usd: Some(0.1),
        }
    }

    /// The names in the first column of the tables of the page.
    fn fields_of_the_page() -> BTreeSet<String> {
        let page = include_str!("../../docs/metrics.md");
        let first_cells = page
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        first_cells
            .flat_map(|cell| cell.split(", "))
            .filter_map(|name| name.strip_prefix('`')?.strip_suffix('`'))
            .map(str::to_owned)
            .collect()
    }

    /// How the page names a field: itself, or a family and a member for distributions, or a family for reasons.
    fn names(field: &str) -> Vec<String> {
        match field.split('.').collect::<Vec<_>>()[..] {
            [family @ ("latency" | "transfers"), metric, statistic] => {
                vec![format!("{family}.{metric}.*"), format!("*.{statistic}")]
            }
            ["network", _, member] => vec![format!("network.*.{member}")],
            ["kvbm", tier, member] if ["host", "disk", "object"].contains(&tier) => {
                vec![format!("kvbm.*.{member}")]
            }
            ["kvbm", metric, statistic] => {
                vec![format!("kvbm.{metric}.*"), format!("*.{statistic}")]
            }
            ["regret", latency, statistic] => vec![
                format!("regret.{latency}.*"),
                format!("regret.*.{statistic}"),
            ],
            [family @ ("overrides" | "engines"), ..] => vec![format!("{family}.*")],
            ["requests", by @ ("rejected_by" | "failed_by"), _] => {
                vec![format!("requests.{by}.*")]
            }
            ["scaling", "reasons", _] => vec!["scaling.reasons.*".to_owned()],
            ["scaling", "gpu_hours", state] | ["scaling", "pools[]", "gpu_hours", state] => {
                vec![format!("scaling.*.{state}")]
            }
            [
                "scaling",
                "updates[]",
                ttft @ ("ttft_ms" | "other_ttft_ms"),
                statistic,
            ] => vec![
                format!("scaling.updates[].{ttft}.*"),
                format!("*.{statistic}"),
            ],
            ["scaling", "weights", "stream_ms", statistic] => vec![
                "scaling.weights.stream_ms.*".to_owned(),
                format!("*.{statistic}"),
            ],
            ["scaling", "decisions[]", "prefill" | "decode", member] => {
                vec![format!("scaling.decisions[].*.{member}")]
            }
            _ => vec![field.to_owned()],
        }
    }

    #[test]
    fn the_page_defines_every_field_and_no_other() {
        let used: BTreeSet<String> = fields_of_a_report()
            .iter()
            .flat_map(|field| names(field))
            .collect();
        assert_eq!(used, fields_of_the_page());
        assert!(used.len() > 50, "{used:?}");
    }

    #[test]
    fn the_report_has_the_promised_names() {
        let report: Value = serde_json::from_str(&sample::report().json()).unwrap();
        assert_eq!(report["latency"]["ttft_ms"]["p99"], 300.0);
        assert_eq!(report["requests"]["rejected"], 1);
        assert_eq!(report["timing"]["source"], "roofline");
        assert_eq!(report["timing"]["basis"], "estimated");
        assert_eq!(report["seed"], 42);
        assert_eq!(report["workload"], "trace.jsonl");
        assert_eq!(report["overrides"]["router.mode"], "kv");
        assert_eq!(report["throughput"]["gpus"], 8);
    }

    #[test]
    fn an_empty_run_reports_zeros_and_nothing_that_is_not_json() {
        let summary = sim::summarize(&sim::Recording::default(), &[], Some(sim::Sla::default()));
        let report = super::Report {
            summary,
            ..sample::report()
        };
        let read: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(read["latency"]["itl_ms"]["p50"], 0.0);
        // serde_json writes NaN and infinities as null; only absent bounds may be null.
        assert_eq!(report.json().matches("null").count(), 2);
    }

    #[test]
    fn the_footer_names_source_basis_and_guesses() {
        let footer = sample::report().footer();
        assert!(
            footer.contains("roofline (estimated, 1 guess)")
                && footer.contains("digest 0123456789ab"),
            "{footer}"
        );
    }
}
