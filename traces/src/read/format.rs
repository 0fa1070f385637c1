//! The formats that can be read, and how a file tells which one it has.
//!
//! The first line decides. A JSON object is known by keys that only one format has; a header by its columns. When no
//! format fits, or more than one, that is an error which lists the candidates, and the caller has to name one.

use std::fmt;
use std::str::FromStr;

use super::check::excerpt;
use super::collect::{Collector, Spot};
use super::columns::{self, Columns};
use super::csv::{self, Csv};
use super::json::Object;
use super::{RowReader, agentic, bailian, dynamo, mooncake, sharegpt};

/// A trace format; see `docs/trace-formats.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Mooncake JSONL with Dynamo's additions.
    Mooncake,
    /// The same, but later turns carry only their new tokens. Never detected: it looks like [`Format::Mooncake`].
    MooncakeDelta,
    /// Dynamo's agentic Mooncake, version 2 or flat.
    AgenticMooncake,
    /// Dynamo's request trace, version 1.
    Dynamo,
    /// Qwen-Bailian JSONL.
    Bailian,
    /// ShareGPT-style JSONL with token ids, as LLMServingSim has it.
    ShareGpt,
    /// Azure LLM inference CSV.
    Azure,
    /// BurstGPT CSV.
    BurstGpt,
    /// Plain CSV: arrival, prompt tokens, answer tokens.
    Csv,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 9] = [
        Format::Mooncake,
        Format::MooncakeDelta,
        Format::AgenticMooncake,
        Format::Dynamo,
        Format::Bailian,
        Format::ShareGpt,
        Format::Azure,
        Format::BurstGpt,
        Format::Csv,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Mooncake => "mooncake",
            Format::MooncakeDelta => "mooncake-delta",
            Format::AgenticMooncake => "agentic-mooncake",
            Format::Dynamo => "dynamo",
            Format::Bailian => "bailian",
            Format::ShareGpt => "sharegpt",
            Format::Azure => "azure",
            Format::BurstGpt => "burstgpt",
            Format::Csv => "csv",
        }
    }

    /// Tokens per content block where the file does not say.
    #[must_use]
    pub const fn default_block_size(self) -> u32 {
        match self {
            Format::Bailian => 16,
            _ => 512,
        }
    }

    pub(super) fn reader(self, block_size: Option<u32>) -> Box<dyn RowReader> {
        match self {
            Format::Mooncake => Box::new(mooncake::Mooncake::new(false)),
            Format::MooncakeDelta => Box::new(mooncake::Mooncake::new(true)),
            Format::AgenticMooncake => Box::new(agentic::Agentic::new(block_size)),
            Format::Dynamo => Box::new(dynamo::Dynamo::new(block_size)),
            Format::Bailian => Box::new(bailian::Bailian::default()),
            Format::ShareGpt => Box::new(sharegpt::ShareGpt),
            Format::Azure => Box::new(Csv::new(&columns::AZURE)),
            Format::BurstGpt => Box::new(Csv::new(&columns::BURST_GPT)),
            Format::Csv => Box::new(Csv::new(&columns::PLAIN)),
        }
    }

    /// The columns of a format that has a header.
    fn columns(self) -> Option<&'static Columns> {
        match self {
            Format::Azure => Some(&columns::AZURE),
            Format::BurstGpt => Some(&columns::BURST_GPT),
            Format::Csv => Some(&columns::PLAIN),
            _ => None,
        }
    }

    /// Whether an object with these keys is a line of the format.
    fn is_line(self, object: &Object<'_>) -> bool {
        let has = |names: &[&str]| names.iter().any(|name| object.has(name));
        match self {
            Format::Mooncake => {
                has(&["output_length", "output_tokens"])
                    && (has(&["hash_ids", "input_length", "input_tokens"]))
                    && !has(&[
                        "chat_id",
                        "not_before_ms",
                        "wait_for",
                        "tool_wait_ms",
                        "branches",
                        "dependencies",
                    ])
            }
            Format::AgenticMooncake => has(&[
                "hash_id_scope",
                "not_before_ms",
                "wait_for",
                "tool_wait_ms",
                "branches",
                "dependencies",
            ]),
            Format::Dynamo => has(&["event_type", "event"]),
            Format::Bailian => has(&["chat_id"]),
            Format::ShareGpt => has(&["input_toks", "sub_requests"]),
            Format::MooncakeDelta | Format::Azure | Format::BurstGpt | Format::Csv => false,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let format = Format::ALL.into_iter().find(|format| format.name() == name);
        format.ok_or_else(|| {
            format!(
                "no trace format is called `{name}`; there are {}",
                names(&Format::ALL)
            )
        })
    }
}

fn names(formats: &[Format]) -> String {
    formats
        .iter()
        .map(|format| format.name())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The format of a file whose first line is `line`; reports what cannot be told.
pub(super) fn detect(sink: &mut Collector, line: &[u8], number: u32) -> Option<Format> {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let fitting: Vec<Format> = match Object::parse(text) {
        Ok(object) => Format::ALL
            .into_iter()
            .filter(|format| format.is_line(&object))
            .collect(),
        Err(_) => {
            let titles = csv::split(text);
            let fits =
                |format: &Format| format.columns().is_some_and(|columns| columns.fit(&titles));
            Format::ALL.into_iter().filter(fits).collect()
        }
    };
    if let [format] = fitting[..] {
        return Some(format);
    }
    let spot = Spot {
        line: number,
        field: "",
    };
    let expected = format!(
        "the first line of one of the formats {}",
        names(&Format::ALL)
    );
    if fitting.is_empty() {
        let suggestion = if text.starts_with('[') {
            "write one object per line (jq -c '.[]' does that)"
        } else if text.starts_with('{') {
            "name the format with --format to see what is missing; docs/trace-formats.md describes them"
        } else {
            "check that this is a trace; docs/trace-formats.md describes the formats"
        };
        sink.problem(spot, excerpt(line), expected, suggestion);
    } else {
        let found = format!("a line that could be {}", names(&fitting));
        sink.problem(
            spot,
            found,
            "a line of one format only",
            "name the format with --format",
        );
    }
    None
}
