//! Attempts: what one request of a client becomes inside the system.
//!
//! A client that tries again, and a request that another worker goes on with, leave an old copy behind that may still be
//! in a queue or in a step under way. So each attempt has a number of its own, `round * n + request` of `n` requests, and
//! workers, routers and books never mistake one for the other. An attempt that goes on with another's tokens takes its
//! times over; one that starts again keeps the client's arrival alone.

use super::AdversitySpec;
use engine::{RequestId, Time};
use rustc_hash::FxHashMap;

/// The attempts of all clients.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    clients: u32,
    most_retries: u32,
    most_moves: u32,
    /// By client's request.
    of: Vec<Count>,
    /// By attempt: tokens that others generated before it.
    generated: FxHashMap<RequestId, u32>,
    /// By attempt: when the last of those tokens came.
    last_token: FxHashMap<RequestId, Time>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    retries: u32,
    moves: u32,
}

impl Attempts {
    pub fn new(clients: u32, spec: &AdversitySpec) -> Attempts {
        Attempts {
            clients,
            most_retries: spec.clients.retries,
            most_moves: spec.faults.migration_limit,
            of: vec![Count::default(); clients as usize],
            generated: FxHashMap::default(),
            last_token: FxHashMap::default(),
        }
    }

    /// Requests of clients.
    pub fn clients(&self) -> u32 {
        self.clients
    }

    /// Whose attempt it is.
    pub fn client_of(&self, attempt: RequestId) -> RequestId {
        RequestId(attempt.0 % self.clients)
    }

    /// Which attempt of a client's request it is, the first being 0.
    pub fn round_of(&self, attempt: RequestId) -> u32 {
        attempt.0 / self.clients
    }

    /// The latest attempt of a client's request.
    pub fn current(&self, client: RequestId) -> RequestId {
        let Count { retries, moves } = self.of[client.0 as usize];
        RequestId(client.0 + self.clients * (retries + moves))
    }

    /// The client tries again, if it may: the new attempt.
    pub fn retry(&mut self, client: RequestId) -> Option<RequestId> {
        let count = &mut self.of[client.0 as usize];
        if count.retries == self.most_retries {
            return None;
        }
        count.retries += 1;
        Some(self.current(client))
    }

    /// Times that the client tried again.
    pub fn retries(&self, client: RequestId) -> u32 {
        self.of[client.0 as usize].retries
    }

    /// Another worker goes on, if one may: the new attempt. So many tokens are there, the last since `last_token`.
    pub fn go_on(
        &mut self,
        client: RequestId,
        generated: u32,
        last_token: Time,
    ) -> Option<RequestId> {
        let count = &mut self.of[client.0 as usize];
        if count.moves == self.most_moves {
            return None;
        }
        count.moves += 1;
        let attempt = self.current(client);
        if generated > 0 {
            self.generated.insert(attempt, generated);
            self.last_token.insert(attempt, last_token);
        }
        Some(attempt)
    }

    /// Tokens that others generated before this attempt.
    pub fn generated(&self, attempt: RequestId) -> u32 {
        self.generated.get(&attempt).copied().unwrap_or(0)
    }

    /// The first token of an attempt came: when the client got the one before it, if it had any.
    pub fn token_before(&mut self, attempt: RequestId) -> Option<Time> {
        self.last_token.remove(&attempt)
    }
}
