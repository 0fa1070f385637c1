//! Measured steps as lines of JSON: forward-pass metrics, as `dynosim calibrate fit-steps` reads them, and what else is known.

use engine::Chunk;
use serde_json::{Value, json};
use sim::live::RealStep;

/// What a step held.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// Pieces of prompts.
    pub prefill: &'a [Chunk],
    /// Sequences that decode.
    pub decode_batch: u32,
    /// Their summed context, new tokens included.
    pub decode_context: u64,
}

/// A step of `worker`, its `counter`-th, that took `seconds`.
pub fn line(worker: u32, counter: u64, seconds: f64, held: Held<'_>) -> Value {
    let sum = |of: fn(&Chunk) -> u32| {
        held.prefill
            .iter()
            .map(|chunk| u64::from(of(chunk)))
            .sum::<u64>()
    };
    json!({
        "version": 1,
        "worker_id": worker.to_string(),
        "dp_rank": 0,
        "counter_id": counter,
        "wall_time": seconds,
        "scheduled_requests": {
            "num_prefill_requests": held.prefill.len(),
            "sum_prefill_tokens": sum(|chunk| chunk.new_tokens),
            "sum_prefill_kv_tokens": sum(|chunk| chunk.cached_tokens),
            "num_decode_requests": held.decode_batch,
            "sum_decode_kv_tokens": held.decode_context - u64::from(held.decode_batch),
        },
    })
}

/// The steps of a real run, a line each, in the order in which they ended.
pub fn of_run(steps: &[RealStep]) -> String {
    let mut counters = std::collections::BTreeMap::new();
    let mut text = String::new();
    for step in steps {
        let counter = counters.entry(step.worker).or_insert(0);
        *counter += 1;
        text += &format!("{}\n", of_step(step, *counter));
    }
    text
}

/// A step of a real run, the `counter`-th of its worker.
pub fn of_step(step: &RealStep, counter: u64) -> Value {
    let held = Held {
        prefill: &step.prefill,
        decode_batch: step.decode_batch,
        decode_context: step.decode_context,
    };
    let mut line = line(step.worker.0, counter, step.wall_time().as_s(), held);
    line["host_time"] = json!(step.host_time().as_s());
    line["handed_over_s"] = json!(step.handed_over.as_s());
    line["ready_s"] = json!(step.ready.as_s());
    line["began_s"] = json!(step.began.as_s());
    line
}
