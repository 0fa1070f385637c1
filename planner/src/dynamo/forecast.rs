//! The next traffic window: requests, mean prompt and mean output, each predicted by itself.
//!
//! A window without requests, once there was live traffic, counts as zero requests of the last seen lengths: an empty window has
//! no lengths, and zeros would teach the predictor that prompts became short. Hit rate and accept length are not predicted; the
//! last value stands.

use super::throughput::Prediction;
use crate::predictor::{Predictor, PredictorSpec};

/// What a traffic window says to the planner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Its length in seconds.
    pub duration_s: f64,
    /// Requests that arrived.
    pub requests: f64,
    /// Mean prompt, in tokens.
    pub isl: f64,
    /// Mean output, in tokens.
    pub osl: f64,
    /// Mean share of cached prompt blocks, if known.
    pub kv_hit_rate: Option<f64>,
    /// Mean tokens per decode step and request, if known.
    pub accept_length: Option<f64>,
}

/// The three predictors.
#[derive(Debug, Clone)]
pub(super) struct Forecast {
    requests: Predictor,
    isl: Predictor,
    osl: Predictor,
    last_isl: f64,
    last_osl: f64,
    is_live: bool,
    kv_hit_rate: Option<f64>,
    accept_length: f64,
}

impl Forecast {
    pub(super) fn new(spec: PredictorSpec) -> Self {
        let predictor = Predictor::new(spec);
        Forecast {
            requests: predictor.clone(),
            isl: predictor.clone(),
            osl: predictor,
            last_isl: 0.0,
            last_osl: 0.0,
            is_live: false,
            kv_hit_rate: None,
            accept_length: 1.0,
        }
    }

    /// History, before the first live window.
    pub(super) fn warm_up(&mut self, history: &[Traffic]) {
        for window in history {
            self.observe_load(window);
        }
        for predictor in [&mut self.requests, &mut self.isl, &mut self.osl] {
            predictor.end_warm_up();
        }
        self.is_live = false;
    }

    /// Takes a window in and predicts the next; `None` if a prediction is no number.
    pub(super) fn next(&mut self, window: &Traffic) -> Option<Prediction> {
        self.observe_load(window);
        if let Some(rate) = window.kv_hit_rate.filter(|rate| !rate.is_nan()) {
            self.kv_hit_rate = Some(rate);
        }
        if let Some(length) = window.accept_length.filter(|length| length.is_finite()) {
            self.accept_length = length;
        }
        let prediction = Prediction {
            requests: self.requests.forecast(),
            isl: self.isl.forecast(),
            osl: self.osl.forecast(),
            kv_hit_rate: self.kv_hit_rate,
            accept_length: self.accept_length,
        };
        let numbers = [prediction.requests, prediction.isl, prediction.osl];
        numbers
            .iter()
            .all(|number| number.is_finite())
            .then_some(prediction)
    }

    fn observe_load(&mut self, window: &Traffic) {
        self.requests.observe(window.requests);
        let (mut isl, mut osl) = (window.isl, window.osl);
        if window.requests > 0.0 {
            self.is_live = true;
            self.last_isl = if isl.is_finite() { isl } else { self.last_isl };
            self.last_osl = if osl.is_finite() { osl } else { self.last_osl };
        } else if self.is_live {
            (isl, osl) = (self.last_isl, self.last_osl);
        }
        if isl.is_finite() {
            self.isl.observe(isl);
        }
        if osl.is_finite() {
            self.osl.observe(osl);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_window_keeps_the_lengths() {
        let mut forecast = Forecast::new(PredictorSpec::Constant);
        let busy = Traffic {
            duration_s: 60.0,
            requests: 10.0,
            isl: 500.0,
            osl: 50.0,
            kv_hit_rate: Some(0.3),
            accept_length: None,
        };
        forecast.next(&busy);
        let idle = Traffic {
            requests: 0.0,
            isl: 0.0,
            osl: 0.0,
            kv_hit_rate: None,
            ..busy
        };
        let next = forecast.next(&idle).unwrap();
        assert_eq!((next.requests, next.isl, next.osl), (0.0, 500.0, 50.0));
        assert_eq!(next.kv_hit_rate, Some(0.3));
    }
}
