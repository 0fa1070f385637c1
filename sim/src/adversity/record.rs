//! What adversity left behind.

use super::faults::FaultKind;
use crate::links::{LinkCost, SiteKind};
use engine::Time;

/// What went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdversityRecord {
    /// Times that a client tried again.
    pub retries: u64,
    /// Attempts that ran into the limit on the first token.
    pub ttft_timeouts: u64,
    /// Attempts that ran into the limit on the last one.
    pub timeouts: u64,
    /// Prompts whose KV was not read in time, and which were computed again.
    pub transfer_timeouts: u64,
    /// Attempts that were turned away because all workers were busy.
    pub shed: u64,
    /// Tokens that clients got and did not want or could not use: of cancelled, failed and repeated attempts.
    pub wasted_tokens: u64,
    /// In the order in which they began.
    pub faults: Vec<FaultRecord>,
}

/// What one fault did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRecord {
    /// What broke.
    pub kind: FaultKind,
    /// Which worker; `None` for a router or a node.
    pub worker: Option<u32>,
    /// Which node; `None` for what is none.
    pub node: Option<u32>,
    /// Workers that were lost with a node.
    pub workers: u32,
    /// When.
    pub began: Time,
    /// Until when.
    pub ended: Time,
    /// Requests that were there, or under way at the router.
    pub requests: u32,
    /// Of these, requests that another worker went on with.
    pub migrated: u32,
    /// Of these, requests that were lost; their clients may have tried again.
    pub lost: u32,
    /// Tokens of prompts and answers whose KV was lost and had to be computed again for requests that migrated.
    pub recomputed_tokens: u64,
    /// KV events that the router missed.
    pub missed_events: u64,
    /// Which links, and what it cost, if it is links that broke.
    pub link: Option<LinkFaultRecord>,
}

/// Links that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFaultRecord {
    /// Which kind of site.
    pub site: SiteKind,
    /// Which of them.
    pub number: u32,
    /// What it cost, when it is over.
    pub cost: LinkCost,
}
