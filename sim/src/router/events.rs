//! The way of KV events from workers to the router: late, out of order, or not at all.
//!
//! What a worker did in one step is one report. It arrives `delay` after the end of the step, later by up to `jitter`, drawn
//! evenly; reports may overtake each other. A report is lost with probability `loss`. Draws are by (seed, worker, number of
//! the report). Whoever asks what a worker holds sees the reports that have arrived by then; without delay that is all.
//! Completions are not reports: the router learns them with the response.
//!
//! With recovery the router notices a gap in the numbers of a worker's reports when the next one arrives, and asks the worker
//! for what it missed: that arrives one delay for the question and one for the answer later. Source: dynamo-kv-router 1.6,
//! recovery.
//!
//! Model: the worker's buffer of past reports has no limit, and answers are never lost; what the real router cannot recover is
//! understated.

use crate::event::WorkerId;
use crate::random::{Purpose, unit};
use engine::{KvEvent, Span, Time};
use std::collections::BTreeMap;

/// What happens to reports.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EventChannel {
    /// How long each takes at least.
    pub delay: Span,
    /// How much longer one may take.
    pub jitter: Span,
    /// Share that is lost.
    pub loss: f64,
    /// Whether lost reports are asked for.
    pub recovers: bool,
}

impl EventChannel {
    /// True if all reports arrive at once.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        self.delay == Span::ZERO && self.jitter == Span::ZERO && self.loss == 0.0
    }
}

/// Reports on their way.
#[derive(Debug, Clone)]
pub struct EventsInFlight {
    channel: EventChannel,
    seed: u64,
    /// By worker: reports sent.
    sent: Vec<u32>,
    /// By time of arrival, worker and number.
    flying: BTreeMap<(Time, WorkerId, u32), Vec<KvEvent>>,
    /// By worker: lost reports whose loss nobody has noticed.
    lost: Vec<Vec<(u32, Vec<KvEvent>)>>,
}

impl EventsInFlight {
    /// None yet.
    #[must_use]
    pub fn new(channel: EventChannel, seed: u64, workers: usize) -> Self {
        EventsInFlight {
            channel,
            seed,
            sent: vec![0; workers],
            flying: BTreeMap::new(),
            lost: vec![Vec::new(); workers],
        }
    }

    /// A worker reports what it did in a step that ended now.
    pub fn send(&mut self, now: Time, worker: WorkerId, events: &[KvEvent]) {
        let number = self.sent[worker.0 as usize];
        self.sent[worker.0 as usize] += 1;
        let entity = u64::from(worker.0) << 32 | u64::from(number);
        if unit(self.seed, Purpose::KvEventLoss, entity) < self.channel.loss {
            if self.channel.recovers {
                self.lost[worker.0 as usize].push((number, events.to_vec()));
            }
            return;
        }
        let late = self.channel.jitter.0 as f64 * unit(self.seed, Purpose::KvEventDelay, entity);
        let arrival = now + self.channel.delay + Span(late as u64);
        self.flying
            .insert((arrival, worker, number), events.to_vec());
        let answer = arrival + self.channel.delay + self.channel.delay;
        for (number, events) in self.lost[worker.0 as usize].drain(..) {
            self.flying.insert((answer, worker, number), events);
        }
    }

    /// A worker's report is lost.
    pub fn lose(&mut self, worker: WorkerId, events: &[KvEvent]) {
        let number = self.sent[worker.0 as usize];
        self.sent[worker.0 as usize] += 1;
        if self.channel.recovers {
            self.lost[worker.0 as usize].push((number, events.to_vec()));
        }
    }

    /// What a worker that is no more reported will not be read.
    pub fn forget(&mut self, worker: WorkerId) {
        self.flying.retain(|&(_, of, _), _| of != worker);
        self.lost[worker.0 as usize].clear();
    }

    /// The next report that has arrived by now.
    pub fn receive(&mut self, now: Time) -> Option<(WorkerId, Vec<KvEvent>)> {
        let first = self.flying.first_entry()?;
        let (arrival, worker, _) = *first.key();
        (arrival <= now).then(|| (worker, first.remove()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::NodeId;

    fn removed(hi: u32) -> Vec<KvEvent> {
        vec![KvEvent::Removed {
            node: NodeId(1),
            lo: 0,
            hi,
        }]
    }

    #[test]
    fn reports_come_late_in_another_order_or_never() {
        let channel = EventChannel {
            delay: Span(100),
            jitter: Span(1000),
            loss: 0.25,
            recovers: false,
        };
        let mut events = EventsInFlight::new(channel, 7, 2);
        for step in 0..400 {
            events.send(Time(u64::from(step)), WorkerId(step % 2), &removed(step));
        }
        assert_eq!(events.receive(Time(99)), None);
        let arrived: Vec<_> = std::iter::from_fn(|| events.receive(Time(10_000))).collect();
        // 300 expected, standard deviation 8.7.
        assert!(arrived.len().abs_diff(300) < 44, "{}", arrived.len());
        let order: Vec<u32> = arrived
            .iter()
            .map(|(_, events)| match events[..] {
                [KvEvent::Removed { hi, .. }] => hi,
                _ => unreachable!("one event each"),
            })
            .collect();
        assert!(!order.is_sorted());
    }

    #[test]
    fn a_gap_is_noticed_with_the_next_report_and_filled() {
        let channel = EventChannel {
            delay: Span(100),
            loss: 0.5,
            recovers: true,
            ..EventChannel::default()
        };
        let mut events = EventsInFlight::new(channel, 7, 1);
        for step in 0..40 {
            events.send(Time(u64::from(step)), WorkerId(0), &removed(step));
        }
        let unnoticed = events.lost[0].len();
        let mut arrived: Vec<(u64, u32)> = Vec::new();
        for now in 0..500 {
            while let Some((_, report)) = events.receive(Time(now)) {
                let KvEvent::Removed { hi, .. } = report[0] else {
                    unreachable!("one event each")
                };
                arrived.push((now, hi));
            }
        }
        assert_eq!(arrived.len(), 40 - unnoticed);
        let late = arrived
            .iter()
            .filter(|&&(now, sent)| now > u64::from(sent) + 100);
        let late: Vec<_> = late.collect();
        assert!(late.len() > 5, "{late:?}");
        // Noticed at the earliest with the report of the step behind.
        assert!(late.iter().all(|&&(now, sent)| now > u64::from(sent) + 300));
    }
}
