//! A plan in flight of SGLang or TensorRT-LLM: how many of its steps may run, are scheduled, have arrived.

use crate::plan::StepPlan;

/// A plan that was handed out and is not finished.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    /// Boxed, since it moves between queues more often than it is made.
    pub plan: Box<StepPlan>,
    /// Steps it may take in all.
    pub allowed: u32,
    /// Steps whose memory is taken.
    pub scheduled: u32,
    /// Steps whose outputs have arrived.
    pub delivered: u32,
}

impl Flight {
    pub fn new(plan: Box<StepPlan>) -> Self {
        Flight {
            allowed: plan.up_to,
            plan,
            scheduled: 1,
            delivered: 0,
        }
    }

    pub fn note_delivered(&mut self, steps: u32) {
        self.delivered += steps;
        assert!(
            self.delivered <= self.scheduled,
            "outputs come only from steps that were scheduled"
        );
    }

    /// Steps that must be scheduled beyond those that are, for the outputs of the next `steps` to arrive.
    pub fn lacking(&self, steps: u32) -> u32 {
        let due = self.delivered + steps;
        assert!(due <= self.allowed, "only allowed steps run");
        due.saturating_sub(self.scheduled)
    }

    pub fn in_flight(&self) -> u32 {
        self.scheduled - self.delivered
    }

    pub fn is_over(&self) -> bool {
        self.delivered == self.allowed
    }

    pub fn may_go_on(&self) -> bool {
        self.scheduled < self.allowed
    }
}
