//! Workers with which something is wrong: steps that take longer, steps that do not end, steps that are gone.
//!
//! A step keeps the pace at which it began. While a worker is not as it should be, its steps are priced one by one: their
//! times are rounded, and rounded times are no arithmetic progression.

use super::{Driver, Segment};
use crate::adversity::faults::Disturbance;
use crate::event::WorkerId;
use crate::pipeline::Pipeline;
use engine::{Span, Time};

/// What is wrong with a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disturbed {
    /// Steps take so many per cent of their time.
    percent: u32,
    /// No step begins or ends before.
    hangs_until: Time,
}

const SOUND: Disturbed = Disturbed {
    percent: 100,
    hangs_until: Time::ZERO,
};

impl Disturbed {
    /// The steps that begin with this segment, as they are now.
    pub fn delay(&self, segment: &mut Segment) {
        if self.percent != SOUND.percent {
            let ps = u128::from(segment.first.0) * u128::from(self.percent) / 100;
            segment.first = Span(u64::try_from(ps).expect("a step is over within 213 days"));
            alone(segment);
        }
        if segment.start < self.hangs_until {
            segment.first += self.hangs_until.since(segment.start);
            alone(segment);
        }
    }
}

fn alone(segment: &mut Segment) {
    segment.steps = 1;
    segment.slope_ps = 0;
}

impl Driver<'_> {
    /// Something is wrong with a worker, or not any more. What it did up to now has been reported.
    pub(super) fn disturb(&mut self, worker: WorkerId, now: Time, how: Disturbance) {
        let lane = &mut self.lanes[worker.0 as usize];
        let mut disturbed = lane.disturbed.unwrap_or(SOUND);
        let runs = lane.segment.as_mut().filter(|segment| segment.start < now);
        match how {
            Disturbance::Stop => {
                lane.plans.clear();
                lane.segment = None;
                lane.pipeline = lane
                    .pipeline
                    .take()
                    .map(|it| Pipeline::new(it.stages() as u32));
                disturbed.hangs_until = Time::ZERO;
            }
            Disturbance::Pace(percent) => {
                disturbed.percent = percent;
                if let Some(segment) = runs {
                    segment.steps = 1;
                }
            }
            Disturbance::HangUntil(until) => {
                if let Some(segment) = runs {
                    // Time that it hangs already does not count twice.
                    segment.first += until.since(now.max(disturbed.hangs_until.min(until)));
                    alone(segment);
                }
                disturbed.hangs_until = disturbed.hangs_until.max(until);
            }
        }
        let is_sound = disturbed.percent == SOUND.percent && disturbed.hangs_until <= now;
        lane.disturbed = (!is_sound).then_some(disturbed);
        match lane.segment {
            Some(segment) if segment.start < now => self.enter_end(worker),
            // None, or one that begins at this instant.
            segment => self.begin_segment(worker, segment.map_or(now, |it| it.start)),
        }
        self.reports.look_again(worker);
    }
}
