//! Workers over time: how many started, served and drained, averaged over windows of equal length.

use super::record::ScalingRecord;
use super::summary::Stay;
use crate::series::Occupancy;
use engine::{Span, Time};
use serde::Serialize;

/// Workers of all pools by state, averaged over a window.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Replicas {
    /// Starting.
    pub starting: f64,
    /// Serving.
    pub ready: f64,
    /// Finishing what they had.
    pub draining: f64,
}

impl ScalingRecord {
    /// In `count` windows from the start of the run, which ended at `end`, in the last of them.
    pub(crate) fn replicas(&self, window: Span, count: usize, end: Time) -> Vec<Replicas> {
        let shares = |state: fn(&Stay) -> (Time, Time)| -> Vec<f64> {
            let mut occupied = Occupancy::new(window, count);
            for life in &self.lives {
                let (from, until) = state(&life.stay(end));
                occupied.add(from, until);
            }
            let totals = occupied.totals();
            totals.map(|ps| ps as f64 / window.0 as f64).collect()
        };
        let starting = shares(|stay| stay.starting);
        let ready = shares(|stay| stay.ready);
        let draining = shares(|stay| stay.draining);
        let all = starting.into_iter().zip(ready).zip(draining);
        all.take(count)
            .map(|((starting, ready), draining)| Replicas {
                starting,
                ready,
                draining,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lifecycle::Life;
    use super::*;

    #[test]
    fn states_are_averaged_over_windows() {
        let s = |seconds: u64| Time(seconds * 1_000_000_000_000);
        let life = |moments: [Time; 4]| Life {
            worker: 0,
            pool: 0,
            ordered: moments[0],
            placed: moments[0],
            ready: moments[1],
            drained: moments[2],
            gone: moments[3],
        };
        let record = ScalingRecord {
            lives: vec![
                life([s(0), s(0), Time::MAX, Time::MAX]),
                life([s(5), s(12), s(25), s(28)]),
            ],
            ..ScalingRecord::new("test")
        };
        let replicas = record.replicas(Span::from_s(10.0), 3, s(29));
        let row = |of: fn(&Replicas) -> f64| replicas.iter().map(of).collect::<Vec<_>>();
        assert_eq!(row(|it| it.starting), [0.5, 0.2, 0.0]);
        // The run ends at 29 s.
        assert_eq!(row(|it| it.ready), [1.0, 1.8, 1.4]);
        assert_eq!(row(|it| it.draining), [0.0, 0.0, 0.3]);
    }
}
