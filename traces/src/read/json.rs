//! One JSON object of a line, as names and unread values.
//!
//! A reader takes the fields it knows by name; what is left over when it is done are the unknown ones. Values stay text
//! until they are taken, so numbers of any size and precision arrive unharmed, and a wrong value can be shown as it
//! stands in the file.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of an object in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Object<'a> {
    fields: Vec<Field<'a>>,
}

#[derive(Debug)]
struct Field<'a> {
    name: Cow<'a, str>,
    value: &'a RawValue,
    is_taken: bool,
}

impl<'a> Object<'a> {
    /// Parses `text`, all of it.
    pub(crate) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// True when there is a field of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }

    /// Takes the value of the field that has one of `names`; `null` counts as absent. Says which other field has one
    /// of the names too, if there is one.
    pub(crate) fn take(
        &mut self,
        names: &[&'static str],
    ) -> (Option<Value<'a>>, Option<&'static str>) {
        let (mut found, mut again) = (None, None);
        for field in &mut self.fields {
            let Some(&name) = names.iter().find(|&&name| field.name == name) else {
                continue;
            };
            field.is_taken = true;
            if field.value.get() == "null" {
                continue;
            }
            match found {
                None => {
                    found = Some(Value {
                        name,
                        text: field.value.get(),
                    })
                }
                Some(_) => again = Some(name),
            }
        }
        (found, again)
    }

    /// Marks fields as known though nothing is made of them.
    pub(crate) fn pass_over(&mut self, names: &[&str]) {
        for field in &mut self.fields {
            field.is_taken |= names.iter().any(|name| field.name == *name);
        }
    }

    /// Names and values as text, in the order of the file.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.fields
            .iter()
            .map(|field| (&*field.name, field.value.get()))
    }

    /// The names of fields that nobody took.
    pub(crate) fn left_over(&self) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .filter(|field| !field.is_taken)
            .map(|field| &*field.name)
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    /// The name under which it was asked for.
    pub(crate) name: &'static str,
    /// JSON text, known to be well-formed.
    pub(crate) text: &'a str,
}

impl<'a> Value<'a> {
    /// The value as a name: a string's content, or a number as it is written.
    pub(crate) fn as_name(&self) -> Option<Cow<'a, str>> {
        match self.text.as_bytes()[0] {
            b'"' => serde_json::from_str::<Text<'a>>(self.text)
                .ok()
                .map(|text| text.0),
            b'-' | b'0'..=b'9' => Some(Cow::Borrowed(self.text)),
            _ => None,
        }
    }

    /// The value as an object.
    pub(crate) fn as_object(&self) -> Option<Object<'a>> {
        self.text
            .starts_with('{')
            .then(|| Object::parse(self.text).ok())
            .flatten()
    }

    /// The value as a list of any values.
    pub(crate) fn as_list(&self) -> Option<Vec<Value<'a>>> {
        let list: Vec<&RawValue> = serde_json::from_str(self.text).ok()?;
        Some(
            list.into_iter()
                .map(|value| Value {
                    name: self.name,
                    text: value.get(),
                })
                .collect(),
        )
    }

    /// Calls `item` with each item of a list of numbers, as text, without building a list. False when the value is not
    /// a list; items that are not numbers are handed over like the others.
    pub(crate) fn each_item(&self, mut item: impl FnMut(usize, &'a str)) -> bool {
        let Some(inside) = self
            .text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
        else {
            return false;
        };
        if inside.contains(['[', '{', '"']) {
            let Some(items) = self.as_list() else {
                return false;
            };
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| item(index, value.text));
        } else if !inside.trim_ascii().is_empty() {
            inside
                .split(',')
                .enumerate()
                .for_each(|(index, text)| item(index, text.trim_ascii()));
        }
        true
    }
}

/// A string that borrows where the JSON text has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    fields.push(Field {
                        name,
                        value,
                        is_taken: false,
                    });
                }
                Ok(Object { fields })
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_by_any_of_their_names() {
        let mut object = Object::parse(
            r#"{"a": 1.50, "b":null, "x\u0031": "q\n", "c": [1, 2], "d": {"e": -0}}"#,
        )
        .unwrap();
        assert_eq!(
            object
                .take(&["z", "a"])
                .0
                .map(|value| (value.name, value.text)),
            Some(("a", "1.50"))
        );
        assert!(object.take(&["b"]).0.is_none());
        assert_eq!(
            object
                .take(&["x1"])
                .0
                .and_then(|value| value.as_name())
                .as_deref(),
            Some("q\n")
        );
        assert!(object.has("c") && !object.has("z"));
        object.pass_over(&["d"]);
        assert_eq!(object.left_over().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn a_field_that_is_there_twice_is_told() {
        let mut object = Object::parse(r#"{"isl": 1, "input": 2}"#).unwrap();
        let (value, again) = object.take(&["input", "isl"]);
        assert_eq!(
            (value.map(|value| value.name), again),
            (Some("isl"), Some("input"))
        );
    }

    #[test]
    fn items_of_a_list_keep_their_text() {
        let items = |text| {
            let mut found = Vec::new();
            let is_list = Value { name: "x", text }
                .each_item(|index, item| found.push((index, item.to_string())));
            is_list.then_some(found)
        };
        assert_eq!(items("[]"), Some(vec![]));
        assert_eq!(
            items("[ 1 , 2e3 ]"),
            Some(vec![(0, "1".into()), (1, "2e3".into())])
        );
        assert_eq!(
            items(r#"["a,b", 1]"#),
            Some(vec![(0, "\"a,b\"".into()), (1, "1".into())])
        );
        assert_eq!(items("7"), None);
    }
}
