//! Bounds on metrics: `latency.ttft_ms.p99<=500`, `throughput.gpus<=16`.

use crate::metric::{self, MetricError, label, value_text};
use std::fmt;
use thiserror::Error;

/// Which side of a bound is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// `<=`
    AtMost(f64),
    /// `>=`
    AtLeast(f64),
}

/// A bound on a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraint {
    /// Name of the metric.
    pub metric: String,
    /// Its bound.
    pub bound: Bound,
}

/// A constraint that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConstraintError {
    /// Not `metric<=number`.
    #[error(
        "found `{found}`, expected `metric<=number` or `metric>=number`, for example `latency.ttft_ms.p99<=500`"
    )]
    Shape {
        /// What was given.
        found: String,
    },
    /// No such metric.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

impl Constraint {
    /// Reads `latency.ttft_ms.p99<=500`.
    ///
    /// # Errors
    /// Another shape, or a metric that does not exist.
    pub fn parse(text: &str) -> Result<Constraint, ConstraintError> {
        let shape = || ConstraintError::Shape {
            found: text.to_owned(),
        };
        let (name, sign, number) = match (text.split_once("<="), text.split_once(">=")) {
            (Some((name, number)), None) => (name, Bound::AtMost as fn(f64) -> Bound, number),
            (None, Some((name, number))) => (name, Bound::AtLeast as fn(f64) -> Bound, number),
            _ => return Err(shape()),
        };
        let number: f64 = number.trim().parse().map_err(|_| shape())?;
        if !number.is_finite() {
            return Err(shape());
        }
        Ok(Constraint {
            metric: metric::resolve(name.trim())?.to_owned(),
            bound: sign(number),
        })
    }

    /// The number of the bound.
    #[must_use]
    pub fn limit(&self) -> f64 {
        let (Bound::AtMost(limit) | Bound::AtLeast(limit)) = self.bound;
        limit
    }

    /// Whether a value keeps to the bound.
    #[must_use]
    pub fn is_met(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtMost(limit) => value <= limit,
            Bound::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = label(&self.metric);
        match self.bound {
            Bound::AtMost(0.0) => write!(f, "no {name}"),
            Bound::AtMost(limit) => write!(f, "{name} at most {}", value_text(&self.metric, limit)),
            Bound::AtLeast(limit) => {
                write!(f, "{name} at least {}", value_text(&self.metric, limit))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_and_misread_with_advice() {
        let constraint = Constraint::parse("throughput.gpus <= 16").unwrap();
        assert_eq!(constraint.to_string(), "GPUs at most 16");
        assert!(constraint.is_met(16.0) && !constraint.is_met(16.5));
        assert!(
            Constraint::parse("goodput.window_share>=0.99")
                .unwrap()
                .is_met(0.99)
        );
        for text in [
            "throughput.gpus=16",
            "throughput.gpus<=",
            "throughput.gpus<=NaN",
            "a<=1>=2",
        ] {
            assert!(
                matches!(Constraint::parse(text), Err(ConstraintError::Shape { .. })),
                "{text}"
            );
        }
        let error = Constraint::parse("throughput.gpu<=16").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("did you mean `throughput.gpus`?"),
            "{error}"
        );
    }
}
