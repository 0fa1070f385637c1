//! serde over a tree of values: an error knows the steps to the value it is about.

use super::super::tree::{Node, Value};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;

/// What cannot be read, and where.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Steps from the root, the last one first.
    pub(super) steps: Vec<Step>,
    pub(super) fault: Fault,
}

/// One step into a tree.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Into a section.
    Name(String),
    /// Into a list.
    Index(usize),
}

impl Step {
    pub(super) fn after(&self, path: &str) -> String {
        match self {
            Step::Name(name) => format!("{path}.{name}"),
            Step::Index(index) => format!("{path}[{index}]"),
        }
    }
}

/// Why a value cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// A field nobody knows.
    Unknown {
        /// Its name.
        name: String,
        /// Those that are known.
        known: &'static [&'static str],
    },
    /// A field that must be there is not.
    Missing(&'static str),
    /// None of these choices.
    NotAChoice(&'static [&'static str]),
    /// Something else; what was expected.
    Other(String),
}

impl Wrong {
    fn here(fault: Fault) -> Wrong {
        Wrong {
            steps: Vec::new(),
            fault,
        }
    }

    fn behind(mut self, step: Step) -> Wrong {
        self.steps.push(step);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Wrong {
        Wrong::here(Fault::Other(message.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::here(Fault::Other(in_words(&expected.to_string())))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::here(Fault::Other(in_words(&expected.to_string())))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Wrong {
        Wrong::here(Fault::Other(in_words(&expected.to_string())))
    }

    fn unknown_variant(_: &str, choices: &'static [&'static str]) -> Wrong {
        Wrong::here(Fault::NotAChoice(choices))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Wrong {
        Wrong::here(Fault::Unknown {
            name: name.to_owned(),
            known,
        })
    }

    fn missing_field(name: &'static str) -> Wrong {
        Wrong::here(Fault::Missing(name))
    }
}

/// The kinds that serde names after Rust's types.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => {
            "a whole number from 0 on, not too large".to_owned()
        }
        "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        tuple if tuple.starts_with("a tuple of size 2") => {
            "a pair of numbers, as in [0.5, 100]".to_owned()
        }
        other if other.starts_with("struct") => "a section of named fields".to_owned(),
        other => other.to_owned(),
    }
}

/// How a blanked value is written; no file can hold it, control characters being refused there.
const BLANK: &str = "\0blank";

/// Takes a value out.
pub(super) fn blank(node: &mut Node) {
    node.value = Value::Null;
    node.raw = BLANK.to_owned();
}

/// True for a value that was taken out.
pub(super) fn is_blank(node: &Node) -> bool {
    node.is_null() && node.raw == BLANK
}

/// A value to be read.
#[derive(Clone, Copy)]
pub(super) struct At<'de>(pub(super) &'de Node);

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Flag(flag) => visitor.visit_bool(*flag),
            Value::Number(number) if number.fract() == 0.0 && (0.0..9e15).contains(number) => {
                visitor.visit_u64(*number as u64)
            }
            Value::Number(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries, next: 0 }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    /// `choice` alone, or `{choice: what belongs to it}`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        choices: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.0.value {
            Value::Text(name) => visitor.visit_enum(Choice {
                name,
                content: None,
            }),
            Value::Map(entries)
                if entries.len() == 1 && choices.contains(&entries[0].name.as_str()) =>
            {
                visitor.visit_enum(Choice {
                    name: &entries[0].name,
                    content: Some(&entries[0].node),
                })
            }
            _ => Err(Wrong::here(Fault::NotAChoice(choices))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// The items of a list, blanks left out.
struct Items<'de> {
    items: &'de [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        while self.items.get(self.next).is_some_and(is_blank) {
            self.next += 1;
        }
        let Some(item) = self.items.get(self.next) else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(At(item))
            .map(Some)
            .map_err(|wrong| wrong.behind(Step::Index(index)))
    }
}

/// The fields of a section, blanks left out.
struct Entries<'de> {
    entries: &'de [super::Entry],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        while self
            .entries
            .get(self.next)
            .is_some_and(|entry| is_blank(&entry.node))
        {
            self.next += 1;
        }
        let Some(entry) = self.entries.get(self.next) else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Wrong> = entry.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let entry = &self.entries[self.next];
        self.next += 1;
        seed.deserialize(At(&entry.node))
            .map_err(|wrong| wrong.behind(Step::Name(entry.name.clone())))
    }
}

/// A choice, with what belongs to it.
struct Choice<'de> {
    name: &'de str,
    content: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Wrong> {
        let name: StrDeserializer<'_, Wrong> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> Choice<'de> {
    fn content(self, expected: &str) -> Result<(At<'de>, Step), Wrong> {
        let step = Step::Name(self.name.to_owned());
        match self.content {
            Some(node) => Ok((At(node), step)),
            None => Err(Wrong::here(Fault::Other(format!(
                "`{{{}: {expected}}}`",
                self.name
            )))),
        }
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Wrong::here(Fault::Other(format!("`{}` alone", self.name)))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Wrong> {
        let (at, step) = self.content("value")?;
        seed.deserialize(at).map_err(|wrong| wrong.behind(step))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        let (at, step) = self.content("[values]")?;
        at.deserialize_any(visitor)
            .map_err(|wrong| wrong.behind(step))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let (at, step) = self.content(&format!("{{{}: ...}}", fields.join(": ..., ")))?;
        at.deserialize_any(visitor)
            .map_err(|wrong| wrong.behind(step))
    }
}
