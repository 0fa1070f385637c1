//! Schedule: so many workers from such a time on, as a calendar (KEDA's cron scaler, a CronJob) would have it.
//!
//! It looks at nothing. Between two entries the counts of the earlier one hold.

use crate::decision::{Decision, Planner, Reason};
use crate::observe::{Observations, PerRole, Role};
use crate::problem::{ConfigProblem, Problems};
use engine::Time;

/// Workers from a time on; `None` leaves a role as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// From when.
    pub at: Time,
    /// How many.
    pub workers: PerRole<Option<u32>>,
}

/// The entries, and which is next.
#[derive(Debug, Clone)]
pub struct Schedule {
    entries: Vec<Entry>,
    next: usize,
}

impl Schedule {
    /// These entries.
    ///
    /// # Errors
    /// None at all, or times that do not increase.
    pub fn new(entries: Vec<Entry>) -> Result<Self, Vec<ConfigProblem>> {
        let mut found = Problems::default();
        if entries.is_empty() {
            let what = "policy: static keeps the workers there are";
            found.add("schedule", "no entries", "one or more", what);
        }
        for pair in entries.windows(2).filter(|pair| pair[0].at >= pair[1].at) {
            let (at, expected) = (pair[1].at.as_s(), pair[0].at.as_s());
            let expected = format!("a time after {expected} s, that of the entry before");
            found.add("schedule", format!("{at} s"), &expected, "sort the entries");
        }
        found.none_or(Schedule { entries, next: 0 })
    }
}

impl Planner for Schedule {
    fn name(&self) -> &'static str {
        "schedule"
    }

    fn first_tick(&self) -> Option<Time> {
        self.entries.first().map(|entry| entry.at)
    }

    fn tick(&mut self, _now: Time, seen: &Observations) -> Decision {
        let targets = self.entries[self.next].workers;
        self.next += 1;
        let grows = |role| {
            let target: Option<u32> = *targets.get(role);
            target.is_some_and(|target| target > seen.pools.get(role).staying())
        };
        let shrinks = |role| {
            let target: Option<u32> = *targets.get(role);
            target.is_some_and(|target| target < seen.pools.get(role).staying())
        };
        let reason = match Role::BOTH {
            roles if roles.into_iter().any(grows) => Reason::ScaleUp,
            roles if roles.into_iter().any(shrinks) => Reason::ScaleDown,
            _ => Reason::NoChange,
        };
        Decision {
            targets,
            reason: Some(reason),
            next_tick: self.entries.get(self.next).map(|entry| entry.at),
            ..Decision::default()
        }
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, decode: u32) -> Entry {
        Entry {
            at: Time(at),
            workers: PerRole {
                prefill: None,
                decode: Some(decode),
            },
        }
    }

    #[test]
    fn entries_come_in_their_turn() {
        let mut schedule = Schedule::new(vec![entry(5, 2), entry(9, 0)]).unwrap();
        assert_eq!(schedule.first_tick(), Some(Time(5)));
        let first = schedule.tick(Time(5), &Observations::default());
        assert_eq!(
            (first.targets.decode, first.next_tick),
            (Some(2), Some(Time(9)))
        );
        assert_eq!(first.reason, Some(Reason::ScaleUp));
        let last = schedule.tick(Time(9), &Observations::default());
        assert_eq!((last.targets.decode, last.next_tick), (Some(0), None));
    }

    #[test]
    fn times_have_to_increase() {
        let problems = Schedule::new(vec![entry(5, 2), entry(5, 1), entry(4, 1)]).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert_eq!(Schedule::new(Vec::new()).unwrap_err().len(), 1);
    }
}
