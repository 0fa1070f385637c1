//! The numbers of one run as a flat row: stable dotted names, typed values, always in the same order.
//!
//! A [`Summary`] is taken apart field by field with exhaustive patterns, so that a field added to it does not compile
//! until it has a name here. The names are those of the JSON report (`latency.ttft_ms.p99`); per-worker numbers, whose
//! count differs from point to point, enter as least, mean and greatest over the workers.

use crate::row::{Name, Row, Value};
use sim::ahead::SpeculativePrefill;
use sim::costs::{CostSummary, EnergySummary, SpotSummary};
use sim::links::LinkKind;
use sim::summary::{
    AdversitySummary, KvUse, KvbmUse, Latency, LinksUse, PrefixReuse, RequestCounts, Throughput,
    TierUse, Transfers,
};
use sim::{Distribution, Failure, Goodput, Recording, Rejection, ScalingSummary, Summary};
use std::collections::BTreeMap;
use std::sync::OnceLock;

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

const REJECTIONS: [Rejection; 8] = [
    Rejection::PromptTooLong,
    Rejection::PromptExceedsKvCache,
    Rejection::OutputExceedsKvCache,
    Rejection::NoWorkerInDomain,
    Rejection::DependencyRejected,
    Rejection::RequiredTaintsUnmet,
    Rejection::Overloaded,
    Rejection::NoWorker,
];
/// Why an accepted request can be without an answer, as in the books.
const FAILURES: [Failure; 3] = [Failure::TtftTimeout, Failure::Timeout, Failure::WorkerLost];

impl Row {
    /// Takes a summary apart.
    #[must_use]
    pub fn from_summary(summary: &Summary) -> Row {
        let Summary {
            requests,
            latency,
            throughput,
            goodput,
            prefix,
            kv,
            extrapolated_share,
            transfers,
            network,
            // What was asked for; a constant of the point.
            speculation: _,
            speculative_prefill,
            kvbm,
            adversity,
            scaling,
            costs,
            energy,
            workers,
        } = summary;
        let mut row = Row::new(Vec::with_capacity(96));
        row.requests(requests);
        row.latency(latency);
        row.throughput(throughput);
        row.goodput(goodput.as_ref());
        let PrefixReuse {
            first_admission_share,
            all_admissions_share,
            router_overlap_share,
            requests_with_hit_share,
        } = prefix;
        row.push("prefix.first_admission_share", *first_admission_share);
        row.push("prefix.all_admissions_share", *all_admissions_share);
        row.push("prefix.router_overlap_share", *router_overlap_share);
        row.push("prefix.requests_with_hit_share", *requests_with_hit_share);
        let KvUse {
            peak_share,
            mean_share,
        } = kv;
        row.push("kv.peak_share", *peak_share);
        row.push("kv.mean_share", *mean_share);
        row.push("extrapolated_share", *extrapolated_share);
        row.transfers(transfers.as_ref());
        row.network(network);
        row.speculative_prefill(speculative_prefill.as_ref());
        row.kvbm(kvbm.as_ref());
        row.adversity(adversity.as_ref());
        row.scaling(scaling.as_ref());
        row.costs(costs.as_ref());
        row.energy(energy.as_ref());
        row.push("workers.count", workers.len() as u64);
        row.spread(
            "workers.utilisation",
            workers.iter().map(|worker| worker.utilisation),
        );
        row.spread(
            "workers.requests",
            workers.iter().map(|worker| worker.requests as f64),
        );
        row
    }

    /// Missing where each worker prefills and decodes.
    fn transfers(&mut self, transfers: Option<&Transfers>) {
        let count =
            |of: fn(&Transfers) -> u64| transfers.map_or(Value::Missing, |it| of(it).into());
        self.push("transfers.count", count(|it| it.count));
        self.push("transfers.failed", count(|it| it.failed));
        self.push("transfers.bytes", count(|it| it.bytes));
        let hits = transfers.map_or(Value::Missing, |it| it.hit_share.into());
        self.push("transfers.hit_share", hits);
        let none = Distribution::default();
        let times = |of: fn(&Transfers) -> &Distribution| transfers.map_or(&none, of);
        self.distribution("transfers.wait_ms", times(|it| &it.wait_ms));
        self.distribution("transfers.transfer_ms", times(|it| &it.transfer_ms));
        self.distribution("transfers.exposed_ms", times(|it| &it.exposed_ms));
    }

    /// Missing where there are no such links.
    fn network(&mut self, network: &BTreeMap<&'static str, LinksUse>) {
        for kind in LinkKind::ALL.map(LinkKind::name) {
            let links = network.get(kind);
            let count = |of: fn(&LinksUse) -> u64| links.map_or(Value::Missing, |it| of(it).into());
            let share = |of: fn(&LinksUse) -> f64| links.map_or(Value::Missing, |it| of(it).into());
            self.push(format!("network.{kind}.links"), count(|it| it.links));
            self.push(format!("network.{kind}.bytes"), count(|it| it.bytes));
            let mean = share(|it| it.utilisation);
            self.push(format!("network.{kind}.utilisation"), mean);
            let busiest = share(|it| it.busiest_utilisation);
            self.push(format!("network.{kind}.busiest_utilisation"), busiest);
            let busy = share(|it| it.busiest_share);
            self.push(format!("network.{kind}.busiest_share"), busy);
        }
    }

    /// Missing where nothing is sent ahead of next turns.
    fn speculative_prefill(&mut self, own: Option<&SpeculativePrefill>) {
        let mut count = |member: &str, of: fn(&SpeculativePrefill) -> u64| {
            let value = own.map_or(Value::Missing, |it| of(it).into());
            self.push(format!("speculative_prefill.{member}"), value);
        };
        count("requests", |it| it.requests);
        count("completed", |it| it.completed);
        count("rejected", |it| it.rejected);
        count("unfinished", |it| it.unfinished);
        count("prompt_tokens", |it| it.prompt_tokens);
        count("cached_tokens", |it| it.cached_tokens);
        count("followed", |it| it.followed);
        count("in_time", |it| it.in_time);
    }

    /// Missing where no worker has tiers below its GPUs.
    fn kvbm(&mut self, kvbm: Option<&KvbmUse>) {
        let none = Distribution::default();
        let onboardings = kvbm.map_or(Value::Missing, |it| it.onboardings.into());
        self.push("kvbm.onboardings", onboardings);
        self.distribution("kvbm.onboard_ms", kvbm.map_or(&none, |it| &it.onboard_ms));
        let tiers = [
            ("host", kvbm.and_then(|it| it.host)),
            ("disk", kvbm.and_then(|it| it.disk)),
            ("object", kvbm.and_then(|it| it.object)),
        ];
        for (name, tier) in tiers {
            let mut share = |member: &str, of: fn(&TierUse) -> f64| {
                let value = tier.as_ref().map_or(Value::Missing, |it| of(it).into());
                self.push(format!("kvbm.{name}.{member}"), value);
            };
            share("peak_share", |it| it.peak_share);
            share("token_share", |it| it.token_share);
            share("hit_share", |it| it.hit_share);
            share("request_share", |it| it.request_share);
            let mut count = |member: &str, of: fn(&TierUse) -> u64| {
                let value = tier.as_ref().map_or(Value::Missing, |it| of(it).into());
                self.push(format!("kvbm.{name}.{member}"), value);
            };
            count("capacity_blocks", |it| it.capacity_blocks);
            count("onboarded_blocks", |it| it.onboarded_blocks);
            count("onboarded_bytes", |it| it.onboarded_bytes);
            count("offloaded_blocks", |it| it.offloaded_blocks);
            count("offloaded_bytes", |it| it.offloaded_bytes);
            count("prefetched_blocks", |it| it.prefetched_blocks);
            count("prefetched_bytes", |it| it.prefetched_bytes);
            count("evicted_blocks", |it| it.evicted_blocks);
            count("filtered_blocks", |it| it.filtered_blocks);
            count("dropped_blocks", |it| it.dropped_blocks);
        }
    }

    /// Missing where nothing can go wrong.
    fn adversity(&mut self, adversity: Option<&AdversitySummary>) {
        let mut count = |member: &str, of: fn(&AdversitySummary) -> u64| {
            let value = adversity.map_or(Value::Missing, |it| of(it).into());
            self.push(format!("adversity.{member}"), value);
        };
        count("retries", |it| it.retries);
        count("ttft_timeouts", |it| it.ttft_timeouts);
        count("timeouts", |it| it.timeouts);
        count("shed", |it| it.shed);
        count("wasted_tokens", |it| it.wasted_tokens);
        count("migrated", |it| it.migrated);
        count("lost", |it| it.lost);
        count("recomputed_tokens", |it| it.recomputed_tokens);
        count("faults", |it| it.faults.len() as u64);
    }

    /// Missing without a planner.
    fn scaling(&mut self, scaling: Option<&ScalingSummary>) {
        let mut count = |name: &'static str, of: fn(&ScalingSummary) -> u64| {
            self.push(name, scaling.map_or(Value::Missing, |it| of(it).into()));
        };
        count("scaling.ticks", |it| it.ticks);
        count("scaling.workers_started", |it| it.workers_started);
        count("scaling.workers_called_off", |it| it.workers_called_off);
        count("scaling.workers_drained", |it| it.workers_drained);
        count("scaling.workers_called_in", |it| it.workers_called_in);
        count("scaling.workers_switched", |it| it.workers_switched);
        count("scaling.peak_workers", |it| it.peak_workers);
        let mut number = |name: &'static str, of: fn(&ScalingSummary) -> f64| {
            self.push(name, scaling.map_or(Value::Missing, |it| of(it).into()));
        };
        number("scaling.mean_ready", |it| it.mean_ready);
        number("scaling.gpu_hours.starting", |it| it.gpu_hours.starting);
        number("scaling.gpu_hours.spare", |it| it.gpu_hours.spare);
        number("scaling.gpu_hours.ready", |it| it.gpu_hours.ready);
        number("scaling.gpu_hours.draining", |it| it.gpu_hours.draining);
        let updates = scaling.map_or(&[][..], |it| &it.updates);
        let longest = updates.iter().map(|it| it.took_s.unwrap_or(f64::INFINITY));
        let longest = longest.max_by(f64::total_cmp);
        self.push(
            "scaling.update_s",
            longest.map_or(Value::Missing, Value::from),
        );
    }

    /// Missing without prices.
    fn costs(&mut self, costs: Option<&CostSummary>) {
        let mut number = |name: &'static str, of: fn(&CostSummary) -> Option<f64>| {
            let value = costs.and_then(of);
            self.push(name, value.map_or(Value::Missing, Value::from));
        };
        number("costs.usd", |it| Some(it.usd));
        number("costs.usd_per_hour", |it| Some(it.usd_per_hour));
        number("costs.usd_per_million_tokens", |it| {
            Some(it.usd_per_million_tokens)
        });
        number("costs.usd_per_million_output_tokens", |it| {
            Some(it.usd_per_million_output_tokens)
        });
        number("costs.usd_per_thousand_good_requests", |it| {
            it.usd_per_thousand_good_requests
        });
        number("costs.unused_usd", |it| Some(it.unused_usd));
        let mut spot = |name: &'static str, of: fn(&SpotSummary) -> Option<f64>| {
            let value = costs.and_then(|it| of(it.spot.as_ref()?));
            self.push(name, value.map_or(Value::Missing, Value::from));
        };
        spot("costs.spot.interruptions", |it| {
            Some(it.interruptions as f64)
        });
        spot("costs.spot.lost", |it| Some(it.lost as f64));
        spot("costs.spot.on_demand_usd", |it| Some(it.on_demand_usd));
        spot(
            "costs.spot.on_demand_usd_per_thousand_good_requests",
            |it| it.on_demand_usd_per_thousand_good_requests,
        );
        spot("costs.spot.listed_saved_share", |it| {
            Some(it.listed_saved_share)
        });
        spot("costs.spot.saved_share", |it| Some(it.saved_share));
    }

    /// Missing unless asked for.
    fn energy(&mut self, energy: Option<&EnergySummary>) {
        let mut number = |name: &'static str, of: fn(&EnergySummary) -> Option<f64>| {
            let value = energy.and_then(of);
            self.push(name, value.map_or(Value::Missing, Value::from));
        };
        number("energy.kwh", |it| Some(it.kwh));
        number("energy.prefill_kwh", |it| Some(it.prefill_kwh));
        number("energy.decode_kwh", |it| Some(it.decode_kwh));
        number("energy.idle_kwh", |it| Some(it.idle_kwh));
        number("energy.mean_kw", |it| Some(it.mean_kw));
        number("energy.kwh_per_million_output_tokens", |it| {
            Some(it.kwh_per_million_output_tokens)
        });
        number("energy.usd", |it| it.usd);
    }

    fn requests(&mut self, counts: &RequestCounts) {
        let RequestCounts {
            total,
            completed,
            rejected,
            rejected_by,
            cancelled,
            failed,
            failed_by,
            unfinished,
            warmup,
            preemptions,
            preempted,
        } = counts;
        self.push("requests.total", *total);
        self.push("requests.completed", *completed);
        self.push("requests.rejected", *rejected);
        self.push(
            REJECTED_SHARE,
            if *total == 0 {
                0.0
            } else {
                *rejected as f64 / *total as f64
            },
        );
        for reason in REJECTIONS {
            let count = rejected_by.get(reason.name()).copied().unwrap_or(0);
            self.push(format!("requests.rejected_by.{}", reason.name()), count);
        }
        self.push("requests.cancelled", *cancelled);
        self.push("requests.failed", *failed);
        for reason in FAILURES {
            let count = failed_by.get(reason.name()).copied().unwrap_or(0);
            self.push(format!("requests.failed_by.{}", reason.name()), count);
        }
        self.push(UNFINISHED, *unfinished);
        self.push("requests.warmup", *warmup);
        self.push("requests.preemptions", *preemptions);
        self.push("requests.preempted", *preempted);
    }

    fn latency(&mut self, latency: &Latency) {
        let Latency {
            ttft_ms,
            itl_ms,
            tpot_ms,
            e2e_ms,
            queue_ms,
        } = latency;
        self.distribution("latency.ttft_ms", ttft_ms);
        self.distribution("latency.itl_ms", itl_ms);
        self.distribution("latency.tpot_ms", tpot_ms);
        self.distribution("latency.e2e_ms", e2e_ms);
        self.distribution("latency.queue_ms", queue_ms);
    }

    /// An empty distribution has a count and no values: zeros would look like excellent latencies.
    fn distribution(&mut self, name: &str, values: &Distribution) {
        let Distribution {
            count,
            mean,
            min,
            p50,
            p90,
            p95,
            p99,
            max,
        } = *values;
        self.push(format!("{name}.count"), count);
        for (part, value) in [
            ("mean", mean),
            ("min", min),
            ("p50", p50),
            ("p90", p90),
            ("p95", p95),
            ("p99", p99),
            ("max", max),
        ] {
            self.push(
                format!("{name}.{part}"),
                if count == 0 {
                    Value::Missing
                } else {
                    value.into()
                },
            );
        }
    }

    fn throughput(&mut self, throughput: &Throughput) {
        let Throughput {
            duration_s,
            requests_per_s,
            output_tokens_per_s,
            total_tokens_per_s,
            gpus,
            gpu_hours,
            output_tokens_per_s_per_gpu,
            total_tokens_per_s_per_gpu,
            output_tokens_per_s_per_user,
        } = throughput;
        self.push("throughput.duration_s", *duration_s);
        self.push("throughput.requests_per_s", *requests_per_s);
        self.push("throughput.output_tokens_per_s", *output_tokens_per_s);
        self.push("throughput.total_tokens_per_s", *total_tokens_per_s);
        self.push("throughput.gpus", *gpus);
        self.push("throughput.gpu_hours", *gpu_hours);
        self.push(TOKENS_PER_S_PER_GPU, *output_tokens_per_s_per_gpu);
        self.push(
            "throughput.total_tokens_per_s_per_gpu",
            *total_tokens_per_s_per_gpu,
        );
        self.push(TOKENS_PER_S_PER_USER, *output_tokens_per_s_per_user);
    }

    fn goodput(&mut self, goodput: Option<&Goodput>) {
        let values = goodput.map(|goodput| {
            let Goodput {
                ttft_ms: _,
                itl_ms: _,
                requests,
                share,
                requests_per_s,
                window_share,
            } = *goodput;
            [
                requests.into(),
                share.into(),
                requests_per_s.into(),
                window_share.into(),
            ]
        });
        let values = values.unwrap_or([Value::Missing; 4]);
        let names = [
            "goodput.requests",
            SLA_SHARE,
            "goodput.requests_per_s",
            "goodput.window_share",
        ];
        for (name, value) in names.into_iter().zip(values) {
            self.push(name, value);
        }
    }

    /// Least, mean and greatest over the workers.
    fn spread(&mut self, name: &str, values: impl Iterator<Item = f64> + Clone) {
        let count = values.clone().count() as f64;
        self.push(
            format!("{name}.min"),
            values.clone().fold(f64::INFINITY, f64::min),
        );
        self.push(format!("{name}.mean"), values.clone().sum::<f64>() / count);
        self.push(
            format!("{name}.max"),
            values.fold(f64::NEG_INFINITY, f64::max),
        );
    }
}

/// The names of all metrics of a [`Summary`], in the order of a row.
#[must_use]
pub fn metric_names() -> &'static [Name] {
    static NAMES: OnceLock<Vec<Name>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let row = Row::from_summary(&sim::summarize(&Recording::default(), &[], None));
        row.cells().iter().map(|(name, _)| name.clone()).collect()
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
                    let name = if prefix.is_empty() {
                        key.clone()
                    } else {
                        format!("{prefix}.{key}")
                    };
                    flatten(&name, value, leaves);
                }
            }
            serde_json::Value::Number(number) => {
                leaves.push((prefix.to_owned(), number.as_f64().unwrap()))
            }
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
        for name in [
            TOKENS_PER_S_PER_GPU,
            TOKENS_PER_S_PER_USER,
            SLA_SHARE,
            REJECTED_SHARE,
            UNFINISHED,
        ] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn every_reason_of_a_refusal_has_a_column() {
        // A new reason does not compile here until it is added to the list.
        let place = |reason| match reason {
            Rejection::PromptTooLong => 0,
            Rejection::PromptExceedsKvCache => 1,
            Rejection::OutputExceedsKvCache => 2,
            Rejection::NoWorkerInDomain => 3,
            Rejection::DependencyRejected => 4,
            Rejection::RequiredTaintsUnmet => 5,
            Rejection::Overloaded => 6,
            Rejection::NoWorker => 7,
        };
        assert!(REJECTIONS.into_iter().map(place).eq(0..8));
        let place = |reason| match reason {
            Failure::TtftTimeout => 0,
            Failure::Timeout => 1,
            Failure::WorkerLost => 2,
        };
        assert!(FAILURES.into_iter().map(place).eq(0..3));
    }

    #[test]
    fn an_empty_distribution_has_no_values() {
        let row = Row::from_summary(&empty());
        assert_eq!(row.get("latency.ttft_ms.count"), Value::Count(0));
        assert_eq!(row.get("latency.ttft_ms.p99"), Value::Missing);
        assert_eq!(row.get(SLA_SHARE), Value::Missing);
    }
}
