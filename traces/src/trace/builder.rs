//! The one way to make a [`Trace`]: rows in any order go in, sorted and renumbered ones come out.

use engine::{Annotations, Dependency, RequestId, Time};

use super::{Content, Row, Trace};
use crate::intern::Interner;

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

    /// The row pushed last says this about itself.
    pub fn annotate(&mut self, annotations: &Annotations) {
        let last = self.len().checked_sub(1).expect("a row was pushed");
        self.trace.annotations.set(last, annotations);
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
            row.dependency_count =
                u16::try_from(group.len()).expect("a row waits for < 65,536 others");
            self.trace
                .dependencies
                .extend(group.iter().map(|wait| wait.1));
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
    trace.annotations.reorder(&order);
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
