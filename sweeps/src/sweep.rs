//! A sweep: prepare every point, look it up in the journal, simulate what is missing, keep everything in order.

use crate::digest::Digest;
use crate::journal::{Journal, JournalError};
use crate::row::Row;
use crate::run::{self, Panicked, Progress};
use crate::space::Point;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// A simulated point.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Run {
    /// Its metrics.
    pub row: Row,
    /// What the result stands on that was not known, one sentence each (extrapolated timing, default sizes).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guesses: Vec<String>,
    /// Where its step times come from: source and basis, `measured (measured)`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub timing: String,
    /// Seed of everything random.
    pub seed: u64,
    /// The requests it served.
    pub workload: Digest,
}

/// How a point ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was simulated.
    Done(Run),
    /// There can be no such deployment, with the reason (weights larger than the GPU, settings that exclude each other).
    Impossible(String),
    /// The simulation broke: a bug of ours, with its message.
    Failed(String),
}

impl Outcome {
    /// The run, if the point was simulated.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match self {
            Outcome::Done(run) => Some(run),
            Outcome::Impossible(_) | Outcome::Failed(_) => None,
        }
    }

    /// The metrics, if the point was simulated.
    #[must_use]
    pub fn row(&self) -> Option<&Row> {
        self.run().map(|run| &run.row)
    }

    /// Where step times come from, if the point was simulated.
    #[must_use]
    pub fn timing(&self) -> Option<&str> {
        self.run().map(|run| run.timing.as_str())
    }

    /// What the result stands on that was not known.
    #[must_use]
    pub fn guesses(&self) -> &[String] {
        self.run().map_or(&[], |run| &run.guesses)
    }
}

/// A point with its result.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// What was run.
    pub point: Point,
    /// How it ended.
    pub outcome: Outcome,
    /// The result was already in the journal.
    pub is_resumed: bool,
}

/// A point ready to be simulated.
#[derive(Debug, Clone)]
pub struct Prepared<P> {
    /// Covers all that the result depends on: see [`crate::digest::PointIdentity`].
    pub digest: Digest,
    /// What the simulation takes, for example a scenario and a workload.
    pub input: P,
}

/// Runs all points on `threads` threads (0: one per processor).
///
/// `prepare` applies a point's overrides and says why a point is impossible; `simulate` runs one. Both are called on the
/// worker threads. Every simulated or impossible point is in the journal before `progress` hears of it; points found in
/// the journal are not simulated again, failed ones are.
///
/// # Errors
/// The journal cannot be written: the sweep stops, what was written stays.
pub fn sweep<P>(
    points: Vec<Point>,
    threads: usize,
    journal: Option<&Journal<Outcome>>,
    prepare: impl Fn(&Point) -> Result<Prepared<P>, String> + Sync,
    simulate: impl Fn(&P) -> Outcome + Sync,
    mut progress: impl FnMut(Progress),
) -> Result<Vec<Finished>, JournalError> {
    let task = |index: usize| {
        let prepared = match prepare(&points[index]) {
            Ok(prepared) => prepared,
            Err(reason) => {
                return Computed {
                    digest: None,
                    outcome: Outcome::Impossible(reason),
                    is_resumed: false,
                };
            }
        };
        let digest = Some(prepared.digest);
        match journal.and_then(|journal| journal.get(&prepared.digest)) {
            Some(known) => Computed {
                digest,
                outcome: known.clone(),
                is_resumed: true,
            },
            None => Computed {
                digest,
                outcome: simulate(&prepared.input),
                is_resumed: false,
            },
        }
    };
    let (mut done, mut resumed, mut broken) = (0, 0, None);
    let results = run::run(points.len(), threads, task, |_, result, elapsed| {
        if let (Ok(computed), Some(journal)) = (result, journal)
            && let Err(error) = computed.write(journal)
        {
            broken = Some(error);
            return ControlFlow::Break(());
        }
        done += 1;
        resumed += usize::from(matches!(
            result,
            Ok(Computed {
                is_resumed: true,
                ..
            })
        ));
        progress(Progress {
            done,
            total: points.len(),
            resumed,
            elapsed,
        });
        ControlFlow::Continue(())
    });
    if let Some(error) = broken {
        return Err(error);
    }
    let ordered = points.into_iter().zip(results);
    Ok(ordered
        .map(|(point, result)| finish(point, result.expect("nothing stopped the run")))
        .collect())
}

struct Computed {
    /// `None` for points that could not be prepared: nothing worth keeping.
    digest: Option<Digest>,
    outcome: Outcome,
    is_resumed: bool,
}

impl Computed {
    fn write(&self, journal: &Journal<Outcome>) -> Result<(), JournalError> {
        match (self.digest, &self.outcome) {
            (Some(digest), Outcome::Done(_) | Outcome::Impossible(_)) if !self.is_resumed => {
                journal.append(digest, &self.outcome)
            }
            _ => Ok(()),
        }
    }
}

fn finish(point: Point, result: Result<Computed, Panicked>) -> Finished {
    match result {
        Ok(Computed {
            outcome,
            is_resumed,
            ..
        }) => Finished {
            point,
            outcome,
            is_resumed,
        },
        Err(Panicked(message)) => Finished {
            point,
            outcome: Outcome::Failed(format!("internal error: {message}")),
            is_resumed: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_parts;
    use crate::row::Value;
    use crate::space::{Space, describe};
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn points() -> Vec<Point> {
        let mut space = Space::default();
        space.vary("a=1..6").unwrap();
        space.vary("b=1..5").unwrap();
        space.points().collect()
    }

    fn prepare(point: &Point) -> Result<Prepared<(f64, f64)>, String> {
        let number = |at: usize| point.overrides[at].value.parse::<f64>().unwrap();
        let input = (number(0), number(1));
        if input == (2.0, 3.0) {
            return Err("2 and 3 exclude each other".to_owned());
        }
        Ok(Prepared {
            digest: digest_parts("test", &[describe(&point.overrides).as_bytes()]),
            input,
        })
    }

    fn simulate(input: &(f64, f64)) -> Outcome {
        if *input == (4.0, 4.0) {
            return Outcome::Impossible("does not fit".to_owned());
        }
        let row = Row::new(vec![("ratio".into(), Value::from(input.0 / input.1 / 3.0))]);
        Outcome::Done(Run {
            row,
            ..Run::default()
        })
    }

    #[test]
    fn a_resumed_sweep_equals_one_that_was_never_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let whole = sweep(points(), 2, None, prepare, simulate, |_| {}).unwrap();
        for (first_threads, kept_bytes) in [(1, 0), (1, 700), (3, 1500), (2, 3000), (2, usize::MAX)]
        {
            let journal = Journal::open(&path, true).unwrap();
            sweep(
                points(),
                first_threads,
                Some(&journal),
                prepare,
                simulate,
                |_| {},
            )
            .unwrap();
            drop(journal);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..kept_bytes.min(bytes.len())]).unwrap();

            let journal = Journal::open(&path, false).unwrap();
            let (known, runs) = (journal.len(), AtomicUsize::new(0));
            let counted = |input: &(f64, f64)| {
                runs.fetch_add(1, Ordering::Relaxed);
                simulate(input)
            };
            let resumed = sweep(points(), 2, Some(&journal), prepare, counted, |_| {}).unwrap();
            assert_eq!(
                runs.into_inner(),
                29 - known,
                "one point of 30 is never simulated"
            );
            assert_eq!(
                resumed
                    .iter()
                    .filter(|finished| finished.is_resumed)
                    .count(),
                known
            );
            let outcomes = |all: &[Finished]| {
                all.iter()
                    .map(|one| one.outcome.clone())
                    .collect::<Vec<_>>()
            };
            assert_eq!(outcomes(&resumed), outcomes(&whole));
        }
    }

    #[test]
    fn bad_points_keep_their_reason_and_failed_ones_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal.jsonl"), true).unwrap();
        let fragile = |input: &(f64, f64)| {
            assert!(*input != (1.0, 1.0), "one and one");
            simulate(input)
        };
        let mut last = None;
        let finished = sweep(points(), 2, Some(&journal), prepare, fragile, |progress| {
            last = Some(progress)
        })
        .unwrap();
        let reason = |index: usize| match &finished[index].outcome {
            Outcome::Done(_) => "done",
            Outcome::Impossible(reason) | Outcome::Failed(reason) => reason,
        };
        assert_eq!(reason(0), "internal error: one and one");
        assert_eq!(reason(7), "2 and 3 exclude each other");
        assert_eq!(reason(18), "does not fit");
        assert_eq!(reason(1), "done");
        assert_eq!(
            last.map(|progress| (progress.done, progress.total)),
            Some((30, 30))
        );
        drop(journal);
        let journal =
            Journal::<Outcome>::open(&folder.path().join("journal.jsonl"), false).unwrap();
        assert_eq!(journal.len(), 28);
    }
}
