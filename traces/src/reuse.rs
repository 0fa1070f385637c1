//! How much of the prompts a prefix cache could serve: without limit, and as a function of its size.
//!
//! The hit rate of an LRU cache of every size at once, by stack distances (Mattson et al. 1970): keep all blocks in
//! order of last use; a block at position d is a hit in every cache of at least d blocks. A Fenwick tree over the
//! times of last use counts the blocks in front, so that n uses cost O(n log n).
//!
//! One request is one use of its whole prompt: all of it is looked up first, then touched from the last block to the
//! first, so that the tail of a prompt is evicted before its head, as engines do. A block is therefore never cached
//! without its prefix, and the curve counts prefix hits. All requests that touch a node of the tree of prompts touch
//! all of it, so the stack holds nodes with weights; inside a node the j-th block stands j places further down.
//!
//! The curve is that of one cache shared by all requests in order of arrival, each finished before the next begins;
//! several workers, or requests in flight that hold their blocks, hit less.

use engine::{NodeId, PrefixTree};

use crate::contents::Contents;

/// Prefix reuse of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reuse {
    /// Blocks of all prompts.
    pub references: u64,
    /// Different ones among them.
    pub unique: u64,
    /// Prompt tokens that an unlimited cache would hold already.
    pub shared_tokens: u64,
    /// Prompt tokens of all requests.
    pub input_tokens: u64,
    /// Hits over cache size: (size in blocks, hits of a cache of that size), linear in between, ascending. The first
    /// point is (0, 0); from the last one on the hits stay what they are.
    curve: Vec<(u64, u64)>,
}

impl Reuse {
    /// Of the prompts `contents`, whose lengths in tokens are `input_tokens`.
    #[must_use]
    pub fn of(contents: &Contents, input_tokens: impl ExactSizeIterator<Item = u32>) -> Reuse {
        assert_eq!(input_tokens.len(), contents.len(), "one length per prompt");
        let mut stack = Stack::new(contents);
        let mut reuse = Reuse {
            references: 0,
            unique: 0,
            shared_tokens: 0,
            input_tokens: 0,
            curve: Vec::new(),
        };
        let mut hits: Vec<(u64, i64)> = Vec::new();
        let mut path = Vec::new();
        for (row, tokens) in input_tokens.enumerate() {
            path.clear();
            contents.tree().path_into(contents.leaf(row), &mut path);
            let mut shared_depth = 0;
            for &node in &path {
                let Some(in_front) = stack.in_front_of(node) else {
                    break;
                };
                shared_depth = contents.tree().end(node);
                let blocks = u64::from(contents.blocks_in(node));
                // The j-th block of the node is a hit from size in_front + j on.
                hits.push((in_front, 1));
                hits.push((in_front + blocks, -1));
            }
            for &node in path.iter().rev() {
                stack.touch(node, u64::from(contents.blocks_in(node)));
            }
            reuse.references +=
                u64::from(contents.blocks_by(contents.tree().end(contents.leaf(row))));
            reuse.shared_tokens += u64::from(contents.tokens_by(shared_depth, tokens));
            reuse.input_tokens += u64::from(tokens);
        }
        reuse.unique = stack.total;
        reuse.curve = curve(hits);
        reuse
    }

    /// Share of the blocks that an unlimited cache would serve.
    #[must_use]
    pub fn best(&self) -> f64 {
        share(self.references - self.unique, self.references)
    }

    /// Share of the prompt tokens that an unlimited cache would serve.
    #[must_use]
    pub fn best_by_tokens(&self) -> f64 {
        share(self.shared_tokens, self.input_tokens)
    }

    /// Share of the blocks that an LRU cache of so many blocks would serve.
    #[must_use]
    pub fn hit_rate(&self, blocks: u64) -> f64 {
        share(self.hits(blocks), self.references)
    }

    /// Blocks that an LRU cache of so many blocks would serve.
    #[must_use]
    pub fn hits(&self, blocks: u64) -> u64 {
        let above = self.curve.partition_point(|point| point.0 <= blocks);
        let (x0, y0) = self.curve[above - 1];
        match self.curve.get(above) {
            // The slope is the number of uses that gain one more hit per block of cache: a whole number.
            Some(&(x1, y1)) => y0 + (y1 - y0) / (x1 - x0) * (blocks - x0),
            None => y0,
        }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// Adds up `(size, change of slope)` to points of the curve.
fn curve(mut bends: Vec<(u64, i64)>) -> Vec<(u64, u64)> {
    bends.sort_unstable();
    let mut points = vec![(0, 0)];
    let (mut size, mut hits, mut slope) = (0, 0, 0);
    for bend in bends.chunk_by(|a, b| a.0 == b.0) {
        let change: i64 = bend.iter().map(|&(_, change)| change).sum();
        if bend[0].0 > size && change != 0 {
            hits += slope as u64 * (bend[0].0 - size);
            size = bend[0].0;
            points.push((size, hits));
        }
        slope += change;
    }
    assert_eq!(
        slope, 0,
        "every use that begins to hit is a full hit from some size on"
    );
    points
}

/// All nodes seen so far in order of their last use.
struct Stack {
    /// For every node, 1 + the time of its last use; 0 for one that was not used yet.
    last_use: Vec<u32>,
    /// Fenwick tree: blocks of the nodes last used at a time, over times.
    blocks_at: Vec<u64>,
    now: u32,
    /// Blocks of all nodes.
    total: u64,
}

impl Stack {
    fn new(contents: &Contents) -> Stack {
        let tree = contents.tree();
        let mut depth = vec![0u32; tree.len()];
        let mut uses = 0u64;
        for row in 0..contents.len() {
            uses += u64::from(nodes_above(tree, contents.leaf(row), &mut depth));
        }
        let uses = u32::try_from(uses).expect("fewer than 2^32 uses of nodes");
        Stack {
            last_use: vec![0; tree.len()],
            blocks_at: vec![0; uses as usize + 1],
            now: 0,
            total: 0,
        }
    }

    /// Number of blocks used after the last use of `node`; `None` for a node not seen yet.
    fn in_front_of(&self, node: NodeId) -> Option<u64> {
        let time = self.last_use[node.0 as usize];
        (time > 0).then(|| self.total - self.blocks_until(time))
    }

    fn touch(&mut self, node: NodeId, blocks: u64) {
        let last = std::mem::replace(&mut self.last_use[node.0 as usize], self.now + 1);
        if last > 0 {
            self.add(last, blocks.wrapping_neg());
        } else {
            self.total += blocks;
        }
        self.now += 1;
        self.add(self.now, blocks);
    }

    /// Blocks last used at or before `time`.
    fn blocks_until(&self, mut time: u32) -> u64 {
        let mut sum = 0u64;
        while time > 0 {
            sum = sum.wrapping_add(self.blocks_at[time as usize]);
            time &= time - 1;
        }
        sum
    }

    fn add(&mut self, mut time: u32, blocks: u64) {
        while let Some(sum) = self.blocks_at.get_mut(time as usize) {
            *sum = sum.wrapping_add(blocks);
            time += time & time.wrapping_neg();
        }
    }
}

/// Number of nodes from below the root down to `leaf`; `known` keeps what was counted before.
fn nodes_above(tree: &PrefixTree, leaf: NodeId, known: &mut [u32]) -> u32 {
    let mut count = 0;
    let mut node = leaf;
    while node != PrefixTree::ROOT && known[node.0 as usize] == 0 {
        count += 1;
        node = tree.parent(node);
    }
    let depth = count + known[node.0 as usize];
    let mut node = leaf;
    for left in 0..count {
        known[node.0 as usize] = depth - left;
        node = tree.parent(node);
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{NewContent, NewRow, Trace, TraceBuilder};
    use engine::Time;
    use proptest::prelude::*;

    /// One request per list of hashes, blocks of 4 tokens, the last block one token short.
    fn trace(prompts: &[Vec<u64>]) -> Trace {
        let mut builder = TraceBuilder::new(4);
        for (index, hashes) in prompts.iter().enumerate() {
            let tokens = 4 * hashes.len() as u32 - 1;
            builder.push(NewRow::alone(
                Time::from_ns(index as u64),
                tokens,
                1,
                NewContent::Blocks(hashes),
            ));
        }
        builder.finish()
    }

    fn reuse(trace: &Trace) -> Reuse {
        Reuse::of(
            &Contents::of(trace),
            trace.rows.iter().map(|row| row.input_tokens),
        )
    }

    #[test]
    fn a_conversation_with_a_stranger_in_between() {
        // Stack after the first: 1 2 3 (most recent first); after the second: 9 8 1 2 3. The third finds 1 at place 3,
        // 2 at 4, 3 at 5, and 4 nowhere: hits 1, 2, 3 in caches of 3, 4, 5 blocks.
        let reuse = reuse(&trace(&[vec![1, 2, 3], vec![9, 8], vec![1, 2, 3, 4]]));
        assert_eq!((reuse.references, reuse.unique), (9, 6));
        let hits: Vec<u64> = [0, 2, 3, 4, 5, 6, 100]
            .iter()
            .map(|&size| reuse.hits(size))
            .collect();
        assert_eq!(hits, [0, 0, 1, 2, 3, 3, 3]);
        assert_eq!(reuse.best(), 3.0 / 9.0);
        // 12 of 11 + 7 + 15 tokens: the shared blocks are whole in the third prompt.
        assert_eq!((reuse.shared_tokens, reuse.input_tokens), (12, 33));
    }

    #[test]
    fn a_repeated_prompt_is_served_whole() {
        // The second time all 11 tokens are there, though three blocks could hold 12.
        let reuse = reuse(&trace(&[vec![5, 6, 7], vec![5, 6, 7]]));
        assert_eq!(
            (reuse.hits(2), reuse.hits(3), reuse.shared_tokens),
            (2, 3, 11)
        );
    }

    #[test]
    fn unknown_contents_share_nothing() {
        let mut builder = TraceBuilder::new(16);
        for index in 0..3 {
            builder.push(NewRow::alone(
                Time::from_ns(index),
                40,
                1,
                NewContent::Private,
            ));
        }
        let trace = builder.finish();
        let contents = Contents::of(&trace);
        assert!(contents.are_unknown());
        let reuse = Reuse::of(&contents, trace.rows.iter().map(|row| row.input_tokens));
        // ⌈40 / 16⌉ = 3 blocks each.
        assert_eq!(
            (reuse.references, reuse.unique, reuse.shared_tokens),
            (9, 9, 0)
        );
    }

    #[test]
    fn token_ids_and_other_block_sizes_count_whole_blocks() {
        // Prompts of 10 and 9 tokens with 7 in common. Blocks of 2: 5 + 4 references, 3 shared; of 4: 2 + 2, 1 shared.
        let mut builder = TraceBuilder::new(2);
        let long: Vec<u32> = (0..10).collect();
        let short = [0, 1, 2, 3, 4, 5, 6, 90, 91];
        for (at, prompt) in [(0, long.as_slice()), (1, short.as_slice())] {
            let content = NewContent::Tokens {
                prompt,
                answer: &[],
            };
            builder.push(NewRow::alone(
                Time::from_ns(at),
                prompt.len() as u32,
                1,
                content,
            ));
        }
        let trace = builder.finish();
        for (block_size, references, unique) in [(2, 9, 6), (4, 4, 3), (16, 0, 0)] {
            let contents = Contents::in_blocks_of(&trace, block_size);
            let reuse = Reuse::of(&contents, trace.rows.iter().map(|row| row.input_tokens));
            assert_eq!(
                (reuse.references, reuse.unique, reuse.shared_tokens),
                (references, unique, 7)
            );
        }
    }

    /// An LRU cache of `size` blocks, written to be obviously right: a list, most recent first.
    fn hits_of_a_real_cache(prompts: &[Vec<u64>], size: usize) -> u64 {
        let mut cache: Vec<Vec<u64>> = Vec::new();
        let mut hits = 0;
        for prompt in prompts {
            let prefix = |len: usize| prompt[..len].to_vec();
            hits += (1..=prompt.len())
                .take_while(|&len| cache.contains(&prefix(len)))
                .count() as u64;
            for len in (1..=prompt.len()).rev() {
                cache.retain(|block| *block != prefix(len));
                cache.insert(0, prefix(len));
                cache.truncate(size);
            }
        }
        hits
    }

    /// Prompts that walk down a narrow tree, so that they share prefixes of all lengths.
    fn prompts() -> impl Strategy<Value = Vec<Vec<u64>>> {
        prop::collection::vec(prop::collection::vec(0u64..3, 1..7), 1..25)
    }

    proptest! {
        #[test]
        fn the_curve_is_that_of_real_caches(prompts in prompts()) {
            let trace = trace(&prompts);
            let reuse = reuse(&trace);
            for size in 0..40 {
                prop_assert_eq!(reuse.hits(size as u64), hits_of_a_real_cache(&prompts, size), "size {}", size);
            }
            prop_assert_eq!(reuse.hits(u64::MAX), reuse.references - reuse.unique);
        }

        /// Halving the block size of a trace of whole blocks doubles references, unique blocks and every size.
        #[test]
        fn half_as_large_blocks_are_twice_as_many(prompts in prompts()) {
            let mut builder = TraceBuilder::new(4);
            for (index, hashes) in prompts.iter().enumerate() {
                let tokens = 4 * hashes.len() as u32;
                builder.push(NewRow::alone(Time::from_ns(index as u64), tokens, 1, NewContent::Blocks(hashes)));
            }
            let trace = builder.finish();
            let lengths = || trace.rows.iter().map(|row| row.input_tokens);
            let whole = Reuse::of(&Contents::of(&trace), lengths());
            let half = Reuse::of(&Contents::in_blocks_of(&trace, 2), lengths());
            prop_assert_eq!((half.references, half.unique), (2 * whole.references, 2 * whole.unique));
            for size in 0..40 {
                prop_assert_eq!(half.hits(2 * size), 2 * whole.hits(size));
            }
        }
    }
}
