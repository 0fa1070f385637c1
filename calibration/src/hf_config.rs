//! Reads a model's shape from a Hugging Face `config.json`.
//!
//! Missing optional fields take the defaults of `transformers` (`num_key_value_heads` = `num_attention_heads`,
//! `head_dim` = hidden / heads). A configuration of a kind that is not modelled (experts, latent attention, sliding
//! windows, other architectures, other quantisations) is refused with every reason at once, and so is one with missing
//! or senseless values.

use crate::error::{CalibrationError, Problem, check};
use crate::model::{Model, Precision};
use serde_json::{Map, Value};
use std::path::Path;

type Object = Map<String, Value>;

/// Reads `path`, or `config.json` in it if it is a folder.
///
/// # Errors
/// Unreadable, not JSON, not modelled, or with wrong values.
pub(crate) fn read(path: &Path) -> Result<Model, CalibrationError> {
    let file = if path.is_dir() {
        path.join("config.json")
    } else {
        path.to_owned()
    };
    let text = std::fs::read_to_string(&file).map_err(|source| CalibrationError::Read {
        path: file.clone(),
        source,
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|source| CalibrationError::Json {
        path: file.clone(),
        source,
    })?;
    let Value::Object(config) = value else {
        return Err(CalibrationError::Invalid(vec![Problem::new(
            &file.display().to_string(),
            "JSON that is not an object",
            "a model's config.json",
        )]));
    };
    model(&file.display().to_string(), &config)
}

fn model(id: &str, config: &Object) -> Result<Model, CalibrationError> {
    let reasons = not_modelled(config);
    if !reasons.is_empty() {
        return Err(CalibrationError::NotModelled {
            subject: format!("model `{id}`"),
            reasons,
        });
    }
    let model_type = config
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut fields = Fields {
        id,
        config,
        problems: Vec::new(),
    };
    let heads = fields.count("num_attention_heads", 4_096, None);
    let hidden = fields.count("hidden_size", 1 << 20, None);
    let model = Model {
        id: id.to_owned(),
        layers: fields.count("num_hidden_layers", 4_096, None),
        hidden,
        heads,
        kv_heads: fields.count("num_key_value_heads", 4_096, Some(heads)),
        head_dim: fields.count("head_dim", 4_096, Some((hidden / heads.max(1)).max(1))),
        intermediate: fields.count("intermediate_size", 1 << 24, None),
        vocab: fields.count("vocab_size", 1 << 24, None),
        is_tied: fields.flag("tie_word_embeddings"),
        has_qkv_bias: model_type == "qwen2" || fields.flag("attention_bias"),
        has_qk_norm: model_type == "qwen3",
        max_position_embeddings: fields.count("max_position_embeddings", 1 << 30, None),
        weights: if config
            .get("quantization_config")
            .is_some_and(|q| !q.is_null())
        {
            Precision::Fp8
        } else {
            Precision::Bf16
        },
        latent: None,
        experts: None,
    };
    if fields.problems.is_empty() && !model.heads.is_multiple_of(model.kv_heads) {
        let expected = format!("a divisor of num_attention_heads, {}", model.heads);
        fields.problems.push(Problem::new(
            &format!("{id}: num_key_value_heads"),
            model.kv_heads,
            expected,
        ));
    }
    check(fields.problems)?;
    Ok(model)
}

/// Every reason why no formula covers this model.
fn not_modelled(config: &Object) -> Vec<String> {
    let mut reasons = Vec::new();
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    for key in [
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
    ] {
        if let Some(experts) = number(key).filter(|&experts| experts > 1) {
            reasons.push(format!("mixture of experts ({key} {experts})"));
        }
    }
    if number("kv_lora_rank").is_some() {
        reasons.push("multi-head latent attention (kv_lora_rank)".to_owned());
    }
    // Qwen2 and Qwen3 name a window and switch it off.
    let uses_window = config
        .get("use_sliding_window")
        .and_then(Value::as_bool)
        .unwrap_or(true);
    if let Some(window) = number("sliding_window").filter(|_| uses_window) {
        reasons.push(format!(
            "sliding-window attention (sliding_window {window})"
        ));
    }
    let layer_types = config.get("layer_types").and_then(Value::as_array);
    if let Some(other) = layer_types.and_then(|kinds| {
        kinds
            .iter()
            .find(|kind| kind.as_str() != Some("full_attention"))
    }) {
        reasons.push(format!("layers of the type {other}"));
    }
    if config.contains_key("text_config") || config.contains_key("vision_config") {
        reasons.push("several modalities (text_config, vision_config)".to_owned());
    }
    match config.get("model_type").and_then(Value::as_str) {
        Some("llama" | "mistral" | "qwen2" | "qwen3") => {}
        Some(other) => reasons.push(format!(
            "architecture `{other}` (modelled: llama, mistral, qwen2, qwen3)"
        )),
        None => reasons.push("no `model_type` (modelled: llama, mistral, qwen2, qwen3)".to_owned()),
    }
    reasons.extend(quantisation_not_modelled(config.get("quantization_config")));
    reasons
}

/// fp8 weights are modelled: `quant_method: fp8`, or compressed-tensors and ModelOpt with 8-bit floats.
fn quantisation_not_modelled(quantisation: Option<&Value>) -> Option<String> {
    let quantisation = quantisation.filter(|value| !value.is_null())?;
    let method = quantisation
        .get("quant_method")
        .and_then(Value::as_str)
        .unwrap_or("unnamed");
    let text = quantisation.to_string().to_lowercase();
    let is_fp8 = match method {
        "fp8" => true,
        "compressed-tensors" => {
            text.contains("\"type\":\"float\"") && text.contains("\"num_bits\":8")
        }
        "modelopt" => text.contains("fp8") && !text.contains("nvfp4"),
        _ => false,
    };
    if is_fp8 {
        None
    } else {
        Some(format!("quantisation `{method}` (modelled: none, fp8)"))
    }
}

/// The fields of a configuration; what is wrong is collected.
struct Fields<'a> {
    id: &'a str,
    config: &'a Object,
    problems: Vec<Problem>,
}

impl Fields<'_> {
    /// A whole number from 1 to `most`; 1 after a problem.
    fn count(&mut self, key: &str, most: u32, default: Option<u32>) -> u32 {
        let value = self.config.get(key).filter(|value| !value.is_null());
        let found = match (value, default) {
            (None, Some(default)) => return default,
            (None, None) => "nothing".to_owned(),
            (Some(value), _) => {
                match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
                    Some(number) if (1..=most).contains(&number) => return number,
                    _ => value.to_string(),
                }
            }
        };
        let expected = format!("a whole number from 1 to {most}");
        self.problems.push(Problem::new(
            &format!("{}: {key}", self.id),
            found,
            expected,
        ));
        1
    }

    /// A boolean, false when absent.
    fn flag(&mut self, key: &str) -> bool {
        match self.config.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.problems.push(Problem::new(
                    &format!("{}: {key}", self.id),
                    other,
                    "true or false",
                ));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
