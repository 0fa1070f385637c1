//! The system around the workers: clients, front end, router, and the clock.
//!
//! The clock goes from one interesting instant to the next, found by looking at everything. What happens at one instant
//! happens in this order: the oldest batch of every worker whose time has come is delivered (by worker), requests
//! are sent, judged and placed (by request), workers decide their next steps (by worker).
//!
//! *Sending.* Open loop: at the latest of the arrival time and, for each dependency, that moment plus the delay. Closed
//! loop: arrival times say nothing. Requests of one session belong to one conversation, and so do requests that wait for
//! each other, however indirectly. Conversations begin in the order of their first requests, from time 0 on, whenever
//! fewer than `concurrency` are open (they have begun, and not all of their requests have finished or been refused). A
//! request without dependencies is sent when its conversation begins, one with dependencies by these alone. Of several
//! that may be sent at one instant the first of the list goes first, then it is asked again who may. The scheduler's
//! arrival time is the time of sending.
//!
//! *Front end.* In this order: a prompt of `max_model_len` tokens or more is refused (R14); so is a prompt with more
//! blocks than a worker has; so is a request whose last computed position lies in a block that a worker does not have.
//! The last sampled token is never computed (R8), and a sequence ends with `max_model_len` tokens (R12), so
//! `min(prompt + output, max_model_len) - 1` tokens need blocks. All that wait for a refused request, however
//! indirectly, are refused with it at the same instant: what they would quote will never exist.

use super::record::{Rejection, RequestRecord, Run};
use super::router::Router;
use super::scenario::{Moment, Scenario};
use super::sequence::sequences;
use super::worker::{Requests, Worker};

/// A conversation, named by its first request.
type Conversation = usize;

/// Instants without a finished request after which a run is given up. The rules do permit a run without end: under the
/// priority policy, two running requests with the same priority and arrival time that do not fit together take turns in
/// preempting themselves, because the victim is the first of them and the other is admitted again behind it (R9).
const ENDLESS: usize = 20_000;

struct Cluster<'a> {
    scenario: &'a Scenario,
    now: u64,
    workers: Vec<Worker>,
    requests: Requests,
    /// By request, the conversation it belongs to.
    conversation_of: Vec<Conversation>,
    /// When conversations began, in that order. Empty in an open loop.
    begun: Vec<(Conversation, u64)>,
    router: Router,
}

/// Runs a scenario until nothing can happen any more; requests that wait for ever have no `finish_ns`. The log of steps
/// is kept if asked for.
pub fn run(scenario: &Scenario, keeps_log: bool) -> Run {
    let schedulers = scenario.workers * scenario.engine.ranks;
    let worker = |_| Worker::new(&scenario.engine, scenario.cost, keeps_log);
    let mut cluster = Cluster {
        scenario,
        now: 0,
        workers: (0..schedulers).map(worker).collect(),
        requests: Requests {
            sequences: sequences(scenario),
            records: vec![RequestRecord::default(); scenario.requests.len()],
        },
        conversation_of: conversations(scenario),
        begun: Vec::new(),
        router: Router::new(
            scenario.router,
            scenario.seed,
            schedulers,
            scenario.engine.block_size,
        ),
    };
    cluster.begin_conversations();
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

/// By request, its conversation: neighbours (of one session, or one waiting for the other) are given the smaller of their
/// names until all neighbours have the same.
pub fn conversations(scenario: &Scenario) -> Vec<Conversation> {
    let requests = &scenario.requests;
    let mut names: Vec<Conversation> = (0..requests.len()).collect();
    loop {
        let before = names.clone();
        for a in 0..requests.len() {
            for b in 0..requests.len() {
                let waits = requests[a]
                    .after
                    .iter()
                    .any(|dependency| dependency.on == b);
                if waits || requests[a].session == requests[b].session {
                    let name = names[a].min(names[b]);
                    (names[a], names[b]) = (name, name);
                }
            }
        }
        if names == before {
            return names;
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
        if self.scenario.concurrency.is_some() {
            let own = self.conversation_of[request];
            time = self.begun.iter().find(|begun| begun.0 == own)?.1;
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

    /// Closed loop: begins conversations while there is a slot for them.
    fn begin_conversations(&mut self) {
        let Some(concurrency) = self.scenario.concurrency else {
            return;
        };
        let has_begun = |cluster: &Self, name: Conversation| {
            let mut begun = cluster.begun.iter();
            begun.any(|begun| begun.0 == name)
        };
        while self.open_conversations() < concurrency {
            let mut names = self.conversation_of.iter().copied();
            let Some(next) = names.find(|&name| !has_begun(self, name)) else {
                return;
            };
            self.begun.push((next, self.now));
        }
    }

    /// Conversations that have begun and of which something is not over.
    fn open_conversations(&self) -> usize {
        let is_open = |name: Conversation| {
            let mut members = self.conversation_of.iter().zip(&self.requests.records);
            members.any(|(&own, record)| {
                own == name && record.finish_ns.is_none() && record.rejected.is_none()
            })
        };
        let begun = self.begun.iter();
        begun.filter(|begun| is_open(begun.0)).count()
    }

    /// Returns how many requests finished.
    fn deliver_what_ended(&mut self) -> usize {
        let mut finished = 0;
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let news = worker.deliver_what_ended(self.now, &mut self.requests);
            finished += news.finished.len();
            self.router.hear(index, news);
        }
        finished
    }

    fn send_what_is_due(&mut self) {
        let requests = self.scenario.requests.len();
        let is_due = |cluster: &Self, request: usize| {
            let time = cluster.send_time(request);
            time.is_some_and(|time| time <= cluster.now)
        };
        loop {
            self.begin_conversations();
            let Some(request) = (0..requests).find(|&request| is_due(self, request)) else {
                return;
            };
            match self.judge(request) {
                None => self.place(request),
                Some(why) => self.refuse(request, why),
            }
        }
    }

    /// Refuses a request, and all that wait for it or for one of these.
    fn refuse(&mut self, request: usize, why: Rejection) {
        let record = &mut self.requests.records[request];
        record.sent_ns = Some(self.now);
        record.rejected = Some(why);
        for other in 0..self.scenario.requests.len() {
            let mut after = self.scenario.requests[other].after.iter();
            let waits = after.any(|dependency| dependency.on == request);
            if waits && self.requests.records[other].rejected.is_none() {
                self.refuse(other, Rejection::DependencyRejected);
            }
        }
    }

    fn decide(&mut self) {
        // Ranks of one worker decide together, none while a step runs, and wait for the slowest of them.
        for ranks in self.workers.chunks_mut(self.scenario.engine.ranks) {
            let is_alone = ranks.len() == 1;
            if !is_alone
                && ranks
                    .iter()
                    .any(|rank| rank.next_end().is_some_and(|end| end > self.now))
            {
                continue;
            }
            for rank in ranks.iter_mut() {
                rank.decide(self.now, &mut self.requests);
            }
            let last = ranks.iter().filter_map(Worker::next_end).max();
            if let Some(last) = last.filter(|_| !is_alone) {
                ranks.iter_mut().for_each(|rank| rank.wait_for_others(last));
            }
        }
    }

    /// The front end.
    fn judge(&self, request: usize) -> Option<Rejection> {
        let engine = &self.scenario.engine;
        let asked = &self.scenario.requests[request];
        let prompt = asked.prompt_len();
        let computed = match engine.speculation {
            None => (prompt + asked.output_len).min(engine.max_model_len) - 1,
            // Drafts and the slots behind them lie behind the last token that is computed.
            Some(_) => (prompt + asked.output_len - 1 + engine.drafts() + engine.lookahead())
                .min(engine.max_model_len),
        };
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

    fn place(&mut self, request: usize) {
        let sequence = &mut self.requests.sequences[request];
        let (worker, overlap_tokens) = self.router.place(request, sequence);
        sequence.arrival_ns = self.now;
        let record = &mut self.requests.records[request];
        record.sent_ns = Some(self.now);
        record.worker = Some(worker);
        record.router_overlap_tokens = overlap_tokens;
        self.workers[worker].submit(request);
    }
}
