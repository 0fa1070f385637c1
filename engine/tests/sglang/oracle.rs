//! Random scenarios: our scheduler, asked before every step, coasting step by step and coasting in one go, does what the
//! naive one does, at every step and to the token.

use crate::naive::{Line, Naive, Oracle};
use engine::sglang::{Scheduler, SglangConfig, SglangDrafts, SglangPolicy};
use engine::{
    AcceptanceMode, DraftMethod, HostPool, KvEvent, NewRequest, NodeId, RequestId, Run,
    Speculation, Time, Tracking, WorkloadBuilder, WritePolicy,
};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::HashSet;
use std::sync::Arc;

#[derive(Debug, Clone)]
struct Scenario {
    config: SglangConfig,
    requests: Vec<Arrival>,
    /// Host memory: the share by which it is larger than the pool, and when it is written.
    host: Option<(f64, WritePolicy)>,
}

impl Scenario {
    fn host(&self) -> Option<HostPool> {
        let usable = self.config.usable_tokens();
        self.host.map(|(more, write_policy)| HostPool {
            tokens: usable + 1 + (f64::from(usable) * more) as u32,
            write_policy,
            has_storage: false,
        })
    }
}

/// Time since the arrival before, prompt as (content, tokens), outputs, and whether it goes on from the answer before.
type Arrival = (u64, Vec<(u64, u32)>, u32, bool);

fn scenarios() -> impl Strategy<Value = Scenario> {
    let policy = prop_oneof![
        Just(SglangPolicy::Fcfs),
        Just(SglangPolicy::Lpm),
        Just(SglangPolicy::DfsWeight)
    ];
    let chunk = prop_oneof![Just(None), (16u32..120).prop_map(Some)];
    let page = prop_oneof![4 => Just(1u32), 1 => Just(4), 1 => Just(16)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.2));
    let sizes = (120u32..700, 1u32..12, 40u32..400, 0.05f64..1.2);
    let drafts = prop_oneof![3 => Just(None), 2 => drafts().prop_map(Some)];
    let segment = (0u64..4, 1u32..60);
    let request = (
        prop_oneof![Just(0), 0u64..6000, 0u64..40_000],
        prop::collection::vec(segment, 1..4),
        1u32..60,
        prop::bool::weighted(0.2),
    );
    (
        policy,
        chunk,
        page,
        flags,
        (sizes, drafts),
        prop::collection::vec(request, 1..30),
    )
        .prop_map(
            |(policy, chunk, page, (mixed, ignore_eos, no_cache), (sizes, drafts), requests)| {
                Scenario {
                    config: SglangConfig {
                        max_total_tokens: sizes.0,
                        max_running_requests: sizes.1,
                        chunked_prefill_size: chunk,
                        max_prefill_tokens: sizes.2,
                        schedule_policy: policy,
                        schedule_conservativeness: sizes.3,
                        disable_radix_cache: no_cache,
                        mixed_chunk: mixed && chunk.is_some() && drafts.is_none(),
                        page_size: page,
                        context_length: SglangConfig::UNLIMITED,
                        ignore_eos,
                        speculation: drafts,
                        num_reserved_decode_tokens: None,
                    },
                    requests,
                    host: None,
                }
            },
        )
}

/// Up to four steps, one to three branches; acceptance drawn one time in three.
fn drafts() -> impl Strategy<Value = SglangDrafts> {
    let rates = prop::collection::vec(prop_oneof![Just(0.0), 0.3f64..1.0, Just(1.0)], 1..5);
    (rates, 1u32..4, 0u32..4, 0u32..3).prop_map(|(acceptance_rates, topk, more, mode)| {
        let steps = acceptance_rates.len() as u32;
        let chain = SglangDrafts::chain(Speculation {
            method: DraftMethod::Eagle,
            num_speculative_tokens: steps,
            acceptance_rates,
            mode: match mode {
                0 => AcceptanceMode::Sampled { seed: 11 },
                _ => AcceptanceMode::Expected,
            },
        });
        let tree = SglangDrafts { topk, ..chain };
        let most = tree.most_draft_tokens();
        SglangDrafts {
            num_draft_tokens: if topk == 1 {
                steps + 1
            } else {
                (steps + 1 + more).min(most)
            },
            ..tree
        }
    })
}

/// The same with host memory below the pool.
fn hosted() -> impl Strategy<Value = Scenario> {
    let policy = prop_oneof![
        Just(WritePolicy::WriteThrough),
        Just(WritePolicy::WriteThroughSelective),
        Just(WritePolicy::WriteBack)
    ];
    (scenarios(), 0.0f64..1.5, policy).prop_map(|(mut scenario, more, policy)| {
        scenario.config.disable_radix_cache = false;
        scenario.config.speculation = None;
        scenario.host = Some((more, policy));
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
    marks: Marks,
    /// What a router that hears the events believes to be cached, as (place, page).
    heard: HashSet<(NodeId, u32)>,
    hears: bool,
}

fn pair(scenario: &Scenario, mode: Mode) -> Pair {
    let mut builder = WorkloadBuilder::new();
    let mut oracle = Oracle::new(&scenario.config);
    if let Some(host) = scenario.host() {
        oracle = oracle.with_host(host);
    }
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
        let goal = scenario.config.output_goal(tokens, *outputs);
        if tokens >= scenario.config.prompt_limit()
            || goal == 0
            || !scenario.config.can_admit(tokens, goal)
        {
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
    let workload = Arc::new(builder.finish());
    let tracking = Tracking {
        events: mode == Mode::Coasting,
        ..Tracking::default()
    };
    let mut scheduler = Scheduler::new(scenario.config.clone(), workload, tracking);
    if let Some(host) = scenario.host() {
        scheduler.attach_host_pool(host);
    }
    Pair {
        oracle,
        scheduler,
        arrivals,
        next: 0,
        now: 0,
        marks: Marks::default(),
        heard: HashSet::new(),
        hears: tracking.events,
    }
}

impl Pair {
    fn arrive(&mut self) {
        while self
            .arrivals
            .get(self.next)
            .is_some_and(|&at| at <= self.now)
        {
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
            let cached_before = self.memory()[2];
            let goes_on = self.scheduler.coast_on();
            let has_plan = goes_on || self.scheduler.plan().is_some();
            let line = self.oracle.step();
            prop_assert_eq!(has_plan, line.is_some(), "at {}", self.now);
            let Some(line) = line else {
                let Some(&next) = self.arrivals.get(self.next) else {
                    prop_assert_eq!(self.scheduler.waiting() + self.scheduler.running(), 0);
                    return Ok(());
                };
                self.now = next;
                continue;
            };
            self.check_plan(&line, goes_on)?;
            let plan = self.scheduler.newest().expect("just planned");
            let has_hit = plan.admitted.iter().any(|admitted| admitted.hit_tokens > 0);
            if !goes_on {
                let copies = [plan.copies.loaded_tokens, plan.copies.written_tokens];
                prop_assert_eq!(copies.map(|tokens| tokens as usize), line.copies);
                let loads = plan.admitted.iter().map(|it| it.loaded_tokens);
                prop_assert!(loads.sum::<u32>() <= copies[0]);
            } else {
                prop_assert_eq!(line.copies, [0, 0], "a coast waits for no copies");
            }
            let has_drafts = self.scheduler.config().speculation.is_some();
            self.marks
                .note(&line, goes_on, cached_before, has_hit, has_drafts);
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
            self.advance(&line);
            steps += 1;
        }
        self.check_results(&line, steps)
    }

    fn check_plan(&self, line: &Line, goes_on: bool) -> Result<(), TestCaseError> {
        let plan = self.scheduler.newest().expect("just planned");
        let further = self.scheduler.newest_coasted_steps();
        let has_drafts = self.scheduler.config().speculation.is_some();
        // With drafts a plan does not say where its further steps begin; the memory does.
        let begins = |before: usize| if has_drafts && goes_on { 0 } else { before };
        let rows: Vec<_> = plan
            .scheduled
            .iter()
            .map(|part| {
                (
                    part.request.0 as usize,
                    part.new_tokens as usize,
                    begins((part.computed_before + further) as usize),
                )
            })
            .collect();
        let requests = |ids: &[RequestId]| ids.iter().map(|id| id.0 as usize).collect::<Vec<_>>();
        let waiting: Vec<RequestId> = self.scheduler.waiting_requests().collect();
        let theirs: Vec<_> = line
            .rows
            .iter()
            .map(|row| (row.0, row.1, begins(row.2)))
            .collect();
        prop_assert_eq!(&rows, &theirs, "rows at {}", self.now);
        prop_assert_eq!(plan.prefill.len(), line.prefills);
        prop_assert_eq!(
            self.scheduler.chunked_request().map(|id| id.0 as usize),
            line.cut
        );
        if !goes_on {
            prop_assert_eq!(&requests(&plan.preempted), &line.retracted);
        }
        prop_assert_eq!(&requests(&waiting), &line.waiting);
        prop_assert_eq!(
            self.scheduler.new_token_ratio().to_bits(),
            line.ratio.to_bits()
        );
        prop_assert_eq!(
            self.memory(),
            line.planned,
            "memory after planning at {}",
            self.now
        );
        Ok(())
    }

    fn check_results(&mut self, line: &Line, steps: u32) -> Result<(), TestCaseError> {
        let mut ended = Vec::new();
        self.scheduler.finish(steps, &mut ended);
        let ended: Vec<usize> = ended.iter().map(|id| id.0 as usize).collect();
        prop_assert_eq!(&ended, &line.finished);
        prop_assert_eq!(
            self.scheduler.new_token_ratio().to_bits(),
            line.ratio.to_bits()
        );
        prop_assert_eq!(
            self.memory(),
            line.after,
            "memory after the results at {}",
            self.now
        );
        if self.hears {
            self.hear()?;
        }
        if let Some(used) = self.scheduler.pool().host_use() {
            prop_assert_eq!(used.held as usize, self.oracle.host_tokens());
        }
        Ok(())
    }

    /// The events since the last step add up to what is cached now.
    fn hear(&mut self) -> Result<(), TestCaseError> {
        let mut events = Vec::new();
        self.scheduler.drain_events(&mut events);
        for event in events {
            match event {
                KvEvent::Stored { node, lo, hi, .. } => {
                    for page in lo..hi {
                        prop_assert!(self.heard.insert((node, page)), "stored once");
                    }
                }
                KvEvent::Removed { node, lo, hi } => {
                    for page in lo..hi {
                        prop_assert!(self.heard.remove(&(node, page)), "only what is there goes");
                    }
                }
            }
        }
        let page_size = self.scheduler.config().page_size as usize;
        prop_assert_eq!(self.heard.len() * page_size, self.memory()[2]);
        Ok(())
    }

    fn memory(&self) -> [usize; 3] {
        let pool = self.scheduler.pool();
        [
            pool.free_tokens(),
            pool.evictable_tokens(),
            pool.cached_tokens(),
        ]
        .map(|tokens| tokens as usize)
    }
}

/// How often what is to be tested came about.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    steps: u32,
    coasted: u32,
    cut: u32,
    mixed: u32,
    retracted_for_decode: u32,
    retracted_for_prefill: u32,
    evicted: u32,
    hits: u32,
    /// First steps of decode plans while somebody waits.
    beside_waiting: u32,
    /// With drafts: steps coasted, and retractions.
    drafts_coasted: u32,
    drafts_retracted: u32,
    /// Steps that wait for KV from host memory, and for KV written there.
    loading: u32,
    writing: u32,
}

impl Marks {
    fn note(
        &mut self,
        line: &Line,
        goes_on: bool,
        cached_before: usize,
        has_hit: bool,
        has_drafts: bool,
    ) {
        let count = |mark: &mut u32, happened: bool| *mark += u32::from(happened);
        let is_prefill = line.prefills > 0;
        count(&mut self.steps, true);
        count(&mut self.coasted, goes_on);
        count(&mut self.cut, line.cut.is_some());
        count(
            &mut self.mixed,
            is_prefill && line.rows.len() > line.prefills,
        );
        count(
            &mut self.retracted_for_prefill,
            is_prefill && !line.retracted.is_empty(),
        );
        count(
            &mut self.retracted_for_decode,
            !is_prefill && !line.retracted.is_empty(),
        );
        count(&mut self.evicted, line.planned[2] < cached_before);
        count(&mut self.hits, has_hit);
        count(&mut self.loading, line.copies[0] > 0);
        count(&mut self.writing, line.copies[1] > 0);
        count(
            &mut self.beside_waiting,
            !is_prefill && !line.waiting.is_empty() && !goes_on,
        );
        count(&mut self.drafts_coasted, has_drafts && goes_on);
        count(
            &mut self.drafts_retracted,
            has_drafts && !goes_on && !line.retracted.is_empty(),
        );
    }

    /// All but the one that random scenarios hardly ever bring about.
    fn usual(&self) -> [u32; 10] {
        [
            self.steps,
            self.coasted,
            self.cut,
            self.mixed,
            self.retracted_for_decode,
            self.evicted,
            self.hits,
            self.beside_waiting,
            self.drafts_coasted,
            self.drafts_retracted,
        ]
    }
}

#[test]
fn every_step_is_the_naive_one() {
    let marks = compare(scenarios());
    assert!(
        marks.usual().iter().all(|&count| count > 0),
        "something was never tested: {marks:?}"
    );
}

#[test]
fn every_step_is_the_naive_one_with_host_memory() {
    // Without drafts.
    let marks = compare(hosted());
    let of_host = [marks.loading, marks.writing];
    let usual = marks.usual();
    assert!(
        usual[..8].iter().chain(&of_host).all(|&count| count > 0),
        "something was never tested: {marks:?}"
    );
}

fn compare(scenarios: impl Strategy<Value = Scenario>) -> Marks {
    let config = ProptestConfig {
        cases: std::env::var("SGLANG_CASES").map_or(600, |cases| cases.parse().expect("a number")),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let marks = std::cell::Cell::new(Marks::default());
    // The same scenarios every time.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&scenarios, |scenario| {
        for mode in [Mode::Stepping, Mode::Coasting, Mode::InOneGo] {
            let mut pair = pair(&scenario, mode);
            pair.marks = marks.get();
            pair.run(mode)?;
            marks.set(pair.marks);
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let marks = marks.get();
    println!("{marks:?}");
    marks
}

#[test]
fn decodes_in_mixed_batches_can_take_the_memory_of_a_chunk() {
    // Six answers of 60 tokens, hardly any of which are reserved, grow by six tokens per step beside a prompt of 110 that
    // advances by two: 24 + 110 + 2 fit into 200, the answers do not.
    let answers = (10..16).map(|id| (0, vec![(id, 4)], 60, false));
    let scenario = Scenario {
        config: SglangConfig {
            max_total_tokens: 200,
            max_running_requests: 8,
            chunked_prefill_size: Some(8),
            schedule_conservativeness: 0.05,
            mixed_chunk: true,
            ..SglangConfig::default()
        },
        requests: answers.chain([(3_000, vec![(1, 110)], 1, false)]).collect(),
        host: None,
    };
    for mode in [Mode::Stepping, Mode::Coasting, Mode::InOneGo] {
        let mut pair = pair(&scenario, mode);
        pair.run(mode).expect("both agree");
        assert!(pair.marks.retracted_for_prefill > 0);
    }
}
