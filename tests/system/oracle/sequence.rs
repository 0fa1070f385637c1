//! A request inside a worker, and a batch of them.

use std::collections::BTreeMap;

use super::pool::{BlockId, Content};
use super::scenario::{Request, Scenario};

/// A request inside a worker.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    pub priority: i64,
    /// When the front end got it.
    pub arrival_ns: u64,
    pub prompt_len: usize,
    pub output_len: usize,
    /// Of its full blocks, prompt and all possible output.
    pub contents: Vec<Content>,
    /// Output tokens known.
    pub outputs: usize,
    /// What it has of the next one, as a share of 256.
    pub fraction: usize,
    /// Tokens known when it was admitted: what it computes beyond them are outputs and drafts.
    pub known_at_admission: usize,
    /// Output tokens being computed.
    pub in_flight: usize,
    /// Tokens whose KV entries exist or are being computed.
    pub computed: usize,
    /// Its blocks.
    pub table: Vec<BlockId>,
    /// How many blocks of the table were found by content or got their content.
    pub stored: usize,
    /// How often it lost its blocks.
    pub preemptions: usize,
}

/// Who does what in one step.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// (request, new tokens, computed before)
    pub scheduled: Vec<(usize, usize, usize)>,
    /// (request, tokens hit, was preempted before)
    pub admitted: Vec<(usize, usize, bool)>,
    /// In order.
    pub preempted: Vec<usize>,
    /// Get one token when the step ends.
    pub sampled: Vec<usize>,
    /// The rest is the state right after the decision.
    pub running: usize,
    pub waiting: usize,
    pub free: usize,
}

impl Sequence {
    /// Prompt and outputs so far.
    pub fn known(&self) -> usize {
        self.prompt_len + self.outputs
    }

    /// R13.
    pub fn key(&self, request: usize) -> (i64, u64, usize) {
        (self.priority, self.arrival_ns, request)
    }
}

/// Every request of a scenario as a sequence that has not begun.
pub fn sequences(scenario: &Scenario) -> Vec<Sequence> {
    let mut names = BTreeMap::new();
    let sequence = |(index, request): (usize, &Request)| Sequence {
        priority: request.priority,
        prompt_len: request.prompt_len(),
        output_len: request.output_len,
        contents: contents(
            &scenario.tokens(index),
            scenario.engine.block_size,
            &mut names,
        ),
        ..Sequence::default()
    };
    scenario.requests.iter().enumerate().map(sequence).collect()
}

/// Names the whole prefix that ends with each full block: equal exactly when prefix and block are.
fn contents(
    tokens: &[u64],
    block_size: usize,
    names: &mut BTreeMap<(Option<Content>, Vec<u64>), Content>,
) -> Vec<Content> {
    let mut contents = Vec::new();
    for block in tokens.chunks_exact(block_size) {
        let next = names.len();
        let parent = contents.last().copied();
        contents.push(*names.entry((parent, block.to_vec())).or_insert(next));
    }
    contents
}
