//! Which steps to measure so that a formula for all steps can be fitted: the sweep of a calibration.
//!
//! | Kind | Axes |
//! |---|---|
//! | prefill | new tokens × tokens before × one sequence or four |
//! | decode | sequences × context |
//! | skewed | as many tokens of context, one sequence long and the others short |
//! | mixed | a chunk × decoding sequences × context |
//! | drawn | one to three chunks and a batch, all sizes log-uniform: what no axis holds |
//!
//! All within what the scheduler can plan and the pool can hold, in random order, so that a machine whose speed drifts
//! does not look like a cost of size.

use crate::random::Counter;
use engine::executor::Row;
use engine::kv_cache::BlockId;
use engine::{Batch, Chunk, Contents, RequestId, Run, WorkloadBuilder};

/// What steps a worker can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a step.
    pub step_tokens: u32,
    /// Sequences of a step.
    pub sequences: u32,
    /// Longest context of a sequence.
    pub longest: u32,
    /// KV blocks that sequences can use, numbered from 1.
    pub blocks: u32,
    /// Tokens per block.
    pub block_size: u32,
}

/// A step to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// `prefill`, `decode`, `skewed`, `mixed` or `drawn`.
    pub kind: &'static str,
    /// Pieces of prompts.
    pub prefill: Vec<Chunk>,
    /// By decoding sequence: its context, the new token included.
    pub decode: Vec<u32>,
}

const NEW: [u32; 11] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];
const BEFORE: [u32; 6] = [0, 128, 512, 2048, 8192, 32_768];
const BATCH: [u32; 13] = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256];
const CONTEXT: [u32; 9] = [32, 128, 256, 512, 1024, 2048, 4096, 8192, 32_768];
/// Points of the last kind.
const DRAWN: u64 = 60;

impl Point {
    /// Summed context of the decoding sequences.
    #[must_use]
    pub fn decode_context(&self) -> u64 {
        self.decode.iter().map(|context| u64::from(*context)).sum()
    }

    fn fits(&self, limits: &Limits) -> bool {
        let chunks = self.prefill.iter();
        let new: u32 = chunks.clone().map(|chunk| chunk.new_tokens).sum();
        let ends = chunks.map(|chunk| chunk.new_tokens + chunk.cached_tokens);
        let mut ends = ends.chain(self.decode.iter().copied());
        let sequences = self.prefill.len() + self.decode.len();
        let blocks: u32 = ends
            .clone()
            .map(|end| end.div_ceil(limits.block_size))
            .sum();
        (1..=limits.sequences as usize).contains(&sequences)
            && new + self.decode.len() as u32 <= limits.step_tokens
            && ends.all(|end| end <= limits.longest)
            && blocks <= limits.blocks
    }

    /// The step as an executor takes it: request `i` is its `i`-th sequence, blocks are dealt from `blocks` in order.
    #[must_use]
    pub fn batch(&self, limits: &Limits, blocks: &[BlockId]) -> Batch {
        let decodes = self.decode.iter().map(|context| (1, context - 1));
        let chunks = self.prefill.iter();
        let chunks = chunks.map(|chunk| (chunk.new_tokens, chunk.cached_tokens));
        let mut left = blocks.iter().copied();
        let row = |(index, (new_tokens, computed_before)): (usize, (u32, u32))| Row {
            request: RequestId(index as u32),
            new_tokens,
            computed_before,
            samples: true,
            blocks: left
                .by_ref()
                .take((new_tokens + computed_before).div_ceil(limits.block_size) as usize)
                .collect(),
        };
        Batch {
            rows: decodes.chain(chunks).enumerate().map(row).collect(),
        }
    }
}

impl Limits {
    /// Contents for the sequences of all points: prompts of the greatest length, no two alike.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        for owner in 0..self.sequences {
            contents.push(&[Run {
                first: WorkloadBuilder::private_token(owner, 0),
                len: self.longest,
            }]);
        }
        contents
    }

    /// All blocks in no order, as a pool that was in use for a while hands them out.
    #[must_use]
    pub fn scattered_blocks(&self, seed: u64) -> Vec<BlockId> {
        shuffled((1..=self.blocks).collect(), seed, "blocks")
    }

    /// The points of the sweep in random order; each worker has an order of its own.
    #[must_use]
    pub fn points(&self, seed: u64, worker: u32) -> Vec<Point> {
        let mut points = self.grid();
        let numbers = Counter::new(seed, "drawn points");
        points.extend((0..DRAWN).map(|index| self.draw(numbers, index)));
        points.retain(|point| point.fits(self));
        let mut unlike: Vec<Point> = Vec::new();
        for point in points {
            if !unlike.contains(&point) {
                unlike.push(point);
            }
        }
        shuffled(unlike, seed.wrapping_add(u64::from(worker)), "points")
    }

    fn grid(&self) -> Vec<Point> {
        let chunk = |new_tokens, cached_tokens| Chunk {
            new_tokens,
            cached_tokens,
        };
        let mut points = Vec::new();
        let mut add = |kind, prefill: Vec<Chunk>, decode: Vec<u32>| {
            points.push(Point {
                kind,
                prefill,
                decode,
            });
        };
        let whole = self.step_tokens.min(self.longest);
        for new in NEW.into_iter().chain([whole]) {
            for before in BEFORE {
                for sequences in [1, 4] {
                    add("prefill", vec![chunk(new, before); sequences], Vec::new());
                }
            }
        }
        for batch in BATCH.into_iter().chain([self.sequences]) {
            for context in CONTEXT.into_iter().chain([self.longest]) {
                add("decode", Vec::new(), vec![context; batch as usize]);
            }
        }
        for batch in [4, 16, 64] {
            let mut contexts = vec![32; batch];
            contexts[0] = self.longest;
            add("skewed", Vec::new(), contexts);
        }
        for new in NEW {
            for batch in [1, 4, 12, 32, 128] {
                for context in [128, 512, 2048] {
                    add("mixed", vec![chunk(new, 0)], vec![context; batch]);
                }
            }
        }
        points
    }

    fn draw(&self, numbers: Counter, index: u64) -> Point {
        let mut drawn = 0;
        // From 1 to `most`, each doubling as likely as any other.
        let mut log_uniform = |most: u32| {
            let bits = numbers.bits(64 * index + drawn % 64 + (drawn / 64) * 64 * DRAWN);
            drawn += 1;
            let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
            (f64::from(most).powf(share).round() as u32).clamp(1, most.max(1))
        };
        let batch = log_uniform(self.sequences);
        let mut left = self.blocks / 2;
        let mut decode = Vec::new();
        for _ in 0..batch {
            let context = log_uniform(self.longest);
            let blocks = context.div_ceil(self.block_size);
            if blocks <= left {
                left -= blocks;
                decode.push(context);
            }
        }
        let chunks = log_uniform(4) - 1;
        let mut tokens = self.step_tokens.saturating_sub(batch);
        let mut prefill = Vec::new();
        for _ in 0..chunks.min(tokens) {
            let new_tokens = log_uniform(tokens.min(self.longest));
            tokens -= new_tokens;
            prefill.push(Chunk {
                new_tokens,
                cached_tokens: log_uniform(self.longest - new_tokens + 1) - 1,
            });
            if tokens == 0 {
                break;
            }
        }
        Point {
            kind: "drawn",
            prefill,
            decode,
        }
    }
}

fn shuffled<T>(things: Vec<T>, seed: u64, name: &str) -> Vec<T> {
    let numbers = Counter::new(seed, name);
    let mut keyed: Vec<(u64, T)> = (0..).map(|index| numbers.bits(index)).zip(things).collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, thing)| thing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        step_tokens: 192,
        sequences: 16,
        longest: 700,
        blocks: 160,
        block_size: 16,
    };

    #[test]
    fn points_are_steps_that_can_be_planned_and_no_two_are_alike() {
        let points = LIMITS.points(1, 0);
        for kind in ["prefill", "decode", "skewed", "mixed", "drawn"] {
            let count = points.iter().filter(|point| point.kind == kind).count();
            assert!(count > 0, "{kind}");
        }
        let blocks = LIMITS.scattered_blocks(1);
        for (index, point) in points.iter().enumerate() {
            assert!(point.fits(&LIMITS), "{point:?}");
            assert!(!points[..index].contains(point), "{point:?}");
            let batch = point.batch(&LIMITS, &blocks);
            let mut held: Vec<BlockId> = batch
                .rows
                .iter()
                .flat_map(|row| row.blocks.clone())
                .collect();
            held.sort_unstable();
            held.dedup();
            let needed = |row: &Row| (row.computed_before + row.new_tokens).div_ceil(16) as usize;
            assert_eq!(
                held.len(),
                batch.rows.iter().map(needed).sum::<usize>(),
                "own blocks"
            );
            assert!(batch.rows.len() <= LIMITS.contents().len());
        }
    }

    #[test]
    fn workers_measure_the_same_points_in_orders_of_their_own() {
        let (mut one, mut other) = (LIMITS.points(1, 0), LIMITS.points(1, 1));
        assert_ne!(one, other);
        assert_eq!(one, LIMITS.points(1, 0));
        let key = |point: &Point| format!("{point:?}");
        one.sort_by_key(key);
        other.sort_by_key(key);
        assert_eq!(one, other);
    }
}
