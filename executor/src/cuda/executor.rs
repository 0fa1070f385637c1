//! Steps on a GPU: checked, brought there in one copy, launched (decode batches as CUDA graphs), tokens brought back.
//!
//! In words: a batch of decodes is padded ([`Layout::padded`]), and one launch of a graph runs it. Graphs are captured at the
//! start, on batches of nothing but padding, after such a batch ran once, so that algorithms are chosen and kernels loaded
//! before: a capture in the middle of serving would cost as much as several steps. All memory is allocated at the start.
#![expect(
    unsafe_code,
    reason = "pinned memory, and a type that goes to the thread of its GPU"
)]

use super::device::{Argument, Buffer, Gpu, Grid, failed};
use super::forward::{Buffers, Forward, MOST_SPLITS};
use super::kernels::Kernels;
use super::layout::Layout;
use super::products::{Products, rounded};
use super::weights::CudaWeights;
use super::{Failure, guarded, probe};
use crate::SetupError;
use crate::config::ModelConfig;
use crate::copies::Direction;
use crate::ops::{Op, OpTime, least};
use crate::random::Counter;
use crate::rotary::Rotary;
use crate::tokens::Tokens;
use crate::weights::WeightSource;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, PinnedHostSlice};
use engine::kv_cache::BlockId;
use engine::{Batch, Executor, ExecutorError};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Size of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaSettings {
    /// Which GPU, from 0.
    pub device: usize,
    /// KV blocks, the null block included.
    pub num_gpu_blocks: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// Most tokens of a step.
    pub max_step_tokens: u32,
    /// Most sequences of a step.
    pub max_rows: u32,
    /// Most tokens of a sequence.
    pub max_positions: u32,
    /// Decode batches run as CUDA graphs.
    pub has_graphs: bool,
}

/// A worker on a GPU.
pub struct CudaExecutor {
    // Fields are dropped in this order: graphs before what they use, the device last.
    graphs: HashMap<Layout, CudaGraph>,
    products: Products,
    staging: PinnedHostSlice<u32>,
    buffers: Buffers,
    weights: CudaWeights,
    kernels: Kernels,
    gpu: Gpu,
    model: ModelConfig,
    tokens: Arc<Tokens>,
    settings: CudaSettings,
}

// SAFETY: what is not `Send` are handles of the driver and of cuBLASLt. Both may be used from any thread, by one at a time,
// once the context is bound to it: `run` borrows the executor mutably and binds first; freeing memory binds too.
unsafe impl Send for CudaExecutor {}

impl std::fmt::Debug for CudaExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaExecutor")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl CudaExecutor {
    /// Compiles the kernels, makes or copies the weights and allocates all memory.
    ///
    /// # Errors
    /// No GPU, a model or settings that the kernels do not take (all of it at once), memory that cannot be had.
    pub fn new(
        model: &ModelConfig,
        source: &WeightSource,
        tokens: Arc<Tokens>,
        settings: CudaSettings,
    ) -> Result<CudaExecutor, SetupError> {
        let problems = problems(model, &settings);
        if !problems.is_empty() {
            return Err(SetupError::Invalid(problems));
        }
        let made = probe(settings.device).and_then(|_| {
            guarded(|| CudaExecutor::set_up(model.clone(), source, tokens, settings))
        });
        made.map_err(|failure| SetupError::Invalid(vec![failure.0]))
    }

    fn set_up(
        model: ModelConfig,
        source: &WeightSource,
        tokens: Arc<Tokens>,
        settings: CudaSettings,
    ) -> Result<CudaExecutor, Failure> {
        let gpu = Gpu::new(settings.device)?;
        let kernels = Kernels::new(&gpu, &model, settings.block_size)?;
        let weights = CudaWeights::new(&gpu, &kernels, &model, source)?;
        let buffers = allocate(&gpu, &model, &settings)?;
        // SAFETY: the numbers are written before they are read: each step fills as many as it copies.
        let staging = unsafe { gpu.context.alloc_pinned_with_flags(words(&settings), 0) };
        let mut executor = CudaExecutor {
            graphs: HashMap::new(),
            products: Products::new(&gpu)?,
            staging: staging.map_err(failed("pinned memory"))?,
            buffers,
            weights,
            kernels,
            gpu,
            model,
            tokens,
            settings,
        };
        executor.gpu.wait()?;
        executor.warm_up()?;
        Ok(executor)
    }

    /// Captures the graphs of all padded batches.
    fn warm_up(&mut self) -> Result<(), Failure> {
        let most_blocks = most_blocks(&self.settings);
        let mut rows = 1;
        while self.settings.has_graphs && rows <= padded_rows(&self.settings) {
            let one = Layout {
                tokens: rows,
                rows,
                decodes: rows,
                tiles: 0,
                samples: rows,
                max_blocks: 1,
            };
            let padded = one.padded().expect("decodes that sample");
            rows = padded.rows + 1;
            let mut is_first = true;
            let mut blocks = padded.max_blocks;
            while blocks <= most_blocks {
                let layout = Layout {
                    max_blocks: blocks,
                    ..padded
                };
                blocks *= 2;
                if !self.has_room(layout) {
                    continue;
                }
                if std::mem::take(&mut is_first) {
                    self.upload(layout, &Batch::default(), &[])?;
                    self.forward(layout).launch()?;
                    self.gpu.wait()?;
                }
                let graph = self.capture(layout)?;
                self.graphs.insert(layout, graph);
            }
        }
        Ok(())
    }

    /// Runs decode batches as graphs from now on, or launch by launch: for measurements of what graphs save.
    pub fn use_graphs(&mut self, has_graphs: bool) {
        self.settings.has_graphs = has_graphs;
    }

    /// Runs a batch and returns the tokens that come out, one per row that samples. Notes none.
    fn step(&mut self, batch: &Batch) -> Result<Vec<u32>, Failure> {
        let layout = self.bring(batch)?;
        let is_graph = self.settings.has_graphs && layout.padded() == Some(layout);
        match self.graphs.get(&layout) {
            Some(graph) if is_graph => graph.launch().map_err(failed("launching a graph"))?,
            _ => {
                self.forward(layout).launch()?;
                if is_graph {
                    self.gpu.wait()?;
                    let graph = self.capture(layout)?;
                    self.graphs.insert(layout, graph);
                }
            }
        }
        let samples = batch.rows.iter().filter(|row| row.samples).count();
        let mut sampled = vec![0; samples];
        self.gpu.download(&self.buffers.sampled, &mut sampled)?;
        Ok(sampled)
    }

    /// Checks a batch and copies its arrays to the GPU.
    fn bring(&mut self, batch: &Batch) -> Result<Layout, Failure> {
        self.gpu.bind()?;
        let CudaSettings {
            block_size,
            max_positions,
            num_gpu_blocks,
            ..
        } = self.settings;
        let mut inputs = Vec::new();
        for row in &batch.rows {
            let end = row.computed_before + row.new_tokens;
            assert!(
                row.new_tokens > 0
                    && end as usize <= row.blocks.len() * block_size as usize
                    && row.blocks.iter().all(|block| *block < num_gpu_blocks),
                "a row has tokens, and blocks of the pool for all of them"
            );
            if end > max_positions {
                let request = row.request.0;
                let found = format!("request {request}: found {end} tokens");
                return Err(Failure(format!(
                    "{found}, expected at most {max_positions}"
                )));
            }
            let appended = self.tokens.append_inputs(row, &mut inputs);
            appended.map_err(|error| Failure(error.0))?;
        }
        let exact = Layout::of(batch, block_size);
        let padded = if self.settings.has_graphs {
            exact.padded()
        } else {
            None
        };
        let layout = padded.filter(|one| self.has_room(*one)).unwrap_or(exact);
        assert!(
            self.has_room(layout),
            "a batch is no larger than the scheduler's limits"
        );
        self.upload(layout, batch, &inputs)?;
        Ok(layout)
    }

    /// Writes a batch's arrays and copies them to the GPU.
    fn upload(&mut self, layout: Layout, batch: &Batch, inputs: &[u32]) -> Result<(), Failure> {
        let staging = self
            .staging
            .as_mut_slice()
            .map_err(failed("pinned memory"))?;
        layout.write(batch, inputs, self.settings.block_size, staging);
        let words = layout.words();
        self.gpu.upload(&staging[..words], &self.buffers.arrays, 0)
    }

    fn has_room(&self, layout: Layout) -> bool {
        layout.tokens <= padded_tokens(&self.settings)
            && layout.rows <= padded_rows(&self.settings)
            && layout.words() <= words(&self.settings)
    }

    fn forward(&mut self, layout: Layout) -> Forward<'_> {
        Forward {
            gpu: &self.gpu,
            kernels: &self.kernels,
            model: &self.model,
            weights: &self.weights,
            buffers: &self.buffers,
            products: &mut self.products,
            layout,
            num_blocks: self.settings.num_gpu_blocks,
            block_size: self.settings.block_size,
        }
    }

    fn capture(&mut self, layout: Layout) -> Result<CudaGraph, Failure> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let stream = self.gpu.stream.clone();
        stream
            .begin_capture(mode)
            .map_err(failed("capturing a graph"))?;
        let launched = self.forward(layout).launch();
        // Capturing ends whether or not a launch failed.
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = stream
            .end_capture(flags)
            .map_err(failed("capturing a graph"));
        launched?;
        let graph =
            graph?.ok_or_else(|| Failure("capturing a graph: nothing was captured".to_owned()))?;
        graph.upload().map_err(failed("uploading a graph"))?;
        Ok(graph)
    }

    /// Runs a batch and returns the logits of each row that samples. Notes no tokens.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<Vec<f32>>, ExecutorError> {
        let run = |this: &mut Self| {
            let samples = this.step(batch)?.len();
            let mut logits = vec![0.0; samples * this.model.vocab];
            this.gpu.download(&this.buffers.logits, &mut logits)?;
            Ok(logits
                .chunks_exact(this.model.vocab)
                .map(<[f32]>::to_vec)
                .collect())
        };
        run(self).map_err(|failure: Failure| ExecutorError(failure.0))
    }

    /// Runs a batch again and again without graphs and says what each kind of work took, the fastest of `repeats`.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn op_times(
        &mut self,
        batch: &Batch,
        repeats: usize,
    ) -> Result<Vec<OpTime>, ExecutorError> {
        let mut pass = || {
            let layout = self.bring(batch)?;
            let gpu = Gpu {
                context: self.gpu.context.clone(),
                stream: self.gpu.stream.clone(),
                multiprocessors: self.gpu.multiprocessors,
            };
            let mut times: BTreeMap<Op, f64> = BTreeMap::new();
            self.forward(layout).launch_observed(&mut |op, _, work| {
                *times.entry(op).or_default() += f64::from(gpu.time(work)?);
                Ok(())
            })?;
            let times = times.into_iter().map(|(op, ms)| OpTime { op, ms });
            Ok(times.collect::<Vec<_>>())
        };
        // The first pass chooses algorithms, which takes time of its own.
        let passes = (0..=repeats.max(1)).map(|_| pass());
        let passes = passes.collect::<Result<Vec<_>, Failure>>();
        let passes = passes.map_err(|failure| ExecutorError(failure.0))?;
        Ok(least(&passes[1..]))
    }
}

impl CudaExecutor {
    /// Fills all KV blocks with made-up numbers, so that steps can be measured whose context nobody computed.
    ///
    /// # Errors
    /// The GPU gave up.
    pub fn fill_kv(&mut self) -> Result<(), ExecutorError> {
        let bytes = self.buffers.kv.bytes();
        let arguments = [
            self.buffers.kv.at(0),
            Argument::Long(Counter::new(0, "keys and values").state()),
            Argument::Long(bytes as u64 / 2),
            // The size that keys and values have.
            Argument::Float(0.3),
        ];
        let grid = Grid {
            blocks: (8 * self.gpu.multiprocessors, 1, 1),
            threads: 256,
            shared_bytes: 0,
        };
        let filled = self.gpu.bind().and_then(|()| {
            self.gpu
                .launch(&self.kernels.random_weights, grid, &arguments)?;
            self.gpu.wait()
        });
        filled.map_err(|failure| ExecutorError(failure.0))
    }

    /// Runs a batch as [`Executor::run`] does, and forgets the tokens: for measurements.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn pass(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        self.step(batch)
            .map(drop)
            .map_err(|failure| ExecutorError(failure.0))
    }

    /// Copies blocks (from, to) within the pool, all layers, and says how many milliseconds that took on the GPU.
    ///
    /// # Errors
    /// The GPU gave up.
    ///
    /// # Panics
    /// Without pairs, or with blocks that the pool has not.
    pub fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<f32, ExecutorError> {
        let blocks = self.settings.num_gpu_blocks;
        assert!(
            !pairs.is_empty()
                && pairs
                    .iter()
                    .all(|(from, to)| *from < blocks && *to < blocks),
            "blocks are the pool's"
        );
        let words: Vec<u32> = pairs.iter().flat_map(|(from, to)| [*to, *from]).collect();
        let block = self.settings.block_size as usize * self.model.kv_width() * 2 / 16;
        let copy = || {
            self.gpu.bind()?;
            let list = self.gpu.alloc(size_of_val(words.as_slice()))?;
            self.gpu.upload(&words, &list, 0)?;
            let region = Argument::Long(u64::from(blocks) * block as u64);
            let arguments = [
                self.buffers.kv.at(0),
                self.buffers.kv.at(0),
                list.at(0),
                region,
                region,
                Argument::Int(i32::try_from(block).expect("a block is smaller than 2^31 units")),
            ];
            let grid = Grid {
                blocks: (pairs.len() as u32, 2 * self.model.layers as u32, 1),
                threads: 256,
                shared_bytes: 0,
            };
            self.gpu
                .time(|| self.gpu.launch(&self.kernels.copy_blocks, grid, &arguments))
        };
        copy().map_err(|failure: Failure| ExecutorError(failure.0))
    }
}

impl CudaExecutor {
    /// Bytes of a KV block, all layers, keys and values.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        let tokens = self.settings.block_size as usize;
        (2 * 2 * self.model.layers * tokens * self.model.kv_width()) as u64
    }

    /// Seconds of so many copies of blocks, after two to warm up: the first half of them onto the second on the GPU's clock,
    /// or out to pinned memory of the host and in from it (one kernel gathers or scatters) until the host hears of it.
    ///
    /// # Errors
    /// Memory that cannot be had, or the GPU gave up.
    ///
    /// # Panics
    /// Without blocks, or with blocks that the pool has not.
    pub fn copy_times(
        &mut self,
        direction: Direction,
        blocks: &[BlockId],
        repeats: usize,
    ) -> Result<Vec<f64>, ExecutorError> {
        if direction == Direction::Within {
            let (from, to) = blocks.split_at(blocks.len() / 2);
            let pairs: Vec<(u32, u32)> = from.iter().copied().zip(to.iter().copied()).collect();
            let times = (0..repeats.max(1) + 2).map(|_| self.copy_blocks(&pairs));
            let times = times.collect::<Result<Vec<f32>, _>>()?;
            return Ok(times[2..].iter().map(|ms| f64::from(*ms) * 1e-3).collect());
        }
        self.host_copies(direction, blocks, repeats)
            .map_err(|failure| ExecutorError(failure.0))
    }

    fn host_copies(
        &self,
        direction: Direction,
        blocks: &[BlockId],
        repeats: usize,
    ) -> Result<Vec<f64>, Failure> {
        let pool = self.settings.num_gpu_blocks;
        assert!(
            !blocks.is_empty() && blocks.iter().all(|block| *block < pool),
            "blocks are the pool's"
        );
        self.gpu.bind()?;
        let bytes = blocks.len() * self.block_bytes() as usize;
        let staging = self.gpu.alloc(bytes)?;
        // SAFETY: written before it is read, by the first fill.
        let host = unsafe { self.gpu.context.alloc_pinned_with_flags::<u8>(bytes, 0) };
        let mut host = host.map_err(failed("pinned memory"))?;
        let host = host.as_mut_slice().map_err(failed("pinned memory"))?;
        host.fill(0);
        let is_out = direction == Direction::Out;
        // (to, from): the buffer's blocks are 0, 1, 2, ...
        let pairs = (0..).zip(blocks).flat_map(|(at, block)| match is_out {
            true => [at, *block],
            false => [*block, at],
        });
        let words: Vec<u32> = pairs.collect();
        let list = self.gpu.alloc(size_of_val(words.as_slice()))?;
        self.gpu.upload(&words, &list, 0)?;
        let block = self.settings.block_size as usize * self.model.kv_width() * 2 / 16;
        let region = |blocks: usize| Argument::Long((blocks * block) as u64);
        let (in_pool, in_buffer) = (region(pool as usize), region(blocks.len()));
        let (kv, buffer) = (self.buffers.kv.at(0), staging.at(0));
        let units =
            Argument::Int(i32::try_from(block).expect("a block is smaller than 2^31 units"));
        let arguments = match is_out {
            true => [buffer, kv, list.at(0), in_buffer, in_pool, units],
            false => [kv, buffer, list.at(0), in_pool, in_buffer, units],
        };
        let grid = Grid {
            blocks: (blocks.len() as u32, 2 * self.model.layers as u32, 1),
            threads: 256,
            shared_bytes: 0,
        };
        let mut seconds = Vec::new();
        for _ in 0..repeats.max(1) + 2 {
            let start = Instant::now();
            if is_out {
                self.gpu
                    .launch(&self.kernels.copy_blocks, grid, &arguments)?;
                self.gpu.download(&staging, host)?;
            } else {
                self.gpu.upload(host, &staging, 0)?;
                self.gpu
                    .launch(&self.kernels.copy_blocks, grid, &arguments)?;
                self.gpu.wait()?;
            }
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds.split_off(2))
    }
}

impl Executor for CudaExecutor {
    fn run(&mut self, batch: &Batch) -> Result<Vec<u32>, ExecutorError> {
        let sampled = self
            .step(batch)
            .map_err(|failure| ExecutorError(failure.0))?;
        let rows = batch.rows.iter().filter(|row| row.samples);
        for (row, token) in rows.zip(&sampled) {
            // What the argmax kernel says of a logit that is not finite.
            if *token == u32::MAX {
                let request = row.request.0;
                return Err(ExecutorError(format!(
                    "the logits of request {request} are not finite"
                )));
            }
            self.tokens.note(row, *token);
        }
        Ok(sampled)
    }
}

/// What the kernels do not take.
fn problems(model: &ModelConfig, settings: &CudaSettings) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |is_good: bool, field: &str, found: usize, expected: &str| {
        if !is_good {
            problems.push(format!(
                "{field}: found {found}, expected {expected} on a GPU"
            ));
        }
    };
    let head_dim = model.head_dim;
    let is_good = head_dim.is_multiple_of(16) && head_dim <= 128;
    check(is_good, "head_dim", head_dim, "a multiple of 16 up to 128");
    let group = model.heads / model.kv_heads;
    check(
        group <= 16,
        "num_attention_heads / num_key_value_heads",
        group,
        "at most 16",
    );
    for (field, size) in [
        ("hidden_size", model.hidden),
        ("intermediate_size", model.intermediate),
    ] {
        check(size.is_multiple_of(8), field, size, "a multiple of 8");
    }
    let blocks = settings.num_gpu_blocks as usize;
    let numbers = blocks * settings.block_size as usize * model.kv_width();
    let expected = "fewer: keys of a layer are at most 2^32 numbers";
    check(numbers < 1 << 32, "num_gpu_blocks", blocks, expected);
    problems
}

const fn padded_rows(settings: &CudaSettings) -> u32 {
    settings.max_rows.next_multiple_of(32)
}

fn padded_tokens(settings: &CudaSettings) -> u32 {
    settings.max_step_tokens.max(padded_rows(settings))
}

/// Most 32-bit numbers of a batch.
fn words(settings: &CudaSettings) -> usize {
    let (tokens, rows) = (padded_tokens(settings), padded_rows(settings));
    let largest = Layout {
        tokens,
        rows,
        decodes: rows,
        // A tile per 128 tokens, and one that is not full per row.
        tiles: tokens.div_ceil(super::layout::TILE_TOKENS) + rows,
        samples: rows,
        max_blocks: most_blocks(settings),
    };
    largest.words()
}

/// Entries of the longest block table, as it is padded.
fn most_blocks(settings: &CudaSettings) -> u32 {
    let blocks = settings.max_positions.div_ceil(settings.block_size);
    blocks.next_power_of_two().max(16)
}

fn allocate(gpu: &Gpu, model: &ModelConfig, settings: &CudaSettings) -> Result<Buffers, Failure> {
    // Products compute a few rows more.
    let tokens = rounded(padded_tokens(settings) as usize);
    let rows = rounded(padded_rows(settings) as usize);
    let q_width = model.heads * model.head_dim;
    let halves = |width: usize| gpu.alloc(2 * tokens * width);
    let pool = settings.num_gpu_blocks as usize * settings.block_size as usize * model.kv_width();
    let parts = rows * model.heads * MOST_SPLITS as usize * (model.head_dim + 2);
    let buffers = Buffers {
        arrays: gpu.alloc(4 * words(settings))?,
        hidden: halves(model.hidden)?,
        normed: halves(model.hidden)?,
        qkv: halves(q_width + 2 * model.kv_width())?,
        attended: halves(q_width)?,
        product: halves(model.hidden)?,
        gate_up: halves(2 * model.intermediate)?,
        gated: halves(model.intermediate)?,
        logits: gpu.alloc(4 * rows * model.vocab)?,
        partial: gpu.alloc(4 * parts)?,
        sampled: gpu.alloc(4 * rows)?,
        angles: angles(gpu, model, settings.max_positions)?,
        kv: gpu.alloc(2 * 2 * model.layers * pool)?,
    };
    // NaN, so that a slot that is read before it is written shows.
    gpu.fill(&buffers.kv, 0xff)?;
    Ok(buffers)
}

/// Cosines and sines of every position, as the CPU computes them.
fn angles(gpu: &Gpu, model: &ModelConfig, positions: u32) -> Result<Buffer, Failure> {
    let rotary = Rotary::new(&model.rope, model.head_dim);
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for position in 0..positions {
        rotary.at(position, &mut one);
        all.extend_from_slice(&one);
    }
    let buffer = gpu.alloc(size_of_val(all.as_slice()))?;
    gpu.upload(&all, &buffer, 0)?;
    Ok(buffer)
}
