//! Making, describing and fitting workloads of the size of the public conversation trace: 12,031 requests, 145 million
//! prompt tokens. `cargo bench -p traces`.

use divan::Bencher;
use traces::{Description, SynthSpec};

fn main() {
    divan::main();
}

#[divan::bench]
fn generate_quick() -> traces::Trace {
    SynthSpec::quick().generate(1).expect("a preset is good")
}

#[divan::bench]
fn generate_conversation() -> traces::Trace {
    SynthSpec::conversation()
        .generate(1)
        .expect("a preset is good")
}

#[divan::bench(args = [512, 16])]
fn describe_conversation(bencher: Bencher, block_size: u32) {
    let trace = SynthSpec::conversation()
        .generate(1)
        .expect("a preset is good");
    bencher.bench(|| Description::in_blocks_of(&trace, block_size));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn fit_conversation(bencher: Bencher) {
    let trace = SynthSpec::conversation()
        .generate(1)
        .expect("a preset is good");
    bencher.bench(|| SynthSpec::like(&trace));
}
