//! Metrics by name: which way is better, and what a misspelt name was meant to be.

use crate::rows::{self, metric_names};
use std::fmt;
use thiserror::Error;

/// Which of two values is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More is better.
    Max,
    /// Less is better.
    Min,
}

impl Direction {
    /// `value` on a scale where greater is better.
    #[must_use]
    pub fn score(self, value: f64) -> f64 {
        match self {
            Direction::Max => value,
            Direction::Min => -value,
        }
    }
}

/// A metric and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objective {
    /// A name of [`metric_names`].
    pub metric: String,
    /// Which way is better.
    pub direction: Direction,
}

impl Objective {
    /// Default abscissa of the frontier: tokens/s/user.
    #[must_use]
    pub fn per_user() -> Objective {
        Objective {
            metric: rows::TOKENS_PER_S_PER_USER.to_owned(),
            direction: Direction::Max,
        }
    }

    /// Default ordinate of the frontier: tokens/s/GPU.
    #[must_use]
    pub fn per_gpu() -> Objective {
        Objective {
            metric: rows::TOKENS_PER_S_PER_GPU.to_owned(),
            direction: Direction::Max,
        }
    }

    /// Reads `latency.ttft_ms.p99`, or with the direction given `kv.mean_share:max`.
    pub fn parse(text: &str) -> Result<Objective, MetricError> {
        let (name, direction) = match text.rsplit_once(':') {
            Some((name, "max")) => (name, Some(Direction::Max)),
            Some((name, "min")) => (name, Some(Direction::Min)),
            Some((_, other)) => {
                return Err(MetricError::Direction {
                    found: other.to_owned(),
                });
            }
            None => (text, None),
        };
        let name = resolve(name)?;
        let Some(direction) = direction.or_else(|| better(name)) else {
            return Err(MetricError::NoDirection {
                name: name.to_owned(),
            });
        };
        Ok(Objective {
            metric: name.to_owned(),
            direction,
        })
    }
}

/// A metric that cannot be used as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetricError {
    /// No such metric.
    #[error("unknown metric `{found}`{}", Suggestion(.nearest))]
    Unknown {
        /// What was asked for.
        found: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// Something else than a direction behind the colon.
    #[error("`{found}` is not a direction: expected `max` or `min` behind the colon")]
    Direction {
        /// What stood there.
        found: String,
    },
    /// Neither more nor less of it is better in itself.
    #[error(
        "neither more nor less `{name}` is better in itself: write `{name}:max` or `{name}:min`"
    )]
    NoDirection {
        /// The metric.
        name: String,
    },
}

struct Suggestion<'a>(&'a Option<String>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, ": did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// The stable name of a metric as a user wrote it.
///
/// # Errors
/// [`MetricError::Unknown`] with the nearest name.
pub fn resolve(name: &str) -> Result<&'static str, MetricError> {
    let known = metric_names();
    match known.iter().find(|known| *known == name) {
        Some(known) => Ok(known),
        None => Err(MetricError::Unknown {
            found: name.to_owned(),
            nearest: nearest(name).map(str::to_owned),
        }),
    }
}

/// The metric whose name looks most like `name`: names that contain it come first, so that `ttft_ms.p99` and
/// `per_gpu` find their metrics; then edit distance decides.
fn nearest(name: &str) -> Option<&'static str> {
    let wanted = name.to_lowercase();
    let containing = metric_names()
        .iter()
        .find(|known| wanted.len() >= 3 && known.contains(&wanted) && !known.ends_with(".count"));
    let similar = || {
        let scored = metric_names()
            .iter()
            .map(|known| (similarity(&wanted, known), known));
        // `max_by` returns the last of equals; reversed, the first in the order of a row wins.
        let best = scored
            .rev()
            .max_by(|left, right| left.0.total_cmp(&right.0));
        best.filter(|(score, _)| *score > 0.5)
            .map(|(_, known)| known)
    };
    containing.or_else(similar).map(|known| known.as_ref())
}

/// Likeness with the whole name or with its tail behind the group (`ttft_ms.p99` of `latency.ttft_ms.p99`).
fn similarity(wanted: &str, known: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(wanted, known);
    let tail = known.split_once('.').map_or("", |(_, tail)| tail);
    whole.max(strsim::normalized_damerau_levenshtein(wanted, tail))
}

/// Which way is better for a metric, by the group it belongs to; `None` for mere descriptions (`requests.total`).
#[must_use]
pub fn better(name: &str) -> Option<Direction> {
    if name.ends_with(".count") {
        return None;
    }
    match name {
        "requests.completed" | "costs.spot.saved_share" | "costs.spot.listed_saved_share" => {
            return Some(Direction::Max);
        }
        "requests.total" | "requests.warmup" => return None,
        "throughput.duration_s" | "throughput.gpus" | "throughput.gpu_hours" => {
            return Some(Direction::Min);
        }
        _ => {}
    }
    match name.split('.').next() {
        Some("latency" | "requests" | "costs" | "energy") => Some(Direction::Min),
        Some("throughput" | "goodput" | "prefix") => Some(Direction::Max),
        _ => None,
    }
}

/// A number as people read it: four significant digits, thousands grouped.
#[must_use]
pub fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (3 - magnitude).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// A value of a metric as people read it: shares in per cent.
#[must_use]
pub fn value_text(metric: &str, value: f64) -> String {
    if metric.ends_with("share") {
        percent(value)
    } else {
        short(value)
    }
}

/// `97.1 %`; a share short of the whole never reads as 100 %.
#[must_use]
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    let rounded = if value < 100.0 {
        (value * 10.0 + 1e-9).floor() / 10.0
    } else {
        value
    };
    format!("{} %", short(rounded))
}

/// A metric in words, for sentences and axes.
#[must_use]
pub fn label(name: &str) -> String {
    let words = match name {
        rows::TOKENS_PER_S_PER_GPU => "tokens/s/GPU",
        rows::TOKENS_PER_S_PER_USER => "tokens/s/user",
        "throughput.output_tokens_per_s" => "output tokens/s",
        "throughput.total_tokens_per_s" => "input and output tokens/s",
        "throughput.total_tokens_per_s_per_gpu" => "input and output tokens/s/GPU",
        "throughput.requests_per_s" => "requests/s",
        "throughput.duration_s" => "duration (s)",
        "throughput.gpus" => "GPUs",
        rows::SLA_SHARE => "requests within the SLA",
        "goodput.requests" => "number of requests within the SLA",
        "goodput.requests_per_s" => "requests/s within the SLA",
        "goodput.window_share" => "one-minute windows within the SLA",
        rows::REJECTED_SHARE => "rejected requests",
        rows::UNFINISHED => "unfinished requests",
        "requests.total" => "number of requests",
        "requests.completed" => "number of completed requests",
        "requests.rejected" => "number of rejected requests",
        "requests.warmup" => "number of warm-up requests",
        "requests.preempted" => "number of preempted requests",
        "prefix.first_admission_share" => "prefix reuse at first admission",
        "prefix.all_admissions_share" => "prefix reuse over all admissions",
        "prefix.router_overlap_share" => "prefix reuse by the router's belief",
        "prefix.requests_with_hit_share" => "requests with a prefix hit",
        "kv.peak_share" => "KV cache used at the peak",
        "kv.mean_share" => "KV cache used on average",
        "workers.count" => "number of workers",
        "throughput.gpu_hours" => "GPU-hours",
        "costs.usd" => "costs ($)",
        "costs.usd_per_hour" => "$ per hour",
        "costs.usd_per_million_tokens" => "$ per million tokens",
        "costs.usd_per_million_output_tokens" => "$ per million output tokens",
        "costs.usd_per_thousand_good_requests" => "$ per thousand requests within the SLA",
        "costs.unused_usd" => "reserved and not used ($)",
        "energy.kwh" => "energy (kWh, estimate)",
        "energy.usd" => "energy ($, estimate)",
        _ => return latency_label(name).unwrap_or_else(|| spelt_out(name)),
    };
    words.to_owned()
}

/// `workers utilisation min` of `workers.utilisation.min`.
fn spelt_out(name: &str) -> String {
    let name = name
        .strip_prefix("requests.rejected_by.")
        .map_or(name.to_owned(), |reason| format!("rejected: {reason}"));
    name.strip_prefix("requests.")
        .unwrap_or(&name)
        .replace(['.', '_'], " ")
}

/// `TTFT p99 (ms)` of `latency.ttft_ms.p99`, `TTFT (ms)` of `ttft_ms`.
fn latency_label(name: &str) -> Option<String> {
    let name = name.strip_prefix("latency.").unwrap_or(name);
    let (metric, part) = name.split_once("_ms")?;
    let metric = match metric {
        "queue" => "queue time".to_owned(),
        "ttft" | "itl" | "tpot" | "e2e" => metric.to_uppercase(),
        _ => return None,
    };
    match part.strip_prefix('.') {
        Some(part) => Some(format!("{metric} {part} (ms)")),
        None => part.is_empty().then(|| format!("{metric} (ms)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_metric_names_the_nearest() {
        for (written, meant) in [
            ("latency.tftt_ms.p99", "latency.ttft_ms.p99"),
            ("ttft_ms.p99", "latency.ttft_ms.p99"),
            (
                "output_tokens_per_s_per_gpu",
                "throughput.output_tokens_per_s_per_gpu",
            ),
            ("goodput.shares", "goodput.share"),
        ] {
            let error = resolve(written).unwrap_err();
            let MetricError::Unknown { nearest, .. } = &error else {
                panic!("{error}")
            };
            let nearest = nearest.as_deref().expect("there is one");
            assert_eq!(nearest, meant);
        }
        assert_eq!(
            resolve("xyzzy").unwrap_err().to_string(),
            "unknown metric `xyzzy`"
        );
    }

    #[test]
    fn directions_follow_the_group_or_the_suffix() {
        let direction = |text| Objective::parse(text).map(|objective| objective.direction);
        assert_eq!(direction("latency.e2e_ms.mean"), Ok(Direction::Min));
        assert_eq!(direction("throughput.requests_per_s"), Ok(Direction::Max));
        assert_eq!(direction("kv.mean_share:max"), Ok(Direction::Max));
        assert!(matches!(
            direction("kv.mean_share"),
            Err(MetricError::NoDirection { .. })
        ));
        assert!(matches!(
            direction("latency.e2e_ms.mean:up"),
            Err(MetricError::Direction { .. })
        ));
    }

    #[test]
    fn latencies_are_called_by_their_abbreviations() {
        let names = [
            "latency.ttft_ms.p99",
            "e2e_ms",
            "latency.queue_ms.mean",
            "kv.mean_share",
            "ttft_msx",
            "workers.utilisation.min",
            "requests.rejected_by.prompt_too_long",
        ];
        let expected = [
            "TTFT p99 (ms)",
            "E2E (ms)",
            "queue time mean (ms)",
            "KV cache used on average",
            "ttft msx",
            "workers utilisation min",
            "rejected: prompt too long",
        ];
        assert_eq!(names.map(label), expected);
    }

    #[test]
    fn every_metric_has_words_of_its_own() {
        let mut labels: Vec<String> = metric_names().iter().map(|name| label(name)).collect();
        for label in &labels {
            assert!(!label.contains(['_', '.']), "{label}");
        }
        let count = labels.len();
        labels.sort();
        labels.dedup();
        assert_eq!(labels.len(), count);
    }

    #[test]
    fn a_share_short_of_the_whole_is_not_the_whole() {
        let texts = [1.0, 0.99999, 0.9, 0.713, 0.005, 0.0].map(percent);
        assert_eq!(texts, ["100 %", "99.9 %", "90 %", "71.3 %", "0.5 %", "0 %"]);
        assert_eq!(value_text("kv.peak_share", 0.25), "25 %");
    }

    #[test]
    fn numbers_keep_four_digits() {
        let texts = [
            0.0,
            1234567.0,
            1234.56,
            12.3456,
            0.012_345_6,
            -1500.0,
            30.0,
            0.1,
            99_999.6,
        ]
        .map(short);
        assert_eq!(
            texts,
            [
                "0",
                "1,234,567",
                "1,235",
                "12.35",
                "0.01235",
                "-1,500",
                "30",
                "0.1",
                "100,000"
            ]
        );
    }
}
