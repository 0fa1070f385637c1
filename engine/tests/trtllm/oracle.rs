//! Random scenarios: our scheduler, asked before every step, coasting step by step and coasting in one go, does what the
//! naive one does, at every step and to the block.

use crate::naive::{Line, Naive, Oracle};
use engine::trtllm::{CapacityPolicy, Scheduler, TrtllmConfig};
use engine::{
    AcceptanceMode, DraftMethod, HostPool, KvEvent, NewRequest, NodeId, RequestId, Run,
    Speculation, Time, Tracking, WorkloadBuilder, WritePolicy,
};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

#[derive(Debug, Clone)]
struct Scenario {
    config: TrtllmConfig,
    requests: Vec<Arrival>,
    /// In host memory.
    host_blocks: u32,
}

/// Time since the arrival before, prompt as (content, tokens), outputs, and whether it goes on from the answer before.
type Arrival = (u64, Vec<(u64, u32)>, u32, bool);

fn scenarios() -> impl Strategy<Value = Scenario> {
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.85));
    let sizes = (
        prop_oneof![Just(1u32), Just(2), Just(4), Just(8), Just(16)],
        60u32..600,
        1u32..14,
        prop_oneof![16u32..80, 60u32..400],
    );
    let request = (
        prop_oneof![Just(0), 0u64..6000, 0u64..40_000],
        prop::collection::vec((0u64..4, 1u32..60), 1..4),
        1u32..60,
        prop::bool::weighted(0.2),
    );
    let drafts = prop_oneof![3 => Just(None), 2 => drafts().prop_map(Some)];
    let requests = prop::collection::vec(request, 1..30);
    (flags, sizes, drafts, requests).prop_map(
        |((pauses, chunks, reuse), (block, tokens, seats, budget), drafts, requests)| Scenario {
            config: TrtllmConfig {
                tokens_per_block: block,
                num_blocks: 1 + tokens / block,
                max_batch_size: seats,
                max_num_tokens: budget,
                max_seq_len: 400,
                enable_block_reuse: reuse,
                enable_chunked_prefill: pauses || chunks,
                capacity_scheduler_policy: if pauses {
                    CapacityPolicy::MaxUtilization
                } else {
                    CapacityPolicy::GuaranteedNoEvict
                },
                speculation: drafts,
                ..TrtllmConfig::default()
            },
            requests,
            host_blocks: 0,
        },
    )
}

/// Up to four drafts; acceptance drawn one time in three.
fn drafts() -> impl Strategy<Value = Speculation> {
    let rates = prop::collection::vec(prop_oneof![Just(0.0), 0.3f64..1.0, Just(1.0)], 1..5);
    (rates, 0u32..3).prop_map(|(acceptance_rates, mode)| Speculation {
        method: DraftMethod::Mtp,
        num_speculative_tokens: acceptance_rates.len() as u32,
        acceptance_rates,
        mode: match mode {
            0 => AcceptanceMode::Sampled { seed: 11 },
            _ => AcceptanceMode::Expected,
        },
    })
}

/// The same with a secondary pool, which may be larger than the GPU's or hold hardly anything.
fn hosted() -> impl Strategy<Value = Scenario> {
    (scenarios(), 1u32..200).prop_map(|(mut scenario, host_blocks)| {
        scenario.config.enable_block_reuse = true;
        scenario.config.speculation = None;
        scenario.host_blocks = host_blocks;
        scenario
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Stepping,
    Coasting,
    InOneGo,
}

/// Both sides of a comparison.
struct Pair {
    oracle: Oracle,
    scheduler: Scheduler,
    arrivals: Vec<u64>,
    next: usize,
    now: u64,
    further: usize,
    marks: Marks,
    /// Copies of each block that a router which hears the events believes to be there.
    heard: HashMap<(NodeId, u32), u32>,
    hears: bool,
}

fn pair(scenario: &Scenario, mode: Mode) -> Pair {
    let config = &scenario.config;
    let mut builder = WorkloadBuilder::new();
    let mut oracle = Oracle::new(config, scenario.host_blocks as usize);
    let (mut now, mut arrivals, mut before): (u64, Vec<u64>, Option<Vec<Run>>) =
        (0, Vec::new(), None);
    for (gap, segments, outputs, quotes) in &scenario.requests {
        now += gap;
        let mut prompt: Vec<Run> = match &before {
            Some(before) if *quotes => before.clone(),
            _ => Vec::new(),
        };
        prompt.extend(segments.iter().map(|&(id, len)| Run {
            first: (1 << 62) + id * 4096,
            len,
        }));
        let tokens: u32 = prompt.iter().map(|run| run.len).sum();
        let goal = config.output_goal(tokens, *outputs);
        if goal == 0 || !config.can_serve(tokens, goal) {
            continue;
        }
        let index = builder.len() as u32;
        builder.push(NewRequest {
            arrival: Time::from_ns(now),
            prompt: &prompt,
            output_tokens: *outputs,
            priority: 0,
            session: index,
            dependencies: &[],
        });
        let answer = Run {
            first: WorkloadBuilder::output_token(index, 0),
            len: *outputs,
        };
        let all = prompt.iter().chain([&answer]);
        let all: Vec<u64> = all
            .flat_map(|run| run.first..run.first + u64::from(run.len))
            .collect();
        oracle
            .requests
            .push(Naive::new(all, tokens as usize, goal as usize));
        arrivals.push(now);
        prompt.push(answer);
        before = Some(prompt);
    }
    let tracking = Tracking {
        events: mode == Mode::Coasting,
        ..Tracking::default()
    };
    let mut scheduler = Scheduler::new(config.clone(), Arc::new(builder.finish()), tracking);
    if scenario.host_blocks > 0 {
        scheduler.attach_host_pool(HostPool {
            tokens: scenario.host_blocks * config.tokens_per_block,
            write_policy: WritePolicy::WriteBack,
            has_storage: false,
        });
    }
    Pair {
        oracle,
        scheduler,
        arrivals,
        next: 0,
        now: 0,
        further: 0,
        marks: Marks::default(),
        heard: HashMap::new(),
        hears: tracking.events,
    }
}

impl Pair {
    fn arrive(&mut self) {
        let is_due = |pair: &Pair| {
            let next = pair.arrivals.get(pair.next);
            next.is_some_and(|&at| at <= pair.now)
        };
        while is_due(self) {
            self.scheduler.stop_coasting();
            self.scheduler.submit(RequestId(self.next as u32));
            self.oracle.submit(self.next);
            self.next += 1;
        }
    }

    fn run(&mut self, mode: Mode) -> Result<(), TestCaseError> {
        loop {
            self.arrive();
            if mode == Mode::Stepping {
                self.scheduler.stop_coasting();
            }
            let goes_on = self.scheduler.coast_on();
            self.further = if goes_on { self.further + 1 } else { 0 };
            let has_plan = goes_on || self.scheduler.plan().is_some();
            let line = self.oracle.step();
            prop_assert_eq!(has_plan, line.is_some(), "at {}", self.now);
            let Some(line) = line else {
                let Some(&next) = self.arrivals.get(self.next) else {
                    prop_assert_eq!(self.scheduler.waiting() + self.scheduler.running(), 0);
                    prop_assert_eq!(self.free(), self.scheduler.config().num_blocks as usize);
                    return Ok(());
                };
                self.now = next;
                continue;
            };
            self.check_plan(&line, goes_on)?;
            let has_drafts = self.scheduler.config().speculation.is_some();
            let waiting = self.scheduler.waiting();
            self.marks.note(&line, goes_on, waiting, has_drafts);
            self.advance(&line);
            if mode == Mode::InOneGo {
                self.take_the_coast(line)?;
            } else {
                self.check_results(&line, 1)?;
            }
        }
    }

    fn advance(&mut self, line: &Line) {
        let cost = |&(_, new, before): &(usize, usize, usize)| 10 * new + new + before;
        self.now += 1000 + line.rows.iter().map(cost).sum::<usize>() as u64;
    }

    /// Lets the oracle go on until an arrival or the end of the coast, and our scheduler as far in one go.
    fn take_the_coast(&mut self, mut line: Line) -> Result<(), TestCaseError> {
        let up_to = self.scheduler.newest().expect("just planned").up_to;
        let mut steps = 1;
        while steps < up_to && self.arrivals.get(self.next).is_none_or(|&at| at > self.now) {
            prop_assert!(
                line.finished.is_empty(),
                "only the last step of a coast ends requests"
            );
            line = self.oracle.step().expect("a coast has steps");
            prop_assert_eq!(line.copies, [0, 0], "a coast waits for no copies");
            prop_assert!(line.paused.is_empty() && line.prefills == 0);
            self.advance(&line);
            steps += 1;
        }
        self.check_results(&line, steps)
    }

    fn check_plan(&self, line: &Line, goes_on: bool) -> Result<(), TestCaseError> {
        let plan = self.scheduler.newest().expect("just planned");
        let has_drafts = self.scheduler.config().speculation.is_some();
        // With drafts a plan does not say where its further steps begin; the blocks do.
        let begins = |before: usize| if has_drafts && goes_on { 0 } else { before };
        let rows: Vec<_> = plan
            .scheduled
            .iter()
            .map(|part| {
                let before = part.computed_before as usize + self.further;
                let request = part.request.0 as usize;
                (request, part.new_tokens as usize, begins(before))
            })
            .collect();
        let theirs: Vec<_> = line
            .rows
            .iter()
            .map(|row| (row.0, row.1, begins(row.2)))
            .collect();
        prop_assert_eq!(&rows, &theirs, "rows at {}", self.now);
        prop_assert_eq!(plan.prefill.len(), line.prefills);
        if !goes_on {
            let paused: Vec<usize> = plan.preempted.iter().map(|id| id.0 as usize).collect();
            prop_assert_eq!(&paused, &line.paused);
            let started = plan.admitted.iter();
            let started: Vec<_> = started
                .map(|admitted| (admitted.request.0 as usize, admitted.hit_tokens as usize))
                .collect();
            prop_assert_eq!(&started, &line.started);
        }
        let copies = match goes_on {
            true => [0, 0],
            false => [plan.copies.loaded_tokens, plan.copies.written_tokens],
        };
        let size = self.scheduler.config().tokens_per_block;
        let copies = copies.map(|tokens| (tokens / size) as usize);
        prop_assert_eq!(copies, line.copies, "copies at {}", self.now);
        prop_assert_eq!(self.free(), line.free_after_plan, "free at {}", self.now);
        Ok(())
    }

    fn check_results(&mut self, line: &Line, steps: u32) -> Result<(), TestCaseError> {
        let mut ended = Vec::new();
        self.scheduler.finish(steps, &mut ended);
        let ended: Vec<usize> = ended.iter().map(|id| id.0 as usize).collect();
        prop_assert_eq!(&ended, &line.finished);
        prop_assert_eq!(self.free(), line.free_after, "free after {}", self.now);
        if let Some(used) = self.scheduler.host_use() {
            let size = self.scheduler.config().tokens_per_block;
            prop_assert_eq!((used.held / size) as usize, self.oracle.host.len());
            if !self.hears {
                self.scheduler.drain_events(&mut Vec::new());
            }
        }
        if self.hears {
            self.hear()?;
        }
        Ok(())
    }

    /// The events since the last step add up to what can be found now.
    fn hear(&mut self) -> Result<(), TestCaseError> {
        let mut events = Vec::new();
        self.scheduler.drain_events(&mut events);
        for event in events {
            match event {
                KvEvent::Stored { node, lo, hi, .. } => {
                    for block in lo..hi {
                        *self.heard.entry((node, block)).or_default() += 1;
                    }
                }
                KvEvent::Removed { node, lo, hi } => {
                    for block in lo..hi {
                        let copies = self.heard.get_mut(&(node, block));
                        let copies = copies.filter(|copies| **copies > 0);
                        prop_assert!(copies.is_some(), "only what is there goes");
                        *copies.expect("checked a line above") -= 1;
                    }
                }
            }
        }
        let distinct = self.heard.values().filter(|copies| **copies > 0).count();
        prop_assert_eq!(distinct as u64, self.scheduler.cache().distinct_blocks());
        Ok(())
    }

    fn free(&self) -> usize {
        self.scheduler.cache().free_blocks() as usize
    }
}

/// How often what is to be tested came about.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    steps: u32,
    coasted: u32,
    hits: u32,
    paused: u32,
    /// A prompt that did not end in its step.
    cut: u32,
    mixed: u32,
    /// Coasted while somebody could not start.
    beside_waiting: u32,
    /// With drafts: steps coasted, and pauses.
    drafts_coasted: u32,
    drafts_paused: u32,
    /// Steps that wait for blocks from host memory, and for blocks written there.
    loading: u32,
    writing: u32,
}

impl Marks {
    fn note(&mut self, line: &Line, goes_on: bool, waiting: usize, has_drafts: bool) {
        let count = |mark: &mut u32, happened: bool| *mark += u32::from(happened);
        count(&mut self.steps, true);
        count(&mut self.coasted, goes_on);
        count(
            &mut self.hits,
            line.started.iter().any(|&(_, found)| found > 0),
        );
        count(&mut self.paused, !line.paused.is_empty());
        let (prompts, decodes) = line.rows.split_at(line.prefills);
        let goes_on_later = |row: &(usize, usize, usize)| {
            row.2 > 0 && line.started.iter().all(|&(request, _)| request != row.0)
        };
        count(&mut self.cut, prompts.iter().any(goes_on_later));
        count(&mut self.mixed, !prompts.is_empty() && !decodes.is_empty());
        count(&mut self.beside_waiting, goes_on && waiting > 0);
        count(&mut self.drafts_coasted, has_drafts && goes_on);
        count(
            &mut self.drafts_paused,
            has_drafts && !line.paused.is_empty(),
        );
        count(&mut self.loading, line.copies[0] > 0);
        count(&mut self.writing, line.copies[1] > 0);
    }

    fn all(&self) -> [u32; 11] {
        let Marks {
            steps,
            coasted,
            hits,
            paused,
            cut,
            mixed,
            beside_waiting,
            drafts_coasted,
            drafts_paused,
            loading,
            writing,
        } = *self;
        [
            steps,
            coasted,
            hits,
            paused,
            cut,
            mixed,
            beside_waiting,
            drafts_coasted,
            drafts_paused,
            loading,
            writing,
        ]
    }
}

#[test]
fn the_scheduler_does_what_the_naive_one_does() {
    let seen = compare(scenarios());
    assert!(seen[..9].iter().all(|&mark| mark > 500), "{seen:?}");
}

#[test]
fn the_scheduler_does_what_the_naive_one_does_with_host_memory() {
    // Without drafts.
    let seen = compare(hosted());
    let mut marks = seen[..7].iter().chain(&seen[9..]);
    assert!(marks.all(|&mark| mark > 500), "{seen:?}");
}

fn compare(scenarios: impl Strategy<Value = Scenario>) -> [u32; 11] {
    let config = ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, random);
    let seen = std::cell::RefCell::new([0u32; 11]);
    let result = runner.run(&scenarios, |scenario| {
        for mode in [Mode::Stepping, Mode::Coasting, Mode::InOneGo] {
            let mut pair = pair(&scenario, mode);
            pair.run(mode)?;
            let mut seen = seen.borrow_mut();
            for (sum, mark) in seen.iter_mut().zip(pair.marks.all()) {
                *sum += mark;
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{:?}", seen.borrow());
    seen.into_inner()
}

#[test]
fn nobody_starts_whose_answer_might_not_fit() {
    // Blocks of 4; 10 of them. Two requests of 8 + 16 tokens are 6 blocks each: the second waits for the first under
    // GUARANTEED_NO_EVICT, though 8 of the 10 blocks are free at first. Under MAX_UTILIZATION both start, the blocks are used
    // up when each has 5 (20 tokens: prompt and 12 outputs), and the second is paused.
    let run = |policy| {
        let mut scenario = Scenario {
            config: TrtllmConfig {
                tokens_per_block: 4,
                num_blocks: 10,
                max_num_tokens: 64,
                max_seq_len: 100,
                enable_chunked_prefill: true,
                capacity_scheduler_policy: policy,
                ..TrtllmConfig::default()
            },
            requests: Vec::new(),
            host_blocks: 0,
        };
        scenario.requests = vec![(0, vec![(1, 8)], 16, false), (0, vec![(2, 8)], 16, false)];
        let mut pair = pair(&scenario, Mode::Stepping);
        pair.arrive();
        let (mut steps, mut pauses, mut most) = (0, 0, 0);
        while let Some(plan) = pair.scheduler.plan() {
            most = most.max(plan.scheduled.len());
            pauses += plan.preempted.len();
            steps += 1;
            pair.scheduler.stop_coasting();
            pair.scheduler.finish(1, &mut Vec::new());
        }
        (steps, pauses, most)
    };
    // 16 steps each, one behind the other.
    assert_eq!(run(CapacityPolicy::GuaranteedNoEvict), (32, 0, 1));
    // Paused with 13 outputs when both lack a sixth block, in step 14, and one block of it goes to the first, which ends in
    // step 16. Then it prefills 21 tokens, 16 of them found, which gives its 14th output, and decodes twice: 16 + 3.
    assert_eq!(run(CapacityPolicy::MaxUtilization), (19, 1, 2));
}

#[test]
fn who_pauses_the_only_one_that_computes_goes_on_at_once() {
    // Request 4 does not fit beside 5, which is paused for it. Asked again it finds that somebody is to compute the block it
    // lacks first, itself, and steps aside: nobody is left, until the whole choice is made once more.
    let mut scenario = Scenario {
        config: TrtllmConfig {
            tokens_per_block: 4,
            num_blocks: 38,
            max_batch_size: 4,
            max_num_tokens: 23,
            max_seq_len: 400,
            enable_chunked_prefill: true,
            capacity_scheduler_policy: CapacityPolicy::MaxUtilization,
            ..TrtllmConfig::default()
        },
        requests: Vec::new(),
        host_blocks: 0,
    };
    scenario.requests = vec![
        (0, vec![(0, 1)], 1, false),
        (0, vec![(0, 19), (0, 36)], 14, false),
        (0, vec![(0, 27)], 10, false),
        (4_880, vec![(3, 29), (0, 48)], 1, false),
        (0, vec![(0, 19)], 1, true),
        (0, vec![(0, 33), (0, 20)], 1, false),
        (0, vec![(0, 1)], 1, false),
    ];
    for mode in [Mode::Stepping, Mode::Coasting, Mode::InOneGo] {
        let mut pair = pair(&scenario, mode);
        pair.run(mode).expect("both agree");
        assert!(pair.marks.paused > 0);
    }
}

#[test]
fn stages_take_what_is_not_in_flight() {
    let staged = (scenarios(), 2u32..5).prop_map(|(scenario, stages)| Scenario {
        config: TrtllmConfig {
            pipeline_parallel_size: stages,
            speculation: None,
            capacity_scheduler_policy: CapacityPolicy::GuaranteedNoEvict,
            ..scenario.config
        },
        ..scenario
    });
    let config = ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]);
    let mut runner = TestRunner::new_with_rng(config, random);
    let most = std::cell::Cell::new(0);
    let result = runner.run(&staged, |scenario| {
        most.set(run_in_stages(&scenario)?.max(most.get()));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert_eq!(most.get(), 4, "all stages were at work");
}

/// Plans in turn, up to so many in flight; says how many were.
fn run_in_stages(scenario: &Scenario) -> Result<usize, TestCaseError> {
    let mut pair = pair(scenario, Mode::Stepping);
    let stages = scenario.config.pipeline_parallel_size as usize;
    // A turn that came to nothing keeps its place.
    let mut ring: VecDeque<Option<Line>> = vec![None; stages - 1].into();
    let mut most = 0;
    loop {
        pair.arrive();
        let has_plan = pair.scheduler.plan().is_some();
        let line = pair.oracle.plan();
        prop_assert_eq!(has_plan, line.is_some(), "at {}", pair.now);
        if let Some(line) = &line {
            pair.check_plan(line, false)?;
            pair.advance(line);
        }
        ring.push_back(line);
        most = most.max(ring.iter().flatten().count());
        if let Some(oldest) = ring.pop_front().expect("as many turns as stages") {
            let line = pair.oracle.results(oldest);
            pair.check_results(&line, 1)?;
        }
        let is_busy = ring.iter().any(Option::is_some) || pair.scheduler.running() > 0;
        if is_busy || pair.scheduler.waiting() > 0 {
            continue;
        }
        let Some(&next) = pair.arrivals.get(pair.next) else {
            prop_assert_eq!(pair.free(), scenario.config.num_blocks as usize);
            return Ok(most);
        };
        pair.now = pair.now.max(next);
    }
}
