//! What a rolling update came to: how long it took and what users saw meanwhile.

use super::lifecycle::Life;
use super::update::UpdateRecord;
use crate::metrics::ttfts_in_ms;
use crate::record::{Outcome, RequestRecord};
use crate::summary::Distribution;
use engine::Time;
use serde::Serialize;

/// The update of a pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpdateSummary {
    /// The pool's name.
    pub pool: String,
    /// When it began, in seconds since the start of the run.
    pub began_s: f64,
    /// How long it took; absent if it never was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_s: Option<f64>,
    /// Workers that there were when it began.
    pub replaced: u64,
    /// Workers that could be too many.
    pub surge: u64,
    /// Workers that could be missing.
    pub unavailable: u64,
    /// For how long workers of both generations served at once, in seconds.
    pub mixed_s: f64,
    /// Fewest workers of the pool that served at once meanwhile.
    pub fewest_ready: u64,
    /// TTFT of completed requests that arrived meanwhile.
    pub ttft_ms: Distribution,
    /// TTFT of all others.
    pub other_ttft_ms: Distribution,
}

impl UpdateRecord {
    pub(super) fn summary(
        &self,
        lives: &[Life],
        end: Time,
        pool_names: &[String],
        requests: &[&RequestRecord],
    ) -> UpdateSummary {
        let until = self.ended.min(end);
        let completed = requests
            .iter()
            .filter(|it| it.outcome == Outcome::Completed);
        let (meanwhile, others): (Vec<&RequestRecord>, Vec<&RequestRecord>) =
            completed.partition(|it| (self.began..until).contains(&it.arrival));
        let of_pool: Vec<&Life> = lives.iter().filter(|it| it.pool == self.pool).collect();
        let (old, new): (Vec<&Life>, Vec<&Life>) =
            of_pool.iter().partition(|it| it.generation == 0);
        let first_new = new.iter().map(|life| life.ready).min();
        let served_old = old.iter().filter(|life| life.ready < life.drained);
        let last_old = served_old.map(|life| life.drained.min(until)).max();
        let mixed_s = match (first_new, last_old) {
            (Some(first), Some(last)) if first < last => last.since(first).as_s(),
            _ => 0.0,
        };
        UpdateSummary {
            pool: pool_names[self.pool as usize].clone(),
            began_s: self.began.as_s(),
            took_s: (self.ended < Time::MAX).then(|| self.ended.since(self.began).as_s()),
            replaced: u64::from(self.replaced),
            surge: u64::from(self.surge),
            unavailable: u64::from(self.unavailable),
            mixed_s,
            fewest_ready: fewest_ready(&of_pool, self.began, until),
            ttft_ms: ttfts_in_ms(&meanwhile),
            other_ttft_ms: ttfts_in_ms(&others),
        }
    }
}

/// Fewest workers that served at once in that time.
fn fewest_ready(lives: &[&Life], from: Time, until: Time) -> u64 {
    let serving = |at: Time| {
        let serves = |life: &&&Life| life.ready <= at && at < life.drained.min(life.gone);
        lives.iter().filter(serves).count() as u64
    };
    let changes = lives.iter().flat_map(|life| [life.ready, life.drained]);
    let changes = changes.filter(|at| (from..until).contains(at));
    changes.chain([from]).map(serving).min().unwrap_or(0)
}
