//! Session affinity: later requests of a session go where its first one went.
//!
//! A session is bound to the worker that its first request got, by the rule of another mode. The binding ends when no
//! request of the session has been under way for `ttl`; then, or if the worker cannot hold the request, the session is bound
//! anew. At most 65,536 sessions are bound: if there are more, the one idle for longest is forgotten, and a session that
//! finds no room is not bound. Source: dynamo-runtime 1.6, soft affinity.

use super::Candidate;
use crate::event::WorkerId;
use engine::{RequestId, Span, Time, Workload};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Most sessions bound at a time.
const CAPACITY: usize = 65_536;

/// Who is bound where.
#[derive(Debug, Clone)]
pub struct SessionAffinity {
    ttl: Span,
    sessions: FxHashMap<u32, Binding>,
    /// Sessions with no request under way, by when the last one ended.
    idle: BTreeSet<(Time, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Binding {
    worker: WorkerId,
    /// Requests under way.
    streams: u32,
    /// When the last one ended.
    since: Time,
}

impl SessionAffinity {
    pub fn new(ttl: Span) -> Self {
        SessionAffinity {
            ttl,
            sessions: FxHashMap::default(),
            idle: BTreeSet::new(),
        }
    }

    /// The worker that the request's session is bound to, else the one that `choose` names.
    pub fn place(
        &mut self,
        now: Time,
        candidate: &Candidate<'_>,
        choose: impl FnOnce() -> WorkerId,
    ) -> WorkerId {
        self.forget_expired(now);
        let session = candidate.workload.requests[candidate.request.0 as usize].session;
        if let Some(binding) = self.sessions.get_mut(&session) {
            self.idle.remove(&(binding.since, session));
            binding.streams += 1;
            if candidate.workers.binary_search(&binding.worker).is_err() {
                binding.worker = choose();
            }
            return binding.worker;
        }
        let worker = choose();
        if self.sessions.len() == CAPACITY
            && let Some((_, oldest)) = self.idle.pop_first()
        {
            self.sessions.remove(&oldest);
        }
        if self.sessions.len() < CAPACITY {
            self.sessions.insert(
                session,
                Binding {
                    worker,
                    streams: 1,
                    since: now,
                },
            );
        }
        worker
    }

    /// A request ended.
    pub fn ended(&mut self, now: Time, request: RequestId, workload: &Workload) {
        let session = workload.requests[request.0 as usize].session;
        let Some(binding) = self.sessions.get_mut(&session) else {
            return;
        };
        // A request that found no room may end after its session was bound.
        binding.streams = binding.streams.saturating_sub(1);
        if binding.streams == 0 {
            self.idle.remove(&(binding.since, session));
            binding.since = now;
            self.idle.insert((now, session));
        }
    }

    /// Unbinds the sessions of a worker that is no more.
    pub fn forget(&mut self, worker: WorkerId) {
        let idle = &mut self.idle;
        self.sessions.retain(|&session, binding| {
            let stays = binding.worker != worker;
            if !stays {
                idle.remove(&(binding.since, session));
            }
            stays
        });
    }

    fn forget_expired(&mut self, now: Time) {
        while let Some(&(since, session)) = self.idle.first() {
            if now.since(since) < self.ttl {
                return;
            }
            self.idle.pop_first();
            self.sessions.remove(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::min_tree::MinTree;
    use super::*;
    use engine::{NewRequest, Run, WorkloadBuilder};

    /// Requests of sessions 0, 0, 1.
    fn workload() -> Workload {
        let mut builder = WorkloadBuilder::new();
        for session in [0, 0, 1] {
            builder.push(NewRequest {
                arrival: Time::ZERO,
                prompt: &[Run { first: 0, len: 8 }],
                output_tokens: 1,
                priority: 0,
                session,
                dependencies: &[],
            });
        }
        builder.finish()
    }

    #[test]
    fn a_binding_lasts_while_requests_run_and_a_while_longer() {
        let workload = workload();
        let workers = [WorkerId(0), WorkerId(1), WorkerId(2)];
        let mut affinity = SessionAffinity::new(Span(100));
        let place = |affinity: &mut SessionAffinity, now, request, workers: &[WorkerId], wanted| {
            let candidate = Candidate {
                request: RequestId(request),
                workload: &workload,
                workers,
                active: &MinTree::of(&[0; 3]),
                tiers: None,
                pinned: None,
                cost_factors: None,
            };
            affinity.place(Time(now), &candidate, || WorkerId(wanted)).0
        };
        assert_eq!(place(&mut affinity, 0, 0, &workers, 1), 1);
        assert_eq!(place(&mut affinity, 500, 1, &workers, 2), 1);
        assert_eq!(place(&mut affinity, 500, 2, &workers, 2), 2);
        affinity.ended(Time(600), RequestId(0), &workload);
        // The other request of the session still runs.
        assert_eq!(place(&mut affinity, 900, 0, &workers, 2), 1);
        affinity.ended(Time(1000), RequestId(0), &workload);
        affinity.ended(Time(1000), RequestId(1), &workload);
        assert_eq!(place(&mut affinity, 1099, 0, &workers, 2), 1);
        affinity.ended(Time(1100), RequestId(0), &workload);
        assert_eq!(place(&mut affinity, 1200, 0, &workers, 0), 0);
        // A worker that cannot take the request is replaced.
        assert_eq!(place(&mut affinity, 1201, 1, &workers[1..], 2), 2);
    }
}
