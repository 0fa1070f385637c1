//! Step predictions per second: `cargo bench -p calibration`. A reference engine does 6 to 57 thousand per CPU-second.

use calibration::{
    Gpu, Linear, MeasuredSpec, Model, PolynomialSpec, Precision, RooflineSpec, TimingSpec,
    WorkerContext,
};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use engine::{Chunk, StepShape, StepTime};

const CALLS: u64 = 1_024;
const SOURCES: [&str; 4] = ["linear", "polynomial", "roofline", "measured"];

fn main() {
    divan::main();
}

fn timing(source: &str) -> Box<dyn StepTime> {
    let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
    let worker = WorkerContext {
        capacity_tokens: 1_048_576,
        model: Some(&model),
        gpu: Some(Gpu::find("h100_sxm").expect("known")),
        tensor_parallel: 1,
        expert_parallel: 1,
        kv_cache: Precision::Bf16,
        ranks: 1,
    };
    let spec = match source {
        "linear" => TimingSpec::Linear(Linear::from_ns(6_000_000, 40_000, 15)),
        "polynomial" => TimingSpec::Polynomial(PolynomialSpec::default()),
        "measured" => TimingSpec::Measured(MeasuredSpec::default()),
        _ => TimingSpec::Roofline(RooflineSpec::default()),
    };
    spec.compile(&worker).expect("a good spec")
}

#[divan::bench(args = SOURCES)]
fn decode(bencher: Bencher<'_, '_>, source: &str) {
    let timing = timing(source);
    bencher.counter(ItemsCount::new(CALLS)).bench_local(|| {
        (0..CALLS)
            .map(|i| {
                let context = (i * 7_919) % 1_100_000;
                timing.decode(black_box(64), context).time(context).0
            })
            .fold(0, u64::wrapping_add)
    });
}

#[divan::bench(args = SOURCES)]
fn mixed(bencher: Bencher<'_, '_>, source: &str) {
    let timing = timing(source);
    let chunks = [
        Chunk {
            new_tokens: 2_000,
            cached_tokens: 512,
        },
        Chunk {
            new_tokens: 6_000,
            cached_tokens: 0,
        },
    ];
    bencher.counter(ItemsCount::new(CALLS)).bench_local(|| {
        (0..CALLS)
            .map(|i| {
                let shape = StepShape {
                    prefill: black_box(&chunks),
                    decode_batch: 32,
                    decode_context: 32_000 + i,
                };
                timing.mixed(&shape).0
            })
            .fold(0, u64::wrapping_add)
    });
}

#[divan::bench(args = SOURCES)]
fn compile(source: &str) -> Box<dyn StepTime> {
    timing(black_box(source))
}
