//! Shapes against model cards and by hand.

use super::*;

fn model(id: &str) -> Model {
    Model::find(id).expect("embedded")
}

#[test]
fn parameters_are_those_of_the_model_cards() {
    for (id, billions) in [
        ("meta-llama/Llama-3.1-8B", 8.03),
        ("meta-llama/Llama-3.1-70B", 70.55),
        ("meta-llama/Llama-3.1-405B", 405.85),
        ("meta-llama/Llama-3.2-1B", 1.24),
        ("meta-llama/Llama-3.2-3B", 3.21),
        ("meta-llama/Llama-2-7b-hf", 6.74),
        ("meta-llama/Llama-2-13b-hf", 13.02),
        ("mistralai/Mistral-7B-v0.3", 7.25),
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.494),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.54),
        ("Qwen/Qwen2.5-3B-Instruct", 3.09),
        ("Qwen/Qwen2.5-7B", 7.62),
        ("Qwen/Qwen2.5-14B-Instruct", 14.77),
        ("Qwen/Qwen2.5-32B-Instruct", 32.76),
        ("Qwen/Qwen2.5-72B", 72.71),
        ("Qwen/Qwen3-0.6B", 0.596),
        ("Qwen/Qwen3-1.7B", 1.72),
        ("Qwen/Qwen3-4B", 4.02),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-14B", 14.77),
        ("Qwen/Qwen3-32B", 32.76),
        ("Qwen/Qwen3-30B-A3B", 30.53),
        ("Qwen/Qwen3-235B-A22B", 235.09),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480.15),
        ("mistralai/Mixtral-8x7B-v0.1", 46.70),
        ("mistralai/Mixtral-8x22B-v0.1", 140.62),
        ("deepseek-ai/DeepSeek-V3", 671.03),
        ("moonshotai/Kimi-K2-Instruct", 1_026.4),
        ("MiniMaxAI/MiniMax-M2.5", 228.69),
        // Hugging Face counts the layer that predicts a second token too: 358 B and 110 B.
        ("zai-org/GLM-4.5", 352.8),
        ("zai-org/GLM-4.6", 352.8),
        ("zai-org/GLM-4.5-Air", 106.85),
        ("openai/gpt-oss-120b", 116.83),
        ("openai/gpt-oss-20b", 20.91),
    ] {
        let found = model(id).parameters() as f64 / 1e9;
        assert!(
            (found / billions - 1.0).abs() < 0.005,
            "{id}: {found} B, published {billions} B"
        );
    }
}

#[test]
fn bytes_by_hand() {
    // 2 x 128256 x 4096 + 4096 + 32 x (2 x 4096 x 4096 + 2 x 4096 x 1024 + 3 x 4096 x 14336 + 2 x 4096)
    //   = 1,050,673,152 + 4,096 + 32 x 218,112,000 = 8,030,261,248 parameters of 2 bytes.
    let llama = model("meta-llama/Llama-3.1-8B");
    assert_eq!(llama.weight_bytes(), 16_060_522_496);
    // 2 x 32 layers x 8 heads x 128 x 2 bytes.
    assert_eq!(llama.kv_bytes_per_token(Precision::Bf16), 131_072);
    assert_eq!(llama.kv_bytes_per_token(Precision::Fp8), 65_536);
    assert_eq!(
        model("meta-llama/Llama-3.1-70B").kv_bytes_per_token(Precision::Bf16),
        327_680
    );
    // Two GPUs hold half of all but the norms (65 x 4096 x 2 bytes are copied).
    assert_eq!(
        llama.weight_bytes_per_gpu(Widths::tensor(2)),
        (16_060_522_496 + 65 * 4096 * 2) / 2
    );
    assert_eq!(
        llama.weight_bytes_per_gpu(Widths::tensor(1)),
        llama.weight_bytes()
    );
    // 16 GPUs hold one KV head each, twice over.
    assert_eq!(
        llama.kv_bytes_per_token_per_gpu(16, Precision::Bf16),
        131_072 / 8
    );
    // FP8 halves the projections only: 2 x 1,050,673,152 + 32 x (218,103,808 + 2 x 8,192) + 2 x 4,096 bytes.
    assert_eq!(
        model("nvidia/Llama-3.1-8B-Instruct-FP8").weight_bytes(),
        9_081_200_640
    );
}

#[test]
fn latent_attention_and_experts_by_hand() {
    let deepseek = model("deepseek-ai/DeepSeek-V3");
    // 61 layers x (512 + 64) numbers, on every GPU.
    assert_eq!(deepseek.kv_bytes_per_token(Precision::Bf16), 70_272);
    assert_eq!(
        deepseek.kv_bytes_per_token_per_gpu(8, Precision::Fp8),
        35_136
    );
    let (whole, eighth) = (
        deepseek.weight_bytes(),
        deepseek.weight_bytes_per_gpu(Widths::tensor(8)),
    );
    // The down-projections are on every GPU: 61 x 7,168 x 2,112 bytes.
    let copied = 61 * 7_168 * 2_112;
    let expected = (whole - copied) / 8 + copied;
    assert!(
        eighth.abs_diff(expected) < expected / 200,
        "{eighth} of {whole}"
    );
    let qwen = model("Qwen/Qwen3-235B-A22B");
    assert_eq!(
        qwen.kv_bytes_per_token(Precision::Bf16),
        2 * 94 * 4 * 128 * 2
    );
    assert_eq!(qwen.check_tensor_parallel(8), Ok(()));
    let minimax = model("MiniMaxAI/MiniMax-M2.5");
    assert_eq!(
        minimax.legal_tensor_parallel(8).collect::<Vec<_>>(),
        [1, 2, 4, 8]
    );
    assert_eq!(
        minimax.beyond_dense().as_deref(),
        Some("mixture of experts")
    );
}

#[test]
fn tensor_parallelism_must_divide() {
    let qwen = model("Qwen/Qwen2.5-7B");
    assert_eq!(qwen.legal_tensor_parallel(8).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(
        qwen.check_tensor_parallel(8),
        Err("must divide the 28 attention heads".to_owned())
    );
    assert!(qwen.check_tensor_parallel(0).is_err());
    assert_eq!(
        model("Qwen/Qwen3-32B")
            .legal_tensor_parallel(8)
            .collect::<Vec<_>>(),
        [1, 2, 4, 8]
    );
    let odd = Model {
        heads: 24,
        kv_heads: 8,
        ..model("Qwen/Qwen3-8B")
    };
    assert_eq!(
        odd.check_tensor_parallel(3),
        Err("must divide, or be a multiple of, the 8 KV heads".to_owned())
    );
}

#[test]
fn names_are_found_in_any_case_and_typos_answered() {
    assert_eq!(model("QWEN/qwen3-8b").id, "Qwen/Qwen3-8B");
    let message = Model::find("meta-llama/Lama-3.1-8B")
        .expect_err("a typo")
        .to_string();
    assert!(
        message.contains("did you mean `meta-llama/Llama-3.1-8B`?"),
        "{message}"
    );
    let message = Model::find("zai-org/GLM-5")
        .expect_err("sparse attention")
        .to_string();
    assert!(
        message.contains("is not modelled yet: sparse attention"),
        "{message}"
    );
    assert!(matches!(
        Model::find("Qwen/Qwen3-30B-A3B-AWQ"),
        Err(CalibrationError::NotModelled { .. })
    ));
    assert!(matches!(
        Model::find("nowhere/config.json"),
        Err(CalibrationError::Read { .. })
    ));
}

#[test]
fn the_table_has_no_duplicates_and_every_row_can_be_split() {
    for (i, row) in EMBEDDED.iter().enumerate() {
        assert!(
            EMBEDDED[..i]
                .iter()
                .all(|other| !other.id.eq_ignore_ascii_case(row.id)),
            "{}",
            row.id
        );
        let model = row.model();
        assert!(model.heads.is_multiple_of(model.kv_heads));
        assert!(model.check_tensor_parallel(2).is_ok());
    }
}

#[test]
fn windows_stop_growing() {
    // 36 layers of 2 x 8 heads x 64 numbers of 2 bytes = 2,048 bytes; every other one keeps 128 tokens.
    let gpt_oss = model("openai/gpt-oss-120b");
    assert_eq!(gpt_oss.full_layers(), 18);
    assert_eq!(
        gpt_oss.kv_bytes_per_token(Precision::Bf16),
        36 * 2_048,
        "while all keep it"
    );
    assert_eq!(
        gpt_oss.kv_bytes_per_token_per_gpu(1, Precision::Bf16),
        18 * 2_048
    );
    for (tokens, in_layers) in [
        (0, 0),
        (100, 36 * 100),
        (128, 36 * 128),
        (10_000, 18 * 10_000 + 18 * 128),
    ] {
        let bytes = gpt_oss.kv_bytes_per_gpu(tokens, 2, Precision::Fp8);
        assert_eq!(bytes, in_layers * 2_048 / 2 / 2);
    }
    let llama = model("meta-llama/Llama-3.1-8B");
    assert_eq!(llama.full_layers(), 32);
    assert_eq!(llama.kv_bytes_per_gpu(10, 1, Precision::Bf16), 1_310_720);
}

#[test]
fn four_bit_experts_take_what_vllm_reports() {
    // "Model loading took 65.9650 GiB": vLLM 0.11, gpt-oss-120b on one GPU with Marlin kernels.
    let gib = model("openai/gpt-oss-120b").weight_bytes() as f64 / f64::from(1 << 30);
    assert!((gib / 65.965 - 1.0).abs() < 0.01, "{gib}");
}

#[test]
fn experts_are_dealt_out_or_split() {
    let deepseek = model("deepseek-ai/DeepSeek-V3");
    let on = |tensor, expert| deepseek.weight_bytes_per_gpu(Widths { tensor, expert });
    // 256 experts of 3 x 7168 x 2048 in 58 layers: an eighth of them either way.
    assert_eq!(on(8, 8), on(8, 1));
    assert_eq!(on(8, 2), on(8, 1));
    // Not evenly: 160 experts over 3 groups are 54 on the fullest GPU, 54 / 160 and not a third.
    let coder = Model {
        heads: 96,
        ..model("Qwen/Qwen3-Coder-480B-A35B-Instruct")
    };
    let experts = coder.experts.expect("a mixture");
    let third = coder.weight_bytes_per_gpu(Widths {
        tensor: 3,
        expert: 3,
    });
    let routed = coder.expert_bytes(experts);
    assert!(
        third > routed / 160 * 54 && third < routed / 160 * 56,
        "{third}"
    );

    for (widths, part) in [
        (
            Widths {
                tensor: 8,
                expert: 3,
            },
            "must divide tp, 8",
        ),
        (
            Widths {
                tensor: 8,
                expert: 0,
            },
            "must divide tp, 8",
        ),
        (
            Widths {
                tensor: 512,
                expert: 512,
            },
            "at most the 256 experts",
        ),
    ] {
        let why = deepseek.check_expert_parallel(widths).expect_err("illegal");
        assert!(why.contains(part), "{why}");
    }
    // 1,408 over 3 GPUs.
    let air = model("zai-org/GLM-4.5-Air");
    let why = air
        .check_expert_parallel(Widths::tensor(3))
        .expect_err("a third of an expert");
    assert!(why.contains("FFN size 1408"), "{why}");
    assert_eq!(air.legal_expert_parallel(3).collect::<Vec<_>>(), [3]);
    let why = model("Qwen/Qwen3-8B")
        .check_expert_parallel(Widths {
            tensor: 2,
            expert: 2,
        })
        .expect_err("dense");
    assert!(
        why.contains("must be 1: Qwen/Qwen3-8B has no experts"),
        "{why}"
    );
}
