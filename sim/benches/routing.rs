//! The cost of one placement over the number of workers.
//!
//! `cargo bench -p sim --bench routing`
//!
//! A router in front of workers with four requests each takes 1,000 more; for each that comes the oldest ends, so the load
//! stays. The time is per request: placed, its first token, its end, and what its worker tells of its prompt. Sessions have
//! four turns. In `kv` no prompt has a beginning in common with those of other sessions, in `kv_common_prompt` all begin with
//! the same 512 tokens, so that every worker holds something of every request, and in `kv_scan` a temperature of 0.1 makes
//! the router weigh each worker.

use divan::Bencher;
use divan::counter::ItemsCount;
use engine::kv_cache::{KvEvent, block_path};
use engine::{RequestId, Time, Workload};
use sim::RouterSpec;
use sim::event::WorkerId;
use sim::router::min_tree::MinTree;
use sim::router::{Candidate, Fleet, KvRouterSpec, Placement, Router};
use std::collections::VecDeque;
use std::sync::Arc;
use traces::synth::{FollowUp, SessionKind, SystemPrompts, TurnOrder};
use traces::{Lengths, SynthSpec};

const WORKERS: [u32; 5] = [8, 64, 512, 1000, 4096];
const REQUESTS: u32 = 1000;
/// Requests under way per worker.
const LOAD: u32 = 4;
const BLOCK_SIZE: u32 = 16;

fn main() {
    divan::main();
}

#[divan::bench(args = WORKERS)]
fn least_loaded(bencher: Bencher<'_, '_>, workers: u32) {
    measure(bencher, RouterSpec::LeastLoaded, workers, false);
}

#[divan::bench(args = WORKERS)]
fn kv(bencher: Bencher<'_, '_>, workers: u32) {
    measure(
        bencher,
        RouterSpec::Kv(KvRouterSpec::default()),
        workers,
        false,
    );
}

#[divan::bench(args = WORKERS)]
fn kv_common_prompt(bencher: Bencher<'_, '_>, workers: u32) {
    measure(
        bencher,
        RouterSpec::Kv(KvRouterSpec::default()),
        workers,
        true,
    );
}

#[divan::bench(args = WORKERS)]
fn kv_scan(bencher: Bencher<'_, '_>, workers: u32) {
    let spec = KvRouterSpec {
        router_temperature: 0.1,
        ..KvRouterSpec::default()
    };
    measure(bencher, RouterSpec::Kv(spec), workers, false);
}

fn measure(bencher: Bencher<'_, '_>, spec: RouterSpec, workers: u32, common_prompt: bool) {
    let before = workers * LOAD;
    let workload = Arc::new(workload(before + REQUESTS, common_prompt));
    let mut front = Front::new(spec, workers, workload);
    for _ in 0..before {
        front.place();
    }
    bencher
        .counter(ItemsCount::new(REQUESTS))
        .with_inputs(|| front.clone())
        .bench_local_values(|mut front| {
            for _ in 0..REQUESTS {
                front.end_oldest();
                front.place();
            }
            front
        });
}

fn workload(requests: u32, common_prompt: bool) -> Workload {
    let spec = SynthSpec {
        requests,
        duration_s: Some(600.0),
        block_size: 64,
        system_prompts: match common_prompt {
            true => vec![SystemPrompts {
                count: 1,
                zipf_exponent: 0.0,
                share: 1.0,
                tokens: Lengths::Fixed(512),
            }],
            false => Vec::new(),
        },
        sessions: vec![SessionKind {
            weight: 1.0,
            first_input_tokens: Lengths::Uniform {
                min: 200,
                max: 2000,
            },
            output_tokens: Lengths::Fixed(200),
            turns: Lengths::Fixed(4),
            follow_ups: vec![FollowUp::Append {
                weight: 1.0,
                user_tokens: Lengths::Fixed(100),
            }],
        }],
        turn_order: TurnOrder::Timed {
            think_ms: Lengths::Fixed(20_000),
            answer_ms_per_token: 10.0,
        },
        ..SynthSpec::conversation()
    };
    let trace = spec.generate(1).expect("the spec is a good one");
    trace.workload()
}

/// A router and what is under way behind it.
#[derive(Clone)]
struct Front {
    router: Router,
    workload: Arc<Workload>,
    workers: Vec<WorkerId>,
    active: MinTree<u32>,
    under_way: VecDeque<Placement>,
    placed: Vec<Placement>,
    next: u32,
}

impl Front {
    fn new(spec: RouterSpec, workers: u32, workload: Arc<Workload>) -> Front {
        let fleet = Fleet {
            block_size: BLOCK_SIZE,
            max_num_batched_tokens: vec![8192; workers as usize],
            has_gpu: vec![true; workers as usize],
            kv_blocks: vec![20_000; workers as usize],
        };
        Front {
            router: Router::new(spec, 1, fleet),
            workload,
            workers: (0..workers).map(WorkerId).collect(),
            active: MinTree::of(&vec![0; workers as usize]),
            under_way: VecDeque::new(),
            placed: Vec::new(),
            next: 0,
        }
    }

    fn now(&self) -> Time {
        Time(u64::from(self.next) * 1_000_000_000)
    }

    fn place(&mut self) {
        let (now, request) = (self.now(), RequestId(self.next));
        self.next += 1;
        let candidate = Candidate {
            request,
            workload: &self.workload,
            workers: &self.workers,
            active: &self.active,
            tiers: None,
            pinned: None,
            cost_factors: None,
        };
        self.router.place(now, &candidate, &mut self.placed);
        let placement = self.placed.pop().expect("nothing waits in these routers");
        let at = placement.worker.0 as usize;
        self.active.set(at, self.active.get(at) + 1);
        self.tell_of_prompt(now, &placement);
        self.router
            .prefill_done(now, request, &self.workload, &mut self.placed);
        self.under_way.push_back(placement);
    }

    /// The chosen worker says that it holds the prompt.
    fn tell_of_prompt(&mut self, now: Time, placement: &Placement) {
        let request = &self.workload.requests[placement.request.0 as usize];
        let mut path = Vec::new();
        block_path(&self.workload.tree, request.leaf, BLOCK_SIZE, &mut path);
        let (mut lo, limit) = (0, request.input_tokens / BLOCK_SIZE);
        let mut events = Vec::new();
        for stretch in &path {
            let hi = stretch.end.min(limit);
            if lo < hi {
                events.push(KvEvent::Stored {
                    node: stretch.node,
                    lo,
                    hi,
                    continues: !events.is_empty(),
                });
            }
            lo = lo.max(hi);
        }
        self.router
            .observe(now, placement.worker, &events, &self.workload);
    }

    fn end_oldest(&mut self) {
        let oldest = self.under_way.pop_front().expect("many are under way");
        let at = oldest.worker.0 as usize;
        self.active.set(at, self.active.get(at) - 1);
        self.router
            .ended(self.now(), oldest.request, &self.workload, &mut self.placed);
    }
}
