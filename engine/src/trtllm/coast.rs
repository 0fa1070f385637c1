//! Coasting: how many equal decode steps may follow each other without asking the scheduler.
//!
//! A step that only decodes is followed by its like until a sequence reaches its goal or, with pauses, blocks lack. Nobody
//! can start meanwhile: the tokens left of the budget stay the same; each block that a decode takes from the free ones was
//! set aside for it (`GUARANTEED_NO_EVICT`) or is one fewer for everybody (`MAX_UTILIZATION`); and what steps aside for
//! another's block does so as long as nobody finishes a prompt. With pauses a request that fits now and no longer later could
//! stop those behind it, so there a batch coasts only if no request that has not started stands before one that has.

use super::Scheduler;
use super::config::CapacityPolicy;
use super::sequence::SequenceId;
use crate::flight::Flight;
use crate::plan::{HostCopies, StepPlan};

impl Scheduler {
    /// Steps in flight.
    #[must_use]
    pub fn steps_in_flight(&self) -> u32 {
        match self.flights.front() {
            None => 0,
            Some(only) if self.flights.len() == 1 => only.in_flight(),
            Some(_) => self.flights.iter().map(Flight::in_flight).sum(),
        }
    }

    /// The newest plan in flight.
    #[must_use]
    pub fn newest(&self) -> Option<&StepPlan> {
        self.flights.back().map(|flight| &*flight.plan)
    }

    /// The oldest plan in flight.
    #[must_use]
    pub fn oldest(&self) -> Option<&StepPlan> {
        self.flights.front().map(|flight| &*flight.plan)
    }

    /// Steps of the oldest plan whose outputs have arrived.
    #[must_use]
    pub fn delivered_steps(&self) -> u32 {
        self.flights.front().map_or(0, |flight| flight.delivered)
    }

    /// Schedules the next step of the plan if it may take one more.
    pub fn coast_on(&mut self) -> bool {
        if !self.flights.back().is_some_and(Flight::may_go_on) {
            return false;
        }
        let mut flight = self.flights.pop_back().expect("it was there a line above");
        self.extend(&mut flight, 1);
        self.flights.push_back(flight);
        true
    }

    /// Forbids all steps that are not scheduled yet.
    pub fn stop_coasting(&mut self) {
        if let Some(newest) = self.flights.back_mut() {
            newest.allowed = newest.scheduled;
            if newest.is_over() {
                let over = self.flights.pop_back().expect("it is the newest");
                self.land(over);
            }
        }
    }

    /// Keeps the oldest plan in flight unless it is over.
    pub(super) fn put_back(&mut self, flight: Flight) {
        if flight.is_over() {
            self.land(flight);
        } else {
            self.flights.push_front(flight);
        }
    }

    fn land(&mut self, flight: Flight) {
        for part in &flight.plan.scheduled {
            self.sequences[part.sequence as usize].is_in_flight = false;
        }
        self.spare = Some(flight.plan);
    }

    /// Schedules what must have been scheduled by the time the outputs of the next `steps` steps have arrived.
    pub(super) fn catch_up(&mut self, flight: &mut Flight, steps: u32) {
        let lacking = flight.lacking(steps);
        if lacking > 0 {
            self.extend(flight, lacking);
        }
    }

    /// Steps of the plan whose outputs are sure to arrive without a KV event; there may be more. Until somebody ends, only
    /// evictions are events.
    #[must_use]
    pub fn quiet_steps(&self) -> u32 {
        let Some(flight) = self.flights.front().filter(|_| !self.cache.has_events()) else {
            return 0;
        };
        self.quiet_steps_of(flight)
    }

    pub(super) fn quiet_steps_of(&self, flight: &Flight) -> u32 {
        let before_last = flight.allowed - flight.delivered - 1;
        let has_room = |steps: u32| {
            let more = (flight.delivered + steps).saturating_sub(flight.scheduled);
            let parts = flight.plan.scheduled.iter();
            let ahead = flight.in_flight() + more;
            let lacking = parts.map(|part| match self.acceptance {
                Some(_) => self.blocks_with_drafts(part.sequence, ahead.saturating_sub(1)),
                None => self.blocks_for_tokens(part.sequence, more),
            });
            more == 0 || lacking.sum::<u64>() <= u64::from(self.cache.blank_blocks())
        };
        if has_room(before_last) {
            return before_last;
        }
        let (mut enough, mut too_many) = (0, before_last);
        while too_many - enough > 1 {
            let middle = enough + (too_many - enough) / 2;
            if has_room(middle) {
                enough = middle;
            } else {
                too_many = middle;
            }
        }
        enough
    }

    fn extend(&mut self, flight: &mut Flight, steps: u32) {
        let ahead = flight.in_flight() + steps - 1;
        for part in &flight.plan.scheduled {
            match self.acceptance {
                Some(_) => self.set_slots_aside(part.sequence, ahead),
                None => self.advance(part.sequence, steps),
            }
        }
        flight.scheduled += steps;
        self.note_peak();
    }

    /// How many steps the batch just scheduled may take.
    pub(super) fn coast_limit(&self, plan: &StepPlan) -> u32 {
        let is_staged = self.config.pipeline_parallel_size > 1;
        if is_staged || !plan.prefill.is_empty() || !plan.preempted.is_empty() {
            return 1;
        }
        let to_goal = |&id: &SequenceId| self.steps_to_goal(id);
        let limit = self.decodes.iter().map(to_goal).min();
        let limit = limit.expect("a plan without prompts decodes");
        let limit = match self.config.capacity_scheduler_policy {
            CapacityPolicy::GuaranteedNoEvict => limit,
            CapacityPolicy::MaxUtilization => self.limit_by_blocks(limit),
        };
        match &self.host {
            None => limit,
            Some(_) if plan.copies != HostCopies::default() => 1,
            // A step that evicts waits for a copy.
            Some(_) => self.steps_with(limit, u64::from(self.cache.blank_blocks())),
        }
    }

    fn limit_by_blocks(&self, limit: u32) -> u32 {
        let decodes = |&id: &SequenceId| self.sequences[id as usize].decodes();
        let started = self.active.iter().take_while(|id| decodes(id)).count();
        if started != self.decodes.len() || started != self.started {
            return 1;
        }
        self.steps_with(limit, u64::from(self.cache.free_blocks()))
    }

    /// The largest number of steps up to `limit` that so many blocks are enough for; the first step has its blocks already.
    fn steps_with(&self, limit: u32, free: u64) -> u32 {
        if self.blocks_for_more(limit - 1) <= free {
            return limit;
        }
        let (mut enough, mut too_many) = (1, limit);
        while too_many - enough > 1 {
            let middle = enough + (too_many - enough) / 2;
            if self.blocks_for_more(middle - 1) <= free {
                enough = middle;
            } else {
                too_many = middle;
            }
        }
        enough
    }

    /// Blocks that the decoding sequences lack for `steps` more steps.
    fn blocks_for_more(&self, steps: u32) -> u64 {
        let lacking = |&id: &SequenceId| match self.acceptance {
            Some(_) => self.blocks_with_drafts(id, steps),
            None => self.blocks_for_tokens(id, steps),
        };
        self.decodes.iter().map(lacking).sum()
    }

    /// Blocks that a sequence lacks for so many more tokens.
    fn blocks_for_tokens(&self, id: SequenceId, tokens: u32) -> u64 {
        let sequence = &self.sequences[id as usize];
        let all = self.config.blocks_for(sequence.computed + tokens);
        u64::from(all.saturating_sub(sequence.table.blocks()))
    }
}
