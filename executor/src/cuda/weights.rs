//! The weights of a decoder on a GPU, in bf16: made there from a seed, or read and copied.

use super::Failure;
use super::device::{Argument, Buffer, Gpu, Grid};
use super::kernels::Kernels;
use crate::config::ModelConfig;
use crate::random::Counter;
use crate::weights::{SIGMA, WeightSource};

/// All tensors.
pub struct CudaWeights {
    pub embedding: Buffer,
    pub layers: Vec<CudaLayer>,
    pub norm: Buffer,
    /// None if the embedding is the head.
    pub head: Option<Buffer>,
}

/// Those of a layer.
pub struct CudaLayer {
    pub attention_norm: Buffer,
    /// Queries, keys, values.
    pub qkv: Buffer,
    pub qkv_bias: Option<Buffer>,
    pub q_norm: Option<Buffer>,
    pub k_norm: Option<Buffer>,
    pub output: Buffer,
    pub ffn_norm: Buffer,
    /// Gate, up.
    pub gate_up: Buffer,
    pub down: Buffer,
}

struct Maker<'a> {
    gpu: &'a Gpu,
    kernels: &'a Kernels,
    source: &'a WeightSource,
}

impl CudaWeights {
    pub fn new(
        gpu: &Gpu,
        kernels: &Kernels,
        model: &ModelConfig,
        source: &WeightSource,
    ) -> Result<CudaWeights, Failure> {
        let maker = Maker {
            gpu,
            kernels,
            source,
        };
        let one = |name: &str, shape: &[usize]| maker.stacked(&[(name.to_owned(), shape.to_vec())]);
        let vocabulary = [model.vocab, model.hidden];
        let head = || one("lm_head.weight", &vocabulary);
        Ok(CudaWeights {
            embedding: one("model.embed_tokens.weight", &vocabulary)?,
            layers: (0..model.layers)
                .map(|layer| maker.layer(model, layer))
                .collect::<Result<_, _>>()?,
            norm: one("model.norm.weight", &[model.hidden])?,
            head: (!model.is_tied).then(head).transpose()?,
        })
    }
}

impl Maker<'_> {
    fn layer(&self, model: &ModelConfig, layer: usize) -> Result<CudaLayer, Failure> {
        let (hidden, ffn) = (model.hidden, model.intermediate);
        let (q, kv) = (model.heads * model.head_dim, model.kv_width());
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let one = |part: &str, shape: &[usize]| self.stacked(&[(name(part), shape.to_vec())]);
        let projections = |kind: &str, inputs: Option<usize>| {
            let parts = [("q", q), ("k", kv), ("v", kv)];
            let parts = parts.map(|(part, width)| {
                let shape = [width].into_iter().chain(inputs).collect();
                (name(&format!("self_attn.{part}_proj.{kind}")), shape)
            });
            self.stacked(&parts)
        };
        let gate_up = ["gate", "up"]
            .map(|part| (name(&format!("mlp.{part}_proj.weight")), vec![ffn, hidden]));
        let bias = || projections("bias", None);
        let head_norm = |part: &str| {
            let norm = || one(&format!("self_attn.{part}_norm.weight"), &[model.head_dim]);
            model.has_qk_norm.then(norm).transpose()
        };
        Ok(CudaLayer {
            attention_norm: one("input_layernorm.weight", &[hidden])?,
            qkv: projections("weight", Some(hidden))?,
            qkv_bias: model.has_qkv_bias.then(bias).transpose()?,
            q_norm: head_norm("q")?,
            k_norm: head_norm("k")?,
            output: one("self_attn.o_proj.weight", &[hidden, q])?,
            ffn_norm: one("post_attention_layernorm.weight", &[hidden])?,
            gate_up: self.stacked(&gate_up)?,
            down: one("mlp.down_proj.weight", &[hidden, ffn])?,
        })
    }

    /// Tensors one behind the other.
    fn stacked(&self, parts: &[(String, Vec<usize>)]) -> Result<Buffer, Failure> {
        let bytes = |shape: &Vec<usize>| 2 * shape.iter().product::<usize>();
        let buffer = self
            .gpu
            .alloc(parts.iter().map(|(_, shape)| bytes(shape)).sum())?;
        let mut offset = 0;
        for (name, shape) in parts {
            self.fill(&buffer, offset, name, shape)?;
            offset += bytes(shape);
        }
        Ok(buffer)
    }

    fn fill(
        &self,
        buffer: &Buffer,
        offset: usize,
        name: &str,
        shape: &[usize],
    ) -> Result<(), Failure> {
        let WeightSource::Generated(seed) = self.source else {
            let numbers = self.source.tensor(name, shape).map_err(Failure)?;
            let halves: Vec<u16> = numbers.into_iter().map(bf16).collect();
            return self.gpu.upload(&halves, buffer, offset);
        };
        let count = Argument::Long(shape.iter().product::<usize>() as u64);
        let grid = Grid {
            blocks: (8 * self.gpu.multiprocessors, 1, 1),
            threads: 256,
            shared_bytes: 0,
        };
        let to = buffer.at(offset);
        if name.ends_with("norm.weight") {
            let arguments = [to, count, Argument::Float(1.0)];
            return self
                .gpu
                .launch(&self.kernels.constant_weights, grid, &arguments);
        }
        let state = Argument::Long(Counter::new(*seed, name).state());
        let arguments = [to, state, count, Argument::Float(SIGMA)];
        self.gpu
            .launch(&self.kernels.random_weights, grid, &arguments)
    }
}

/// Rounded to the nearest, ties to even; the number is finite.
fn bf16(number: f32) -> u16 {
    let bits = number.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_even() {
        for (number, half) in [
            (1.0, 0x3f80),
            (1.003_906_3, 0x3f80),
            (1.011_718_8, 0x3f82),
            (-0.02, 0xbca4),
        ] {
            assert_eq!(bf16(number), half, "{number}");
        }
    }
}
