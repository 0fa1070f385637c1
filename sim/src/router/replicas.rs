//! Several routers in front of the same workers, each with its own view of what is under way.
//!
//! Requests come to the routers in turn. All of them hear the workers' KV events, but each books only what it placed itself,
//! and waits in a queue of its own. With replica sync every booking, every first token and every end is told to the others
//! and arrives there after a delay; until then, and for ever without sync, they choose as if it were not there. Source:
//! dynamo-kv-router 1.6, replica sync: output blocks and expiry are not told.
//!
//! Model: messages are as late as the delay says, each by itself; the real ones are applied in batches. A late message is
//! read when the router is next asked for something. That is soon enough for a choice, but not for a queue that should move
//! when it comes: queues go only with messages that are not late.

use super::active_blocks::PlacedActive;
use super::active_sequences::{Booking, PromptBlocks};
use super::admission::{Admission, Admitted, Incoming};
use super::indexer::Rank;
use super::prefill_times::PrefillTimes;
use super::queue::QueueTicket;
use engine::kv_cache::Stretch;
use engine::{RequestId, Span, Time};
use std::collections::BTreeMap;

/// How many routers there are and what they know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Routers, at least 1.
    pub count: u32,
    /// How late they hear of each other's requests; `None` for never.
    pub sync_delay: Option<Span>,
}

impl Default for ReplicaSpec {
    fn default() -> Self {
        ReplicaSpec {
            count: 1,
            sync_delay: None,
        }
    }
}

/// The routers' views, and what they tell each other.
#[derive(Debug, Clone)]
pub struct Replicas {
    spec: ReplicaSpec,
    views: Vec<Admission<PlacedActive>>,
    /// By time of arrival and number.
    messages: BTreeMap<(Time, u64), Message>,
    sent: u64,
}

#[derive(Debug, Clone)]
struct Message {
    /// Who does not need it.
    from: usize,
    news: News,
}

#[derive(Debug, Clone)]
enum News {
    Booked(Booking<Vec<Stretch>>),
    PrefillDone(RequestId),
    Freed(RequestId),
}

impl Replicas {
    /// Routers that know of nothing yet.
    #[must_use]
    pub fn new(spec: ReplicaSpec, view: Admission<PlacedActive>) -> Self {
        assert!(spec.count > 0, "there is a router");
        assert!(
            spec.sync_delay.is_none_or(|delay| delay == Span::ZERO) || !view.may_queue(),
            "nothing wakes a queue when a late message comes"
        );
        Replicas {
            views: vec![view; spec.count as usize],
            spec,
            messages: BTreeMap::new(),
            sent: 0,
        }
    }

    /// The router that a request comes to.
    #[must_use]
    pub fn of(&self, request: RequestId) -> usize {
        request.0 as usize % self.views.len()
    }

    /// So long prefills take, by rank.
    pub fn time_prefills(&mut self, times: &PrefillTimes) {
        for view in &mut self.views {
            view.time_prefills(times.clone());
        }
    }

    /// Whether it was told so.
    #[must_use]
    pub fn times_prefills(&self) -> bool {
        self.views.iter().all(Admission::times_prefills)
    }

    /// A request comes to its router. Appends whoever goes to a worker now.
    pub fn submit(
        &mut self,
        now: Time,
        ticket: QueueTicket,
        incoming: Incoming<Vec<Stretch>>,
        admitted: &mut Vec<Admitted>,
    ) {
        self.read_messages(now, admitted);
        let (before, own) = (admitted.len(), self.of(incoming.request));
        self.views[own]
            .submit(now, ticket, incoming, admitted)
            .expect("the only class has no limit");
        self.tell_of_bookings(now, &admitted[before..]);
        self.read_messages(now, admitted);
    }

    /// A rank must not be chosen any more.
    pub fn leave(&mut self, rank: Rank) {
        for view in &mut self.views {
            view.leave(rank);
        }
    }

    /// A rank may be chosen again. Appends whoever goes to a worker now.
    pub fn join(&mut self, now: Time, rank: Rank, admitted: &mut Vec<Admitted>) {
        self.read_messages(now, admitted);
        for view in &mut self.views {
            view.join(now, rank);
        }
        for own in 0..self.views.len() {
            let before = admitted.len();
            self.views[own].drain(now, admitted);
            self.tell_of_bookings(now, &admitted[before..]);
        }
        self.read_messages(now, admitted);
    }

    /// Requests in the queues.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let queues = self.views.iter().map(|view| view.queue().len() as u64);
        queues.sum()
    }

    /// The first token of a request arrived. Appends whoever goes to a worker now.
    pub fn prefill_done(&mut self, now: Time, request: RequestId, admitted: &mut Vec<Admitted>) {
        self.read_messages(now, admitted);
        let (before, own) = (admitted.len(), self.of(request));
        self.views[own].prefill_done(now, request, admitted);
        self.tell(now, own, || News::PrefillDone(request));
        self.tell_of_bookings(now, &admitted[before..]);
        self.read_messages(now, admitted);
    }

    /// A request has begun so many blocks of its answer; what it holds alone counts as `left` of it. The others are not told.
    pub fn output_blocks(&mut self, now: Time, request: RequestId, begun: u32, left: Option<f64>) {
        let own = self.of(request);
        self.views[own].output_blocks(now, request, begun, left);
    }

    /// A request ended. Appends whoever goes to a worker now.
    pub fn free(&mut self, now: Time, request: RequestId, admitted: &mut Vec<Admitted>) {
        self.read_messages(now, admitted);
        let (before, own) = (admitted.len(), self.of(request));
        self.views[own].free(now, request, admitted);
        self.tell(now, own, || News::Freed(request));
        self.tell_of_bookings(now, &admitted[before..]);
        self.read_messages(now, admitted);
    }

    fn tell_of_bookings(&mut self, now: Time, admitted: &[Admitted]) {
        if self.spec.sync_delay.is_none() {
            return;
        }
        for &Admitted {
            request,
            rank,
            prefill_tokens,
            prefill_duration,
            ..
        } in admitted
        {
            let own = self.of(request);
            let prompt = self.views[own].sequences().prompt_of(request);
            let prompt = prompt.map_or(PromptBlocks::Untracked, PromptBlocks::clone);
            self.tell(now, own, || {
                News::Booked(Booking {
                    request,
                    rank,
                    prompt,
                    prefill_tokens,
                    prefill_duration,
                })
            });
        }
    }

    fn tell(&mut self, now: Time, from: usize, news: impl FnOnce() -> News) {
        let Some(delay) = self.spec.sync_delay.filter(|_| self.views.len() > 1) else {
            return;
        };
        let news = news();
        self.messages
            .insert((now + delay, self.sent), Message { from, news });
        self.sent += 1;
    }

    /// Lets the routers know what has reached them by now.
    #[inline]
    fn read_messages(&mut self, now: Time, admitted: &mut Vec<Admitted>) {
        if self.messages.is_empty() {
            return;
        }
        while let Some(first) = self.messages.first_entry()
            && first.key().0 <= now
        {
            let Message { from, news } = first.remove();
            let before = admitted.len();
            for to in (0..self.views.len()).filter(|&to| to != from) {
                let view = &mut self.views[to];
                match &news {
                    News::Booked(booking) => view.hear_booked(now, booking.clone()),
                    News::PrefillDone(request) => view.prefill_done(now, *request, admitted),
                    News::Freed(request) => view.free(now, *request, admitted),
                }
            }
            self.tell_of_bookings(now, &admitted[before..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::{AdmissionSpec, QueueStyle};
    use super::super::cost::CostWeights;
    use super::super::policy_class::{PolicyProfile, QueuePolicy};
    use super::*;

    fn routers(count: u32, sync_delay: Option<Span>) -> Replicas {
        let spec = AdmissionSpec {
            weights: CostWeights::default(),
            temperature: 0.0,
            block_size: 16,
            profile: PolicyProfile::sole(QueuePolicy::Fcfs, None),
            style: QueueStyle::Replay,
            expires: false,
            seed: 1,
        };
        Replicas::new(
            ReplicaSpec { count, sync_delay },
            Admission::new(spec, vec![8192; 3]),
        )
    }

    /// Where requests of so many tokens go that come at these times.
    fn ranks(routers: &mut Replicas, requests: &[(u64, u64)]) -> Vec<u32> {
        let mut admitted = Vec::new();
        for (number, &(time, isl_tokens)) in requests.iter().enumerate() {
            let ticket = QueueTicket {
                arrival: Time(time),
                isl_tokens,
                cached_tokens: 0,
                priority_jump: 0.0,
                strict_priority: 0,
                due: None,
                pinned: None,
            };
            let incoming = Incoming {
                request: RequestId(number as u32),
                prompt: PromptBlocks::Private(isl_tokens as u32 / 16),
                overlap: Vec::new(),
                allowed: None,
                cost_factors: None,
                policy_class: None,
            };
            routers.submit(Time(time), ticket, incoming, &mut admitted);
        }
        admitted.iter().map(|admitted| admitted.rank).collect()
    }

    #[test]
    fn each_sees_what_it_placed_and_what_it_was_told() {
        let requests = [(0, 1600), (10, 160), (20, 160), (1000, 16), (1000, 16)];
        let one = ranks(&mut routers(1, None), &requests[..3]);
        // The three differ: whoever comes finds the others' ranks busier than an idle one.
        assert!(one[0] != one[1] && one[1] != one[2] && one[0] != one[2]);
        let told = ranks(&mut routers(2, Some(Span(5))), &requests[..3]);
        assert_eq!(told, one);
        // The second router has heard of nothing at 10: its choice is that of a router before its first request, with the
        // draw of request 1; the first has placed one request only.
        let mut late = routers(2, Some(Span(500)));
        let placed = ranks(&mut late, &requests);
        assert!(placed[2] != placed[0]);
        // At 1000 all is known: what remains idle, or is least busy, is no rank of the first request.
        assert!(placed[3] != placed[0] && placed[4] != placed[0]);
        let never = ranks(
            &mut routers(3, None),
            &[(0, 1600), (0, 1600), (0, 1600), (9, 16)],
        );
        assert!(never[3] != never[0]);
    }

    #[test]
    fn ends_are_told_too() {
        let mut routers = routers(2, Some(Span(5)));
        let mut admitted = Vec::new();
        ranks(&mut routers, &[(0, 1600)]);
        routers.prefill_done(Time(10), RequestId(0), &mut admitted);
        routers.free(Time(20), RequestId(0), &mut admitted);
        let loads = |routers: &Replicas, view: usize| -> Vec<u64> {
            let sequences = routers.views[view].sequences();
            (0..3)
                .map(|rank| sequences.load(Time(99), rank).active_decode_blocks)
                .collect()
        };
        routers.read_messages(Time(6), &mut admitted);
        assert_eq!(loads(&routers, 1).iter().sum::<u64>(), 100);
        assert_eq!(loads(&routers, 0), [0; 3]);
        routers.read_messages(Time(25), &mut admitted);
        assert_eq!(loads(&routers, 1), [0; 3]);
    }
}
