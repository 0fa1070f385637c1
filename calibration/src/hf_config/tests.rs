//! Configurations of every architecture, and what is wrong with others.

use super::*;
use crate::model::Precision;
use std::fs;

const QWEN3_8B_FP8: &str = r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "head_dim": 128,
    "hidden_size": 4096, "intermediate_size": 12288, "max_position_embeddings": 40960, "model_type": "qwen3",
    "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "sliding_window": null,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_sliding_window": false, "vocab_size": 151936,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
    "weight_block_size": [128, 128]}}"#;

fn from_text(text: &str) -> Result<Model, CalibrationError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("config.json"), text).expect("written");
    read(folder.path())
}

#[test]
fn a_config_gives_the_embedded_shape() {
    let mut model = from_text(QWEN3_8B_FP8).expect("a good configuration");
    model.id = "Qwen/Qwen3-8B-FP8".to_owned();
    assert_eq!(model, Model::find("Qwen/Qwen3-8B-FP8").expect("embedded"));
}

#[test]
fn defaults_of_transformers_fill_in() {
    let model = from_text(
        r#"{"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "intermediate_size": 11008, "vocab_size": 32000, "max_position_embeddings": 4096}"#,
    )
    .expect("a good configuration");
    assert_eq!(
        (model.kv_heads, model.head_dim, model.is_tied),
        (32, 128, false)
    );
}

/// A configuration of an embedded model, with what published ones say besides.
const CONFIGS: [(&str, &str); 11] = [
    (
        "meta-llama/Llama-3.2-1B",
        r#"{"model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192,
        "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": true, "attention_bias": false}"#,
    ),
    (
        "Qwen/Qwen2.5-7B",
        r#"{"model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 3584,
        "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
        "max_position_embeddings": 131072, "sliding_window": 131072, "use_sliding_window": false}"#,
    ),
    (
        "Qwen/Qwen3-30B-A3B-FP8",
        r#"{"model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "vocab_size": 151936, "max_position_embeddings": 40960,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
    ),
    (
        "mistralai/Mixtral-8x7B-v0.1",
        r#"{"model_type": "mixtral", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8,
        "num_experts_per_tok": 2, "sliding_window": null, "vocab_size": 32000, "max_position_embeddings": 32768}"#,
    ),
    (
        "MiniMaxAI/MiniMax-M2.5",
        r#"{"model_type": "minimax_m2", "num_hidden_layers": 62, "hidden_size": 3072,
        "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 1536,
        "num_local_experts": 256, "num_experts_per_tok": 8, "use_qk_norm": true, "vocab_size": 200064,
        "attn_type_list": [1, 1], "max_position_embeddings": 196608, "quantization_config": {"quant_method": "fp8"}}"#,
    ),
    (
        "zai-org/GLM-4.5-Air",
        r#"{"model_type": "glm4_moe", "num_hidden_layers": 46, "hidden_size": 4096,
        "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 10944,
        "moe_intermediate_size": 1408, "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "first_k_dense_replace": 1, "attention_bias": true, "use_qk_norm": false, "num_nextn_predict_layers": 1,
        "vocab_size": 151552, "max_position_embeddings": 131072}"#,
    ),
    (
        "zai-org/GLM-4.6-FP8",
        r#"{"model_type": "glm4_moe", "num_hidden_layers": 92, "hidden_size": 5120,
        "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288,
        "moe_intermediate_size": 1536, "n_routed_experts": 160, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "first_k_dense_replace": 3, "attention_bias": true, "use_qk_norm": true, "vocab_size": 151552,
        "max_position_embeddings": 202752, "quantization_config": {"quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}}"#,
    ),
    (
        "deepseek-ai/DeepSeek-V3",
        r#"{"model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168,
        "num_attention_heads": 128, "num_key_value_heads": 128, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "first_k_dense_replace": 3, "moe_layer_freq": 1, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280,
        "max_position_embeddings": 163840, "quantization_config": {"quant_method": "fp8"}}"#,
    ),
    (
        "moonshotai/Kimi-K2-Instruct",
        r#"{"model_type": "kimi_k2", "num_hidden_layers": 61, "hidden_size": 7168,
        "num_attention_heads": 64, "num_key_value_heads": 64, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 163840,
        "max_position_embeddings": 131072, "quantization_config": {"quant_method": "fp8"}}"#,
    ),
    (
        "openai/gpt-oss-120b",
        r#"{"model_type": "gpt_oss", "num_hidden_layers": 36, "hidden_size": 2880,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880,
        "num_local_experts": 128, "num_experts_per_tok": 4, "sliding_window": 128, "attention_bias": true,
        "vocab_size": 201088, "max_position_embeddings": 131072, "quantization_config": {"quant_method": "mxfp4"}}"#,
    ),
    (
        "openai/gpt-oss-20b",
        r#"{"model_type": "gpt_oss", "num_hidden_layers": 24, "hidden_size": 2880,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2880,
        "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "attention_bias": true,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention",
        "sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention",
        "full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention",
        "sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention",
        "full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "vocab_size": 201088, "max_position_embeddings": 131072, "quantization_config": {"quant_method": "mxfp4"}}"#,
    ),
];

fn config(id: &str) -> &'static str {
    let found = CONFIGS.iter().find(|(other, _)| *other == id);
    found.expect("one of the configurations above").1
}

#[test]
fn every_architecture_gives_the_embedded_model() {
    for (id, text) in CONFIGS {
        let read = from_text(text).unwrap_or_else(|error| panic!("{id}: {error}"));
        let read = Model {
            id: id.to_owned(),
            ..read
        };
        assert_eq!(read, Model::find(id).expect("embedded"));
    }
}

/// Published files, where an unpacked wheel of AIConfigurator is at hand.
#[test]
fn published_configurations_are_read_or_refused_with_reasons() {
    let Ok(wheel) = std::env::var("AICONFIGURATOR_CORE") else {
        println!("skipped: AICONFIGURATOR_CORE names no unpacked wheel");
        return;
    };
    let folders = ["model_configs", "aiconfigurator_core/model_configs"];
    let mut folders = folders.iter().map(|folder| Path::new(&wheel).join(folder));
    let folder = folders.find(|folder| folder.is_dir());
    let folder = folder.expect("an unpacked wheel holds model_configs");
    let (mut embedded, mut read_ones, mut refused) = (0, 0, 0);
    for entry in fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a file").to_string_lossy();
        let Some(id) = name.strip_suffix("_config.json") else {
            continue;
        };
        let id = id.replacen("--", "/", 1);
        if id.ends_with("_hf_quant") {
            continue;
        }
        match (read(&path), Model::find(&id)) {
            (Ok(read), Ok(found)) if !Path::new(&id).exists() => {
                let read = Model {
                    id: found.id.clone(),
                    ..read
                };
                assert_eq!(read, found);
                embedded += 1;
            }
            (Ok(read), _) => {
                println!("{id}: {:.1} B", read.parameters() as f64 / 1e9);
                assert!(read.parameters() > 100_000_000, "{id}");
                read_ones += 1;
            }
            (Err(CalibrationError::NotModelled { reasons, .. }), found) => {
                assert!(!reasons.is_empty(), "{id}");
                assert!(
                    found.is_err(),
                    "{id} is embedded and its file refused: {reasons:?}"
                );
                refused += 1;
            }
            // Python writes and reads Infinity, which is not JSON.
            (Err(CalibrationError::Json { .. }), Err(_)) => refused += 1,
            (Err(other), _) => panic!("{id}: {other}"),
        }
    }
    println!("{embedded} embedded, {read_ones} others read, {refused} refused");
    assert!(embedded >= 15, "{embedded} embedded models");
}

#[test]
fn what_is_not_modelled_is_named() {
    let text = r#"{"model_type": "deepseek_v32", "n_routed_experts": 256, "kv_lora_rank": 512, "index_topk": 2048,
        "moe_layer_freq": [0, 1], "text_config": {}, "layer_types": ["linear_attention"],
        "quantization_config": {"quant_method": "awq", "bits": 4}}"#;
    let message = from_text(text).expect_err("not modelled").to_string();
    for part in [
        "mixture of experts (n_routed_experts 256)",
        "latent attention",
        "`deepseek_v32`",
        "sparse attention (index_topk)",
        "(moe_layer_freq: a list)",
        "several modalities (text_config)",
        "layers of the type \"linear_attention\"",
        "quantisation awq, 4-bit weights (modelled: none, fp8, and mxfp4 experts)",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn windows_in_every_layer_are_refused() {
    let text = QWEN3_8B_FP8.replace("\"sliding_window\": null", "\"sliding_window\": 4096");
    assert!(from_text(&text).is_ok(), "use_sliding_window is false");
    let text = text.replace(
        "\"use_sliding_window\": false",
        "\"use_sliding_window\": true",
    );
    let message = from_text(&text).expect_err("windowed").to_string();
    let part = "sliding-window attention in every layer (sliding_window 4096)";
    assert!(message.contains(part), "{message}");
    // Listed layers may mix, but there must be as many as the model has.
    let text = config("openai/gpt-oss-20b")
        .replace("\"num_hidden_layers\": 24", "\"num_hidden_layers\": 25");
    let message = from_text(&text)
        .expect_err("a layer is missing")
        .to_string();
    assert!(
        message.contains("layer_types: found 24 layers, expected num_hidden_layers, 25"),
        "{message}"
    );
    let text = config("openai/gpt-oss-20b").replace("full_attention", "sliding_attention");
    assert!(matches!(
        from_text(&text),
        Err(CalibrationError::NotModelled { .. })
    ));
}

#[test]
fn every_way_to_say_a_quantisation() {
    let with = |text: &str| {
        from_text(&config("mistralai/Mixtral-8x7B-v0.1").replacen('{', &format!("{{{text},"), 1))
    };
    let storage = |model: Model| (model.weights, model.experts.expect("a mixture").storage);
    for (text, expected) in [
        (
            r#""quantization_config": null"#,
            (Precision::Bf16, ExpertStorage::AsProjections),
        ),
        (
            r#""quantization_config": {"quant_method": "fp8"}"#,
            (Precision::Fp8, ExpertStorage::AsProjections),
        ),
        (
            r#""quantization_config": {"quant_algo": "FP8"}"#,
            (Precision::Fp8, ExpertStorage::AsProjections),
        ),
        (
            r#""quantization_config": {"quant_method": "mxfp4"}"#,
            (Precision::Bf16, ExpertStorage::Mxfp4),
        ),
    ] {
        assert_eq!(storage(with(text).expect(text)), expected, "{text}");
    }
    for (text, part) in [
        (
            r#""quantization_config": {"quant_method": "gptq", "bits": 4}"#,
            "gptq, 4-bit weights",
        ),
        (
            r#""quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights":
            {"num_bits": 4, "type": "int"}}}}"#,
            "compressed-tensors, 4-bit weights",
        ),
        (
            r#""quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}"#,
            "quantisation modelopt",
        ),
        (r#""quantization_config": {}"#, "of an unnamed kind"),
    ] {
        let message = with(text).expect_err(part).to_string();
        assert!(message.contains(part), "{message}");
    }
    let dense = QWEN3_8B_FP8.replace("\"quant_method\": \"fp8\"", "\"quant_method\": \"mxfp4\"");
    let message = from_text(&dense).expect_err("no experts").to_string();
    assert!(message.contains("mxfp4 without experts"), "{message}");
}

#[test]
fn a_file_of_modelopt_beside_says_the_storage() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write =
        |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("config.json", config("mistralai/Mixtral-8x7B-v0.1"));
    write(
        "hf_quant_config.json",
        r#"{"quantization": {"quant_algo": "FP8"}}"#,
    );
    assert_eq!(read(folder.path()).expect("good").weights, Precision::Fp8);
    write(
        "hf_quant_config.json",
        r#"{"quantization": {"quant_algo": "NVFP4"}}"#,
    );
    let message = read(folder.path()).expect_err("4 bits").to_string();
    assert!(message.contains("quantisation nvfp4"), "{message}");
    write("hf_quant_config.json", "{}");
    let message = read(folder.path()).expect_err("says nothing").to_string();
    assert!(
        message.contains("unnamed kind (hf_quant_config.json)"),
        "{message}"
    );
    write("hf_quant_config.json", "{");
    assert!(matches!(
        read(folder.path()),
        Err(CalibrationError::Json { .. })
    ));
}

#[test]
fn queries_may_be_uncompressed() {
    let text =
        config("deepseek-ai/DeepSeek-V3").replace("\"q_lora_rank\": 1536", "\"q_lora_rank\": null");
    let model = from_text(&text).expect("as DeepSeek V2 Lite");
    assert_eq!(model.latent.expect("latent").q_rank, 0);
    // 61 x 128 x (128 + 64) x 7168 in the place of 61 x 1536 x (7168 + 128 x 192), and the norm.
    let v3 = Model::find("deepseek-ai/DeepSeek-V3").expect("embedded");
    let more = 61 * (128 * 192 * 7_168 - 1_536 * (7_168 + 128 * 192) - 1_536);
    assert_eq!(model.parameters(), v3.parameters() + more);
}

#[test]
fn wrong_experts_are_all_reported() {
    let text = config("deepseek-ai/DeepSeek-V3")
        .replace("\"n_shared_experts\": 1", "\"n_shared_experts\": 65")
        .replace(
            "\"first_k_dense_replace\": 3",
            "\"first_k_dense_replace\": 62",
        )
        .replace(
            "\"moe_intermediate_size\": 2048",
            "\"moe_intermediate_size\": 0",
        )
        .replace("\"kv_lora_rank\": 512", "\"kv_lora_rank\": 0");
    let error = from_text(&text).expect_err("four mistakes");
    assert_eq!(error.problems().len(), 4, "{error}");
    assert!(
        error
            .to_string()
            .contains("first_k_dense_replace: found 62, expected a whole number from 0 to 61")
    );
    let text = config("mistralai/Mixtral-8x7B-v0.1")
        .replace("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9");
    let message = from_text(&text).expect_err("9 of 8").to_string();
    assert!(
        message.contains("found 9, expected at most num_local_experts, 8"),
        "{message}"
    );
}

#[test]
fn wrong_values_are_all_reported() {
    let text = r#"{"model_type": "llama", "hidden_size": -1, "num_attention_heads": 32.5, "num_hidden_layers": "32",
        "intermediate_size": 18446744073709551615, "max_position_embeddings": 0, "tie_word_embeddings": 3}"#;
    let error = from_text(text).expect_err("nothing is right");
    assert_eq!(error.problems().len(), 7, "{error}");
    assert!(
        error.to_string().contains("vocab_size: found nothing"),
        "{error}"
    );
    assert!(matches!(from_text("{"), Err(CalibrationError::Json { .. })));
    assert!(matches!(
        from_text("[1]"),
        Err(CalibrationError::Invalid(_))
    ));
    let text = QWEN3_8B_FP8.replace("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 7");
    assert!(
        from_text(&text)
            .expect_err("7 does not divide 32")
            .to_string()
            .contains("a divisor")
    );
}
