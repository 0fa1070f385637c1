//! Looks ahead for a clairvoyant router: a copy of the run, the request on every worker at once, until it has ended on one.
//!
//! Workers do not feel each other, so one copy answers for all of them. Those who are still on their way to the router, and
//! those who come later, are left out of it. A copy costs what there is to copy (requests of the workload, caches, batches),
//! and then the events of the time looked ahead.

use super::Driver;
use crate::cluster::Cluster;
use crate::event::{Event, WorkerId};
use engine::{RequestId, Time};

/// If this event brings a request to the router, tells it where the request ends first.
pub(super) fn advise(cluster: &mut Cluster, driver: &Driver<'_>, now: Time, event: Event) {
    if let Some(request) = cluster.routed_by(&event)
        && cluster.choices(request) > 0
        && let Some(worker) = ends_first(cluster.without_clients(), driver.clone(), now, request)
    {
        cluster.advise(worker);
    }
}

/// The worker on which the request ends first. `None` if it ends nowhere: all workers preempt in circles.
fn ends_first(
    mut cluster: Cluster,
    mut driver: Driver<'_>,
    now: Time,
    request: RequestId,
) -> Option<WorkerId> {
    let mut actions = Vec::new();
    cluster.place_everywhere(now, request, &mut actions);
    driver.perform(now, &mut actions, &cluster);
    while let Some((now, event)) = driver.next(&cluster) {
        if matches!(event, Event::Arrival { .. } | Event::Received { .. }) {
            continue;
        }
        cluster.handle(now, event, &mut actions);
        if let Event::Ran(ran) = event
            && cluster.has_completed(request)
        {
            return Some(ran.worker);
        }
        driver.perform(now, &mut actions, &cluster);
    }
    None
}
