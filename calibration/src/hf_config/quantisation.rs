//! How the weights are stored: `quantization_config`, or ModelOpt's `hf_quant_config.json` beside the configuration.
//!
//! | Said by | Weights |
//! |---|---|
//! | nothing | 16 bits |
//! | `quant_method: fp8`, compressed-tensors with floats of 8 bits, ModelOpt `FP8` | 8-bit floats |
//! | `quant_method: mxfp4` on a mixture of experts | experts of 4-bit floats, all else 16 bits |
//! | awq, gptq and other 4-bit or integer formats, nvfp4 | refused |

use super::Object;
use crate::model::{ExpertStorage, Precision};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What the weights take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) weights: Precision,
    pub(super) experts: ExpertStorage,
}

impl Default for Storage {
    fn default() -> Storage {
        Storage {
            weights: Precision::Bf16,
            experts: ExpertStorage::AsProjections,
        }
    }
}

/// ModelOpt's file beside a configuration, if there is one.
pub(super) fn beside(config: &Path) -> Option<PathBuf> {
    let name = config.file_name()?.to_str()?.strip_suffix("config.json")?;
    let file = config.with_file_name(format!("{name}hf_quant_config.json"));
    file.is_file().then_some(file)
}

/// How weights are stored, or why that is not modelled.
pub(super) fn storage(
    config: &Object,
    beside: Option<&Object>,
    has_experts: bool,
) -> Result<Storage, String> {
    let fp8 = Storage {
        weights: Precision::Fp8,
        ..Storage::default()
    };
    let written = config.get("quantization_config");
    if let Some(quantisation) = written.filter(|value| !value.is_null()) {
        return match method(quantisation) {
            Method::Fp8 => Ok(fp8),
            Method::Mxfp4 if has_experts => Ok(Storage {
                experts: ExpertStorage::Mxfp4,
                ..Storage::default()
            }),
            Method::Mxfp4 => Err(refusal("mxfp4 without experts")),
            Method::Other(name) => Err(refusal(&name)),
        };
    }
    let algorithm = beside.map(|file| file.get("quantization").and_then(|q| q.get("quant_algo")));
    match algorithm {
        None => Ok(Storage::default()),
        Some(Some(Value::String(name))) if name.eq_ignore_ascii_case("fp8") => Ok(fp8),
        Some(Some(Value::String(name))) => Err(refusal(&name.to_lowercase())),
        Some(_) => Err(refusal("of an unnamed kind (hf_quant_config.json)")),
    }
}

enum Method {
    Fp8,
    Mxfp4,
    Other(String),
}

fn method(quantisation: &Value) -> Method {
    let word = |key: &str| quantisation.get(key).and_then(Value::as_str);
    // ModelOpt writes its algorithm with or without a method.
    let name = match (word("quant_method"), word("quant_algo")) {
        (Some(name), _) => name,
        (None, Some(_)) => "modelopt",
        (None, None) => "of an unnamed kind",
    };
    let text = quantisation.to_string().to_lowercase();
    match name {
        "fp8" => Method::Fp8,
        "mxfp4" => Method::Mxfp4,
        "compressed-tensors"
            if text.contains("\"type\":\"float\"") && text.contains("\"num_bits\":8") =>
        {
            Method::Fp8
        }
        "modelopt" if text.contains("fp8") && !text.contains("nvfp4") => Method::Fp8,
        "awq" | "gptq" | "compressed-tensors" => match bits(quantisation) {
            Some(bits) => Method::Other(format!("{name}, {bits}-bit weights")),
            None => Method::Other(name.to_owned()),
        },
        _ => Method::Other(name.to_owned()),
    }
}

/// Bits of a weight: at the top for awq and gptq, in a group of layers for compressed-tensors.
fn bits(quantisation: &Value) -> Option<u64> {
    let top = quantisation.get("bits").or(quantisation.get("w_bit"));
    let groups = quantisation.get("config_groups").and_then(Value::as_object);
    let weights = groups.and_then(|groups| groups.values().next()?.get("weights")?.get("num_bits"));
    top.or(weights)?.as_u64()
}

fn refusal(what: &str) -> String {
    format!("quantisation {what} (modelled: none, fp8, and mxfp4 experts)")
}
