//! Configurations of every architecture, and what is wrong with others.

use super::*;
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

#[test]
fn what_is_not_modelled_is_named() {
    let text = r#"{"model_type": "deepseek_v3", "n_routed_experts": 256, "kv_lora_rank": 512,
        "quantization_config": {"quant_method": "awq"}}"#;
    let message = from_text(text).expect_err("not dense").to_string();
    for part in [
        "mixture of experts (n_routed_experts 256)",
        "latent attention",
        "`deepseek_v3`",
        "`awq`",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let text = QWEN3_8B_FP8.replace("\"sliding_window\": null", "\"sliding_window\": 4096");
    assert!(from_text(&text).is_ok(), "use_sliding_window is false");
    let text = text.replace(
        "\"use_sliding_window\": false",
        "\"use_sliding_window\": true",
    );
    assert!(
        from_text(&text)
            .expect_err("windowed")
            .to_string()
            .contains("sliding_window 4096")
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
