//! A row of named numbers in a fixed order, as JSON to the last bit.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Name of a metric; borrowed for all that a [`Summary`] holds.
pub type Name = Cow<'static, str>;

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A measured quantity, finite.
    Real(f64),
    /// The run has no such number (no SLA, no request that finished).
    Missing,
}

impl Value {
    /// As a number, if there is one.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Value::Count(count) => Some(count as f64),
            Value::Real(real) => Some(real),
            Value::Missing => None,
        }
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Value {
        Value::Count(count)
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Value {
        if real.is_finite() {
            Value::Real(real)
        } else {
            Value::Missing
        }
    }
}

/// The metrics of one run in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    cells: Vec<(Name, Value)>,
}

impl Row {
    /// A row of the given cells; names must differ.
    #[must_use]
    pub fn new(cells: Vec<(Name, Value)>) -> Row {
        Row { cells }
    }

    /// The cells in order.
    #[must_use]
    pub fn cells(&self) -> &[(Name, Value)] {
        &self.cells
    }

    /// The value of a metric; [`Value::Missing`] when the row has no such metric.
    #[must_use]
    pub fn get(&self, name: &str) -> Value {
        self.cells
            .iter()
            .find(|(cell, _)| cell == name)
            .map_or(Value::Missing, |(_, value)| *value)
    }

    /// The value of a metric as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name).number()
    }

    /// Adds a metric behind the others; its name must be new.
    pub fn push(&mut self, name: impl Into<Name>, value: impl Into<Value>) {
        self.cells.push((name.into(), value.into()));
    }
}

/// A JSON object in the row's order.
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.cells.len()))?;
        for (name, value) in &self.cells {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        struct Cells;
        impl<'de> Visitor<'de> for Cells {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metric names and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut cells = Vec::with_capacity(96);
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    cells.push((Name::Owned(name), value));
                }
                Ok(Row { cells })
            }
        }
        deserializer.deserialize_map(Cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_gives_back_the_row_to_the_last_bit() {
        let mut cells = Vec::new();
        let mut bits = 0x3ff0_0000_0000_0001u64;
        for index in 0..2000 {
            cells.push((
                Name::Owned(format!("x{index}")),
                Value::from(f64::from_bits(bits)),
            ));
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
        }
        cells.push(("count".into(), Value::Count(u64::MAX)));
        cells.push(("whole".into(), Value::Real(5.0)));
        cells.push(("none".into(), Value::Missing));
        let row = Row::new(cells);
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
    }
}
