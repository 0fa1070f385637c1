//! The frontier: what a GPU delivers against what a user sees, one dot per configuration.

use super::{Axis, Chart, Direction, Hue, Limit, Mark, Note, Series};

/// Configurations, those on the Pareto frontier, and the best two.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frontier {
    /// The message.
    pub title: String,
    /// What was run.
    pub subtitle: String,
    /// Where the numbers come from.
    pub footer: String,
    /// What a user sees, with unit: `output tokens/s/user`.
    pub x_label: String,
    /// What a GPU delivers, with unit: `output tokens/s/GPU`.
    pub y_label: String,
    /// All configurations.
    pub points: Vec<FrontierPoint>,
    /// Indices into `points`, in any order; they are joined by increasing x.
    pub frontier: Vec<usize>,
    /// Index of the configuration to choose.
    pub winner: Option<usize>,
    /// Index of the second best.
    pub runner_up: Option<usize>,
    /// The least x that the SLA allows, with its words: `SLA: ITL ≤ 25 ms`.
    pub sla: Option<(f64, String)>,
}

/// One configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontierPoint {
    /// What a user sees.
    pub x: f64,
    /// What a GPU delivers.
    pub y: f64,
    /// Its name; printed for the winner and the runner-up only.
    pub label: String,
    /// False for one that was ruled out (SLA missed, does not fit).
    pub is_feasible: bool,
}

impl Frontier {
    /// The picture.
    #[must_use]
    pub fn chart(&self) -> Chart {
        let place = |point: &FrontierPoint| (point.x, point.y);
        let select = |is_feasible: bool| -> Vec<(f64, f64)> {
            self.points
                .iter()
                .filter(|point| point.is_feasible == is_feasible)
                .map(place)
                .collect()
        };
        let mut frontier: Vec<_> = self
            .frontier
            .iter()
            .map(|&index| place(&self.points[index]))
            .collect();
        frontier.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut series = Vec::new();
        for (name, points, mark, hue) in [
            ("ruled out", select(false), Mark::Rings, Hue::Grey),
            ("configurations", select(true), Mark::Dots, Hue::Sky),
            ("Pareto frontier", frontier, Mark::LineAndDots, Hue::Blue),
        ] {
            if !points.is_empty() {
                series.push(Series {
                    name: format!("{name} ({})", points.len()),
                    points,
                    mark,
                    hue,
                });
            }
        }
        let named = [
            ("Winner", self.winner, Hue::Vermillion),
            ("Runner-up", self.runner_up, Hue::Orange),
        ];
        let notes = named.into_iter().filter_map(|(name, index, hue)| {
            let point = &self.points[index?];
            Some(Note {
                at: place(point),
                text: format!("{name}\n{}", point.label),
                hue,
            })
        });
        let sla = self.sla.iter().map(|(at, label)| Limit {
            across: Direction::X,
            at: *at,
            label: label.clone(),
        });
        Chart {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            footer: self.footer.clone(),
            x: Axis {
                label: self.x_label.clone(),
                ..Axis::default()
            },
            y: Axis {
                label: self.y_label.clone(),
                ..Axis::default()
            },
            series,
            limits: sla.collect(),
            notes: notes.collect(),
        }
    }
}
