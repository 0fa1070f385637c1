//! The router's queue: within a class by priority, between classes by deficit round robin.
//!
//! Within a class the highest goes first: strict priority, then the earliest due time, then the class's score, then who
//! came first; the key is fixed on arrival. A head that nobody can take blocks its class, but requests pinned to a rank
//! wait in a lane of their own and block only that.
//!
//! With several classes each has a deficit. They are visited in turn, from the one behind the last served; a visit adds the
//! class's quantum, and a head that costs no more than the deficit goes and is paid from it. Cost is the number of uncached
//! tokens, at least 1. A class that has deficit left is tried first the next time, without a new quantum. If nobody can
//! pay, all classes whose head could go get as many quanta as bring the first of them there. An empty class has no deficit.
//!
//! Source: dynamo-kv-router 1.6, policy queue; recorded in `tests/golden/router/pq_*.json`.

use super::indexer::Rank;
use super::policy_class::{PolicyClass, PolicyProfile};
use engine::Time;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Requests that wait, with what belongs to them.
#[derive(Debug, Clone)]
pub struct PolicyQueue<T> {
    profile: PolicyProfile,
    classes: Vec<ClassQueue<T>>,
    /// Where the next round begins.
    turn: usize,
    /// The class that was served last and has deficit left.
    carry: Option<usize>,
    pushed: u64,
    len: usize,
}

#[derive(Debug, Clone)]
struct ClassQueue<T> {
    /// By the rank that requests are pinned to.
    lanes: BTreeMap<Option<Rank>, BinaryHeap<Waiting<T>>>,
    waiting: Amounts,
    deficit: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Amounts {
    requests: u64,
    isl_tokens: u64,
    cached_tokens: u64,
}

/// A request's place in the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueTicket {
    /// When it came.
    pub arrival: Time,
    /// Prompt tokens.
    pub isl_tokens: u64,
    /// Of these, cached on the rank that has most.
    pub cached_tokens: u64,
    /// Seconds by which it seems to have come earlier; below 0 counts as 0.
    pub priority_jump: f64,
    /// Goes before all lower ones.
    pub strict_priority: u32,
    /// When it should be done, if it says so.
    pub due: Option<Time>,
    /// The rank it must go to.
    pub pinned: Option<Rank>,
}

impl QueueTicket {
    fn cost(&self) -> u64 {
        self.uncached_tokens().max(1)
    }

    /// Prompt tokens that no rank has cached.
    #[must_use]
    pub fn uncached_tokens(&self) -> u64 {
        self.isl_tokens.saturating_sub(self.cached_tokens)
    }

    fn amounts(&self) -> Amounts {
        Amounts {
            requests: 1,
            isl_tokens: self.isl_tokens,
            cached_tokens: self.cached_tokens.min(self.isl_tokens),
        }
    }
}

/// What a full class says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull {
    /// What there is too much of.
    pub kind: LimitKind,
    /// How much waits.
    pub current: u64,
    /// How much may.
    pub limit: u64,
}

/// What a class may have too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// Requests.
    Requests,
    /// Prompt tokens.
    RawIslTokens,
    /// Cached prompt tokens.
    CachedTokens,
}

#[derive(Debug, Clone)]
struct Waiting<T> {
    key: Key,
    ticket: QueueTicket,
    item: T,
}

/// The greatest goes first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    strict_priority: u32,
    /// No due time is the latest.
    due: Reverse<Time>,
    score: f64,
    pushed: Reverse<u64>,
}

impl Eq for Key {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.strict_priority, self.due)
            .cmp(&(other.strict_priority, other.due))
            .then(self.score.total_cmp(&other.score))
            .then(self.pushed.cmp(&other.pushed))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The head of a class that could go.
#[derive(Debug, Clone, Copy)]
struct Head {
    lane: Option<Rank>,
    cost: u64,
}

impl<T> PolicyQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(profile: PolicyProfile) -> Self {
        let empty = |_: &PolicyClass| ClassQueue {
            lanes: BTreeMap::new(),
            waiting: Amounts::default(),
            deficit: 0,
        };
        PolicyQueue {
            classes: profile.classes().iter().map(empty).collect(),
            profile,
            turn: 0,
            carry: None,
            pushed: 0,
            len: 0,
        }
    }

    /// The classes.
    #[must_use]
    pub fn profile(&self) -> &PolicyProfile {
        &self.profile
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Prompt tokens that wait.
    #[must_use]
    pub fn isl_tokens(&self) -> u64 {
        self.classes
            .iter()
            .map(|class| class.waiting.isl_tokens)
            .sum()
    }

    /// True if requests of a class wait.
    #[must_use]
    pub fn has_backlog(&self, class: usize) -> bool {
        !self.classes[class].lanes.is_empty()
    }

    /// Lets a request wait in its class, if there is room; limits count `workers` times.
    pub fn push(
        &mut self,
        class: usize,
        workers: u64,
        ticket: QueueTicket,
        item: T,
    ) -> Result<(), QueueFull> {
        let settings = &self.profile.classes()[class];
        let queue = &mut self.classes[class];
        for (kind, current, limit) in [
            (
                LimitKind::Requests,
                queue.waiting.requests,
                settings.limits.requests,
            ),
            (
                LimitKind::RawIslTokens,
                queue.waiting.isl_tokens,
                settings.limits.raw_isl_tokens,
            ),
            (
                LimitKind::CachedTokens,
                queue.waiting.cached_tokens,
                settings.limits.cached_tokens,
            ),
        ] {
            let limit = limit.map(|limit| limit.saturating_mul(workers));
            if let Some(limit) = limit.filter(|&limit| current >= limit) {
                return Err(QueueFull {
                    kind,
                    current,
                    limit,
                });
            }
        }
        let seconds = ticket.arrival.0 as f64 / 1e12;
        let score = settings
            .queue_policy
            .score(seconds, ticket.priority_jump, ticket.cost());
        let key = Key {
            strict_priority: ticket.strict_priority,
            due: Reverse(ticket.due.unwrap_or(Time::MAX)),
            score,
            pushed: Reverse(self.pushed),
        };
        self.pushed += 1;
        self.len += 1;
        queue.waiting.add(ticket.amounts());
        queue
            .lanes
            .entry(ticket.pinned)
            .or_default()
            .push(Waiting { key, ticket, item });
        Ok(())
    }

    /// The next request that `can_go`, given its class and ticket.
    pub fn pop(
        &mut self,
        mut can_go: impl FnMut(&PolicyClass, &QueueTicket, &T) -> bool,
    ) -> Option<(QueueTicket, T)> {
        if self.is_empty() {
            self.carry = None;
            return None;
        }
        let classes = self.profile.classes();
        let mut head = |class: usize, queue: &ClassQueue<T>| {
            let heads = queue
                .lanes
                .iter()
                .filter_map(|(&lane, heap)| Some((lane, heap.peek()?)));
            let ready = heads.filter(|(_, head)| can_go(&classes[class], &head.ticket, &head.item));
            let first = ready.max_by_key(|(_, head)| head.key)?;
            Some(Head {
                lane: first.0,
                cost: first.1.ticket.cost(),
            })
        };
        let heads: Vec<Option<Head>> = self
            .classes
            .iter()
            .enumerate()
            .map(|(class, queue)| head(class, queue))
            .collect();
        let class = self.next_class(&heads)?;
        let Head { lane, cost } = heads[class].expect("only a class with a ready head is served");
        self.turn = (class + 1) % self.classes.len();
        self.len -= 1;
        let queue = &mut self.classes[class];
        let heap = queue.lanes.get_mut(&lane).expect("the lane of a head");
        let served = heap.pop().expect("the head of a lane");
        if heap.is_empty() {
            queue.lanes.remove(&lane);
        }
        queue.waiting.subtract(served.ticket.amounts());
        queue.deficit = if queue.lanes.is_empty() {
            0
        } else {
            queue.deficit - cost
        };
        self.carry = (queue.deficit > 0).then_some(class);
        Some((served.ticket, served.item))
    }

    /// The class whose turn it is, given the heads that could go.
    fn next_class(&mut self, heads: &[Option<Head>]) -> Option<usize> {
        let cost = |class: usize| heads[class].map(|head| head.cost);
        let can_pay = |class: usize, deficit: u64| cost(class).is_some_and(|cost| cost <= deficit);
        if let Some(class) = self.carry.take()
            && can_pay(class, self.classes[class].deficit)
        {
            return Some(class);
        }
        let count = heads.len();
        let quantum = |class: usize| self.profile.classes()[class].quantum;
        let round = (0..count).map(|offset| (self.turn + offset) % count);
        for class in round.clone().filter(|&class| heads[class].is_some()) {
            let queue = &mut self.classes[class];
            if can_pay(class, queue.deficit) {
                return Some(class);
            }
            queue.deficit = queue.deficit.saturating_add(quantum(class));
            if can_pay(class, queue.deficit) {
                return Some(class);
            }
        }
        let missing =
            |class| Some((cost(class)? - self.classes[class].deficit).div_ceil(quantum(class)));
        let rounds = (0..count).filter_map(missing).min()?;
        for class in (0..count).filter(|&class| heads[class].is_some()) {
            let queue = &mut self.classes[class];
            queue.deficit = queue
                .deficit
                .saturating_add(quantum(class).saturating_mul(rounds));
        }
        round
            .into_iter()
            .find(|&class| can_pay(class, self.classes[class].deficit))
    }
}

impl Amounts {
    fn add(&mut self, other: Amounts) {
        self.requests += other.requests;
        self.isl_tokens += other.isl_tokens;
        self.cached_tokens += other.cached_tokens;
    }

    fn subtract(&mut self, other: Amounts) {
        self.requests -= other.requests;
        self.isl_tokens -= other.isl_tokens;
        self.cached_tokens -= other.cached_tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy_class::QueuePolicy;
    use super::*;

    fn ticket(arrival: u64, isl_tokens: u64) -> QueueTicket {
        QueueTicket {
            arrival: Time(arrival * 1_000_000_000_000),
            isl_tokens,
            cached_tokens: 0,
            priority_jump: 0.0,
            strict_priority: 0,
            due: None,
            pinned: None,
        }
    }

    #[test]
    fn a_blocked_head_blocks_its_lane_alone() {
        let mut queue = PolicyQueue::new(PolicyProfile::sole(QueuePolicy::Fcfs, None));
        let pinned = QueueTicket {
            pinned: Some(3),
            ..ticket(1, 10)
        };
        queue.push(0, 1, ticket(0, 10), "first").unwrap();
        queue.push(0, 1, pinned, "pinned").unwrap();
        queue.push(0, 1, ticket(2, 10), "last").unwrap();
        let mut pop = |blocked| {
            queue
                .pop(|_, _, &item| item != blocked)
                .map(|(_, item)| item)
        };
        assert_eq!(
            [pop("first"), pop("first"), pop("")],
            [Some("pinned"), None, Some("first")]
        );
    }

    #[test]
    fn due_times_come_before_scores() {
        let mut queue = PolicyQueue::new(PolicyProfile::sole(QueuePolicy::Fcfs, None));
        queue.push(0, 1, ticket(0, 1), 0).unwrap();
        queue
            .push(
                0,
                1,
                QueueTicket {
                    due: Some(Time(9)),
                    ..ticket(1, 1)
                },
                1,
            )
            .unwrap();
        queue
            .push(
                0,
                1,
                QueueTicket {
                    due: Some(Time(8)),
                    ..ticket(2, 1)
                },
                2,
            )
            .unwrap();
        queue
            .push(
                0,
                1,
                QueueTicket {
                    strict_priority: 1,
                    ..ticket(3, 1)
                },
                3,
            )
            .unwrap();
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop(|_, _, _| true))
            .map(|(_, item)| item)
            .collect();
        assert_eq!(order, [3, 2, 1, 0]);
    }
}
