//! Reads a model's shape from a Hugging Face `config.json`.
//!
//! The `model_type` says how the fields are to be read (`hf_config/family.rs`). Missing optional fields take the defaults
//! of `transformers` (`num_key_value_heads` = `num_attention_heads`, `head_dim` = hidden / heads). The storage of the
//! weights is that of `quantization_config`, or of a `hf_quant_config.json` beside the file. A configuration of a kind that
//! is not modelled (other architectures, sparse or linear attention, several modalities, other quantisations) is refused
//! with every reason at once, and so is one with missing or senseless values.

mod family;
mod fields;
mod quantisation;

use crate::error::{CalibrationError, Problem};
use crate::model::{ExpertStorage, Experts, LatentAttention, Model, SlidingWindow};
use family::{ExpertFields, Family};
use fields::Fields;
use quantisation::Storage;
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
    let config = object(&file)?;
    let quantisation = match quantisation::beside(&file) {
        Some(beside) if !config.contains_key("quantization_config") => Some(object(&beside)?),
        _ => None,
    };
    model(&file.display().to_string(), &config, quantisation.as_ref())
}

fn object(file: &Path) -> Result<Object, CalibrationError> {
    let text = std::fs::read_to_string(file).map_err(|source| CalibrationError::Read {
        path: file.to_owned(),
        source,
    })?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(CalibrationError::Invalid(vec![Problem::new(
            &file.display().to_string(),
            "JSON that is not an object",
            "a model's config.json",
        )])),
        Err(source) => Err(CalibrationError::Json {
            path: file.to_owned(),
            source,
        }),
    }
}

/// `beside` is what a `hf_quant_config.json` says.
fn model(id: &str, config: &Object, beside: Option<&Object>) -> Result<Model, CalibrationError> {
    let family = Family::of(config);
    let mut reasons = family::not_modelled(family, config);
    let has_experts = family.is_some_and(|family| family.experts.is_some());
    let storage = match quantisation::storage(config, beside, has_experts) {
        Ok(storage) => storage,
        Err(reason) => {
            reasons.push(reason);
            Storage::default()
        }
    };
    let (Some(family), true) = (family, reasons.is_empty()) else {
        return Err(CalibrationError::NotModelled {
            subject: format!("model `{id}`"),
            reasons,
        });
    };
    let mut fields = Fields::new(id, config);
    let model = shape(&mut fields, family, storage);
    fields.check()?;
    Ok(model)
}

/// The whole shape; what is wrong is collected in `fields`.
fn shape(fields: &mut Fields<'_>, family: &Family, storage: Storage) -> Model {
    let layers = fields.count("num_hidden_layers", 4_096, None);
    let hidden = fields.count("hidden_size", 1 << 20, None);
    let heads = fields.count("num_attention_heads", 4_096, None);
    let latent = family.has_latent_attention.then(|| latent(fields));
    let (kv_heads, head_dim) = match latent {
        Some(latent) => (heads, latent.value_dim),
        None => grouped(fields, hidden, heads),
    };
    Model {
        id: fields.id().to_owned(),
        layers,
        hidden,
        heads,
        kv_heads,
        head_dim,
        intermediate: fields.count("intermediate_size", 1 << 24, None),
        vocab: fields.count("vocab_size", 1 << 24, None),
        is_tied: fields.flag("tie_word_embeddings"),
        has_qkv_bias: family.has_qkv_bias || fields.flag("attention_bias"),
        has_qk_norm: family.has_qk_norm || fields.flag("use_qk_norm"),
        max_position_embeddings: fields.count("max_position_embeddings", 1 << 30, None),
        weights: storage.weights,
        latent,
        experts: family
            .experts
            .map(|names| experts(fields, &names, layers, storage.experts)),
        window: window(fields, family, layers),
    }
}

/// Key/value heads and the size of a head.
fn grouped(fields: &mut Fields<'_>, hidden: u32, heads: u32) -> (u32, u32) {
    let kv_heads = fields.count("num_key_value_heads", 4_096, Some(heads));
    if fields.is_good() && !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of num_attention_heads, {heads}");
        fields.problem("num_key_value_heads", kv_heads, expected);
    }
    let head_dim = fields.count("head_dim", 4_096, Some((hidden / heads.max(1)).max(1)));
    (kv_heads, head_dim)
}

fn latent(fields: &mut Fields<'_>) -> LatentAttention {
    LatentAttention {
        // Null where queries are not compressed (DeepSeek V2 Lite).
        q_rank: fields.whole("q_lora_rank", 0..=1 << 20, Some(0)),
        kv_rank: fields.count("kv_lora_rank", 1 << 20, None),
        nope_dim: fields.count("qk_nope_head_dim", 4_096, None),
        rope_dim: fields.count("qk_rope_head_dim", 4_096, None),
        value_dim: fields.count("v_head_dim", 4_096, None),
    }
}

fn experts(
    fields: &mut Fields<'_>,
    names: &ExpertFields,
    layers: u32,
    storage: ExpertStorage,
) -> Experts {
    let count = fields.count(names.count, 2_048, None);
    let per_token = fields.count("num_experts_per_tok", 2_048, None);
    if fields.is_good() && per_token > count {
        let expected = format!("at most {}, {count}", names.count);
        fields.problem("num_experts_per_tok", per_token, expected);
    }
    let dense_layers = match names.dense_layers {
        Some(name) => fields.whole(name, 0..=layers, Some(0)),
        None => 0,
    };
    Experts {
        count,
        per_token,
        intermediate: fields.count(names.intermediate, 1 << 17, None),
        shared: match names.shared {
            Some(name) => fields.whole(name, 0..=64, Some(0)),
            None => 0,
        },
        dense_layers,
        storage,
    }
}

/// The layers with a window, as `layer_types` lists them; every other layer where gpt-oss does not.
fn window(fields: &mut Fields<'_>, family: &Family, layers: u32) -> Option<SlidingWindow> {
    let windowed = match family::windowed_layers(fields.config()) {
        Some(windowed) => windowed,
        None if family.has_windows => layers.div_ceil(2),
        None => 0,
    };
    if windowed == 0 {
        return None;
    }
    let kinds = fields.config().get("layer_types").and_then(Value::as_array);
    if let Some(kinds) = kinds.filter(|kinds| kinds.len() as u64 != u64::from(layers)) {
        let found = format!("{} layers", kinds.len());
        let expected = format!("num_hidden_layers, {layers}");
        fields.problem("layer_types", found, expected);
    }
    Some(SlidingWindow {
        tokens: fields.count("sliding_window", 1 << 30, None),
        layers: windowed,
    })
}

#[cfg(test)]
mod tests;
