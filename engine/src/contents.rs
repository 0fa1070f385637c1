//! The prompts of a workload, token by token: what a simulation never asks for and a real model must have.
//!
//! A [`Workload`](crate::Workload) knows only where prompts part. Executors need the tokens themselves, as the runs that
//! the workload was built of; kept apart, so that simulations do not pay for them.

use crate::prefix_tree::Run;
use crate::workload::RequestId;

/// The token runs of every prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    runs: Vec<Run>,
    /// By request: index behind its last run.
    ends: Vec<u32>,
}

/// What the 64-bit id of a token stands for; the other way round than
/// [`WorkloadBuilder`](crate::WorkloadBuilder)'s functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// A token of the vocabulary.
    Vocabulary(u32),
    /// A token of a content known by name only: equal ids are equal tokens.
    Named(u64),
    /// Token `offset` of the answer to `request`.
    Answer {
        /// Whose answer.
        request: RequestId,
        /// Which token, from 0.
        offset: u32,
    },
}

impl Contents {
    /// No prompts yet.
    #[must_use]
    pub fn new() -> Self {
        Contents::default()
    }

    /// Adds the prompt of the next request.
    pub fn push(&mut self, prompt: &[Run]) {
        self.runs.extend_from_slice(prompt);
        let end = u32::try_from(self.runs.len()).expect("prompts have fewer than 2^32 runs");
        self.ends.push(end);
    }

    /// Number of prompts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without a prompt.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The prompt of a request.
    #[must_use]
    pub fn prompt(&self, request: RequestId) -> &[Run] {
        let index = request.0 as usize;
        let from = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.runs[from as usize..self.ends[index] as usize]
    }

    /// What the tokens of a run stand for, in order.
    pub fn tokens(run: Run) -> impl Iterator<Item = TokenSource> {
        (0..run.len).map(move |at| source(run.first + u64::from(at)))
    }
}

fn source(id: u64) -> TokenSource {
    const LOW: u64 = (1 << 31) - 1;
    match id >> 62 {
        1 => TokenSource::Vocabulary(id as u32),
        3 => TokenSource::Answer {
            request: RequestId((id >> 31 & LOW) as u32),
            offset: (id & LOW) as u32,
        },
        _ => TokenSource::Named(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WorkloadBuilder;

    #[test]
    fn ids_say_what_they_stand_for() {
        let answer = WorkloadBuilder::output_token(7, 3);
        assert_eq!(
            source(answer),
            TokenSource::Answer {
                request: RequestId(7),
                offset: 3
            }
        );
        let word = WorkloadBuilder::vocabulary_token(151_643);
        assert_eq!(source(word), TokenSource::Vocabulary(151_643));
        for id in [
            WorkloadBuilder::block_token(5, 9),
            WorkloadBuilder::private_token(5, 9),
        ] {
            assert_eq!(source(id), TokenSource::Named(id));
        }
    }

    #[test]
    fn prompts_come_back_by_request() {
        let run = |first, len| Run { first, len };
        let mut contents = Contents::new();
        contents.push(&[run(1, 2), run(9, 1)]);
        contents.push(&[run(4, 4)]);
        assert_eq!(contents.prompt(RequestId(0)), [run(1, 2), run(9, 1)]);
        assert_eq!(contents.prompt(RequestId(1)), [run(4, 4)]);
        assert_eq!(contents.len(), 2);
    }
}
