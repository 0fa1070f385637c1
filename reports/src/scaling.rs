//! Pictures of a run with a planner: workers over time with the decisions marked, and what users saw meanwhile.

use crate::plot::{Axis, Chart, Direction, Hue, Limit, Mark, Scale, Series};
use crate::report::Report;
use sim::scaling::{DecisionSummary, Replicas};
use sim::{ScalingSummary, Window};

/// File names and pictures; none without a planner.
#[must_use]
pub fn pictures(report: &Report, series: &sim::Series) -> Vec<(&'static str, Chart)> {
    let Some(scaling) = &report.summary.scaling else {
        return Vec::new();
    };
    vec![
        ("replicas.png", replicas(report, series, scaling)),
        ("ttft.png", ttft(report, series)),
        ("queue.png", queue(report, series)),
    ]
}

fn replicas(report: &Report, series: &sim::Series, scaling: &ScalingSummary) -> Chart {
    let line = |name: &str, of: fn(&Replicas) -> f64, mark, hue| {
        let rows = series.windows.iter().zip(&series.replicas);
        Series {
            name: name.to_owned(),
            points: rows
                .map(|(window, row)| (window.start_s, of(row)))
                .collect(),
            mark,
            hue,
        }
    };
    let decided = |name: &str, goes: fn(u32, u32) -> bool, hue| {
        let decisions = scaling.decisions.iter();
        Series {
            name: name.to_owned(),
            points: decisions.filter_map(|it| point(it, goes)).collect(),
            mark: Mark::Dots,
            hue,
        }
    };
    let mut lines = vec![
        line("serving", |row| row.ready, Mark::Area, Hue::Blue),
        line("starting", |row| row.starting, Mark::Line, Hue::Orange),
        line("draining", |row| row.draining, Mark::Dashes, Hue::Grey),
        decided("decided: more", |from, to| to > from, Hue::Green),
        decided("decided: fewer", |from, to| to < from, Hue::Vermillion),
    ];
    if scaling.gpu_hours.spare > 0.0 {
        lines.insert(2, line("spare", |row| row.spare, Mark::Dashes, Hue::Green));
    }
    Chart {
        title: format!("Workers over time: {}", scaling.policy),
        y: axis("workers"),
        series: lines,
        ..frame(report)
    }
}

/// When workers were wanted and how many, over both roles; `None` if the decision went the other way.
fn point(decision: &DecisionSummary, goes: fn(u32, u32) -> bool) -> Option<(f64, f64)> {
    let changes = [decision.prefill, decision.decode];
    let (mut from, mut to) = (0, 0);
    for change in changes.into_iter().flatten() {
        from += change.from;
        to += change.to;
    }
    goes(from, to).then_some((decision.time_s, f64::from(to)))
}

fn ttft(report: &Report, series: &sim::Series) -> Chart {
    let bound = report.summary.goodput.as_ref().and_then(|it| it.ttft_ms);
    let limit = |at| Limit {
        across: Direction::Y,
        at,
        label: format!("SLA: TTFT ≤ {at} ms"),
    };
    // Windows without a first token have none.
    let seen = |window: &&Window| window.ttft_p90_ms > 0.0;
    let points = |of: fn(&Window) -> f64| {
        let windows = series.windows.iter().filter(seen);
        windows.map(|window| (window.start_s, of(window))).collect()
    };
    Chart {
        title: "Time to first token of requests that arrived then".to_owned(),
        y: Axis {
            scale: Scale::Log,
            ..axis("ms")
        },
        series: vec![
            Series {
                name: "90th percentile".to_owned(),
                points: points(|window| window.ttft_p90_ms),
                mark: Mark::Line,
                hue: Hue::Vermillion,
            },
            Series {
                name: "mean".to_owned(),
                points: points(|window| window.ttft_mean_ms),
                mark: Mark::Line,
                hue: Hue::Blue,
            },
        ],
        limits: bound.map(limit).into_iter().collect(),
        ..frame(report)
    }
}

fn queue(report: &Report, series: &sim::Series) -> Chart {
    let line = |name: &str, of: fn(&Window) -> f64, hue| Series {
        name: name.to_owned(),
        points: (series.windows.iter())
            .map(|window| (window.start_s, of(window)))
            .collect(),
        mark: Mark::Line,
        hue,
    };
    Chart {
        title: "Requests that waited and that ran".to_owned(),
        y: axis("requests"),
        series: vec![
            line("waiting", |window| window.queued, Hue::Vermillion),
            line("running", |window| window.running, Hue::Blue),
        ],
        ..frame(report)
    }
}

fn axis(label: &str) -> Axis {
    Axis {
        label: label.to_owned(),
        ..Axis::default()
    }
}

fn frame(report: &Report) -> Chart {
    Chart {
        subtitle: report.workload.clone(),
        footer: report.footer(),
        x: axis("seconds since the start"),
        ..Chart::default()
    }
}
