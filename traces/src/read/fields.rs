//! The fields of one JSON line, taken by name and checked on the way.
//!
//! Every method reports what is wrong with its field and goes on, so that one pass over a row finds all its problems;
//! [`Fields::finish`] says at the end whether there was any.

use std::borrow::Cow;

use serde_json::error::Category;

use super::check::excerpt;
use super::collect::{Collector, Spot};
use super::json::{Object, Value};
use super::number::{self, Unit};

/// The fields of one object and where their problems go.
pub(super) struct Fields<'c, 'a> {
    pub(super) sink: &'c mut Collector,
    pub(super) line: u32,
    object: Object<'a>,
    is_good: bool,
}

impl<'c, 'a> Fields<'c, 'a> {
    /// Parses a line; reports one that is not a JSON object.
    pub(super) fn parse(sink: &'c mut Collector, bytes: &'a [u8], line: u32) -> Option<Self> {
        let spot = Spot { line, field: "" };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.valid_up_to();
                let found = format!("bytes {} at column {}", excerpt(&bytes[at..]), at + 1);
                sink.problem(
                    spot,
                    found,
                    "UTF-8 text",
                    "check that this is a trace, or convert it to UTF-8",
                );
                return None;
            }
        };
        match Object::parse(text) {
            Ok(object) => Some(Fields {
                sink,
                line,
                object,
                is_good: true,
            }),
            Err(error) => {
                report_syntax(sink, spot, text, &error);
                None
            }
        }
    }

    /// The fields of an object within the row. Hand the answer of its `finish` to [`Fields::noted_inside`].
    pub(super) fn inside(&mut self, value: Value<'a>) -> Option<Fields<'_, 'a>> {
        match value.as_object() {
            Some(object) => Some(Fields {
                sink: self.sink,
                line: self.line,
                object,
                is_good: true,
            }),
            None => {
                let found = excerpt(value.text.as_bytes());
                self.problem(
                    value.name,
                    found,
                    "an object",
                    "compare with docs/trace-formats.md",
                );
                None
            }
        }
    }

    /// Notes whether an object within the row is good.
    pub(super) fn noted_inside(&mut self, is_good: bool) -> bool {
        self.is_good &= is_good;
        is_good
    }

    fn spot(&self, field: &'static str) -> Spot {
        Spot {
            line: self.line,
            field,
        }
    }

    /// Reports a problem of this row.
    pub(super) fn problem(
        &mut self,
        field: &'static str,
        found: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
        suggestion: impl Into<Cow<'static, str>>,
    ) {
        self.is_good = false;
        let spot = self.spot(field);
        self.sink.problem(spot, found, expected, suggestion);
    }

    fn noted<T>(&mut self, value: Option<T>) -> Option<T> {
        self.is_good &= value.is_some();
        value
    }

    /// True when all fields are taken.
    pub(super) fn is_empty(&self) -> bool {
        self.object.left_over().next().is_none()
    }

    /// True when there is a field of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.object.has(name)
    }

    /// The value of a field that may be absent or null.
    pub(super) fn take(&mut self, names: &[&'static str]) -> Option<Value<'a>> {
        let (value, again) = self.object.take(names);
        if let (Some(value), Some(again)) = (value, again) {
            let found = if value.name == again {
                "it twice".to_owned()
            } else {
                format!("`{again}` too")
            };
            self.problem(value.name, found, "one value", "remove one of the two");
        }
        value
    }

    /// The value of a field that must be there.
    pub(super) fn take_needed(&mut self, names: &[&'static str]) -> Option<Value<'a>> {
        let value = self.take(names);
        if value.is_none() {
            self.missing(names);
        }
        value
    }

    /// Reports a field that is not there.
    pub(super) fn missing(&mut self, names: &[&'static str]) {
        self.problem(
            names[0],
            "nothing",
            "a value",
            "add it, or choose another --format",
        );
    }

    /// A number of tokens that must be there.
    pub(super) fn tokens_needed(&mut self, names: &[&'static str]) -> Option<u32> {
        let value = self.take_needed(names)?;
        let tokens = self.sink.tokens(self.spot(value.name), value.text);
        self.noted(tokens)
    }

    /// A time or span in nanoseconds, if there is one.
    pub(super) fn nanoseconds(&mut self, names: &[&'static str], unit: Unit) -> Option<u64> {
        let value = self.take(names)?;
        let ns = self
            .sink
            .nanoseconds(self.spot(value.name), value.text, unit);
        self.noted(ns)
    }

    /// A whole number of any size, if there is one; for ids and sizes.
    pub(super) fn whole(&mut self, names: &[&'static str]) -> Option<u64> {
        let value = self.take(names)?;
        let whole = number::count(value.text).ok();
        if whole.is_none() {
            let found = excerpt(value.text.as_bytes());
            self.problem(
                value.name,
                found,
                "a whole number, 0 or more",
                "repair or remove the row",
            );
        }
        whole
    }

    /// A name, if there is one.
    pub(super) fn name(&mut self, names: &[&'static str]) -> Option<Cow<'a, str>> {
        let value = self.take(names)?;
        self.name_of(value)
    }

    fn name_of(&mut self, value: Value<'a>) -> Option<Cow<'a, str>> {
        let name = value.as_name().filter(|name| !name.is_empty());
        if name.is_none() {
            let found = excerpt(value.text.as_bytes());
            self.problem(
                value.name,
                found,
                "a name",
                "write it as a string that is not empty",
            );
        }
        name
    }

    /// A name that must be there.
    pub(super) fn name_needed(&mut self, names: &[&'static str]) -> Option<Cow<'a, str>> {
        let value = self.take_needed(names)?;
        self.name_of(value)
    }

    /// Dynamo's priority, larger first, as vLLM's, smaller first.
    pub(super) fn dynamo_priority(&mut self, names: &[&'static str]) -> i32 {
        let Some(value) = self.take(names) else {
            return 0;
        };
        let priority = self.sink.priority(self.spot(value.name), value.text);
        self.noted(priority).unwrap_or(0).saturating_neg()
    }

    /// Replaces `ids` by a list of block ids. `None` when there is none, false when it has a problem.
    fn block_ids(&mut self, names: &[&'static str], ids: &mut Vec<u64>) -> Option<bool> {
        ids.clear();
        let value = self.take(names)?;
        let mut wrong = None;
        let is_list = value.each_item(|index, text| match number::count(text) {
            Ok(id) => ids.push(id),
            Err(_) => wrong = wrong.or(Some((index, text))),
        });
        if !is_list {
            self.problem(
                value.name,
                excerpt(value.text.as_bytes()),
                "a list of block ids",
                "write [1, 2, 3]",
            );
        } else if let Some((index, text)) = wrong {
            let found = format!("{} as item {index}", excerpt(text.as_bytes()));
            let expected = "block ids that are whole numbers from 0 to 18446744073709551615";
            self.problem(value.name, found, expected, "number the blocks");
        }
        Some(is_list && wrong.is_none())
    }

    /// The length of a prompt in whole or partial blocks, and whether its block ids are in `ids`. Without a length all
    /// blocks are full.
    pub(super) fn prompt(
        &mut self,
        lengths: &[&'static str],
        hashes: &[&'static str],
        ids: &mut Vec<u64>,
    ) -> (Option<u32>, bool) {
        let length = self.take(lengths);
        let hashes_are_good = self.block_ids(hashes, ids);
        let Some(value) = length else {
            if ids.is_empty() && hashes_are_good != Some(false) {
                self.missing(lengths);
            }
            let tokens = ids.len() as u64 * u64::from(self.sink.block_size());
            return (u32::try_from(tokens).ok(), hashes_are_good.is_some());
        };
        let tokens = self.sink.tokens(self.spot(value.name), value.text);
        if let (Some(tokens), Some(true)) = (tokens, hashes_are_good) {
            self.check_hash_count(hashes[0], tokens, ids.len());
        }
        (self.noted(tokens), hashes_are_good.is_some())
    }

    /// A list of vocabulary ids; `None` when there is none or it has a problem.
    pub(super) fn token_ids(&mut self, names: &[&'static str]) -> Option<Vec<u32>> {
        let value = self.take(names)?;
        let (mut ids, mut wrong) = (Vec::new(), None);
        let is_list = value.each_item(|index, text| match number::count(text).map(u32::try_from) {
            Ok(Ok(id)) => ids.push(id),
            _ => wrong = wrong.or(Some((index, text))),
        });
        if !is_list {
            self.problem(
                value.name,
                excerpt(value.text.as_bytes()),
                "a list of token ids",
                "write [1, 2, 3]",
            );
        } else if let Some((index, text)) = wrong {
            let found = format!("{} as item {index}", excerpt(text.as_bytes()));
            let expected = "token ids that are whole numbers from 0 to 4294967295";
            self.problem(value.name, found, expected, "tokenize the text again");
        }
        (is_list && wrong.is_none()).then_some(ids)
    }

    /// Whether there is one block id per block of `tokens` tokens; reports it where not.
    fn check_hash_count(&mut self, field: &'static str, tokens: u32, count: usize) {
        let block_size = self.sink.block_size();
        let blocks = tokens.div_ceil(block_size) as usize;
        if count != blocks {
            let expected = format!("{blocks} for {tokens} tokens in blocks of {block_size}");
            let fits = (0..20)
                .map(|power| 1 << power)
                .find(|&size| tokens.div_ceil(size) as usize == count);
            let suggestion = match fits {
                Some(size) => format!("check the trace's block size ({size} would fit this row)"),
                None => "check the trace's block size and the row's length".to_owned(),
            };
            self.problem(field, format!("{count} block ids"), expected, suggestion);
        }
    }

    /// Marks fields as known though nothing is made of them.
    pub(super) fn pass_over(&mut self, names: &[&str]) {
        self.object.pass_over(names);
    }

    /// Warns of fields that nobody took; true when the row had no problem.
    pub(super) fn finish(self) -> bool {
        for name in self.object.left_over() {
            self.sink.warn_of_key(self.line, name);
        }
        self.is_good
    }

    /// Like [`Fields::finish`], for objects of which the rest is of no interest.
    pub(super) fn finish_quietly(self) -> bool {
        self.is_good
    }
}

fn report_syntax(sink: &mut Collector, spot: Spot, text: &str, error: &serde_json::Error) {
    let at = text.floor_char_boundary(error.column().saturating_sub(1));
    let rest = &text[at..];
    let (found, suggestion) = if error.classify() == Category::Eof {
        (
            "a line that ends in the middle".to_owned(),
            "the file may be cut off: fetch it again, or remove the line",
        )
    } else {
        let found = format!("{} at column {}", excerpt(rest.as_bytes()), at + 1);
        let suggestion = if text.starts_with('[') {
            "write one object per line (jq -c '.[]' does that)"
        } else if rest.starts_with("NaN") || rest.starts_with("Inf") || rest.starts_with("-Inf") {
            "write finite numbers only"
        } else {
            "repair the line, or choose another --format"
        };
        (found, suggestion)
    };
    sink.problem(spot, found, "one JSON object per line", suggestion);
}
