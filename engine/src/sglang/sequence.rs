//! A request's life inside a worker.

use super::place::{Place, place_of, places};
use super::radix_cache::{RadixCache, RadixId};
use crate::host_pool::Prefetch;
use crate::prefix_tree::NodeId;
use crate::scheduler::Part;
use crate::workload::{Request, RequestId, Workload};

/// Index of a sequence in the scheduler.
pub(super) type SequenceId = u32;

/// A request inside a worker.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub request: RequestId,
    pub input_tokens: u32,
    /// Outputs after which it ends.
    /// Model: that is also what the client asked for (`max_new_tokens`). Where answers end early, a real client asks for
    /// more, and more is reserved for it than here.
    pub output_goal: u32,
    pub outputs: u32,
    /// Outputs after which it is over: its goal, or less if it was aborted.
    pub stop_at: u32,
    pub is_aborted: bool,
    /// Tokens whose KV is in the pool or computed by the step in flight.
    pub computed: u32,
    /// Of these, tokens that the cache holds for it, in whole pages.
    pub shared: u32,
    /// The node of the cache that it locks while it runs.
    pub node: RadixId,
    pub was_retracted: bool,
    /// Parts of its next token that it has by expected acceptance.
    pub fraction: u32,
    /// What a storage is asked for while it waits.
    pub prefetch: Option<Prefetch>,
    /// What of the request is done here.
    pub part: Part,
    /// The places of its content.
    pub path: Vec<Place>,
}

impl Sequence {
    /// A request that waits; `path` is a vector to be reused.
    pub fn new(
        id: RequestId,
        request: &Request,
        output_goal: u32,
        workload: &Workload,
        mut path: Vec<Place>,
    ) -> Self {
        places(&workload.tree, request.leaf, &mut path);
        Sequence {
            request: id,
            input_tokens: request.input_tokens,
            output_goal,
            outputs: 0,
            stop_at: output_goal,
            is_aborted: false,
            computed: 0,
            shared: 0,
            node: RadixCache::ROOT,
            was_retracted: false,
            fraction: 0,
            prefetch: None,
            part: Part::Whole,
            path,
        }
    }

    /// Prompt and outputs.
    pub fn known(&self) -> u32 {
        self.input_tokens + self.outputs
    }

    /// Outputs still to come.
    pub fn missing(&self) -> u32 {
        self.output_goal - self.outputs
    }

    /// True once it has all outputs; its memory is given back then, but its batch lists it for a while (S11).
    pub fn is_finished(&self) -> bool {
        self.outputs >= self.stop_at
    }

    /// The place of its last token among the first `tokens`, if it knows that many: equal for those that share them.
    pub fn head(&self, tokens: u32) -> Option<NodeId> {
        (self.known() >= tokens).then(|| place_of(&self.path, tokens - 1))
    }
}
