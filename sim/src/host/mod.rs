//! Host memory that engines use themselves (SGLang's HiCache, TensorRT-LLM's secondary pool): how long its copies take, and what was moved.
//!
//! What is there and what moves, schedulers decide ([`engine::host_pool`]); a plan names the tokens that its step waits for.
//! KV written before a step holds it up. KV loaded for a step comes layer by layer while the layers before are computed: with L
//! layers, the longer of computing and loading runs through and the shorter adds the time of one layer. TensorRT-LLM waits for
//! all of it.
//!
//! Source: SGLang's HiCache design document, "Compute-Transfer Overlap"; `cache_controller.py` (`start_loading`).

// Model: a worker's PCIe carries a step's copies alone. Copies down, of a write-through policy, go the other way.
// Model: all layers take as long as each other, to compute and to load.

mod storage;

pub use storage::{PrefetchPolicy, StorageSpec};

use crate::cluster::PoolSpec;
use crate::event::{Action, Ran, WorkerId};
use crate::kvbm::runs::BlockRun;
use crate::kvbm::{FetchRecord, Kvbm, KvbmRecord, Speed, TierRecord};
use crate::worker::Worker;
use engine::host_pool::Copied;
use engine::kv_cache::Stretch;
use engine::{HostCopies, HostPool, RequestId, Scheduler, Span, Time, Workload};
use storage::Storage;

/// Host memory below the pools of each worker of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct HostSpec {
    /// Its size and what is copied there when.
    pub pool: HostPool,
    /// Between a worker's GPUs and it, all of them together: to the GPUs, from the GPUs.
    pub pcie: Speed,
    /// Size of the KV of one token, over all GPUs of a worker.
    pub kv_bytes_per_token: u64,
    /// Layers of the model, at least 1; 1 where a step begins when all is loaded.
    pub layers: u32,
    /// Behind it; one and the same for all pools that have one.
    pub storage: Option<StorageSpec>,
}

impl HostSpec {
    /// How long a step takes with its copies that takes `computing` without.
    #[must_use]
    pub fn step_time(&self, computing: Span, copies: HostCopies) -> Span {
        let writing = self.time(copies.written_tokens, self.pcie.write_bytes_per_s);
        let writing = match copies.written_tokens {
            0 => Span::ZERO,
            _ => self.pcie.write_latency + writing,
        };
        if copies.loaded_tokens == 0 {
            return writing + computing;
        }
        let loading = self.loading(copies.loaded_tokens);
        let (long, short) = (computing.max(loading), computing.min(loading));
        writing + long + Span(short.0 / u64::from(self.layers))
    }

    /// How long so many tokens take to come up.
    #[must_use]
    pub fn loading(&self, tokens: u32) -> Span {
        self.pcie.read_latency + self.time(tokens, self.pcie.read_bytes_per_s)
    }

    fn time(&self, tokens: u32, bytes_per_s: u64) -> Span {
        let bytes = u128::from(tokens) * u128::from(self.kv_bytes_per_token);
        let ps = (bytes * 1_000_000_000_000).div_ceil(u128::from(bytes_per_s));
        Span(u64::try_from(ps).expect("a copy is shorter than 213 days"))
    }
}

/// The host memory of all workers.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// By pool.
    specs: Vec<Option<HostSpec>>,
    loads: Vec<FetchRecord>,
    storage: Option<Storage>,
    /// Kept for their room.
    copied: Vec<Copied>,
    runs: Vec<BlockRun>,
    ended: Vec<(RequestId, u32)>,
}

impl Hosts {
    /// `None` if no pool has any.
    pub fn new(pools: &[PoolSpec], specs: &[Option<HostSpec>]) -> Option<Hosts> {
        assert!(
            pools.len() == specs.len(),
            "every pool has host memory or none"
        );
        let mut storages = specs.iter().flatten().filter_map(|spec| spec.storage);
        let storage = storages.next();
        assert!(
            storages.all(|other| Some(other) == storage),
            "there is one storage"
        );
        specs.iter().any(Option::is_some).then(|| Hosts {
            specs: specs.to_vec(),
            loads: Vec::new(),
            storage: storage.map(Storage::new),
            copied: Vec::new(),
            runs: Vec::new(),
            ended: Vec::new(),
        })
    }

    /// Whether a pool has a storage behind its host memory.
    pub fn prefetches(&self, pool: usize) -> bool {
        let spec = self.specs[pool].as_ref();
        spec.is_some_and(|spec| spec.storage.is_some())
    }

    /// Pages that the storage behind a pool holds of a prompt beyond the first `device` ones, at most up to page `limit`.
    fn stored(&self, pool: usize, path: &[Stretch], device: u32, limit: u32) -> u32 {
        let storage = self.storage.as_ref().filter(|_| self.prefetches(pool));
        storage.map_or(0, |storage| storage.holds(path, device, limit))
    }

    /// The storage, if this pool has one behind its host memory; and the size of a token's KV.
    fn storage_of(&mut self, pool: usize) -> Option<(&mut Storage, u64)> {
        let spec = self.specs[pool].as_ref()?;
        spec.storage?;
        Some((self.storage.as_mut()?, spec.kv_bytes_per_token))
    }

    /// A request has come to a worker.
    pub fn submitted(
        &mut self,
        now: Time,
        worker: &mut Worker,
        request: RequestId,
        workload: &Workload,
        actions: &mut Vec<Action>,
    ) {
        if let Some((storage, bytes)) = self.storage_of(worker.pool()) {
            storage.prefetch(now, worker, (request, bytes), workload, actions);
            storage.ask(actions);
        }
    }

    /// A worker is about to plan.
    pub fn before_plan(&mut self, now: Time, worker: &mut Worker) {
        if let Some((storage, _)) = self.storage_of(worker.pool()) {
            storage.report(now, worker);
        }
    }

    /// A worker has planned, or taken the results of a step: prefetches may have ended, and KV been copied down.
    pub fn after(&mut self, now: Time, worker: &mut Worker, actions: &mut Vec<Action>) {
        let (mut copied, mut runs) = (
            std::mem::take(&mut self.copied),
            std::mem::take(&mut self.runs),
        );
        let mut ended = std::mem::take(&mut self.ended);
        if let Some((storage, bytes)) = self.storage_of(worker.pool()) {
            let scheduler = worker.scheduler.as_sglang_mut();
            scheduler.take_prefetched(&mut ended);
            scheduler.take_copied(&mut copied);
            for ended in ended.drain(..) {
                storage.end(now, worker.id(), ended);
            }
            let run = |it: Copied| BlockRun {
                node: it.node,
                lo: it.lo,
                hi: it.hi,
            };
            runs.extend(copied.drain(..).map(run));
            if !runs.is_empty() {
                storage.offer(now, &runs, bytes * u64::from(worker.record.block_size));
                runs.clear();
            }
            storage.ask(actions);
        }
        (self.copied, self.runs, self.ended) = (copied, runs, ended);
    }

    /// Something may have happened on the links. Appends workers that may have something to plan now.
    pub fn advance(&mut self, now: Time, to_wake: &mut Vec<WorkerId>) {
        if let Some(storage) = &mut self.storage {
            storage.advance(now, to_wake);
        }
    }

    /// Asks to be told when something happens on the links.
    pub fn ask(&mut self, actions: &mut Vec<Action>) {
        if let Some(storage) = &mut self.storage {
            storage.ask(actions);
        }
    }

    pub fn of_pool(&self, pool: usize) -> Option<&HostSpec> {
        self.specs[pool].as_ref()
    }

    /// Steps of a worker ended, and it has not been told yet.
    pub fn note_ran(&mut self, worker: &Worker, ran: &Ran) {
        let Some(spec) = self.specs[worker.pool()].as_ref() else {
            return;
        };
        let plan = worker.scheduler().oldest().expect("only planned steps run");
        if plan.copies.loaded_tokens == 0 {
            return;
        }
        let writing = spec.step_time(
            Span::ZERO,
            HostCopies {
                loaded_tokens: 0,
                ..plan.copies
            },
        );
        let began = ran.start + writing;
        let ended = began + spec.loading(plan.copies.loaded_tokens);
        let loads = plan.admitted.iter().filter(|it| it.loaded_tokens > 0);
        self.loads.extend(loads.map(|admitted| FetchRecord {
            request: admitted.request,
            worker: ran.worker,
            began,
            ended,
            tokens: [
                admitted.loaded_tokens - admitted.stored_tokens,
                0,
                admitted.stored_tokens,
            ],
        }));
    }

    /// Enters what was done into the books, beside what other tiers did.
    pub fn finish(&mut self, workers: &[Worker], books: &mut KvbmRecord) {
        books.workers.resize(workers.len(), false);
        for (worker, has_tiers) in workers.iter().zip(&mut books.workers) {
            let Some(spec) = self.specs[worker.pool()].as_ref() else {
                continue;
            };
            *has_tiers = true;
            let used = worker.scheduler().host_use();
            let used = used.expect("its scheduler was given host memory");
            let page = u64::from(worker.record.block_size);
            let blocks = |tokens: u64| tokens / page;
            books.tiers.push(TierRecord {
                medium: 0,
                capacity_blocks: blocks(u64::from(spec.pool.tokens)),
                peak_blocks: blocks(u64::from(used.peak)),
                offloaded_blocks: blocks(used.written),
                offloaded_bytes: used.written * spec.kv_bytes_per_token,
                onboarded_blocks: blocks(used.loaded),
                onboarded_bytes: used.loaded * spec.kv_bytes_per_token,
                evicted_blocks: blocks(used.evicted),
                dropped_blocks: blocks(used.dropped),
                ..TierRecord::default()
            });
        }
        books
            .tiers
            .extend(self.storage.as_ref().map(Storage::closed_record));
        books.fetches.append(&mut self.loads);
        let order = |fetch: &FetchRecord| (fetch.ended, fetch.worker, fetch.request);
        books.fetches.sort_by_key(order);
    }
}

/// What lies below the GPUs of workers, for routers: in tiers, or in host memory of the engines' own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Below<'a> {
    kvbm: Option<&'a Kvbm>,
    hosts: Option<&'a Hosts>,
    /// Those that may have host memory.
    workers: &'a [Worker],
}

impl<'a> Below<'a> {
    /// `None` if there is nothing below.
    pub fn of(
        kvbm: Option<&'a Kvbm>,
        hosts: Option<&'a Hosts>,
        workers: &'a [Worker],
    ) -> Option<Self> {
        let workers = if hosts.is_some() { workers } else { &[] };
        (kvbm.is_some() || hosts.is_some()).then_some(Below {
            kvbm,
            hosts,
            workers,
        })
    }

    /// Blocks that lie below a worker's GPUs beyond the first `device` ones, at most up to block `limit`: in host memory, on
    /// disk, and, counted from `device` on as well, in an object store or, if `asks_storage`, in HiCache's storage.
    pub fn below(
        &self,
        worker: WorkerId,
        path: &[Stretch],
        (device, limit): (u32, u32),
        asks_storage: bool,
    ) -> [u32; 3] {
        let host = self.workers.get(worker.0 as usize);
        let host = host.filter(|worker| worker.scheduler().host_use().is_some());
        let Some(worker) = host else {
            let tiers = self
                .kvbm
                .map(|kvbm| kvbm.below(worker, path, device, limit));
            return tiers.unwrap_or_default();
        };
        let page = worker.record.block_size;
        let (tip, scheduler) = match (path.last(), worker.scheduler()) {
            (Some(tip), Scheduler::Sglang(scheduler)) => (tip, scheduler),
            (_, Scheduler::Trtllm(scheduler)) => {
                return [scheduler.host_blocks(path, device, limit), 0, 0];
            }
            _ => return [0; 3],
        };
        let (here, in_host) = scheduler.peek(tip.node, limit * page);
        // The router may be late: what it takes to be on the device is not counted again.
        let reach = (here + in_host) / page;
        let hosts = self.hosts.filter(|_| asks_storage);
        let stored = hosts.map_or(0, |hosts| hosts.stored(worker.pool(), path, device, limit));
        [reach.saturating_sub(device.max(here / page)), 0, stored]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::WritePolicy;

    const GB: u64 = 1_000_000_000;

    /// 1 MB per token, 1 GB/s up and 2 GB/s down, 1 ms before the first byte, ten layers.
    fn spec() -> HostSpec {
        HostSpec {
            pool: HostPool {
                tokens: 1_000,
                write_policy: WritePolicy::WriteThrough,
                has_storage: false,
            },
            pcie: Speed {
                read_bytes_per_s: GB,
                write_bytes_per_s: 2 * GB,
                read_latency: Span::from_ns(1_000_000),
                write_latency: Span::from_ns(1_000_000),
            },
            kv_bytes_per_token: 1_000_000,
            layers: 10,
            storage: None,
        }
    }

    fn step(computing_ms: u64, loaded_tokens: u32, written_tokens: u32) -> u64 {
        let copies = HostCopies {
            loaded_tokens,
            written_tokens,
        };
        let computing = Span::from_ns(computing_ms * 1_000_000);
        spec().step_time(computing, copies).0 / 1_000_000_000
    }

    #[test]
    fn the_longer_runs_through_and_the_shorter_adds_a_layer() {
        assert_eq!(step(50, 0, 0), 50);
        // 19 MB take 1 + 19 ms: hidden but for 2 ms.
        assert_eq!(step(50, 19, 0), 52);
        // 99 MB take 100 ms, computing adds 5.
        assert_eq!(step(50, 99, 0), 105);
        // 20 MB written at 2 GB/s: 1 + 10 ms before all else.
        assert_eq!(step(50, 0, 20), 61);
        assert_eq!(step(50, 19, 20), 63);
    }
}
