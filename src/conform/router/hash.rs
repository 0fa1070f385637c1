//! Cases of kind `hash`: names of blocks.

use super::{Comparison, first_difference, read};
use serde::Deserialize;
use serde_json::Value;
use sim::router::hash::{HashScope, local_hashes, sequence_hashes};

#[derive(Deserialize)]
struct Input {
    tokens: Vec<u32>,
    block_size: u32,
    #[serde(default)]
    lora_name: String,
    #[serde(default)]
    cache_namespace: String,
    #[serde(default)]
    is_eagle: bool,
}

#[derive(Deserialize)]
struct Expected {
    local_hashes: Vec<String>,
    sequence_hashes: Vec<String>,
}

pub fn compare(input: Value, expected: Value) -> Result<Comparison, String> {
    let (input, expected): (Input, Expected) = (read("input", input)?, read("expected", expected)?);
    let scope = HashScope {
        lora_name: &input.lora_name,
        cache_namespace: &input.cache_namespace,
        is_eagle: input.is_eagle,
    };
    let local = local_hashes(&input.tokens, input.block_size, &scope);
    let ours: Vec<String> = [&local, &sequence_hashes(&local)]
        .into_iter()
        .flatten()
        .map(u64::to_string)
        .collect();
    let recorded = [expected.local_hashes, expected.sequence_hashes].concat();
    Ok(first_difference(&recorded, &ours))
}
