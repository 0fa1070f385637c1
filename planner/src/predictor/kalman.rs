//! A Kalman filter over a level and its trend.
//!
//! The level moves by the trend, the trend stays; both are disturbed. The first value sets the level, with trend zero. Each
//! later value corrects the prediction for its interval, which is made then, or was when a forecast was asked for. With fewer
//! than `min_points` values the forecast is the last one; else it is the predicted level, not below zero. Optionally on
//! ln(1 + x). The covariance is updated in Joseph's form. Source: Dynamo 1.6.1, over filterpy's filter.

/// Settings; names and defaults are Dynamo's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KalmanConfig {
    /// Variance by which the level is disturbed.
    pub q_level: f64,
    /// Variance by which the trend is disturbed.
    pub q_trend: f64,
    /// Variance of an observation.
    pub r: f64,
    /// Values before the filter is trusted.
    pub min_points: usize,
    /// Works on ln(1 + x).
    pub log1p: bool,
}

impl Default for KalmanConfig {
    fn default() -> Self {
        KalmanConfig {
            q_level: 1.0,
            q_trend: 0.1,
            r: 10.0,
            min_points: 5,
            log1p: false,
        }
    }
}

/// The filter.
#[derive(Debug, Clone, Copy)]
pub struct Kalman {
    config: KalmanConfig,
    level: f64,
    trend: f64,
    covariance: [[f64; 2]; 2],
    values: usize,
    last: f64,
    is_predicted: bool,
}

impl Kalman {
    pub(super) fn new(config: KalmanConfig) -> Self {
        Kalman {
            config,
            level: 0.0,
            trend: 0.0,
            covariance: [[1000.0, 0.0], [0.0, 1000.0]],
            values: 0,
            last: 0.0,
            is_predicted: false,
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let seen = if self.config.log1p {
            value.max(0.0).ln_1p()
        } else {
            value
        };
        if self.values == 0 {
            (self.level, self.trend) = (seen, 0.0);
        } else {
            if !self.is_predicted {
                self.predict();
            }
            self.correct(seen);
        }
        self.is_predicted = false;
        self.values += 1;
        self.last = value;
    }

    pub(super) fn forecast(&mut self) -> f64 {
        if self.values == 0 || self.values < self.config.min_points {
            return self.last;
        }
        if !self.is_predicted {
            self.predict();
            self.is_predicted = true;
        }
        let level = if self.config.log1p {
            self.level.exp_m1()
        } else {
            self.level
        };
        level.max(0.0)
    }

    /// One interval on: x = F x, P = F P Fᵀ + Q with F = [[1, 1], [0, 1]].
    fn predict(&mut self) {
        self.level += self.trend;
        let [[a, b], [c, d]] = self.covariance;
        self.covariance = [
            [a + c + b + d + self.config.q_level.max(1e-12), b + d],
            [c + d, d + self.config.q_trend.max(1e-12)],
        ];
    }

    /// Towards what was seen, with H = [1, 0].
    fn correct(&mut self, seen: f64) {
        let noise = self.config.r.max(1e-9);
        let [[a, b], [c, d]] = self.covariance;
        let residual = seen - self.level;
        let (gain_level, gain_trend) = (a / (a + noise), c / (a + noise));
        self.level += gain_level * residual;
        self.trend += gain_trend * residual;
        // (I - K H) P (I - K H)ᵀ + K R Kᵀ
        let keep = 1.0 - gain_level;
        let (first, second) = (
            [keep * a, keep * b],
            [c - gain_trend * a, d - gain_trend * b],
        );
        self.covariance = [
            [
                first[0] * keep + gain_level * noise * gain_level,
                first[1] - first[0] * gain_trend + gain_level * noise * gain_trend,
            ],
            [
                second[0] * keep + gain_trend * noise * gain_level,
                second[1] - second[0] * gain_trend + gain_trend * noise * gain_trend,
            ],
        ];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_a_ramp_and_trusts_itself_only_then() {
        let mut filter = Kalman::new(KalmanConfig::default());
        for (at, value) in (1..=40).map(f64::from).enumerate() {
            if (1..5).contains(&at) {
                assert_eq!(filter.forecast(), value - 1.0, "the last value so far");
            }
            filter.observe(value);
        }
        assert!((filter.forecast() - 41.0).abs() < 0.2);
        assert_eq!(filter.forecast(), filter.forecast());
    }
}
