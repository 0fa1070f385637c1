//! Belady's eviction: the block that is next used farthest in the future goes first. No engine can do it; it bounds what any
//! order of eviction could reach.
//!
//! A block is used by every request whose prompt runs through it (its last token left out, which is always computed). The
//! future is the workload: requests come in its order. A worker knows which requests it was given and has not started, and
//! takes all behind the last of them to be coming to it; what went to other workers meanwhile is struck out. Of blocks with the
//! same next user the deepest goes first, so that what stays is always a prefix. Blocks that nobody will use, and further
//! copies of a block, go before all others. Source: Belady 1966.
//!
//! For one worker that serves one request after the other this is the optimum: no order of eviction finds more blocks (all are of
//! one size). Beyond that it is not quite. Blocks in use are pinned, requests overlap, and with several workers most of the
//! future belongs to others, so that a lucky LRU can find a few blocks more. Turns that wait for answers may also come in another
//! order than the workload's.

use super::table::{Stretch, block_path};
use crate::prefix_tree::NodeId;
use crate::workload::{RequestId, Workload};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Next use of a block that nobody will use.
pub(super) const NEVER: u32 = u32::MAX;

/// Who will look up what, and who of them is still to come.
#[derive(Debug, Clone)]
pub(super) struct Foresight {
    uses: Arc<Uses>,
    /// By node: the first of its uses that may be to come.
    next: Vec<u32>,
    /// Requests from here on are to come.
    horizon: u32,
    /// Requests before it that are here and have not started.
    waiting: BTreeSet<u32>,
    /// Requests that came since the last plan.
    news: Vec<RequestId>,
}

/// By node of the prefix tree, the requests that look up blocks of it.
#[derive(Debug)]
struct Uses {
    /// By node: its first use; one more for the end.
    first: Vec<u32>,
    /// Grouped by node, in order of requests.
    all: Vec<Use>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Use {
    request: u32,
    /// The request looks up blocks below this index.
    end: u32,
}

impl Uses {
    fn new(workload: &Workload, block_size: u32) -> Uses {
        let mut first = vec![0u32; workload.tree.len() + 2];
        let mut found = Vec::new();
        let mut path: Vec<Stretch> = Vec::new();
        for (index, request) in workload.requests.iter().enumerate() {
            block_path(&workload.tree, request.leaf, block_size, &mut path);
            let limit = (request.input_tokens - 1) / block_size;
            let mut start = 0;
            for stretch in &path {
                if start >= limit {
                    break;
                }
                let (request, end) = (index as u32, stretch.end.min(limit));
                found.push((stretch.node, Use { request, end }));
                first[stretch.node.0 as usize + 2] += 1;
                start = stretch.end;
            }
        }
        for index in 2..first.len() {
            first[index] += first[index - 1];
        }
        let mut all = vec![Use::default(); found.len()];
        for (node, used) in found {
            let place = &mut first[node.0 as usize + 1];
            all[*place as usize] = used;
            *place += 1;
        }
        Uses { first, all }
    }
}

impl Foresight {
    /// All of the workload is to come.
    pub fn new(workload: &Workload, block_size: u32) -> Foresight {
        let uses = Uses::new(workload, block_size);
        Foresight {
            next: uses.first.clone(),
            uses: Arc::new(uses),
            horizon: 0,
            waiting: BTreeSet::new(),
            news: Vec::new(),
        }
    }

    /// A request came; heard of when the next step is planned, so that a coast sees what its steps would have seen.
    pub fn announce(&mut self, request: RequestId) {
        self.news.push(request);
    }

    /// Takes note of who came.
    pub fn hear(&mut self) {
        for RequestId(request) in self.news.drain(..) {
            self.waiting.insert(request);
            self.horizon = self.horizon.max(request + 1);
        }
    }

    /// A request looks up its blocks now.
    pub fn start(&mut self, RequestId(request): RequestId) {
        self.waiting.remove(&request);
    }

    /// A request of this path lost its blocks and will look them up again.
    pub fn expect_again(&mut self, RequestId(request): RequestId, path: &[Stretch]) {
        self.waiting.insert(request);
        for stretch in path {
            let node = stretch.node.0 as usize;
            let (from, to) = (self.uses.first[node], self.uses.first[node + 1]);
            let uses = &self.uses.all[from as usize..to as usize];
            let at = from + uses.partition_point(|used| used.request < request) as u32;
            self.next[node] = self.next[node].min(at);
        }
    }

    fn is_to_come(&self, used: &Use) -> bool {
        used.request >= self.horizon || self.waiting.contains(&used.request)
    }

    /// The next request that looks up block `block` of `node`. Never less for a later block.
    pub fn next_use(&mut self, node: NodeId, block: u32) -> u32 {
        let node = node.0 as usize;
        let to = self.uses.first[node + 1];
        let mut from = self.next[node];
        while from < to && !self.is_to_come(&self.uses.all[from as usize]) {
            from += 1;
        }
        self.next[node] = from;
        self.uses.all[from as usize..to as usize]
            .iter()
            .find(|used| used.end > block && self.is_to_come(used))
            .map_or(NEVER, |used| used.request)
    }
}
