//! Paged keys and values: a pool of blocks, in the size of the scheduler's, addressed by its block tables.

use crate::config::ModelConfig;
use engine::kv_cache::BlockId;

/// The KV cache of one worker.
#[derive(Debug)]
pub struct KvPool {
    block_size: usize,
    kv_heads: usize,
    head_dim: usize,
    /// By layer: keys, values; each by block, head, slot.
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
        let width = self.block_size * self.kv_heads * self.head_dim;
        self.layers
            .first()
            .map_or(0, |[keys, _]| keys.len() / width)
    }

    /// Writes a token's keys and values of all heads.
    pub fn write(&mut self, layer: usize, table: &[BlockId], position: u32, kv: [&[f32]; 2]) {
        let (block, slot) = self.place(table, position as usize);
        for (pool, new) in self.layers[layer].iter_mut().zip(kv) {
            for (head, numbers) in new.chunks_exact(self.head_dim).enumerate() {
                let at = ((block * self.kv_heads + head) * self.block_size + slot) * self.head_dim;
                pool[at..][..self.head_dim].copy_from_slice(numbers);
            }
        }
    }

    /// Keys and values of a head in one block, slot by slot.
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
