//! Passes of a small decoder: a chunk of a prompt, and a batch that decodes.

use divan::counter::ItemsCount;
use engine::Chunk;
use executor::sweep::{Limits, Point};
use executor::{CpuExecutor, CpuSettings, Model, ModelConfig, Tokens, WeightSource};
use std::sync::Arc;

fn main() {
    divan::main();
}

const CONFIG: &str = include_str!("../../examples/tiny-qwen3.json");
const LIMITS: Limits = Limits {
    step_tokens: 192,
    sequences: 16,
    longest: 1024,
    blocks: 400,
    block_size: 16,
};

fn pass(bencher: divan::Bencher<'_, '_>, point: &Point) {
    let config = ModelConfig::parse("tiny-qwen3.json", CONFIG).expect("good");
    let tokens = Arc::new(Tokens::new(LIMITS.contents(), config.vocab, 1));
    let model = Model::new(config, &WeightSource::Generated(1)).expect("generated");
    let settings = CpuSettings {
        num_gpu_blocks: LIMITS.blocks + 1,
        block_size: LIMITS.block_size,
        threads: 1,
    };
    let mut worker = CpuExecutor::new(Arc::new(model), tokens, settings).expect("memory");
    worker.fill_kv();
    let batch = point.batch(&LIMITS, &LIMITS.scattered_blocks(1));
    bencher
        .counter(ItemsCount::new(batch.new_tokens()))
        .bench_local(|| worker.logits(&batch));
}

#[divan::bench(args = [0, 512])]
fn prefill_192(bencher: divan::Bencher<'_, '_>, cached_tokens: u32) {
    let chunk = Chunk {
        new_tokens: 192,
        cached_tokens,
    };
    let point = Point {
        kind: "prefill",
        prefill: vec![chunk],
        decode: Vec::new(),
    };
    pass(bencher, &point);
}

#[divan::bench(args = [1, 8])]
fn decode_512(bencher: divan::Bencher<'_, '_>, batch: usize) {
    let point = Point {
        kind: "decode",
        prefill: Vec::new(),
        decode: vec![512; batch],
    };
    pass(bencher, &point);
}
