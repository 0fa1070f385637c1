//! Reads a trace and says what it costs: `cargo run --release -p traces --example load -- FILE`.

use std::path::PathBuf;
use std::time::Instant;

use traces::{ReadOptions, read};

fn main() {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: load FILE");
        std::process::exit(2);
    };
    let begin = Instant::now();
    let loaded = read(&path, &ReadOptions::default()).unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(2);
    });
    let read_time = begin.elapsed();
    let workload = loaded.trace.workload();
    let time = begin.elapsed();
    let trace = &loaded.trace;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    println!(
        "{}: {} requests, {} block references, {} unique, {:.3} s, {} nodes, {} + {} bytes, read {:.2} ms, all {:.2} ms",
        loaded.format,
        trace.rows.len(),
        trace.block_list.len(),
        trace.unique_blocks,
        trace.span().as_s(),
        workload.tree.len(),
        trace.heap_bytes(),
        workload.heap_bytes(),
        read_time.as_secs_f64() * 1e3,
        time.as_secs_f64() * 1e3,
    );
}
