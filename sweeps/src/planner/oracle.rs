//! An oracle among planners: a calendar made by who knows every request to come.
//!
//! Time is cut into intervals. The work of a request (its prompt's steps alone, and its share of steps that decode half a KV
//! cache) falls into the interval in which it arrives. An interval needs as many workers as do its work at the utilisation that
//! is asked for; workers are ordered a start-up time before they are needed and drained when they no longer are. How high the
//! utilisation may be is for the caller to find: `dynosim autoscale` tries.
//!
//! No real planner can have this, and none that shares its workers' speed should need much less. It is no proof: prefix hits and
//! batching make work cheaper than it is taken for here, in some intervals more than in others.

use super::{capabilities, role_of};
use crate::scenario::Pool;
use engine::{Chunk, Request, Span, StepShape, StepTime, Time, Workload};
use planner::policy::ScheduleEntry;
use planner::{ConfigProblem, PerRole, Role};
use sim::Startup;
use std::sync::Arc;

/// What the oracle aims at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OracleSpec {
    /// Length of an interval.
    pub interval: Span,
    /// Share of its time that a worker is to be at work; above 1 lets queues grow.
    pub utilization: f64,
    /// Fewest workers of a role.
    pub min_replicas: u32,
    /// Most.
    pub max_replicas: u32,
}

impl OracleSpec {
    /// Everything that is wrong with it.
    pub(super) fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        let mut add = |field, found_there: String, expected: String, suggestion| {
            found.push(ConfigProblem {
                field,
                found: found_there,
                expected,
                suggestion,
            });
        };
        if self.interval == Span::ZERO {
            add(
                "interval_s",
                "0".to_owned(),
                "a time above zero".to_owned(),
                "60 is the default",
            );
        }
        if self.utilization <= 0.0 {
            let expected = "a share above zero".to_owned();
            add(
                "utilization",
                self.utilization.to_string(),
                expected,
                "0.7 is the default",
            );
        }
        let (min, max) = (self.min_replicas, self.max_replicas);
        if max == 0 || min > max {
            let expected = format!("at most max_replicas ({max}), which is at least 1");
            add(
                "min_replicas",
                min.to_string(),
                expected,
                "lower one or raise the other",
            );
        }
        found
    }

    /// Its calendar for a workload.
    pub(super) fn schedule(
        &self,
        pools: &[Pool],
        timing: &[Arc<dyn StepTime>],
        workload: &Workload,
        startup: &Startup,
    ) -> Vec<ScheduleEntry> {
        let arrivals = || {
            workload
                .requests
                .iter()
                .filter(|it| it.arrival != Time::MAX)
        };
        let last = arrivals().map(|it| it.arrival.0 / self.interval.0).max();
        let intervals = last.unwrap_or(0) as usize + 1;
        let mut needs = PerRole::<Option<Vec<u32>>>::default();
        for (pool, timing) in pools.iter().zip(timing) {
            let work = Work::new(pool, &**timing);
            let mut seconds = vec![0.0; intervals];
            for request in arrivals() {
                seconds[(request.arrival.0 / self.interval.0) as usize] += work.of(request);
            }
            let capacity = self.interval.as_s() * self.utilization;
            let needed = |seconds: &f64| {
                let workers = (seconds / capacity).ceil().min(f64::from(u32::MAX)) as u32;
                workers.clamp(self.min_replicas, self.max_replicas)
            };
            *needs.get_mut(role_of(pool)) = Some(seconds.iter().map(needed).collect());
        }
        let ahead = startup.total(false).0.div_ceil(self.interval.0) as usize;
        let target = |role: Role, at: usize| {
            let needs = needs.get(role).as_ref()?;
            let until = (at + ahead + 1).min(needs.len());
            needs[at..until].iter().copied().max()
        };
        let mut entries: Vec<ScheduleEntry> = Vec::new();
        for at in 0..intervals {
            let workers = PerRole {
                prefill: target(Role::Prefill, at),
                decode: target(Role::Decode, at),
            };
            if entries
                .last()
                .is_none_or(|before| before.workers != workers)
            {
                let at = Time(self.interval.0 * at as u64);
                entries.push(ScheduleEntry { at, workers });
            }
        }
        entries
    }
}

/// How long a worker of a pool works for a request.
struct Work<'a> {
    pool: &'a Pool,
    timing: &'a dyn StepTime,
    kv_tokens: u64,
    seats: u64,
}

impl<'a> Work<'a> {
    fn new(pool: &'a Pool, timing: &'a dyn StepTime) -> Self {
        let able = capabilities(pool);
        Work {
            pool,
            timing,
            kv_tokens: able.max_kv_tokens.unwrap_or(1),
            seats: able.max_num_seqs.unwrap_or(1),
        }
    }

    fn of(&self, request: &Request) -> f64 {
        use crate::scenario::Role::{Aggregated, Decode, Prefill};
        match self.pool.role {
            Prefill => self.prefill_s(request),
            Decode => self.decode_s(request),
            Aggregated => self.prefill_s(request) + self.decode_s(request),
        }
    }

    /// The steps of its prompt, alone.
    fn prefill_s(&self, request: &Request) -> f64 {
        let budget = self.pool.engine.max_num_batched_tokens().max(1);
        let mut done = 0;
        let mut total = Span::ZERO;
        while done < request.input_tokens {
            let chunk = Chunk {
                new_tokens: budget.min(request.input_tokens - done),
                cached_tokens: done,
            };
            total += self.timing.mixed(&StepShape {
                prefill: &[chunk],
                decode_batch: 0,
                decode_context: 0,
            });
            done += chunk.new_tokens;
        }
        total.as_s()
    }

    /// Its share of steps over a batch of its like that fills half of the KV cache, or half of the seats.
    fn decode_s(&self, request: &Request) -> f64 {
        let context = u64::from(request.input_tokens) + u64::from(request.output_tokens) / 2;
        let context = context.max(1);
        let batch = (self.kv_tokens / context).min(self.seats) / 2;
        let batch = batch.clamp(1, u64::from(u32::MAX));
        let summed = batch * context;
        let step = self.timing.decode(batch as u32, summed).time(summed);
        f64::from(request.output_tokens) * step.as_s() / batch as f64
    }
}
