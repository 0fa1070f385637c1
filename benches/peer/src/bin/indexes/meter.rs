//! Times by kind of operation, and what an index weighs.

use crate::stream::Op;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator with a count of the bytes in use.
pub struct Allocator;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What is done to an index.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Store,
    Remove,
    Query,
}

/// Questions of up to so many blocks stand in one column.
const DEPTHS: [usize; 4] = [128, 512, 2048, usize::MAX];

/// Times of one index.
#[derive(Debug)]
pub struct Meter {
    kinds: [Spent; 3],
    queries: [Spent; DEPTHS.len()],
    /// Blocks that all questions found.
    pub found: u64,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    calls: u32,
    time: Duration,
}

impl Default for Meter {
    /// Made when there is no index yet: what is in use then is not the index.
    fn default() -> Self {
        Meter {
            kinds: Default::default(),
            queries: Default::default(),
            found: 0,
            bytes: IN_USE.load(Ordering::Relaxed),
        }
    }
}

impl Meter {
    /// Times a call that concerns so many blocks.
    pub fn time<T>(&mut self, kind: Kind, blocks: usize, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let answer = black_box(call());
        let time = start.elapsed();
        self.kinds[kind as usize].add(time);
        if matches!(kind, Kind::Query) {
            let depth = DEPTHS.iter().position(|&depth| blocks <= depth);
            self.queries[depth.expect("the last is the greatest")].add(time);
        }
        answer
    }

    /// Takes what is in use beyond the beginning as the weight of the index, and drops that.
    pub fn weigh<Index>(mut self, index: Index) -> Meter {
        self.bytes = IN_USE.load(Ordering::Relaxed) - self.bytes;
        drop(index);
        self
    }

    pub fn print_head(ops: &[Op]) {
        let (mut stored, mut removed, mut asked) = (0, 0, 0);
        for op in ops {
            match op {
                Op::Store { blocks, .. } => stored += blocks.len(),
                Op::Remove { hashes, .. } => removed += hashes.len(),
                Op::Query { local, .. } => asked += local.len(),
            }
        }
        println!(
            "{} operations: {stored} blocks stored, {removed} removed, {asked} asked for",
            ops.len()
        );
        println!(
            "thousands per second        store   remove    query | query of up to 128, 512, 2048, more blocks |    all, s     MiB      found"
        );
    }

    pub fn print(&self, name: &str) {
        print!("{name:<27}");
        for spent in &self.kinds {
            print!(" {:>7.0}", spent.rate());
        }
        print!(" |");
        for spent in &self.queries {
            print!(" {:>8.0}", spent.rate());
        }
        let all: Duration = self.kinds.iter().map(|spent| spent.time).sum();
        let mib = self.bytes as f64 / (1 << 20) as f64;
        println!(
            "   | {:>9.3} {mib:>7.1} {:>10}",
            all.as_secs_f64(),
            self.found
        );
    }
}

impl Spent {
    fn add(&mut self, time: Duration) {
        self.calls += 1;
        self.time += time;
    }

    /// Thousands per second.
    fn rate(&self) -> f64 {
        f64::from(self.calls) / self.time.as_secs_f64() / 1e3
    }
}
