//! KVBM: KV that no longer fits the GPU (G1) is kept in host memory (G2), on disk (G3) or in an object store (G4).
//!
//! In words. *Offload:* when a worker has computed a prompt, and again when a request ends, the full blocks that it has
//! computed are copied down to the worker's first tier, if they are not there yet; blocks that arrive in a tier are offered to
//! the next one. A [filter](filter) in front of the disk lets only blocks pass that come a second time. A tier that is full
//! [evicts](eviction). With `on-evict` a block is copied down when it loses its place in the tier above instead.
//! *Onboarding:* when the scheduler looks at the head of its queue it asks, after its own cache, what follows in G2, behind
//! that in G3, then in G4. It gives the request its blocks and goes on with the queue; the KV is read from all these tiers
//! at once, and when the last byte is there the request takes a seat with that many tokens computed.
//!
//! [*Prefetch*](prefetch), an option: slower tiers are read into host memory while a request waits. A worker that decodes what others
//! prefill writes what it has to the object store, for those to read; it reads nothing itself.
//!
//! Host and disk belong to one worker, whose blocks nobody else reads; the object store is one for all workers. Copies share
//! [links] max-min fairly: a worker's PCIe each way, the disks of a node, the object store. Nothing is computed that can be
//! fetched, even where computing would be faster: so it is in KVBM.
//!
//! Blocks are places in the workload's prefix tree, in the engine's block size, and kept as [runs](store).
//!
//! Source: KVBM of Dynamo 1.2 (`block_manager/offload.rs`, its vLLM connector: `get_num_new_matched_tokens` with
//! asynchronous loading, `DYN_KVBM_*`).

// Model: a prompt is offered when it is computed and the answer when it ends; KVBM offers block by block. Blocks come to the
// tiers up to a prefill or an answer later, in which time G1 has them.
// Model: G1's blocks are free when their request ends; KVBM keeps them until their copy is over, some milliseconds later.
// Model: what is being read can be evicted meanwhile, and is read to the end; KVBM keeps it until it is read.
// Model: blocks of one offer are one transfer; KVBM makes batches and has 4 of them under way.
// Model: with on-evict the place of an evicted block is free at once; a real engine waits for the copy.

mod channels;
pub mod eviction;
pub mod filter;
mod offload;
mod onboard;
pub mod prefetch;
mod record;
pub mod runs;
pub mod spec;
pub mod store;

pub use eviction::Eviction;
pub use filter::FilterSpec;
pub(crate) use onboard::View;
pub use record::{FetchRecord, KvbmRecord, TierRecord};
pub use spec::{KvbmSpec, Medium, OffloadPolicy, Speed, TierSpec};

use crate::cluster::PoolSpec;
use crate::disaggregation::Role;
use crate::event::{Action, Event, WorkerId};
use crate::host::Below;
use crate::links::Fabric;
use crate::router::cost::Overlap;
use crate::router::indexer::Rank;
use channels::Channels;
use engine::kv_cache::Stretch;
use engine::{RequestId, Time};
use filter::FrequencyFilter;
use record::Fetch;
use runs::BlockRun;
use rustc_hash::FxHashMap;
use store::Store;

/// The tiers of all workers and what moves between them.
#[derive(Debug, Clone)]
pub(crate) struct Kvbm {
    /// By worker; none for workers without tiers.
    workers: Vec<Option<WorkerTiers>>,
    levels: Vec<Level>,
    fabric: Fabric,
    /// When the next [`Event::Links`] comes that was asked for; `Time::MAX` for none.
    wake: Time,
    moves: Vec<Move>,
    vacant: Vec<u32>,
    /// Requests that wait for KV.
    fetches: FxHashMap<RequestId, Fetch>,
    /// Tokens that a request was given at its first fetch.
    fetched_tokens: FxHashMap<RequestId, u32>,
    done: Vec<FetchRecord>,
    /// Kept for its room: a path, its blocks, flows that ended.
    path: Vec<Stretch>,
    blocks: Vec<BlockRun>,
    ended: Vec<u32>,
}

/// One worker's.
#[derive(Debug, Clone)]
struct WorkerTiers {
    block_size: u32,
    block_bytes: u64,
    offload: OffloadPolicy,
    prefetches: bool,
    /// Its blocks are for others to read: it decodes what others prefill.
    only_writes: bool,
    /// From the fastest to the slowest: which levels, and how they are reached.
    tiers: Vec<(usize, Channels)>,
}

/// One tier of one worker, or of all.
#[derive(Debug, Clone)]
struct Level {
    store: Store,
    filter: Option<FrequencyFilter>,
    record: TierRecord,
}

/// What a flow carries.
#[derive(Debug, Clone)]
enum Move {
    /// Blocks up to the GPU.
    Up(WorkerId, RequestId),
    /// Blocks down to the worker's tier of that rank, for a request of that priority.
    Down(WorkerId, usize, Vec<BlockRun>, i32),
    /// Blocks from slower tiers up to the worker's host memory.
    Raise(WorkerId, Vec<BlockRun>),
}

impl Kvbm {
    /// Empty tiers for the workers of pools that have any; `None` if no pool has.
    pub fn new(
        pools: &[PoolSpec],
        specs: &[Option<KvbmSpec>],
        roles: Option<&[Role]>,
    ) -> Option<Kvbm> {
        if specs.iter().all(Option::is_none) {
            return None;
        }
        let mut fabric = Fabric::default();
        let mut builder = channels::Builder::new(&mut fabric);
        let mut levels = Vec::new();
        let mut shared = None;
        let mut workers = Vec::new();
        for (at, (pool, spec)) in pools.iter().zip(specs).enumerate() {
            let decodes = roles.is_some_and(|roles| roles[at] == Role::Decode);
            let is_shared = |tier: &TierSpec| matches!(tier.medium, Medium::Object(_));
            assert!(
                !decodes || spec.iter().flat_map(|it| &it.tiers).all(is_shared),
                "what decode workers keep for themselves nobody reads"
            );
            for index in 0..pool.workers {
                let tiers = spec.as_ref().map(|spec| {
                    let channels = builder.of_worker(spec, index);
                    let mut level = |tier: &TierSpec| {
                        let new = levels.len();
                        match tier.medium {
                            Medium::Object(_) if shared.is_some() => return shared.unwrap_or(new),
                            Medium::Object(_) => shared = Some(new),
                            Medium::Host | Medium::Disk(_) => {}
                        }
                        levels.push(Level::new(tier));
                        new
                    };
                    let each = spec.tiers.iter().zip(channels);
                    WorkerTiers {
                        block_size: pool.engine.block_size(),
                        block_bytes: spec.kv_bytes_per_token * u64::from(pool.engine.block_size()),
                        offload: spec.offload,
                        prefetches: spec.prefetch && prefetch::can_prefetch(&media_of(spec)),
                        only_writes: decodes,
                        tiers: each.map(|(tier, how)| (level(tier), how)).collect(),
                    }
                });
                workers.push(tiers);
            }
        }
        Some(Kvbm {
            workers,
            levels,
            fabric,
            wake: Time::MAX,
            moves: Vec::new(),
            vacant: Vec::new(),
            fetches: FxHashMap::default(),
            fetched_tokens: FxHashMap::default(),
            done: Vec::new(),
            path: Vec::new(),
            blocks: Vec::new(),
            ended: Vec::new(),
        })
    }

    /// Whether a worker has tiers.
    pub fn serves(&self, worker: WorkerId) -> bool {
        self.workers[worker.0 as usize].is_some()
    }

    /// Whether a worker fetches from tiers.
    pub fn reads(&self, worker: WorkerId) -> bool {
        let tiers = self.workers[worker.0 as usize].as_ref();
        tiers.is_some_and(|tiers| !tiers.only_writes)
    }

    /// Whether a worker's tiers take what its cache evicts.
    pub fn wants_evicted(&self, worker: WorkerId) -> bool {
        let tiers = self.workers[worker.0 as usize].as_ref();
        tiers.is_some_and(|tiers| tiers.offload == OffloadPolicy::OnEvict)
    }

    fn tiers(&self, worker: WorkerId) -> &WorkerTiers {
        let tiers = self.workers[worker.0 as usize].as_ref();
        tiers.expect("only workers with tiers use them")
    }

    /// Something happens on the links. Appends requests whose KV is all there, with their workers.
    pub fn advance(&mut self, now: Time, arrived: &mut Vec<(WorkerId, RequestId)>) {
        if self.wake <= now {
            self.wake = Time::MAX;
        }
        let mut over = std::mem::take(&mut self.ended);
        self.fabric.advance(now, &mut over);
        for tag in over.drain(..) {
            let ended = Move::Up(WorkerId(u32::MAX), RequestId(u32::MAX));
            let ended = std::mem::replace(&mut self.moves[tag as usize], ended);
            self.vacant.push(tag);
            match ended {
                Move::Up(worker, request) => {
                    if self.part_arrived(now, request) {
                        arrived.push((worker, request));
                    }
                }
                Move::Raise(worker, blocks) => self.raised(now, worker, &blocks),
                Move::Down(worker, rank, blocks, priority) => {
                    self.sank(now, worker, rank, &blocks, priority);
                }
            }
        }
        self.ended = over;
    }

    /// Asks to be told when something happens on the links.
    pub fn ask(&mut self, actions: &mut Vec<Action>) {
        if let Some(time) = self.fabric.next_event().filter(|&time| time < self.wake) {
            self.wake = time;
            actions.push(Action::At {
                time,
                event: Event::Links,
            });
        }
    }

    fn name(&mut self, new: Move) -> u32 {
        match self.vacant.pop() {
            Some(tag) => {
                self.moves[tag as usize] = new;
                tag
            }
            None => {
                self.moves.push(new);
                (self.moves.len() - 1) as u32
            }
        }
    }

    /// Blocks that a worker's tiers hold beyond the first `device` ones, at most up to block `limit`: in host memory, then
    /// on disk; and in the object store, counted from `device` on as well.
    pub fn below(&self, worker: WorkerId, path: &[Stretch], device: u32, limit: u32) -> [u32; 3] {
        let mut found = [0; 3];
        let Some(tiers) = &self.workers[worker.0 as usize] else {
            return found;
        };
        let mut at = device;
        for &(level, _) in &tiers.tiers {
            let Level { store, record, .. } = &self.levels[level];
            let kind = record.medium;
            let from = if kind == 2 { device } else { at };
            found[kind] = store.matched(path, from, limit);
            at += found[kind];
        }
        found
    }

    /// What was done, for the books.
    pub fn finish(&mut self) -> KvbmRecord {
        let moves_nothing = self.fetches.is_empty();
        let level = |level: &Level| TierRecord {
            peak_blocks: level.store.peak(),
            ..level.record
        };
        for level in &self.levels {
            let store = &level.store;
            assert!(
                store.held() <= store.capacity(),
                "a tier holds no more than fits"
            );
        }
        KvbmRecord {
            tiers: self.levels.iter().map(level).collect(),
            workers: self.workers.iter().map(Option::is_some).collect(),
            fetches: std::mem::take(&mut self.done),
            is_settled: moves_nothing,
        }
    }
}

fn media_of(spec: &KvbmSpec) -> Vec<Medium> {
    spec.tiers.iter().map(|tier| tier.medium).collect()
}

impl Level {
    fn new(tier: &TierSpec) -> Level {
        Level {
            store: Store::new(tier.blocks, tier.eviction),
            filter: tier.filter.map(FrequencyFilter::new),
            record: TierRecord {
                medium: tier.medium.index(),
                capacity_blocks: tier.blocks,
                ..TierRecord::default()
            },
        }
    }
}

/// What a router sees of the tiers of its workers.
#[derive(Debug, Clone, Copy)]
pub struct TiersInView<'a> {
    pub(crate) below: Below<'a>,
    /// By place.
    pub(crate) workers: &'a [WorkerId],
}

impl TiersInView<'_> {
    /// Adds to what workers have of a prompt on their GPUs what they have below, up to block `limit`; what a storage shared
    /// by all has, too, if `asks_storage`.
    // Model: the router hears of tiers at once, whatever way its KV events take.
    pub(crate) fn extend(
        &self,
        path: &[Stretch],
        limit: u32,
        asks_storage: bool,
        overlap: &mut Vec<(Rank, Overlap)>,
    ) {
        let mut all = vec![Overlap::default(); self.workers.len()];
        for (rank, found) in overlap.drain(..) {
            all[rank as usize] = found;
        }
        for ((rank, mut found), &worker) in (0..).zip(all).zip(self.workers) {
            let [host, disk, shared] =
                self.below
                    .below(worker, path, (found.device, limit), asks_storage);
            (found.host, found.disk, found.shared) = (host, disk, shared);
            if found != Overlap::default() {
                overlap.push((rank, found));
            }
        }
    }
}
