//! The cost of a summary: as many requests and runs of gaps as an hour of traffic leaves behind.
//!
//! `cargo bench -p sim --bench metrics`

use divan::{Bencher, black_box};
use engine::{Span, Time};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use sim::quantile::values_at_ranks;
use sim::{GapRun, Outcome, Recording, RequestRecord, Sla, WorkerRecord, series, summarize};

fn main() {
    divan::main();
}

/// 12,000 requests on 8 workers and 60,000 runs: two thirds are single steps stretched by a prefill, the others are coasts
/// of up to 200 steps that start between 6 and 12 ms and grow by some microseconds a step.
fn an_hour() -> Recording {
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let requests = (0..12_000u64)
        .map(|index| request(index, &mut rng))
        .collect();
    let gaps = (0..60_000).map(|index| gap_run(index, &mut rng)).collect();
    let worker = WorkerRecord {
        gpus: 1,
        kv_blocks: 2048,
        block_size: 512,
        ..WorkerRecord::default()
    };
    Recording {
        ahead: Vec::new(),
        requests,
        workers: vec![worker; 8],
        gaps,
        transfers: Vec::new(),
        links: Vec::new(),
        kvbm: None,
        adversity: None,
        scaling: None,
    }
}

fn request(index: u64, rng: &mut impl Rng) -> RequestRecord {
    let arrival = Time::from_ms(index as f64 * 300.0);
    let placed = arrival + Span::from_ms(rng.random_range(0.0..1000.0));
    let first_token = placed + Span::from_ms(rng.random_range(20.0..2000.0));
    RequestRecord {
        arrival,
        placed,
        first_scheduled: placed,
        first_token,
        finish: first_token + Span::from_ms(rng.random_range(0.0..10_000.0)),
        worker: (index % 8) as u32,
        input_tokens: rng.random_range(1..100_000),
        output_tokens: rng.random_range(1..1000),
        cached_tokens: 0,
        router_overlap_tokens: 0,
        preemptions: 0,
        outcome: Outcome::Completed,
        is_warmup: false,
    }
}

fn gap_run(index: u64, rng: &mut impl Rng) -> GapRun {
    let sequences = rng.random_range(1..32);
    if index.is_multiple_of(3) {
        let first = Span::from_ms(rng.random_range(6.0..12.0));
        GapRun {
            first,
            slope_ps: 16_000 * i64::from(sequences),
            steps: rng.random_range(1..200),
            sequences,
        }
    } else {
        GapRun {
            first: Span::from_ms(rng.random_range(8.0..900.0)),
            slope_ps: 0,
            steps: 1,
            sequences,
        }
    }
}

#[divan::bench]
fn summary_of_an_hour(bencher: Bencher) {
    let recording = an_hour();
    let sla = Some(Sla {
        ttft_ms: Some(500.0),
        itl_ms: Some(20.0),
    });
    bencher.bench(|| summarize(black_box(&recording), &["aggregated".to_owned()], sla));
}

#[divan::bench]
fn gap_quantiles(bencher: Bencher) {
    let recording = an_hour();
    let total: u64 = recording
        .gaps
        .iter()
        .map(|run| u64::from(run.steps) * u64::from(run.sequences))
        .sum();
    let ranks = [
        1,
        total / 2,
        total / 10 * 9,
        total / 20 * 19,
        total / 100 * 99,
        total,
    ];
    bencher.bench(|| values_at_ranks(black_box(&recording.gaps), &ranks));
}

/// All runs cover the same range: no list shrinks until single steps are told apart.
#[divan::bench]
fn gap_quantiles_worst_case(bencher: Bencher) {
    let gaps: Vec<GapRun> = (0..60_000u64)
        .map(|index| GapRun {
            first: Span(1_000_000 + index),
            slope_ps: 1000,
            steps: 1000,
            sequences: 1,
        })
        .collect();
    let total = 60_000_000;
    let ranks = [
        1,
        total / 2,
        total / 10 * 9,
        total / 20 * 19,
        total / 100 * 99,
        total,
    ];
    bencher.bench(|| values_at_ranks(black_box(&gaps), &ranks));
}

#[divan::bench]
fn series_by_minute(bencher: Bencher) {
    let recording = an_hour();
    bencher.bench(|| series(black_box(&recording), Span::from_s(60.0)));
}
