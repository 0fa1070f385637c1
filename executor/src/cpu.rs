//! The executor for CPUs: one forward pass of a decoder in f32, over a batch with paged KV.
//!
//! In words: the tokens of all rows are stacked. In each layer, queries, keys and values of all of them are computed and
//! the keys and values written into their blocks first; only then does any token look back, since a row may share blocks
//! that another row of the same pass fills. At the end of rows that sample, the greatest logit wins, the first of equals.

use crate::SetupError;
use crate::attention::{Layer, Query};
use crate::config::ModelConfig;
use crate::copies::Direction;
use crate::exponential::exp;
use crate::kv_pool::KvPool;
use crate::matrix::Threads;
use crate::ops::{Op, OpTime, Stopwatch};
use crate::rotary::{self, Rotary};
use crate::tokens::Tokens;
use crate::weights::{LayerWeights, WeightSource, Weights};
use engine::kv_cache::BlockId;
use engine::{Batch, Executor, ExecutorError};
use std::sync::Arc;

/// A decoder with its weights; shared by the workers of a process.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    weights: Weights,
    rotary: Rotary,
}

impl Model {
    /// Takes or makes the weights.
    ///
    /// # Errors
    /// Everything that is wrong with the tensors of files.
    pub fn new(config: ModelConfig, source: &WeightSource) -> Result<Model, SetupError> {
        Ok(Model {
            weights: Weights::new(&config, source)?,
            rotary: Rotary::new(&config.rope, config.head_dim),
            config,
        })
    }

    /// The shape.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}

/// Size of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuSettings {
    /// KV blocks, the null block included.
    pub num_gpu_blocks: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// Threads that compute, at least 1.
    pub threads: usize,
}

/// A worker's model, KV and threads.
#[derive(Debug)]
pub struct CpuExecutor {
    model: Arc<Model>,
    tokens: Arc<Tokens>,
    pool: KvPool,
    threads: Threads,
    buffers: Buffers,
    /// Where the time goes, while somebody asks.
    watch: Option<Stopwatch>,
}

/// Activations; kept from pass to pass.
#[derive(Debug, Default)]
struct Buffers {
    inputs: Vec<u32>,
    positions: Vec<Position>,
    /// Cosines and sines of all tokens.
    turns: Vec<f32>,
    hidden: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    gated: Vec<f32>,
    product: Vec<f32>,
    scratch: Vec<f32>,
}

/// Where a token of the batch stands.
#[derive(Debug, Clone, Copy)]
struct Position {
    row: u32,
    at: u32,
}

impl CpuExecutor {
    /// A worker with blank KV.
    ///
    /// # Errors
    /// Memory or threads that cannot be had.
    pub fn new(
        model: Arc<Model>,
        tokens: Arc<Tokens>,
        settings: CpuSettings,
    ) -> Result<CpuExecutor, SetupError> {
        let CpuSettings {
            num_gpu_blocks,
            block_size,
            threads,
        } = settings;
        let pool = KvPool::new(&model.config, num_gpu_blocks, block_size).ok_or_else(|| {
            let bytes = u64::from(num_gpu_blocks)
                * u64::from(block_size)
                * model.config.kv_bytes_per_token();
            SetupError::TooLarge(format!(
                "found no memory for {num_gpu_blocks} KV blocks of {block_size} tokens ({:.2} GiB)",
                bytes as f64 / f64::from(1 << 30)
            ))
        })?;
        let threads = Threads::new(threads)
            .map_err(|error| SetupError::Invalid(vec![format!("{threads} threads: {error}")]))?;
        Ok(CpuExecutor {
            model,
            tokens,
            pool,
            threads,
            buffers: Buffers::default(),
            watch: None,
        })
    }

    /// Fills all KV blocks with made-up numbers, so that steps can be measured whose context nobody computed.
    pub fn fill_kv(&mut self) {
        self.pool.fill();
    }

    /// Runs a batch to the end, as [`Executor::run`] does, and forgets the tokens: for measurements.
    ///
    /// # Errors
    /// As [`Executor::run`], without tokens that are not finite: those of made-up KV may be anything.
    pub fn pass(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        for logits in self.logits(batch)? {
            std::hint::black_box(greatest(&logits));
        }
        Ok(())
    }

    /// KV blocks (all layers, keys and values) copied out to `host`, or in from it, or from block to block.
    pub(crate) fn copy(&mut self, direction: Direction, blocks: &[BlockId], host: &mut [f32]) {
        match direction {
            Direction::Out => self.pool.copy_out(blocks, host),
            Direction::In => self.pool.copy_in(blocks, host),
            Direction::Within => self.pool.copy_within(blocks),
        }
    }

    /// Numbers of a block: all layers, keys and values.
    pub(crate) fn block_numbers(&self) -> usize {
        self.pool.block_numbers()
    }

    /// Runs a batch and returns the logits of each row that samples. Notes no tokens.
    ///
    /// # Errors
    /// A prompt that quotes what was not said.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<Vec<f32>>, ExecutorError> {
        self.place(batch)?;
        self.embed();
        lap(&mut self.watch, Op::Rest);
        let model = self.model.clone();
        for (index, layer) in model.weights.layers.iter().enumerate() {
            self.attend(batch, index, layer);
            self.feed_forward(layer);
        }
        let logits = self.head(batch);
        lap(&mut self.watch, Op::Rest);
        Ok(logits)
    }

    /// Runs a batch and says where the time went.
    ///
    /// # Errors
    /// As [`CpuExecutor::logits`].
    pub fn op_times(&mut self, batch: &Batch) -> Result<Vec<OpTime>, ExecutorError> {
        self.watch = Some(Stopwatch::start());
        let passed = self.logits(batch);
        let watch = self.watch.take();
        passed.map(|_| watch.map_or_else(Vec::new, |watch| watch.times()))
    }

    /// Stacks the tokens of all rows.
    fn place(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        let Buffers {
            inputs,
            positions,
            turns,
            ..
        } = &mut self.buffers;
        inputs.clear();
        positions.clear();
        turns.clear();
        let mut turn = Vec::new();
        for (index, row) in batch.rows.iter().enumerate() {
            let end = row.computed_before + row.new_tokens;
            assert!(
                row.new_tokens > 0
                    && end as usize <= row.blocks.len() * self.pool.block_size()
                    && row
                        .blocks
                        .iter()
                        .all(|block| (*block as usize) < self.pool.blocks()),
                "a row has tokens, and blocks of the pool for all of them"
            );
            self.tokens.append_inputs(row, inputs)?;
            for at in row.computed_before..end {
                let row = index as u32;
                positions.push(Position { row, at });
                self.model.rotary.at(at, &mut turn);
                turns.extend_from_slice(&turn);
            }
        }
        assert!(
            inputs.len() == positions.len(),
            "every position has its token"
        );
        Ok(())
    }

    fn embed(&mut self) {
        let width = self.model.config.hidden;
        let buffers = &mut self.buffers;
        buffers.hidden.clear();
        for token in &buffers.inputs {
            let from = *token as usize * width;
            buffers
                .hidden
                .extend_from_slice(&self.model.weights.embedding[from..from + width]);
        }
    }

    /// The first half of a layer.
    fn attend(&mut self, batch: &Batch, index: usize, weights: &LayerWeights) {
        let config = &self.model.config;
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_width());
        let buffers = &mut self.buffers;
        norm_rows(
            &buffers.hidden,
            &weights.attention_norm,
            config,
            &mut buffers.normed,
        );
        let Buffers {
            normed,
            qkv,
            scratch,
            ..
        } = buffers;
        lap(&mut self.watch, Op::Rest);
        weights.qkv.multiply(normed, qkv, scratch, &self.threads);
        lap(&mut self.watch, Op::Products);
        let turns = buffers.turns.chunks_exact(config.head_dim);
        let tokens = buffers.qkv.chunks_exact_mut(q_width + 2 * kv_width);
        for ((qkv, turn), position) in tokens.zip(turns).zip(&buffers.positions) {
            if config.has_qkv_bias {
                qkv.iter_mut()
                    .zip(&weights.qkv_bias)
                    .for_each(|(x, bias)| *x += bias);
            }
            let (q, kv) = qkv.split_at_mut(q_width);
            let (k, v) = kv.split_at_mut(kv_width);
            for (heads, norm) in [(q, &weights.q_norm), (&mut *k, &weights.k_norm)] {
                for head in heads.chunks_exact_mut(config.head_dim) {
                    if config.has_qk_norm {
                        norm_in_place(head, norm, config.norm_epsilon);
                    }
                    rotary::turn(head, turn);
                }
            }
            let table = &batch.rows[position.row as usize].blocks;
            self.pool.write(index, table, position.at, [k, v]);
        }
        let layer = Layer {
            pool: &self.pool,
            index,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        };
        let (qkv, positions) = (&buffers.qkv, &buffers.positions);
        buffers.attended.clear();
        buffers.attended.resize(positions.len() * q_width, 0.0);
        lap(&mut self.watch, Op::Rest);
        self.threads
            .for_each_chunk(&mut buffers.attended, q_width, |at, out| {
                let Position { row, at: position } = positions[at];
                let table: &[BlockId] = &batch.rows[row as usize].blocks;
                let heads = &qkv[at * (q_width + 2 * kv_width)..][..q_width];
                let query = Query {
                    position,
                    table,
                    heads,
                };
                let mut scores = Vec::new();
                layer.attend(query, out, &mut scores);
            });
        lap(&mut self.watch, Op::Attention);
        let Buffers {
            attended,
            product,
            scratch,
            hidden,
            ..
        } = buffers;
        weights
            .output
            .multiply(attended, product, scratch, &self.threads);
        lap(&mut self.watch, Op::Products);
        add(hidden, product);
    }

    /// The second half of a layer.
    fn feed_forward(&mut self, weights: &LayerWeights) {
        let config = &self.model.config;
        let buffers = &mut self.buffers;
        norm_rows(
            &buffers.hidden,
            &weights.ffn_norm,
            config,
            &mut buffers.normed,
        );
        let Buffers {
            normed,
            gate_up,
            gated,
            product,
            scratch,
            hidden,
            ..
        } = buffers;
        lap(&mut self.watch, Op::Rest);
        weights
            .gate_up
            .multiply(normed, gate_up, scratch, &self.threads);
        lap(&mut self.watch, Op::Products);
        gated.clear();
        for token in gate_up.chunks_exact(2 * config.intermediate) {
            let (gate, up) = token.split_at(config.intermediate);
            gated.extend(
                gate.iter()
                    .zip(up)
                    .map(|(gate, up)| gate / (1.0 + exp((-gate).min(80.0))) * up),
            );
        }
        lap(&mut self.watch, Op::Rest);
        weights
            .down
            .multiply(gated, product, scratch, &self.threads);
        lap(&mut self.watch, Op::Products);
        add(hidden, product);
    }

    /// Logits at the end of the rows that sample.
    fn head(&mut self, batch: &Batch) -> Vec<Vec<f32>> {
        let (config, weights) = (&self.model.config, &self.model.weights);
        let Buffers {
            hidden,
            normed,
            product,
            scratch,
            gated,
            ..
        } = &mut self.buffers;
        gated.clear();
        let mut end = 0;
        for row in &batch.rows {
            end += row.new_tokens as usize * config.hidden;
            if row.samples {
                gated.extend_from_slice(&hidden[end - config.hidden..end]);
            }
        }
        norm_rows(gated, &weights.norm, config, normed);
        lap(&mut self.watch, Op::Rest);
        weights
            .head
            .multiply(normed, product, scratch, &self.threads);
        lap(&mut self.watch, Op::Head);
        product
            .chunks_exact(config.vocab)
            .map(<[f32]>::to_vec)
            .collect()
    }
}

impl Executor for CpuExecutor {
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
        let logits = self.logits(batch)?;
        let rows = batch.rows.iter().filter(|row| row.samples);
        rows.zip(&logits)
            .map(|(row, logits)| {
                let token = greatest(logits).ok_or_else(|| {
                    let request = row.request.0;
                    ExecutorError(format!("the logits of request {request} are not finite"))
                })?;
                self.tokens.note(row, token);
                Ok(token)
            })
            .collect()
    }
}

fn lap(watch: &mut Option<Stopwatch>, op: Op) {
    if let Some(watch) = watch {
        watch.lap(op);
    }
}

/// Index of the greatest number, the first of equals; `None` if one is not finite.
fn greatest(logits: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (at, logit) in logits.iter().enumerate() {
        if !logit.is_finite() {
            return None;
        }
        if *logit > logits[best] {
            best = at;
        }
    }
    Some(best as u32)
}

fn add(sum: &mut [f32], more: &[f32]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

/// `x / rms(x) · weight`, token by token.
fn norm_rows(x: &[f32], weight: &[f32], config: &ModelConfig, out: &mut Vec<f32>) {
    out.clear();
    out.extend_from_slice(x);
    for token in out.chunks_exact_mut(config.hidden) {
        norm_in_place(token, weight, config.norm_epsilon);
    }
}

fn norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    let scale = 1.0 / (mean + epsilon).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x *= scale * weight;
    }
}
