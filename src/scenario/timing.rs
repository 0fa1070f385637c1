//! `timing`: where step times come from.

use super::beside;
use super::problem::Kind;
use super::section::Section;
use calibration::aic::Missing;
use calibration::tables::{Backend, Dtype};
use calibration::{
    CalibrationError, FittedProfile, HostTimes, Linear, MeasuredSpec, PolynomialSpec, RooflineSpec,
    TimingSpec,
};
use std::path::{Path, PathBuf};

/// The sources, and the fields of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Linear,
    Polynomial,
    Roofline,
    Measured,
    Fitted,
}

const SOURCES: [(&str, Source); 5] = [
    ("linear", Source::Linear),
    ("polynomial", Source::Polynomial),
    ("roofline", Source::Roofline),
    ("measured", Source::Measured),
    ("fitted", Source::Fitted),
];

const LINEAR: [&str; 3] = ["base_ns", "per_new_token_ns", "per_context_token_ns"];
const POLYNOMIAL: [&str; 2] = ["speedup_ratio", "decode_speedup_ratio"];
/// Fields of the measured tables alone: which, and the host times they do not hold.
const MEASURED: [&str; 9] = [
    "tables",
    "folder",
    "gemm",
    "missing",
    "step_us",
    "sequence_us",
    "prefill_step_us",
    "request_us",
    "prompt_token_us",
];
/// Fields of fits alone.
const FITTED: [&str; 1] = ["profile"];
const TABLES: [(&str, Backend); 3] = [
    ("vllm", Backend::Vllm),
    ("sglang", Backend::Sglang),
    ("trtllm", Backend::Trtllm),
];
const GEMM: [(&str, Dtype); 4] = [
    ("bfloat16", Dtype::Bfloat16),
    ("fp8", Dtype::Fp8),
    ("fp8_static", Dtype::Fp8Static),
    ("fp8_block", Dtype::Fp8Block),
];
const MISSING: [(&str, Missing); 2] =
    [("refuse", Missing::Refuse), ("roofline", Missing::Estimate)];
const ROOFLINE: [&str; 14] = [
    "gemm_bf16_efficiency",
    "gemm_fp8_efficiency",
    "gemm_memory_efficiency",
    "prefill_attention_efficiency",
    "decode_attention_efficiency",
    "elementwise_efficiency",
    "link_efficiency",
    "kernel_us",
    "prefill_attention_us",
    "decode_attention_us",
    "collective_us",
    "collective_per_gpu_us",
    "step_overhead_us",
    "multi_gpu_overhead_us",
];

/// What the section says.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// One source, chosen by its name or by fields that only it has.
    Chosen(TimingSpec),
    /// None: measured tables where they have this deployment, else the roofline.
    Open {
        /// The first choice.
        measured: MeasuredSpec,
        /// The second.
        roofline: RooflineSpec,
    },
}

/// Reads the section. Without a source it is open where model and GPU are known, else the reference simulator's curve.
/// Ranges of coefficients are the timing models' own and judged when they are compiled; profiles of fits are looked for
/// in `folder`. Measured kernels and host times are those of `engine` unless others are named. `None` after a problem.
pub fn read(
    section: &Section<'_>,
    folder: &Path,
    engine: Backend,
    has_model_and_gpu: bool,
) -> Option<Timing> {
    let has_any = |names: &[&'static str]| names.iter().any(|name| section.has(name));
    let source = if section.has("source") {
        let chosen = section.choice("source", &SOURCES);
        if chosen.is_none() {
            // Nobody knows whose fields are foreign; unknown names are told all the same.
            refuse_fields_of_others(section, None);
        }
        Some(chosen?)
    } else if has_any(&FITTED) {
        Some(Source::Fitted)
    } else if !has_model_and_gpu {
        Some(Source::Polynomial)
    } else if has_any(&MEASURED) {
        Some(Source::Measured)
    } else if has_any(&ROOFLINE) {
        Some(Source::Roofline)
    } else {
        None
    };
    refuse_fields_of_others(section, source);
    let Some(source) = source else {
        return Some(Timing::Open {
            measured: measured(section, engine),
            roofline: roofline(section),
        });
    };
    Some(Timing::Chosen(match source {
        Source::Linear => TimingSpec::Linear(linear(section)?),
        Source::Polynomial => TimingSpec::Polynomial(polynomial(section)),
        Source::Roofline => TimingSpec::Roofline(roofline(section)),
        Source::Measured => TimingSpec::Measured(measured(section, engine)),
        Source::Fitted => TimingSpec::Fitted(fitted(section, folder)?),
    }))
}

/// Asks for the fields of every source, so that all are known, and reports those of the others. Where no source is
/// chosen, those of sources that cannot be are foreign.
fn refuse_fields_of_others(section: &Section<'_>, source: Option<Source>) {
    let groups: [(Source, &[&'static str]); 5] = [
        (Source::Linear, &LINEAR),
        (Source::Polynomial, &POLYNOMIAL),
        (Source::Roofline, &ROOFLINE),
        (Source::Measured, &MEASURED),
        (Source::Fitted, &FITTED),
    ];
    let has_unknown_source = source.is_none() && section.has("source");
    for (other, names) in groups {
        let written: Vec<&'static str> = names
            .iter()
            .copied()
            .filter(|name| section.has(name))
            .collect();
        let is_open = source.is_none() && matches!(other, Source::Roofline | Source::Measured);
        if is_open || has_unknown_source || source == Some(other) {
            continue;
        }
        let wanted = source.map_or("measured or roofline", word);
        for name in written {
            let found = format!("a field of the source {}", word(other));
            let hint = format!("set source to {}, or remove it", word(other));
            section.conflict(name, found, format!("fields of {wanted}"), &hint);
        }
    }
}

fn word(source: Source) -> &'static str {
    SOURCES
        .iter()
        .find(|(_, other)| *other == source)
        .map(|(word, _)| *word)
        .expect("every source has a word")
}

fn linear(section: &Section<'_>) -> Option<Linear> {
    if !LINEAR.iter().any(|name| section.has(name)) {
        section.conflict(
            "source",
            "linear alone",
            LINEAR.join(", "),
            "say what a step costs",
        );
        return None;
    }
    let picoseconds = |name| {
        section
            .number(name, 0.0..=1e12)
            .map_or(0, |ns: f64| (ns * 1e3).round() as u64)
    };
    let [base_ps, per_new_token_ps, per_context_token_ps] = LINEAR.map(picoseconds);
    Some(Linear {
        base_ps,
        per_new_token_ps,
        per_context_token_ps,
    })
}

fn polynomial(section: &Section<'_>) -> PolynomialSpec {
    let ratio = |name| section.number(name, 0.01..=100.0).unwrap_or(1.0);
    let [speedup_ratio, decode_speedup_ratio] = POLYNOMIAL.map(ratio);
    PolynomialSpec {
        speedup_ratio,
        decode_speedup_ratio,
    }
}

fn fitted(section: &Section<'_>, folder: &Path) -> Option<FittedProfile> {
    let Some((name, field)) = section.text("profile") else {
        if !section.has("profile") {
            section.conflict(
                "source",
                "fitted alone",
                "profile, the file of a fit",
                "`dynosim calibrate fit-steps` and `fit-requests` write one",
            );
        }
        return None;
    };
    match FittedProfile::read(&beside(folder, &name, &field.node.place)) {
        Ok(profile) => Some(profile),
        Err(error) => {
            match &error {
                CalibrationError::Read { .. } => {
                    section.mistake("profile", name, "the file of a fit", &error.to_string());
                }
                _ => section.refused(Kind::Mistake, "profile", &error),
            }
            None
        }
    }
}

fn measured(section: &Section<'_>, engine: Backend) -> MeasuredSpec {
    let tables = section
        .has("tables")
        .then(|| section.choice("tables", &TABLES))
        .flatten();
    let default = MeasuredSpec::of(tables.unwrap_or(engine));
    let us = |name, default| section.number(name, 0.0..=1e6).unwrap_or(default);
    MeasuredSpec {
        folder: section.text("folder").map(|(text, _)| PathBuf::from(text)),
        gemm: section
            .has("gemm")
            .then(|| section.choice("gemm", &GEMM))
            .flatten(),
        missing: section
            .has("missing")
            .then(|| section.choice("missing", &MISSING))
            .flatten()
            .unwrap_or_default(),
        host: HostTimes {
            step_us: us("step_us", default.host.step_us),
            sequence_us: us("sequence_us", default.host.sequence_us),
            prefill_step_us: us("prefill_step_us", default.host.prefill_step_us),
            request_us: us("request_us", default.host.request_us),
            prompt_token_us: us("prompt_token_us", default.host.prompt_token_us),
        },
        ..default
    }
}

fn roofline(section: &Section<'_>) -> RooflineSpec {
    let mut spec = RooflineSpec::default();
    let values: [&mut f64; 14] = [
        &mut spec.gemm_bf16_efficiency,
        &mut spec.gemm_fp8_efficiency,
        &mut spec.gemm_memory_efficiency,
        &mut spec.prefill_attention_efficiency,
        &mut spec.decode_attention_efficiency,
        &mut spec.elementwise_efficiency,
        &mut spec.link_efficiency,
        &mut spec.kernel_us,
        &mut spec.prefill_attention_us,
        &mut spec.decode_attention_us,
        &mut spec.collective_us,
        &mut spec.collective_per_gpu_us,
        &mut spec.step_overhead_us,
        &mut spec.multi_gpu_overhead_us,
    ];
    for (name, value) in ROOFLINE.into_iter().zip(values) {
        let range = if name.ends_with("_us") {
            0.0..=1e6
        } else {
            0.01..=1.0
        };
        if let Some(number) = section.number(name, range) {
            *value = number;
        }
    }
    spec
}
