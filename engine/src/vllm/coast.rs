//! Coasting: how many equal decode steps may follow each other without asking the scheduler.
//!
//! A batch that only decodes stays as it is until a sequence reaches its goal, a block cannot be had, or somebody is
//! admitted. The first two are counted here. Admission cannot become possible while nothing but time passes:
//!
//! * no seat, no budget: both change only when a sequence ends;
//! * no blocks (R5): each step can only take blocks from the queue. A block that is popped costs the head of the queue
//!   at most the one block it gains when another copy of it, in use, takes over; a hit cut short needs more blocks, not
//!   fewer. That argument needs the check over all known tokens; the check over the first chunk depends on where the
//!   chunk ends, so there a batch coasts only if no block of the hit can be evicted;
//! * a longer hit would help, and a running sequence could provide it by generating what the head quotes. If the block
//!   the head lacks lies on the path of a running sequence, the batch does not coast.
//!
//! An arrival, a cancel or anything else from outside ends a coast ([`Scheduler::stop_coasting`]) at the step boundary
//! at which the scheduler would have seen it.

use super::sequence::{Sequence, SequenceId};
use super::{Scheduler, allocate};
use crate::kv_cache::Hit;
use crate::plan::StepPlan;

/// A plan that was handed out and is not finished.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// Boxed, since it moves between queues more often than it is made.
    pub plan: Box<StepPlan>,
    /// Steps it may take in all.
    allowed: u32,
    /// Steps whose blocks are allocated.
    scheduled: u32,
    /// Steps whose outputs have arrived.
    delivered: u32,
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

    pub fn is_over(&self) -> bool {
        self.delivered == self.allowed
    }

    pub fn note_delivered(&mut self, steps: u32) {
        self.delivered += steps;
        assert!(
            self.delivered <= self.scheduled,
            "outputs come only from steps that were scheduled"
        );
    }

    #[inline]
    fn in_flight(&self) -> u32 {
        self.scheduled - self.delivered
    }
}

/// Why no more sequences were admitted in a step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Standstill {
    /// Nobody waits, or there is no seat or no budget left.
    Open,
    /// The head of the queue found too few blocks or too little budget.
    Blocked {
        head: SequenceId,
        hit: Hit,
        /// Whether losing cached blocks could help it.
        hit_matters: bool,
    },
    /// Something in flight will change the queue.
    Unsettled,
}

impl Scheduler {
    /// Steps in flight.
    #[must_use]
    #[inline]
    pub fn steps_in_flight(&self) -> u32 {
        match self.flights.front() {
            None => 0,
            Some(only) if self.flights.len() == 1 => only.in_flight(),
            Some(_) => self.flights.iter().map(Flight::in_flight).sum(),
        }
    }

    /// The newest plan in flight.
    #[must_use]
    #[inline]
    pub fn newest(&self) -> Option<&StepPlan> {
        self.flights.back().map(|flight| &*flight.plan)
    }

    /// How far the last scheduled step of the newest plan lies behind its first.
    #[must_use]
    pub fn newest_coasted_steps(&self) -> u32 {
        self.flights.back().map_or(0, |flight| flight.scheduled - 1)
    }

    /// Steps of the oldest plan whose outputs have arrived.
    #[must_use]
    #[inline]
    pub fn delivered_steps(&self) -> u32 {
        self.flights.front().map_or(0, |flight| flight.delivered)
    }

    /// Schedules the next step of the newest plan if it may take one more; a plan that may not is due.
    pub fn coast_on(&mut self) -> bool {
        let goes_on = |flight: &Flight| flight.scheduled < flight.allowed;
        if !self.flights.back().is_some_and(goes_on) {
            return false;
        }
        let mut flight = self.flights.pop_back().expect("it was there a line above");
        self.extend(&mut flight, 1);
        self.flights.push_back(flight);
        true
    }

    /// Forbids all steps that are not scheduled yet.
    pub fn stop_coasting(&mut self) {
        let Some(flight) = self.flights.back_mut() else {
            return;
        };
        flight.allowed = flight.scheduled;
        if flight.is_over() {
            let flight = self.flights.pop_back().expect("it was there a line above");
            self.spare.push(flight.plan);
        }
    }

    /// Schedules what must have been scheduled by the time the outputs of the next `steps` steps have arrived.
    pub(super) fn catch_up(&mut self, flight: &mut Flight, steps: u32) {
        let due = (flight.delivered + steps + self.config.depth() - 1).min(flight.allowed);
        if flight.scheduled < due {
            self.extend(flight, due - flight.scheduled);
        }
    }

    /// Steps of the oldest plan whose outputs are sure to arrive without a KV event; there may be more.
    #[must_use]
    pub fn quiet_steps(&self) -> u32 {
        match (self.flights.front(), self.flights.len()) {
            (Some(flight), 1) if !self.cache.has_events() => self.quiet_steps_of(flight),
            _ => 0,
        }
    }

    /// The same for the only plan in flight, whatever happened before. A block is stored as soon as its last token is both
    /// computed and known, one is evicted when none is blank; until then nothing happens to the cache.
    pub(super) fn quiet_steps_of(&self, flight: &Flight) -> u32 {
        if self.acceptance.is_some() {
            // How many tokens the steps will bring is not known from their number.
            return 0;
        }
        let sequences = || {
            let parts = flight.plan.scheduled.iter();
            parts.map(|part| &self.sequences[part.sequence as usize])
        };
        let mut quiet = flight.allowed - flight.delivered - 1;
        if self.config.enable_prefix_caching {
            // The last of so many steps is scheduled when the output before it is known.
            let until_stored = |sequence: &Sequence| {
                let full = (sequence.table.hashed() + 1) * self.config.block_size;
                full.saturating_sub(sequence.known())
            };
            quiet = sequences().map(until_stored).fold(quiet, u32::min);
        }
        // Steps scheduled beyond the present ones when `quiet` outputs have arrived.
        let more = (quiet + self.config.depth() - 1).saturating_sub(flight.in_flight());
        let taken = |sequence: &Sequence| {
            let blocks = self.cache.blocks_for(sequence.computed + more);
            blocks.saturating_sub(sequence.table.blocks())
        };
        if sequences().map(taken).sum::<u32>() <= self.cache.blank_blocks() {
            return quiet;
        }
        let until_taken = |sequence: &Sequence| {
            let room = sequence.table.blocks() * self.config.block_size - sequence.computed;
            (room + flight.in_flight()).saturating_sub(self.config.depth() - 1)
        };
        sequences().map(until_taken).fold(quiet, u32::min)
    }

    fn extend(&mut self, flight: &mut Flight, steps: u32) {
        if self.acceptance.is_some() {
            self.extend_speculating(&flight.plan, flight.in_flight() + steps - 1);
            flight.scheduled += steps;
            self.note_peak();
            return;
        }
        let is_async = self.config.async_scheduling;
        for part in &flight.plan.scheduled {
            let sequence = &mut self.sequences[part.sequence as usize];
            allocate(&mut self.cache, sequence, steps);
            if is_async {
                sequence.placeholders += steps;
            }
        }
        flight.scheduled += steps;
        self.note_peak();
    }

    /// How many steps the batch just scheduled may take.
    pub(super) fn coast_limit(&self, plan: &StepPlan, standstill: Standstill) -> u32 {
        // A first token is entered into the books at the end of a step of its own.
        let starts_nobody = plan.admitted.is_empty() && plan.arrived.is_empty();
        let only_decodes = plan.prefill.is_empty() && starts_nobody && plan.preempted.is_empty();
        // Behind the first step of a plan in a pipeline come other plans.
        let is_alone = self.config.pipeline_parallel_size == 1;
        if !is_alone
            || !only_decodes
            || plan.scheduled.len() != self.running.len()
            || self.may_admit_later(standstill)
        {
            return 1;
        }
        if self.acceptance.is_some() {
            return self.speculative_coast_limit(plan);
        }
        let is_async = self.config.async_scheduling;
        let to_goal = |&id: &SequenceId| {
            let sequence = &self.sequences[id as usize];
            let in_flight = if is_async {
                sequence.placeholders - 1
            } else {
                0
            };
            sequence.output_goal - sequence.outputs - in_flight
        };
        let limit = self
            .running
            .iter()
            .map(to_goal)
            .min()
            .expect("a plan has sequences");
        self.steps_with_blocks(limit, |more| self.blocks_for_more(more))
    }

    /// Of `limit` steps those whose blocks are there, if the running sequences lack `blocks(n)` for n steps after the first.
    pub(super) fn steps_with_blocks(&self, limit: u32, blocks: impl Fn(u32) -> u64) -> u32 {
        let free = u64::from(self.cache.free_blocks());
        if blocks(limit - 1) <= free {
            return limit;
        }
        // The largest number of steps whose blocks are there; the first step has its blocks already.
        let (mut enough, mut too_many) = (1, limit);
        while too_many - enough > 1 {
            let middle = enough + (too_many - enough) / 2;
            if blocks(middle - 1) <= free {
                enough = middle;
            } else {
                too_many = middle;
            }
        }
        enough
    }

    /// Blocks that the running sequences lack for `steps` more tokens each.
    fn blocks_for_more(&self, steps: u32) -> u64 {
        let lacking = |&id: &SequenceId| {
            let sequence = &self.sequences[id as usize];
            u64::from(
                self.cache
                    .blocks_for(sequence.computed + steps)
                    .saturating_sub(sequence.table.blocks()),
            )
        };
        self.running.iter().map(lacking).sum()
    }

    fn may_admit_later(&self, standstill: Standstill) -> bool {
        match standstill {
            Standstill::Open => false,
            Standstill::Unsettled => true,
            Standstill::Blocked {
                hit_matters: true,
                hit: Hit {
                    idle_blocks: 1.., ..
                },
                ..
            } => true,
            Standstill::Blocked { head, hit, .. } => self.hit_may_grow(head, hit),
        }
    }

    /// Whether a running sequence could generate the block at which the hit of `head` ends.
    fn hit_may_grow(&self, head: SequenceId, hit: Hit) -> bool {
        let path = &self.sequences[head as usize].path;
        let Some(missing) = path.iter().find(|stretch| stretch.end > hit.blocks) else {
            return false;
        };
        self.running.iter().any(|&id| {
            let sequence = &self.sequences[id as usize];
            let unwritten = sequence
                .path
                .partition_point(|stretch| stretch.end <= sequence.table.hashed());
            sequence.path[unwritten..]
                .iter()
                .any(|stretch| stretch.node == missing.node)
        })
    }
}
