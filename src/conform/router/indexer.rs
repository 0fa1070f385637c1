//! Cases of kind `indexer`: what the radix tree answers after each operation.

use super::{Comparison, Names, first_difference, read};
use serde::Deserialize;
use serde_json::Value;
use sim::router::indexer::{HashedBlock, HashedChain, IndexError, RadixTree, Rank};

#[derive(Deserialize)]
struct Input {
    ops: Vec<Op>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Op {
    Store {
        worker: u64,
        #[serde(default)]
        dp: u32,
        parent: Option<u64>,
        local: Vec<u64>,
        seq: Vec<u64>,
    },
    Remove {
        worker: u64,
        #[serde(default)]
        dp: u32,
        seq: Vec<u64>,
    },
    Clear {
        worker: u64,
        #[serde(default)]
        dp: u32,
    },
    RemoveWorker {
        worker: u64,
    },
    Query {
        local: Vec<u64>,
        #[serde(default)]
        early_exit: bool,
    },
}

#[derive(Deserialize)]
struct Expected {
    results: Vec<Answer>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answer {
    ok: Option<bool>,
    error: Option<String>,
    scores: Option<Vec<Score>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
struct Score {
    worker: u64,
    dp: u32,
    blocks: u32,
    last_seq_hash: u64,
}

pub fn compare(input: Value, expected: Value) -> Result<Comparison, String> {
    let (input, mut expected): (Input, Expected) =
        (read("input", input)?, read("expected", expected)?);
    let mut index = Index {
        tree: RadixTree::default(),
        ranks: Names(Vec::new()),
    };
    let ours: Vec<Answer> = input.ops.iter().map(|op| index.apply(op)).collect();
    for answer in &mut expected.results {
        answer.scores.iter_mut().for_each(|scores| scores.sort());
    }
    Ok(first_difference(&expected.results, &ours))
}

struct Index {
    tree: RadixTree<HashedChain>,
    ranks: Names<(u64, u32)>,
}

impl Index {
    fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Store {
                worker,
                dp,
                parent,
                local,
                seq,
            } => {
                let blocks = local.iter().zip(seq);
                let blocks = blocks.map(|(&local, &sequence)| HashedBlock { local, sequence });
                let chain = HashedChain(blocks.collect());
                outcome(
                    self.tree
                        .store(self.ranks.number(&(*worker, *dp)), *parent, &chain),
                )
            }
            Op::Remove { worker, dp, seq } => {
                outcome(self.tree.remove(self.ranks.number(&(*worker, *dp)), seq))
            }
            Op::Clear { worker, dp } => {
                self.tree.clear(self.ranks.number(&(*worker, *dp)));
                outcome(Ok(()))
            }
            Op::RemoveWorker { worker } => {
                let ranks = self.ranks.0.iter().enumerate();
                let of_worker = ranks
                    .filter(|(_, (of, _))| of == worker)
                    .map(|(rank, _)| rank as Rank);
                for rank in of_worker.collect::<Vec<_>>() {
                    self.tree.clear(rank);
                }
                outcome(Ok(()))
            }
            Op::Query { local, early_exit } => {
                let found = self
                    .tree
                    .matches(local, *early_exit)
                    .into_iter()
                    .map(|found| {
                        let (worker, dp) = self.ranks.0[found.rank as usize];
                        Score {
                            worker,
                            dp,
                            blocks: found.blocks,
                            last_seq_hash: found.last,
                        }
                    });
                let mut scores: Vec<Score> = found.collect();
                scores.sort();
                Answer {
                    scores: Some(scores),
                    ..Answer::default()
                }
            }
        }
    }
}

fn outcome(result: Result<(), IndexError>) -> Answer {
    let error = result.err().map(|error| format!("{error:?}"));
    Answer {
        ok: Some(error.is_none()),
        error,
        scores: None,
    }
}
