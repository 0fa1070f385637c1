//! When the planner ticks and what is due then.
//!
//! Ticks come every `scale_interval`, the first one interval after the start. Each loop is due when its own interval has passed
//! since it last ran, counted from the start, so 180, 360, … for the throughput loop. Traffic is asked for, and the window
//! begun anew, only at ticks where somebody reads it: the throughput loop, or load scaling against the SLA where there is no
//! throughput loop (it only wants the hit rate and the accept length).

use super::config::PlannerConfig;
use engine::{Span, Time};

/// A tick to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduledTick {
    /// When.
    pub at: Time,
    /// Whether the load loop is due; it learns from forward passes even if load scaling is off.
    pub runs_load: bool,
    /// Whether the throughput loop is due.
    pub runs_throughput: bool,
    /// Whether the traffic window is read, and begun anew.
    pub needs_traffic: bool,
    /// Whether all of it is read, or only hit rate and accept length.
    pub needs_full_traffic: bool,
    /// How far back the reader looks.
    pub traffic_span: Span,
    /// Whether forward passes are read.
    pub needs_passes: bool,
}

/// The last time of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    last_tick: Time,
    load: Time,
    throughput: Time,
    /// The proposal by traffic runs only with a prediction; without one it stays due, and traffic is read again at the next
    /// tick.
    throughput_proposal: Time,
}

impl Schedule {
    pub(super) fn new(start: Time) -> Self {
        Schedule {
            last_tick: start,
            load: start,
            throughput: start,
            throughput_proposal: start,
        }
    }

    /// The tick after the last one.
    pub(super) fn next(&self, config: &PlannerConfig) -> ScheduledTick {
        let at = self.last_tick + config.scale_interval();
        let seconds = |interval: u32| Span::from_s(f64::from(interval));
        let load_interval = seconds(config.load_adjustment_interval_seconds);
        let throughput_interval = seconds(config.throughput_adjustment_interval_seconds);
        let runs_load = at.since(self.load) >= load_interval;
        let is_due =
            |last: Time| config.scales_by_throughput() && at.since(last) >= throughput_interval;
        let reads_all = is_due(self.throughput) || is_due(self.throughput_proposal);
        let reads_load = runs_load && config.scales_by_load();
        let reads_hit_rate = reads_load && config.is_sla() && !config.scales_by_throughput();
        ScheduledTick {
            at,
            runs_load,
            runs_throughput: is_due(self.throughput),
            needs_traffic: reads_all || reads_hit_rate,
            needs_full_traffic: reads_all,
            traffic_span: match (reads_all, reads_hit_rate) {
                (true, _) => throughput_interval,
                (false, true) => load_interval,
                (false, false) => Span::ZERO,
            },
            needs_passes: reads_load || (runs_load && config.is_sla()),
        }
    }

    /// A tick has run; `proposed` if the throughput proposal had a prediction.
    pub(super) fn ran(&mut self, tick: &ScheduledTick, proposed: bool) {
        self.last_tick = tick.at;
        if tick.runs_load {
            self.load = tick.at;
        }
        if tick.runs_throughput {
            self.throughput = tick.at;
        }
        if proposed {
            self.throughput_proposal = tick.at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamo::Target;

    #[test]
    fn loops_are_due_on_multiples_of_their_intervals() {
        let config = PlannerConfig {
            optimization_target: Target::Sla,
            enable_load_scaling: true,
            load_adjustment_interval_seconds: 20,
            throughput_adjustment_interval_seconds: 50,
            ..PlannerConfig::default()
        };
        let mut schedule = Schedule::new(Time::ZERO);
        let mut due = Vec::new();
        for _ in 0..10 {
            let tick = schedule.next(&config);
            due.push((tick.at.as_s() as u32, tick.runs_load, tick.runs_throughput));
            schedule.ran(&tick, tick.runs_throughput);
        }
        let load: Vec<u32> = due
            .iter()
            .filter(|tick| tick.1)
            .map(|tick| tick.0)
            .collect();
        let throughput: Vec<u32> = due
            .iter()
            .filter(|tick| tick.2)
            .map(|tick| tick.0)
            .collect();
        assert_eq!(
            (load, throughput),
            (vec![20, 40, 60, 80, 100], vec![50, 100])
        );
    }
}
