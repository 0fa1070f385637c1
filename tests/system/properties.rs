//! What holds for every run: nobody is lost, time runs forward in every life, tokens and blocks are conserved, events
//! come in their order, and the time that requests spend in the system is the time that the system spends with requests
//! (Little's law, exactly). `DYNOSIM_PROPERTIES_SCENARIOS` and `DYNOSIM_PROPERTIES_SEED` set which cases are run.

use std::collections::BTreeMap;

use engine::vllm::SchedulingPolicy;
use engine::{EngineConfig, RequestId, Time};
use sim::event::Event;
use sim::{Cluster, Outcome, Recording, RequestRecord, summarize};

use crate::cases::case;
use crate::fast::{Case, gap_counts};
use crate::seeds::{caught, in_parallel, seeds};

const CASES: u64 = 1_000;

/// Runs `check` on many cases; it returns whether the case had what it looks for. Prints the seed of a case that fails.
fn for_all_cases(check: impl Fn(&Case) -> bool + Sync) {
    let seeds = seeds("DYNOSIM_PROPERTIES", CASES);
    let verdicts = in_parallel(seeds.clone(), |seed| caught(|| check(&case(seed))));
    for (seed, verdict) in &verdicts {
        if let Err(why) = verdict {
            panic!("seed {seed}: {why}\n{:?}", case(*seed).spec);
        }
    }
    let hits = verdicts.values().filter(|verdict| **verdict == Ok(true));
    let hits = hits.count() as u64;
    println!("{} cases, {hits} of them to the point", verdicts.len());
    assert!(
        hits >= (seeds.end - seeds.start) / 5,
        "only {hits} cases to the point"
    );
}

fn count(recording: &Recording, is_counted: impl Fn(&RequestRecord) -> bool) -> usize {
    let requests = recording.requests.iter();
    requests.filter(|request| is_counted(request)).count()
}

/// All requests, those that the front end sent itself too.
fn lives(recording: &Recording) -> impl Iterator<Item = &RequestRecord> {
    let own = recording.ahead.iter().map(|ahead| &ahead.life);
    recording.requests.iter().chain(own)
}

#[test]
fn requests_are_done_rejected_or_unfinished() {
    for_all_cases(|case| {
        let mut arrivals = 0;
        let recording = case.run_observed(|_, event, _| {
            let is_of_client = |id: RequestId| (id.0 as usize) < case.workload.of_clients();
            arrivals +=
                usize::from(matches!(event, Event::Arrival { request } if is_of_client(request)));
        });
        let done = count(&recording, |request| request.outcome == Outcome::Completed);
        let unfinished = count(&recording, |request| {
            request.outcome == Outcome::Unfinished && request.arrival != Time::MAX
        });
        let rejected = |request: &RequestRecord| matches!(request.outcome, Outcome::Rejected(_));
        let rejected = count(&recording, rejected);
        let unsent = count(&recording, |request| request.arrival == Time::MAX);
        assert_eq!(
            done + rejected + unfinished + unsent,
            case.workload.of_clients()
        );
        // Who is refused with another never arrives, or arrives to be passed over.
        assert!((done + unfinished..=done + unfinished + rejected).contains(&arrivals));
        // Without an end of sending everybody is sent, and only priorities let a worker run in circles.
        assert!(unsent == 0 || case.spec.load.duration.is_some() || unfinished > 0);
        let mut pools = case.spec.pools.iter();
        let may_circle =
            pools.any(|pool| matches!(&pool.engine, EngineConfig::Vllm(config) if config.policy == SchedulingPolicy::Priority));
        assert!(unfinished == 0 || may_circle);
        // The front end's own follow every answer that ended, and end too.
        assert_eq!(recording.ahead.len(), case.workload.ahead.len());
        for own in &recording.ahead {
            let before = recording.request(own.of);
            let is_over = own.life.outcome != Outcome::Unfinished;
            let is_due = before.outcome == Outcome::Completed
                && (case.spec.load.duration).is_none_or(|last| before.finish <= Time::ZERO + last);
            assert!(is_over || may_circle || !is_due, "{own:?}");
            assert!(is_due || !own.life.was_sent() || is_over, "{own:?}");
            assert!(
                !own.life.was_sent() || own.life.arrival >= before.finish,
                "{own:?}"
            );
        }

        // Requests that were never due are not part of the run.
        let names = case.spec.pools.iter().map(|pool| pool.name.clone());
        let counts = summarize(&recording, &names.collect::<Vec<_>>(), None).requests;
        assert_eq!(
            counts.total,
            counts.completed + counts.rejected + counts.unfinished
        );
        assert_eq!(counts.rejected, counts.rejected_by.values().sum::<u64>());
        assert_eq!(
            (counts.completed, counts.rejected, counts.unfinished),
            (done as u64, rejected as u64, unfinished as u64)
        );
        rejected > 0
    });
}

#[test]
fn every_life_runs_forward() {
    for_all_cases(|case| {
        let recording = case.run();
        for (asked, life) in case.workload.requests.iter().zip(&recording.requests) {
            let moments = [
                life.arrival,
                life.placed,
                life.first_scheduled,
                life.first_token,
                life.finish,
            ];
            match life.outcome {
                Outcome::Completed => {
                    assert!(moments.is_sorted() && life.finish < Time::MAX, "{life:?}");
                    assert!(life.first_scheduled < life.first_token, "{life:?}");
                    assert_eq!(
                        life.first_token == life.finish,
                        life.output_tokens == 1,
                        "{life:?}"
                    );
                    let pool = recording.workers[life.worker as usize].pool;
                    let pool = &case.spec.pools[pool as usize];
                    let goal = match &pool.engine {
                        EngineConfig::Vllm(config) => {
                            let room = config.max_model_len - asked.input_tokens;
                            asked.output_tokens.min(room)
                        }
                        EngineConfig::Trtllm(config) => {
                            let room = config.max_seq_len - asked.input_tokens;
                            asked.output_tokens.min(room)
                        }
                        EngineConfig::Sglang(config) => {
                            // One token of the pool and one of the context stay unused, and one for the next token.
                            let longest = config.context_length.min(config.usable_tokens()) - 2;
                            asked.output_tokens.min(longest - asked.input_tokens)
                        }
                    };
                    assert_eq!(life.output_tokens, goal, "{life:?}");
                    assert!(life.cached_tokens < asked.input_tokens, "{life:?}");
                }
                Outcome::Rejected(_) => {
                    assert!(
                        life.arrival <= life.finish && life.finish < Time::MAX,
                        "{life:?}"
                    );
                    assert_eq!(
                        (life.placed, life.worker),
                        (Time::MAX, u32::MAX),
                        "{life:?}"
                    );
                }
                Outcome::Unfinished => assert_eq!(life.finish, Time::MAX, "{life:?}"),
                Outcome::Cancelled | Outcome::Failed(_) => unreachable!("nothing goes wrong here"),
            }
            let is_open_loop = case.spec.load.concurrency.is_none();
            assert!(
                !is_open_loop
                    || life.arrival >= asked.arrival
                    || life.outcome != Outcome::Completed
            );
        }
        count(&recording, |life| life.outcome == Outcome::Completed) > 5
    });
}

#[test]
fn tokens_are_conserved() {
    for_all_cases(|case| {
        let recording = case.run();
        let is_cut_off =
            |life: &RequestRecord| life.placed < Time::MAX && life.outcome != Outcome::Completed;
        if lives(&recording).any(is_cut_off) {
            return false;
        }
        let done = || lives(&recording).filter(|life| life.outcome == Outcome::Completed);
        let gaps: u64 = gap_counts(&recording.gaps).values().sum();
        let counted = done().filter(|life| !life.is_warmup);
        assert_eq!(
            gaps,
            counted
                .map(|life| u64::from(life.output_tokens) - 1)
                .sum::<u64>()
        );
        let end = done().map(|life| life.finish).max().unwrap_or_default();
        let mut is_exact = false;
        for (index, worker) in recording.workers.iter().enumerate() {
            let own = || done().filter(|life| life.worker as usize == index);
            let sum = |of: &dyn Fn(&RequestRecord) -> u32| {
                own().map(|life| u64::from(of(life))).sum::<u64>()
            };
            assert_eq!(worker.requests, own().count() as u64);
            assert_eq!(worker.preemptions, sum(&|life| life.preemptions));
            assert!(
                worker.peak_blocks <= worker.kv_blocks
                    && worker.hit_tokens <= worker.admitted_tokens
            );
            assert!(worker.busy <= end.since(Time::ZERO));
            if worker.preemptions == 0 {
                // Every prompt token is found or computed, once; every token but the first is decoded.
                assert_eq!(worker.admitted_tokens, sum(&|life| life.input_tokens));
                assert_eq!(worker.hit_tokens, sum(&|life| life.cached_tokens));
                assert_eq!(
                    worker.prefill_tokens,
                    worker.admitted_tokens - worker.hit_tokens
                );
                assert_eq!(worker.decode_tokens, sum(&|life| life.output_tokens - 1));
                is_exact |= worker.requests > 0;
            } else {
                assert!(
                    worker.decode_tokens + worker.prefill_tokens >= sum(&|life| life.output_tokens)
                );
            }
        }
        is_exact
    });
}

/// Requests placed and not finished, by worker, as the schedulers see it.
fn in_system(cluster: &Cluster) -> u64 {
    let held = cluster.workers().iter().map(|worker| {
        let scheduler = worker.scheduler();
        (scheduler.running() + scheduler.waiting()) as u64
    });
    held.sum()
}

#[test]
fn littles_law_holds_to_the_integer() {
    for_all_cases(|case| {
        let (journal, recording) = case.journal();
        let mut cluster = case.cluster();
        let mut actions = Vec::new();
        cluster.start(&mut actions);
        let mut request_ps = 0;
        let mut last = Time::ZERO;
        for entry in &journal.entries {
            request_ps += u128::from(in_system(&cluster)) * u128::from(entry.time.since(last).0);
            // Steps inside a coast are reported late, for the router to see; nobody comes or goes with them.
            last = last.max(entry.time);
            cluster.handle(entry.time, entry.event, &mut actions);
        }
        if in_system(&cluster) > 0 {
            return false;
        }
        let placed = lives(&recording).filter(|life| life.placed < Time::MAX);
        let lives = placed.map(|life| u128::from(life.finish.since(life.placed).0));
        assert_eq!(request_ps, lives.sum::<u128>());
        // Nobody is there any more, and so nobody holds a block.
        for worker in cluster.workers() {
            assert_eq!(worker.scheduler().held_blocks(), 0);
            assert!(worker.scheduler().is_idle());
        }
        assert_eq!(cluster.finish(), recording);
        request_ps > 0
    });
}

#[test]
fn gaps_of_a_request_add_up_to_its_decoding() {
    for_all_cases(|case| {
        let mut case = case.clone();
        case.spec.load.warmup_requests = 0;
        let recording = case.run();
        let of_gaps: BTreeMap<u64, u64> = gap_counts(&recording.gaps);
        let gaps: u128 = of_gaps
            .iter()
            .map(|(&gap, &times)| u128::from(gap) * u128::from(times))
            .sum();
        let done = recording
            .requests
            .iter()
            .filter(|life| life.placed < Time::MAX);
        if done.clone().any(|life| life.outcome != Outcome::Completed) {
            return false;
        }
        let decoding = done.map(|life| u128::from(life.finish.since(life.first_token).0));
        assert_eq!(gaps, decoding.sum::<u128>());
        gaps > 0
    });
}

#[test]
fn events_come_in_their_order() {
    for_all_cases(|case| {
        let stepping = case.stepping();
        let mut before = (Time::ZERO, 0);
        let mut simultaneous = 0;
        stepping.run_observed(|now, event, _| {
            // By rank; an arrival may set off that of an earlier request at the same instant.
            let place = (now, event.order().0);
            assert!(before <= place, "{before:?}, then {place:?}");
            simultaneous += u32::from(before.0 == now && before.1 < place.1);
            before = place;
        });
        simultaneous > 3
    });
}
