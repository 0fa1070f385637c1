//! What the columns of the comma-separated formats are called and what they mean.

use std::borrow::Cow;

use super::number::Unit;

/// What a column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Arrival as a number.
    Arrival(Unit),
    /// Arrival as date and time of day.
    Clock,
    Input,
    Output,
    Session,
    Priority,
    Name,
    /// The worker that is to serve the request.
    Worker,
    PrefillWorker,
    DecodeWorker,
    /// Labels that its worker must have, with semicolons between.
    RequiredTaints,
    StrictPriority,
    PolicyClass,
    /// Known, but without influence on what is simulated.
    WithoutEffect,
}

/// Name, in lower case, and meaning.
pub(super) type Column = (&'static str, Role);

/// The columns of one format.
pub(super) struct Columns {
    columns: &'static [Column],
    /// Whether times are a clock's.
    pub(super) is_wall_clock: bool,
    /// Whether rows without an answer are failures to be left out.
    pub(super) has_failures: bool,
}

pub(super) const AZURE: Columns = Columns {
    columns: &[
        ("timestamp", Role::Clock),
        ("contexttokens", Role::Input),
        ("generatedtokens", Role::Output),
    ],
    is_wall_clock: true,
    has_failures: false,
};

pub(super) const BURST_GPT: Columns = Columns {
    columns: &[
        ("timestamp", Role::Arrival(Unit::Seconds)),
        ("request tokens", Role::Input),
        ("response tokens", Role::Output),
        ("session id", Role::Session),
        ("elapsed time", Role::WithoutEffect),
        ("model", Role::WithoutEffect),
        ("total tokens", Role::WithoutEffect),
        ("log type", Role::WithoutEffect),
    ],
    is_wall_clock: true,
    has_failures: true,
};

pub(super) const PLAIN: Columns = Columns {
    columns: &[
        ("arrival_s", Role::Arrival(Unit::Seconds)),
        ("arrival_ms", Role::Arrival(Unit::Milliseconds)),
        ("arrival_us", Role::Arrival(Unit::Microseconds)),
        ("arrival_ns", Role::Arrival(Unit::Nanoseconds)),
        ("arrival_time_s", Role::Arrival(Unit::Seconds)),
        ("arrival_time_ms", Role::Arrival(Unit::Milliseconds)),
        ("arrival_time_ns", Role::Arrival(Unit::Nanoseconds)),
        ("timestamp_s", Role::Arrival(Unit::Seconds)),
        ("timestamp_ms", Role::Arrival(Unit::Milliseconds)),
        ("arrival_timestamp", Role::Arrival(Unit::Seconds)), // Splitwise
        ("arrived_at", Role::Arrival(Unit::Seconds)),        // Vidur
        ("input", Role::Input),
        ("input_tokens", Role::Input),
        ("input_length", Role::Input),
        ("isl", Role::Input),
        ("prompt_tokens", Role::Input),
        ("prompt_size", Role::Input),
        ("num_prefill_tokens", Role::Input),
        ("output", Role::Output),
        ("output_tokens", Role::Output),
        ("output_length", Role::Output),
        ("osl", Role::Output),
        ("completion_tokens", Role::Output),
        ("token_size", Role::Output),
        ("num_decode_tokens", Role::Output),
        ("session_id", Role::Session),
        ("priority", Role::Priority),
        ("request_id", Role::Name),
        ("backend_instance_id", Role::Worker),
        ("prefill_worker_id", Role::PrefillWorker),
        ("decode_worker_id", Role::DecodeWorker),
        ("required_taints", Role::RequiredTaints),
        ("strict_priority", Role::StrictPriority),
        ("policy_class", Role::PolicyClass),
    ],
    is_wall_clock: false,
    has_failures: false,
};

/// A role that every file has exactly one column for: in words, and how to know it.
pub(super) type Needed = (&'static str, fn(Role) -> bool);

/// All of them.
pub(super) const NEEDED: [Needed; 3] = [
    ("an arrival column", |role| {
        matches!(role, Role::Arrival(_) | Role::Clock)
    }),
    ("a column of prompt tokens", |role| role == Role::Input),
    ("a column of answer tokens", |role| role == Role::Output),
];

impl Columns {
    /// The column called `title`; upper and lower case are the same.
    pub(super) fn column(&self, title: &str) -> Option<Column> {
        let title = title.trim().to_ascii_lowercase();
        self.columns
            .iter()
            .copied()
            .find(|(name, _)| *name == title)
    }

    /// The names of all columns that have a role.
    pub(super) fn names(&self, is_wanted: fn(Role) -> bool) -> Vec<&'static str> {
        let wanted = self.columns.iter().filter(|(_, role)| is_wanted(*role));
        wanted.map(|(name, _)| *name).collect()
    }

    /// Whether `titles` have a column for every needed role.
    pub(super) fn fit(&self, titles: &[Cow<'_, str>]) -> bool {
        let columns: Vec<Column> = titles
            .iter()
            .filter_map(|title| self.column(title))
            .collect();
        NEEDED
            .iter()
            .all(|(_, is_wanted)| columns.iter().any(|(_, role)| is_wanted(*role)))
    }
}
