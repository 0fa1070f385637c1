//! Workers over time: how many started, served and drained, averaged over windows of equal length.

use super::record::ScalingRecord;
use super::summary::Phase;
use crate::series::Occupancy;
use engine::{Span, Time};
use serde::Serialize;

/// Workers of all pools by state, averaged over a window.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Replicas {
    /// Starting, or called in.
    pub starting: f64,
    /// Kept warm.
    pub spare: f64,
    /// Serving.
    pub ready: f64,
    /// Finishing what they had.
    pub draining: f64,
}

impl ScalingRecord {
    /// In `count` windows from the start of the run, which ended at `end`, in the last of them.
    pub(crate) fn replicas(&self, window: Span, count: usize, end: Time) -> Vec<Replicas> {
        let shares = |states: &[Phase]| -> Vec<f64> {
            let mut occupied = Occupancy::new(window, count);
            for life in &self.lives {
                let stay = life.stay(end);
                for state in states {
                    let (from, until) = state(&stay);
                    occupied.add(from, until);
                }
            }
            let totals = occupied.totals();
            totals.map(|ps| ps as f64 / window.0 as f64).collect()
        };
        let starting = shares(&[|stay| stay.starting, |stay| stay.activating]);
        let spare = shares(&[|stay| stay.spare]);
        let ready = shares(&[|stay| stay.ready]);
        let draining = shares(&[|stay| stay.draining]);
        let row = |at: usize| Replicas {
            starting: starting[at],
            spare: spare[at],
            ready: ready[at],
            draining: draining[at],
        };
        (0..count).map(row).collect()
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
            placed: moments[0],
            ready: moments[1],
            drained: moments[2],
            gone: moments[3],
            ..Life::of(0, moments[0])
        };
        let record = ScalingRecord {
            lives: vec![
                life([s(0), s(0), Time::MAX, Time::MAX]),
                life([s(5), s(12), s(25), s(28)]),
                // A spare from 4 s on, called in at 20 s, serving at 22 s.
                Life {
                    warm: s(4),
                    called: s(20),
                    ..life([s(0), s(22), Time::MAX, Time::MAX])
                },
            ],
            ..ScalingRecord::new("test")
        };
        let replicas = record.replicas(Span::from_s(10.0), 3, s(29));
        let row = |of: fn(&Replicas) -> f64| replicas.iter().map(of).collect::<Vec<_>>();
        assert_eq!(row(|it| it.starting), [0.9, 0.2, 0.2]);
        assert_eq!(row(|it| it.spare), [0.6, 1.0, 0.0]);
        // The run ends at 29 s.
        assert_eq!(row(|it| it.ready), [1.0, 1.8, 2.1]);
        assert_eq!(row(|it| it.draining), [0.0, 0.0, 0.3]);
    }
}
