//! A trace in memory: one [`Row`] per request in order of arrival, contents as dense integers.
//!
//! What a prompt *is* matters only where two prompts are equal, so a content block of the file (a hash of 16 or 512
//! tokens, say) becomes the number of its first appearance, and rows point into one shared list of such numbers. A row
//! describes its last [`Row::own_tokens`] prompt tokens that way; tokens before them are the prompt and the answer of
//! the row it [`Row::extends`] (a conversation told in deltas), or belong to this row alone.
//!
//! [`TraceBuilder`] is the one way to make a trace: readers, generators and transforms all push rows in any order, and
//! [`TraceBuilder::finish`] sorts them stably and renumbers what they refer to.

use crate::ahead::Scratch;
use engine::{
    AnnotationTable, Annotations, Contents, Dependency, NewAhead, NewRequest, Run, Time, Workload,
    WorkloadBuilder,
};

mod builder;

pub use builder::{NewContent, NewRow, TraceBuilder};

/// Requests in order of arrival and what they have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// Tokens per content block, at least 1.
    pub block_size: u32,
    /// In order of [`Row::arrival`], ties in the order of the source.
    pub rows: Vec<Row>,
    /// Content blocks of all rows; see [`Trace::blocks`]. Numbered from 0 by first appearance in the source.
    pub block_list: Vec<u32>,
    /// Number of different values in `block_list`.
    pub unique_blocks: u32,
    /// Token ids of all rows; see [`Trace::prompt_tokens`] and [`Trace::answer_tokens`].
    pub token_list: Vec<u32>,
    /// What rows wait for; see [`Trace::dependencies_of`]. `on` is an index into `rows`.
    pub dependencies: Vec<Dependency>,
    /// Number of different values of [`Row::session`].
    pub sessions: u32,
    /// What rows say about themselves.
    pub annotations: AnnotationTable,
}

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// When it may be sent at the earliest, in whole nanoseconds. A row with dependencies arrives when they allow it if
    /// requests take no time, or at a later time that the file insists on; so its arrival does not hold it back once
    /// its dependencies have released it, unless it is meant to.
    pub arrival: Time,
    /// Prompt tokens, at least 1; with `output_tokens` below 2^31.
    pub input_tokens: u32,
    /// Tokens to generate, at least 1.
    pub output_tokens: u32,
    /// How many of the last prompt tokens `content` describes, at most `input_tokens`.
    pub own_tokens: u32,
    /// How their content is known.
    pub content: Content,
    /// Index of the row whose prompt and answer come before the own tokens. Without one, those tokens are shared with
    /// nobody.
    pub extends: Option<u32>,
    /// vLLM's priority: smaller values are served first. 0 where a trace has none.
    pub priority: i32,
    /// Conversation; a row without one has a number of its own.
    pub session: u32,
    /// Line of the source, from 1; 0 where there is none.
    pub line: u32,
    /// First entry in [`Trace::dependencies`].
    pub first_dependency: u32,
    /// Number of entries there.
    pub dependency_count: u16,
}

/// How the content of a row's own tokens is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Not known: no other row has the same tokens.
    Private,
    /// As ⌈own tokens / block size⌉ entries of [`Trace::block_list`] from `first` on; the last block may be partial.
    Blocks {
        /// Index of the first entry.
        first: u32,
    },
    /// As entries of [`Trace::token_list`] from `first` on: one per own token, then, if `has_answer`, one per token of
    /// the answer.
    Tokens {
        /// Index of the first entry.
        first: u32,
        /// Whether the answer's tokens are known too.
        has_answer: bool,
    },
}

impl Trace {
    /// The content blocks of a row's own tokens; empty where content is not known by blocks.
    #[must_use]
    pub fn blocks(&self, row: &Row) -> &[u32] {
        match row.content {
            Content::Blocks { first } => {
                let count = row.own_tokens.div_ceil(self.block_size);
                &self.block_list[first as usize..][..count as usize]
            }
            Content::Private | Content::Tokens { .. } => &[],
        }
    }

    /// The vocabulary ids of a row's own tokens; empty where content is not known by tokens.
    #[must_use]
    pub fn prompt_tokens(&self, row: &Row) -> &[u32] {
        match row.content {
            Content::Tokens { first, .. } => {
                &self.token_list[first as usize..][..row.own_tokens as usize]
            }
            Content::Private | Content::Blocks { .. } => &[],
        }
    }

    /// The vocabulary ids of a row's answer; empty where they are not known.
    #[must_use]
    pub fn answer_tokens(&self, row: &Row) -> &[u32] {
        match row.content {
            Content::Tokens {
                first,
                has_answer: true,
            } => {
                &self.token_list[(first + row.own_tokens) as usize..][..row.output_tokens as usize]
            }
            _ => &[],
        }
    }

    /// What `row` waits for besides its arrival time.
    #[must_use]
    pub fn dependencies_of(&self, row: &Row) -> &[Dependency] {
        &self.dependencies[row.first_dependency as usize..][..usize::from(row.dependency_count)]
    }

    /// What row `index` says about itself, if anything.
    #[must_use]
    pub fn annotations_of(&self, index: usize) -> Option<&Annotations> {
        self.annotations.of(index)
    }

    /// From the first arrival to the last.
    #[must_use]
    pub fn span(&self) -> engine::Span {
        match (self.rows.first(), self.rows.last()) {
            (Some(first), Some(last)) => last.arrival.since(first.arrival),
            _ => engine::Span::ZERO,
        }
    }

    /// Replaces `runs` by the whole prompt of row `index`, as [`Workload`] names its tokens: blocks by
    /// [`WorkloadBuilder::block_token`], vocabulary ids by [`WorkloadBuilder::vocabulary_token`], unknown content by
    /// [`WorkloadBuilder::private_token`], earlier answers by [`WorkloadBuilder::output_token`]. `turns` is scratch
    /// space.
    pub fn prompt_into(&self, index: u32, turns: &mut Vec<u32>, runs: &mut Vec<Run>) {
        turns.clear();
        turns.push(index);
        let mut turn = index;
        while let Some(previous) = self.rows[turn as usize].extends {
            turns.push(previous);
            turn = previous;
        }
        runs.clear();
        for &turn in turns.iter().rev() {
            self.own_part_into(turn, runs);
            if turn != index {
                let len = self.rows[turn as usize].output_tokens;
                runs.push(Run {
                    first: WorkloadBuilder::output_token(turn, 0),
                    len,
                });
            }
        }
    }

    /// Appends what row `index` adds to the row it extends.
    fn own_part_into(&self, index: u32, runs: &mut Vec<Run>) {
        let row = &self.rows[index as usize];
        let mut private = if row.extends.is_none() {
            row.input_tokens - row.own_tokens
        } else {
            0
        };
        if row.content == Content::Private {
            private += row.own_tokens;
        }
        if private > 0 {
            runs.push(Run {
                first: WorkloadBuilder::private_token(index, 0),
                len: private,
            });
        }
        let mut left = row.own_tokens;
        runs.extend(self.blocks(row).iter().map(|&block| {
            let len = left.min(self.block_size);
            left -= len;
            Run {
                first: WorkloadBuilder::block_token(block, 0),
                len,
            }
        }));
        let tokens = self.prompt_tokens(row).iter();
        runs.extend(tokens.map(|&token| Run {
            first: WorkloadBuilder::vocabulary_token(token),
            len: 1,
        }));
    }

    /// The trace as simulations want it. Request `i` of the workload is row `i`; behind them stand the front end's own.
    // Model: an answer's tokens are equal to nobody else's, except to those of a later turn that `extends` it. A later
    // prompt known by block hashes does not find the earlier answer in the cache, as in the reference simulator; real
    // engines reuse it where the client sends it back unchanged (at most the output share of the tokens, 3 % of the
    // public conversation trace).
    #[must_use]
    pub fn workload(&self) -> Workload {
        let mut builder = WorkloadBuilder::new();
        let (mut turns, mut runs) = (Vec::new(), Vec::new());
        for (index, row) in self.rows.iter().enumerate() {
            self.prompt_into(index as u32, &mut turns, &mut runs);
            builder.push(NewRequest {
                arrival: row.arrival,
                prompt: &runs,
                output_tokens: row.output_tokens,
                priority: row.priority,
                session: row.session,
                dependencies: self.dependencies_of(row),
            });
            if let Some(annotations) = self.annotations_of(index) {
                builder.annotate(annotations);
            }
        }
        let mut scratch = Scratch::default();
        for sent in self.sent_ahead() {
            self.ahead_into(sent, &mut scratch, &mut runs);
            builder.push_ahead(NewAhead {
                of: sent.of,
                next: sent.next,
                prompt: &runs,
            });
        }
        builder.finish()
    }

    /// The prompts of that workload token by token, for executors.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        let (mut turns, mut runs) = (Vec::new(), Vec::new());
        for index in 0..self.rows.len() as u32 {
            self.prompt_into(index, &mut turns, &mut runs);
            contents.push(&runs);
        }
        let mut scratch = Scratch::default();
        for sent in self.sent_ahead() {
            self.ahead_into(sent, &mut scratch, &mut runs);
            contents.push(&runs);
        }
        contents
    }

    /// Bytes held on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + (self.block_list.capacity() + self.token_list.capacity()) * size_of::<u32>()
            + self.dependencies.capacity() * size_of::<Dependency>()
    }
}
