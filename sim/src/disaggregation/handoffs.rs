//! Requests between their two workers: who has what, and what can be moved now.
//!
//! A transfer starts when there are blocks to put it into and something to move: the whole prompt once it is computed or,
//! if blocks were reserved before, what its chunks have completed so far. Of one request one part moves at a time; what is
//! completed meanwhile moves next.
//!
//! Layer by layer, what a step computes begins to move when its first layer is done, no faster than the layers come: a source
//! of (bytes of the step) / (time of the step), which leaves the last layer's share to be moved when the step ends. Then the
//! source is taken away.

use super::{DisaggregationSpec, HandoffOrder, Overlap, TransferRecord};
use crate::event::{Action, Event, WorkerId};
use crate::links::{LinkUse, Network, NewTransfer};
use crate::scaling::weights;
use engine::{RequestId, Reserved, Span, StepPlan, Time};
use std::collections::VecDeque;

/// All handoffs of a run.
#[derive(Debug, Clone)]
pub(crate) struct Handoffs {
    pub spec: DisaggregationSpec,
    network: Network,
    block_size: u32,
    /// By request; blank until a worker was chosen.
    all: Vec<Handoff>,
    /// Prompts that wait for a decode worker that is gone, and until when.
    unread: VecDeque<(Time, RequestId)>,
    /// Prompts in the order in which they were computed, and until when they have to be read; `None` where nobody gives up.
    to_be_read: Option<VecDeque<(Time, RequestId)>>,
    /// Places whose weights have come over the same links.
    pub loaded: Vec<WorkerId>,
    /// When the next [`Event::Links`] comes that was asked for; `Time::MAX` for none.
    wake: Time,
}

/// Where a handover stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No prefill worker is chosen.
    Unplaced,
    /// A prefill worker is, and has not computed all of the prompt.
    Computing,
    /// The prompt is computed, and not all of it is where it is to be.
    Computed,
    /// The prefill worker has no part in it any more.
    Over,
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
    /// Nothing more is moved of it: the prompt is lost, or nobody wants it.
    is_abandoned: bool,
    /// The step that computes it now, where that is looked at.
    step: Option<Step>,
}

/// A step that computes a part of a prompt.
#[derive(Debug, Clone, Copy)]
struct Step {
    began: Time,
    lasts: Span,
    /// Tokens that can be moved when it is over.
    ready_tokens: u32,
}

/// A part of a transfer that can begin.
#[derive(Debug, Clone, Copy)]
struct Part {
    tokens: u32,
    delay: Span,
    source: Option<u64>,
}

const NOBODY: WorkerId = WorkerId(u32::MAX);
/// How long a prompt waits to be read: vLLM's `VLLM_NIXL_ABORT_REQUEST_TIMEOUT`.
pub const UNREAD_FOR: Span = Span(480_000_000_000_000);

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
            is_abandoned: false,
            step: None,
        };
        Handoffs {
            network: Network::new(spec.network, spec.topology.as_ref(), gpus),
            spec,
            block_size,
            all: (0..requests).map(blank).collect(),
            unread: VecDeque::new(),
            to_be_read: None,
            loaded: Vec::new(),
            wake: Time::MAX,
        }
    }

    pub fn stage(&self, id: RequestId) -> Stage {
        let handoff = &self.all[id.0 as usize];
        let record = &handoff.record;
        match (record.from, record.prefilled) {
            _ if handoff.is_abandoned || record.ended != Time::MAX => Stage::Over,
            (NOBODY, _) => Stage::Unplaced,
            (_, Time::MAX) => Stage::Computing,
            _ => Stage::Computed,
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

    /// Whether the beginnings of steps are to be told.
    pub fn wants_beginnings(&self) -> bool {
        self.layers().is_some()
    }

    /// Layers that move one by one.
    fn layers(&self) -> Option<u32> {
        match self.spec.overlap {
            Overlap::Layer(layers)
                if self.spec.order == HandoffOrder::DestinationFirst && layers > 1 =>
            {
                Some(layers)
            }
            _ => None,
        }
    }

    /// A step of a prefill worker begins, and will last so long.
    pub fn begins(&mut self, now: Time, plan: &StepPlan, lasts: Span) {
        for part in &plan.scheduled {
            let id = part.request;
            let computed = part.computed_before + part.new_tokens;
            let whole = computed / self.block_size * self.block_size;
            let handoff = &mut self.all[id.0 as usize];
            let ready_tokens = if part.samples {
                handoff.missing_tokens
            } else {
                whole.saturating_sub(handoff.record.hit_tokens)
            };
            handoff.step = Some(Step {
                began: now,
                lasts,
                ready_tokens,
            });
            self.proceed(now, id);
        }
    }

    /// So many prompt tokens are computed.
    pub fn computed(&mut self, now: Time, id: RequestId, tokens: u32) {
        if self.spec.order == HandoffOrder::DestinationFirst && self.spec.overlap != Overlap::None {
            self.all[id.0 as usize].computed_tokens = tokens;
            self.step_is_over(now, id);
            self.proceed(now, id);
        }
    }

    /// All prompt tokens are computed. True if all of them are where they are to be: their layers came as they should have
    /// been computed, and the step hung.
    pub fn prefilled(&mut self, now: Time, id: RequestId) -> bool {
        self.all[id.0 as usize].record.prefilled = now;
        if let Some(queue) = &mut self.to_be_read {
            queue.push_back((now + UNREAD_FOR, id));
        }
        self.step_is_over(now, id);
        self.proceed(now, id);
        let handoff = &mut self.all[id.0 as usize];
        let is_there = handoff.record.reserved != Time::MAX
            && handoff.moving_tokens == 0
            && handoff.sent_tokens == handoff.missing_tokens;
        if is_there {
            handoff.record.ended = now;
        }
        is_there
    }

    fn step_is_over(&mut self, now: Time, id: RequestId) {
        let step = self.all[id.0 as usize].step.take();
        if step.is_some() {
            self.network.unbind(now, id.0);
        }
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
        if record.reserved == Time::MAX || handoff.moving_tokens > 0 || handoff.is_abandoned {
            return;
        }
        let ready = if record.prefilled != Time::MAX {
            handoff.missing_tokens
        } else {
            let whole = handoff.computed_tokens / self.block_size * self.block_size;
            whole.saturating_sub(record.hit_tokens)
        };
        let sent = handoff.sent_tokens;
        let is_there = Part {
            tokens: ready.saturating_sub(sent),
            delay: Span::ZERO,
            source: None,
        };
        let part = Some(is_there).filter(|part| part.tokens > 0);
        if let Some(part) = part.or_else(|| self.layer_by_layer(now, id)) {
            self.move_on(now, id, part);
        }
    }

    /// What the step that runs brings of a request, if that moves layer by layer.
    fn layer_by_layer(&self, now: Time, id: RequestId) -> Option<Part> {
        let layers = u128::from(self.layers()?);
        let handoff = &self.all[id.0 as usize];
        let step = handoff.step?;
        let tokens = step.ready_tokens.saturating_sub(handoff.sent_tokens);
        let first = step.began + Span((u128::from(step.lasts.0) / layers) as u64);
        let from = now.max(first);
        let end = step.began + step.lasts;
        if tokens == 0 || from >= end {
            return None;
        }
        // All but the last layer has come at the end of the step.
        let bytes = u128::from(tokens) * u128::from(self.spec.kv_bytes_per_token);
        let coming = bytes * (layers - 1) / layers;
        let rate = coming * 1_000_000_000_000 / u128::from(end.since(from).0);
        Some(Part {
            tokens,
            delay: from.since(now),
            source: Some(u64::try_from(rate).unwrap_or(u64::MAX).max(1)),
        })
    }

    fn move_on(&mut self, now: Time, id: RequestId, part: Part) {
        let handoff = &mut self.all[id.0 as usize];
        let record = &mut handoff.record;
        let bytes = u64::from(part.tokens) * self.spec.kv_bytes_per_token;
        handoff.moving_tokens = part.tokens;
        record.bytes += bytes;
        record.began = record.began.min(now + part.delay);
        let transfer = NewTransfer {
            tag: id.0,
            from: record.from,
            to: record.to,
            bytes,
            delay: part.delay,
            source: part.source,
        };
        self.network.send(now, transfer);
    }

    /// Its decode worker is gone: the prefill worker waits to be read, and gives up after a while.
    pub fn stays_unread(&mut self, now: Time, id: RequestId) {
        self.unread.push_back((now + UNREAD_FOR, id));
    }

    /// The next prompt that has waited long enough to be read, and its prefill worker.
    pub fn next_unread(&mut self, now: Time) -> Option<(RequestId, WorkerId)> {
        let (_, id) = self.unread.pop_front_if(|(until, _)| *until <= now)?;
        Some((id, self.ends_of(id).0))
    }

    /// From now on prompts have to be read within [`UNREAD_FOR`].
    pub fn limit_reads(&mut self) {
        self.to_be_read = Some(VecDeque::new());
    }

    /// The next prompt that was not read in time.
    pub fn next_overdue(&mut self, now: Time) -> Option<RequestId> {
        let queue = self.to_be_read.as_mut()?;
        let (_, id) = queue.pop_front_if(|(until, _)| *until <= now)?;
        match self.stage(id) {
            Stage::Computed => Some(id),
            _ => self.next_overdue(now),
        }
    }

    /// When the first prompt that waits to be read has waited for long enough.
    fn first_limit(&mut self) -> Option<Time> {
        loop {
            let &(until, id) = self.to_be_read.as_ref()?.front()?;
            if self.stage(id) == Stage::Computed {
                return Some(until);
            }
            self.to_be_read.as_mut()?.pop_front();
        }
    }

    /// A worker is gone: nothing waits there to be read, and who comes back gets acquainted anew.
    pub fn forget(&mut self, worker: WorkerId) {
        let all = &self.all;
        (self.unread).retain(|(_, id)| all[id.0 as usize].record.from != worker);
        self.network.forget(worker);
    }

    /// Something happens on the links. Appends requests whose KV is all there.
    pub fn advance(&mut self, now: Time, complete: &mut Vec<RequestId>) {
        if self.wake <= now {
            self.wake = Time::MAX;
        }
        let mut ended = Vec::new();
        self.network.advance(now, &mut ended);
        for tag in ended {
            if tag as usize >= self.all.len() {
                self.loaded.push(weights::place_of(tag));
                continue;
            }
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

    /// Handovers that are not over and of which a worker has a part.
    pub fn unfinished_of(&self, worker: WorkerId) -> Vec<RequestId> {
        let all = self.all.iter().map(|handoff| handoff.record);
        let meant = all.filter(|it| it.from == worker || it.to == worker);
        let is_open = |id: &RequestId| self.stage(*id) != Stage::Over;
        meant.map(|record| record.request).filter(is_open).collect()
    }

    /// Whether nothing of it will come.
    pub fn is_abandoned(&self, id: RequestId) -> bool {
        self.all[id.0 as usize].is_abandoned
    }

    /// Ends what moves, for good.
    pub fn abandon(&mut self, now: Time, id: RequestId) {
        let handoff = &mut self.all[id.0 as usize];
        handoff.is_abandoned = true;
        handoff.step = None;
        let tokens = std::mem::take(&mut handoff.moving_tokens);
        if tokens > 0 {
            handoff.record.bytes -= u64::from(tokens) * self.spec.kv_bytes_per_token;
            self.network.cancel(now, id.0);
        }
    }

    /// The decode worker computes it after all.
    pub fn give_up(&mut self, now: Time, id: RequestId) {
        let record = &mut self.all[id.0 as usize].record;
        record.began = record.began.min(now);
        record.prefilled = record.prefilled.min(now);
        record.ended = now;
        record.has_failed = true;
    }

    pub fn note_failure(&mut self, id: RequestId) {
        self.all[id.0 as usize].record.has_failed = true;
    }

    /// Whether KV is on the links, or stands still on some.
    pub fn are_moving(&self) -> bool {
        self.network.is_busy()
    }

    /// The links between all workers. Who changes something there asks for them anew.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Asks to be told when something happens on the links, or somebody has waited for long enough.
    pub fn ask(&mut self, actions: &mut Vec<Action>) {
        let unread = self.unread.front().map(|(until, _)| *until);
        let limit = self.first_limit();
        let next = self.network.next_event().into_iter();
        let next = next.chain(unread).chain(limit).min();
        if let Some(time) = next.filter(|&time| time < self.wake) {
            self.wake = time;
            actions.push(Action::At {
                time,
                event: Event::Links,
            });
        }
    }

    /// What each link did.
    pub fn links(&self) -> Vec<LinkUse> {
        self.network.links()
    }

    /// Handoffs that were begun, in the order of requests.
    pub fn records(&self) -> Vec<TransferRecord> {
        let all = self.all.iter().map(|handoff| handoff.record);
        all.filter(|record| record.from != NOBODY).collect()
    }
}
