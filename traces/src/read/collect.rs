//! Where the readers of all formats put their rows, and where every value is checked.
//!
//! A reader hands over one row at a time. Values are checked as they come; what can only be known at the end (which row
//! a name means, when a row that waits for others can be sent at the earliest) is kept aside for
//! [`schedule`](super::schedule). A row with a problem is not kept, but its name is, so that one mistake is not reported
//! twice.

use std::borrow::Cow;

use engine::{Annotations, Trigger};
use rustc_hash::FxHashMap;

use super::check::{excerpt, printable};
use crate::error::{Place, Problem, Problems, Warning, WarningKind};
use crate::trace::{NewContent, NewRow, TraceBuilder};

/// The earliest time of a row that names none.
pub(super) const NO_START: u64 = u64::MAX;

/// Stands for a row that had a problem.
pub(super) const BROKEN: u32 = u32::MAX;

/// A value's place: line and field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) line: u32,
    pub(crate) field: &'static str,
}

/// A row as readers hand it over.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) line: u32,
    /// Earliest time in nanoseconds on the file's own clock; `None` for rows that only wait for others.
    pub(crate) start_ns: Option<u64>,
    pub(crate) input_tokens: u32,
    pub(crate) output_tokens: u32,
    /// See [`crate::Row::own_tokens`].
    pub(crate) own_tokens: u32,
    pub(crate) content: NewContent<'a>,
    pub(crate) extends: Option<u32>,
    pub(crate) priority: i32,
    pub(crate) session: Option<u64>,
}

/// Something a row waits for.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) row: u32,
    pub(super) line: u32,
    pub(super) on: On,
    pub(super) trigger: Trigger,
    pub(super) delay_ns: u64,
}

/// The row that is waited for.
#[derive(Debug)]
pub(crate) enum On {
    /// By index.
    Row(u32),
    /// By name; a name that no row has is a problem.
    Name(Box<str>),
    /// By name; a name that no row has is a warning, and nothing is waited for.
    NameIfThere(Box<str>),
}

/// Rows, problems and warnings of one file.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(super) file: String,
    pub(super) is_strict: bool,
    /// Whether rows of this format are expected in order of time.
    pub(crate) is_in_order: bool,
    /// Whether times are a clock's, so that the earliest row is time zero.
    pub(crate) is_wall_clock: bool,
    pub(super) builder: TraceBuilder,
    /// For every row its earliest time in nanoseconds, or [`NO_START`].
    pub(super) starts: Vec<u64>,
    pub(super) waits: Vec<Wait>,
    /// Rows by name; [`BROKEN`] for those with a problem.
    pub(super) names: FxHashMap<Box<str>, u32>,
    sessions: FxHashMap<Box<str>, u64>,
    latest_ns: u64,
    /// Lines of rows that should have said when they arrive.
    pub(super) lines_without_time: Vec<u32>,
    pub(super) problems: Problems,
    pub(super) warnings: Vec<Warning>,
}

impl Collector {
    pub(crate) fn new(file: &str, block_size: u32, is_strict: bool) -> Self {
        Collector {
            file: file.to_owned(),
            is_strict,
            is_in_order: true,
            is_wall_clock: false,
            builder: TraceBuilder::new(block_size),
            starts: Vec::new(),
            waits: Vec::new(),
            names: FxHashMap::default(),
            sessions: FxHashMap::default(),
            latest_ns: 0,
            lines_without_time: Vec::new(),
            problems: Problems::default(),
            warnings: Vec::new(),
        }
    }

    /// Starts afresh with another block size; for formats that name theirs in the file.
    pub(crate) fn set_block_size(&mut self, block_size: u32) {
        assert!(
            self.builder.is_empty(),
            "the block size is known before the first row"
        );
        self.builder = TraceBuilder::new(block_size);
    }

    /// Tokens per block.
    pub(crate) fn block_size(&self) -> u32 {
        self.builder.block_size()
    }

    /// How many rows were kept.
    pub(crate) fn len(&self) -> u32 {
        self.starts.len() as u32
    }

    /// Adds a problem.
    pub(crate) fn problem(
        &mut self,
        spot: Spot,
        found: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
        suggestion: impl Into<Cow<'static, str>>,
    ) {
        let Spot { line, field } = spot;
        let file = &self.file;
        self.problems.add(|| Problem {
            place: Place {
                file: file.clone(),
                line,
            },
            field: Cow::Borrowed(field),
            found: found.into(),
            expected: expected.into(),
            suggestion: suggestion.into(),
        });
    }

    /// Counts one more thing of a kind.
    pub(crate) fn warn(&mut self, kind: WarningKind, line: u32) {
        self.warning(kind, line).count += 1;
    }

    /// Counts a key that means nothing.
    pub(crate) fn warn_of_key(&mut self, line: u32, name: &str) {
        let warning = self.warning(WarningKind::UnknownKeys, line);
        warning.count += 1;
        if warning.names.len() < Warning::NAMES && !warning.names.iter().any(|known| known == name)
        {
            warning.names.push(printable(name.as_bytes()));
        }
    }

    fn warning(&mut self, kind: WarningKind, line: u32) -> &mut Warning {
        let index = self
            .warnings
            .iter()
            .position(|warning| warning.kind == kind)
            .unwrap_or_else(|| {
                let first = Place {
                    file: self.file.clone(),
                    line,
                };
                self.warnings.push(Warning {
                    kind,
                    count: 0,
                    first,
                    names: Vec::new(),
                });
                self.warnings.len() - 1
            });
        &mut self.warnings[index]
    }

    /// A number for the conversation called `name`.
    pub(crate) fn session(&mut self, name: &str) -> u64 {
        if let Some(&session) = self.sessions.get(name) {
            return session;
        }
        let session = self.sessions.len() as u64;
        self.sessions.insert(name.into(), session);
        session
    }

    /// Gives the next row, or a row that is not kept ([`BROKEN`]), a name. False when the name is taken.
    pub(crate) fn name(&mut self, spot: Spot, name: &str, row: u32) -> bool {
        let is_new = self.names.insert(name.into(), row).is_none();
        if !is_new {
            let found = format!("{} a second time", excerpt(name.as_bytes()));
            self.problem(
                spot,
                found,
                "a name of its own for every request",
                "rename or remove one of the two",
            );
        }
        is_new
    }

    /// Keeps a row and returns its index.
    pub(crate) fn push(&mut self, draft: &Draft<'_>) -> Option<u32> {
        let row = self.len();
        let (blocks, tokens) = match draft.content {
            NewContent::Private => (0, 0),
            NewContent::Blocks(blocks) => (blocks.len(), 0),
            NewContent::Tokens { prompt, answer } => (0, prompt.len() + answer.len()),
        };
        if !self.builder.has_room_for(blocks, tokens) {
            let spot = Spot {
                line: draft.line,
                field: "",
            };
            let expected = "fewer than 2147483648 rows, blocks and token ids in one trace";
            self.problem(
                spot,
                "one row too many",
                expected,
                "cut the trace into pieces",
            );
            return None;
        }
        if let Some(start) = draft.start_ns {
            if self.is_in_order && start < self.latest_ns {
                self.warn(WarningKind::UnsortedRows, draft.line);
            }
            self.latest_ns = self.latest_ns.max(start);
        }
        self.starts.push(draft.start_ns.unwrap_or(NO_START));
        self.builder.push(NewRow {
            arrival: engine::Time::ZERO,
            input_tokens: draft.input_tokens,
            output_tokens: draft.output_tokens,
            own_tokens: draft.own_tokens,
            content: draft.content,
            extends: draft.extends,
            priority: draft.priority,
            session: draft.session,
            line: draft.line,
            dependencies: &[],
        });
        Some(row)
    }

    /// The row kept last says this about itself.
    pub(crate) fn annotate(&mut self, annotations: &Annotations) {
        if *annotations != Annotations::default() {
            self.builder.annotate(annotations);
        }
    }

    /// Notes a row that should have had a time.
    pub(crate) fn has_no_time(&mut self, line: u32) {
        self.lines_without_time.push(line);
    }

    /// Takes a row's own time away: only what it waits for counts.
    pub(crate) fn follows_others(&mut self, row: u32) {
        self.starts[row as usize] = NO_START;
    }

    /// Makes the row last pushed, or an earlier one, wait.
    pub(crate) fn wait(&mut self, row: u32, line: u32, on: On, trigger: Trigger, delay_ns: u64) {
        self.waits.push(Wait {
            row,
            line,
            on,
            trigger,
            delay_ns,
        });
    }
}
