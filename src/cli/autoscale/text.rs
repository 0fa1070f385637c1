//! The comparison as text, table, JSON and picture.

use super::Comparison;
use super::runs::{Kind, Run};
use reports::plot::{Axis, Chart, Direction, Hue, Limit, Mark, Note, Scale, Series};
use reports::table::Table;
use serde_json::{Value, json};
use std::fmt::Write as _;
use sweeps::metric::{label, short};

impl Comparison {
    /// The answer, then all runs.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.answer());
        let metric = label(&self.keep.metric);
        let is_priced = self.runs.iter().any(|run| run.usd.is_some());
        let head = [metric.as_str(), "SLA share", "workers", "started"];
        let mut row = |name: &str, mark: &str, [hours, over, usd]: [&str; 3], cells: [&str; 4]| {
            let [value, share, workers, started] = cells;
            let usd = if is_priced {
                format!("{usd:>9}")
            } else {
                String::new()
            };
            let line = format!(
                "{name:<34}{mark:<6}{hours:>10}{over:>12}{usd}  {value:>22}  {share:>10}  {workers:>14}  {started:>8}"
            );
            writeln!(text, "{}", line.trim_end()).expect("writing to a string cannot fail");
        };
        let over = if self.bound.is_some() {
            "over bound"
        } else {
            ""
        };
        row("Deployment", "", ["GPU-hours", over, "$"], head);
        for run in self.shown() {
            let value = run.metric.map_or("-".to_owned(), short);
            let share = run
                .sla_share
                .map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
            let workers = if run.kind == Kind::Fixed {
                run.most_workers.to_string()
            } else {
                format!("{:.2}, peak {}", run.mean_workers, run.most_workers)
            };
            let mark = if run.keeps { "keeps" } else { "" };
            let hours = format!("{:.2}", run.gpu_hours);
            let usd = run.usd.map_or("-".to_owned(), |usd| format!("{usd:.2}"));
            row(
                &run.name,
                mark,
                [&hours, &self.in_per_cent(run), &usd],
                [&value, &share, &workers, &run.started.to_string()],
            );
        }
        writeln!(text, "\nWorkload        {}", self.workload)
            .expect("writing to a string cannot fail");
        for guess in &self.guesses {
            writeln!(text, "Stands on       {guess}").expect("writing to a string cannot fail");
        }
        text
    }

    /// How much a run is above the bound.
    fn over_bound(&self, run: &Run) -> Option<f64> {
        let bound = self.bound.filter(|&bound| bound > 0.0)?;
        Some(run.gpu_hours / bound - 1.0)
    }

    fn in_per_cent(&self, run: &Run) -> String {
        let over = self.over_bound(run);
        over.map_or(String::new(), |over| format!("{:.0} %", 100.0 * over))
    }

    /// All runs, but of the oracle only the one that counts.
    fn shown(&self) -> impl Iterator<Item = &Run> {
        let best = self.cheapest(Kind::Oracle).map(|run| run.name.clone());
        let counts = move |run: &&Run| run.kind != Kind::Oracle || Some(&run.name) == best.as_ref();
        self.runs.iter().filter(counts)
    }

    /// What autoscaling saves, in words.
    fn answer(&self) -> String {
        let (keep, startup) = (&self.keep, self.startup_s);
        let mut lines = vec![format!(
            "To keep {keep}, where a new worker takes {startup} s to start:"
        )];
        let Some(fixed) = self.fixed() else {
            lines.push(
                "no fixed fleet that was tried keeps it; --most allows larger ones.".to_owned(),
            );
            if let Some(run) = self.cheapest(Kind::Planner) {
                lines.push(format!(
                    "{} does, with {:.2} GPU-hours.",
                    run.name, run.gpu_hours
                ));
            }
            return lines.join("\n");
        };
        lines.push(format!(
            "the smallest fixed fleet has {} workers{} and takes {:.2} GPU-hours;",
            fixed.most_workers,
            self.sizes_of(fixed),
            fixed.gpu_hours
        ));
        let against = |run: &Run| {
            let (saved, share) = saved(fixed, run);
            if saved >= 0.0 {
                format!(
                    "{:.2}, which saves {saved:.2} ({:.0} %)",
                    run.gpu_hours,
                    100.0 * share
                )
            } else {
                format!(
                    "{:.2}, which is {:.2} more ({:.0} %)",
                    run.gpu_hours,
                    -saved,
                    -100.0 * share
                )
            }
        };
        lines.push(match self.cheapest(Kind::Planner) {
            Some(run) => format!(
                "the cheapest planner that keeps it, {}, takes {};",
                run.name,
                against(run)
            ),
            None => "no planner that was tried keeps it;".to_owned(),
        });
        lines.push(match self.cheapest(Kind::Oracle) {
            Some(run) => format!(
                "an oracle that knows every request to come takes {}.",
                against(run)
            ),
            None => {
                "nor does the oracle, which knows every request to come, at any utilisation tried."
                    .to_owned()
            }
        });
        lines.extend(self.bound_in_words());
        lines.join("\n")
    }

    fn bound_in_words(&self) -> Option<String> {
        let hours = self.bound?;
        Some(format!(
            "No schedule on such workers takes less than {hours:.2}, at whatever latency."
        ))
    }

    /// By role, where there are two.
    fn sizes_of(&self, run: &Run) -> String {
        let sizes = run.name.trim_start_matches("fixed, ");
        if self.is_apart {
            format!(" ({sizes})")
        } else {
            String::new()
        }
    }

    pub fn json(&self) -> Value {
        let of = |run: &Run| {
            json!({
                "name": run.name, "kind": run.kind.name(), "gpu_hours": run.gpu_hours, "usd": run.usd, "value": run.metric,
                "keeps": run.keeps, "sla_share": run.sla_share, "mean_workers": run.mean_workers,
                "peak_workers": run.most_workers, "workers_started": run.started,
                "over_bound_share": self.over_bound(run),
            })
        };
        let share = |kind| {
            let (fixed, run) = (self.fixed()?, self.cheapest(kind)?);
            Some(saved(fixed, run).1)
        };
        json!({
            "keep": { "metric": self.keep.metric, "limit": self.keep.limit() },
            "startup_s": self.startup_s,
            "workload": self.workload,
            "fixed": self.fixed().map(of),
            "planner": self.cheapest(Kind::Planner).map(of),
            "oracle": self.cheapest(Kind::Oracle).map(of),
            "bound_gpu_hours": self.bound,
            "planner_saves_share": share(Kind::Planner),
            "oracle_saves_share": share(Kind::Oracle),
            "runs": self.runs.iter().map(of).collect::<Vec<_>>(),
            "guesses": self.guesses,
        })
    }
}

/// GPU-hours that a run takes less than the fixed fleet, and their share.
fn saved(fixed: &Run, run: &Run) -> (f64, f64) {
    let saved = fixed.gpu_hours - run.gpu_hours;
    let share = if fixed.gpu_hours > 0.0 {
        saved / fixed.gpu_hours
    } else {
        0.0
    };
    (saved, share)
}

pub fn table(comparison: &Comparison) -> Table {
    let columns = [
        "deployment",
        "kind",
        "gpu_hours",
        "usd",
        "value",
        "keeps",
        "sla_share",
        "mean_workers",
        "peak_workers",
        "workers_started",
        "over_bound_share",
    ];
    let mut table = Table::new(columns.map(str::to_owned).to_vec());
    for run in &comparison.runs {
        table.push(vec![
            run.name.as_str().into(),
            run.kind.name().into(),
            run.gpu_hours.into(),
            run.usd.into(),
            run.metric.into(),
            run.keeps.into(),
            run.sla_share.into(),
            run.mean_workers.into(),
            run.most_workers.into(),
            run.started.into(),
            comparison.over_bound(run).into(),
        ]);
    }
    table
}

/// GPU-hours against what is to be kept: fixed fleets as a line, planners as dots, the oracle's utilisations as another line.
pub fn chart(comparison: &Comparison) -> Chart {
    let points = |kind: Kind| -> Vec<(f64, f64)> {
        let runs = comparison.runs.iter().filter(|run| run.kind == kind);
        runs.filter_map(|run| Some((run.gpu_hours, run.metric?)))
            .collect()
    };
    let mut oracle = points(Kind::Oracle);
    oracle.sort_by(|a, b| a.0.total_cmp(&b.0));
    let series = |name: &str, points, mark, hue| Series {
        name: name.to_owned(),
        points,
        mark,
        hue,
    };
    let note = |run: &Run, hue| {
        let text = run.name.clone();
        run.metric.map(|value| Note {
            at: (run.gpu_hours, value),
            text,
            hue,
        })
    };
    let planners = comparison.runs.iter();
    let planners = planners.filter(|run| run.kind == Kind::Planner);
    let fixed = comparison.fixed().into_iter();
    let notes = fixed
        .map(|run| note(run, Hue::Blue))
        .chain(planners.map(|run| note(run, Hue::Vermillion)));
    let metric = label(&comparison.keep.metric);
    Chart {
        title: "What autoscaling saves".to_owned(),
        subtitle: format!(
            "{}; a worker takes {} s to start",
            comparison.workload, comparison.startup_s
        ),
        footer: format!("dynosim {}", env!("CARGO_PKG_VERSION")),
        x: Axis {
            label: "GPU-hours".to_owned(),
            from: Some(0.0),
            ..Axis::default()
        },
        y: Axis {
            label: metric,
            scale: Scale::Log,
            ..Axis::default()
        },
        series: vec![
            series(
                "fixed fleets",
                points(Kind::Fixed),
                if comparison.is_apart {
                    Mark::Dots
                } else {
                    Mark::LineAndDots
                },
                Hue::Blue,
            ),
            series(
                "planners",
                points(Kind::Planner),
                Mark::Dots,
                Hue::Vermillion,
            ),
            series(
                "oracle at several utilisations",
                oracle,
                Mark::Dashes,
                Hue::Green,
            ),
        ],
        limits: limits(comparison),
        notes: notes.flatten().collect(),
    }
}

/// What is to be kept, and what no schedule falls below.
fn limits(comparison: &Comparison) -> Vec<Limit> {
    let keep = Limit {
        across: Direction::Y,
        at: comparison.keep.limit(),
        label: comparison.keep.to_string(),
    };
    let bound = comparison.bound.map(|at| Limit {
        across: Direction::X,
        at,
        label: format!("bound: {at:.2} GPU-hours"),
    });
    std::iter::once(keep).chain(bound).collect()
}
