//! The system around the workers: clients, front end, router, and the clock.
//!
//! The clock goes from one interesting instant to the next, found by looking at everything. What happens at one instant
//! happens in this order: the oldest batch of every worker whose time has come is delivered (by worker), requests
//! are sent, judged and placed (by request), workers decide their next steps (by worker).
//!
//! *Sending.* Open: at the latest of the arrival time and, for each dependency, that moment plus the delay. Closed
//! loop: in list order from time 0, whenever fewer than `concurrency` requests are in flight (sent, accepted, not
//! finished), whatever the arrival times say; a refused request takes no place in the loop, so the next follows at once.
//! The scheduler's arrival time is the time of sending.
//!
//! *Front end.* In this order: a request that waited for a refused one is refused; a prompt of `max_model_len` tokens or
//! more is (R14); a prompt with more blocks than a worker has is; so is a request whose last computed position lies in
//! a block that a worker does not have. The last sampled token is never computed (R8), and a sequence ends with
//! `max_model_len` tokens (R12), so `min(prompt + output, max_model_len) - 1` tokens need blocks.

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
    let has_waits = scenario
        .requests
        .iter()
        .any(|asked| !asked.after.is_empty());
    assert!(
        scenario.concurrency.is_none() || !has_waits,
        "a closed loop sends in list order, nobody waits for another"
    );
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

impl Cluster<'_> {
    /// The first batch to end or the first request to be sent.
    fn next_instant(&self) -> Option<u64> {
        let ends = self.workers.iter().filter_map(Worker::next_end);
        let sends = (0..self.scenario.requests.len()).filter_map(|request| self.send_time(request));
        ends.chain(sends).min()
    }

    /// When `request` is to be sent, as far as is known now; `None` once it has been sent.
    fn send_time(&self, request: usize) -> Option<u64> {
        let records = &self.requests.records;
        if records[request].sent_ns.is_some() {
            return None;
        }
        if let Some(concurrency) = self.scenario.concurrency {
            let is_next = request == 0 || records[request - 1].sent_ns.is_some();
            let in_flight: usize = self.workers.iter().map(|worker| worker.load).sum();
            return (is_next && in_flight < concurrency).then_some(self.now);
        }
        let mut time = self.scenario.requests[request].arrival_ns;
        for dependency in &self.scenario.requests[request].after {
            let other = &records[dependency.on];
            let moment = match dependency.moment {
                Moment::Finished if other.rejected.is_none() => other.finish_ns,
                Moment::Finished | Moment::Sent => other.sent_ns,
            };
            time = time.max(moment? + dependency.delay_ns);
        }
        Some(time)
    }

    /// Returns how many requests finished.
    fn deliver_what_ended(&mut self) -> usize {
        let mut finished = 0;
        for worker in &mut self.workers {
            finished += worker.deliver_what_ended(self.now, &mut self.requests);
        }
        finished
    }

    /// One pass in list order is enough: a request waits only for earlier ones.
    fn send_what_is_due(&mut self) {
        for request in 0..self.scenario.requests.len() {
            if self.send_time(request).is_some_and(|time| time <= self.now) {
                let rejected = self.judge(request);
                self.requests.records[request].sent_ns = Some(self.now);
                self.requests.records[request].rejected = rejected;
                if rejected.is_none() {
                    self.place(request);
                }
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
        let is_refused = |other: usize| self.requests.records[other].rejected.is_some();
        let prompt = asked.prompt_len();
        let computed = (prompt + asked.output_len).min(engine.max_model_len) - 1;
        let exceeds = |tokens: usize| {
            let blocks = tokens.div_ceil(engine.block_size);
            self.scenario.reject_what_cannot_fit && blocks > engine.usable_blocks()
        };
        if asked
            .after
            .iter()
            .any(|dependency| is_refused(dependency.on))
        {
            Some(Rejection::DependencyRejected)
        } else if prompt >= engine.max_model_len {
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
        self.requests.records[request].worker = Some(worker);
        self.workers[worker].submit(request);
    }
}
