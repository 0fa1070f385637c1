//! `timing`: where step times come from.

use super::section::Section;
use calibration::tables::{Backend, Dtype};
use calibration::{Linear, MeasuredSpec, PolynomialSpec, RooflineSpec, TimingSpec};

/// The sources, and the fields of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Linear,
    Polynomial,
    Roofline,
    Measured,
}

const SOURCES: [(&str, Source); 4] = [
    ("linear", Source::Linear),
    ("polynomial", Source::Polynomial),
    ("roofline", Source::Roofline),
    ("measured", Source::Measured),
];

const LINEAR: [&str; 3] = ["base_ns", "per_new_token_ns", "per_context_token_ns"];
const POLYNOMIAL: [&str; 2] = ["speedup_ratio", "decode_speedup_ratio"];
/// Fields of the measured tables alone; `step_overhead_us` they share with the roofline.
const MEASURED: [&str; 2] = ["tables", "gemm"];
const TABLES: [(&str, Backend); 2] = [("vllm", Backend::Vllm), ("sglang", Backend::Sglang)];
const GEMM: [(&str, Dtype); 3] = [
    ("bfloat16", Dtype::Bfloat16),
    ("fp8", Dtype::Fp8),
    ("fp8_block", Dtype::Fp8Block),
];
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

/// Reads the section. Without a source it is the roofline where model and GPU are known, else the reference simulator's
/// curve. Ranges of coefficients are the timing models' own and judged when they are compiled. `None` after a problem.
pub fn read(section: &Section<'_>, has_model_and_gpu: bool) -> Option<TimingSpec> {
    let source = match section.has("source") {
        true => section.choice("source", &SOURCES),
        false if has_model_and_gpu => Some(Source::Roofline),
        false => Some(Source::Polynomial),
    };
    refuse_fields_of_others(section, source);
    Some(match source? {
        Source::Linear => TimingSpec::Linear(linear(section)?),
        Source::Polynomial => TimingSpec::Polynomial(polynomial(section)),
        Source::Roofline => TimingSpec::Roofline(roofline(section)),
        Source::Measured => TimingSpec::Measured(measured(section)),
    })
}

/// Asks for the fields of every source, so that all are known, and reports those of the others.
fn refuse_fields_of_others(section: &Section<'_>, source: Option<Source>) {
    let groups: [(Source, &[&'static str]); 4] = [
        (Source::Linear, &LINEAR),
        (Source::Polynomial, &POLYNOMIAL),
        (Source::Roofline, &ROOFLINE),
        (Source::Measured, &MEASURED),
    ];
    for (other, names) in groups {
        let written: Vec<&'static str> = names
            .iter()
            .copied()
            .filter(|name| section.has(name))
            .collect();
        let Some(source) = source.filter(|source| *source != other) else {
            continue;
        };
        let is_shared = |name: &&str| source == Source::Measured && *name == "step_overhead_us";
        for name in written.into_iter().filter(|name| !is_shared(name)) {
            let found = format!("a field of the source {}", word(other));
            let hint = format!("set source to {}, or remove it", word(other));
            section.conflict(name, found, format!("fields of {}", word(source)), &hint);
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

fn measured(section: &Section<'_>) -> MeasuredSpec {
    let default = MeasuredSpec::default();
    let chosen = |name| section.has(name);
    MeasuredSpec {
        tables: chosen("tables")
            .then(|| section.choice("tables", &TABLES))
            .flatten()
            .unwrap_or(default.tables),
        gemm: chosen("gemm")
            .then(|| section.choice("gemm", &GEMM))
            .flatten(),
        step_overhead_us: section
            .number("step_overhead_us", 0.0..=1e6)
            .unwrap_or(default.step_overhead_us),
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
