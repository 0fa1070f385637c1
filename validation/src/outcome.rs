//! What became of a request, measured or simulated, and how far two sets of them are apart.

use engine::Span;
use serde::Serialize;
use sim::RequestRecord;

/// A completed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Arrival to first token.
    pub ttft: Span,
    /// Arrival to last token.
    pub e2e: Span,
    /// Tokens generated.
    pub output_tokens: u32,
}

impl Outcome {
    /// Of a simulated request, if it completed.
    #[must_use]
    pub fn of(record: &RequestRecord) -> Option<Outcome> {
        (record.outcome == sim::Outcome::Completed).then(|| Outcome {
            ttft: record.first_token.since(record.arrival),
            e2e: record.finish.since(record.arrival),
            output_tokens: record.output_tokens,
        })
    }

    /// (E2E − TTFT) / (output − 1) in ms; `None` with less than two tokens.
    #[must_use]
    pub fn tpot_ms(&self) -> Option<f64> {
        let gaps = self.output_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some((self.e2e.as_ms() - self.ttft.as_ms()) / f64::from(gaps))
    }
}

/// One number of two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// `TTFT mean`, ...
    pub metric: &'static str,
    /// In the run that was measured, ms.
    pub measured_ms: f64,
    /// In the simulated one, ms.
    pub predicted_ms: f64,
    /// predicted / measured − 1; 0 if nothing was measured.
    pub error: f64,
}

/// Means and percentiles of the same requests, predicted and measured.
#[must_use]
pub fn compare(predicted: &[Outcome], measured: &[Outcome]) -> Vec<Compared> {
    let ttft = |one: &Outcome| Some(one.ttft.as_ms());
    let e2e = |one: &Outcome| Some(one.e2e.as_ms());
    type Value = fn(&Outcome) -> Option<f64>;
    let metrics: [(&'static str, Value, Option<f64>); 8] = [
        ("TTFT mean", ttft, None),
        ("TTFT p50", ttft, Some(0.5)),
        ("TTFT p99", ttft, Some(0.99)),
        ("TPOT mean", Outcome::tpot_ms, None),
        ("TPOT p99", Outcome::tpot_ms, Some(0.99)),
        ("E2E mean", e2e, None),
        ("E2E p50", e2e, Some(0.5)),
        ("E2E p99", e2e, Some(0.99)),
    ];
    let row = |(metric, value, percentile): (&'static str, Value, Option<f64>)| {
        let [predicted_ms, measured_ms] =
            [predicted, measured].map(|run| statistic(run.iter().filter_map(value), percentile));
        Compared {
            metric,
            measured_ms,
            predicted_ms,
            error: if measured_ms > 0.0 {
                predicted_ms / measured_ms - 1.0
            } else {
                0.0
            },
        }
    };
    metrics.into_iter().map(row).collect()
}

/// The mean, or a percentile by nearest rank; 0 of nothing.
fn statistic(values: impl Iterator<Item = f64>, percentile: Option<f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    if values.is_empty() {
        return 0.0;
    }
    match percentile {
        None => values.iter().sum::<f64>() / values.len() as f64,
        Some(share) => {
            values.sort_by(f64::total_cmp);
            let rank = (share * values.len() as f64).ceil() as usize;
            values[rank.max(1) - 1]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_percentiles_and_errors() {
        let one = |ttft_ms: f64, e2e_ms: f64| Outcome {
            ttft: Span::from_ms(ttft_ms),
            e2e: Span::from_ms(e2e_ms),
            output_tokens: 11,
        };
        let measured: Vec<Outcome> = (1..=100)
            .map(|i| one(f64::from(i), f64::from(i) + 100.0))
            .collect();
        let predicted: Vec<Outcome> = (1..=100)
            .map(|i| one(2.0 * f64::from(i), 2.0 * f64::from(i) + 110.0))
            .collect();
        let compared = compare(&predicted, &measured);
        let of = |metric: &str| {
            compared
                .iter()
                .find(|row| row.metric == metric)
                .expect("there")
        };
        assert_eq!(of("TTFT p99").measured_ms, 99.0);
        assert!((of("TTFT mean").error - 1.0).abs() < 1e-9);
        assert!((of("TPOT mean").predicted_ms - 11.0).abs() < 1e-9);
        assert!((of("TPOT mean").error - 0.1).abs() < 1e-9);
    }
}
