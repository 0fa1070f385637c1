//! One number per interval in, the next one out.
//!
//! All predictors share two rules of Dynamo's: what is not a number counts as zero, and zeros before the first other value are
//! dropped, so that the quiet before the first request teaches nothing; after a warm-up on history that quiet is dropped again.
//!
//! [`constant`](Constant) and [`kalman`](Kalman) are Dynamo's to the last digit that matters. Dynamo's `arima` and `prophet`
//! are whatever pmdarima and Prophet fit; their forecasts are not reproducible from one process to the next. Their places are
//! taken by [`Autoregressive`] and [`TrendSeasonal`], which are deterministic and go by their own names. [`SeasonalNaive`] is
//! the yardstick of forecasting: the value one season ago.

mod autoregressive;
mod constant;
mod kalman;
mod seasonal_naive;
mod trend_seasonal;

pub use autoregressive::Autoregressive;
pub use constant::Constant;
pub use kalman::{Kalman, KalmanConfig};
pub use seasonal_naive::SeasonalNaive;
pub use trend_seasonal::TrendSeasonal;

/// Which predictor, with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PredictorSpec {
    /// The last value.
    Constant,
    /// A Kalman filter over level and trend.
    Kalman(KalmanConfig),
    /// Differences explained by earlier ones, where Dynamo has `arima`.
    Autoregressive {
        /// Works on ln(1 + x).
        log1p: bool,
    },
    /// A trend and daily and weekly cycles, where Dynamo has `prophet`.
    TrendSeasonal {
        /// Works on ln(1 + x).
        log1p: bool,
        /// Values kept.
        window: usize,
        /// Seconds between values.
        interval_s: f64,
    },
    /// The value one season ago.
    SeasonalNaive {
        /// Values in a season.
        season: usize,
    },
}

/// A predictor and what it has seen.
#[derive(Debug, Clone)]
pub struct Predictor {
    has_started: bool,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Constant(Constant),
    Kalman(Kalman),
    Autoregressive(Autoregressive),
    TrendSeasonal(TrendSeasonal),
    SeasonalNaive(SeasonalNaive),
}

impl Predictor {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(spec: PredictorSpec) -> Self {
        let kind = match spec {
            PredictorSpec::Constant => Kind::Constant(Constant::default()),
            PredictorSpec::Kalman(config) => Kind::Kalman(Kalman::new(config)),
            PredictorSpec::Autoregressive { log1p } => {
                Kind::Autoregressive(Autoregressive::new(log1p))
            }
            PredictorSpec::TrendSeasonal {
                log1p,
                window,
                interval_s,
            } => Kind::TrendSeasonal(TrendSeasonal::new(log1p, window, interval_s)),
            PredictorSpec::SeasonalNaive { season } => {
                Kind::SeasonalNaive(SeasonalNaive::new(season))
            }
        };
        Predictor {
            has_started: false,
            kind,
        }
    }

    /// The value of the interval that ended.
    pub fn observe(&mut self, value: f64) {
        let value = if value.is_nan() { 0.0 } else { value };
        if value == 0.0 && !self.has_started {
            return;
        }
        self.has_started |= value != 0.0;
        match &mut self.kind {
            Kind::Constant(predictor) => predictor.observe(value),
            Kind::Kalman(predictor) => predictor.observe(value),
            Kind::Autoregressive(predictor) => predictor.observe(value),
            Kind::TrendSeasonal(predictor) => predictor.observe(value),
            Kind::SeasonalNaive(predictor) => predictor.observe(value),
        }
    }

    /// The value of the next interval. Asking twice changes nothing.
    pub fn forecast(&mut self) -> f64 {
        match &mut self.kind {
            Kind::Constant(predictor) => predictor.forecast(),
            Kind::Kalman(predictor) => predictor.forecast(),
            Kind::Autoregressive(predictor) => predictor.forecast(),
            Kind::TrendSeasonal(predictor) => predictor.forecast(),
            Kind::SeasonalNaive(predictor) => predictor.forecast(),
        }
    }

    /// What came so far was history; zeros are dropped again until the first other value.
    pub fn end_warm_up(&mut self) {
        self.has_started = false;
    }
}

/// How wrong three forecasts were, for choosing a predictor: prompt and output tokens count 0.4 each, lengths 0.1 each, all on
/// the scale of ln(1 + x). Values are requests, mean prompt, mean output.
fn forecast_loss(forecast: [f64; 3], actual: [f64; 3]) -> f64 {
    let error = |a: f64, b: f64| (a.max(0.0).ln_1p() - b.max(0.0).ln_1p()).abs();
    let [n, i, o] = forecast.map(|value| value.max(0.0));
    let [requests, isl, osl] = actual;
    0.4 * error(n * i, requests * isl)
        + 0.4 * error(n * o, requests * osl)
        + 0.1 * error(i, isl)
        + 0.1 * error(o, osl)
}

/// The mean loss of one-step forecasts of `windows` (requests, mean prompt, mean output) after the first `warm_up` of them;
/// infinite if none is left.
#[must_use]
pub fn mean_loss(spec: PredictorSpec, windows: &[[f64; 3]], warm_up: usize) -> f64 {
    let mut predictors = [spec; 3].map(Predictor::new);
    let mut losses = Vec::new();
    for (at, window) in windows.iter().enumerate() {
        let forecast = predictors.each_mut().map(Predictor::forecast);
        if at >= warm_up {
            losses.push(forecast_loss(forecast, *window));
        }
        for (predictor, value) in predictors.iter_mut().zip(window) {
            predictor.observe(*value);
        }
    }
    if losses.is_empty() {
        return f64::INFINITY;
    }
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_dropped_also_after_a_warm_up() {
        let mut predictor = Predictor::new(PredictorSpec::Constant);
        predictor.observe(0.0);
        predictor.observe(7.0);
        predictor.end_warm_up();
        predictor.observe(0.0);
        assert_eq!(predictor.forecast(), 7.0);
        predictor.observe(3.0);
        predictor.observe(f64::NAN);
        assert_eq!(predictor.forecast(), 0.0);
    }

    #[test]
    fn the_loss_of_a_perfect_forecast_is_zero() {
        let windows = [[10.0, 100.0, 20.0]; 8];
        assert_eq!(mean_loss(PredictorSpec::Constant, &windows, 2), 0.0);
        assert_eq!(
            mean_loss(PredictorSpec::Constant, &windows, 8),
            f64::INFINITY
        );
    }
}
