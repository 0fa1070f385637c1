//! Which decoder: what a Hugging Face `config.json` says of a Llama, Mistral, Qwen2 or Qwen3 model.
//!
//! ```text
//! block:  x += Wo · attention(rope(norm(Wq·n)), rope(norm(Wk·n)), Wv·n)      n = rmsnorm(x)
//!         x += Wdown · (silu(Wgate·n) * (Wup·n))                            n = rmsnorm(x)
//! logits: Whead · rmsnorm(x)
//! ```
//!
//! Optional fields take the defaults of `transformers`. What this decoder does not compute is refused, all at once.

use crate::SetupError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The shape of a decoder and the constants of its formulas.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Decoder layers.
    pub layers: usize,
    /// Hidden size.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of a head, even.
    pub head_dim: usize,
    /// FFN size.
    pub intermediate: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// The LM head is the embedding.
    pub is_tied: bool,
    /// q, k and v have a bias.
    pub has_qkv_bias: bool,
    /// Queries and keys are normed per head.
    pub has_qk_norm: bool,
    /// Added to the mean square before its root is taken.
    pub norm_epsilon: f32,
    /// Rotary embedding.
    pub rope: Rope,
}

/// Angles of the rotary embedding: position times `theta^(-2i/head_dim)`, scaled as Llama 3.1 does if so asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// The base.
    pub theta: f64,
    /// Llama 3.1's stretch of the long waves.
    pub stretch: Option<Stretch>,
}

/// `rope_type: llama3`: waves longer than `original / low` are stretched by `factor`, those shorter than
/// `original / high` are not, those in between in part.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Stretch {
    /// By how much.
    pub factor: f64,
    /// `low_freq_factor`.
    #[serde(rename = "low_freq_factor")]
    pub low: f64,
    /// `high_freq_factor`.
    #[serde(rename = "high_freq_factor")]
    pub high: f64,
    /// `original_max_position_embeddings`.
    #[serde(rename = "original_max_position_embeddings")]
    pub original: f64,
}

#[derive(Deserialize)]
struct Fields {
    model_type: Option<String>,
    num_hidden_layers: Option<usize>,
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    #[serde(default)]
    tie_word_embeddings: bool,
    attention_bias: Option<bool>,
    #[serde(default)]
    mlp_bias: bool,
    rms_norm_eps: Option<f32>,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<serde_json::Value>,
    hidden_act: Option<String>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<serde_json::Value>,
}

/// What is wrong with a file, collected.
struct Findings {
    file: String,
    found: Vec<String>,
}

impl Findings {
    fn add(&mut self, field: &str, found: &str, expected: &str) {
        let file = &self.file;
        self.found.push(format!(
            "{file}: {field}: found {found}, expected {expected}"
        ));
    }

    fn count(&mut self, field: &str, value: Option<usize>, default: Option<usize>) -> usize {
        match value.or(default) {
            Some(count) if (1..1 << 24).contains(&count) => count,
            Some(count) => {
                self.add(field, &count.to_string(), "a number from 1 to 16777215");
                1
            }
            None => {
                self.add(field, "nothing", "a number");
                1
            }
        }
    }
}

impl ModelConfig {
    /// Reads `path`, or `config.json` in it if it is a folder.
    ///
    /// # Errors
    /// A file that cannot be read, or everything in it that this decoder does not compute.
    pub fn read(path: &Path) -> Result<ModelConfig, SetupError> {
        let file = config_file(path);
        let text = std::fs::read_to_string(&file).map_err(|source| SetupError::Read {
            path: file.clone(),
            source,
        })?;
        ModelConfig::parse(&file.display().to_string(), &text)
    }

    /// The same from text; `file` is named in messages.
    ///
    /// # Errors
    /// No JSON, or everything in it that this decoder does not compute.
    pub fn parse(file: &str, text: &str) -> Result<ModelConfig, SetupError> {
        let fields: Fields = serde_json::from_str(text)
            .map_err(|error| SetupError::Invalid(vec![format!("{file}: {error}")]))?;
        let mut findings = Findings {
            file: file.to_owned(),
            found: Vec::new(),
        };
        let config = shape(&fields, &mut findings);
        if findings.found.is_empty() {
            Ok(config)
        } else {
            Err(SetupError::Invalid(findings.found))
        }
    }

    /// Numbers that a token's keys take in one layer; its values take as many.
    #[must_use]
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Bytes of KV per token, in f32.
    #[must_use]
    pub const fn kv_bytes_per_token(&self) -> u64 {
        (2 * self.layers * self.kv_width() * size_of::<f32>()) as u64
    }

    /// Number of weights.
    #[must_use]
    pub const fn parameters(&self) -> u64 {
        let q = self.heads * self.head_dim;
        let attention = self.hidden * (q + 2 * self.kv_width()) + q * self.hidden;
        let layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden;
        let head = if self.is_tied { 1 } else { 2 };
        (self.layers * layer + head * self.vocab * self.hidden + self.hidden) as u64
    }
}

/// The file that a path to a model names.
#[must_use]
pub fn config_file(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join("config.json")
    } else {
        path.to_owned()
    }
}

fn shape(fields: &Fields, findings: &mut Findings) -> ModelConfig {
    let kind = fields.model_type.as_deref().unwrap_or("nothing");
    if !["llama", "mistral", "qwen2", "qwen3"].contains(&kind) {
        findings.add("model_type", kind, "llama, mistral, qwen2 or qwen3");
    }
    let hidden = findings.count("hidden_size", fields.hidden_size, None);
    let heads = findings.count("num_attention_heads", fields.num_attention_heads, None);
    let kv_heads = findings.count(
        "num_key_value_heads",
        fields.num_key_value_heads,
        Some(heads),
    );
    let head_dim = findings.count("head_dim", fields.head_dim, Some((hidden / heads).max(1)));
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of num_attention_heads, {heads}");
        findings.add("num_key_value_heads", &kv_heads.to_string(), &expected);
    }
    if head_dim % 2 == 1 {
        findings.add("head_dim", &head_dim.to_string(), "an even number");
    }
    refuse_what_is_not_computed(fields, findings);
    ModelConfig {
        layers: findings.count("num_hidden_layers", fields.num_hidden_layers, None),
        hidden,
        heads,
        kv_heads,
        head_dim,
        intermediate: findings.count("intermediate_size", fields.intermediate_size, None),
        vocab: findings.count("vocab_size", fields.vocab_size, None),
        is_tied: fields.tie_word_embeddings,
        has_qkv_bias: kind == "qwen2",
        has_qk_norm: kind == "qwen3",
        norm_epsilon: fields.rms_norm_eps.unwrap_or(1e-6),
        rope: rope(fields, findings),
    }
}

fn refuse_what_is_not_computed(fields: &Fields, findings: &mut Findings) {
    if fields.attention_bias == Some(true) {
        findings.add(
            "attention_bias",
            "true",
            "false (qwen2 has its biases anyway)",
        );
    }
    if fields.mlp_bias {
        findings.add("mlp_bias", "true", "false");
    }
    if let Some(act) = fields.hidden_act.as_deref().filter(|act| *act != "silu") {
        findings.add("hidden_act", act, "silu");
    }
    if let Some(window) = fields.sliding_window
        && fields.use_sliding_window != Some(false)
    {
        let expected = "null: layers attend to everything";
        findings.add("sliding_window", &window.to_string(), expected);
    }
    if let Some(share) = fields.partial_rotary_factor.filter(|share| *share != 1.0) {
        findings.add("partial_rotary_factor", &share.to_string(), "1");
    }
    if fields.quantization_config.is_some() {
        findings.add(
            "quantization_config",
            "one",
            "none: weights are f32, f16 or bf16",
        );
    }
}

/// From `rope_theta` and `rope_scaling`, or from `rope_parameters` of newer files.
fn rope(fields: &Fields, findings: &mut Findings) -> Rope {
    let given = fields
        .rope_parameters
        .as_ref()
        .or(fields.rope_scaling.as_ref());
    let given = given.filter(|value| !value.is_null());
    let inside = given.and_then(|value| value.get("rope_theta")?.as_f64());
    let theta = inside.or(fields.rope_theta).unwrap_or(10_000.0);
    if !(theta.is_finite() && theta > 1.0) {
        findings.add("rope_theta", &theta.to_string(), "a number above 1");
    }
    let kind = given.and_then(|value| value.get("rope_type").or(value.get("type"))?.as_str());
    let stretch = match (kind, given) {
        (None | Some("default"), _) => None,
        (Some("llama3"), Some(value)) => match serde_json::from_value(value.clone()) {
            Ok(stretch) => Some(stretch),
            Err(error) => {
                findings.add("rope_scaling", &error.to_string(), "the factors of llama3");
                None
            }
        },
        (Some(other), _) => {
            findings.add("rope_type", other, "default or llama3");
            None
        }
    };
    Rope { theta, stretch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_transformers() {
        let text = r#"{"model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
            "intermediate_size": 96, "vocab_size": 100, "use_sliding_window": false, "sliding_window": 32768}"#;
        let config = ModelConfig::parse("config.json", text).expect("good");
        assert_eq!((config.kv_heads, config.head_dim), (4, 16));
        assert!(config.has_qkv_bias && !config.has_qk_norm && !config.is_tied);
        assert_eq!(config.rope.theta, 10_000.0);
        // 2 · 2 layers · 64 · 4 bytes.
        assert_eq!(config.kv_bytes_per_token(), 1024);
    }

    #[test]
    fn all_that_is_not_computed_is_told_at_once() {
        let text = r#"{"model_type": "gemma", "num_hidden_layers": 0, "hidden_size": 66, "num_attention_heads": 22,
            "num_key_value_heads": 4, "vocab_size": 10, "hidden_act": "gelu", "mlp_bias": true,
            "rope_scaling": {"rope_type": "yarn", "factor": 4}, "sliding_window": 512}"#;
        let error = ModelConfig::parse("config.json", text).expect_err("bad");
        let text = error.to_string();
        for part in [
            "model_type: found gemma",
            "num_hidden_layers: found 0",
            "num_key_value_heads: found 4, expected a divisor of num_attention_heads, 22",
            "head_dim: found 3, expected an even number",
            "intermediate_size: found nothing",
            "hidden_act: found gelu",
            "mlp_bias",
            "rope_type: found yarn",
            "sliding_window: found 512",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
