//! Progress on stderr: a bar with the time that is left where stderr is a terminal, nothing otherwise.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use sweeps::run::Progress;

/// The bar of one run.
pub struct Bar {
    bar: ProgressBar,
    simulations: AtomicUsize,
}

impl Bar {
    /// A bar for so many tasks of this name.
    pub fn new(total: usize, tasks: &str) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {tasks}, {{msg}}"));
        bar.set_style(style.expect("the template is valid").progress_chars("━╸ "));
        Bar {
            bar,
            simulations: AtomicUsize::new(0),
        }
    }

    /// Shows how far it is.
    pub fn show(&self, progress: Progress) {
        self.bar.set_position(progress.done as u64);
        let resumed = match progress.resumed {
            0 => String::new(),
            known => format!("{known} from the journal, "),
        };
        let left = progress
            .remaining()
            .map_or("estimating".to_owned(), |left| {
                format!("{} left", clock(left))
            });
        self.bar.set_message(resumed + &left);
    }

    /// Counts a simulation of a search.
    pub fn count(&self) {
        let count = self.simulations.fetch_add(1, Ordering::Relaxed) + 1;
        self.bar.set_message(format!("{count} simulations"));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Exit code of a program that Ctrl-C ended: 128 and the number of the signal.
#[cfg(unix)]
const INTERRUPTED: i32 = 130;

/// From here on Ctrl-C says how to go on before it ends the program. Finished points are in the journal.
#[cfg(unix)]
pub fn explain_interrupts(journal: &Path) {
    use signal_hook::consts::SIGINT;
    use signal_hook::iterator::Signals;
    let journal = journal.display().to_string();
    let Ok(mut signals) = Signals::new([SIGINT]) else {
        // Without the handler Ctrl-C works as ever, silently.
        return;
    };
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            note(&format!(
                "\ninterrupted: finished points are in {journal}; the same command goes on from there, with --fresh it \
                 starts over"
            ));
            std::process::exit(INTERRUPTED);
        }
    });
}

/// Ctrl-C ends the program as it always does.
#[cfg(not(unix))]
pub fn explain_interrupts(_: &Path) {}

/// A line on stderr. A closed stderr is no reason to fail.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// `1:02:03`, `2:03`, `8 s`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_reads_like_a_clock() {
        let texts =
            [0.2, 59.0, 59.5, 61.0, 3723.0].map(|seconds| clock(Duration::from_secs_f64(seconds)));
        assert_eq!(texts, ["1 s", "59 s", "1:00", "1:01", "1:02:03"]);
    }
}
