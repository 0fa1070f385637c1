//! Copies of KV blocks, measured: a row for each direction and count, and a line through each direction.

use crate::cli::Failure;
use executor::copies::{CopyTimes, Direction, counts, line};
use executor::sweep::Limits;
use executor::worker::Worker;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Times that count, of each copy.
const REPEATS: usize = 10;
/// A copy of more bytes is not measured: rates do not change any more, and the host's memory is not ours alone.
const MOST_BYTES: u64 = 1 << 30;

/// What was measured.
pub struct Copies(Vec<CopyTimes>);

/// Measures on one worker, the others idle, and writes rows as they come.
///
/// # Errors
/// A device that gives up, or a file that cannot be written.
pub fn measure(
    worker: &mut Worker,
    limits: &Limits,
    path: &Path,
    mut file: &File,
) -> Result<Copies, Failure> {
    let scattered = limits.scattered_blocks(0);
    let mut all = Vec::new();
    for direction in Direction::ALL {
        for count in counts(limits) {
            if count as u64 * worker.block_bytes() > MOST_BYTES {
                continue;
            }
            let times = worker.copy_times(direction, count, &scattered, REPEATS);
            let times = times.map_err(|error| Failure::run(format!("--real: {error}")))?;
            writeln!(file, "{}", as_json(&times)).map_err(|error| {
                let path = path.display();
                Failure::run(format!("--kv-copies {path}: cannot write: {error}"))
            })?;
            all.push(times);
        }
    }
    Ok(Copies(all))
}

fn as_json(times: &CopyTimes) -> Value {
    let median = times.quantile(0.5);
    json!({
        "direction": times.direction.name(),
        "blocks": times.blocks,
        "block_bytes": times.block_bytes,
        "bytes": times.bytes(),
        "seconds": median,
        "p10_s": times.quantile(0.1),
        "p90_s": times.quantile(0.9),
        "bytes_per_s": times.bytes() as f64 / median,
    })
}

impl Copies {
    fn lines(&self) -> impl Iterator<Item = (Direction, f64, f64)> {
        Direction::ALL.into_iter().filter_map(|direction| {
            let times = self.0.iter().filter(|times| times.direction == direction);
            let (latency, rate) = line(&times.cloned().collect::<Vec<_>>())?;
            Some((direction, latency, rate))
        })
    }

    /// Latency and rate by direction.
    pub fn as_json(&self) -> Value {
        let lines = self.lines().map(|(direction, latency, rate)| {
            json!({"direction": direction.name(), "latency_us": 1e6 * latency, "bytes_per_s": rate})
        });
        lines.collect()
    }

    /// The same in words, a line each.
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        for (direction, latency, rate) in self.lines() {
            let way = match direction {
                Direction::Within => "within the pool",
                Direction::Out => "out to the host",
                Direction::In => "in from the host",
            };
            let _ = writeln!(
                text,
                "KV blocks {way}: {:.1} us and {:.2} GB/s",
                1e6 * latency,
                1e-9 * rate
            );
        }
        text
    }
}
