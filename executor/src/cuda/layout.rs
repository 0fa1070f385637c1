//! A batch as the arrays that the kernels read, in one piece of memory, so that one copy brings it to the GPU.
//!
//! In words: rows of one new token are *decodes*, each with its split-KV attention; the new tokens of the others are cut
//! into *tiles* of 128, those with the longest context first, since they take longest. A decode batch can be padded to a
//! fixed number of rows and blocks, so that one CUDA graph serves many batches: padding has no row, no context and no KV.

use engine::Batch;

/// New tokens that a block of `prefill_attention` takes (`QUERIES` in `kernels/prefill_attention.cu`).
pub const TILE_TOKENS: u32 = 128;
/// Decode batches are padded to one of these sizes, or to a multiple of the last.
const PADDED: [u32; 8] = [1, 2, 4, 8, 16, 24, 32, 48];

/// Numbers of things in a batch; where the arrays lie follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Tokens computed.
    pub tokens: u32,
    /// Sequences.
    pub rows: u32,
    /// Rows of one new token.
    pub decodes: u32,
    /// Tiles of the other rows.
    pub tiles: u32,
    /// Rows at whose end a token is sampled.
    pub samples: u32,
    /// Entries of a block table.
    pub max_blocks: u32,
}

/// An array. All are of 32-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Array {
    /// Token ids, by token.
    Tokens,
    /// The row of each token, -1 for padding.
    TokenRows,
    /// The position of each token.
    Positions,
    /// By row: the first of its tokens.
    FirstTokens,
    /// By row: how many it computes.
    NewTokens,
    /// By row: its tokens with those, 0 for padding.
    Contexts,
    /// Rows of one token.
    DecodeRows,
    /// Row and first new token of each tile.
    Tiles,
    /// Tokens at whose end one is sampled.
    Samples,
    /// Block tables, `max_blocks` each.
    Tables,
}

const ARRAYS: [Array; 10] = [
    Array::Tokens,
    Array::TokenRows,
    Array::Positions,
    Array::FirstTokens,
    Array::NewTokens,
    Array::Contexts,
    Array::DecodeRows,
    Array::Tiles,
    Array::Samples,
    Array::Tables,
];

impl Layout {
    /// Of a batch as it is. `block_size` in tokens.
    #[must_use]
    pub fn of(batch: &Batch, block_size: u32) -> Layout {
        let rows = &batch.rows;
        let blocks = |row: &engine::executor::Row| {
            (row.computed_before + row.new_tokens).div_ceil(block_size)
        };
        let long = rows.iter().filter(|row| row.new_tokens > 1);
        Layout {
            tokens: rows.iter().map(|row| row.new_tokens).sum(),
            rows: rows.len() as u32,
            decodes: rows.iter().filter(|row| row.new_tokens == 1).count() as u32,
            tiles: long.map(|row| row.new_tokens.div_ceil(TILE_TOKENS)).sum(),
            samples: rows.iter().filter(|row| row.samples).count() as u32,
            max_blocks: rows.iter().map(blocks).max().unwrap_or(1),
        }
    }

    /// The same padded, if all rows are decodes that sample: the shape of a CUDA graph.
    #[must_use]
    pub fn padded(self) -> Option<Layout> {
        if self.decodes != self.tokens || self.samples != self.tokens || self.tokens == 0 {
            return None;
        }
        let rows = PADDED.into_iter().find(|size| self.rows <= *size);
        let rows = rows.unwrap_or_else(|| self.rows.next_multiple_of(32));
        Some(Layout {
            tokens: rows,
            rows,
            decodes: rows,
            tiles: 0,
            samples: rows,
            max_blocks: self.max_blocks.next_power_of_two().max(16),
        })
    }

    /// 32-bit numbers of an array.
    #[must_use]
    pub const fn len(&self, array: Array) -> usize {
        let count = match array {
            Array::Tokens | Array::TokenRows | Array::Positions => self.tokens,
            Array::FirstTokens | Array::NewTokens | Array::Contexts => self.rows,
            Array::DecodeRows => self.decodes,
            Array::Tiles => 2 * self.tiles,
            Array::Samples => self.samples,
            Array::Tables => self.rows * self.max_blocks,
        };
        count as usize
    }

    /// Where an array begins, in 32-bit numbers from the first.
    #[must_use]
    pub fn start(&self, array: Array) -> usize {
        let before = ARRAYS.iter().take_while(|one| **one != array);
        before.map(|one| self.len(*one)).sum()
    }

    /// All numbers.
    #[must_use]
    pub fn words(&self) -> usize {
        ARRAYS.iter().map(|array| self.len(*array)).sum()
    }

    /// Writes a batch with its input tokens; `self` is [`Layout::of`] it, or that [`padded`](Layout::padded).
    ///
    /// # Panics
    /// If `out` is too short or the layout is another batch's.
    pub fn write(&self, batch: &Batch, inputs: &[u32], block_size: u32, out: &mut [u32]) {
        out[..self.words()].fill(0);
        out[self.start(Array::TokenRows)..][..self.len(Array::TokenRows)].fill(u32::MAX);
        let mut put = |array: Array, at: usize, number: u32| {
            assert!(at < self.len(array), "the layout is this batch's");
            out[self.start(array) + at] = number;
        };
        let (mut token, mut decodes, mut samples) = (0, 0, 0);
        let mut tiles = Vec::new();
        for (index, row) in batch.rows.iter().enumerate() {
            let end = row.computed_before + row.new_tokens;
            put(Array::FirstTokens, index, token);
            put(Array::NewTokens, index, row.new_tokens);
            put(Array::Contexts, index, end);
            let used = end.div_ceil(block_size) as usize;
            for (at, block) in row.blocks[..used].iter().enumerate() {
                put(Array::Tables, index * self.max_blocks as usize + at, *block);
            }
            if row.new_tokens == 1 {
                put(Array::DecodeRows, decodes, index as u32);
                decodes += 1;
            } else {
                let firsts = (0..row.new_tokens).step_by(TILE_TOKENS as usize);
                tiles
                    .extend(firsts.map(|first| (row.computed_before + first, index as u32, first)));
            }
            for position in row.computed_before..end {
                put(Array::Tokens, token as usize, inputs[token as usize]);
                put(Array::TokenRows, token as usize, index as u32);
                put(Array::Positions, token as usize, position);
                token += 1;
            }
            if row.samples {
                put(Array::Samples, samples, token - 1);
                samples += 1;
            }
        }
        tiles.sort_by_key(|(context, row, first)| (std::cmp::Reverse(*context), *row, *first));
        for (at, (_, row, first)) in tiles.into_iter().enumerate() {
            put(Array::Tiles, 2 * at, row);
            put(Array::Tiles, 2 * at + 1, first);
        }
        for padding in batch.rows.len() as u32..self.rows {
            for array in [Array::FirstTokens, Array::DecodeRows, Array::Samples] {
                put(array, padding as usize, padding);
            }
        }
    }
}

/// Parts into which the context of each decode is split, so that every multiprocessor has work: four blocks for each.
#[must_use]
pub fn splits(rows: u32, kv_heads: u32, multiprocessors: u32) -> u32 {
    (4 * multiprocessors).div_ceil(rows * kv_heads).clamp(1, 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::RequestId;
    use engine::executor::Row;

    fn row(computed_before: u32, new_tokens: u32, samples: bool, blocks: &[u32]) -> Row {
        Row {
            request: RequestId(0),
            new_tokens,
            computed_before,
            samples,
            blocks: blocks.to_vec(),
        }
    }

    #[test]
    fn arrays_say_what_the_batch_says() {
        let blocks: Vec<u32> = (10..30).collect();
        let batch = Batch {
            rows: vec![
                row(0, 130, false, &blocks),
                row(33, 1, true, &[7, 5, 9]),
                row(200, 3, true, &blocks),
            ],
        };
        let layout = Layout::of(&batch, 16);
        assert_eq!((layout.tokens, layout.decodes, layout.tiles), (134, 1, 3));
        // 203 tokens in blocks of 16.
        assert_eq!((layout.max_blocks, layout.padded()), (13, None));
        let inputs: Vec<u32> = (500..634).collect();
        let mut words = vec![77; layout.words() + 1];
        layout.write(&batch, &inputs, 16, &mut words);
        let array = |array| words[layout.start(array)..][..layout.len(array)].to_vec();
        assert_eq!(array(Array::Tokens), inputs);
        assert_eq!(array(Array::FirstTokens), [0, 130, 131]);
        assert_eq!(array(Array::Contexts), [130, 34, 203]);
        assert_eq!(array(Array::DecodeRows), [1]);
        assert_eq!(array(Array::Tiles), [2, 0, 0, 128, 0, 0]);
        assert_eq!(array(Array::Samples), [130, 133]);
        assert_eq!(
            array(Array::Positions)[128..],
            [128, 129, 33, 200, 201, 202]
        );
        assert_eq!(array(Array::Tables)[13..17], [7, 5, 9, 0]);
        assert_eq!(words[layout.words()], 77);
    }

    #[test]
    fn padding_has_no_row_and_no_context() {
        let batch = Batch {
            rows: vec![row(5, 1, true, &[3]); 5],
        };
        let layout = Layout::of(&batch, 16).padded().expect("only decodes");
        assert_eq!((layout.rows, layout.max_blocks), (8, 16));
        let mut words = vec![77; layout.words()];
        layout.write(&batch, &[1; 5], 16, &mut words);
        let array = |array| words[layout.start(array)..][..layout.len(array)].to_vec();
        assert_eq!(
            array(Array::TokenRows)[4..],
            [4, u32::MAX, u32::MAX, u32::MAX]
        );
        assert_eq!(array(Array::Contexts)[4..], [6, 0, 0, 0]);
        assert_eq!(array(Array::DecodeRows), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(array(Array::Samples), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn few_rows_are_split_more() {
        assert_eq!(splits(1, 8, 132), 32);
        assert_eq!(splits(16, 8, 132), 5);
        assert_eq!(splits(256, 8, 132), 1);
    }
}
