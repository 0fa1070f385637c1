//! KV blocks by hand and against real runs.

use super::*;

fn question<'a>(model: &'a Model, gpu: &str, tensor_parallel: u32) -> KvQuestion<'a> {
    KvQuestion {
        backend: Backend::Vllm,
        model,
        gpu: Gpu::find(gpu).expect("known"),
        tensor_parallel,
        expert_parallel: 1,
        kv_cache: Precision::Bf16,
        block_size: 16,
        memory_fraction: Some(0.9),
        max_num_batched_tokens: 2_048,
        max_num_seqs: 256,
    }
}

#[test]
fn a_real_run_is_met_within_one_per_cent() {
    // vLLM 0.19.0, Llama-3.1-8B bf16 on an RTX 4090 (25,250,627,584 bytes) at 0.9: 2,588 blocks of 16 tokens.
    let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
    let capacity = kv_capacity(&question(&model, "rtx_4090", 1)).expect("it ran");
    // 0.9 x 25,250,627,584 - 16,060,522,496 - 2 x 11 x 2048 x 4096 - 2^30 = 5,406,751,129; / (16 x 131,072) = 2,578.
    assert_eq!(capacity.blocks, 2_578);
    assert!((capacity.blocks as f64 / 2_588.0 - 1.0).abs() < 0.01);
    assert_eq!(capacity.tokens, 2_578 * 16);
}

#[test]
fn what_does_not_fit_says_what_would() {
    let model = Model::find("meta-llama/Llama-3.1-70B").expect("embedded");
    let error =
        kv_capacity(&question(&model, "h100_sxm", 1)).expect_err("141 GB of weights on 80 GB");
    assert!(
        matches!(
            error,
            CalibrationError::DoesNotFit {
                needs_tensor_parallel: Some(2),
                ..
            }
        ),
        "{error}"
    );
    // On two, 0.9 x 79.19 = 71.27 GiB less 65.71 of weights, 0.20 of activations, 0.33 and 1 of reserves leave 4.02 GiB,
    // or 26,365 tokens of 163,840 bytes.
    assert!(
        error.to_string().contains("131.4 GiB of weights"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("tp 2 would fit, with room for 26"),
        "{error}"
    );
    assert!(kv_capacity(&question(&model, "h100_sxm", 2)).is_ok());
    let big = Model::find("meta-llama/Llama-3.1-405B").expect("embedded");
    let error = kv_capacity(&question(&big, "h100_sxm", 8))
        .expect_err("812 GB on 640 GB")
        .to_string();
    assert!(error.contains("no tp up to the 8 GPUs"), "{error}");
}

#[test]
fn more_room_gives_more_blocks() {
    let model = Model::find("Qwen/Qwen3-32B").expect("embedded");
    let blocks = |gpu, tp, utilization| {
        let question = KvQuestion {
            memory_fraction: Some(utilization),
            ..question(&model, gpu, tp)
        };
        kv_capacity(&question).expect("it fits").blocks
    };
    assert!(blocks("h200_sxm", 1, 0.9) < blocks("h200_sxm", 1, 0.95));
    assert!(blocks("h200_sxm", 1, 0.9) < blocks("h200_sxm", 2, 0.9));
    assert!(blocks("h100_sxm", 2, 0.9) < blocks("h200_sxm", 2, 0.9));
}

#[test]
fn bad_input_is_reported_at_once() {
    let model = Model::find("Qwen/Qwen2.5-7B").expect("embedded");
    let bad = KvQuestion {
        block_size: 0,
        memory_fraction: Some(f64::NAN),
        max_num_batched_tokens: 0,
        ..question(&model, "h100_sxm", 8)
    };
    let error = kv_capacity(&bad).expect_err("four mistakes");
    assert_eq!(error.problems().len(), 4, "{error}");
    assert!(
        error.to_string().contains("can be split over 1, 2, 4"),
        "{error}"
    );
}
