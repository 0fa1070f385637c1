//! One forward pass: what is launched, in which order, on which memory.
//!
//! ```text
//! embed; per layer: norm, Wqkv, rotary and KV, attention, Wo, norm (adds Wo), Wgate and Wup, gate, Wdown
//! norm of the rows that sample (adds the last Wdown), Whead, argmax
//! ```
//!
//! Nothing waits and nothing is allocated, so that a CUDA graph can hold it. `kernels/host/forward.cc` is the same on a CPU.

use super::Failure;
use super::device::{Argument, Buffer, Gpu, Grid};
use super::kernels::Kernels;
use super::layout::{Array, Layout};
use super::products::{Operands, Products, Shape};
use super::weights::{CudaLayer, CudaWeights};
use crate::config::ModelConfig;
use crate::ops::Op;
use cudarc::driver::CudaFunction;

/// Most parts into which a context is split; see [`super::layout::splits`].
pub const MOST_SPLITS: u32 = 32;

/// Memory of a step; sizes are those of the largest.
pub struct Buffers {
    /// The arrays of [`Layout`].
    pub arrays: Buffer,
    pub hidden: Buffer,
    pub normed: Buffer,
    pub qkv: Buffer,
    pub attended: Buffer,
    pub product: Buffer,
    pub gate_up: Buffer,
    pub gated: Buffer,
    /// f32, by row that samples.
    pub logits: Buffer,
    /// Parts of decode attention.
    pub partial: Buffer,
    /// The tokens that come out.
    pub sampled: Buffer,
    /// Cosines and sines by position.
    pub angles: Buffer,
    /// KV: by layer, keys and values, block, head, slot.
    pub kv: Buffer,
}

/// What a pass needs.
pub struct Forward<'a> {
    pub gpu: &'a Gpu,
    pub kernels: &'a Kernels,
    pub model: &'a ModelConfig,
    pub weights: &'a CudaWeights,
    pub buffers: &'a Buffers,
    pub products: &'a mut Products,
    pub layout: Layout,
    /// KV blocks of the pool.
    pub num_blocks: u32,
    pub block_size: u32,
}

impl Forward<'_> {
    /// Launches a pass.
    pub fn launch(&mut self) -> Result<(), Failure> {
        self.launch_observed(&mut |_, _, work| work())
    }

    /// The same; each part goes through `observe`, which must call it. `usize` is the layer.
    pub fn launch_observed(&mut self, observe: Observe<'_>) -> Result<(), Failure> {
        let weights = self.weights;
        observe(Op::Rest, 0, &mut || self.embed())?;
        for (index, layer) in weights.layers.iter().enumerate() {
            let before = (index > 0).then_some(&self.buffers.product);
            observe(Op::Rest, index, &mut || {
                self.norm(before, &layer.attention_norm)
            })?;
            let qkv_width = self.q_width() + 2 * self.model.kv_width();
            let (hidden, ffn) = (self.model.hidden, self.model.intermediate);
            let Buffers {
                normed,
                qkv,
                attended,
                product,
                gate_up,
                gated,
                ..
            } = self.buffers;
            observe(Op::Products, index, &mut || {
                self.multiply(normed, &layer.qkv, qkv, [hidden, qkv_width])
            })?;
            observe(Op::Rest, index, &mut || self.store(index, layer))?;
            if self.layout.tiles > 0 {
                observe(Op::Prefill, index, &mut || self.prefill(index))?;
            }
            if self.layout.decodes > 0 {
                observe(Op::Decode, index, &mut || self.decode(index))?;
            }
            let q_width = self.q_width();
            observe(Op::Products, index, &mut || {
                self.multiply(attended, &layer.output, product, [q_width, hidden])
            })?;
            observe(Op::Rest, index, &mut || {
                self.norm(Some(product), &layer.ffn_norm)
            })?;
            observe(Op::Products, index, &mut || {
                self.multiply(normed, &layer.gate_up, gate_up, [hidden, 2 * ffn])
            })?;
            observe(Op::Rest, index, &mut || self.gate())?;
            observe(Op::Products, index, &mut || {
                self.multiply(gated, &layer.down, product, [ffn, hidden])
            })?;
        }
        if self.layout.samples == 0 {
            return Ok(());
        }
        observe(Op::Rest, 0, &mut || self.last_norm())?;
        observe(Op::Head, 0, &mut || self.head())?;
        observe(Op::Rest, 0, &mut || self.argmax())
    }

    fn q_width(&self) -> usize {
        self.model.heads * self.model.head_dim
    }

    fn array(&self, array: Array) -> Argument {
        self.buffers.arrays.at(4 * self.layout.start(array))
    }

    fn run(
        &self,
        function: &CudaFunction,
        grid: (u32, u32),
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), Failure> {
        let grid = Grid {
            blocks: (grid.0, grid.1, 1),
            threads,
            shared_bytes: 0,
        };
        self.gpu.launch(function, grid, arguments)
    }

    fn embed(&self) -> Result<(), Failure> {
        let arguments = [
            self.buffers.hidden.at(0),
            self.weights.embedding.at(0),
            self.array(Array::Tokens),
            int(self.model.hidden),
        ];
        self.run(
            &self.kernels.embed,
            (self.layout.tokens, 1),
            128,
            &arguments,
        )
    }

    /// Of all tokens; `delta` is added to the stream first.
    fn norm(&self, delta: Option<&Buffer>, weight: &Buffer) -> Result<(), Failure> {
        let arguments = [
            self.buffers.normed.at(0),
            self.buffers.hidden.at(0),
            or_null(delta),
            weight.at(0),
            or_null(None),
            int(self.model.hidden),
            Argument::Float(self.model.norm_epsilon),
        ];
        self.run(
            &self.kernels.rms_norm,
            (self.layout.tokens, 1),
            256,
            &arguments,
        )
    }

    /// Of the tokens at whose end one is sampled.
    fn last_norm(&self) -> Result<(), Failure> {
        let arguments = [
            self.buffers.normed.at(0),
            self.buffers.hidden.at(0),
            self.buffers.product.at(0),
            self.weights.norm.at(0),
            self.array(Array::Samples),
            int(self.model.hidden),
            Argument::Float(self.model.norm_epsilon),
        ];
        self.run(
            &self.kernels.rms_norm,
            (self.layout.samples, 1),
            256,
            &arguments,
        )
    }

    fn multiply(
        &mut self,
        x: &Buffer,
        weights: &Buffer,
        y: &Buffer,
        width: [usize; 2],
    ) -> Result<(), Failure> {
        let shape = Shape {
            rows: self.layout.tokens as usize,
            inputs: width[0],
            outputs: width[1],
            is_f32: false,
        };
        let operands = Operands {
            x: x.address(),
            weights: weights.address(),
            y: y.address(),
        };
        self.products.run(self.gpu, shape, operands)
    }

    fn head(&mut self) -> Result<(), Failure> {
        let shape = Shape {
            rows: self.layout.samples as usize,
            inputs: self.model.hidden,
            outputs: self.model.vocab,
            is_f32: true,
        };
        let operands = Operands {
            x: self.buffers.normed.address(),
            weights: self
                .weights
                .head
                .as_ref()
                .unwrap_or(&self.weights.embedding)
                .address(),
            y: self.buffers.logits.address(),
        };
        self.products.run(self.gpu, shape, operands)
    }

    /// Keys and values of a layer.
    fn pool(&self, layer: usize) -> [Argument; 2] {
        let tokens = self.num_blocks as usize * self.block_size as usize;
        let part = 2 * tokens * self.model.kv_width();
        [0, 1].map(|which| self.buffers.kv.at((2 * layer + which) * part))
    }

    fn store(&self, index: usize, layer: &CudaLayer) -> Result<(), Failure> {
        let [keys, values] = self.pool(index);
        let arguments = [
            self.buffers.qkv.at(0),
            keys,
            values,
            self.buffers.angles.at(0),
            or_null(layer.qkv_bias.as_ref()),
            or_null(layer.q_norm.as_ref()),
            or_null(layer.k_norm.as_ref()),
            self.array(Array::TokenRows),
            self.array(Array::Positions),
            self.array(Array::Tables),
            int(self.layout.max_blocks as usize),
            int(self.model.kv_heads),
            Argument::Float(self.model.norm_epsilon),
        ];
        let heads = self.model.heads + 2 * self.model.kv_heads;
        let grid = (self.layout.tokens, heads.div_ceil(4) as u32);
        self.run(&self.kernels.rotary_and_store, grid, 128, &arguments)
    }

    /// log2(e) / √d: the kernels take powers of 2.
    fn scale(&self) -> Argument {
        Argument::Float(std::f32::consts::LOG2_E / (self.model.head_dim as f32).sqrt())
    }

    fn prefill(&self, index: usize) -> Result<(), Failure> {
        let [keys, values] = self.pool(index);
        let arguments = [
            self.buffers.attended.at(0),
            self.buffers.qkv.at(0),
            keys,
            values,
            self.array(Array::Tiles),
            self.array(Array::FirstTokens),
            self.array(Array::NewTokens),
            self.array(Array::Contexts),
            self.array(Array::Tables),
            int(self.layout.max_blocks as usize),
            int(self.model.kv_heads),
            self.scale(),
        ];
        let grid = self
            .kernels
            .attention_grid((self.layout.tiles, self.model.heads as u32, 1));
        self.gpu
            .launch(&self.kernels.prefill_attention, grid, &arguments)
    }

    fn decode(&self, index: usize) -> Result<(), Failure> {
        let (rows, kv_heads) = (self.layout.decodes, self.model.kv_heads as u32);
        let splits = super::layout::splits(rows, kv_heads, self.gpu.multiprocessors);
        let [keys, values] = self.pool(index);
        let arguments = [
            self.buffers.attended.at(0),
            self.buffers.partial.at(0),
            self.buffers.qkv.at(0),
            keys,
            values,
            self.array(Array::DecodeRows),
            self.array(Array::FirstTokens),
            self.array(Array::Contexts),
            self.array(Array::Tables),
            int(self.layout.max_blocks as usize),
            int(self.model.kv_heads),
            self.scale(),
        ];
        let grid = self.kernels.attention_grid((splits, kv_heads, rows));
        self.gpu
            .launch(&self.kernels.decode_attention, grid, &arguments)?;
        if splits == 1 {
            return Ok(());
        }
        let arguments = [
            self.buffers.attended.at(0),
            self.buffers.partial.at(0),
            self.array(Array::DecodeRows),
            self.array(Array::FirstTokens),
            int(splits as usize),
        ];
        let grid = (self.model.heads as u32, rows);
        self.run(
            &self.kernels.reduce_splits,
            grid,
            self.model.head_dim as u32,
            &arguments,
        )
    }

    fn gate(&self) -> Result<(), Failure> {
        let width = self.model.intermediate;
        let arguments = [
            self.buffers.gated.at(0),
            self.buffers.gate_up.at(0),
            int(width),
        ];
        let grid = (self.layout.tokens, (width / 8).div_ceil(256) as u32);
        self.run(&self.kernels.gated, grid, 256, &arguments)
    }

    fn argmax(&self) -> Result<(), Failure> {
        let arguments = [
            self.buffers.sampled.at(0),
            self.buffers.logits.at(0),
            int(self.model.vocab),
        ];
        self.run(
            &self.kernels.argmax,
            (self.layout.samples, 1),
            512,
            &arguments,
        )
    }
}

/// Is handed each part of a pass, with its layer, and calls it.
pub type Observe<'a> =
    &'a mut dyn FnMut(Op, usize, &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure>;

fn int(number: usize) -> Argument {
    Argument::Int(i32::try_from(number).expect("sizes of models and batches fit an int"))
}

fn or_null(buffer: Option<&Buffer>) -> Argument {
    buffer.map_or(Argument::Address(0), |buffer| buffer.at(0))
}
