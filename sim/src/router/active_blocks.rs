//! Blocks of active prompts on each rank: a block that several requests share counts once, and goes with the last.
//!
//! Two forms, as for an index: by hash, block by block, and by place in the prefix tree, run by run. A request holds its
//! prompt from the first block on, so on a node of the prefix tree a rank's active blocks are those up to the furthest
//! that one of its requests reaches.

use super::by_rank::BlocksByRank;
use super::indexer::Rank;
use engine::NodeId;
use engine::kv_cache::Stretch;
use rustc_hash::FxHashMap;
use std::fmt::Debug;

/// Blocks of prompts under way, by rank.
pub trait ActiveBlocks: Clone + Debug + Default {
    /// The whole blocks of a prompt.
    type Prompt: Clone + Debug;
    /// Number of blocks.
    fn len(prompt: &Self::Prompt) -> u32;
    /// One request more holds the prompt's blocks.
    fn acquire(&mut self, rank: Rank, prompt: &Self::Prompt);
    /// One request fewer does.
    fn release(&mut self, rank: Rank, prompt: &Self::Prompt);
    /// Counts the blocks that only this request holds, at the end of its prompt, as `fraction` of a block each.
    fn fade(&mut self, rank: Rank, prompt: &Self::Prompt, fraction: f64);
    /// Distinct blocks held on a rank; a faded one counts as its fraction.
    fn active(&self, rank: Rank) -> f64;
    /// Raises each rank to the number of leading blocks of the prompt that are held there.
    fn shared(&self, prompt: &Self::Prompt, shared: &mut BlocksByRank);
}

/// Active blocks by sequence hash.
#[derive(Debug, Clone, Default)]
pub struct HashedBlocks {
    ranks: Vec<HashedRank>,
}

#[derive(Debug, Clone, Default)]
struct HashedRank {
    blocks: FxHashMap<u64, HeldBlock>,
    total: f64,
}

#[derive(Debug, Clone, Copy)]
struct HeldBlock {
    requests: u32,
    weight: f64,
}

impl ActiveBlocks for HashedBlocks {
    type Prompt = Vec<u64>;

    fn len(prompt: &Vec<u64>) -> u32 {
        prompt.len() as u32
    }

    fn acquire(&mut self, rank: Rank, prompt: &Vec<u64>) {
        if self.ranks.len() <= rank as usize {
            self.ranks
                .resize_with(rank as usize + 1, HashedRank::default);
        }
        let rank = &mut self.ranks[rank as usize];
        for &block in prompt {
            let held = rank.blocks.entry(block).or_insert(HeldBlock {
                requests: 0,
                weight: 1.0,
            });
            if held.requests == 0 {
                rank.total += 1.0;
            }
            held.requests += 1;
        }
    }

    fn release(&mut self, rank: Rank, prompt: &Vec<u64>) {
        let rank = &mut self.ranks[rank as usize];
        for block in prompt {
            let held = rank
                .blocks
                .get_mut(block)
                .expect("a request holds its blocks");
            held.requests -= 1;
            if held.requests == 0 {
                rank.total -= held.weight;
                rank.blocks.remove(block);
            }
        }
        if rank.blocks.is_empty() {
            rank.total = 0.0;
        }
    }

    fn fade(&mut self, rank: Rank, prompt: &Vec<u64>, fraction: f64) {
        let rank = &mut self.ranks[rank as usize];
        for block in prompt.iter().rev() {
            let held = rank
                .blocks
                .get_mut(block)
                .expect("a request holds its blocks");
            if held.requests > 1 {
                break;
            }
            rank.total += fraction - held.weight;
            held.weight = fraction;
        }
    }

    fn active(&self, rank: Rank) -> f64 {
        self.ranks.get(rank as usize).map_or(0.0, |rank| rank.total)
    }

    fn shared(&self, prompt: &Vec<u64>, shared: &mut BlocksByRank) {
        for (number, rank) in self.ranks.iter().enumerate() {
            let held = prompt
                .iter()
                .take_while(|block| rank.blocks.contains_key(block));
            shared.raise(number as Rank, held.count() as u32);
        }
    }
}

/// Active blocks by place in the prefix tree.
#[derive(Debug, Clone, Default)]
pub struct PlacedActive {
    /// Sorted by rank and end.
    nodes: FxHashMap<NodeId, Vec<Reach>>,
    /// Empty lists with room, to be used again.
    spare: Vec<Vec<Reach>>,
    /// Blocks that do not count as one each; in order, apart from each other.
    faded: FxHashMap<(Rank, NodeId), Vec<Faded>>,
    ranks: Vec<PlacedRank>,
}

/// What a rank has.
#[derive(Debug, Clone, Copy, Default)]
struct PlacedRank {
    blocks: u64,
    total: f64,
}

/// Blocks `lo..hi` of a node count as `weight` each.
#[derive(Debug, Clone, Copy)]
struct Faded {
    lo: u32,
    hi: u32,
    weight: f64,
}

/// Takes the blocks `lo..hi` out of what has faded, and says what they counted together.
fn take_faded(faded: &mut Vec<Faded>, lo: u32, hi: u32) -> f64 {
    let (mut weight, mut covered) = (0.0, 0);
    let mut kept = Vec::new();
    for piece in faded.drain(..) {
        let (from, to) = (piece.lo.max(lo), piece.hi.min(hi));
        if from >= to {
            kept.push(piece);
            continue;
        }
        weight += f64::from(to - from) * piece.weight;
        covered += to - from;
        let rest = [Faded { hi: from, ..piece }, Faded { lo: to, ..piece }];
        kept.extend(rest.into_iter().filter(|rest| rest.lo < rest.hi));
    }
    *faded = kept;
    weight + f64::from(hi - lo - covered)
}

/// Requests of a rank that hold a node's blocks up to `end`.
#[derive(Debug, Clone, Copy)]
struct Reach {
    rank: Rank,
    end: u32,
    requests: u32,
}

/// The furthest end that a rank reaches, `start` if it does not; `reaches` are those up to its last.
fn furthest(reaches: &[Reach], rank: Rank, start: u32) -> u32 {
    let last = reaches.last().filter(|reach| reach.rank == rank);
    last.map_or(start, |reach| reach.end)
}

/// Position behind the last of a rank.
fn behind(reaches: &[Reach], rank: Rank) -> usize {
    reaches.partition_point(|reach| reach.rank <= rank)
}

fn place_of(reaches: &[Reach], rank: Rank, end: u32) -> Result<usize, usize> {
    reaches.binary_search_by_key(&(rank, end), |reach| (reach.rank, reach.end))
}

impl ActiveBlocks for PlacedActive {
    /// The path of the prompt's blocks, ending with the last.
    type Prompt = Vec<Stretch>;

    fn len(prompt: &Vec<Stretch>) -> u32 {
        prompt.last().map_or(0, |stretch| stretch.end)
    }

    fn acquire(&mut self, rank: Rank, prompt: &Vec<Stretch>) {
        if self.ranks.len() <= rank as usize {
            self.ranks.resize(rank as usize + 1, PlacedRank::default());
        }
        let mut start = 0;
        for &Stretch { node, end } in prompt {
            let reaches = self.nodes.entry(node);
            let reaches = reaches.or_insert_with(|| self.spare.pop().unwrap_or_default());
            let before = furthest(&reaches[..behind(reaches, rank)], rank, start);
            let new = end.saturating_sub(before);
            let own = &mut self.ranks[rank as usize];
            own.blocks += u64::from(new);
            own.total += f64::from(new);
            match place_of(reaches, rank, end) {
                Ok(at) => reaches[at].requests += 1,
                Err(at) => reaches.insert(
                    at,
                    Reach {
                        rank,
                        end,
                        requests: 1,
                    },
                ),
            }
            start = end;
        }
    }

    fn release(&mut self, rank: Rank, prompt: &Vec<Stretch>) {
        let mut start = 0;
        for &Stretch { node, end } in prompt {
            let reaches = self
                .nodes
                .get_mut(&node)
                .expect("a request holds its blocks");
            let at = place_of(reaches, rank, end).expect("a request holds its blocks");
            reaches[at].requests -= 1;
            if reaches[at].requests == 0 {
                reaches.remove(at);
                let left = furthest(&reaches[..behind(reaches, rank)], rank, start);
                let gone = end.saturating_sub(left);
                let own = &mut self.ranks[rank as usize];
                own.blocks -= u64::from(gone);
                let faded = match self.faded.is_empty() {
                    true => None,
                    false => self.faded.get_mut(&(rank, node)),
                };
                own.total -= match faded {
                    Some(faded) if gone > 0 => take_faded(faded, left, end),
                    _ => f64::from(gone),
                };
                if own.blocks == 0 {
                    own.total = 0.0;
                }
                if left == start && !self.faded.is_empty() {
                    self.faded.remove(&(rank, node));
                }
                if reaches.is_empty() {
                    self.spare.extend(self.nodes.remove(&node));
                }
            }
            start = end;
        }
    }

    fn fade(&mut self, rank: Rank, prompt: &Vec<Stretch>, fraction: f64) {
        for (index, &Stretch { node, end }) in prompt.iter().enumerate().rev() {
            let start = index.checked_sub(1).map_or(0, |before| prompt[before].end);
            let reaches = &self.nodes[&node];
            let at = place_of(reaches, rank, end).expect("a request holds its blocks");
            let is_last = at + 1 == behind(reaches, rank);
            if !is_last || reaches[at].requests > 1 {
                return;
            }
            let shared = furthest(&reaches[..at], rank, start);
            let faded = self.faded.entry((rank, node)).or_default();
            let before = take_faded(faded, shared, end);
            let own = &mut self.ranks[rank as usize];
            own.total += f64::from(end - shared) * fraction - before;
            let piece = Faded {
                lo: shared,
                hi: end,
                weight: fraction,
            };
            let at = faded.partition_point(|other| other.hi <= shared);
            faded.insert(at, piece);
            if shared > start {
                return;
            }
        }
    }

    fn active(&self, rank: Rank) -> f64 {
        self.ranks.get(rank as usize).map_or(0.0, |rank| rank.total)
    }

    fn shared(&self, prompt: &Vec<Stretch>, shared: &mut BlocksByRank) {
        for stretch in prompt {
            let Some(reaches) = self.nodes.get(&stretch.node) else {
                return;
            };
            for reach in reaches {
                shared.raise(reach.rank, reach.end.min(stretch.end));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Paths through a little tree: node n of a path is named by what lies above it, so that equal names have equal
    /// starts; a prompt may end inside its last node.
    fn path(turns: &[u8], cut: u32) -> (Vec<Stretch>, Vec<u64>) {
        let (mut name, mut end) = (1, 0);
        let mut stretches = Vec::new();
        for &turn in turns {
            name = name * 3 + u32::from(turn);
            end += 2 + name % 3;
            stretches.push(Stretch {
                node: NodeId(name),
                end,
            });
        }
        let start = stretches
            .iter()
            .rev()
            .nth(1)
            .map_or(0, |stretch| stretch.end);
        let last = stretches.last_mut().expect("paths are not empty");
        last.end = (last.end - cut.min(1)).max(start + 1);
        let mut start = 0;
        let mut blocks = Vec::new();
        for stretch in &stretches {
            blocks.extend(
                (start..stretch.end).map(|b| (u64::from(stretch.node.0) << 32) | u64::from(b)),
            );
            start = stretch.end;
        }
        (stretches, blocks)
    }

    proptest! {
        #[test]
        fn both_forms_count_alike(
            requests in prop::collection::vec(
                (0u32..3, prop::collection::vec(0u8..3, 1..5), 0u32..2, any::<bool>(), 0usize..40, 0u32..5), 1..30
            )
        ) {
            let (mut placed, mut hashed) = (PlacedActive::default(), HashedBlocks::default());
            let mut held = Vec::new();
            for (rank, turns, cut, frees, fades, fraction) in requests {
                let (stretches, blocks) = path(&turns, cut);
                let (mut a, mut b) = (BlocksByRank::default(), BlocksByRank::default());
                placed.shared(&stretches, &mut a);
                hashed.shared(&blocks, &mut b);
                prop_assert_eq!([0, 1, 2].map(|rank| a.get(rank)), [0, 1, 2].map(|rank| b.get(rank)));
                placed.acquire(rank, &stretches);
                hashed.acquire(rank, &blocks);
                held.push((rank, stretches, blocks));
                if let Some((rank, stretches, blocks)) = held.get(fades) {
                    // Quarters add up exactly.
                    let fraction = f64::from(fraction) / 4.0;
                    placed.fade(*rank, stretches, fraction);
                    hashed.fade(*rank, blocks, fraction);
                }
                if frees {
                    let (rank, stretches, blocks) = held.remove(held.len() / 2);
                    placed.release(rank, &stretches);
                    hashed.release(rank, &blocks);
                }
                for rank in 0..3 {
                    prop_assert_eq!(placed.active(rank), hashed.active(rank));
                }
            }
        }
    }
}
