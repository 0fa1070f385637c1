//! What requests say about themselves where their trace does not: classes of sessions, and whether the workers that requests
//! name are there.
//!
//! Each session belongs to one class at most, by a draw of its own: the shares of the classes are laid end to end on 0..1. So a
//! larger share takes the same sessions and more. What a row says itself stands.

use crate::error::{Place, Problem, Problems};
use crate::random::{Purpose, stream};
use crate::trace::Trace;
use engine::Annotations;
use rand::RngExt;
use std::ops::Range;

/// A share of the sessions, and what their requests say.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionClass {
    /// Of the sessions, above 0; all classes together have at most 1.
    pub share: f64,
    /// What each request says that does not say it itself.
    pub annotations: Annotations,
    /// vLLM's priority of requests that have none; smaller is served first.
    pub priority: i32,
}

/// The workers that requests may name, as reports number them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerNames {
    /// Whether every request has to.
    pub is_required: bool,
    /// Workers that do whole requests; none where prefill and decode are apart.
    pub whole: Vec<Range<u32>>,
    /// Workers that prefill for others.
    pub prefill: Vec<Range<u32>>,
    /// Workers that decode for others.
    pub decode: Vec<Range<u32>>,
}

/// Lets the requests of each class say what it says.
pub fn classify(trace: &mut Trace, classes: &[SessionClass], seed: u64) {
    if classes.is_empty() {
        return;
    }
    let class_of = |session: u32| {
        let mut left: f64 = stream(seed, Purpose::Class, u64::from(session)).random();
        classes.iter().find(|class| {
            let is_it = left < class.share;
            left -= class.share;
            is_it
        })
    };
    let of_session: Vec<_> = (0..trace.sessions).map(class_of).collect();
    for (index, row) in trace.rows.iter_mut().enumerate() {
        let Some(class) = of_session[row.session as usize] else {
            continue;
        };
        if row.priority == 0 {
            row.priority = class.priority;
        }
        let own = trace.annotations.of(index).cloned().unwrap_or_default();
        trace.annotations.set(index, &own.or(&class.annotations));
    }
}

/// Whether all workers that rows name are there, and those that must be named are. `source` is what messages call the trace.
///
/// # Errors
/// The rows that name none, or one that is not there.
pub fn check_workers(trace: &Trace, source: &str, names: &WorkerNames) -> Result<(), Problems> {
    let parts = [
        ("backend_instance_id", &names.whole),
        ("prefill_worker_id", &names.prefill),
        ("decode_worker_id", &names.decode),
    ];
    let mut problems = Problems::default();
    for (index, row) in trace.rows.iter().enumerate() {
        let workers = trace.annotations_of(index).map(|said| said.workers);
        let named = workers.unwrap_or_default();
        let named = [named.whole, named.prefill, named.decode];
        for ((field, known), named) in parts.iter().zip(named) {
            if known.is_empty() || named.is_some_and(|id| known.iter().any(|ids| ids.contains(&id)))
            {
                continue;
            }
            let found = match named {
                Some(id) => format!("worker {id}"),
                None if names.is_required => "nothing".to_owned(),
                None => continue,
            };
            problems.add(|| Problem {
                place: Place {
                    file: source.to_owned(),
                    line: row.line,
                },
                field: (*field).into(),
                found: found.into(),
                expected: format!("one of the workers {}", listed(known)).into(),
                suggestion: "name one, or choose another router.mode".into(),
            });
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// `0 to 3, 8`.
fn listed(ranges: &[Range<u32>]) -> String {
    let text = |range: &Range<u32>| match range.len() {
        1 => range.start.to_string(),
        _ => format!("{} to {}", range.start, range.end - 1),
    };
    let texts: Vec<String> = ranges.iter().map(text).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{NewContent, NewRow, TraceBuilder};
    use engine::{NamedWorkers, Time};

    fn named(whole: Option<u32>) -> Annotations {
        Annotations {
            workers: NamedWorkers {
                whole,
                ..NamedWorkers::default()
            },
            ..Annotations::default()
        }
    }

    /// Sessions of two rows each; the second row of session 0 names worker 9 and has a priority.
    fn trace(sessions: u64) -> Trace {
        let mut builder = TraceBuilder::new(16);
        for row in 0..2 * sessions {
            let alone = NewRow::alone(Time::from_ns(row), 10, 1, NewContent::Private);
            let is_special = row == 1;
            builder.push(NewRow {
                session: Some(row / 2),
                priority: if is_special { 7 } else { 0 },
                line: row as u32 + 1,
                ..alone
            });
            if is_special {
                builder.annotate(&named(Some(9)));
            }
        }
        builder.finish()
    }

    #[test]
    fn classes_get_their_share_of_whole_sessions() {
        let mut trace = trace(10_000);
        let class = |share, worker| SessionClass {
            share,
            annotations: named(Some(worker)),
            priority: -5,
        };
        classify(&mut trace, &[class(0.25, 1), class(0.5, 2)], 7);
        let mut counts = [0u32; 10];
        for (pair, rows) in trace.rows.chunks(2).enumerate() {
            let worker = |row: usize| {
                trace
                    .annotations_of(row)
                    .map_or(0, |it| it.workers.whole.unwrap())
            };
            let (first, second) = (worker(2 * pair), worker(2 * pair + 1));
            if pair == 0 {
                assert_eq!(
                    (second, rows[1].priority),
                    (9, 7),
                    "a row's own word stands"
                );
                continue;
            }
            assert_eq!(first, second);
            assert_eq!(rows[0].priority, if first == 0 { 0 } else { -5 });
            counts[first as usize] += 1;
        }
        // Binomial: four standard deviations are below 200.
        for (class, expected) in [(0, 2500u32), (1, 2500), (2, 5000)] {
            assert!(counts[class].abs_diff(expected) < 200, "{counts:?}");
        }
    }

    #[test]
    fn unknown_and_missing_workers_are_told_with_their_lines() {
        let trace = trace(2);
        let mut names = WorkerNames {
            whole: vec![0..4, 8..9],
            ..WorkerNames::default()
        };
        let problems = check_workers(&trace, "t.csv", &names).unwrap_err();
        assert_eq!(
            problems.to_string(),
            "t.csv:2: backend_instance_id: found worker 9, expected one of the workers 0 to 3, 8; name one, or choose \
             another router.mode"
        );
        names.is_required = true;
        assert_eq!(
            check_workers(&trace, "t.csv", &names).unwrap_err().total(),
            4
        );
        names.whole = vec![9..10, 20..21];
        let problems = check_workers(&trace, "t.csv", &names).unwrap_err();
        assert_eq!(problems.total(), 3);
        assert!(
            problems
                .to_string()
                .starts_with("t.csv:1: backend_instance_id: found nothing, expected")
        );
        assert_eq!(
            check_workers(&trace, "t.csv", &WorkerNames::default()),
            Ok(())
        );
    }
}
