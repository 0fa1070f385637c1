//! A request's life inside a worker, and the queue in which it waits.

use super::SchedulingPolicy;
use crate::kv_cache::{Stretch, Table};
use crate::scheduler::Part;
use crate::time::Time;
use crate::workload::RequestId;
use std::collections::VecDeque;

/// Index of a sequence in the scheduler.
pub(super) type SequenceId = u32;

/// A request inside a worker.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub request: RequestId,
    /// What of it is done here.
    pub part: Part,
    pub arrival: Time,
    pub priority: i32,
    pub input_tokens: u32,
    /// Outputs after which it ends: what was asked for, or what `max_model_len` leaves (R12).
    pub output_goal: u32,
    /// Outputs delivered.
    pub outputs: u32,
    /// Outputs of steps in flight (R16). Stays 0 in synchronous scheduling.
    pub placeholders: u32,
    /// Tokens whose KV is in the cache or computed by a step in flight.
    pub computed: u32,
    /// Tokens it had at its last admission; what it computes beyond them is decode.
    pub prefill_goal: u32,
    /// What it has of its next token, in parts, where acceptance is expected.
    pub fraction: u32,
    pub is_running: bool,
    /// Nobody wants it any more.
    pub is_aborted: bool,
    pub was_preempted: bool,
    /// Blocks that are being fetched, or were and wait for a seat; 0 otherwise.
    pub fetching: u32,
    pub table: Table,
    pub path: Vec<Stretch>,
}

impl Sequence {
    /// Prompt and delivered outputs.
    pub fn known(&self) -> u32 {
        self.input_tokens + self.outputs
    }

    /// Tokens not yet computed, counting tokens still in flight as known.
    pub fn uncomputed(&self) -> u32 {
        self.known() + self.placeholders - self.computed
    }

    /// True if the token in flight is its last (R16).
    pub fn awaits_last_token(&self) -> bool {
        self.placeholders > 0 && self.outputs + self.placeholders >= self.output_goal
    }

    /// True if its next step decodes.
    pub fn decodes(&self) -> bool {
        self.computed >= self.prefill_goal
    }

    /// Key of the priority policy (R13); the victim is chosen without the request's number (R9).
    pub fn rank(&self) -> (i32, Time) {
        (self.priority, self.arrival)
    }
}

/// The waiting sequences, head first.
#[derive(Debug, Clone)]
pub(super) struct WaitingQueue {
    policy: SchedulingPolicy,
    queue: VecDeque<SequenceId>,
}

impl WaitingQueue {
    pub fn new(policy: SchedulingPolicy) -> Self {
        WaitingQueue {
            policy,
            queue: VecDeque::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = SequenceId> {
        self.queue.iter().copied()
    }

    /// The `index`-th sequence from the head.
    pub fn get(&self, index: usize) -> Option<SequenceId> {
        self.queue.get(index).copied()
    }

    pub fn remove(&mut self, index: usize) {
        self.queue.remove(index);
    }

    pub fn retain(&mut self, keep: impl Fn(SequenceId) -> bool) {
        self.queue.retain(|&id| keep(id));
    }

    /// A new arrival: to the back, or to its place by priority.
    pub fn submit(&mut self, id: SequenceId, sequences: &[Sequence]) {
        match self.policy {
            SchedulingPolicy::Fcfs => self.queue.push_back(id),
            SchedulingPolicy::Priority => self.insert_by_priority(id, sequences),
        }
    }

    /// A preempted sequence: to the front, or to its place by priority (R10).
    pub fn put_back(&mut self, id: SequenceId, sequences: &[Sequence]) {
        match self.policy {
            SchedulingPolicy::Fcfs => self.queue.push_front(id),
            SchedulingPolicy::Priority => self.insert_by_priority(id, sequences),
        }
    }

    fn insert_by_priority(&mut self, id: SequenceId, sequences: &[Sequence]) {
        let key = |id: SequenceId| {
            let sequence = &sequences[id as usize];
            (sequence.rank(), sequence.request)
        };
        let at = self.queue.partition_point(|&other| key(other) < key(id));
        self.queue.insert(at, id);
    }
}
