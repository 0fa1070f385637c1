//! Static: the workers there are from the start, for ever. What every other policy must beat.

use crate::decision::{Decision, Planner};
use crate::observe::Observations;
use engine::Time;

/// Never asks to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed;

impl Planner for Fixed {
    fn name(&self) -> &'static str {
        "static"
    }

    fn first_tick(&self) -> Option<Time> {
        None
    }

    fn tick(&mut self, _now: Time, _seen: &Observations) -> Decision {
        Decision::default()
    }

    fn boxed(&self) -> Box<dyn Planner> {
        Box::new(*self)
    }
}
