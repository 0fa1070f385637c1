//! HiCache's third level: a storage behind the host memory of all workers, and what is prefetched from it.
//!
//! In words: what a worker copies to host memory is written on to the storage, unless it is there. When a request comes to a
//! worker, what the storage has of its prompt behind what the worker has is counted; from a threshold on it is read into host
//! memory while the request waits. When the request is tried, a *best effort* ends with what has arrived by then, *wait complete*
//! lets others pass until all is there, *timeout* does so up to a time that grows with the tokens. Pages arrive in batches; a
//! batch that is not complete when a prefetch ends is lost.
//!
//! The storage is one for all workers; reads share its bandwidth max-min fairly, and so do writes.
//!
//! Source: SGLang 0.5.6, `cache_controller.py` (`prefetch_thread_func`, `_page_transfer`, `storage_batch_size`), `hiradix_cache.py`
//! (`can_terminate_prefetch`).

// Model: to ask the storage what it has takes no time, and host memory is taken for what is there alone; the real one takes it for
// the whole prompt until it knows.
// Model: KV is written to the storage when the copy to host memory begins, tens of milliseconds before that is there.

use crate::event::{Action, Event, WorkerId};
use crate::kvbm::runs::{self, BlockRun, runs_of};
use crate::kvbm::store::Store;
use crate::kvbm::{Eviction, Speed, TierRecord};
use crate::links::{Fabric, FlowId, LinkId, NewFlow};
use crate::worker::Worker;
use engine::kv_cache::{Stretch, block_path};
use engine::{RequestId, Span, Time, Workload};
use std::collections::BTreeMap;

/// A storage and how it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StorageSpec {
    /// Pages that fit, for all workers together.
    pub pages: u64,
    /// Of the storage, for all workers together.
    pub speed: Speed,
    /// When a prefetch ends.
    pub policy: PrefetchPolicy,
    /// Fewer tokens are not prefetched.
    pub threshold_tokens: u32,
}

/// When a prefetch ends (`--hicache-storage-prefetch-policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrefetchPolicy {
    /// When its request could be computed.
    #[default]
    BestEffort,
    /// When all is there.
    WaitComplete,
    /// When all is there, or so long after its begin.
    Timeout {
        /// For any prefetch.
        base: Span,
        /// For each 1,024 tokens.
        per_ki_token: Span,
    },
}

/// Pages read at a time.
const BATCH_PAGES: u64 = 128;

/// The storage, and what is on its way.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    spec: StorageSpec,
    store: Store,
    fabric: Fabric,
    read: LinkId,
    write: LinkId,
    wake: Time,
    moves: Vec<Option<Move>>,
    vacant: Vec<u32>,
    /// Prefetches that have not ended, by worker and request.
    prefetches: BTreeMap<(WorkerId, RequestId), Running>,
    pub record: TierRecord,
    path: Vec<Stretch>,
    ended: Vec<u32>,
}

#[derive(Debug, Clone)]
enum Move {
    Read(WorkerId, RequestId),
    Write(Vec<BlockRun>),
}

/// A prefetch under way, or one that waits to be used.
#[derive(Debug, Clone, Copy)]
struct Running {
    /// `None` once all is there.
    flow: Option<(FlowId, u32)>,
    tokens: u32,
    page_bytes: u64,
    page_size: u32,
    deadline: Time,
}

impl Storage {
    pub fn new(spec: StorageSpec) -> Storage {
        let mut fabric = Fabric::default();
        Storage {
            store: Store::new(spec.pages, Eviction::Lru),
            read: fabric.add_link(spec.speed.read_bytes_per_s),
            write: fabric.add_link(spec.speed.write_bytes_per_s),
            fabric,
            wake: Time::MAX,
            moves: Vec::new(),
            vacant: Vec::new(),
            prefetches: BTreeMap::new(),
            record: TierRecord {
                medium: 2,
                capacity_blocks: spec.pages,
                ..TierRecord::default()
            },
            path: Vec::new(),
            ended: Vec::new(),
            spec,
        }
    }

    /// Pages of a prompt that are there, from page `first` on without a gap, at most up to page `limit`.
    pub fn holds(&self, path: &[Stretch], first: u32, limit: u32) -> u32 {
        self.store.matched(path, first, limit)
    }

    /// A request has come to a worker and waits: what the storage has of its prompt is sent for.
    pub fn prefetch(
        &mut self,
        now: Time,
        worker: &mut Worker,
        (request, bytes_per_token): (RequestId, u64),
        workload: &Workload,
        actions: &mut Vec<Action>,
    ) {
        let page_size = worker.record.block_size;
        let asked = workload.requests[request.0 as usize];
        let scheduler = worker.scheduler.as_sglang_mut();
        let from = scheduler.local_match(request);
        // The last token is computed in any case.
        let limit = (asked.input_tokens - 1) / page_size;
        let first = from / page_size;
        let wanted = (limit.saturating_sub(first)) * page_size;
        if wanted < self.spec.threshold_tokens.max(1) {
            return;
        }
        block_path(&workload.tree, asked.leaf, page_size, &mut self.path);
        let pages = self.store.matched(&self.path, first, limit);
        let tokens = pages * page_size;
        if pages == 0
            || tokens < self.spec.threshold_tokens
            || !scheduler.expect(request, from, tokens)
        {
            return;
        }
        let read = runs_of(&self.path, first, first + pages);
        self.store.touch(now, read, asked.priority);
        let bytes = u64::from(tokens) * bytes_per_token;
        let id = worker.id();
        let tag = self.name(Move::Read(id, request));
        let flow = self.fabric.start(
            now,
            NewFlow {
                tag,
                path: &[self.read],
                bytes,
                delay: self.spec.speed.read_latency,
            },
        );
        let deadline = match self.spec.policy {
            PrefetchPolicy::BestEffort => now,
            PrefetchPolicy::WaitComplete => Time::MAX,
            PrefetchPolicy::Timeout { base, per_ki_token } => {
                let more = u128::from(per_ki_token.0) * u128::from(tokens) / 1024;
                let more = u64::try_from(more).expect("a timeout is shorter than 213 days");
                let time = now + base + Span(more);
                actions.push(Action::At {
                    time,
                    event: Event::Links,
                });
                time
            }
        };
        let running = Running {
            flow: Some((flow, tag)),
            tokens,
            page_bytes: u64::from(page_size) * bytes_per_token,
            page_size,
            deadline,
        };
        let before = self.prefetches.insert((id, request), running);
        assert!(before.is_none(), "a request is prefetched once");
    }

    /// A worker is about to plan: its scheduler hears how far prefetches are.
    pub fn report(&self, now: Time, worker: &mut Worker) {
        let of_worker = (worker.id(), RequestId(0))..=(worker.id(), RequestId(u32::MAX));
        for (&(_, request), running) in self.prefetches.range(of_worker) {
            let arrived = match running.flow {
                None => running.tokens,
                Some((flow, _)) => {
                    let pages = self.fabric.carried(now, flow) / running.page_bytes;
                    (pages / BATCH_PAGES * BATCH_PAGES) as u32 * running.page_size
                }
            };
            let may_end = running.flow.is_none() || now >= running.deadline;
            let scheduler = worker.scheduler.as_sglang_mut();
            scheduler.note_arrived(request, arrived, may_end);
        }
    }

    /// A prefetch was ended by the scheduler, with so many tokens.
    pub fn end(&mut self, now: Time, worker: WorkerId, (request, tokens): (RequestId, u32)) {
        let running = self.prefetches.remove(&(worker, request));
        let running = running.expect("only what was begun ends");
        if let Some((flow, tag)) = running.flow {
            self.fabric.cancel(now, flow);
            self.moves[tag as usize] = None;
            self.vacant.push(tag);
        }
        let pages = u64::from(tokens / running.page_size);
        self.record.prefetched_blocks += pages;
        self.record.prefetched_bytes += pages * running.page_bytes;
    }

    /// A worker copies pages to host memory: those that the storage lacks are written there.
    pub fn offer(&mut self, now: Time, pages: &[BlockRun], page_bytes: u64) {
        let offered = self.store.offer(now, pages, 0);
        self.record.evicted_blocks += runs::count(&offered.evicted);
        self.record.dropped_blocks += offered.dropped_blocks;
        let taken = runs::count(&offered.taken);
        if taken == 0 {
            return;
        }
        self.record.offloaded_blocks += taken;
        self.record.offloaded_bytes += taken * page_bytes;
        let tag = self.name(Move::Write(offered.taken));
        self.fabric.start(
            now,
            NewFlow {
                tag,
                path: &[self.write],
                bytes: taken * page_bytes,
                delay: self.spec.speed.write_latency,
            },
        );
    }

    /// Something may have happened. Appends workers with a request that may go on now.
    pub fn advance(&mut self, now: Time, to_wake: &mut Vec<WorkerId>) {
        if self.wake <= now {
            self.wake = Time::MAX;
        }
        let mut over = std::mem::take(&mut self.ended);
        self.fabric.advance(now, &mut over);
        for tag in over.drain(..) {
            self.vacant.push(tag);
            match self.moves[tag as usize].take().expect("a flow has a name") {
                Move::Read(worker, request) => {
                    let running = self.prefetches.get_mut(&(worker, request));
                    running.expect("it was under way").flow = None;
                }
                Move::Write(pages) => self.store.arrive(now, &pages),
            }
        }
        self.ended = over;
        let may_end = |running: &Running| running.flow.is_none() || running.deadline <= now;
        let waiting = self
            .prefetches
            .iter()
            .filter(|(_, running)| may_end(running));
        to_wake.extend(waiting.map(|(&(worker, _), _)| worker));
        to_wake.dedup();
    }

    /// Asks to be told when something happens.
    pub fn ask(&mut self, actions: &mut Vec<Action>) {
        if let Some(time) = self.fabric.next_event().filter(|&time| time < self.wake) {
            self.wake = time;
            actions.push(Action::At {
                time,
                event: Event::Links,
            });
        }
    }

    /// What was done, for the books.
    pub fn closed_record(&self) -> TierRecord {
        TierRecord {
            peak_blocks: self.store.peak(),
            ..self.record
        }
    }

    fn name(&mut self, new: Move) -> u32 {
        match self.vacant.pop() {
            Some(tag) => {
                self.moves[tag as usize] = Some(new);
                tag
            }
            None => {
                self.moves.push(Some(new));
                (self.moves.len() - 1) as u32
            }
        }
    }
}
