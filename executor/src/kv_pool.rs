//! Paged keys and values: a pool of blocks, in the size of the scheduler's, addressed by its block tables.

use crate::config::ModelConfig;
use crate::random::Counter;
use engine::kv_cache::BlockId;

/// Standard deviation of made-up keys and values.
const FILL: f32 = 0.3;

/// The KV cache of one worker.
#[derive(Debug)]
pub struct KvPool {
    block_size: usize,
    kv_heads: usize,
    head_dim: usize,
    /// By layer: keys by block, head, number of the head, slot; values by block, head, slot, number of the head. So a query
    /// meets the keys of a block side by side, and so do a head's values.
    layers: Vec<[Vec<f32>; 2]>,
}

impl KvPool {
    /// `blocks` blocks, or `None` if the memory cannot be had.
    pub fn new(model: &ModelConfig, blocks: u32, block_size: u32) -> Option<KvPool> {
        let numbers = blocks as usize * block_size as usize * model.kv_width();
        let blank = || {
            let mut part: Vec<f32> = Vec::new();
            part.try_reserve_exact(numbers).ok()?;
            // NaN, so that a slot that is read before it is written shows.
            part.resize(numbers, f32::NAN);
            Some(part)
        };
        let layers = (0..model.layers).map(|_| Some([blank()?, blank()?]));
        Some(KvPool {
            block_size: block_size as usize,
            kv_heads: model.kv_heads,
            head_dim: model.head_dim,
            layers: layers.collect::<Option<_>>()?,
        })
    }

    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks it has.
    pub fn blocks(&self) -> usize {
        let width = self.width();
        self.layers
            .first()
            .map_or(0, |[keys, _]| keys.len() / width)
    }

    /// Fills all blocks with numbers of the size that keys and values have.
    pub fn fill(&mut self) {
        for (layer, parts) in self.layers.iter_mut().enumerate() {
            for (part, name) in parts.iter_mut().zip(["keys", "values"]) {
                let numbers = Counter::new(layer as u64, name);
                for (index, number) in part.iter_mut().enumerate() {
                    *number = FILL * numbers.normal(index as u64);
                }
            }
        }
    }

    /// Writes a token's keys and values of all heads.
    pub fn write(&mut self, layer: usize, table: &[BlockId], position: u32, kv: [&[f32]; 2]) {
        let (block, slot) = self.place(table, position as usize);
        let (block_size, head_dim) = (self.block_size, self.head_dim);
        let [keys, values] = &mut self.layers[layer];
        let heads = kv.map(|part| part.chunks_exact(head_dim));
        let [new_keys, new_values] = heads;
        for (head, (key, value)) in new_keys.zip(new_values).enumerate() {
            let from = (block * self.kv_heads + head) * block_size * head_dim;
            for (at, number) in key.iter().enumerate() {
                keys[from + at * block_size + slot] = *number;
            }
            values[from + slot * head_dim..][..head_dim].copy_from_slice(value);
        }
    }

    /// Numbers of a block, all layers together.
    pub fn block_numbers(&self) -> usize {
        2 * self.layers.len() * self.width()
    }

    /// Copies blocks one behind the other into `host`, layer by layer.
    pub fn copy_out(&self, blocks: &[BlockId], host: &mut [f32]) {
        let width = self.width();
        let mut to = host.chunks_exact_mut(width);
        for part in self.layers.iter().flatten() {
            for (block, to) in blocks.iter().zip(&mut to) {
                to.copy_from_slice(&part[*block as usize * width..][..width]);
            }
        }
    }

    /// The way back.
    pub fn copy_in(&mut self, blocks: &[BlockId], host: &[f32]) {
        let width = self.width();
        let mut from = host.chunks_exact(width);
        for part in self.layers.iter_mut().flatten() {
            for (block, from) in blocks.iter().zip(&mut from) {
                part[*block as usize * width..][..width].copy_from_slice(from);
            }
        }
    }

    /// Copies the first half of the blocks onto the second.
    pub fn copy_within(&mut self, blocks: &[BlockId]) {
        let width = self.width();
        let (from, to) = blocks.split_at(blocks.len() / 2);
        for part in self.layers.iter_mut().flatten() {
            for (from, to) in from.iter().zip(to) {
                let from = *from as usize * width;
                part.copy_within(from..from + width, *to as usize * width);
            }
        }
    }

    fn width(&self) -> usize {
        self.block_size * self.kv_heads * self.head_dim
    }

    /// Keys (by number, by slot) and values (by slot, by number) of a head in one block.
    pub fn block(&self, layer: usize, block: BlockId, head: usize) -> [&[f32]; 2] {
        let width = self.block_size * self.head_dim;
        let at = (block as usize * self.kv_heads + head) * width;
        let [keys, values] = &self.layers[layer];
        [&keys[at..][..width], &values[at..][..width]]
    }

    fn place(&self, table: &[BlockId], position: usize) -> (usize, usize) {
        let block = table[position / self.block_size] as usize;
        (block, position % self.block_size)
    }
}
