//! Workers that sleep: a tokio task each, for the modelled time of a step.

use super::{Clock, Ended};
use crate::event::{Ran, WorkerId};
use engine::{Span, Time};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A task that executes the steps of one worker one after the other.
pub(super) fn spawn(
    id: usize,
    clock: Clock,
    ended: UnboundedSender<Ended>,
) -> UnboundedSender<(Time, Span)> {
    let (steps, mut queue) = unbounded_channel::<(Time, Span)>();
    tokio::task::spawn_local(async move {
        let mut free_at = Time::ZERO;
        while let Some((handed_over, time)) = queue.recv().await {
            let start = handed_over.max(free_at);
            clock.sleep_until(start + time).await;
            free_at = clock.now().max(start + time);
            let ran = Ran {
                worker: WorkerId(id as u32),
                steps: 1,
                start,
                first: free_at.since(start),
                slope_ps: 0,
            };
            let result = Ok(None);
            if ended.send(Ended { ran, result }).is_err() {
                return;
            }
        }
    });
    steps
}
