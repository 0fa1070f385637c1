//! What a sweep varies: a product of factors, each a list of overrides of scenario fields.
//!
//! An axis (`pools.agg.workers` over 1, 2, 4) is a factor whose entries set one field; axes zipped together and lists of
//! whole configurations are factors whose entries set several. The points are the product of the factors in the order
//! given, the last one varying fastest, and have that order as their index, whatever runs them. Values stay text: the
//! scenario that is overridden knows their types.

pub use crate::space_error::{SpaceError, SpaceErrorKind};
use crate::values;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most points of a sweep unless the caller allows more.
pub const DEFAULT_MAX_POINTS: usize = 100_000;

/// One field set to one value, both as the user wrote them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Override {
    /// Dotted path of the scenario field.
    pub field: String,
    /// Its value as YAML text.
    pub value: String,
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.field, self.value)
    }
}

/// One configuration of the sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its place in the grid's order.
    pub index: usize,
    /// What it sets, in the order of the factors.
    pub overrides: Vec<Override>,
}

/// A list of alternatives, each a set of overrides.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Factor {
    /// Where it was given: `--vary pools.agg.workers`, `sweep.grid.pools.agg.workers`.
    place: String,
    entries: Vec<Vec<Override>>,
    /// Fields that some entry sets.
    fields: BTreeSet<String>,
}

/// The product of all factors. Without a factor it holds one point that overrides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Space {
    factors: Vec<Factor>,
}

impl Space {
    /// Adds an axis as written on a command line: `pools.agg.workers=1,2,4`. See [`values`] for ranges.
    ///
    /// # Errors
    /// No `=`, or values that cannot be read.
    pub fn vary(&mut self, text: &str) -> Result<(), SpaceError> {
        let at = |place: &str, kind| SpaceError {
            place: place.to_owned(),
            kind,
        };
        let Some((field, list)) = text
            .split_once('=')
            .map(|(field, list)| (field.trim(), list))
        else {
            return Err(at(
                "--vary",
                SpaceErrorKind::NotAnAxis {
                    found: text.to_owned(),
                },
            ));
        };
        if field.is_empty() {
            return Err(at(
                "--vary",
                SpaceErrorKind::NotAnAxis {
                    found: text.to_owned(),
                },
            ));
        }
        let place = format!("--vary {field}");
        let values = values::parse(list).map_err(|error| at(&place, error.into()))?;
        self.axis(&place, field, values);
        Ok(())
    }

    /// Adds an axis.
    pub fn axis(&mut self, place: &str, field: &str, values: Vec<String>) {
        let entries = values
            .into_iter()
            .map(|value| {
                vec![Override {
                    field: field.to_owned(),
                    value,
                }]
            })
            .collect();
        self.factors.push(Factor::new(place, entries));
    }

    /// Adds axes that advance together: the n-th entry sets each field to its n-th value.
    ///
    /// # Errors
    /// Axes of different lengths.
    pub fn zip(&mut self, place: &str, axes: Vec<(String, Vec<String>)>) -> Result<(), SpaceError> {
        let Some((first, length)) = axes
            .first()
            .map(|(field, values)| (field.clone(), values.len()))
        else {
            return Ok(());
        };
        if let Some((field, values)) = axes.iter().find(|(_, values)| values.len() != length) {
            let (field, found) = (field.clone(), values.len());
            let kind = SpaceErrorKind::UnequalZip {
                field,
                found,
                first,
                expected: length,
            };
            return Err(SpaceError {
                place: place.to_owned(),
                kind,
            });
        }
        let entry = |at: usize| -> Vec<Override> {
            let values = axes
                .iter()
                .map(|(field, values)| (field.clone(), values[at].clone()));
            values
                .map(|(field, value)| Override { field, value })
                .collect()
        };
        self.list(place, (0..length).map(entry).collect());
        Ok(())
    }

    /// Adds a list of configurations.
    pub fn list(&mut self, place: &str, entries: Vec<Vec<Override>>) {
        self.factors.push(Factor::new(place, entries));
    }

    /// Adds the factors of another space behind the own ones.
    pub fn append(&mut self, other: Space) {
        self.factors.extend(other.factors);
    }

    /// Fields that some point sets, in order of appearance: the configuration columns of the results.
    #[must_use]
    pub fn fields(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let all = self
            .factors
            .iter()
            .flat_map(|factor| factor.entries.iter().flatten());
        all.map(|set| set.field.as_str())
            .filter(|field| seen.insert(*field))
            .collect()
    }

    /// Number of points; `None` when it does not fit.
    #[must_use]
    pub fn len(&self) -> Option<usize> {
        self.factors.iter().try_fold(1usize, |product, factor| {
            product.checked_mul(factor.entries.len())
        })
    }

    /// True when some factor leaves no choice at all, so that there is no point.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// True when nothing varies.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.factors.is_empty()
    }

    /// Everything wrong with the space. `judge` says why the scenario has no such field, with the nearest one.
    #[must_use]
    pub fn problems(
        &self,
        max_points: usize,
        judge: &dyn Fn(&str) -> Option<String>,
    ) -> Vec<SpaceError> {
        let mut problems = Vec::new();
        let mut owner: BTreeMap<&str, &str> = BTreeMap::new();
        for factor in &self.factors {
            let fields = factor.check(&mut problems);
            for field in fields {
                let place = factor.place.as_str();
                if let Some(message) = judge(field) {
                    problems.push(factor.error(SpaceErrorKind::UnknownField { message }));
                } else if let Some(other) = owner.insert(field, place) {
                    let (field, other) = (field.to_owned(), other.to_owned());
                    problems.push(factor.error(SpaceErrorKind::SetTwice { field, other }));
                }
            }
        }
        if self.len().is_none_or(|points| points > max_points) {
            let points = self
                .len()
                .map_or("more than 10^18".to_owned(), |points| points.to_string());
            let kind = SpaceErrorKind::TooManyPoints {
                points,
                limit: max_points,
            };
            problems.push(SpaceError {
                place: "sweep".to_owned(),
                kind,
            });
        }
        problems
    }

    /// The point at an index below [`Space::len`].
    #[must_use]
    pub fn point(&self, index: usize) -> Point {
        let mut rest = index;
        let mut chosen = Vec::with_capacity(self.factors.len());
        for factor in self.factors.iter().rev() {
            chosen.push(&factor.entries[rest % factor.entries.len()]);
            rest /= factor.entries.len();
        }
        assert!(
            rest == 0,
            "the index of a point is below the number of points"
        );
        Point {
            index,
            overrides: chosen.into_iter().rev().flatten().cloned().collect(),
        }
    }

    /// Where the values of a field were given.
    #[must_use]
    pub fn place_of(&self, field: &str) -> Option<&str> {
        let sets = |factor: &&Factor| factor.fields.contains(field);
        let factor = self.factors.iter().find(sets)?;
        Some(&factor.place)
    }

    /// The points that differ from the one at `index` in at most one factor, in order: every entry of every factor occurs
    /// in one of them, and they are as many as the entries and not as their product.
    #[must_use]
    pub fn around(&self, index: usize) -> Vec<Point> {
        let mut indices = BTreeSet::from([index]);
        let mut stride = 1;
        for factor in self.factors.iter().rev() {
            let own = index / stride % factor.entries.len();
            let base = index - own * stride;
            indices.extend((0..factor.entries.len()).map(|entry| base + entry * stride));
            stride *= factor.entries.len();
        }
        indices.into_iter().map(|index| self.point(index)).collect()
    }

    /// All points in order. Call [`Space::problems`] first.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        let count = self.len().expect("the number of points was checked");
        (0..count).map(|index| self.point(index))
    }
}

impl Factor {
    fn new(place: &str, entries: Vec<Vec<Override>>) -> Factor {
        let fields = entries.iter().flatten().map(|set| set.field.clone());
        Factor {
            place: place.to_owned(),
            fields: fields.collect(),
            entries,
        }
    }

    fn error(&self, kind: SpaceErrorKind) -> SpaceError {
        SpaceError {
            place: self.place.clone(),
            kind,
        }
    }

    /// Reports what is wrong within the factor; returns its fields in order of appearance.
    fn check<'a>(&'a self, problems: &mut Vec<SpaceError>) -> Vec<&'a str> {
        if self.entries.is_empty() {
            problems.push(self.error(SpaceErrorKind::NoValues));
        }
        let (mut fields, mut seen_fields, mut seen) =
            (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for entry in &self.entries {
            let mut sorted: Vec<&Override> = entry.iter().collect();
            sorted.sort();
            for pair in sorted
                .windows(2)
                .filter(|pair| pair[0].field == pair[1].field)
            {
                let (field, other) = (pair[0].field.clone(), "the same entry".to_owned());
                problems.push(self.error(SpaceErrorKind::SetTwice { field, other }));
            }
            if !seen.insert(sorted) {
                problems.push(self.error(SpaceErrorKind::Repeated {
                    entry: describe(entry),
                }));
            }
            fields.extend(
                entry
                    .iter()
                    .map(|set| set.field.as_str())
                    .filter(|field| seen_fields.insert(*field)),
            );
        }
        fields
    }
}

/// The last part of each field's name, or as many parts as it takes to tell it from the others and to be understood.
#[must_use]
pub fn short_names(fields: &[&str]) -> Vec<String> {
    const NEEDS_MORE: [&str; 4] = ["mode", "source", "path", "version"];
    fn tail(name: &str, parts: usize) -> &str {
        let cut = name.rmatch_indices('.').nth(parts - 1);
        cut.map_or(name, |(at, _)| &name[at + 1..])
    }
    let is_unique = |name: &str, parts: usize| {
        fields
            .iter()
            .filter(|other| tail(other, parts) == tail(name, parts))
            .count()
            == 1
    };
    let short = |field: &&str| {
        let most = field.split('.').count();
        let is_clear =
            |parts: &usize| is_unique(field, *parts) && !NEEDS_MORE.contains(&tail(field, *parts));
        tail(field, (1..=most).find(is_clear).unwrap_or(most)).to_owned()
    };
    fields.iter().map(short).collect()
}

/// `pools.agg.workers=4, router.mode=kv`, or `the scenario as it is`.
#[must_use]
pub fn describe(overrides: &[Override]) -> String {
    if overrides.is_empty() {
        return "the scenario as it is".to_owned();
    }
    let parts: Vec<String> = overrides.iter().map(Override::to_string).collect();
    parts.join(", ")
}

/// `workers 4, router.mode kv`, or `the scenario as it is`.
#[must_use]
pub fn brief(overrides: &[Override]) -> String {
    if overrides.is_empty() {
        return describe(overrides);
    }
    brief_parts(overrides).join(", ")
}

/// `workers 4`, `router.mode kv`: each field under a short name with its value.
#[must_use]
pub fn brief_parts(overrides: &[Override]) -> Vec<String> {
    let fields: Vec<&str> = overrides.iter().map(|set| set.field.as_str()).collect();
    let names = short_names(&fields).into_iter();
    names
        .zip(overrides)
        .map(|(name, set)| format!("{name} {}", set.value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(axes: &[&str]) -> Space {
        let mut space = Space::default();
        for axis in axes {
            space.vary(axis).unwrap();
        }
        space
    }

    fn texts(space: &Space) -> Vec<String> {
        space
            .points()
            .map(|point| format!("{}: {}", point.index, describe(&point.overrides)))
            .collect()
    }

    fn problems(space: &Space) -> Vec<String> {
        let judge = |field: &str| {
            field
                .starts_with("typo")
                .then(|| format!("unknown field `{field}`, did you mean `type`?"))
        };
        space
            .problems(10, &judge)
            .iter()
            .map(SpaceError::to_string)
            .collect()
    }

    #[test]
    fn the_last_axis_varies_fastest() {
        let space = space(&["a=1,2", "b=x,y,z"]);
        let expected = [
            "0: a=1, b=x",
            "1: a=1, b=y",
            "2: a=1, b=z",
            "3: a=2, b=x",
            "4: a=2, b=y",
            "5: a=2, b=z",
        ];
        assert_eq!(texts(&space), expected);
        assert_eq!(space.fields(), ["a", "b"]);
        assert!(problems(&space).is_empty());
    }

    #[test]
    fn names_are_as_short_as_can_be_understood() {
        let names = short_names(&[
            "pools.agg.workers",
            "pools.p.workers",
            "engine.block_size",
            "router.mode",
            "gpus",
        ]);
        assert_eq!(
            names,
            [
                "agg.workers",
                "p.workers",
                "block_size",
                "router.mode",
                "gpus"
            ]
        );
        assert_eq!(short_names(&["mode", "a.mode"]), ["mode", "a.mode"]);
    }

    #[test]
    fn zips_and_lists_are_factors_like_axes() {
        let mut space = space(&["a=1,2"]);
        let column =
            |name: &str, values: [&str; 2]| (name.to_owned(), values.map(str::to_owned).to_vec());
        space
            .zip(
                "sweep.zip",
                vec![column("b", ["3", "4"]), column("c", ["5", "6"])],
            )
            .unwrap();
        assert_eq!(
            texts(&space),
            [
                "0: a=1, b=3, c=5",
                "1: a=1, b=4, c=6",
                "2: a=2, b=3, c=5",
                "3: a=2, b=4, c=6"
            ]
        );
        let set = |field: &str, value: &str| Override {
            field: field.to_owned(),
            value: value.to_owned(),
        };
        let mut list = Space::default();
        list.list(
            "sweep.list",
            vec![
                vec![set("a", "1")],
                vec![],
                vec![set("a", "2"), set("b", "1")],
            ],
        );
        assert_eq!(
            texts(&list),
            ["0: a=1", "1: the scenario as it is", "2: a=2, b=1"]
        );
        assert_eq!(list.fields(), ["a", "b"]);
    }

    #[test]
    fn every_value_occurs_around_a_point() {
        let space = space(&["a=1,2,3", "b=x,y", "c=5,6"]);
        let indices = |index| -> Vec<usize> {
            let around = space.around(index);
            around.iter().map(|point| point.index).collect()
        };
        // From (2, y, 5) at 6: the others of c, of b, of a.
        assert_eq!(indices(6), [2, 4, 6, 7, 10]);
        assert_eq!(indices(0), [0, 1, 2, 4, 8]);
        assert_eq!(Space::default().around(0).len(), 1);
        assert_eq!(space.place_of("b"), Some("--vary b"));
        assert_eq!(space.place_of("d"), None);
    }

    #[test]
    fn without_factors_there_is_the_scenario_itself() {
        assert_eq!(texts(&Space::default()), ["0: the scenario as it is"]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut space = space(&["a=1,2,1", "typo=1", "a=3", "b=1..4"]);
        space.axis("sweep.grid.c", "c", Vec::new());
        let set = |field: &str| Override {
            field: field.to_owned(),
            value: "1".to_owned(),
        };
        space.list(
            "sweep.list",
            vec![
                vec![set("d"), set("e")],
                vec![set("e"), set("d")],
                vec![set("f"), set("f")],
            ],
        );
        assert_eq!(
            problems(&space),
            [
                "--vary a: `a=1` is given twice, expected every value once: remove one",
                "--vary typo: unknown field `typo`, did you mean `type`?",
                "--vary a: `a` is already set by --vary a, expected one place: remove one",
                "sweep.grid.c: found no values, expected at least one",
                "sweep.list: `e=1, d=1` is given twice, expected every value once: remove one",
                "sweep.list: `f` is already set by the same entry, expected one place: remove one",
            ]
        );
    }

    #[test]
    fn the_number_of_points_is_limited_even_when_it_overflows() {
        let axis = |name: &str| format!("{name}=1..100000");
        let big = space(
            &["a", "b", "c", "d"]
                .map(axis)
                .each_ref()
                .map(String::as_str),
        );
        assert_eq!(big.len(), None);
        assert!(
            problems(&big)[0]
                .starts_with("sweep: found more than 10^18 points, expected at most 10:")
        );
        assert!(problems(&space(&["a=1..11"]))[0].starts_with("sweep: found 11 points"));
        assert!(problems(&space(&["a=1..10"])).is_empty());
    }

    #[test]
    fn what_is_no_axis_says_what_is_expected() {
        let mut space = Space::default();
        for text in ["workers", "=1,2"] {
            assert!(
                space
                    .vary(text)
                    .unwrap_err()
                    .to_string()
                    .starts_with("--vary: found `"),
                "{text}"
            );
        }
        let error = space.vary("pools.agg.workers=4..1").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--vary pools.agg.workers: found `4..1`"),
            "{error}"
        );
    }
}
