//! The numbers of one run as a flat row: stable dotted names, typed values, always in the same order.
//!
//! A [`Summary`] is taken apart field by field with exhaustive patterns, so that a field added to it does not compile
//! until it has a name here. The names are those of the JSON report (`latency.ttft_ms.p99`); per-worker numbers, whose
//! count differs from point to point, enter as least, mean and greatest over the workers.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sim::summary::{KvUse, Latency, PrefixReuse, RequestCounts, Throughput};
use sim::{Distribution, Goodput, Recording, Rejection, Summary};
use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

/// Name of a metric; borrowed for all that a [`Summary`] holds.
pub type Name = Cow<'static, str>;

/// Generated tokens per second and GPU: what the frontier maximises first.
pub const TOKENS_PER_S_PER_GPU: &str = "throughput.output_tokens_per_s_per_gpu";
/// Generated tokens per second that one user sees: the other axis of the frontier.
pub const TOKENS_PER_S_PER_USER: &str = "throughput.output_tokens_per_s_per_user";
/// Share of requests that meet the SLA, refused ones counting as misses.
pub const SLA_SHARE: &str = "goodput.share";
/// Refused requests / all requests.
pub const REJECTED_SHARE: &str = "requests.rejected_share";
/// Requests that were still running when the simulation ended.
pub const UNFINISHED: &str = "requests.unfinished";

const REJECTIONS: [Rejection; 4] = [
    Rejection::PromptTooLong,
    Rejection::PromptExceedsKvCache,
    Rejection::OutputExceedsKvCache,
    Rejection::DependencyRejected,
];

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A measured quantity, finite.
    Real(f64),
    /// The run has no such number (no SLA, no request that finished).
    Missing,
}

impl Value {
    /// As a number, if there is one.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Value::Count(count) => Some(count as f64),
            Value::Real(real) => Some(real),
            Value::Missing => None,
        }
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Value {
        Value::Count(count)
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Value {
        if real.is_finite() { Value::Real(real) } else { Value::Missing }
    }
}

/// The metrics of one run in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    cells: Vec<(Name, Value)>,
}

impl Row {
    /// A row of the given cells; names must differ.
    #[must_use]
    pub fn new(cells: Vec<(Name, Value)>) -> Row {
        Row { cells }
    }

    /// The cells in order.
    #[must_use]
    pub fn cells(&self) -> &[(Name, Value)] {
        &self.cells
    }

    /// The value of a metric; [`Value::Missing`] when the row has no such metric.
    #[must_use]
    pub fn get(&self, name: &str) -> Value {
        self.cells.iter().find(|(cell, _)| cell == name).map_or(Value::Missing, |(_, value)| *value)
    }

    /// The value of a metric as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name).number()
    }

    /// Takes a summary apart.
    #[must_use]
    pub fn from_summary(summary: &Summary) -> Row {
        let Summary { requests, latency, throughput, goodput, prefix, kv, workers } = summary;
        let mut row = Row { cells: Vec::with_capacity(96) };
        row.requests(requests);
        row.latency(latency);
        row.throughput(throughput);
        row.goodput(goodput.as_ref());
        let PrefixReuse { first_admission_share, all_admissions_share, router_overlap_share, requests_with_hit_share } =
            prefix;
        row.push("prefix.first_admission_share", *first_admission_share);
        row.push("prefix.all_admissions_share", *all_admissions_share);
        row.push("prefix.router_overlap_share", *router_overlap_share);
        row.push("prefix.requests_with_hit_share", *requests_with_hit_share);
        let KvUse { peak_share, mean_share } = kv;
        row.push("kv.peak_share", *peak_share);
        row.push("kv.mean_share", *mean_share);
        row.push("workers.count", workers.len() as u64);
        row.spread("workers.utilisation", workers.iter().map(|worker| worker.utilisation));
        row.spread("workers.requests", workers.iter().map(|worker| worker.requests as f64));
        row
    }

    fn push(&mut self, name: impl Into<Name>, value: impl Into<Value>) {
        self.cells.push((name.into(), value.into()));
    }

    fn requests(&mut self, counts: &RequestCounts) {
        let RequestCounts { total, completed, rejected, rejected_by, unfinished, warmup, preemptions, preempted } =
            counts;
        self.push("requests.total", *total);
        self.push("requests.completed", *completed);
        self.push("requests.rejected", *rejected);
        self.push(REJECTED_SHARE, if *total == 0 { 0.0 } else { *rejected as f64 / *total as f64 });
        for reason in REJECTIONS {
            let count = rejected_by.get(reason.name()).copied().unwrap_or(0);
            self.push(format!("requests.rejected_by.{}", reason.name()), count);
        }
        self.push(UNFINISHED, *unfinished);
        self.push("requests.warmup", *warmup);
        self.push("requests.preemptions", *preemptions);
        self.push("requests.preempted", *preempted);
    }

    fn latency(&mut self, latency: &Latency) {
        let Latency { ttft_ms, itl_ms, tpot_ms, e2e_ms, queue_ms } = latency;
        self.distribution("latency.ttft_ms", ttft_ms);
        self.distribution("latency.itl_ms", itl_ms);
        self.distribution("latency.tpot_ms", tpot_ms);
        self.distribution("latency.e2e_ms", e2e_ms);
        self.distribution("latency.queue_ms", queue_ms);
    }

    /// An empty distribution has a count and no values: zeros would look like excellent latencies.
    fn distribution(&mut self, name: &str, values: &Distribution) {
        let Distribution { count, mean, min, p50, p90, p95, p99, max } = *values;
        self.push(format!("{name}.count"), count);
        for (part, value) in
            [("mean", mean), ("min", min), ("p50", p50), ("p90", p90), ("p95", p95), ("p99", p99), ("max", max)]
        {
            self.push(format!("{name}.{part}"), if count == 0 { Value::Missing } else { value.into() });
        }
    }

    fn throughput(&mut self, throughput: &Throughput) {
        let Throughput {
            duration_s,
            requests_per_s,
            output_tokens_per_s,
            total_tokens_per_s,
            gpus,
            output_tokens_per_s_per_gpu,
            total_tokens_per_s_per_gpu,
            output_tokens_per_s_per_user,
        } = throughput;
        self.push("throughput.duration_s", *duration_s);
        self.push("throughput.requests_per_s", *requests_per_s);
        self.push("throughput.output_tokens_per_s", *output_tokens_per_s);
        self.push("throughput.total_tokens_per_s", *total_tokens_per_s);
        self.push("throughput.gpus", *gpus);
        self.push(TOKENS_PER_S_PER_GPU, *output_tokens_per_s_per_gpu);
        self.push("throughput.total_tokens_per_s_per_gpu", *total_tokens_per_s_per_gpu);
        self.push(TOKENS_PER_S_PER_USER, *output_tokens_per_s_per_user);
    }

    fn goodput(&mut self, goodput: Option<&Goodput>) {
        let values = goodput.map(|goodput| {
            let Goodput { ttft_ms: _, itl_ms: _, requests, share, requests_per_s, window_share } = *goodput;
            [requests.into(), share.into(), requests_per_s.into(), window_share.into()]
        });
        let values = values.unwrap_or([Value::Missing; 4]);
        let names = ["goodput.requests", SLA_SHARE, "goodput.requests_per_s", "goodput.window_share"];
        for (name, value) in names.into_iter().zip(values) {
            self.push(name, value);
        }
    }

    /// Least, mean and greatest over the workers.
    fn spread(&mut self, name: &str, values: impl Iterator<Item = f64> + Clone) {
        let count = values.clone().count() as f64;
        self.push(format!("{name}.min"), values.clone().fold(f64::INFINITY, f64::min));
        self.push(format!("{name}.mean"), values.clone().sum::<f64>() / count);
        self.push(format!("{name}.max"), values.fold(f64::NEG_INFINITY, f64::max));
    }
}

/// A JSON object in the row's order.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.cells.len()))?;
        for (name, value) in &self.cells {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        struct Cells;
        impl<'de> Visitor<'de> for Cells {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metric names and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut cells = Vec::with_capacity(96);
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    cells.push((Name::Owned(name), value));
                }
                Ok(Row { cells })
            }
        }
        deserializer.deserialize_map(Cells)
    }
}

/// The names of all metrics of a [`Summary`], in the order of a row.
#[must_use]
pub fn metric_names() -> &'static [Name] {
    static NAMES: OnceLock<Vec<Name>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let row = Row::from_summary(&sim::summarize(&Recording::default(), &[], None));
        row.cells.into_iter().map(|(name, _)| name).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn empty() -> Summary {
        sim::summarize(&Recording::default(), &[], None)
    }

    /// A summary whose numbers are all different.
    fn example() -> Summary {
        let values = |from: f64| Distribution {
            count: 7,
            mean: from + 0.1,
            min: from,
            p50: from + 0.2,
            p90: from + 0.3,
            p95: from + 0.4,
            p99: from + 0.5,
            max: from + 0.6,
        };
        let mut summary = empty();
        summary.requests.total = 10;
        summary.requests.completed = 7;
        summary.requests.rejected = 2;
        summary.requests.rejected_by = BTreeMap::from([("prompt_too_long", 2)]);
        summary.requests.unfinished = 1;
        summary.latency = Latency {
            ttft_ms: values(100.0),
            itl_ms: values(10.0),
            tpot_ms: values(20.0),
            e2e_ms: values(1000.0),
            queue_ms: values(50.0),
        };
        summary.throughput.output_tokens_per_s_per_gpu = 1.0 / 3.0;
        summary.throughput.output_tokens_per_s_per_user = 41.5;
        summary.throughput.gpus = 8;
        summary
    }

    #[test]
    fn every_number_of_the_json_report_is_in_the_row_under_its_name() {
        let summary = example();
        let row = Row::from_summary(&summary);
        let report = serde_json::to_value(&summary).unwrap();
        let mut leaves = Vec::new();
        flatten("", &report, &mut leaves);
        leaves.retain(|(name, _)| !name.starts_with("workers"));
        for (name, number) in &leaves {
            assert_eq!(row.number(name), Some(*number), "{name}");
        }
        assert!(leaves.len() > 55, "{} leaves compared", leaves.len());
    }

    fn flatten(prefix: &str, value: &serde_json::Value, leaves: &mut Vec<(String, f64)>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    flatten(&name, value, leaves);
                }
            }
            serde_json::Value::Number(number) => leaves.push((prefix.to_owned(), number.as_f64().unwrap())),
            _ => {}
        }
    }

    #[test]
    fn names_are_unique_and_the_same_for_every_summary() {
        let names = metric_names();
        let mut sorted: Vec<_> = names.iter().collect();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len());
        let row = Row::from_summary(&example());
        assert!(row.cells().iter().map(|(name, _)| name).eq(names));
        for name in [TOKENS_PER_S_PER_GPU, TOKENS_PER_S_PER_USER, SLA_SHARE, REJECTED_SHARE, UNFINISHED] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn json_gives_back_the_row_to_the_last_bit() {
        let mut cells = Vec::new();
        let mut bits = 0x3ff0_0000_0000_0001u64;
        for index in 0..2000 {
            cells.push((Name::Owned(format!("x{index}")), Value::from(f64::from_bits(bits))));
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
        cells.push(("count".into(), Value::Count(u64::MAX)));
        cells.push(("whole".into(), Value::Real(5.0)));
        cells.push(("none".into(), Value::Missing));
        let row = Row::new(cells);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }

    #[test]
    fn every_reason_of_a_refusal_has_a_column() {
        // A new reason does not compile here until it is added to the list.
        let place = |reason| match reason {
            Rejection::PromptTooLong => 0,
            Rejection::PromptExceedsKvCache => 1,
            Rejection::OutputExceedsKvCache => 2,
            Rejection::DependencyRejected => 3,
        };
        assert!(REJECTIONS.into_iter().map(place).eq(0..4));
    }

    #[test]
    fn an_empty_distribution_has_no_values() {
        let row = Row::from_summary(&empty());
        assert_eq!(row.get("latency.ttft_ms.count"), Value::Count(0));
        assert_eq!(row.get("latency.ttft_ms.p99"), Value::Missing);
        assert_eq!(row.get(SLA_SHARE), Value::Missing);
    }
}
