//! Questions that a driver puts to a copy of the cluster: where would this request end first, and what if it went elsewhere?

use super::Cluster;
use crate::event::{Action, Event, WorkerId};
use crate::frontend::FrontendSpec;
use crate::load::{Load, LoadSpec};
use crate::record::{Outcome, RequestRecord};
use engine::{RequestId, Time};
use std::sync::Arc;

impl Cluster {
    /// True if its router wants to be told where a request ends first.
    pub(crate) fn wants_advice(&self) -> bool {
        self.entry.wants_advice()
    }

    /// The request to be placed next ends first on this worker.
    pub(crate) fn advise(&mut self, worker: WorkerId) {
        self.entry.advise(worker);
    }

    /// The request that reaches the router with this event, unless it is refused.
    pub(crate) fn routed_by(&self, event: &Event) -> Option<RequestId> {
        match event {
            Event::Received { request } => Some(*request),
            // Without a front end that takes time, arrivals are at the router at once.
            Event::Arrival { request } if self.frontend.spec() == FrontendSpec::default() => {
                Some(*request)
            }
            _ => None,
        }
    }

    /// A copy that gets no further requests from its clients and whose books begin empty.
    pub(crate) fn without_clients(&mut self) -> Cluster {
        let gaps = std::mem::take(&mut self.recording.gaps);
        let mut copy = self.clone();
        self.recording.gaps = gaps;
        copy.load = Load::new(LoadSpec::default(), Arc::default());
        copy
    }

    /// Gives a request to every worker that may have it, each to serve it whole.
    pub(crate) fn place_everywhere(
        &mut self,
        now: Time,
        request: RequestId,
        actions: &mut Vec<Action>,
    ) {
        assert!(
            self.disaggregated.is_none(),
            "each worker serves requests whole"
        );
        self.entry
            .place_everywhere(request, &self.workload, &self.pools);
        self.submit_placed(now, actions);
    }

    /// True if the request has ended.
    pub(crate) fn has_completed(&self, request: RequestId) -> bool {
        self.recording.requests[request.0 as usize].outcome == Outcome::Completed
    }

    /// How many workers a request may go to.
    pub(crate) fn choices(&mut self, request: RequestId) -> usize {
        self.entry.choices(request, &self.workload, &self.pools)
    }

    /// The request is not to go to this worker.
    pub(crate) fn bar(&mut self, request: RequestId, worker: WorkerId) {
        self.entry.bar(request, worker);
    }

    /// The records of the requests so far.
    pub(crate) fn records(&self) -> &[RequestRecord] {
        &self.recording.requests
    }

    /// True if each worker serves requests whole.
    pub(crate) fn is_aggregated(&self) -> bool {
        self.disaggregated.is_none()
    }
}
