//! Who has something to report before a request is routed.
//!
//! A router that listens to KV events must know all that happened in steps that have ended, but most steps of a coast
//! leave no event. The scheduler says how many are sure to leave none; the end of the first that may is the worker's time
//! of news. A [tournament](crate::router::min_tree) over these times finds the workers with news without asking the others.
//! The time is worked out anew, when it is next needed, after whatever may have moved it: a segment begun, a plan made.

use super::Lane;
use crate::cluster::Cluster;
use crate::event::WorkerId;
use crate::router::min_tree::MinTree;
use crate::worker::Worker;
use engine::{Scheduler, Time};

/// When observed workers have news.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    /// By worker; workers that nobody observes never have.
    news: MinTree<Time>,
    is_observed: Vec<bool>,
    /// Somebody observes.
    is_used: bool,
    /// Workers whose time has to be worked out, each once.
    outdated: Vec<WorkerId>,
    is_outdated: Vec<bool>,
    /// Scratch space.
    pub with_news: Vec<WorkerId>,
}

impl Reports {
    pub fn new(cluster: &Cluster) -> Self {
        let workers = cluster.workers().len();
        let mut is_observed = vec![false; workers];
        for worker in cluster.observed_workers() {
            is_observed[worker.0 as usize] = true;
        }
        Reports {
            news: MinTree::of(&vec![Time::MAX; workers]),
            is_used: is_observed.contains(&true),
            is_observed,
            outdated: Vec::new(),
            is_outdated: vec![false; workers],
            with_news: Vec::new(),
        }
    }

    /// Something happened that may move the worker's time of news.
    pub fn look_again(&mut self, worker: WorkerId) {
        let at = worker.0 as usize;
        if self.is_observed[at] && !std::mem::replace(&mut self.is_outdated[at], true) {
            self.outdated.push(worker);
        }
    }

    /// Appends the workers that may have news by `now`, in order.
    pub fn find(
        &mut self,
        now: Time,
        lanes: &[Lane],
        cluster: &Cluster,
        with_news: &mut Vec<WorkerId>,
    ) {
        if !self.is_used {
            return;
        }
        for worker in self.outdated.drain(..) {
            let at = worker.0 as usize;
            self.is_outdated[at] = false;
            self.news.set(at, time_of_news(&lanes[at], cluster, worker));
        }
        self.news
            .for_each_up_to(now, |at| with_news.push(WorkerId(at as u32)));
    }
}

/// The end of the first step that may leave an event, if the segment goes on behind it; its own end is reported anyway.
fn time_of_news(lane: &Lane, cluster: &Cluster, worker: WorkerId) -> Time {
    let Some(segment) = &lane.segment else {
        return Time::MAX;
    };
    if segment.steps == 1 {
        return Time::MAX;
    }
    // Of ranks that step together, the first that has news.
    let ranks = cluster.ranks_of(worker).iter().map(Worker::scheduler);
    let quiet = ranks
        .filter(|scheduler| !scheduler.is_idle())
        .map(Scheduler::quiet_steps)
        .min()
        .unwrap_or(0);
    if quiet + 1 < segment.steps {
        segment.end_of(quiet + 1)
    } else {
        Time::MAX
    }
}
