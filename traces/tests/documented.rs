//! What `docs/trace-formats.md` shows can be read as it stands there.

use traces::{Format, ReadOptions, parse};

const PAGE: &str = include_str!("../../docs/trace-formats.md");

/// The part of the page about a format.
fn section(name: &str) -> &str {
    let begin = PAGE
        .find(&format!("\n## {name}\n"))
        .unwrap_or_else(|| panic!("no section on {name}"));
    let rest = &PAGE[begin + 1..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

#[test]
fn every_example_is_a_good_trace() {
    for format in Format::ALL {
        let examples: Vec<&str> = section(format.name())
            .split("```")
            .skip(1)
            .step_by(2)
            .collect();
        assert_eq!(
            examples.len(),
            usize::from(format != Format::MooncakeDelta),
            "{format}"
        );
        for example in examples {
            let (_language, text) = example.split_once('\n').expect("a block has lines");
            let loaded = parse(text.as_bytes(), format.name(), &ReadOptions::default());
            let loaded = loaded.unwrap_or_else(|error| panic!("{format}: {error}"));
            assert_eq!(loaded.format, format);
            let lines = text.lines().count();
            let other = match format {
                Format::AgenticMooncake | Format::Azure | Format::BurstGpt | Format::Csv => {
                    lines - 1
                }
                Format::ShareGpt => lines + 1, // the second line is a session of two calls
                _ => lines,
            };
            assert_eq!(loaded.trace.rows.len(), other, "{format}");
        }
    }
}

#[test]
fn every_column_name_is_understood() {
    let names = |row: &str| -> Vec<&str> {
        let line = section("csv")
            .lines()
            .find(|line| line.starts_with(&format!("| {row} |")));
        line.expect("the row is there")
            .split('`')
            .skip(1)
            .step_by(2)
            .collect()
    };
    let (arrivals, inputs, outputs) = (
        names("arrival"),
        names("prompt tokens"),
        names("answer tokens"),
    );
    assert_eq!((arrivals.len(), inputs.len(), outputs.len()), (11, 7, 7));
    let header =
        |arrival: &str, input: &str, output: &str| format!("{arrival},{input},{output}\n1,2,3\n");
    let texts = (arrivals.iter().map(|name| header(name, "input", "output")))
        .chain(
            inputs
                .iter()
                .map(|name| header("arrival_s", name, "output")),
        )
        .chain(
            outputs
                .iter()
                .map(|name| header("arrival_s", "input", name)),
        );
    for text in texts {
        let options = ReadOptions {
            format: Some(Format::Csv),
            is_strict: true,
            block_size: None,
        };
        let row = parse(text.as_bytes(), "x", &options)
            .unwrap_or_else(|error| panic!("{error}"))
            .trace
            .rows[0];
        assert_eq!((row.input_tokens, row.output_tokens), (2, 3), "{text}");
    }
}
