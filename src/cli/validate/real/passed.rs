//! Where the time of real steps went, and what the timing model makes of the very same steps.
//!
//! A simulation that is off by some percent is off because its steps are, or because it makes other steps. Here the steps of
//! the real runs are priced one by one: if their sum is right and the requests' times are not, look at the batches; if it is
//! wrong, look at the profile, or at what else ran on the machine.

use engine::{Span, StepShape, StepTime};
use serde_json::{Value, json};
use sim::live::RealStep;

/// Sums over the steps of all real runs of the first pool's kind.
pub struct Passed {
    steps: usize,
    host_s: f64,
    computed_s: f64,
    /// The model's price of the same steps.
    priced_s: f64,
    /// Median over steps of |price − time| / time.
    step_error: f64,
    /// How late timers rang, milliseconds: median and 99th percentile.
    late_ms: [f64; 2],
}

/// What a timing model says of a step, in seconds.
pub type Priced = f64;

/// The prices of steps.
pub fn price(steps: &[RealStep], timing: &dyn StepTime) -> Vec<Priced> {
    let price = |step: &RealStep| {
        let shape = StepShape {
            prefill: &step.prefill,
            decode_batch: step.decode_batch,
            decode_context: step.decode_context,
        };
        timing.step(&shape).as_s()
    };
    steps.iter().map(price).collect()
}

impl Passed {
    /// Of the steps of real runs and their prices.
    pub fn of(steps: &[(&RealStep, Priced)], late: &[Span]) -> Passed {
        let sum = |of: fn(&RealStep) -> Span| -> f64 {
            steps.iter().map(|(step, _)| of(step).as_s()).sum()
        };
        let error = |(step, price): &(&RealStep, Priced)| price / step.wall_time().as_s() - 1.0;
        let mut errors: Vec<f64> = steps.iter().map(|step| error(step).abs()).collect();
        errors.sort_by(f64::total_cmp);
        let mut late: Vec<f64> = late.iter().map(|late| late.as_ms()).collect();
        late.sort_by(f64::total_cmp);
        let at = |values: &[f64], share: f64| {
            let rank = (values.len() as f64 * share).ceil() as usize;
            values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
        };
        Passed {
            steps: steps.len(),
            host_s: sum(RealStep::host_time),
            computed_s: sum(|step| step.end.since(step.began)),
            priced_s: steps.iter().map(|(_, price)| price).sum(),
            step_error: at(&errors, 0.5),
            late_ms: [at(&late, 0.5), at(&late, 0.99)],
        }
    }

    fn host_share(&self) -> f64 {
        self.host_s / (self.host_s + self.computed_s).max(f64::MIN_POSITIVE)
    }

    /// Priced over measured, minus 1.
    fn price_error(&self) -> f64 {
        self.priced_s / (self.host_s + self.computed_s).max(f64::MIN_POSITIVE) - 1.0
    }

    /// For reports.
    pub fn as_json(&self) -> Value {
        let each_us = |seconds: f64| 1e6 * seconds / self.steps.max(1) as f64;
        json!({
            "steps": self.steps,
            "computed_us_mean": each_us(self.computed_s),
            "host_us_mean": each_us(self.host_s),
            "host_share": self.host_share(),
            "priced_us_mean": each_us(self.priced_s),
            "priced_error": self.price_error(),
            "step_error_median": self.step_error,
            "timers_late_ms_p50": self.late_ms[0],
            "timers_late_ms_p99": self.late_ms[1],
        })
    }

    /// Three lines.
    pub fn in_words(&self) -> String {
        let each_ms = |seconds: f64| 1e3 * seconds / self.steps.max(1) as f64;
        format!(
            "real steps: {} of {:.3} ms in the mean, {:.1} % of it the host's time between steps\n\
             the same steps as the timing model prices them: {:+.1} % in all, {:.1} % off each (median)\n\
             timers rang {:.2} ms late (p50), {:.2} ms (p99)\n",
            self.steps,
            each_ms(self.host_s + self.computed_s),
            100.0 * self.host_share(),
            100.0 * self.price_error(),
            100.0 * self.step_error,
            self.late_ms[0],
            self.late_ms[1],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calibration::Linear;
    use engine::Time;
    use sim::event::WorkerId;

    /// Two steps of 1 ms and 3 ms, a quarter of the first the host's; the model says 2 ms each.
    #[test]
    fn the_sum_can_be_right_where_each_is_wrong() {
        let step = |ready: f64, began: f64, end: f64| RealStep {
            worker: WorkerId(0),
            handed_over: Time::ZERO,
            ready: Time(Span::from_ms(ready).0),
            began: Time(Span::from_ms(began).0),
            end: Time(Span::from_ms(end).0),
            prefill: Vec::new(),
            decode_batch: 1,
            decode_context: 10,
            samples: 1,
        };
        let (first, second) = (step(0.0, 0.25, 1.0), step(1.0, 1.0, 4.0));
        let late = [Span::from_ms(2.0), Span::from_ms(1.0)];
        let timing = Linear::from_ns(2_000_000, 0, 0);
        let steps = [first, second];
        let prices = price(&steps, &timing);
        let steps: Vec<(&RealStep, Priced)> = steps.iter().zip(prices).collect();
        let passed = Passed::of(&steps, &late);
        let value = passed.as_json();
        assert_eq!(value["host_us_mean"], 125.0);
        assert!(passed.price_error().abs() < 1e-9, "{value}");
        // 2 for 1 and 2 for 3: off by 1 and by a third; the lower of two is the median by nearest rank.
        assert!((passed.step_error - 1.0 / 3.0).abs() < 1e-9, "{value}");
        assert_eq!((passed.late_ms[0], passed.late_ms[1]), (1.0, 2.0));
    }
}
