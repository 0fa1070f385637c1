//! KV that a worker can fetch instead of computing it: the question that vLLM's scheduler puts to its KV connector.
//!
//! The scheduler asks when it looks at the head of its queue, after its own cache. What it then fetches it names in
//! [`StepPlan::reserved`](crate::StepPlan::reserved); when the KV is there it is told by `receive`.

use crate::kv_cache::Stretch;

/// Where KV lies besides the worker's own cache.
pub trait Connector {
    /// How many blocks of `path` can be fetched without a gap from block `from` on, none behind block `limit`.
    /// Blocks are the engine's. (vLLM: `get_num_new_matched_tokens`.)
    fn matched(&self, path: &[Stretch], from: u32, limit: u32) -> u32;
}
