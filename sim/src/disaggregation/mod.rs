//! Disaggregated serving: prefill on the workers of some pools, decode on those of others, KV over the network between.
//!
//! Three orders of the real systems ([`HandoffOrder`]):
//!
//! ```text
//! source first       arrival -> prefill worker chosen -> prefill -> decode worker chosen -> blocks reserved -> transfer
//! decode first       arrival -> decode, prefill worker chosen -> prefill -> blocks reserved -> transfer
//! destination first  arrival -> decode, prefill worker chosen -> blocks reserved -> prefill, transfer of each chunk
//! ```
//!
//! In all of them the blocks on the prefill worker stay until the transfer is over, only blocks that the decode worker
//! lacks are moved, and the decode worker computes the last prompt token again to get the first token that the client
//! sees. Generated KV lives on the decode worker only: a later turn that quotes an answer finds its prompt on a prefill
//! worker, not the answer. Whether a request is handed over at all is for a [policy](conditional) to say.
//!
//! What moves while a prompt is computed is for [`Overlap`] to say, where blocks are reserved before. Where workers are and
//! which links they share is a [topology](crate::links::topology); [domains] keep both workers of a request near each other.
//!
//! A transfer that fails gives its blocks back on both sides, and the decode worker computes the prompt itself (vLLM's
//! `kv_load_failure_policy: recompute`).
//!
//! Routers: two of one kind, each over its own workers. That of the prefill workers tracks no active blocks; that of the
//! decode workers gives no credit for overlap, tracks no prefill and shares no blocks between requests, as in the replay of
//! the real one.

// Model: with layers, messages of single layers take no latency of their own, and what comes of a step when a part of the
// transfer ends within it moves as if it had come at an even rate since: at most one latency and a layer's share early.
// Model: messages between front end, routers and workers take no time beyond the front end's. A prefill worker that has
// planned at the instant at which blocks are reserved for it elsewhere sees the request one step later.
// Model: a failure shows when the last byte should have come.
// Model: nobody gives up waiting for a decode worker that lives: vLLM frees blocks that were not read within 480 s.

pub mod conditional;
pub mod domains;
mod handoffs;

pub use conditional::Conditional;
pub use domains::{DomainPolicy, Enforcement};
pub use handoffs::UNREAD_FOR;
pub(crate) use handoffs::{Handoffs, Stage};

use crate::event::WorkerId;
use crate::links::{NetworkSpec, Topology};
use crate::router::{KvRouterSpec, PrefillLoadModel, Retention, RouterSpec};
use engine::{RequestId, Time};

/// How a deployment disaggregates.
#[derive(Debug, Clone, PartialEq)]
pub struct DisaggregationSpec {
    /// By pool: what its workers do. Both roles have workers, and all pools the same block size.
    pub roles: Vec<Role>,
    /// Who is chosen and reserved when.
    pub order: HandoffOrder,
    /// Which requests stay whole on the decode worker; `None` hands all over.
    pub conditional: Option<Conditional>,
    /// What of a prompt moves while the rest is computed, where blocks are reserved before.
    pub overlap: Overlap,
    /// Between all workers.
    pub network: NetworkSpec,
    /// Who shares which links; `None` where each worker has ways of its own.
    pub topology: Option<Topology>,
    /// Where the second worker of a request is looked for; `None` for everywhere. Needs a topology.
    pub domain: Option<DomainPolicy>,
    /// Size of the KV of one token, over all GPUs of a worker.
    pub kv_bytes_per_token: u64,
    /// Share of the transfers that fail.
    pub failure_rate: f64,
}

/// What the workers of a pool do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Prompts, for others to go on with.
    Prefill,
    /// Everything after the prompt, and whole requests that are not handed over.
    Decode,
}

/// Who is chosen and reserved when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffOrder {
    /// vLLM under Dynamo: the decode worker is chosen when the prompt is computed, and pulls.
    SourceFirst,
    /// llm-d: the decode worker is chosen first, and pulls when the prompt is computed.
    DecodeFirst,
    /// SGLang: blocks are reserved first (bootstrap); the prompt's KV is pushed as each chunk of it is computed.
    DestinationFirst,
}

/// What of a prompt moves while the rest is computed.
///
/// With a step of `T` that computes a whole prompt of `L` layers, whose KV takes `X` on the links alone, the transfer is over
/// at `T + X` (none, chunk) or at `max(T + X / L, T / L + X)` (layer) after the start of the step. A prompt that is cut into
/// steps moves the KV of each step behind it (chunk), or that of each layer of each step behind the layer (layer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing: all of it moves when all of it is computed.
    None,
    /// What steps before have computed.
    Chunk,
    /// What the layers before have computed, in a model of so many layers.
    Layer(u32),
}

/// The way of one request's KV. Times are `Time::MAX` for what did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferRecord {
    /// Whose.
    pub request: RequestId,
    /// The prefill worker.
    pub from: WorkerId,
    /// The decode worker.
    pub to: WorkerId,
    /// When the prompt was computed.
    pub prefilled: Time,
    /// When its blocks were reserved.
    pub reserved: Time,
    /// When the (first part of the) transfer was started.
    pub began: Time,
    /// When the last byte was there.
    pub ended: Time,
    /// Prompt tokens that the decode worker had already.
    pub hit_tokens: u32,
    /// Bytes moved.
    pub bytes: u64,
    /// Whether it failed.
    pub has_failed: bool,
}

impl DisaggregationSpec {
    /// The router of the workers of one role.
    #[must_use]
    pub fn router(&self, spec: RouterSpec, role: Role) -> RouterSpec {
        match (spec, role) {
            (RouterSpec::Kv(kv), Role::Prefill) => RouterSpec::Kv(KvRouterSpec {
                track_active_blocks: false,
                track_output_blocks: false,
                // Answers are made elsewhere.
                retention: match kv.retention {
                    Retention::Lru { .. } => Retention::Lru { outputs: false },
                    other => other,
                },
                ..kv
            }),
            (RouterSpec::Kv(mut kv), Role::Decode) => {
                kv.weights.overlap_score_credit = 0.0;
                kv.weights.track_prefill_tokens = false;
                kv.weights.is_decode_router = true;
                kv.assume_kv_reuse = false;
                kv.queue_threshold = None;
                kv.prefill_load_model = PrefillLoadModel::None;
                if !self.chooses_decode_first() {
                    // Nobody asks what decode workers hold.
                    kv.use_kv_events = true;
                    kv.predicted_ttl = None;
                }
                RouterSpec::Kv(kv)
            }
            (other, _) => other,
        }
    }

    /// Whether the decode worker is chosen when a request comes.
    #[must_use]
    pub fn chooses_decode_first(&self) -> bool {
        // To know what a decode worker has cached, one has to be picked.
        self.order != HandoffOrder::SourceFirst || self.conditional.is_some()
    }
}
