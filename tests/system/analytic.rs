//! Degenerate settings are textbook queues: one sequence at a time, equal prompts, one token of answer. A worker is then
//! a server with the constant service time `D`, and what it does is known: exactly, where arrivals are regular, and
//! within confidence bounds, where they are random. Seeds are fixed, so the verdict is, too.
//!
//! Little's law holds to the integer in every run: see `properties`.

use std::sync::Arc;

use calibration::Linear;
use engine::vllm::VllmConfig;
use engine::{NewRequest, Run, Span, Time, WorkloadBuilder};
use rand::RngExt;
use rand_pcg::Pcg64;
use sim::{ClusterSpec, LoadSpec, PoolSpec, Recording, RequestRecord, RouterSpec};

use crate::fast::Case;

const PROMPT: u32 = 100;
/// `a + b new + c context` of a prompt: 500 + 3 * 100 + 2 * 100 ns.
const COST: Linear = Linear::from_ns(500, 3, 2);
const SERVICE: Span = Span::from_ns(1_000);

/// Requests of [`PROMPT`] tokens and one token of answer at these times, for workers that serve one at a time.
fn queue(arrivals: &[Time], workers: u32) -> Case {
    let mut builder = WorkloadBuilder::new();
    for (index, &arrival) in (0..).zip(arrivals) {
        builder.push(NewRequest {
            arrival,
            prompt: &[Run {
                first: WorkloadBuilder::private_token(index, 0),
                len: PROMPT,
            }],
            output_tokens: 1,
            priority: 0,
            session: index,
            dependencies: &[],
        });
    }
    Case {
        kvbm: Vec::new(),
        taints: Vec::new(),
        hosts: Vec::new(),
        adversity: sim::AdversitySpec::default(),
        scaling: None,
        spec: ClusterSpec {
            pools: vec![PoolSpec {
                name: "servers".to_owned(),
                workers,
                gpus_per_worker: 1,
                engine: VllmConfig {
                    max_num_seqs: 1,
                    ..VllmConfig::default()
                }
                .into(),
            }],
            router: RouterSpec::Random,
            load: LoadSpec::default(),
            frontend: sim::FrontendSpec::default(),
            seed: 1,
            coasting: true,
            disaggregation: None,
            track_block_ids: false,
        },
        workload: Arc::new(builder.finish()),
        timing: vec![Arc::new(COST)],
    }
}

/// Arrival to the start of service.
fn wait(life: &RequestRecord) -> Span {
    life.first_scheduled.since(life.arrival)
}

/// Arrival times of a Poisson process.
fn poisson(seed: u128, mean_gap: Span, count: usize) -> Vec<Time> {
    let mut random = Pcg64::new(seed, 0xa11);
    let mut time = Time::ZERO;
    let next = || {
        let gap = -(mean_gap.0 as f64) * (1.0 - random.random::<f64>()).ln();
        time += Span(gap.round() as u64);
        time
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn regular_arrivals_slower_than_service_never_wait() {
    // D/D/1 with a gap of 1,001 ns.
    let arrivals: Vec<Time> = (0..1_000).map(|n| Time::from_ns(1_001 * n)).collect();
    let recording = queue(&arrivals, 1).run();
    for (life, &arrival) in recording.requests.iter().zip(&arrivals) {
        assert_eq!((life.arrival, wait(life)), (arrival, Span::ZERO));
        assert_eq!(life.finish, arrival + SERVICE);
    }
}

#[test]
fn regular_arrivals_faster_than_service_wait_ever_longer() {
    // D/D/1 with a gap of 990 ns: the n-th request finds n * 10 ns of work left.
    let arrivals: Vec<Time> = (0..1_000).map(|n| Time::from_ns(990 * n)).collect();
    let recording = queue(&arrivals, 1).run();
    for (n, life) in (0..).zip(&recording.requests) {
        assert_eq!(wait(life), Span::from_ns(10 * n));
    }
    assert_eq!(recording.workers[0].busy, SERVICE * 1_000);
}

#[test]
fn a_closed_loop_keeps_the_response_time_law() {
    // N clients and a busy server: R = N D, X = 1 / D. The first N find fewer before them.
    let mut case = queue(&[Time::ZERO; 500], 1);
    case.spec.load.concurrency = Some(7);
    for (n, life) in (0..).zip(&case.run().requests) {
        assert_eq!(life.finish, Time::ZERO + SERVICE * (n + 1));
        assert_eq!(life.finish.since(life.arrival), SERVICE * (n + 1).min(7));
    }
}

#[test]
fn a_lone_request_is_a_sum_by_hand() {
    let mut builder = WorkloadBuilder::new();
    builder.push(NewRequest {
        arrival: Time::from_ns(77),
        prompt: &[Run {
            first: 0,
            len: PROMPT,
        }],
        output_tokens: 50,
        priority: 0,
        session: 0,
        dependencies: &[],
    });
    let mut case = queue(&[], 1);
    case.workload = Arc::new(builder.finish());
    let recording = case.run();
    let life = &recording.requests[0];
    assert_eq!(life.first_token, Time::from_ns(77) + SERVICE);
    // 49 decode steps of 500 + 3 + 2 * (100 + k) ns for k = 1..=49: 49 * 703 + 2 * 49 * 50 / 2 = 36,897 ns.
    assert_eq!(life.finish.since(life.first_token), Span::from_ns(36_897));
    let gaps: Vec<(u64, u64)> = crate::fast::gap_counts(&recording.gaps)
        .into_iter()
        .collect();
    let by_hand: Vec<(u64, u64)> = (1..50).map(|k| ((703 + 2 * k) * 1_000, 1)).collect();
    assert_eq!(gaps, by_hand);
}

/// Checks the waits of one server with Poisson arrivals against Pollaczek and Khinchine's mean, ρ D / (2 (1 - ρ)), and
/// against the share 1 - ρ of those that do not wait. Means of consecutive batches are nearly independent.
fn assert_is_m_d_1(name: &str, waits: &[f64], utilisation: f64) {
    const BATCHES: usize = 40;
    // Of Student's t distribution with 39 degrees of freedom, 99.9 % lie within this.
    const T: f64 = 3.56;
    let within_bounds = |what: &str, of: &dyn Fn(f64) -> f64, exact: f64| {
        let batches = waits.chunks_exact(waits.len() / BATCHES).take(BATCHES);
        let mean =
            |batch: &[f64]| batch.iter().map(|&wait| of(wait)).sum::<f64>() / batch.len() as f64;
        let means: Vec<f64> = batches.map(mean).collect();
        let mean = means.iter().sum::<f64>() / BATCHES as f64;
        let squares = means.iter().map(|other| (other - mean).powi(2));
        let error = (squares.sum::<f64>() / (BATCHES * (BATCHES - 1)) as f64).sqrt();
        println!(
            "{name}: {what} {mean:.4} ± {:.4}, exactly {exact:.4}",
            T * error
        );
        assert!((mean - exact).abs() <= T * error, "{name}: {what}");
        assert!(T * error < 0.1 * exact, "{name}: the bounds mean something");
    };
    let mean = utilisation / (2.0 * (1.0 - utilisation));
    within_bounds("mean wait / D", &|wait| wait / SERVICE.0 as f64, mean);
    let at_once = |wait: f64| f64::from(u8::from(wait == 0.0));
    within_bounds("share that does not wait", &at_once, 1.0 - utilisation);
}

fn waits_of(recording: &Recording, worker: u32) -> Vec<f64> {
    let own = recording
        .requests
        .iter()
        .filter(|life| life.worker == worker);
    own.map(|life| wait(life).0 as f64).collect()
}

#[test]
fn random_arrivals_wait_as_in_an_m_d_1_queue() {
    for (seed, utilisation) in [(1, 0.3), (2, 0.6), (3, 0.85)] {
        let gap = Span((SERVICE.0 as f64 / utilisation).round() as u64);
        let arrivals = poisson(seed, gap, 200_000);
        let recording = queue(&arrivals, 1).run();
        // Lindley's recursion: service begins at arrival or at the end of the service before.
        let mut free_at = Time::ZERO;
        for (life, &arrival) in recording.requests.iter().zip(&arrivals) {
            assert_eq!(life.first_scheduled, arrival.max(free_at));
            free_at = life.first_scheduled + SERVICE;
            assert_eq!(life.finish, free_at);
        }
        assert_is_m_d_1(
            &format!("ρ = {utilisation}"),
            &waits_of(&recording, 0),
            utilisation,
        );
    }
}

#[test]
fn random_routing_makes_m_d_1_queues_of_one_stream() {
    // A Poisson stream dealt out at random is as many independent Poisson streams.
    let arrivals = poisson(4, Span::from_ns(500), 600_000);
    let recording = queue(&arrivals, 3).run();
    for worker in 0..3 {
        assert_is_m_d_1(
            &format!("worker {worker} of 3"),
            &waits_of(&recording, worker),
            2.0 / 3.0,
        );
    }
}
