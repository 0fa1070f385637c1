//! The picture of a run with a planner: workers over time, what was decided and why, and what users saw meanwhile, in panels
//! over one axis of time.

use crate::plot::{Axis, Chart, Direction, Hue, Limit, Mark, Panels, Scale, Series};
use crate::report::Report;
use sim::scaling::{DecisionSummary, Replicas};
use sim::{ScalingSummary, Window};
use std::collections::BTreeMap;

/// The picture.
#[must_use]
pub fn picture(report: &Report, scaling: &ScalingSummary, series: &sim::Series) -> Panels {
    let bounds = report.summary.goodput.as_ref();
    let ttft = latency(
        "TTFT of requests that arrived then",
        series,
        |window| (window.ttft_mean_ms, window.ttft_p90_ms),
        bounds.and_then(|it| it.ttft_ms),
    );
    let tpot = latency(
        "TPOT (mean ITL) of the same requests",
        series,
        |window| (window.tpot_mean_ms, window.tpot_p90_ms),
        bounds.and_then(|it| it.itl_ms),
    );
    Panels {
        title: format!("{}: workers, decisions and latencies", scaling.policy),
        subtitle: report.workload.clone(),
        footer: report.footer(),
        x: Axis {
            label: "seconds since the start".to_owned(),
            from: Some(0.0),
            to: series.windows.last().map(|it| it.start_s + series.window_s),
            ..Axis::default()
        },
        charts: vec![
            replicas(scaling, series),
            decisions(scaling),
            queue(series),
            ttft,
            tpot,
        ],
    }
}

fn replicas(scaling: &ScalingSummary, series: &sim::Series) -> Chart {
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
    let mut lines = vec![
        line("serving", |row| row.ready, Mark::Area, Hue::Blue),
        line("starting", |row| row.starting, Mark::Line, Hue::Orange),
        line("draining", |row| row.draining, Mark::Dashes, Hue::Grey),
    ];
    if scaling.gpu_hours.spare > 0.0 {
        lines.insert(2, line("spare", |row| row.spare, Mark::Dashes, Hue::Green));
    }
    Chart {
        title: "Workers".to_owned(),
        y: axis("workers"),
        series: lines,
        ..Chart::default()
    }
}

/// Reasons that get a colour of their own; the others share one.
const MOST_REASONS: usize = 4;

/// By how many workers each decision changed what was wanted, in the colour of its reason.
fn decisions(scaling: &ScalingSummary) -> Chart {
    let mut by_reason: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for decision in &scaling.decisions {
        let point = (decision.time_s, change(decision));
        by_reason.entry(decision.reason).or_default().push(point);
    }
    let mut reasons: Vec<_> = by_reason.into_iter().collect();
    // The sort is stable: reasons given equally often stay in the order of their names.
    reasons.sort_by_key(|(_, points)| std::cmp::Reverse(points.len()));
    let rest = reasons.split_off(reasons.len().min(MOST_REASONS));
    let dots = |(reason, points): (&str, Vec<(f64, f64)>), hue| Series {
        name: format!("{reason} ({})", points.len()),
        points,
        mark: Mark::Dots,
        hue,
    };
    let mut series: Vec<Series> = reasons
        .into_iter()
        .enumerate()
        .map(|(index, reason)| dots(reason, Hue::nth(index)))
        .collect();
    if !rest.is_empty() {
        let points = rest.into_iter().flat_map(|(_, points)| points).collect();
        series.push(dots(("other reasons", points), Hue::Grey));
    }
    let changes = scaling.decisions.iter().map(|it| change(it).abs());
    let most = changes.fold(1.0, f64::max) + 0.5;
    Chart {
        title: "Decisions".to_owned(),
        y: Axis {
            from: Some(-most),
            to: Some(most),
            ..axis("change")
        },
        series,
        ..Chart::default()
    }
}

/// Workers more, or fewer, over both roles.
fn change(decision: &DecisionSummary) -> f64 {
    let changes = [decision.prefill, decision.decode].into_iter().flatten();
    changes
        .map(|change| f64::from(change.to) - f64::from(change.from))
        .sum()
}

/// Mean and 90th percentile by window, windows without a value left out.
fn latency(
    title: &str,
    series: &sim::Series,
    of: fn(&Window) -> (f64, f64),
    bound: Option<f64>,
) -> Chart {
    let windows = || series.windows.iter().filter(move |it| of(it).1 > 0.0);
    let line = |name: &str, points, hue| Series {
        name: name.to_owned(),
        points,
        mark: Mark::Line,
        hue,
    };
    let p90 = windows().map(|it| (it.start_s, of(it).1)).collect();
    let mean = windows().map(|it| (it.start_s, of(it).0)).collect();
    let limit = |at| Limit {
        across: Direction::Y,
        at,
        label: format!("SLA: {at} ms"),
    };
    Chart {
        title: title.to_owned(),
        y: Axis {
            scale: Scale::Log,
            ..axis("ms")
        },
        series: vec![
            line("90th percentile", p90, Hue::Vermillion),
            line("mean", mean, Hue::Blue),
        ],
        limits: bound.map(limit).into_iter().collect(),
        ..Chart::default()
    }
}

fn queue(series: &sim::Series) -> Chart {
    let line = |name: &str, of: fn(&Window) -> f64, hue| Series {
        name: name.to_owned(),
        points: (series.windows.iter())
            .map(|window| (window.start_s, of(window)))
            .collect(),
        mark: Mark::Line,
        hue,
    };
    Chart {
        title: "Requests".to_owned(),
        y: axis("requests"),
        series: vec![
            line("waiting", |window| window.queued, Hue::Vermillion),
            line("running", |window| window.running, Hue::Blue),
        ],
        ..Chart::default()
    }
}

fn axis(label: &str) -> Axis {
    Axis {
        label: label.to_owned(),
        ..Axis::default()
    }
}
