//! Who sends which request when: open loop, closed loop, sessions.
//!
//! *Open loop*: a request without dependencies is sent at its arrival time. *Closed loop*: the requests without
//! dependencies are sent in order, one whenever fewer than `concurrency` sessions are open; their arrival times are
//! ignored. In both, a request with dependencies (the next turn of a conversation) is sent when all it waits for has
//! happened and the delays are over; in a closed loop it uses the slot of its session, which is free again when no
//! request of the session is left.

use crate::event::{Action, Event};
use engine::{RequestId, Span, Time, Trigger, Workload};
use std::sync::Arc;

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadSpec {
    /// Sessions open at once; `None` for open loop.
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
    dependents: Dependents,
    /// By request: how many dependencies are open, and when it may be sent at the earliest. Empty without dependencies.
    open: Vec<(u16, Time)>,
    /// By session: requests not ended. Empty in an open loop.
    session_left: Vec<u32>,
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
        let open = |request: &engine::Request| (request.dependency_count, request.arrival);
        let session_left = if spec.concurrency.is_some() {
            requests_per_session(&workload)
        } else {
            Vec::new()
        };
        Load {
            spec,
            next: 0,
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
            session_left,
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
        if self.spec.concurrency.is_some() {
            let session = self.workload.requests[request.0 as usize].session as usize;
            self.session_left[session] -= 1;
            if self.session_left[session] == 0 {
                self.send_next(now, actions);
            }
        }
    }

    /// Requests that wait for the end of `request`: their prompts quote its answer.
    pub fn quoting(&self, request: RequestId) -> impl Iterator<Item = RequestId> {
        let waiting = self.dependents.of(request).iter();
        waiting
            .filter(|(_, on, _)| *on == Trigger::Completion)
            .map(|&(waiting, _, _)| waiting)
    }

    /// Sends the next request without dependencies: at its time in an open loop, now in a closed one.
    fn send_next(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some(request) = self.workload.requests.get(self.next as usize) {
            let id = RequestId(self.next);
            self.next += 1;
            if request.dependency_count == 0 {
                let time = if self.spec.concurrency.is_some() {
                    now
                } else {
                    request.arrival
                };
                self.send(time, id, actions);
                return;
            }
        }
    }

    fn send(&self, time: Time, request: RequestId, actions: &mut Vec<Action>) {
        if self
            .spec
            .duration
            .is_none_or(|duration| time <= Time::ZERO + duration)
        {
            actions.push(Action::At {
                time,
                event: Event::Arrival { request },
            });
        }
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
        for &(waiting, on, delay) in self.dependents.of(request) {
            if on != trigger {
                continue;
            }
            let (left, ready) = &mut self.open[waiting.0 as usize];
            *left -= 1;
            *ready = (*ready).max(now + delay);
            let (left, ready) = (*left, *ready);
            if left == 0 {
                let time = if self.spec.concurrency.is_some() {
                    now + delay
                } else {
                    ready
                };
                self.send(time.max(now), waiting, actions);
            }
        }
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

fn requests_per_session(workload: &Workload) -> Vec<u32> {
    let sessions = workload
        .requests
        .iter()
        .map(|request| request.session + 1)
        .max()
        .unwrap_or(0);
    let mut left = vec![0; sessions as usize];
    for request in &workload.requests {
        left[request.session as usize] += 1;
    }
    left
}
