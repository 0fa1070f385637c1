//! Traces out of traces: a window of time, a sample, the first requests, another speed, another block size.
//!
//! Each makes a new trace whose rows are in order of arrival and whose blocks and sessions are numbered by first
//! appearance. A row that waited for a row which is not taken along waits no longer and is sent at the earliest time it
//! could have been; the prompt that it shared with that row, if it told only what it adds to it, becomes its own.

use engine::{Dependency, RequestId, Span, Time};
use rand::RngExt;

use crate::contents::Contents;
use crate::random::{Purpose, stream};
use crate::trace::{Content, NewContent, NewRow, Row, Trace, TraceBuilder};

/// Why a transformed trace cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TransformError {
    /// No request would be left.
    #[error("no request left: {0}; widen the selection")]
    Empty(String),
    /// A share outside of 0 to 1.
    #[error("found a fraction of {0}, expected more than 0 and at most 1")]
    Fraction(f64),
    /// A speed that is not a positive number.
    #[error("found a speed of {0}, expected a number above 0")]
    Speed(f64),
    /// Times that would lie beyond the end of simulated time.
    #[error("at a speed of {0} the trace would last more than 200 days; choose a higher one")]
    TooSlow(f64),
}

/// What happens to delays when arrivals come faster or slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delays {
    /// They change as well: the same workload in less or more time.
    Scaled,
    /// They stay: users come faster but think as long as before.
    Kept,
}

/// Requests that arrive at `start` or later but before `end`; the new trace begins at `start`.
///
/// # Errors
/// No request arrives then.
pub fn window(trace: &Trace, start: Span, end: Span) -> Result<Trace, TransformError> {
    let (start, end) = (Time(start.0), Time(end.0));
    let is_inside = |row: &Row| (start..end).contains(&row.arrival);
    let is_taken: Vec<bool> = trace.rows.iter().map(is_inside).collect();
    let earlier = |arrival: Time| Time(arrival.since(start).0);
    non_empty(taken(trace, &is_taken, earlier, |delay| delay), || {
        let last = trace.rows.last().map(|row| row.arrival).unwrap_or_default();
        let until = if end == Time::MAX {
            String::new()
        } else {
            format!(" and ends before {end}")
        };
        format!("the window begins at {start}{until}, the last request arrives at {last}")
    })
}

/// The first `count` requests.
///
/// # Errors
/// `count` is 0.
pub fn limit(trace: &Trace, count: u32) -> Result<Trace, TransformError> {
    let is_taken: Vec<bool> = (0..trace.rows.len())
        .map(|row| row < count as usize)
        .collect();
    non_empty(
        taken(trace, &is_taken, |arrival| arrival, |delay| delay),
        || format!("a limit of {count}"),
    )
}

/// A share of the conversations, drawn at random; conversations that wait for each other stay together. A larger
/// fraction under the same seed takes the same conversations and more.
///
/// # Errors
/// `fraction` is not above 0 and at most 1, or so small that nothing is left.
pub fn sample(trace: &Trace, fraction: f64, seed: u64) -> Result<Trace, TransformError> {
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err(TransformError::Fraction(fraction));
    }
    let group_of_session = groups(trace);
    let mut drawn: Vec<(u64, u32)> = Vec::new();
    for (session, &group) in group_of_session.iter().enumerate() {
        if session == group as usize {
            drawn.push((
                stream(seed, Purpose::Sample, u64::from(group)).random(),
                group,
            ));
        }
    }
    drawn.sort_unstable();
    let wanted = (fraction * drawn.len() as f64).round() as usize;
    let mut is_group_taken = vec![false; group_of_session.len()];
    for &(_, group) in &drawn[..wanted] {
        is_group_taken[group as usize] = true;
    }
    let is_taken: Vec<bool> = trace
        .rows
        .iter()
        .map(|row| is_group_taken[group_of_session[row.session as usize] as usize])
        .collect();
    non_empty(
        taken(trace, &is_taken, |arrival| arrival, |delay| delay),
        || format!("a fraction of {fraction} of {} conversations", drawn.len()),
    )
}

/// All requests, `speed` times as fast.
///
/// # Errors
/// `speed` is not a positive number, or so small that the trace would not end within 200 days.
pub fn scale(trace: &Trace, speed: f64, delays: Delays) -> Result<Trace, TransformError> {
    const LONGEST_NS: f64 = 200.0 * 86_400e9;
    if !(speed > 0.0 && speed.is_finite()) {
        return Err(TransformError::Speed(speed));
    }
    let longest = trace
        .rows
        .iter()
        .map(|row| row.arrival.as_ns())
        .max()
        .unwrap_or_default();
    if longest as f64 / speed > LONGEST_NS {
        return Err(TransformError::TooSlow(speed));
    }
    let scaled_ns = |ns: u64| (ns as f64 / speed).round() as u64;
    let is_taken = vec![true; trace.rows.len()];
    Ok(match delays {
        Delays::Scaled => {
            let delay = |delay: Span| Span::from_ns(scaled_ns(delay.0 / 1000));
            taken(
                trace,
                &is_taken,
                |arrival| Time::from_ns(scaled_ns(arrival.as_ns())),
                delay,
            )
        }
        Delays::Kept => taken(
            trace,
            &is_taken,
            |arrival| Time::from_ns(scaled_ns(arrival.as_ns())),
            |delay| delay,
        ),
    })
}

/// The same trace, told in block hashes of `block_size` tokens and whole prompts.
///
/// Two whole blocks are the same exactly where all tokens up to their end are known to be the same. A partial last
/// block is only the same as one that ends at the same token, as in Mooncake's traces.
// Model: hashes of larger blocks do not say where inside a block two prompts part, so that smaller blocks share what
// whole larger ones shared and no more: at most a block too little at each place where prompts part.
#[must_use]
pub fn in_blocks_of(trace: &Trace, block_size: u32) -> Trace {
    let contents = Contents::by_tokens(trace, block_size);
    let is_in_these_blocks =
        |row: &Row| !matches!(row.content, Content::Tokens { .. }) && row.extends.is_none();
    let is_same = block_size == trace.block_size && trace.rows.iter().all(is_in_these_blocks);
    let mut builder = TraceBuilder::new(block_size);
    let mut blocks = Vec::new();
    for (index, row) in trace.rows.iter().enumerate() {
        blocks.clear();
        if is_same {
            blocks.extend(trace.blocks(row).iter().map(|&block| u64::from(block)));
        } else {
            contents.blocks_into(index, row.input_tokens, &mut blocks);
        }
        let is_unknown = row.content == Content::Private && row.extends.is_none();
        builder.push(NewRow {
            arrival: row.arrival,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            own_tokens: row.input_tokens,
            content: if is_unknown {
                NewContent::Private
            } else {
                NewContent::Blocks(&blocks)
            },
            extends: None,
            priority: row.priority,
            session: Some(u64::from(row.session)),
            line: row.line,
            dependencies: trace.dependencies_of(row),
        });
        keep_annotations(trace, index, &mut builder);
    }
    builder.finish()
}

/// The row pushed last says what row `index` of `trace` says.
fn keep_annotations(trace: &Trace, index: usize, builder: &mut TraceBuilder) {
    if let Some(annotations) = trace.annotations_of(index) {
        builder.annotate(annotations);
    }
}

fn non_empty(trace: Trace, selection: impl Fn() -> String) -> Result<Trace, TransformError> {
    if trace.rows.is_empty() {
        Err(TransformError::Empty(selection()))
    } else {
        Ok(trace)
    }
}

/// For every session the smallest one that it is connected with, through rows that wait for or extend each other.
fn groups(trace: &Trace) -> Vec<u32> {
    let mut group: Vec<u32> = (0..trace.sessions).collect();
    for row in &trace.rows {
        let waits_for = trace
            .dependencies_of(row)
            .iter()
            .map(|dependency| dependency.on.0);
        for other in waits_for.chain(row.extends) {
            let a = first_of(&mut group, row.session);
            let b = first_of(&mut group, trace.rows[other as usize].session);
            group[a.max(b) as usize] = a.min(b);
        }
    }
    (0..trace.sessions)
        .map(|session| first_of(&mut group, session))
        .collect()
}

/// The root of a session in a forest whose parents have smaller numbers; shortens the way there.
fn first_of(group: &mut [u32], mut session: u32) -> u32 {
    while group[session as usize] != session {
        let parent = group[session as usize];
        group[session as usize] = group[parent as usize];
        session = parent;
    }
    session
}

/// The rows that are taken, with other arrivals and delays.
fn taken(
    trace: &Trace,
    is_taken: &[bool],
    arrival: impl Fn(Time) -> Time,
    delay: impl Fn(Span) -> Span,
) -> Trace {
    let mut count = 0;
    let number = |&is_taken: &bool| {
        count += u32::from(is_taken);
        is_taken.then(|| count - 1)
    };
    let new_index: Vec<Option<u32>> = is_taken.iter().map(number).collect();
    let arrivals = earliest_arrivals(trace, is_taken, arrival, &delay);
    let mut builder = TraceBuilder::new(trace.block_size);
    let mut blocks = Vec::new();
    let mut waits = Vec::new();
    for (index, row) in trace
        .rows
        .iter()
        .enumerate()
        .filter(|&(index, _)| is_taken[index])
    {
        waits.clear();
        waits.extend(trace.dependencies_of(row).iter().filter_map(|dependency| {
            let on = RequestId(new_index[dependency.on.0 as usize]?);
            Some(Dependency {
                on,
                delay: delay(dependency.delay),
                ..*dependency
            })
        }));
        blocks.clear();
        blocks.extend(trace.blocks(row).iter().map(|&block| u64::from(block)));
        builder.push(NewRow {
            arrival: arrivals[index],
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            own_tokens: row.own_tokens,
            content: match row.content {
                Content::Private => NewContent::Private,
                Content::Blocks { .. } => NewContent::Blocks(&blocks),
                Content::Tokens { .. } => NewContent::Tokens {
                    prompt: trace.prompt_tokens(row),
                    answer: trace.answer_tokens(row),
                },
            },
            extends: row
                .extends
                .and_then(|previous| new_index[previous as usize]),
            priority: row.priority,
            session: Some(u64::from(row.session)),
            line: row.line,
            dependencies: &waits,
        });
        keep_annotations(trace, index, &mut builder);
    }
    builder.finish()
}

/// For every row that is taken when it can be sent at the earliest: at its own time, if it has one that counts, and
/// after the rows it waits for. Where nothing but those rows decided when it came, nothing else does now.
fn earliest_arrivals(
    trace: &Trace,
    is_taken: &[bool],
    arrival: impl Fn(Time) -> Time,
    delay: impl Fn(Span) -> Span,
) -> Vec<Time> {
    let mut arrivals: Vec<Option<Time>> = vec![None; trace.rows.len()];
    let mut open: Vec<usize> = (0..trace.rows.len()).filter(|&row| is_taken[row]).collect();
    // Rows stand behind those they wait for, but for ties that a file has in reverse order; those take more rounds.
    while !open.is_empty() {
        open.retain(|&index| {
            let row = &trace.rows[index];
            let dependencies = trace.dependencies_of(row);
            let on = |dependency: &Dependency| dependency.on.0 as usize;
            let left: Vec<&Dependency> = dependencies.iter().filter(|d| is_taken[on(d)]).collect();
            let released = |d: &&Dependency| arrivals[on(d)].map(|sent| sent + delay(d.delay));
            if left.iter().any(|d| released(d).is_none()) {
                return true;
            }
            let before = dependencies
                .iter()
                .map(|d| trace.rows[on(d)].arrival + d.delay)
                .max();
            let is_bound = left.len() == dependencies.len() && before == Some(row.arrival);
            let released = left.iter().filter_map(released).max();
            let own = if is_bound {
                None
            } else {
                Some(arrival(row.arrival))
            };
            arrivals[index] = released.max(own);
            false
        });
    }
    arrivals
        .into_iter()
        .map(Option::unwrap_or_default)
        .collect()
}
