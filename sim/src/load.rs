//! Who sends which request when: open loop, closed loop, sessions.
//!
//! *Open loop*: a request without dependencies is sent at its arrival time. *Closed loop*: arrival times are ignored;
//! conversations are begun in order, one whenever fewer than `concurrency` are open. A conversation is all requests of
//! one session, and of sessions that wait for each other; those of its requests that wait for nothing are sent when it
//! begins, and its slot is free again when no request of it is left. In both loops a request with dependencies (the
//! next turn) is sent when all it waits for has happened and the delays are over.

use crate::event::{Action, Event};
use engine::{RequestId, Span, Time, Trigger, Workload};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadSpec {
    /// Conversations open at once; `None` for open loop.
    pub concurrency: Option<u32>,
    /// Requests (the first of the workload) that are served but left out of all statistics.
    pub warmup_requests: u32,
    /// No request is sent later than this after the start.
    pub duration: Option<Span>,
}

/// The clients.
#[derive(Debug, Clone)]
pub struct Load {
    spec: LoadSpec,
    workload: Arc<Workload>,
    /// The next request without dependencies.
    next: u32,
    /// Requests with a time to be sent at, that have not arrived.
    on_their_way: u32,
    dependents: Dependents,
    /// By request: how many dependencies are open, and when it may be sent at the earliest. Empty without dependencies.
    open: Vec<(u16, Time)>,
    /// Empty in an open loop.
    conversations: Conversations,
}

/// Who waits for whom, grouped by the request waited for.
#[derive(Debug, Clone, Default)]
struct Dependents {
    first: Vec<u32>,
    waiting: Vec<(RequestId, Trigger, Span)>,
}

impl Load {
    /// The clients of a workload.
    #[must_use]
    pub fn new(spec: LoadSpec, workload: Arc<Workload>) -> Self {
        let has_dependencies = !workload.dependencies.is_empty();
        let is_closed = spec.concurrency.is_some();
        let open = |request: &engine::Request| {
            let ready = if is_closed {
                Time::ZERO
            } else {
                request.arrival
            };
            (request.dependency_count, ready)
        };
        let conversations = if is_closed {
            Conversations::new(&workload)
        } else {
            Conversations::default()
        };
        Load {
            spec,
            next: 0,
            on_their_way: 0,
            dependents: if has_dependencies {
                Dependents::new(&workload)
            } else {
                Dependents::default()
            },
            open: if has_dependencies {
                workload.requests.iter().map(open).collect()
            } else {
                Vec::new()
            },
            conversations,
            workload,
        }
    }

    /// True for requests that are served but not counted.
    #[must_use]
    pub fn is_warmup(&self, request: RequestId) -> bool {
        request.0 < self.spec.warmup_requests
    }

    /// Sends what is due at the start.
    pub fn start(&mut self, actions: &mut Vec<Action>) {
        match self.spec.concurrency {
            None => self.send_next(Time::ZERO, actions),
            Some(slots) => (0..slots).for_each(|_| self.send_next(Time::ZERO, actions)),
        }
    }

    /// A request that was on its way has arrived.
    pub fn arrived(&mut self) {
        self.on_their_way -= 1;
    }

    /// Whether requests are on their way; others may follow those that are not over.
    #[must_use]
    pub fn sends_more(&self) -> bool {
        self.on_their_way > 0
    }

    /// `request` was sent.
    pub fn sent(&mut self, now: Time, request: RequestId, actions: &mut Vec<Action>) {
        let is_root = self.workload.requests[request.0 as usize].dependency_count == 0;
        if self.spec.concurrency.is_none() && is_root {
            self.send_next(now, actions);
        }
        self.trigger(now, request, Trigger::Dispatch, actions);
    }

    /// `request` ended: its last token arrived, or it was refused.
    pub fn ended(&mut self, now: Time, request: RequestId, actions: &mut Vec<Action>) {
        self.trigger(now, request, Trigger::Completion, actions);
        if self.spec.concurrency.is_some()
            && self.workload.ahead_of(request).is_none()
            && self.conversations.ended(request)
        {
            self.send_next(now, actions);
        }
    }

    /// Requests that wait for `request`.
    pub fn waiting_for(&self, request: RequestId) -> impl Iterator<Item = RequestId> {
        let waiting = self.dependents.of(request).iter();
        waiting.map(|&(waiting, _, _)| waiting)
    }

    /// Open loop: sends the next request without dependencies, at its time. Closed loop: begins the next conversation.
    fn send_next(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.spec.concurrency.is_some() {
            if let Some(roots) = self.conversations.begin_next() {
                for request in roots {
                    self.on_their_way += self.send(now, request, actions);
                }
            }
            return;
        }
        while let Some(request) = self.workload.requests.get(self.next as usize) {
            let id = RequestId(self.next);
            self.next += 1;
            if request.dependency_count == 0 {
                let arrival = request.arrival;
                self.on_their_way += self.send(arrival, id, actions);
                return;
            }
        }
    }

    /// Sends a request unless it is too late, and says how many went out.
    fn send(&self, time: Time, request: RequestId, actions: &mut Vec<Action>) -> u32 {
        let is_due = self
            .spec
            .duration
            .is_none_or(|duration| time <= Time::ZERO + duration);
        if is_due {
            actions.push(Action::At {
                time,
                event: Event::Arrival { request },
            });
        }
        u32::from(is_due)
    }

    fn trigger(
        &mut self,
        now: Time,
        request: RequestId,
        trigger: Trigger,
        actions: &mut Vec<Action>,
    ) {
        if self.open.is_empty() {
            return;
        }
        let mut sent = 0;
        for &(waiting, on, delay) in self.dependents.of(request) {
            if on != trigger {
                continue;
            }
            let (left, ready) = &mut self.open[waiting.0 as usize];
            *left -= 1;
            *ready = (*ready).max(now + delay);
            let (left, ready) = (*left, *ready);
            if left == 0 {
                sent += self.send(ready.max(now), waiting, actions);
            }
        }
        self.on_their_way += sent;
    }
}

impl Dependents {
    fn new(workload: &Workload) -> Self {
        let requests = workload.requests.len();
        let mut first = vec![0u32; requests + 2];
        for dependency in &workload.dependencies {
            first[dependency.on.0 as usize + 2] += 1;
        }
        for index in 2..first.len() {
            first[index] += first[index - 1];
        }
        let blank = (RequestId(0), Trigger::Completion, Span::ZERO);
        let mut waiting = vec![blank; workload.dependencies.len()];
        for (index, request) in workload.requests.iter().enumerate() {
            for dependency in workload.dependencies_of(request) {
                let place = &mut first[dependency.on.0 as usize + 1];
                waiting[*place as usize] = (
                    RequestId(index as u32),
                    dependency.trigger,
                    dependency.delay,
                );
                *place += 1;
            }
        }
        Dependents { first, waiting }
    }

    fn of(&self, request: RequestId) -> &[(RequestId, Trigger, Span)] {
        if self.first.is_empty() {
            return &[];
        }
        let from = self.first[request.0 as usize] as usize;
        let to = self.first[request.0 as usize + 1] as usize;
        &self.waiting[from..to]
    }
}

/// Requests that share a slot of a closed loop.
#[derive(Debug, Clone, Default)]
struct Conversations {
    /// By request: its conversation, named by its first request.
    of: Vec<u32>,
    /// By first request: requests not ended.
    left: Vec<u32>,
    /// By first request: its requests without dependencies.
    roots: FxHashMap<u32, Vec<RequestId>>,
    /// The next request to look at for a conversation to begin.
    next: u32,
}

impl Conversations {
    fn new(workload: &Workload) -> Self {
        // What no client sends holds no slot.
        let count = workload.of_clients();
        let requests = &workload.requests[..count];
        let mut of: Vec<u32> = (0..count as u32).collect();
        let mut first_of_session = FxHashMap::default();
        for (index, request) in requests.iter().enumerate() {
            let index = index as u32;
            join(
                &mut of,
                *first_of_session.entry(request.session).or_insert(index),
                index,
            );
            for dependency in workload.dependencies_of(request) {
                join(&mut of, dependency.on.0, index);
            }
        }
        let mut conversations = Conversations {
            left: vec![0; count],
            ..Conversations::default()
        };
        for (index, request) in requests.iter().enumerate() {
            let first = find(&mut of, index as u32);
            conversations.left[first as usize] += 1;
            if request.dependency_count == 0 && first != index as u32 {
                let roots = conversations.roots.entry(first).or_default();
                roots.push(RequestId(index as u32));
            }
        }
        // A first request that waits for a later one is not a root itself.
        let firsts = (0..count as u32).filter(|&index| of[index as usize] == index);
        for first in firsts {
            if workload.requests[first as usize].dependency_count == 0
                && let Some(roots) = conversations.roots.get_mut(&first)
            {
                roots.insert(0, RequestId(first));
            }
        }
        conversations.of = of;
        conversations
    }

    /// The requests with which the next conversation begins.
    fn begin_next(&mut self) -> Option<Vec<RequestId>> {
        let count = self.of.len() as u32;
        while self.next < count && find(&mut self.of, self.next) != self.next {
            self.next += 1;
        }
        let first = self.next;
        if first == count {
            return None;
        }
        self.next += 1;
        let alone = || vec![RequestId(first)];
        Some(self.roots.remove(&first).unwrap_or_else(alone))
    }

    /// Takes note of the end of a request; true if it was the last of its conversation.
    fn ended(&mut self, request: RequestId) -> bool {
        let first = find(&mut self.of, request.0);
        self.left[first as usize] -= 1;
        self.left[first as usize] == 0
    }
}

/// The first request of the conversation of `index`, with the way to it made shorter.
fn find(of: &mut [u32], mut index: u32) -> u32 {
    while of[index as usize] != index {
        of[index as usize] = of[of[index as usize] as usize];
        index = of[index as usize];
    }
    index
}

fn join(of: &mut [u32], a: u32, b: u32) {
    let (a, b) = (find(of, a), find(of, b));
    of[a.max(b) as usize] = a.min(b);
}
