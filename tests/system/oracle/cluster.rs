//! The system around the workers: clients, front end, router, and the clock.
//!
//! The clock goes from one interesting instant to the next, found by looking at everything. What happens at one instant
//! happens in this order: the oldest batch of every worker whose time has come is delivered (by worker), requests
//! are sent, judged and placed (by request), workers decide their next steps (by worker).
//!
//! *Sending.* Open loop: at the latest of the arrival time and, for each dependency, that moment plus the delay. Closed
//! loop: arrival times say nothing; a request without dependencies is sent, in list order from time 0, whenever fewer
//! than `concurrency` sessions are open (something of them was sent, and not all of it has finished or been refused);
//! one with dependencies is sent by these alone. Of several that may be sent at one instant the first of the list goes
//! first, then it is asked again who may. The scheduler's arrival time is the time of sending.
//!
//! *Front end.* In this order: a prompt of `max_model_len` tokens or more is refused (R14); so is a prompt with more
//! blocks than a worker has; so is a request whose last computed position lies in a block that a worker does not have.
//! The last sampled token is never computed (R8), and a sequence ends with `max_model_len` tokens (R12), so
//! `min(prompt + output, max_model_len) - 1` tokens need blocks. All that wait for a refused request, however
//! indirectly, are refused with it at the same instant: what they would quote will never exist.

use super::record::{Rejection, RequestRecord, Run};
use super::scenario::{Moment, Router, Scenario};
use super::sequence::sequences;
use super::worker::{Requests, Worker};

/// Instants without a finished request after which a run is given up. The rules do permit a run without end: under the
/// priority policy, two running requests with the same priority and arrival time that do not fit together take turns in
/// preempting themselves, because the victim is the first of them and the other is admitted again behind it (R9).
const ENDLESS: usize = 20_000;

struct Cluster<'a> {
    scenario: &'a Scenario,
    now: u64,
    workers: Vec<Worker>,
    requests: Requests,
    /// Requests placed so far.
    placed: usize,
}

/// Runs a scenario until nothing can happen any more; requests that wait for ever have no `finish_ns`. The log of steps
/// is kept if asked for.
pub fn run(scenario: &Scenario, keeps_log: bool) -> Run {
    if scenario.concurrency.is_some() {
        check_sessions(scenario);
    }
    let worker = |_| Worker::new(&scenario.engine, scenario.cost, keeps_log);
    let mut cluster = Cluster {
        scenario,
        now: 0,
        workers: (0..scenario.workers).map(worker).collect(),
        requests: Requests {
            sequences: sequences(scenario),
            records: vec![RequestRecord::default(); scenario.requests.len()],
        },
        placed: 0,
    };
    let mut quiet = 0;
    while let Some(instant) = cluster.next_instant().filter(|_| quiet < ENDLESS) {
        assert!(instant >= cluster.now, "time does not run backwards");
        cluster.now = instant;
        let finished = cluster.deliver_what_ended();
        cluster.send_what_is_due();
        cluster.decide();
        quiet = if finished > 0 { 0 } else { quiet + 1 };
    }
    let Requests {
        sequences,
        mut records,
    } = cluster.requests;
    for (record, sequence) in records.iter_mut().zip(&sequences) {
        record.preemptions = sequence.preemptions;
    }
    Run {
        requests: records,
        workers: cluster
            .workers
            .into_iter()
            .map(|worker| worker.record)
            .collect(),
        end_ns: cluster.now,
        is_endless: quiet == ENDLESS,
    }
}

/// In a closed loop a session neither waits for another nor has two beginnings, else it could hold a slot for ever.
fn check_sessions(scenario: &Scenario) {
    let session = |request: usize| scenario.requests[request].session;
    for (index, request) in scenario.requests.iter().enumerate() {
        let begins = (0..index).all(|earlier| session(earlier) != request.session);
        assert!(
            begins == request.after.is_empty(),
            "the first request of a session is the one that waits for nothing"
        );
        for dependency in &request.after {
            assert!(
                session(dependency.on) == request.session,
                "in a closed loop sessions do not wait for each other"
            );
        }
    }
}

impl Cluster<'_> {
    /// The first batch to end or the first request to be sent.
    fn next_instant(&self) -> Option<u64> {
        let ends = self.workers.iter().filter_map(Worker::next_end);
        let sends = (0..self.scenario.requests.len()).filter_map(|request| self.send_time(request));
        ends.chain(sends).min()
    }

    /// When `request` is to be sent, as far as is known now; `None` once it has been sent or refused.
    fn send_time(&self, request: usize) -> Option<u64> {
        if self.requests.records[request].sent_ns.is_some() {
            return None;
        }
        let asked = &self.scenario.requests[request];
        let mut time = asked.arrival_ns;
        if let Some(concurrency) = self.scenario.concurrency {
            time = 0;
            if asked.after.is_empty() {
                let is_next = (0..request).all(|earlier| !self.is_root_to_be_sent(earlier));
                if !is_next || self.open_sessions() >= concurrency {
                    return None;
                }
                time = self.now;
            }
        }
        for dependency in &asked.after {
            let other = &self.requests.records[dependency.on];
            let moment = match dependency.moment {
                Moment::Finished => other.finish_ns,
                Moment::Sent => other.sent_ns,
            };
            time = time.max(moment? + dependency.delay_ns);
        }
        let is_in_time = |time: &u64| self.scenario.duration_ns.is_none_or(|end| *time <= end);
        Some(time).filter(is_in_time)
    }

    fn is_root_to_be_sent(&self, request: usize) -> bool {
        self.scenario.requests[request].after.is_empty()
            && self.requests.records[request].sent_ns.is_none()
    }

    /// Sessions of which something was sent and something is not over.
    fn open_sessions(&self) -> usize {
        let any = |session: usize, test: &dyn Fn(&RequestRecord) -> bool| {
            let records = self.scenario.requests.iter().zip(&self.requests.records);
            records
                .filter(|(asked, _)| asked.session == session)
                .any(|(_, record)| test(record))
        };
        let is_open = |&session: &usize| {
            any(session, &|record| record.sent_ns.is_some())
                && any(session, &|record| {
                    record.finish_ns.is_none() && record.rejected.is_none()
                })
        };
        let sessions = 0..=self.scenario.requests.len();
        sessions.filter(is_open).count()
    }

    /// Returns how many requests finished.
    fn deliver_what_ended(&mut self) -> usize {
        let mut finished = 0;
        for worker in &mut self.workers {
            finished += worker.deliver_what_ended(self.now, &mut self.requests);
        }
        finished
    }

    fn send_what_is_due(&mut self) {
        let requests = self.scenario.requests.len();
        let is_due = |cluster: &Self, request: usize| {
            let time = cluster.send_time(request);
            time.is_some_and(|time| time <= cluster.now)
        };
        while let Some(request) = (0..requests).find(|&request| is_due(self, request)) {
            match self.judge(request) {
                None => self.place(request),
                Some(why) => self.refuse(request, why),
            }
        }
    }

    /// Refuses a request and all that wait for it; they stand behind it in the list.
    fn refuse(&mut self, request: usize, why: Rejection) {
        for other in request..self.scenario.requests.len() {
            let after = &self.scenario.requests[other].after;
            let waits_in_vain = |on: usize| self.requests.records[on].rejected.is_some();
            let why = if other == request {
                why
            } else if after.iter().any(|dependency| waits_in_vain(dependency.on)) {
                Rejection::DependencyRejected
            } else {
                continue;
            };
            let record = &mut self.requests.records[other];
            if record.rejected.is_none() {
                record.sent_ns = Some(self.now);
                record.rejected = Some(why);
            }
        }
    }

    fn decide(&mut self) {
        for worker in &mut self.workers {
            worker.decide(self.now, &mut self.requests);
        }
    }

    /// The front end.
    fn judge(&self, request: usize) -> Option<Rejection> {
        let engine = &self.scenario.engine;
        let asked = &self.scenario.requests[request];
        let prompt = asked.prompt_len();
        let computed = (prompt + asked.output_len).min(engine.max_model_len) - 1;
        let exceeds = |tokens: usize| {
            let blocks = tokens.div_ceil(engine.block_size);
            self.scenario.reject_what_cannot_fit && blocks > engine.usable_blocks()
        };
        if prompt >= engine.max_model_len {
            Some(Rejection::PromptTooLong)
        } else if exceeds(prompt) {
            Some(Rejection::PromptExceedsKvCache)
        } else if exceeds(computed) {
            Some(Rejection::OutputExceedsKvCache)
        } else {
            None
        }
    }

    /// The router.
    fn place(&mut self, request: usize) {
        let workers = self.workers.len();
        let worker = match self.scenario.router {
            Router::RoundRobin => self.placed % workers,
            Router::LeastLoaded => (0..workers)
                .min_by_key(|&worker| (self.workers[worker].load, worker))
                .expect("there is a worker"),
        };
        self.placed += 1;
        self.requests.sequences[request].arrival_ns = self.now;
        self.requests.records[request].sent_ns = Some(self.now);
        self.requests.records[request].worker = Some(worker);
        self.workers[worker].submit(request);
    }
}
