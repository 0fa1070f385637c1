//! One quantity against another for a few settings, and distributions of a quantity.

use super::{Axis, Chart, Direction, Hue, Limit, Mark, Note, Scale, Series};

/// Lines over a common axis: latency over load, hit rate over cache size, ...
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curves {
    /// The message.
    pub title: String,
    /// What was run.
    pub subtitle: String,
    /// Where the numbers come from.
    pub footer: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Name and values (x, y) of each line; a single line may go unnamed.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
    /// A bound on y with its words: `SLA: TTFT p99 ≤ 500 ms`.
    pub limit: Option<(f64, String)>,
    /// A point to name: the answer.
    pub answer: Option<((f64, f64), String)>,
}

impl Curves {
    /// The picture. Lines of up to 60 values have a dot at each.
    #[must_use]
    pub fn chart(&self) -> Chart {
        let lines = (0..)
            .zip(&self.lines)
            .map(|(index, (name, points))| Series {
                name: name.clone(),
                points: points.clone(),
                mark: if points.len() <= 60 {
                    Mark::LineAndDots
                } else {
                    Mark::Line
                },
                hue: Hue::nth(index),
            });
        let limit = |(at, label): &(f64, String)| Limit {
            across: Direction::Y,
            at: *at,
            label: label.clone(),
        };
        let answer = |(at, text): &((f64, f64), String)| Note {
            at: *at,
            text: text.clone(),
            hue: Hue::Vermillion,
        };
        Chart {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            footer: self.footer.clone(),
            x: self.x.clone(),
            y: self.y.clone(),
            series: lines.collect(),
            limits: self.limit.iter().map(limit).collect(),
            notes: self.answer.iter().map(answer).collect(),
        }
    }
}

/// Empirical distribution functions: which share of the values is at most x.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Distributions {
    /// The message.
    pub title: String,
    /// What was run.
    pub subtitle: String,
    /// Where the numbers come from.
    pub footer: String,
    /// The quantity with its unit.
    pub x_label: String,
    /// How it is spaced; values that are not positive are left out of a logarithmic picture (but counted).
    pub x_scale: Scale,
    /// Name and values of each line, in any order.
    pub lines: Vec<(String, Vec<f64>)>,
    /// A bound on x with its words.
    pub limit: Option<(f64, String)>,
}

/// Points per line of a distribution at most: more are not told apart.
const MOST_POINTS: usize = 1000;

impl Distributions {
    /// The picture.
    #[must_use]
    pub fn chart(&self) -> Chart {
        let lines = (0..)
            .zip(&self.lines)
            .map(|(index, (name, values))| Series {
                name: name.clone(),
                points: distribution_function(values),
                mark: Mark::Line,
                hue: Hue::nth(index),
            });
        let limit = |(at, label): &(f64, String)| Limit {
            across: Direction::X,
            at: *at,
            label: label.clone(),
        };
        Chart {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            footer: self.footer.clone(),
            x: Axis {
                label: self.x_label.clone(),
                scale: self.x_scale,
                ..Axis::default()
            },
            y: Axis {
                label: "share of values at or below (%)".to_owned(),
                from: Some(0.0),
                to: Some(100.0),
                ..Axis::default()
            },
            series: lines.collect(),
            limits: self.limit.iter().map(limit).collect(),
            notes: Vec::new(),
        }
    }
}

/// The steps of the empirical distribution function in per cent, thinned to evenly spaced ranks.
fn distribution_function(values: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let kept = n.min(MOST_POINTS);
    let mut points = Vec::with_capacity(2 * kept);
    let mut below = 0.0;
    for step in 1..=kept {
        let rank = step * n / kept;
        let value = sorted[rank - 1];
        let share = 100.0 * rank as f64 / n as f64;
        points.extend([(value, below), (value, share)]);
        below = share;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_function_steps_up_at_each_value() {
        // Of 4 values each is 25 %.
        let points = distribution_function(&[3.0, 1.0, f64::NAN, 2.0, 2.0]);
        let expected = [
            (1.0, 0.0),
            (1.0, 25.0),
            (2.0, 25.0),
            (2.0, 50.0),
            (2.0, 50.0),
            (2.0, 75.0),
            (3.0, 75.0),
            (3.0, 100.0),
        ];
        assert_eq!(points, expected);
    }

    #[test]
    fn long_distributions_are_thinned_and_end_at_the_maximum() {
        let values: Vec<f64> = (0..123_457).map(f64::from).collect();
        let points = distribution_function(&values);
        assert_eq!(points.len(), 2 * MOST_POINTS);
        assert_eq!(points.last(), Some(&(123_456.0, 100.0)));
        assert!(distribution_function(&[]).is_empty());
    }
}
