//! Metrics over one field of a sweep: a line for each combination of the other fields.

use crate::chart::Captions;
use crate::metric::{label, value_text};
use crate::replicates::Replicated;
use crate::space::{Override, Space, brief_parts};
use reports::plot::{Axis, Chart, Curves, Scale};

/// Beyond this ratio of its ends an axis is logarithmic.
const WIDE: f64 = 7.9;

const CHECKED: &str = "every point sets the field to a number";

/// Whether a space can be drawn over a field: every point sets it, to a number.
///
/// # Errors
/// What was found instead.
pub fn check(space: &Space, field: &str) -> Result<(), String> {
    for point in space.points() {
        let set = point.overrides.iter().find(|set| set.field == field);
        let Some(set) = set else {
            let fields = space.fields().join(", ");
            return Err(format!(
                "found `{field}`, expected a field that varies at every point: {fields}"
            ));
        };
        if number(&set.value).is_none() {
            let value = &set.value;
            return Err(format!(
                "found the value `{value}` of {field}, expected numbers"
            ));
        }
    }
    Ok(())
}

fn number(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

/// The lines of a sweep over a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Over<'a> {
    field: &'a str,
    /// Values of the field in the order of the sweep, as written and as numbers.
    at: Vec<(String, f64)>,
    lines: Vec<Line<'a>>,
}

/// Points that differ in the field alone.
#[derive(Debug, Clone, PartialEq)]
struct Line<'a> {
    name: String,
    /// By value of the field.
    points: Vec<Option<&'a Replicated>>,
}

impl<'a> Over<'a> {
    /// Sorts the points of a sweep into lines over `field`, in the order in which they come. The space was
    /// [checked](check).
    #[must_use]
    pub fn new(points: &'a [Replicated], field: &'a str) -> Over<'a> {
        let mut at: Vec<(String, f64)> = Vec::new();
        let mut lines: Vec<Line<'a>> = Vec::new();
        for point in points {
            let own = |set: &Override| set.field == field;
            let overrides = &point.mean.point.overrides;
            let text = &overrides.iter().find(|set| own(set)).expect(CHECKED).value;
            let others: Vec<Override> = overrides.iter().filter(|set| !own(set)).cloned().collect();
            let name = if others.is_empty() {
                String::new()
            } else {
                brief_parts(&others).join(", ")
            };
            let value = at.iter().position(|(known, _)| known == text);
            let value = value.unwrap_or_else(|| {
                at.push((text.clone(), number(text).expect(CHECKED)));
                at.len() - 1
            });
            let line = lines.iter().position(|line| line.name == name);
            let line = line.unwrap_or_else(|| {
                let points = Vec::new();
                lines.push(Line { name, points });
                lines.len() - 1
            });
            let points = &mut lines[line].points;
            points.resize(points.len().max(value + 1), None);
            points[value] = Some(point);
        }
        Over { field, at, lines }
    }

    /// What a line has of a metric, by value of the field.
    fn values(&self, line: &Line<'_>, metric: &str) -> Vec<Option<f64>> {
        let value = |index: usize| {
            let row = (*line.points.get(index)?)?.mean.outcome.row()?;
            row.number(metric)
        };
        (0..self.at.len()).map(value).collect()
    }

    /// One row for each line, one column for each value of the field, under a title.
    #[must_use]
    pub fn table(&self, metric: &str) -> Vec<Vec<String>> {
        let head =
            std::iter::once(label(metric)).chain(self.at.iter().map(|(text, _)| text.clone()));
        let row = |line: &Line<'_>| {
            let cell = |value: &Option<f64>| {
                value.map_or("-".to_owned(), |value| value_text(metric, value))
            };
            let values = self.values(line, metric);
            let name = if line.name.is_empty() {
                "all".to_owned()
            } else {
                line.name.clone()
            };
            std::iter::once(name)
                .chain(values.iter().map(cell))
                .collect()
        };
        std::iter::once(head.collect())
            .chain(self.lines.iter().map(row))
            .collect()
    }

    /// The picture of a metric; shares in per cent.
    #[must_use]
    pub fn chart(&self, metric: &str, captions: Captions) -> Chart {
        let is_share = metric.ends_with("share");
        let unit = if is_share { 100.0 } else { 1.0 };
        let points = |line: &Line<'_>| -> Vec<(f64, f64)> {
            let values = self.values(line, metric);
            let places = self.at.iter().map(|(_, at)| *at);
            let drawn = places
                .zip(values)
                .filter_map(|(at, value)| Some((at, value? * unit)));
            let mut drawn: Vec<(f64, f64)> = drawn.collect();
            drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
            drawn
        };
        let lines = self
            .lines
            .iter()
            .map(|line| (line.name.clone(), points(line)));
        let lines: Vec<(String, Vec<(f64, f64)>)> = lines.collect();
        let all = || lines.iter().flat_map(|(_, points)| points);
        let x = scale(all().map(|point| point.0));
        let y = if is_share {
            Scale::Linear
        } else {
            scale(all().map(|point| point.1))
        };
        Curves {
            title: format!("{} over {}", label(metric), plain(self.field)),
            subtitle: captions.subtitle,
            footer: captions.footer,
            x: Axis {
                label: plain(self.field),
                scale: x,
                ..Axis::default()
            },
            y: Axis {
                label: if is_share {
                    format!("{} (%)", label(metric))
                } else {
                    label(metric)
                },
                scale: y,
                from: (y == Scale::Linear).then_some(0.0),
                ..Axis::default()
            },
            lines,
            limit: None,
            answer: None,
        }
        .chart()
    }
}

/// Logarithmic where values span much.
fn scale(values: impl Iterator<Item = f64>) -> Scale {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > 0.0 && high / low > WIDE {
        Scale::Log
    } else {
        Scale::Linear
    }
}

/// The last part of a field's name that says something, in words: `arrival speedup ratio`.
fn plain(field: &str) -> String {
    let mut parts = field.rsplit('.');
    let last = parts.find(|part| *part != "fixed" && part.parse::<u32>().is_err());
    last.unwrap_or(field).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_drawn_is_told() {
        let mut space = Space::default();
        space.vary("load=1,2,4").expect("an axis");
        space.vary("mode=kv,random").expect("an axis");
        assert_eq!(check(&space, "load"), Ok(()));
        let told = |field: &str| check(&space, field).expect_err("it cannot be drawn");
        assert!(
            told("mode").starts_with("found the value `kv` of mode"),
            "{}",
            told("mode")
        );
        assert!(
            told("pace").ends_with("varies at every point: load, mode"),
            "{}",
            told("pace")
        );
    }

    #[test]
    fn wide_axes_are_logarithmic() {
        assert_eq!(scale([64.0, 128.0, 512.0].into_iter()), Scale::Log);
        assert_eq!(scale([1.0, 2.0, 4.0].into_iter()), Scale::Linear);
        assert_eq!(scale([0.0, 100.0].into_iter()), Scale::Linear);
        let length = "workload.synth.sessions.0.first_input_tokens.fixed";
        assert_eq!(plain(length), "first input tokens");
        assert_eq!(
            plain("workload.load.arrival_speedup_ratio"),
            "arrival speedup ratio"
        );
    }
}
