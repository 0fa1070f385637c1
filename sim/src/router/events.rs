//! The way of KV events from workers to the router: late, out of order, or not at all.
//!
//! What a worker did in one step is one report. It arrives `delay` after the end of the step, later by up to `jitter`, drawn
//! evenly; reports may overtake each other. A report is lost with probability `loss`. Draws are by (seed, worker, number of
//! the report). Whoever asks what a worker holds sees the reports that have arrived by then; without delay that is all.
//! Completions are not reports: the router learns them with the response.
//!
//! Model: a lost report stays lost. The real router notices the gap in the event numbers and asks the worker for what it
//! missed, if the worker keeps a buffer; losses are overstated by what that recovers.

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
}

impl EventChannel {
    /// True if all reports arrive at once.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        *self == EventChannel::default()
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
        }
    }

    /// A worker reports what it did in a step that ended now.
    pub fn send(&mut self, now: Time, worker: WorkerId, events: &[KvEvent]) {
        let number = self.sent[worker.0 as usize];
        self.sent[worker.0 as usize] += 1;
        let entity = u64::from(worker.0) << 32 | u64::from(number);
        if unit(self.seed, Purpose::KvEventLoss, entity) < self.channel.loss {
            return;
        }
        let late = self.channel.jitter.0 as f64 * unit(self.seed, Purpose::KvEventDelay, entity);
        let arrival = now + self.channel.delay + Span(late as u64);
        self.flying
            .insert((arrival, worker, number), events.to_vec());
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
}
