//! `workload`: a trace or the generator, what requests say about themselves, and how they are sent.

use super::section::Section;
use super::{annotations, beside, synth};
use ::engine::Span;
use std::path::Path;
use sweeps::scenario::{Load, Source, SynthSource, TraceSource, WorkloadSpec};
use traces::Format;

/// Most seconds of a run: 200 days.
const MAX_S: f64 = 200.0 * 86_400.0;

/// Reads the section. `None` after a problem.
pub fn read(section: &Section<'_>, folder: &Path) -> Option<WorkloadSpec> {
    let load = load(&section.section("load"));
    let source = match (section.has("trace"), section.has("synth")) {
        (true, true) => {
            section.conflict(
                "synth",
                "a generator beside a trace",
                "one of the two",
                "remove one",
            );
            trace(&section.section("trace"), folder);
            synthetic(section);
            None
        }
        (true, false) => trace(&section.section("trace"), folder).map(Source::Trace),
        (false, true) => synthetic(section),
        (false, false) => {
            let hint = "for example `trace: {path: trace.jsonl}` or `synth: {preset: quick}`";
            section.mistake(
                "trace",
                "neither a trace nor a generator",
                "one of trace and synth",
                hint,
            );
            None
        }
    };
    let annotations = annotations::classes(section);
    section.finish();
    Some(WorkloadSpec {
        source: source?,
        annotations: annotations?,
        workers: None,
        load,
    })
}

fn trace(section: &Section<'_>, folder: &Path) -> Option<TraceSource> {
    let formats = Format::ALL.map(|format| (format.name(), format));
    let path = section
        .text("path")
        .map(|(name, field)| beside(folder, &name, &field.node.place));
    if !section.has("path") {
        section.mistake(
            "path",
            "nothing",
            "the path of a trace file",
            "for example `path: trace.jsonl`",
        );
    }
    let start_s = section.number("start_s", 0.0..=MAX_S);
    let end_s = section.number("end_s", 0.0..=MAX_S);
    if let (Some(start_s), Some(end_s)) = (start_s, end_s)
        && end_s <= start_s
    {
        section.conflict(
            "end_s",
            end_s.to_string(),
            format!("later than start_s, {start_s}"),
            "",
        );
    }
    let trace = TraceSource {
        path: path.clone().unwrap_or_default(),
        format: section.choice("format", &formats),
        block_size: section.whole32("block_size", 1..=1 << 20),
        is_strict: section.flag("strict").unwrap_or(false),
        start: start_s.map(Span::from_s),
        end: end_s.map(Span::from_s),
        fraction: section.number("fraction", f64::MIN_POSITIVE..=1.0),
        limit: section.whole32("limit", 1..=u32::MAX >> 1),
    };
    section.finish();
    path.map(|_| trace)
}

fn synthetic(section: &Section<'_>) -> Option<Source> {
    let field = section.field("synth")?;
    let own = section.section("synth");
    let reuse = own.number("reuse", 0.0..=0.99);
    let preset = own.text("preset");
    let spec = synth::read(&field, preset, section.log())?;
    Some(Source::Synth(SynthSource { spec, reuse }))
}

fn load(section: &Section<'_>) -> Load {
    let default = Load::default();
    let load = Load {
        arrival_speedup_ratio: section
            .number("arrival_speedup_ratio", 1e-6..=1e6)
            .unwrap_or(default.arrival_speedup_ratio),
        concurrency: section.whole32("concurrency", 1..=10_000_000),
        warmup_requests: section
            .whole32("warmup_requests", 0..=u32::MAX >> 1)
            .unwrap_or(default.warmup_requests),
        duration: section
            .number("duration_s", f64::MIN_POSITIVE..=MAX_S)
            .map(Span::from_s),
    };
    if load.concurrency.is_some() && section.has("arrival_speedup_ratio") {
        let found = "a speed-up of arrivals in a closed loop, which ignores arrival times";
        section.conflict(
            "arrival_speedup_ratio",
            found,
            "one of concurrency and arrival_speedup_ratio",
            "remove one",
        );
    }
    section.finish();
    load
}
