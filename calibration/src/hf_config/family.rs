//! The architectures that can be read, how each names its fields, and what no formula here covers.
//!
//! | `model_type` | attention | FFN |
//! |---|---|---|
//! | llama, mistral, qwen2, qwen3 | grouped heads | gated |
//! | mixtral, qwen3_moe, minimax_m2 | grouped heads | experts in every layer |
//! | glm4_moe | grouped heads | experts but in the first layers, and shared ones |
//! | gpt_oss | grouped heads, every other layer with a window | experts in every layer |
//! | deepseek_v2, deepseek_v3, kimi_k2 | latent | experts but in the first layers, and shared ones |

use super::Object;
use serde_json::Value;

/// Where an architecture keeps the numbers of its experts.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpertFields {
    pub(super) count: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) shared: Option<&'static str>,
    pub(super) dense_layers: Option<&'static str>,
}

/// An architecture.
#[derive(Debug)]
pub(super) struct Family {
    model_types: &'static [&'static str],
    pub(super) has_latent_attention: bool,
    /// Layers alternate between a window and none unless `layer_types` says otherwise.
    pub(super) has_windows: bool,
    pub(super) has_qkv_bias: bool,
    pub(super) has_qk_norm: bool,
    pub(super) experts: Option<ExpertFields>,
}

const LLAMA: Family = Family {
    model_types: &["llama", "mistral"],
    has_latent_attention: false,
    has_windows: false,
    has_qkv_bias: false,
    has_qk_norm: false,
    experts: None,
};

/// Experts of the size of the one FFN that they replace.
const LOCAL_EXPERTS: ExpertFields = ExpertFields {
    count: "num_local_experts",
    intermediate: "intermediate_size",
    shared: None,
    dense_layers: None,
};

const ROUTED_EXPERTS: ExpertFields = ExpertFields {
    count: "n_routed_experts",
    intermediate: "moe_intermediate_size",
    shared: Some("n_shared_experts"),
    dense_layers: Some("first_k_dense_replace"),
};

static FAMILIES: [Family; 8] = [
    LLAMA,
    Family {
        model_types: &["qwen2"],
        has_qkv_bias: true,
        ..LLAMA
    },
    Family {
        model_types: &["qwen3"],
        has_qk_norm: true,
        ..LLAMA
    },
    Family {
        model_types: &["qwen3_moe"],
        has_qk_norm: true,
        experts: Some(ExpertFields {
            count: "num_experts",
            intermediate: "moe_intermediate_size",
            shared: None,
            dense_layers: None,
        }),
        ..LLAMA
    },
    Family {
        model_types: &["mixtral", "minimax_m2"],
        experts: Some(LOCAL_EXPERTS),
        ..LLAMA
    },
    Family {
        model_types: &["gpt_oss"],
        has_windows: true,
        experts: Some(LOCAL_EXPERTS),
        ..LLAMA
    },
    Family {
        model_types: &["glm4_moe"],
        experts: Some(ROUTED_EXPERTS),
        ..LLAMA
    },
    Family {
        model_types: &["deepseek_v2", "deepseek_v3", "kimi_k2"],
        has_latent_attention: true,
        experts: Some(ROUTED_EXPERTS),
        ..LLAMA
    },
];

impl Family {
    /// That of the configuration, if it is known.
    pub(super) fn of(config: &Object) -> Option<&'static Family> {
        let model_type = config.get("model_type").and_then(Value::as_str)?;
        FAMILIES
            .iter()
            .find(|family| family.model_types.contains(&model_type))
    }
}

/// Every reason why no formula covers this model.
pub(super) fn not_modelled(family: Option<&Family>, config: &Object) -> Vec<String> {
    let mut reasons = Vec::new();
    if family.is_none() {
        let known: Vec<&str> = FAMILIES
            .iter()
            .flat_map(|family| family.model_types)
            .copied()
            .collect();
        let known = known.join(", ");
        reasons.push(match config.get("model_type").and_then(Value::as_str) {
            Some(other) => format!("architecture `{other}` (modelled: {known})"),
            None => format!("no `model_type` (modelled: {known})"),
        });
    }
    let has_experts = family.is_some_and(|family| family.experts.is_some());
    let has_latent = family.is_some_and(|family| family.has_latent_attention);
    if !has_experts {
        reasons.extend(experts(config));
    }
    if !has_latent && number(config, "kv_lora_rank").is_some() {
        reasons.push("multi-head latent attention (kv_lora_rank)".to_owned());
    }
    for key in ["index_topk", "sparse_attention_config"] {
        if config.get(key).is_some_and(|value| !value.is_null()) {
            reasons.push(format!("sparse attention ({key})"));
        }
    }
    for key in ["text_config", "vision_config"] {
        if config.contains_key(key) {
            reasons.push(format!("several modalities ({key})"));
        }
    }
    reasons.extend(layers_unlike(config));
    reasons.extend(windows_everywhere(family, config));
    reasons
}

fn number(config: &Object, key: &str) -> Option<u64> {
    config.get(key).and_then(Value::as_u64)
}

/// Experts where the architecture has none.
fn experts(config: &Object) -> Vec<String> {
    let keys = [
        "num_experts",
        "num_local_experts",
        "n_routed_experts",
        "moe_num_experts",
    ];
    let found = keys
        .iter()
        .filter_map(|key| Some((key, number(config, key).filter(|&count| count > 1)?)));
    found
        .map(|(key, count)| format!("mixture of experts ({key} {count})"))
        .collect()
}

/// Layers of kinds that no formula covers, or experts in an order that [`crate::model::Experts`] cannot say.
fn layers_unlike(config: &Object) -> Vec<String> {
    let list = |key: &str| config.get(key).and_then(Value::as_array);
    let mut reasons = Vec::new();
    let is_known =
        |kind: &&Value| matches!(kind.as_str(), Some("full_attention" | "sliding_attention"));
    if let Some(other) =
        list("layer_types").and_then(|kinds| kinds.iter().find(|kind| !is_known(kind)))
    {
        reasons.push(format!("layers of the type {other}"));
    }
    if let Some(other) = list("attn_type_list").and_then(|kinds| {
        let mut kinds = kinds.iter();
        kinds.find(|kind| kind.as_u64() != Some(1))
    }) {
        reasons.push(format!("attention of the type {other} (attn_type_list)"));
    }
    for key in ["decoder_sparse_step", "moe_layer_freq"] {
        let value = config.get(key).filter(|value| !value.is_null());
        if let Some(other) = value.filter(|value| value.as_u64() != Some(1)) {
            let text = if other.is_array() {
                "a list".to_owned()
            } else {
                other.to_string()
            };
            reasons.push(format!(
                "experts in some of the layers only ({key}: {text})"
            ));
        }
    }
    if list("mlp_only_layers").is_some_and(|layers| !layers.is_empty()) {
        reasons.push("experts in some of the layers only (mlp_only_layers)".to_owned());
    }
    if let Some(size) = number(config, "shared_expert_intermediate_size").filter(|&size| size > 0) {
        reasons.push(format!(
            "a shared expert of its own size (shared_expert_intermediate_size {size})"
        ));
    }
    reasons
}

/// Windows in all layers: a sequence then lets go of its oldest blocks, which no scheduler here does.
fn windows_everywhere(family: Option<&Family>, config: &Object) -> Option<String> {
    let window = number(config, "sliding_window")?;
    // Qwen2 and Qwen3 name a window and switch it off.
    let uses_window = config
        .get("use_sliding_window")
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let has_full_layers = match windowed_layers(config) {
        Some(windowed) => number(config, "num_hidden_layers") != Some(u64::from(windowed)),
        None => family.is_some_and(|family| family.has_windows),
    };
    let reason = format!("sliding-window attention in every layer (sliding_window {window})");
    (uses_window && !has_full_layers).then_some(reason)
}

/// How many layers `layer_types` gives a window; none where it is absent.
pub(super) fn windowed_layers(config: &Object) -> Option<u32> {
    let kinds = config.get("layer_types")?.as_array()?;
    let windowed = kinds
        .iter()
        .filter(|kind| kind.as_str() == Some("sliding_attention"));
    u32::try_from(windowed.count()).ok()
}
