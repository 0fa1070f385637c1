//! Workers that compute: an operating system's thread each, with an executor that only it touches.
//!
//! Batches come through a channel, as many as the scheduler has in flight, and are computed in their order. A step begins
//! when it was handed over or when the one before it ended, whichever is later, and takes until its tokens are there. What
//! goes wrong inside, a panic included, is a message like any other, and the thread's last.
//!
//! The driver hears of an end a while after it, plans, and wakes the thread: of a step, the *host's time* is what passed
//! between the moment at which a clock without such delays would have begun it and the moment at which it was begun.

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
    /// When it would have begun without delays: when what its plan waited for happened (the end of a step, an arrival) and
    /// the step before it had ended.
    pub ready: Time,
    /// When the worker's thread began to compute it.
    pub began: Time,
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
            ready: Time::ZERO,
            began: Time::ZERO,
            end: Time::ZERO,
            prefill: plan.prefill.clone(),
            decode_batch: plan.decode_batch,
            decode_context: plan.decode_context,
            samples: plan.scheduled.iter().filter(|part| part.samples).count(),
        }
    }

    /// What the host took: scheduling, messages, waking the thread.
    #[must_use]
    pub fn host_time(&self) -> Span {
        self.began.since(self.ready)
    }

    /// What the step took for those who wait: the host's time and the computation.
    #[must_use]
    pub fn wall_time(&self) -> Span {
        self.end.since(self.ready)
    }
}

/// What a thread says of a batch that it computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Computed {
    pub handed_over: Time,
    pub began: Time,
    /// Tokens that came out.
    pub sampled: usize,
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
            let began = clock.now().max(start);
            let result = catch_unwind(AssertUnwindSafe(|| executor.run(&batch)));
            // A step takes time, however coarse the clock.
            free_at = clock.now().max(began + Span(1));
            let ran = Ran {
                worker: WorkerId(id as u32),
                steps: 1,
                start,
                first: free_at.since(start),
                slope_ps: 0,
            };
            let result = match result {
                Ok(Ok(tokens)) => Ok(Some(Computed {
                    handed_over,
                    began,
                    sampled: tokens.len(),
                })),
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
