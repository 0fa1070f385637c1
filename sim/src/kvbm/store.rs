//! What a tier holds.
//!
//! Contents are places in the workload's prefix tree. Blocks of one node that came or were used together are one *run*
//! with one rank; a run is cut where a use ends inside it, and shrinks from its end when it is evicted. So a look-up costs
//! a few steps however long the prompt, and results are those of single blocks: of equal ranks the block furthest down the
//! sequence goes first, whether or not it is in a run with others.
//!
//! A block takes its room when it is *offered* and can be read when it has *arrived*; in between it cannot be evicted, and
//! is not offered again.
//!
//! Blocks may be pinned for a time: until then they are in no queue, and a tier full of them takes nothing new.

use super::eviction::{Eviction, Life, Rank};
use super::runs::BlockRun;
use engine::kv_cache::Stretch;
use engine::{NodeId, Time};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BTreeSet;

type RunId = u32;

/// The contents of one tier.
#[derive(Debug, Clone)]
pub struct Store {
    capacity: u64,
    eviction: Eviction,
    held: u64,
    peak: u64,
    runs: Vec<Run>,
    vacant: Vec<RunId>,
    /// Runs of each node, by their first block.
    by_node: FxHashMap<NodeId, Vec<RunId>>,
    /// What goes first on top; runs that have not arrived are not in it.
    queue: BTreeSet<(Rank, Reverse<u32>, RunId)>,
    /// Runs that have arrived and are pinned, by the time until when.
    pinned: BTreeSet<(Time, RunId)>,
    uses: u64,
    /// Highest class that was evicted.
    floor: u64,
    /// Kept for its room.
    missing: Vec<BlockRun>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    at: BlockRun,
    rank: Rank,
    life: Life,
    has_arrived: bool,
}

impl Run {
    fn key(&self, id: RunId) -> (Rank, Reverse<u32>, RunId) {
        (self.rank, Reverse(self.at.lo), id)
    }
}

/// What became of offered blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// Blocks that got room and are to arrive.
    pub taken: Vec<BlockRun>,
    /// Blocks that had to go.
    pub evicted: Vec<BlockRun>,
    /// Blocks that found no room.
    pub dropped_blocks: u64,
}

impl Store {
    /// An empty tier of so many blocks.
    #[must_use]
    pub fn new(capacity: u64, eviction: Eviction) -> Store {
        assert!(capacity > 0, "a tier has room for a block");
        Store {
            capacity,
            eviction,
            held: 0,
            peak: 0,
            runs: Vec::new(),
            vacant: Vec::new(),
            by_node: FxHashMap::default(),
            queue: BTreeSet::new(),
            pinned: BTreeSet::new(),
            uses: 0,
            floor: 0,
            missing: Vec::new(),
        }
    }

    /// Blocks it has room for.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Blocks that take up room, arrived or not.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Most blocks that took up room at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// How many blocks of the path can be read without a gap from block `from` on, none behind block `limit`.
    #[must_use]
    pub fn matched(&self, path: &[Stretch], from: u32, limit: u32) -> u32 {
        let mut at = from;
        let first = path.partition_point(|stretch| stretch.end <= from);
        for stretch in &path[first..] {
            let until = stretch.end.min(limit);
            while at < until {
                let Some(run) = self.run_at(stretch.node, at).filter(|run| run.has_arrived) else {
                    return at - from;
                };
                at = run.at.hi.min(until);
            }
        }
        at - from
    }

    /// Blocks are read: they count as used.
    pub fn touch(&mut self, now: Time, runs: impl Iterator<Item = BlockRun>, priority: i32) {
        self.uses += 1;
        for run in runs {
            self.use_run(now, run, priority);
        }
    }

    /// Blocks are offered that the tier above has. Those that are here count as used; the others get room, the first
    /// ones if there is not enough for all. What has to go for that is evicted.
    pub fn offer(&mut self, now: Time, runs: &[BlockRun], priority: i32) -> Offered {
        self.uses += 1;
        let mut missing = std::mem::take(&mut self.missing);
        for &run in runs {
            self.lacks(run, &mut missing);
            self.use_run(now, run, priority);
        }
        let mut offered = Offered::default();
        let wanted = super::runs::count(&missing);
        self.make_room(now, wanted, &mut offered.evicted);
        let life = Life {
            uses: 1,
            priority,
            last_used: now,
            pinned_until: Time::ZERO,
        };
        for mut run in missing.drain(..) {
            let room = self.capacity - self.held;
            let taken = run.blocks().min(room) as u32;
            offered.dropped_blocks += run.blocks() - u64::from(taken);
            run.hi = run.lo + taken;
            if taken > 0 {
                self.held += u64::from(taken);
                self.insert(Run {
                    at: run,
                    rank: Rank::default(),
                    life,
                    has_arrived: false,
                });
                offered.taken.push(run);
            }
        }
        self.missing = missing;
        self.peak = self.peak.max(self.held);
        offered
    }

    /// Blocks that were offered and taken are here.
    pub fn arrive(&mut self, now: Time, runs: &[BlockRun]) {
        self.uses += 1;
        for at in runs {
            let place = self.position(at.node, at.lo);
            let id = self.by_node[&at.node][place];
            let run = &mut self.runs[id as usize];
            assert!(
                !run.has_arrived && run.at == *at,
                "what was taken arrives as it is"
            );
            run.has_arrived = true;
            run.life.last_used = now;
            run.rank = self.eviction.rank(&run.life, self.uses, self.floor);
            self.enqueue(id);
        }
    }

    /// Appends those of the blocks that are neither here nor on their way.
    pub fn lacks(&self, run: BlockRun, missing: &mut Vec<BlockRun>) {
        let BlockRun { node, lo, hi } = run;
        let mut at = lo;
        if let Some(ids) = self.by_node.get(&node) {
            let first = ids.partition_point(|&id| self.runs[id as usize].at.hi <= lo);
            for &id in &ids[first..] {
                let held = self.runs[id as usize].at;
                if held.lo >= hi {
                    break;
                }
                if at < held.lo {
                    missing.push(BlockRun {
                        node,
                        lo: at,
                        hi: held.lo,
                    });
                }
                at = held.hi;
            }
        }
        if at < hi {
            missing.push(BlockRun { node, lo: at, hi });
        }
    }

    /// All blocks that have arrived, by node and index.
    #[must_use]
    pub fn contents(&self) -> Vec<(u32, u32)> {
        let queued = self.queue.iter().map(|&(_, _, id)| id);
        let pinned = self.pinned.iter().map(|&(_, id)| id);
        let runs = queued.chain(pinned).map(|id| self.runs[id as usize].at);
        let mut blocks: Vec<(u32, u32)> = runs
            .flat_map(|run| (run.lo..run.hi).map(move |block| (run.node.0, block)))
            .collect();
        blocks.sort_unstable();
        blocks
    }

    /// Gives blocks that are here a new rank.
    fn use_run(&mut self, now: Time, used: BlockRun, priority: i32) {
        let BlockRun { node, lo, hi } = used;
        let Some(ids) = self.by_node.get(&node) else {
            return;
        };
        let mut place = ids.partition_point(|&id| self.runs[id as usize].at.hi <= lo);
        while let Some(&id) = self.by_node[&node].get(place) {
            let run = self.runs[id as usize];
            if run.at.lo >= hi {
                break;
            }
            if !run.has_arrived {
                place += 1;
                continue;
            }
            if run.at.lo < lo {
                self.cut(place, id, lo);
                place += 1;
                continue;
            }
            if run.at.hi > hi {
                self.cut(place, id, hi);
            }
            self.dequeue(id);
            let run = &mut self.runs[id as usize];
            run.life = run.life.used(now, priority);
            run.rank = self.eviction.rank(&run.life, self.uses, self.floor);
            self.enqueue(id);
            if !self.join_before(place, id) {
                place += 1;
            }
        }
    }

    /// Blocks of these that are here stay until then. What is on its way is pinned with all that it travels with.
    pub fn pin(&mut self, runs: impl Iterator<Item = BlockRun>, until: Time) {
        for BlockRun { node, lo, hi } in runs {
            let Some(ids) = self.by_node.get(&node) else {
                continue;
            };
            let mut place = ids.partition_point(|&id| self.runs[id as usize].at.hi <= lo);
            while let Some(&id) = self.by_node[&node].get(place) {
                let run = self.runs[id as usize];
                if run.at.lo >= hi {
                    break;
                }
                place += 1;
                if run.has_arrived && run.at.lo < lo {
                    self.cut(place - 1, id, lo);
                    continue;
                }
                if run.has_arrived && run.at.hi > hi {
                    self.cut(place - 1, id, hi);
                }
                self.pin_run(id, until);
            }
        }
    }

    fn pin_run(&mut self, id: RunId, until: Time) {
        let has_arrived = self.runs[id as usize].has_arrived;
        if has_arrived {
            self.dequeue(id);
        }
        let life = &mut self.runs[id as usize].life;
        life.pinned_until = life.pinned_until.max(until);
        if has_arrived {
            self.enqueue(id);
        }
    }

    /// Lets go what was pinned until now.
    fn unpin(&mut self, now: Time) {
        while let Some(&(until, id)) = self.pinned.first()
            && until <= now
        {
            self.pinned.pop_first();
            self.runs[id as usize].life.pinned_until = Time::ZERO;
            self.enqueue(id);
        }
    }

    /// A run that has arrived joins the queue, or those that are pinned.
    fn enqueue(&mut self, id: RunId) {
        let run = self.runs[id as usize];
        match run.life.pinned_until {
            Time::ZERO => self.queue.insert(run.key(id)),
            until => self.pinned.insert((until, id)),
        };
    }

    fn dequeue(&mut self, id: RunId) {
        let run = self.runs[id as usize];
        match run.life.pinned_until {
            Time::ZERO => self.queue.remove(&run.key(id)),
            until => self.pinned.remove(&(until, id)),
        };
    }

    /// Joins a run with the one before it if nobody could tell them apart.
    fn join_before(&mut self, place: usize, id: RunId) -> bool {
        let run = self.runs[id as usize];
        let Some(before_place) = place.checked_sub(1) else {
            return false;
        };
        let ids = self
            .by_node
            .get_mut(&run.at.node)
            .expect("its node has runs");
        let before = &mut self.runs[ids[before_place] as usize];
        let is_alike = before.has_arrived
            && before.at.hi == run.at.lo
            && before.rank == run.rank
            && before.life == run.life;
        if is_alike {
            before.at.hi = run.at.hi;
            ids.remove(place);
            self.dequeue(id);
            self.vacant.push(id);
        }
        is_alike
    }

    /// Cuts a run that has arrived in front of block `at`.
    fn cut(&mut self, place: usize, id: RunId, at: u32) {
        let mut upper = self.runs[id as usize];
        debug_assert!(
            upper.at.lo < at && at < upper.at.hi,
            "both parts hold blocks"
        );
        upper.at.lo = at;
        self.runs[id as usize].at.hi = at;
        let new = self.add(upper);
        self.enqueue(new);
        let ids = self.by_node.get_mut(&upper.at.node);
        ids.expect("its node has runs").insert(place + 1, new);
    }

    /// Evicts until `wanted` blocks fit, or nothing more may go.
    fn make_room(&mut self, now: Time, wanted: u64, evicted: &mut Vec<BlockRun>) {
        self.unpin(now);
        while self.capacity - self.held < wanted {
            let Some(&(rank, _, id)) = self.queue.first() else {
                return;
            };
            let run = &mut self.runs[id as usize];
            if self.eviction.holds(&run.life, now) {
                return;
            }
            let lacking = wanted - (self.capacity - self.held);
            let gone = BlockRun {
                lo: run.at.hi - run.at.blocks().min(lacking) as u32,
                ..run.at
            };
            run.at.hi = gone.lo;
            self.held -= gone.blocks();
            self.floor = self.floor.max(rank.class);
            evicted.push(gone);
            if run.at.blocks() == 0 {
                let key = run.key(id);
                self.queue.remove(&key);
                self.forget(id);
            }
        }
    }

    fn forget(&mut self, id: RunId) {
        let at = self.runs[id as usize].at;
        let ids = self.by_node.get_mut(&at.node).expect("its node has runs");
        ids.retain(|&other| other != id);
        if ids.is_empty() {
            self.by_node.remove(&at.node);
        }
        self.vacant.push(id);
    }

    fn insert(&mut self, run: Run) {
        let place = self.position(run.at.node, run.at.lo);
        let id = self.add(run);
        self.by_node
            .entry(run.at.node)
            .or_default()
            .insert(place, id);
    }

    fn add(&mut self, run: Run) -> RunId {
        match self.vacant.pop() {
            Some(id) => {
                self.runs[id as usize] = run;
                id
            }
            None => {
                self.runs.push(run);
                (self.runs.len() - 1) as RunId
            }
        }
    }

    /// Where a run that begins with block `lo` stands among those of its node.
    fn position(&self, node: NodeId, lo: u32) -> usize {
        let ids = self.by_node.get(&node).map_or(&[][..], Vec::as_slice);
        ids.partition_point(|&id| self.runs[id as usize].at.lo < lo)
    }

    fn run_at(&self, node: NodeId, block: u32) -> Option<&Run> {
        let ids = self.by_node.get(&node)?;
        let place = ids.partition_point(|&id| self.runs[id as usize].at.hi <= block);
        let run = &self.runs[*ids.get(place)? as usize];
        (run.at.lo <= block).then_some(run)
    }
}
