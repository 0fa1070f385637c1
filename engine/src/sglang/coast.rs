//! Coasting: how many equal decode steps may follow each other without asking the scheduler.
//!
//! A decode batch stays as it is until a sequence reaches its goal, memory lacks, or a prefill batch is formed. The first
//! two are counted here. A prefill batch cannot be formed while nobody waits, nor while the batch is marked full: the mark
//! goes only when somebody leaves (S3), and while it stands the queue is not even looked at. If somebody waits and the
//! batch is not full, the queue is tried at every step and the batch does not coast.
//!
//! Nothing but eviction touches the cache meanwhile. Evicting for many steps at once evicts what the steps would have
//! evicted one by one: leaves go in one order, until enough is free for the last step. With expected acceptance a step brings
//! each sequence a mean number of tokens, so that the same holds.

use super::Scheduler;
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

    /// How far the last scheduled step of the plan lies behind its first.
    #[must_use]
    pub fn newest_coasted_steps(&self) -> u32 {
        self.flights.back().map_or(0, |flight| flight.scheduled - 1)
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
                self.spare = Some(over.plan);
            }
        }
    }

    /// Keeps the oldest plan in flight unless it is over.
    pub(super) fn put_back(&mut self, flight: Flight) {
        if flight.is_over() {
            self.spare = Some(flight.plan);
        } else {
            self.flights.push_front(flight);
        }
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
        let Some(flight) = self.flights.front().filter(|_| !self.pool.has_events()) else {
            return 0;
        };
        self.quiet_steps_of(flight)
    }

    pub(super) fn quiet_steps_of(&self, flight: &Flight) -> u32 {
        let before_last = flight.allowed - flight.delivered - 1;
        if before_last == 0 {
            return 0;
        }
        // A plan that goes on is a decode plan. As in `extend`.
        let reserve = u64::from(self.reserve_for_a_step());
        let has_room = |steps: u32| {
            let more = (flight.delivered + steps).saturating_sub(flight.scheduled);
            let before_last = more.saturating_sub(1) + self.outstanding(flight);
            let pages = self.pages_for_more(&self.running, before_last);
            more == 0 || pages + reserve <= u64::from(self.pool.free_tokens())
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

    /// The same where an eviction waits for a copy, which makes its step longer than the others.
    fn steps_without_eviction(&self, plan: &StepPlan) -> u32 {
        if plan.copies != HostCopies::default() {
            return 1;
        }
        let missing = |&id: &SequenceId| self.sequences[id as usize].missing();
        let limit = self.running.iter().map(missing).min();
        let limit = limit.expect("a decode batch has sequences");
        // As in `extend`.
        let reserve = self.running.len() as u64 * u64::from(self.config.page_size);
        let has_room = |steps: u32| {
            let pages = self.pages_for_more(&self.running, steps - 1);
            pages + reserve <= u64::from(self.pool.free_tokens())
        };
        let (mut enough, mut too_many) = (1, limit + 1);
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
        // Only decode plans coast, and their batch is all that runs.
        let running = std::mem::take(&mut self.running);
        let before_last = steps - 1 + self.outstanding(flight);
        let before_last = self.pages_for_more(&running, before_last) as u32;
        self.running = running;
        self.pool.make_room(before_last + self.reserve_for_a_step());
        if self.acceptance.is_some() {
            self.note_peak(before_last + self.reserve_for_a_step());
        } else {
            for &id in &self.running {
                self.pool.grow(&mut self.sequences[id as usize], steps);
            }
            self.note_peak(0);
        }
        self.ratio.decay(steps);
        flight.scheduled += steps;
    }

    /// What the last step's own eviction asks for: a page per sequence, whether it needs one or not, or slots for its drafts.
    fn reserve_for_a_step(&self) -> u32 {
        match self.slots_for(self.running.len()) {
            0 => self.running.len() as u32 * self.config.page_size,
            slots => slots,
        }
    }

    /// Scheduled steps whose tokens hold no memory yet: with drafts they get it when it is known how many they are.
    fn outstanding(&self, flight: &Flight) -> u32 {
        match self.acceptance {
            Some(_) => flight.in_flight(),
            None => 0,
        }
    }

    /// How many steps the batch just scheduled may take.
    pub(super) fn coast_limit(&self, plan: &StepPlan) -> u32 {
        let only_decodes = plan.prefill.is_empty() && plan.preempted.is_empty();
        if self.config.pp_size > 1
            || !only_decodes
            || !(self.is_full || self.waiting.is_empty())
            || self.handoff.wants_memory()
        {
            return 1;
        }
        if self.pool.cache.writes_back() {
            return self.steps_without_eviction(plan);
        }
        let to_goal = |&id: &SequenceId| {
            let sequence = &self.sequences[id as usize];
            // Who was aborted ends before its goal.
            self.steps_to_goal(id)
                .min(sequence.stop_at - sequence.outputs)
        };
        let limit = self
            .running
            .iter()
            .map(to_goal)
            .min()
            .expect("a decode batch has sequences");
        if limit == 1 {
            return 1;
        }
        let available = u64::from(self.pool.available_tokens());
        let available = available - u64::from(self.slots_for(self.running.len()));
        if self.pages_for_more(&self.running, limit - 1) <= available {
            return limit;
        }
        // The largest number of steps whose memory is there; the first step has its memory already, with drafts set aside.
        let (mut enough, mut too_many) = (1, limit);
        while too_many - enough > 1 {
            let middle = enough + (too_many - enough) / 2;
            if self.pages_for_more(&self.running, middle - 1) <= available {
                enough = middle;
            } else {
                too_many = middle;
            }
        }
        enough
    }
}
