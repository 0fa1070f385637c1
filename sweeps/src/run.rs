//! Many independent tasks on a few threads, results in the order of the tasks.
//!
//! Threads take the next task in order from a counter, so that tasks finish roughly in order, too. The calling thread
//! waits for results, hands each to a callback as soon as it is there (to be written to a journal) and returns all of
//! them in the order of the tasks: nothing depends on the number of threads. A task that panics becomes a failure with
//! the panic's message; the others go on.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tasks finished.
    pub done: usize,
    /// All tasks.
    pub total: usize,
    /// Of those done, how many needed no work because their result was known.
    pub resumed: usize,
    /// Time since the start.
    pub elapsed: Duration,
}

impl Progress {
    /// Time that the rest will take if it costs what the tasks so far cost on average; `None` before the first.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let computed = u32::try_from(self.done - self.resumed)
            .ok()
            .filter(|computed| *computed > 0)?;
        let left = u32::try_from(self.total - self.done).ok()?;
        Some(self.elapsed * left / computed)
    }
}

/// A task that panicked: a bug of ours, with the message of the panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked(pub String);

/// Runs the tasks `0..count` on `threads` threads (0: one per processor).
///
/// `finished` is called on the calling thread, in order of completion; with `ControlFlow::Break` no further task is
/// started. Returns the results in order of the tasks; `None` for tasks that were not run because of a break.
pub fn run<T: Send>(
    count: usize,
    threads: usize,
    task: impl Fn(usize) -> T + Sync,
    mut finished: impl FnMut(usize, &Result<T, Panicked>, Duration) -> ControlFlow<()>,
) -> Vec<Option<Result<T, Panicked>>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(thread_count(threads).min(count.max(1)))
        .thread_name(|index| format!("simulation {index}"))
        .build()
        .expect("the operating system starts a handful of threads");
    let (next, is_stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |results: mpsc::Sender<_>| {
        while !is_stopped.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| task(index)))
                .map_err(|panic| Panicked(message(&*panic)));
            if results.send((index, result)).is_err() {
                return;
            }
        }
    };
    let start = Instant::now();
    let mut ordered: Vec<Option<Result<T, Panicked>>> = (0..count).map(|_| None).collect();
    pool.in_place_scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..pool.current_num_threads() {
            let (sender, work) = (sender.clone(), &work);
            scope.spawn(move |_| work(sender));
        }
        drop(sender);
        for (index, result) in results {
            if finished(index, &result, start.elapsed()).is_break() {
                is_stopped.store(true, Ordering::Relaxed);
            }
            ordered[index] = Some(result);
        }
    });
    ordered
}

/// The number of threads that `--threads N` means: 0 is one per processor.
#[must_use]
pub fn thread_count(threads: usize) -> usize {
    match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        _ => threads,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_ON: ControlFlow<()> = ControlFlow::Continue(());

    /// Work whose duration differs wildly from task to task, so that completion is out of order.
    fn uneven(index: usize) -> u64 {
        let rounds = (index * 7919 % 13) as u64 * 2_000;
        (0..rounds).fold(index as u64, |state, step| {
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(step)
        })
    }

    #[test]
    fn results_come_in_the_order_of_tasks_for_any_number_of_threads() {
        let alone = run(200, 1, uneven, |_, _, _| GO_ON);
        for threads in [0, 2, 3, 8] {
            let mut seen = Vec::new();
            let together = run(200, threads, uneven, |index, _, _| {
                seen.push(index);
                GO_ON
            });
            assert_eq!(together, alone, "{threads} threads");
            seen.sort();
            assert!(seen.into_iter().eq(0..200), "every task is reported once");
        }
        assert_eq!(run(0, 2, uneven, |_, _, _| GO_ON), []);
    }

    #[test]
    fn a_panic_fails_its_own_task_only() {
        let task = |index| {
            assert!(index != 3, "task three is broken");
            if index == 5 {
                std::panic::panic_any(5u8);
            }
            index
        };
        let results = run(8, 2, task, |_, _, _| GO_ON);
        let failed = |text: &str| Some(Err(Panicked(text.to_owned())));
        assert_eq!(results[3], failed("task three is broken"));
        assert_eq!(results[5], failed("a panic without a message"));
        assert_eq!(
            results
                .iter()
                .filter(|result| matches!(result, Some(Ok(_))))
                .count(),
            6
        );
    }

    #[test]
    fn a_break_stops_before_the_rest() {
        // Tasks behind the third wait until it was reported, then have a million more to do.
        let is_reported = AtomicBool::new(false);
        let task = |index: usize| {
            while index > 2 && !is_reported.load(Ordering::SeqCst) {
                std::thread::yield_now()
            }
        };
        let results = run(1_000_000, 2, task, |index, _, _| {
            is_reported.store(
                index == 2 || is_reported.load(Ordering::SeqCst),
                Ordering::SeqCst,
            );
            if index == 2 {
                ControlFlow::Break(())
            } else {
                GO_ON
            }
        });
        let done = results.iter().flatten().count();
        assert!((3..1_000_000).contains(&done), "{done} done");
    }

    #[test]
    fn remaining_time_counts_only_computed_tasks() {
        let progress = Progress {
            done: 30,
            total: 90,
            resumed: 20,
            elapsed: Duration::from_secs(5),
        };
        assert_eq!(progress.remaining(), Some(Duration::from_secs(30)));
        assert_eq!(
            Progress {
                done: 20,
                ..progress
            }
            .remaining(),
            None
        );
    }
}
