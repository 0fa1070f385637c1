//! Requests between their two workers: who has what, and what can be moved now.
//!
//! A transfer starts when there are blocks to put it into and something to move: the whole prompt once it is computed or,
//! if blocks were reserved before, what its chunks have completed so far. Of one request one part moves at a time; what is
//! completed meanwhile moves next.

use super::{DisaggregationSpec, HandoffOrder, TransferRecord};
use crate::event::{Action, Event, WorkerId};
use crate::links::Network;
use engine::{RequestId, Reserved, Time};

/// All handoffs of a run.
#[derive(Debug, Clone)]
pub(crate) struct Handoffs {
    pub spec: DisaggregationSpec,
    network: Network,
    block_size: u32,
    /// By request; blank until a worker was chosen.
    all: Vec<Handoff>,
    /// When the next [`Event::Links`] comes that was asked for; `Time::MAX` for none.
    wake: Time,
}

/// One request's.
#[derive(Debug, Clone, Copy)]
struct Handoff {
    record: TransferRecord,
    /// Tokens to be moved, once known.
    missing_tokens: u32,
    computed_tokens: u32,
    sent_tokens: u32,
    moving_tokens: u32,
}

const NOBODY: WorkerId = WorkerId(u32::MAX);

impl Handoffs {
    pub fn new(spec: DisaggregationSpec, gpus: &[u32], requests: usize, block_size: u32) -> Self {
        let blank = |index: usize| Handoff {
            record: TransferRecord {
                request: RequestId(index as u32),
                from: NOBODY,
                to: NOBODY,
                prefilled: Time::MAX,
                reserved: Time::MAX,
                began: Time::MAX,
                ended: Time::MAX,
                hit_tokens: 0,
                bytes: 0,
                has_failed: false,
            },
            missing_tokens: 0,
            computed_tokens: 0,
            sent_tokens: 0,
            moving_tokens: 0,
        };
        Handoffs {
            network: Network::new(spec.network, gpus),
            spec,
            block_size,
            all: (0..requests).map(blank).collect(),
            wake: Time::MAX,
        }
    }

    /// Who prefills it and who decodes it, as far as chosen.
    pub fn ends_of(&self, id: RequestId) -> (WorkerId, WorkerId) {
        let record = &self.all[id.0 as usize].record;
        (record.from, record.to)
    }

    pub fn is_reserved(&self, id: RequestId) -> bool {
        self.all[id.0 as usize].record.reserved != Time::MAX
    }

    pub fn has_prefill_worker(&self, id: RequestId) -> bool {
        self.all[id.0 as usize].record.from != NOBODY
    }

    pub fn has_decode_worker(&self, id: RequestId) -> bool {
        self.all[id.0 as usize].record.to != NOBODY
    }

    pub fn will_prefill(&mut self, id: RequestId, worker: WorkerId) {
        self.all[id.0 as usize].record.from = worker;
    }

    pub fn will_decode(&mut self, id: RequestId, worker: WorkerId) {
        self.all[id.0 as usize].record.to = worker;
    }

    /// So many prompt tokens are computed.
    pub fn computed(&mut self, now: Time, id: RequestId, tokens: u32) {
        if self.spec.order == HandoffOrder::DestinationFirst {
            self.all[id.0 as usize].computed_tokens = tokens;
            self.proceed(now, id);
        }
    }

    /// All prompt tokens are computed.
    pub fn prefilled(&mut self, now: Time, id: RequestId) {
        self.all[id.0 as usize].record.prefilled = now;
        self.proceed(now, id);
    }

    /// The decode worker has the blocks.
    pub fn reserved(&mut self, now: Time, reserved: &Reserved) {
        let handoff = &mut self.all[reserved.request.0 as usize];
        handoff.record.reserved = now;
        handoff.record.hit_tokens = reserved.hit_tokens;
        handoff.missing_tokens = reserved.missing_tokens;
        self.proceed(now, reserved.request);
    }

    /// Moves what can be moved.
    fn proceed(&mut self, now: Time, id: RequestId) {
        let handoff = &mut self.all[id.0 as usize];
        let record = &mut handoff.record;
        if record.reserved == Time::MAX || handoff.moving_tokens > 0 {
            return;
        }
        let ready = if record.prefilled != Time::MAX {
            handoff.missing_tokens
        } else {
            let whole = handoff.computed_tokens / self.block_size * self.block_size;
            whole.saturating_sub(record.hit_tokens)
        };
        if ready <= handoff.sent_tokens {
            return;
        }
        handoff.moving_tokens = ready - handoff.sent_tokens;
        let bytes = u64::from(handoff.moving_tokens) * self.spec.kv_bytes_per_token;
        record.bytes += bytes;
        record.began = record.began.min(now);
        let (from, to) = (record.from, record.to);
        self.network.send(now, id.0, from, to, bytes);
    }

    /// Something happens on the links. Appends requests whose KV is all there.
    pub fn advance(&mut self, now: Time, complete: &mut Vec<RequestId>) {
        if self.wake <= now {
            self.wake = Time::MAX;
        }
        let mut ended = Vec::new();
        self.network.advance(now, &mut ended);
        for tag in ended {
            let handoff = &mut self.all[tag as usize];
            handoff.sent_tokens += std::mem::take(&mut handoff.moving_tokens);
            let record = &mut handoff.record;
            if record.prefilled != Time::MAX && handoff.sent_tokens == handoff.missing_tokens {
                record.ended = now;
                complete.push(RequestId(tag));
            } else {
                self.proceed(now, RequestId(tag));
            }
        }
    }

    pub fn note_failure(&mut self, id: RequestId) {
        self.all[id.0 as usize].record.has_failed = true;
    }

    /// Whether KV is on the links.
    pub fn are_moving(&self) -> bool {
        self.network.next_event().is_some()
    }

    /// Asks to be told when something happens on the links.
    pub fn ask(&mut self, actions: &mut Vec<Action>) {
        if let Some(time) = self.network.next_event().filter(|&time| time < self.wake) {
            self.wake = time;
            actions.push(Action::At {
                time,
                event: Event::Links,
            });
        }
    }

    /// Handoffs that were begun, in the order of requests.
    pub fn records(&self) -> Vec<TransferRecord> {
        let all = self.all.iter().map(|handoff| handoff.record);
        all.filter(|record| record.from != NOBODY).collect()
    }
}
