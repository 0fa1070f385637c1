//! Summaries against the definitions written out naively, on hand-made and on random recordings.

use engine::{RequestId, Span, Time};
use proptest::prelude::*;
use sim::event::WorkerId;
use sim::kvbm::{FetchRecord, KvbmRecord, TierRecord};
use sim::summary::TierUse;
use sim::{
    Distribution, GapRun, Outcome, Recording, Rejection, RequestRecord, Sla, Summary, WorkerRecord,
    series, summarize,
};

fn ms(ms: f64) -> Time {
    Time::from_ms(ms)
}

/// A completed request of 100 prompt tokens on worker 0.
fn completed(
    arrival: f64,
    first_scheduled: f64,
    first_token: f64,
    finish: f64,
    output_tokens: u32,
) -> RequestRecord {
    RequestRecord {
        arrival: ms(arrival),
        placed: ms(arrival),
        first_scheduled: ms(first_scheduled),
        first_token: ms(first_token),
        finish: ms(finish),
        worker: 0,
        input_tokens: 100,
        output_tokens,
        cached_tokens: 0,
        router_overlap_tokens: 0,
        preemptions: 0,
        outcome: Outcome::Completed,
        is_warmup: false,
    }
}

fn rejected(arrival: f64, reason: Rejection) -> RequestRecord {
    let never = Time::MAX;
    RequestRecord {
        placed: never,
        first_scheduled: never,
        first_token: never,
        worker: u32::MAX,
        outcome: Outcome::Rejected(reason),
        output_tokens: 0,
        ..completed(arrival, 0.0, 0.0, arrival, 0)
    }
}

fn pools() -> Vec<String> {
    vec!["prefill".to_owned(), "decode".to_owned()]
}

#[test]
fn a_run_of_four_requests() {
    // A: TTFT 100, E2E 500, 5 tokens, TPOT 400 / 4 = 100.  B: TTFT 300, E2E 500, 3 tokens, TPOT 100, half of its prompt
    // cached, preempted twice.  C: one token, TTFT = E2E = 50.  D: refused.  Warm-up W counts nowhere but in the counts.
    let b = RequestRecord {
        cached_tokens: 50,
        router_overlap_tokens: 64,
        preemptions: 2,
        ..completed(1000.0, 1100.0, 1300.0, 1500.0, 3)
    };
    let warmup = RequestRecord {
        is_warmup: true,
        ..completed(0.0, 0.0, 5000.0, 9000.0, 9)
    };
    let recording = Recording {
        ahead: Vec::new(),
        requests: vec![
            warmup,
            completed(500.0, 500.0, 600.0, 1000.0, 5),
            b,
            completed(2000.0, 2010.0, 2050.0, 2050.0, 1),
            rejected(2060.0, Rejection::PromptTooLong),
        ],
        workers: vec![WorkerRecord {
            pool: 1,
            gpus: 2,
            requests: 4,
            steps: 30,
            extrapolated: Span::ZERO,
            busy: Span::from_ms(4500.0),
            prefill_tokens: 250,
            decode_tokens: 14,
            admissions: 5,
            admitted_tokens: 500,
            hit_tokens: 100,
            preemptions: 2,
            kv_blocks: 10,
            block_size: 16,
            peak_blocks: 5,
            held_token_ps: 160 * 4_500_000_000_000 / 4,
            ..WorkerRecord::default()
        }],
        transfers: Vec::new(),
        links: Vec::new(),
        kvbm: None,
        adversity: None,
        scaling: None,
        gaps: vec![
            GapRun {
                first: ms(40.0).since(Time::ZERO),
                slope_ps: 40_000_000_000,
                steps: 4,
                sequences: 1,
            },
            GapRun {
                first: ms(100.0).since(Time::ZERO),
                slope_ps: 0,
                steps: 2,
                sequences: 1,
            },
        ],
    };
    let sla = Sla {
        ttft_ms: Some(100.0),
        itl_ms: Some(100.0),
    };
    let summary = summarize(&recording, &pools(), Some(sla));

    let counts = &summary.requests;
    assert_eq!(
        (
            counts.total,
            counts.completed,
            counts.rejected,
            counts.unfinished,
            counts.warmup
        ),
        (5, 4, 1, 0, 1)
    );
    assert_eq!((counts.preemptions, counts.preempted), (2, 1));
    assert_eq!(
        counts.rejected_by.iter().collect::<Vec<_>>(),
        [(&"prompt_too_long", &1)]
    );

    // TTFT 50, 100, 300: p50 is the ceil(1.5) = 2nd, p90 and above the 3rd.
    let ttft = Distribution {
        count: 3,
        mean: 150.0,
        min: 50.0,
        p50: 100.0,
        p90: 300.0,
        p95: 300.0,
        p99: 300.0,
        max: 300.0,
    };
    assert_eq!(summary.latency.ttft_ms, ttft);
    // Gaps 40, 80, 100, 100, 120, 160 with the sum 600.
    let itl = Distribution {
        count: 6,
        mean: 100.0,
        min: 40.0,
        p50: 100.0,
        p90: 160.0,
        p95: 160.0,
        p99: 160.0,
        max: 160.0,
    };
    assert_eq!(summary.latency.itl_ms, itl);
    let tpot = Distribution {
        count: 2,
        mean: 100.0,
        min: 100.0,
        p50: 100.0,
        p90: 100.0,
        p95: 100.0,
        p99: 100.0,
        max: 100.0,
    };
    assert_eq!(summary.latency.tpot_ms, tpot);
    assert_eq!(
        (summary.latency.e2e_ms.mean, summary.latency.e2e_ms.max),
        (350.0, 500.0)
    );
    assert_eq!(
        (summary.latency.queue_ms.p50, summary.latency.queue_ms.max),
        (10.0, 100.0)
    );

    // 500 to 2050 ms: 1.55 s for 3 requests, 9 output and 300 input tokens, 2 GPUs; each user with a rate saw 10/s.
    let throughput = &summary.throughput;
    assert_eq!((throughput.duration_s, throughput.gpus), (1.55, 2));
    assert_eq!(throughput.requests_per_s, 3.0 / 1.55);
    assert_eq!(throughput.output_tokens_per_s, 9.0 / 1.55);
    assert_eq!(throughput.total_tokens_per_s_per_gpu, 309.0 / 1.55 / 2.0);
    assert_eq!(throughput.output_tokens_per_s_per_user, 10.0);

    // A (at both bounds) and C meet the SLA, B's TTFT does not, D was refused: 2 of 4; the only window has less than 90 %.
    let goodput = summary.goodput.as_ref().unwrap();
    assert_eq!(
        (goodput.requests, goodput.share, goodput.window_share),
        (2, 0.5, 0.0)
    );
    assert_eq!(goodput.requests_per_s, 2.0 / 1.55);

    let prefix = &summary.prefix;
    assert_eq!(
        (prefix.first_admission_share, prefix.all_admissions_share),
        (50.0 / 300.0, 0.2)
    );
    assert_eq!(
        (prefix.router_overlap_share, prefix.requests_with_hit_share),
        (64.0 / 300.0, 1.0 / 3.0)
    );

    // The run took 0 to 9 s (the warm-up request ends last); a quarter of 4.5 s at all 160 tokens is 1/8 of it.
    assert_eq!((summary.kv.peak_share, summary.kv.mean_share), (0.5, 0.125));
    let worker = &summary.workers[0];
    assert_eq!(
        (
            worker.pool.as_str(),
            worker.utilisation,
            worker.kv_peak_share
        ),
        ("decode", 0.5, 0.5)
    );
}

#[test]
fn windows_of_a_minute_need_nine_in_ten() {
    // Minute 0: 9 of 10 good. Minute 1: 8 of 10. Minute 5: 1 of 1. Minutes without arrivals do not count.
    let request = |minute: usize, is_good: bool| {
        let arrival = minute as f64 * 60_000.0;
        completed(
            arrival,
            arrival,
            arrival + if is_good { 10.0 } else { 1000.0 },
            arrival + 2000.0,
            1,
        )
    };
    let mut requests: Vec<_> = (0..10).map(|n| request(0, n > 0)).collect();
    requests.extend((0..10).map(|n| request(1, n > 1)));
    requests.push(request(5, true));
    let recording = Recording {
        requests,
        ..Recording::default()
    };
    let summary = summarize(
        &recording,
        &pools(),
        Some(Sla {
            ttft_ms: Some(100.0),
            itl_ms: None,
        }),
    );
    assert_eq!(summary.goodput.unwrap().window_share, 2.0 / 3.0);
}

/// The numbers of a JSON value, with their paths.
fn numbers(summary: &Summary) -> Vec<f64> {
    let d = |d: &Distribution| vec![d.mean, d.min, d.p50, d.p90, d.p95, d.p99, d.max];
    let (l, t, p) = (&summary.latency, &summary.throughput, &summary.prefix);
    let mut all: Vec<f64> = [&l.ttft_ms, &l.itl_ms, &l.tpot_ms, &l.e2e_ms, &l.queue_ms]
        .into_iter()
        .flat_map(d)
        .collect();
    all.extend([
        t.duration_s,
        t.requests_per_s,
        t.output_tokens_per_s,
        t.total_tokens_per_s,
    ]);
    all.extend([
        t.output_tokens_per_s_per_gpu,
        t.total_tokens_per_s_per_gpu,
        t.output_tokens_per_s_per_user,
    ]);
    all.extend(
        summary
            .goodput
            .iter()
            .flat_map(|g| [g.share, g.requests_per_s, g.window_share]),
    );
    all.extend([
        p.first_admission_share,
        p.all_admissions_share,
        p.router_overlap_share,
        p.requests_with_hit_share,
    ]);
    all.extend([summary.kv.peak_share, summary.kv.mean_share]);
    all.extend(
        summary
            .workers
            .iter()
            .flat_map(|worker| [worker.utilisation, worker.kv_peak_share]),
    );
    all
}

#[test]
fn nothing_is_all_zeros() {
    let sla = Some(Sla {
        ttft_ms: Some(1.0),
        itl_ms: Some(1.0),
    });
    let idle = Recording {
        workers: vec![WorkerRecord::default(); 2],
        ..Recording::default()
    };
    for recording in [Recording::default(), idle] {
        assert!(
            numbers(&summarize(&recording, &pools(), sla))
                .iter()
                .all(|&number| number == 0.0)
        );
    }
}

#[test]
fn a_request_that_takes_no_time_has_no_rates() {
    let recording = Recording {
        requests: vec![completed(5.0, 5.0, 5.0, 5.0, 4)],
        ..Recording::default()
    };
    assert!(
        numbers(&summarize(&recording, &pools(), None))
            .iter()
            .all(|&number| number == 0.0)
    );
}

/// Any life of a request: stages in order, each possibly instantaneous or (unless completed) never reached.
fn any_request() -> impl Strategy<Value = RequestRecord> {
    let times = (
        0u64..200_000_000_000_000,
        prop::collection::vec(0u64..3_000_000_000_000, 4),
    );
    (times, 0u8..8, 1u32..2000, 1u32..40, 0u32..3, any::<bool>()).prop_map(
        |((arrival, gaps), ending, input_tokens, output_tokens, preemptions, is_warmup)| {
            let mut now = arrival;
            let [placed, first_scheduled, first_token, finish] =
                [0, 1, 2, 3].map(|stage: usize| {
                    // Every fourth gap is empty, so that equal times are common.
                    now += if gaps[stage].is_multiple_of(4) {
                        0
                    } else {
                        gaps[stage]
                    };
                    Time(now)
                });
            let whole = RequestRecord {
                arrival: Time(arrival),
                placed,
                first_scheduled,
                first_token,
                finish,
                worker: 0,
                input_tokens,
                output_tokens,
                cached_tokens: input_tokens / 3,
                router_overlap_tokens: input_tokens / 2,
                preemptions,
                outcome: Outcome::Completed,
                is_warmup,
            };
            let queued = RequestRecord {
                first_scheduled: Time::MAX,
                first_token: Time::MAX,
                finish: Time::MAX,
                cached_tokens: 0,
                output_tokens: 0,
                outcome: Outcome::Unfinished,
                ..whole
            };
            match ending {
                0 => RequestRecord {
                    is_warmup,
                    ..rejected(whole.arrival.as_ms(), Rejection::OutputExceedsKvCache)
                },
                1 => queued,
                2 => RequestRecord {
                    finish: Time::MAX,
                    outcome: Outcome::Unfinished,
                    ..whole
                },
                _ => whole,
            }
        },
    )
}

fn any_recording() -> impl Strategy<Value = Recording> {
    let gap = (
        1_000_000u64..40_000_000,
        -2000i64..2000,
        1u32..100,
        1u32..10,
    );
    let gaps = prop::collection::vec(
        gap.prop_map(|(first, slope_ps, steps, sequences)| GapRun {
            first: Span(first),
            slope_ps,
            steps,
            sequences,
        }),
        0..30,
    );
    let worker = WorkerRecord {
        gpus: 4,
        kv_blocks: 100,
        block_size: 16,
        busy: Span(1 << 42),
        held_token_ps: 1 << 50,
        ..WorkerRecord::default()
    };
    let workers = prop::collection::vec(Just(worker), 0..3);
    let requests = prop::collection::vec(any_request(), 0..40);
    (requests, workers, gaps).prop_map(|(requests, workers, gaps)| Recording {
        ahead: Vec::new(),
        requests,
        workers,
        gaps,
        transfers: Vec::new(),
        links: Vec::new(),
        kvbm: None,
        adversity: None,
        scaling: None,
    })
}

/// The distribution by its definition, from picoseconds; an integer sum when the values are integers.
fn naive(mut values: Vec<f64>) -> Distribution {
    if values.is_empty() {
        return Distribution::default();
    }
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let at = |percent: usize| values[(percent * n).div_ceil(100).max(1) - 1] / 1e9;
    let mean = values.iter().sum::<f64>() / n as f64 / 1e9;
    Distribution {
        count: n as u64,
        mean,
        min: values[0] / 1e9,
        p50: at(50),
        p90: at(90),
        p95: at(95),
        p99: at(99),
        max: values[n - 1] / 1e9,
    }
}

fn served(recording: &Recording) -> Vec<RequestRecord> {
    let is_served =
        |request: &&RequestRecord| request.outcome == Outcome::Completed && !request.is_warmup;
    recording
        .requests
        .iter()
        .filter(is_served)
        .copied()
        .collect()
}

proptest! {
    #[test]
    fn latencies_follow_their_definitions(recording in any_recording()) {
        let summary = summarize(&recording, &pools(), None);
        let served = served(&recording);
        let over = |value: fn(&RequestRecord) -> f64| naive(served.iter().map(value).collect());
        // All sums are below 2^53, so that sums of floats are exact here as well.
        prop_assert_eq!(summary.latency.ttft_ms, over(|r| (r.first_token.0 - r.arrival.0) as f64));
        prop_assert_eq!(summary.latency.e2e_ms, over(|r| (r.finish.0 - r.arrival.0) as f64));
        prop_assert_eq!(summary.latency.queue_ms, over(|r| (r.first_scheduled.0 - r.arrival.0) as f64));
        let tpots = served.iter().filter(|r| r.output_tokens > 1);
        let tpots = tpots.map(|r| (r.finish.0 - r.first_token.0) as f64 / f64::from(r.output_tokens - 1));
        let expected = naive(tpots.collect());
        let ours = summary.latency.tpot_ms;
        prop_assert!((ours.mean - expected.mean).abs() <= 1e-12 * expected.mean, "{} {}", ours.mean, expected.mean);
        prop_assert_eq!(ours, Distribution { mean: ours.mean, ..expected });
        let gaps = recording.gaps.iter().flat_map(|run| {
            let gap = move |step: u32| (run.first.0 as i64 + run.slope_ps * i64::from(step)) as f64;
            (0..run.steps).flat_map(move |step| std::iter::repeat_n(gap(step), run.sequences as usize))
        });
        prop_assert_eq!(summary.latency.itl_ms, naive(gaps.collect()));
    }

    #[test]
    fn counts_add_up_and_every_number_is_finite(recording in any_recording(), ttft in 0.0f64..4000.0, itl in 0.0f64..200.0) {
        let sla = Sla { ttft_ms: Some(ttft), itl_ms: Some(itl) };
        let summary = summarize(&recording, &pools(), Some(sla));
        let counts = &summary.requests;
        prop_assert_eq!(counts.total, counts.completed + counts.rejected + counts.unfinished);
        prop_assert_eq!(counts.rejected, counts.rejected_by.values().sum::<u64>());
        let goodput = summary.goodput.as_ref().unwrap();
        prop_assert_eq!(goodput.requests, served(&recording).iter().filter(|r| sla.is_met_by(r)).count() as u64);
        for number in numbers(&summary) {
            prop_assert!(number.is_finite() && number >= 0.0, "{:?}", summary);
        }
    }

    #[test]
    fn the_order_of_requests_and_gaps_does_not_matter(recording in any_recording()) {
        let sla = Some(Sla { ttft_ms: Some(1000.0), itl_ms: Some(50.0) });
        let mut turned = recording.clone();
        turned.requests.reverse();
        turned.gaps.reverse();
        prop_assert_eq!(summarize(&recording, &pools(), sla), summarize(&turned, &pools(), sla));
    }

    #[test]
    fn series_conserve_requests_tokens_and_time(recording in any_recording(), window_s in 1.0f64..100.0) {
        let series = series(&recording, Span::from_s(window_s));
        let sum = |value: fn(&sim::Window) -> f64| series.windows.iter().map(value).sum::<f64>();
        let requests = &recording.requests;
        let count = |outcome: fn(Outcome) -> bool| requests.iter().filter(|r| outcome(r.outcome)).count() as f64;
        prop_assert_eq!(sum(|window| window.arrivals as f64), requests.len() as f64);
        prop_assert_eq!(sum(|window| window.completions as f64), count(|outcome| outcome == Outcome::Completed));
        prop_assert_eq!(sum(|window| window.rejections as f64), count(|outcome| matches!(outcome, Outcome::Rejected(_))));
        let tokens: f64 = requests.iter().map(|r| f64::from(r.output_tokens)).sum();
        let delivered = sum(|window| window.output_tokens_per_s) * series.window_s;
        prop_assert!((delivered - tokens).abs() <= 1e-6 * (1.0 + tokens), "{} of {}", delivered, tokens);
        let in_system = requests.iter().filter(|r| r.outcome == Outcome::Completed).map(|r| r.finish.since(r.arrival).as_s());
        let seen = (sum(|window| window.queued) + sum(|window| window.running)) * series.window_s;
        let least: f64 = in_system.sum();
        prop_assert!(seen >= least * (1.0 - 1e-9), "{} < {}", seen, least);
    }
}

#[test]
fn hits_of_tiers_are_kept_apart() {
    // Two workers with tiers admitted 5 and 3 times, 600 and 400 tokens, 100 of them in their caches: 900 were asked of the
    // hosts, which gave 96 + 64; 740 of the disks, which gave 148. A third worker has no tiers.
    let worker = |admissions, admitted_tokens, hit_tokens| WorkerRecord {
        admissions,
        admitted_tokens,
        hit_tokens,
        ..WorkerRecord::default()
    };
    let tier = |medium, peak_blocks, onboarded_blocks| TierRecord {
        medium,
        capacity_blocks: 10,
        peak_blocks,
        onboarded_blocks,
        offloaded_blocks: 20,
        ..TierRecord::default()
    };
    let fetch = |request, from: f64, to: f64, tokens| FetchRecord {
        request: RequestId(request),
        worker: WorkerId(0),
        began: ms(from),
        ended: ms(to),
        tokens,
    };
    let recording = Recording {
        workers: vec![worker(5, 600, 100), worker(3, 400, 0), worker(9, 9_999, 0)],
        kvbm: Some(KvbmRecord {
            tiers: vec![tier(0, 4, 6), tier(1, 9, 0), tier(0, 8, 4), tier(1, 1, 9)],
            workers: vec![true, true, false],
            fetches: vec![
                fetch(0, 0.0, 10.0, [96, 0, 0]),
                fetch(1, 5.0, 35.0, [64, 148, 0]),
            ],
            is_settled: true,
        }),
        ..Recording::default()
    };
    let pools = ["all".to_owned()];
    let kvbm = summarize(&recording, &pools, None)
        .kvbm
        .expect("there are tiers");
    assert_eq!((kvbm.onboardings, kvbm.onboard_ms.mean), (2, 20.0));
    let (host, disk) = (kvbm.host.expect("a host"), kvbm.disk.expect("a disk"));
    let shares = |tier: TierUse| {
        [
            tier.token_share,
            tier.hit_share,
            tier.request_share,
            tier.peak_share,
        ]
    };
    assert_eq!(shares(host), [0.16, 160.0 / 900.0, 0.25, 0.8]);
    assert_eq!(shares(disk), [0.148, 0.2, 0.125, 0.9]);
    assert_eq!(
        (
            host.onboarded_blocks,
            host.offloaded_blocks,
            host.capacity_blocks
        ),
        (10, 40, 20)
    );
    assert_eq!(kvbm.object, None);
}
