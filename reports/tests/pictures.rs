//! Pictures as files: they are what they claim to be, say what they should, and are the same every time.

use reports::plot::{
    Axis, Chart, Curves, Direction, Distributions, Frontier, FrontierPoint, Hue, Limit, Mark, Note,
    Scale, Series,
};
use reports::terminal::{self, Size};
use std::path::Path;

fn frontier() -> Chart {
    let point = |x: f64, y: f64, is_feasible: bool| FrontierPoint {
        x,
        y,
        label: format!("{x} & {y}"),
        is_feasible,
    };
    Frontier {
        title: "What 8 GPUs deliver".to_owned(),
        subtitle: "5 configurations".to_owned(),
        footer: "timing: linear (given)".to_owned(),
        x_label: "output tokens/s/user".to_owned(),
        y_label: "output tokens/s/GPU".to_owned(),
        points: vec![
            point(10.0, 900.0, true),
            point(40.0, 500.0, true),
            point(60.0, 100.0, true),
            point(30.0, 200.0, true),
            point(5.0, 1000.0, false),
        ],
        frontier: vec![2, 0, 1],
        winner: Some(1),
        runner_up: Some(2),
        sla: Some((25.0, "SLA: ITL ≤ 40 ms".to_owned())),
    }
    .chart()
}

fn curves() -> Chart {
    let rising = |k: f64| {
        (1..=10)
            .map(|x| (f64::from(x), k * f64::from(x).exp()))
            .collect()
    };
    Curves {
        title: "Latency over load".to_owned(),
        x: Axis {
            label: "requests/s".to_owned(),
            ..Axis::default()
        },
        y: Axis {
            label: "TTFT p99 (ms)".to_owned(),
            scale: Scale::Log,
            ..Axis::default()
        },
        lines: vec![
            ("round-robin".to_owned(), rising(20.0)),
            ("kv".to_owned(), rising(5.0)),
        ],
        limit: Some((500.0, "SLA: 500 ms".to_owned())),
        answer: Some(((4.0, 5.0 * 4f64.exp()), "4 requests/s".to_owned())),
        ..Curves::default()
    }
    .chart()
}

/// Width and height from the header of a PNG, whose chunks must be whole.
fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let mut at = 8;
    let mut chunks = Vec::new();
    while at < bytes.len() {
        chunks.push(String::from_utf8_lossy(&bytes[at + 4..at + 8]).into_owned());
        at += 12 + word(at) as usize;
    }
    assert_eq!(at, bytes.len(), "the last chunk is whole");
    assert_eq!(
        (chunks[0].as_str(), chunks[chunks.len() - 1].as_str()),
        ("IHDR", "IEND")
    );
    (word(16), word(20))
}

#[test]
fn png_files_have_slide_size_content_and_the_same_bytes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |chart: &Chart, name: &str| {
        let path = folder.path().join(name);
        chart.write(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    let (first, again, empty) = (
        draw(&frontier(), "a.png"),
        draw(&frontier(), "b.png"),
        draw(&Chart::default(), "c.png"),
    );
    assert_eq!(png_size(&first), (1600, 1000));
    assert!(first == again, "a picture has the same bytes every time");
    assert!(
        first.len() > 2 * empty.len(),
        "{} and {}",
        first.len(),
        empty.len()
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn svg_documents_say_everything() {
    let svg = frontier().svg();
    for text in [
        "What 8 GPUs deliver",
        "5 configurations",
        "timing: linear (given)",
        "output tokens/s/user",
        "output tokens/s/GPU",
        "SLA: ITL ≤ 40 ms",
        "Winner",
        "40 &amp; 500",
        "Runner-up",
        "Pareto frontier (3)",
        "configurations (4)",
        "ruled out (1)",
        "1,000",
    ] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(
        svg.starts_with("<svg width=\"1600\" height=\"1000\"")
            && svg.trim_end().ends_with("</svg>")
    );
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    let curves = curves().svg();
    for text in [
        "TTFT p99 (ms)",
        "round-robin",
        "kv",
        "SLA: 500 ms",
        "4 requests/s",
    ] {
        assert!(curves.contains(text), "{text}");
    }
}

#[test]
fn the_frontier_line_runs_from_left_to_right() {
    let chart = frontier();
    let line = chart
        .series
        .iter()
        .find(|series| series.mark == Mark::LineAndDots)
        .unwrap();
    assert_eq!(line.points, [(10.0, 900.0), (40.0, 500.0), (60.0, 100.0)]);
}

#[test]
fn odd_values_leave_a_picture_whole() {
    let odd = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -5.0,
        1e-300,
        1e300,
        3.0,
    ];
    for scale in [Scale::Linear, Scale::Log] {
        for mark in [
            Mark::Line,
            Mark::Dashes,
            Mark::LineAndDots,
            Mark::Dots,
            Mark::Rings,
            Mark::Area,
        ] {
            for (x, y) in odd.iter().flat_map(|&x| odd.map(|y| (x, y))) {
                let series = Series {
                    name: "odd".to_owned(),
                    points: vec![(x, y), (1.0, 2.0), (y, x)],
                    mark,
                    hue: Hue::Blue,
                };
                let chart = Chart {
                    x: Axis {
                        scale,
                        ..Axis::default()
                    },
                    y: Axis {
                        scale,
                        ..Axis::default()
                    },
                    series: vec![series],
                    limits: vec![Limit {
                        across: Direction::Y,
                        at: y,
                        label: "limit".to_owned(),
                    }],
                    notes: vec![Note {
                        at: (x, y),
                        text: "note".to_owned(),
                        hue: Hue::Black,
                    }],
                    ..Chart::default()
                };
                let svg = chart.svg();
                assert!(!svg.contains("NaN"), "{x} {y} {scale:?} {mark:?}");
                assert!(
                    !terminal::draw(&chart, Size::default()).contains("NaN"),
                    "{x} {y} {scale:?} {mark:?}"
                );
            }
        }
    }
}

#[test]
fn a_legend_leaves_room_for_the_plot() {
    let series = |index: usize| Series {
        name: format!("configuration {index} with a name that takes its room"),
        points: vec![(1.0, 2.0), (3.0, index as f64)],
        mark: Mark::Line,
        hue: Hue::nth(index),
    };
    for (count, listed) in [(12, 12), (500, 10)] {
        let chart = Chart {
            series: (0..count).map(series).collect(),
            ..Chart::default()
        };
        let svg = chart.svg();
        assert_eq!(svg.matches("with a name").count(), listed, "{count}");
        let more = format!("and {} more", count - listed);
        assert_eq!(svg.contains(&more), count > listed, "{more}");
        assert!(!svg.contains("NaN") && svg.len() < 1_000_000, "{count}");
    }
    let long = Series {
        name: "long ".repeat(200),
        ..series(0)
    };
    let chart = Chart {
        series: vec![long],
        ..Chart::default()
    };
    assert!(chart.svg().contains('…'));
}

#[test]
fn a_limit_far_away_does_not_squash_the_data() {
    let mut chart = curves();
    chart.limits[0].at = 1e12;
    let svg = chart.svg();
    assert!(svg.contains("off the scale"), "{svg}");
    assert!(!svg.contains("1,000,000,000"));
}

#[test]
fn other_extensions_are_refused_with_the_path() {
    let error = frontier()
        .write(Path::new("frontier.jpg"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("frontier.jpg") && error.contains(".svg"),
        "{error}"
    );
}

#[test]
fn a_distribution_in_the_terminal_by_the_letter() {
    let values = |k: f64| (1..=100).map(|n| k * f64::from(n)).collect();
    let chart = Distributions {
        title: "Time to first token".to_owned(),
        x_label: "TTFT (ms)".to_owned(),
        lines: vec![
            ("4 workers".to_owned(), values(2.0)),
            ("8 workers".to_owned(), values(1.0)),
        ],
        ..Distributions::default()
    }
    .chart();
    let text = terminal::draw(
        &chart,
        Size {
            width: 60,
            height: 8,
        },
    );
    assert_eq!(text, include_str!("golden/distribution.txt"));
}

#[test]
fn terminal_charts_keep_to_their_width() {
    for (width, height) in [(30, 4), (60, 10), (96, 22), (200, 50)] {
        for chart in [frontier(), curves(), Chart::default()] {
            let text = terminal::draw(&chart, Size { width, height });
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width, "{widest} > {width}\n{text}");
            assert!(text.lines().count() >= height);
        }
    }
}

#[test]
fn terminal_frontiers_name_winner_and_limit() {
    let text = terminal::draw(&frontier(), Size::default());
    for words in [
        "1 Winner",
        "2 Runner-up",
        "SLA: ITL ≤ 40 ms",
        "o ruled out (1)",
        "output tokens/s/user",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let plot = text.lines().take(24).collect::<String>();
    for mark in ['1', '2', 'o', '•'] {
        assert!(plot.contains(mark), "{mark}\n{text}");
    }
}
