//! Pipeline stages in SGLang's scheduler (S14): micro-batches that take turns.
//!
//! In words: there are as many micro-batches as stages, each with running requests of its own, its own last prefill batch and
//! its own mark that it is full; queue, pool, tree and new-token ratio are common. They are planned in turn, each when its
//! last step has left the pipeline, while those of the others are in flight; a turn that comes to nothing is over at once. A request
//! stays in the micro-batch that finished its prompt. But a prompt that was cut goes on in the next turn, whichever it is: what
//! its chunks compute is in order in every stage, and enters the tree before it is computed. A micro-batch has seats of its own, by
//! default an equal part of all; what is reserved and who is retracted is seen in one micro-batch alone.
//!
//! Source: SGLang 0.5, `srt/managers/scheduler_pp_mixin.py` (`event_loop_pp`), `srt/managers/scheduler.py`
//! (`pp_max_micro_batch_size`, `get_num_allocatable_reqs`, `get_next_batch_to_run`). No schedule with stages was recorded; a
//! naive scheduler written from these words is the check.

// Model: `pp_async_batch_depth` is 0, its default, and chunks are of one size (`enable_dynamic_chunking` is off).
// Model: the last request of a micro-batch that finds no memory is retracted, and a chunk that finds none waits. The real server
// gives the one up with an error and dies of the other; both need a pool that others fill meanwhile.

use super::Scheduler;
use super::sequence::SequenceId;
use std::collections::VecDeque;

/// What a micro-batch has of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct MicroBatch {
    running: Vec<SequenceId>,
    prefilled: Vec<SequenceId>,
    is_full: bool,
    batch_cut: Option<SequenceId>,
}

impl MicroBatch {
    /// Those that wait for their turn behind the first.
    pub fn others(stages: u32) -> VecDeque<MicroBatch> {
        (1..stages).map(|_| MicroBatch::default()).collect()
    }
}

impl Scheduler {
    /// Sequences of all micro-batches, those that have ended included.
    pub(super) fn seated(&self) -> impl Iterator<Item = SequenceId> {
        let others = (self.other_batches.iter())
            .flat_map(|batch| batch.running.iter().chain(&batch.prefilled));
        let turn = self.running.iter().chain(&self.prefilled);
        turn.chain(others).copied()
    }

    /// Gives the next micro-batch its turn.
    pub(super) fn take_turns(&mut self) {
        let Some(mut next) = self.other_batches.pop_front() else {
            return;
        };
        std::mem::swap(&mut self.running, &mut next.running);
        std::mem::swap(&mut self.prefilled, &mut next.prefilled);
        std::mem::swap(&mut self.is_full, &mut next.is_full);
        std::mem::swap(&mut self.batch_cut, &mut next.batch_cut);
        self.other_batches.push_back(next);
    }

    /// Requests that may take part in a prefill batch beside those that run.
    pub(super) fn seats(&self) -> usize {
        let own = self.config.micro_batch_seats() as usize;
        let own = own.saturating_sub(self.running.len());
        if self.config.pp_size == 1 {
            return own;
        }
        let all = self.config.max_running_requests as usize;
        own.min(all.saturating_sub(self.active))
    }

    /// Tokens that a cut prompt can have at once where others hold memory beside its micro-batch.
    pub(super) fn room_for_chunk(&self) -> Option<u32> {
        let available = self.pool.available_tokens();
        (self.config.pp_size > 1).then(|| available - available % self.config.page_size)
    }
}
