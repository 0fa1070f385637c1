//! The weights of a decoder: tensors by their Hugging Face names, generated or read from safetensors.
//!
//! Generated ones are functions of (seed, name, index), normal with σ = 0.02: never zeros, on which hardware is faster
//! than on anything else. Norms are 1. The same seed gives the same weights to every worker and machine.

use crate::SetupError;
use crate::config::{ModelConfig, config_file};
use crate::matrix::Matrix;
use crate::random::Counter;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// Standard deviation of generated weights.
pub(crate) const SIGMA: f32 = 0.02;

/// Where weights come from.
#[derive(Debug)]
pub enum WeightSource {
    /// Made from a seed.
    Generated(u64),
    /// Read from files.
    Files(Vec<File>),
}

/// A safetensors file, read.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where the tensors' bytes begin.
    from: usize,
    metadata: Metadata,
}

/// Packed for multiplication.
#[derive(Debug)]
pub(crate) struct Weights {
    /// `vocab × hidden`, row by row.
    pub embedding: Vec<f32>,
    pub layers: Vec<LayerWeights>,
    pub norm: Vec<f32>,
    pub head: Matrix,
}

#[derive(Debug)]
pub(crate) struct LayerWeights {
    pub attention_norm: Vec<f32>,
    /// Queries, keys, values.
    pub qkv: Matrix,
    /// Empty without.
    pub qkv_bias: Vec<f32>,
    /// Per head; empty without.
    pub q_norm: Vec<f32>,
    pub k_norm: Vec<f32>,
    pub output: Matrix,
    pub ffn_norm: Vec<f32>,
    /// Gate, up.
    pub gate_up: Matrix,
    pub down: Matrix,
}

impl WeightSource {
    /// A safetensors file, or all of them in a folder.
    ///
    /// # Errors
    /// Nothing there, or files that cannot be read or are no safetensors.
    pub fn open(path: &Path) -> Result<WeightSource, SetupError> {
        let read_error = |path: &Path| {
            let path = path.to_owned();
            move |source| SetupError::Read { path, source }
        };
        let mut paths = vec![path.to_owned()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(read_error(path))?;
            paths = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect();
            paths.retain(|path| {
                path.extension()
                    .is_some_and(|ending| ending == "safetensors")
            });
            paths.sort();
        }
        if paths.is_empty() {
            let problem = format!("{}: found no *.safetensors in the folder", path.display());
            return Err(SetupError::Invalid(vec![problem]));
        }
        let mut files = Vec::new();
        for path in paths {
            let bytes = std::fs::read(&path).map_err(read_error(&path))?;
            let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| {
                let file = path.display();
                SetupError::Invalid(vec![format!("{file}: no safetensors: {error}")])
            })?;
            files.push(File {
                path,
                bytes,
                // The length of the header stands before it.
                from: header + size_of::<u64>(),
                metadata,
            });
        }
        Ok(WeightSource::Files(files))
    }

    /// A tensor by name, row by row.
    ///
    /// # Errors
    /// It is not there, or of another shape or type, in one sentence.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let count: usize = shape.iter().product();
        match self {
            WeightSource::Generated(_) if name.ends_with("norm.weight") => Ok(vec![1.0; count]),
            WeightSource::Generated(seed) => {
                let counter = Counter::new(*seed, name);
                let numbers = 0..count as u64;
                Ok(numbers.map(|index| SIGMA * counter.normal(index)).collect())
            }
            WeightSource::Files(files) => {
                let found = files
                    .iter()
                    .find_map(|file| Some((file, file.metadata.info(name)?)));
                let Some((file, info)) = found else {
                    let file = files.first().map(|file| file.path.display().to_string());
                    let file = file.unwrap_or_default();
                    return Err(format!(
                        "{file}: {name}: found no such tensor, expected {shape:?}"
                    ));
                };
                file.numbers(name, info, shape)
            }
        }
    }

    /// In words, for reports.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            WeightSource::Generated(seed) => format!("random weights of seed {seed}"),
            WeightSource::Files(files) => {
                let names = files.iter().map(|file| file.path.display().to_string());
                format!("weights of {}", names.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl File {
    fn numbers(&self, name: &str, info: &TensorInfo, shape: &[usize]) -> Result<Vec<f32>, String> {
        let file = self.path.display();
        if info.shape != shape {
            let found = &info.shape;
            return Err(format!(
                "{file}: {name}: found the shape {found:?}, expected {shape:?}"
            ));
        }
        let (from, to) = info.data_offsets;
        let bytes = &self.bytes[self.from + from..self.from + to];
        let halves = || {
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|half| u16::from_le_bytes(*half))
        };
        let numbers: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|four| f32::from_le_bytes(*four))
                .collect(),
            Dtype::BF16 => halves()
                .map(|half| f32::from_bits(u32::from(half) << 16))
                .collect(),
            Dtype::F16 => halves().map(from_f16).collect(),
            other => {
                return Err(format!(
                    "{file}: {name}: found {other:?}, expected F32, F16 or BF16"
                ));
            }
        };
        match numbers.iter().find(|number| !number.is_finite()) {
            Some(odd) => Err(format!(
                "{file}: {name}: found {odd}, expected finite numbers"
            )),
            None => Ok(numbers),
        }
    }
}

/// An IEEE half as a float.
fn from_f16(half: u16) -> f32 {
    let (exponent, mantissa) = (half >> 10 & 31, f32::from(half & 1023));
    let size = match exponent {
        0 => mantissa * 2.0_f32.powi(-24),
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + mantissa / 1024.0) * 2.0_f32.powi(i32::from(exponent) - 15),
    };
    if half >> 15 == 1 { -size } else { size }
}

impl Weights {
    /// All tensors of a model.
    pub fn new(model: &ModelConfig, source: &WeightSource) -> Result<Weights, SetupError> {
        let mut reader = Reader {
            source,
            problems: Vec::new(),
        };
        let shape = [model.vocab, model.hidden];
        let embedding = reader.tensor("model.embed_tokens.weight", &shape);
        let head = if model.is_tied {
            embedding.clone()
        } else {
            reader.tensor("lm_head.weight", &shape)
        };
        let layers = (0..model.layers).map(|layer| reader.layer(model, layer));
        let layers = layers.collect();
        let norm = reader.tensor("model.norm.weight", &[model.hidden]);
        if !reader.problems.is_empty() {
            return Err(SetupError::Invalid(reader.problems));
        }
        Ok(Weights {
            head: Matrix::stacked(&[head], model.hidden),
            embedding,
            layers,
            norm,
        })
    }
}

/// Takes tensors and collects what is wrong with them.
struct Reader<'a> {
    source: &'a WeightSource,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        self.source.tensor(name, shape).unwrap_or_else(|problem| {
            self.problems.push(problem);
            vec![0.0; shape.iter().product()]
        })
    }

    fn layer(&mut self, model: &ModelConfig, layer: usize) -> LayerWeights {
        let (hidden, ffn) = (model.hidden, model.intermediate);
        let (q, kv) = (model.heads * model.head_dim, model.kv_width());
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let mut take = |part: &str, shape: &[usize]| self.tensor(&name(part), shape);
        let parts = [("q", q), ("k", kv), ("v", kv)];
        let qkv = parts
            .map(|(part, width)| take(&format!("self_attn.{part}_proj.weight"), &[width, hidden]));
        let mut qkv_bias = Vec::new();
        if model.has_qkv_bias {
            for (part, width) in parts {
                qkv_bias.extend(take(&format!("self_attn.{part}_proj.bias"), &[width]));
            }
        }
        let mut head_norm = |part: &str| match model.has_qk_norm {
            true => take(&format!("self_attn.{part}_norm.weight"), &[model.head_dim]),
            false => Vec::new(),
        };
        let (q_norm, k_norm) = (head_norm("q"), head_norm("k"));
        let gate_up =
            ["gate", "up"].map(|part| take(&format!("mlp.{part}_proj.weight"), &[ffn, hidden]));
        LayerWeights {
            attention_norm: take("input_layernorm.weight", &[hidden]),
            qkv: Matrix::stacked(&qkv, hidden),
            qkv_bias,
            q_norm,
            k_norm,
            output: Matrix::stacked(&[take("self_attn.o_proj.weight", &[hidden, q])], q),
            ffn_norm: take("post_attention_layernorm.weight", &[hidden]),
            gate_up: Matrix::stacked(&gate_up, hidden),
            down: Matrix::stacked(&[take("mlp.down_proj.weight", &[hidden, ffn])], ffn),
        }
    }
}

/// The folder in which the weights of a model lie if they do: that of its `config.json`.
#[must_use]
pub fn beside(model: &Path) -> Option<PathBuf> {
    config_file(model).parent().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_to_the_bit() {
        for (half, float) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x7bff, 65_504.0),
        ] {
            assert_eq!(from_f16(half), float, "{half:x}");
        }
        assert!(from_f16(0x7c00).is_infinite() && from_f16(0x7e00).is_nan());
    }
}
