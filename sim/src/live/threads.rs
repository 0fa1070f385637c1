//! Workers that compute: an operating system's thread each, with an executor that only it touches.
//!
//! Batches come through a channel, as many as the scheduler has in flight, and are computed in their order. A step begins
//! when it was handed over or when the one before it ended, whichever is later, and takes until its tokens are there. What
//! goes wrong inside, a panic included, is a message like any other, and the thread's last.

use super::{Clock, Ended};
use crate::event::{Ran, WorkerId};
use engine::{Batch, Chunk, Executor, Span, StepPlan, Time};
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::UnboundedSender;

/// A step that was computed: what it held, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealStep {
    /// Where.
    pub worker: WorkerId,
    /// When the plan was handed over.
    pub handed_over: Time,
    /// When the worker was free for it.
    pub start: Time,
    /// When its tokens were there.
    pub end: Time,
    /// Pieces of prompts.
    pub prefill: Vec<Chunk>,
    /// Sequences that decode.
    pub decode_batch: u32,
    /// Their summed context, new tokens included.
    pub decode_context: u64,
    /// Rows that sample a token.
    pub samples: usize,
}

impl RealStep {
    pub(super) fn planned(worker: WorkerId, plan: &StepPlan) -> RealStep {
        RealStep {
            worker,
            handed_over: Time::ZERO,
            start: Time::ZERO,
            end: Time::ZERO,
            prefill: plan.prefill.clone(),
            decode_batch: plan.decode_batch,
            decode_context: plan.decode_context,
            samples: plan.scheduled.iter().filter(|part| part.samples).count(),
        }
    }
}

/// How a thread gets its batches, and its handle.
type Thread = (mpsc::Sender<(Time, Batch)>, JoinHandle<()>);

pub(super) fn spawn(
    id: usize,
    clock: Clock,
    mut executor: Box<dyn Executor>,
    ended: UnboundedSender<Ended>,
) -> io::Result<Thread> {
    let (batches, queue) = mpsc::channel::<(Time, Batch)>();
    let work = move || {
        let mut free_at = Time::ZERO;
        for (handed_over, batch) in queue {
            let start = handed_over.max(free_at);
            let result = catch_unwind(AssertUnwindSafe(|| executor.run(&batch)));
            // A step takes time, however coarse the clock.
            free_at = clock.now().max(start + Span(1));
            let ran = Ran {
                worker: WorkerId(id as u32),
                steps: 1,
                start,
                first: free_at.since(start),
                slope_ps: 0,
            };
            let result = match result {
                Ok(Ok(tokens)) => Ok(Some((handed_over, tokens.len()))),
                Ok(Err(error)) => Err(error.to_string()),
                Err(panic) => Err(format!("its thread panicked: {}", words(&*panic))),
            };
            let is_over = result.is_err();
            if ended.send(Ended { ran, result }).is_err() || is_over {
                return;
            }
        }
    };
    let name = format!("worker {id}");
    let thread = std::thread::Builder::new().name(name).spawn(work)?;
    Ok((batches, thread))
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words")
}
