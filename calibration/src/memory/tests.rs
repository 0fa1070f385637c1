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
    // 0.9 x 25,250,627,584 - 16,060,522,496 - 2 x 11 x 2048 x 4096 - 2^28 - 24 x 256 x 128,256
    //   = 5,424,052,505; / (16 x 131,072) = 2,586.
    assert_eq!(capacity.blocks, 2_586);
    assert!((capacity.blocks as f64 / 2_588.0 - 1.0).abs() < 0.01);
    assert_eq!(capacity.tokens, 2_586 * 16);
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

/// The same under another engine's rule, with its own share of the memory.
fn of_engine<'a>(question: KvQuestion<'a>, backend: Backend) -> KvQuestion<'a> {
    KvQuestion {
        backend,
        memory_fraction: None,
        max_num_batched_tokens: 8_192,
        ..question
    }
}

#[test]
fn sglang_follows_its_own_defaults() {
    let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
    // H100, 81,090 MiB: 512 + 1.5 x 8,192 + 2 x 256 + 1,024 / 8 = 13,440 MiB are reserved; (81,090 - 13,440) / 81,090.
    let h100 = of_engine(question(&model, "h100_sxm", 1), Backend::Sglang);
    assert_eq!(default_memory_fraction(&h100), 0.834);
    // On four: graphs of 512, 1,024 x 4 / 8: 14,336.
    let four = of_engine(question(&model, "h100_sxm", 4), Backend::Sglang);
    assert_eq!(default_memory_fraction(&four), 0.823);
    // Chunks of 2,048 reserve less than 10 GiB: 3,072 + 512 + 512 + 128.
    let small = KvQuestion {
        max_num_batched_tokens: 2_048,
        ..h100
    };
    assert_eq!(default_memory_fraction(&small), 0.874);
    // L4: 23,034 MiB, graphs of 24.
    let l4 = KvQuestion {
        max_num_batched_tokens: 2_048,
        ..of_engine(question(&model, "l4", 1), Backend::Sglang)
    };
    assert_eq!(default_memory_fraction(&l4), 0.837);

    // (81,090 - 614) MiB x 0.834 - 16,060,522,496 bytes, in blocks of 16 x 131,072 bytes.
    let capacity = kv_capacity(&h100).expect("it fits");
    assert_eq!(capacity.blocks, 25_900);
    let given = KvQuestion {
        memory_fraction: Some(0.834),
        ..h100
    };
    assert_eq!(kv_capacity(&given).expect("the same"), capacity);
}

#[test]
fn a_run_of_sglang_is_met_within_five_per_cent() {
    // Qwen3-235B-A22B-FP8 on 4 x H100 at mem_fraction_static 0.93: "KV Cache is allocated. #tokens: 367404"
    // (vLLM issue 21348).
    let model = Model::find("Qwen/Qwen3-235B-A22B-FP8").expect("embedded");
    let question = KvQuestion {
        memory_fraction: Some(0.93),
        block_size: 1,
        ..of_engine(question(&model, "h100_sxm", 4), Backend::Sglang)
    };
    let capacity = kv_capacity(&question).expect("it ran");
    let error = capacity.tokens as f64 / 367_404.0 - 1.0;
    assert!(error.abs() < 0.05, "{error}: {capacity:?}");
}

#[test]
fn tensorrt_llm_takes_a_share_of_what_is_free() {
    let model = Model::find("meta-llama/Llama-3.1-8B").expect("embedded");
    let question = of_engine(question(&model, "h100_sxm", 1), Backend::Trtllm);
    let capacity = kv_capacity(&question).expect("it fits");
    // 85,029,027,840 - 16,060,522,496 - 2 x 11 x 8,192 x 4,096 - 2^30 = 67,156,566,016 are free, 0.9 of them 28,820 blocks
    // of 2,097,152 bytes.
    assert_eq!(capacity.blocks, 28_820);
    // A tenth of what is free is less than a tenth of all.
    let vllm = KvQuestion {
        backend: Backend::Vllm,
        ..question
    };
    assert!(kv_capacity(&vllm).expect("it fits").blocks < capacity.blocks);
}

#[test]
fn windows_are_set_aside() {
    let model = Model::find("openai/gpt-oss-120b").expect("embedded");
    let vllm = KvQuestion {
        memory_fraction: Some(0.95),
        ..question(&model, "h100_sxm", 1)
    };
    let capacity = kv_capacity(&vllm).expect("it fits, barely");
    // Pages of 16 tokens in 18 layers of 2,048 bytes.
    assert_eq!(capacity.kv_bytes_per_token_per_gpu, 18 * 2_048);
    let kv_bytes = capacity.usable_bytes - capacity.weight_bytes - capacity.reserved_bytes;
    let pages = kv_bytes / (16 * 18 * 2_048);
    // 256 sequences of 8 + 1 blocks of their windows and 2,048 / 16 of the chunks.
    assert_eq!(capacity.blocks, pages - 256 * 9 - 128);
    // Very many sequences: half of the pages are full whatever their lengths are.
    let many = KvQuestion {
        max_num_seqs: 6_000,
        ..question(&model, "h200_sxm", 1)
    };
    let capacity = kv_capacity(&many).expect("it fits");
    let kv_bytes = capacity.usable_bytes - capacity.weight_bytes - capacity.reserved_bytes;
    assert_eq!(capacity.blocks, kv_bytes / (16 * 18 * 2_048) / 2);

    // SGLang: 18 + 0.8 x 18 layers of every token; TensorRT-LLM: all 36.
    let h200 = question(&model, "h200_sxm", 1);
    for (backend, bytes) in [
        (Backend::Sglang, 18 * 2_048 + 18 * 2_048 * 8 / 10),
        (Backend::Trtllm, 36 * 2_048),
    ] {
        let capacity = kv_capacity(&of_engine(h200, backend)).expect("it fits");
        assert_eq!(capacity.kv_bytes_per_token_per_gpu, bytes);
    }
}

#[test]
fn every_engine_names_its_share() {
    let model = Model::find("Qwen/Qwen3-30B-A3B").expect("embedded");
    for (backend, name) in [
        (Backend::Vllm, "gpu_memory_utilization"),
        (Backend::Sglang, "mem_fraction_static"),
        (Backend::Trtllm, "free_gpu_memory_fraction"),
    ] {
        let bad = KvQuestion {
            backend,
            memory_fraction: Some(1.5),
            expert_parallel: 3,
            max_num_seqs: 0,
            ..question(&model, "h100_sxm", 2)
        };
        let error = kv_capacity(&bad).expect_err("three mistakes");
        assert_eq!(error.problems().len(), 3, "{error}");
        let message = error.to_string();
        assert!(message.contains(&format!("{name}: found 1.5")), "{message}");
        assert!(message.contains("with tp 2 it can be 1, 2"), "{message}");
    }
    let dealt_out = KvQuestion {
        expert_parallel: 2,
        ..question(&model, "a30", 2)
    };
    let message = kv_capacity(&dealt_out)
        .expect_err("28 GiB on 24")
        .to_string();
    assert!(message.contains("tp 4 would fit"), "{message}");
}

#[test]
fn runs_of_mixtures_with_vllm_are_met_closely() {
    // `vllm serve` runs up to 1,024 sequences on an H100. Qwen3-235B-A22B-FP8 on four, 8,192 batched tokens: "GPU KV cache
    // size: 178,880 tokens" (vLLM issue 21348).
    let serve = |question| KvQuestion {
        max_num_seqs: 1_024,
        ..question
    };
    let model = Model::find("Qwen/Qwen3-235B-A22B-FP8").expect("embedded");
    let qwen = KvQuestion {
        max_num_batched_tokens: 8_192,
        ..serve(question(&model, "h100_sxm", 4))
    };
    let capacity = kv_capacity(&qwen).expect("it ran");
    let error = capacity.tokens as f64 / 178_880.0 - 1.0;
    assert!(error.abs() < 0.05, "{error}: {capacity:?}");
    // gpt-oss-120b on one at 0.95 with 1,024 batched tokens: "Available KV cache memory: 1.71 GiB" (vLLM issue 27508).
    let model = Model::find("openai/gpt-oss-120b").expect("embedded");
    let gpt_oss = KvQuestion {
        max_num_batched_tokens: 1_024,
        memory_fraction: Some(0.95),
        ..serve(question(&model, "h100_sxm", 1))
    };
    let capacity = kv_capacity(&gpt_oss).expect("it ran");
    let kv_bytes = capacity.usable_bytes - capacity.weight_bytes - capacity.reserved_bytes;
    let error = kv_bytes as f64 / GIB / 1.71 - 1.0;
    assert!(error.abs() < 0.08, "{error}: {capacity:?}");
}
