//! Attention of one token to its context through a block table.
//!
//! In words: for each key/value head, the query heads that share it are scored against all keys up to the token's own
//! position, block by block; scores become weights by a softmax (greatest score taken off first), and the values are
//! summed in the order of positions. Nothing depends on which blocks those are, or on what else is in the batch.

use crate::exponential::exp;
use crate::kv_pool::KvPool;
use crate::matrix::accumulate;
use engine::kv_cache::BlockId;

/// A token that looks back.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Its position; it sees those up to and with it.
    pub position: u32,
    /// Where its context lies.
    pub table: &'a [BlockId],
    /// Its queries, by head.
    pub heads: &'a [f32],
}

/// What is the same for all tokens of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    pub pool: &'a KvPool,
    pub index: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Layer<'_> {
    /// The outputs of all heads of a token.
    pub fn attend(&self, query: Query<'_>, out: &mut [f32], scores: &mut Vec<f32>) {
        let context = query.position as usize + 1;
        let shared = query.heads.len() / self.head_dim / self.kv_heads;
        let group = shared * self.head_dim;
        scores.resize(context, 0.0);
        for head in 0..self.kv_heads {
            let queries = query.heads[head * group..][..group].chunks_exact(self.head_dim);
            let outs = out[head * group..][..group].chunks_exact_mut(self.head_dim);
            for (one, out) in queries.zip(outs) {
                self.score(query.table, head, one, scores);
                softmax(scores);
                self.sum_values(query.table, head, scores, out);
            }
        }
    }

    fn score(&self, table: &[BlockId], head: usize, query: &[f32], scores: &mut [f32]) {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        scores.fill(0.0);
        let block_size = self.pool.block_size();
        for (scores, block) in scores.chunks_mut(block_size).zip(table) {
            let [keys, _] = self.pool.block(self.index, *block, head);
            accumulate(scores, query, keys, block_size);
        }
        scores.iter_mut().for_each(|score| *score *= scale);
    }

    fn sum_values(&self, table: &[BlockId], head: usize, weights: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        for (weights, block) in weights.chunks(self.pool.block_size()).zip(table) {
            let [_, values] = self.pool.block(self.index, *block, head);
            accumulate(out, weights, values, self.head_dim);
        }
    }
}

/// Scores to weights that sum to 1.
fn softmax(scores: &mut [f32]) {
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = exp(*score - greatest);
    }
    for score in scores.iter() {
        sum += *score;
    }
    for score in scores.iter_mut() {
        *score /= sum;
    }
}
