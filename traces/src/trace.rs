//! A trace in memory: one [`Row`] per request in order of arrival, contents as dense integers.
//!
//! What a prompt *is* matters only where two prompts are equal, so a content block of the file (a hash of 16 or 512
//! tokens, say) becomes the number of its first appearance, and rows point into one shared list of such numbers. A row
//! describes its last [`Row::own_tokens`] prompt tokens that way; tokens before them are the prompt and the answer of
//! the row it [`Row::extends`] (a conversation told in deltas), or belong to this row alone.
//!
//! [`TraceBuilder`] is the one way to make a trace: readers, generators and transforms all push rows in any order, and
//! [`TraceBuilder::finish`] sorts them stably and renumbers what they refer to.

use engine::{Dependency, NewRequest, RequestId, Run, Time, Workload, WorkloadBuilder};

use crate::intern::Interner;

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
}

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// When it may be sent at the earliest, in whole nanoseconds. With dependencies this is never later than the last of
    /// them plus its delay, so it does not hold a request back that its dependencies have released.
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
        for &block in self.blocks(row) {
            let len = left.min(self.block_size);
            runs.push(Run {
                first: WorkloadBuilder::block_token(block, 0),
                len,
            });
            left -= len;
        }
        let tokens = self.prompt_tokens(row).iter();
        runs.extend(tokens.map(|&token| Run {
            first: WorkloadBuilder::vocabulary_token(token),
            len: 1,
        }));
    }

    /// The trace as simulations want it. Request `i` of the workload is row `i`.
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
        }
        builder.finish()
    }

    /// Bytes held on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + (self.block_list.capacity() + self.token_list.capacity()) * size_of::<u32>()
            + self.dependencies.capacity() * size_of::<Dependency>()
    }
}

/// A row as it is handed to a [`TraceBuilder`].
#[derive(Debug, Clone, Copy)]
pub struct NewRow<'a> {
    /// See [`Row::arrival`].
    pub arrival: Time,
    /// See [`Row::input_tokens`].
    pub input_tokens: u32,
    /// See [`Row::output_tokens`].
    pub output_tokens: u32,
    /// See [`Row::own_tokens`]: all of `input_tokens`, but for rows that extend another.
    pub own_tokens: u32,
    /// What the own tokens are.
    pub content: NewContent<'a>,
    /// See [`Row::extends`]; counts rows in the order of [`TraceBuilder::push`].
    pub extends: Option<u32>,
    /// See [`Row::priority`].
    pub priority: i32,
    /// Any number that the rows of one conversation share; `None` for a conversation of its own.
    pub session: Option<u64>,
    /// See [`Row::line`].
    pub line: u32,
    /// What it waits for, fewer than 65,536; `on` counts rows in the order of [`TraceBuilder::push`].
    pub dependencies: &'a [Dependency],
}

impl<'a> NewRow<'a> {
    /// A row that stands alone: all tokens its own, no session, no dependencies.
    #[must_use]
    pub fn alone(
        arrival: Time,
        input_tokens: u32,
        output_tokens: u32,
        content: NewContent<'a>,
    ) -> Self {
        NewRow {
            arrival,
            input_tokens,
            output_tokens,
            own_tokens: input_tokens,
            content,
            extends: None,
            priority: 0,
            session: None,
            line: 0,
            dependencies: &[],
        }
    }
}

/// The content of a new row.
#[derive(Debug, Clone, Copy)]
pub enum NewContent<'a> {
    /// See [`Content::Private`].
    Private,
    /// One id per block, ⌈own tokens / block size⌉ of them; any numbers, equal ids mean equal content.
    Blocks(&'a [u64]),
    /// Vocabulary ids of the own tokens, and of the answer or nothing.
    Tokens {
        /// One per own token.
        prompt: &'a [u32],
        /// One per token of the answer, or empty.
        answer: &'a [u32],
    },
}

/// Collects rows in any order.
#[derive(Debug, Clone, Default)]
pub struct TraceBuilder {
    trace: Trace,
    blocks: Interner,
    sessions: Interner,
}

impl TraceBuilder {
    /// An empty trace with blocks of `block_size` tokens.
    #[must_use]
    pub fn new(block_size: u32) -> Self {
        assert!(block_size > 0, "a block holds at least one token");
        TraceBuilder {
            trace: Trace {
                block_size,
                ..Trace::default()
            },
            ..TraceBuilder::default()
        }
    }

    /// Number of rows pushed so far, which is the index of the next one for `extends` and `dependencies`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trace.rows.len()
    }

    /// True before the first push.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trace.rows.is_empty()
    }

    /// Adds a row.
    pub fn push(&mut self, row: NewRow<'_>) {
        let sum = u64::from(row.input_tokens) + u64::from(row.output_tokens);
        assert!(
            row.input_tokens > 0 && row.output_tokens > 0,
            "a request has at least one token each way"
        );
        assert!(
            sum < 1 << 31,
            "prompt and answer together stay below 2^31 tokens"
        );
        assert!(
            row.own_tokens <= row.input_tokens,
            "own tokens are part of the prompt"
        );
        let content = self.add_content(&row);
        let session = match row.session {
            Some(session) => self.sessions.number(session),
            None => self.sessions.fresh(),
        };
        let first_dependency = index(self.trace.dependencies.len());
        self.trace.dependencies.extend_from_slice(row.dependencies);
        self.trace.rows.push(Row {
            arrival: row.arrival,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            own_tokens: row.own_tokens,
            content,
            extends: row.extends,
            priority: row.priority,
            session,
            line: row.line,
            first_dependency,
            dependency_count: u16::try_from(row.dependencies.len())
                .expect("a row waits for < 65,536 others"),
        });
    }

    fn add_content(&mut self, row: &NewRow<'_>) -> Content {
        match row.content {
            NewContent::Private => Content::Private,
            NewContent::Blocks(blocks) => {
                let count = row.own_tokens.div_ceil(self.trace.block_size) as usize;
                assert_eq!(blocks.len(), count, "one id per block of the own tokens");
                let first = index(self.trace.block_list.len());
                let interner = &mut self.blocks;
                self.trace
                    .block_list
                    .extend(blocks.iter().map(|&block| interner.number(block)));
                Content::Blocks { first }
            }
            NewContent::Tokens { prompt, answer } => {
                assert_eq!(
                    prompt.len(),
                    row.own_tokens as usize,
                    "one id per own token"
                );
                let has_answer = !answer.is_empty();
                assert!(
                    !has_answer || answer.len() == row.output_tokens as usize,
                    "one id per answer token, or none"
                );
                let first = index(self.trace.token_list.len());
                self.trace.token_list.extend_from_slice(prompt);
                self.trace.token_list.extend_from_slice(answer);
                Content::Tokens { first, has_answer }
            }
        }
    }

    /// Tokens per block.
    pub(crate) fn block_size(&self) -> u32 {
        self.trace.block_size
    }

    /// Whether a row with so many blocks and token ids more fits the numbers in which they are counted.
    pub(crate) fn has_room_for(&self, blocks: usize, tokens: usize) -> bool {
        const MOST: usize = 1 << 31;
        self.trace.rows.len() < MOST - 1
            && self.trace.block_list.len() + blocks < MOST
            && self.trace.token_list.len() + tokens < MOST
    }

    /// The line of a row.
    pub(crate) fn line(&self, row: u32) -> u32 {
        self.trace.rows[row as usize].line
    }

    /// Gives every row its arrival, and rows that wait what they wait for; `waits` is grouped by ascending row.
    pub(crate) fn schedule(
        &mut self,
        arrival: impl Fn(usize) -> Time,
        waits: &[(u32, Dependency)],
    ) {
        for (index, row) in self.trace.rows.iter_mut().enumerate() {
            row.arrival = arrival(index);
        }
        for group in waits.chunk_by(|a, b| a.0 == b.0) {
            let row = &mut self.trace.rows[group[0].0 as usize];
            row.first_dependency = index(self.trace.dependencies.len());
            row.dependency_count = u16::try_from(group.len()).expect("a row waits for < 65,536 others");
            self.trace.dependencies.extend(group.iter().map(|wait| wait.1));
        }
    }

    /// The trace, stably sorted by arrival. `extends` and dependencies follow the rows they name.
    #[must_use]
    pub fn finish(self) -> Trace {
        let TraceBuilder {
            mut trace,
            blocks,
            sessions,
        } = self;
        trace.unique_blocks = blocks.len();
        trace.sessions = sessions.len();
        sort_by_arrival(&mut trace);
        trace.rows.shrink_to_fit();
        trace.block_list.shrink_to_fit();
        trace.token_list.shrink_to_fit();
        trace.dependencies.shrink_to_fit();
        trace
    }
}

fn sort_by_arrival(trace: &mut Trace) {
    if trace.rows.is_sorted_by_key(|row| row.arrival) {
        return;
    }
    let mut order: Vec<u32> = (0..index(trace.rows.len())).collect();
    order.sort_by_key(|&row| trace.rows[row as usize].arrival);
    let mut place = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old as usize] = new as u32;
    }
    trace.rows = order.iter().map(|&old| trace.rows[old as usize]).collect();
    for row in &mut trace.rows {
        row.extends = row.extends.map(|previous| place[previous as usize]);
    }
    for dependency in &mut trace.dependencies {
        dependency.on = RequestId(place[dependency.on.0 as usize]);
    }
}

fn index(len: usize) -> u32 {
    u32::try_from(len).expect("a trace holds fewer than 2^32 rows, blocks and tokens")
}
