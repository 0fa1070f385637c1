//! Comparison with values that AIConfigurator itself computed, row by row of a CSV file.
//!
//! Which columns a file has says what it holds:
//!
//! | Kind | Columns |
//! |---|---|
//! | passes | model, system, backend, version, tp, gemm, kvcache, fmha, phase (`context` or `generation`), batch, isl, prefix, kv_len, latency_ms |
//! | mixed steps | model, system, backend, version, tp, isl, osl, ctx_tokens, decode_reqs, latency_ms |
//! | KV capacity | model, system, backend, tp, fraction, max_num_tokens, kv_max_tokens (empty: does not fit) |

use super::{
    AicMemory, AttentionShape, Composed, Decoder, FfnShape, Formats, Missing, MixedStep, OpTime,
    Setting, Shape, kv_capacity,
};
use crate::error::{CalibrationError, Problem, check};
use crate::model::{Model, Precision};
use crate::tables::{Backend, Dtype, Profile};
use std::collections::HashMap;
use std::path::Path;

/// What a file compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Single passes, milliseconds.
    Passes,
    /// Mixed steps, milliseconds.
    MixedSteps,
    /// KV capacity, tokens.
    KvCapacity,
}

impl Kind {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Passes => "passes, ms",
            Kind::MixedSteps => "mixed steps, ms",
            Kind::KvCapacity => "KV capacity, tokens",
        }
    }

    /// The relative error up to which values agree.
    #[must_use]
    pub const fn tolerance(self) -> f64 {
        match self {
            Kind::Passes => 1e-4,
            Kind::MixedSteps | Kind::KvCapacity => 1e-3,
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Line of the file.
    pub line: u64,
    /// What was asked, for a table.
    pub question: String,
    /// The reference value; none where it says that there is no answer.
    pub expected: Option<f64>,
    /// Ours; none where there is no answer.
    pub found: Option<f64>,
    /// The kernels of a pass; none of anything else.
    pub ops: Vec<OpTime>,
}

impl Row {
    /// |found / expected − 1|; infinite where only one of the two has an answer.
    #[must_use]
    pub fn error(&self) -> f64 {
        match (self.expected, self.found) {
            (Some(expected), Some(found)) => (found / expected - 1.0).abs(),
            (None, None) => 0.0,
            _ => f64::INFINITY,
        }
    }
}

/// A file compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What it holds.
    pub kind: Kind,
    /// The rows that could be priced, worst first.
    pub rows: Vec<Row>,
    /// Why rows could not be, and how many.
    pub unpriced: Vec<(String, usize)>,
}

/// Finds the tables of a GPU, engine and, where it is known, version.
pub type FindProfile<'a> =
    dyn Fn(&str, Backend, Option<&str>) -> Result<&'a Profile, CalibrationError> + 'a;

/// Compares a file; `profile` gives the tables of a GPU, engine and, where the file names it, version.
///
/// # Errors
/// The file cannot be read, lacks columns, or has values that cannot be; all at once.
pub fn compare<'a>(path: &Path, profile: &FindProfile<'a>) -> Result<Comparison, CalibrationError> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| CalibrationError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut reader = csv::Reader::from_reader(&bytes[..]);
    let bad = |found: String, expected: &str| Problem::new(&file, found, expected);
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            return Err(CalibrationError::Invalid(vec![bad(
                error.to_string(),
                "CSV",
            )]));
        }
    };
    let columns: HashMap<&str, usize> = header
        .iter()
        .enumerate()
        .map(|(i, name)| (name, i))
        .collect();
    let kind = kind(&columns).ok_or_else(|| {
        CalibrationError::Invalid(vec![bad(
            "columns of neither".to_owned(),
            "latency_ms with phase or ctx_tokens, or kv_max_tokens",
        )])
    })?;
    let (mut rows, mut unpriced, mut problems) =
        (Vec::new(), Vec::<(String, usize)>::new(), Vec::new());
    for (i, record) in reader.records().enumerate() {
        let line = i as u64 + 2;
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                problems.push(bad(error.to_string(), "CSV"));
                break;
            }
        };
        let mut cells = Cells {
            file: &file,
            line,
            columns: &columns,
            record: &record,
            problems: Vec::new(),
        };
        let question = Question::read(&mut cells, kind);
        if !cells.problems.is_empty() {
            problems.append(&mut cells.problems);
            continue;
        }
        match question.answer(profile) {
            Ok((found, ops)) => rows.push(Row {
                line,
                question: question.text(),
                expected: question.expected,
                found,
                ops,
            }),
            Err(why) => {
                let why = why.to_string();
                match unpriced.iter_mut().find(|(other, _)| *other == why) {
                    Some((_, count)) => *count += 1,
                    None => unpriced.push((why, 1)),
                }
            }
        }
    }
    check(problems)?;
    rows.sort_by(|a, b| b.error().total_cmp(&a.error()).then(a.line.cmp(&b.line)));
    Ok(Comparison {
        kind,
        rows,
        unpriced,
    })
}

fn kind(columns: &HashMap<&str, usize>) -> Option<Kind> {
    let has = |name| columns.contains_key(name);
    if has("kv_max_tokens") {
        Some(Kind::KvCapacity)
    } else if has("ctx_tokens") && has("latency_ms") {
        Some(Kind::MixedSteps)
    } else if has("phase") && has("latency_ms") {
        Some(Kind::Passes)
    } else {
        None
    }
}

/// Formats in which AIConfigurator serves a model unless told otherwise.
#[must_use]
pub fn default_formats(model: &Model) -> Formats {
    match model.weights {
        Precision::Bf16 => Formats {
            gemm: Dtype::Bfloat16,
            kv_cache: Dtype::Bfloat16,
            attention: Dtype::Bfloat16,
        },
        Precision::Fp8 => {
            // Qwen publishes block-scaled weights, others one scale per tensor.
            let has_block_scales = ["Qwen/", "deepseek-ai/", "MiniMaxAI/", "moonshotai/"]
                .iter()
                .any(|owner| model.id.starts_with(owner));
            let gemm = if has_block_scales {
                Dtype::Fp8Block
            } else {
                Dtype::Fp8
            };
            Formats {
                gemm,
                kv_cache: Dtype::Fp8,
                attention: Dtype::Fp8,
            }
        }
    }
}

fn shape_formats(shape: &Shape) -> Result<Formats, CalibrationError> {
    if let AttentionShape::Latent { .. } = shape.attention {
        return Ok(Formats {
            gemm: Dtype::Fp8Block,
            kv_cache: Dtype::Fp8,
            attention: Dtype::Bfloat16,
        });
    }
    match shape.ffn {
        FfnShape::Experts { .. } => Ok(Formats {
            gemm: Dtype::Bfloat16,
            kv_cache: Dtype::Bfloat16,
            attention: Dtype::Bfloat16,
        }),
        FfnShape::Gated { .. } => Ok(default_formats(&Model::find(&shape.id)?)),
    }
}

struct Cells<'a> {
    file: &'a str,
    line: u64,
    columns: &'a HashMap<&'a str, usize>,
    record: &'a csv::StringRecord,
    problems: Vec<Problem>,
}

impl Cells<'_> {
    /// Whether the row has something in this column.
    fn has(&self, name: &str) -> bool {
        let column = self.columns.get(name);
        let cell = column.and_then(|&column| self.record.get(column));
        cell.is_some_and(|cell| !cell.is_empty())
    }

    /// A width, if the row has one.
    fn width(&mut self, name: &str) -> Option<u32> {
        self.has(name).then(|| self.at_least_1(name))
    }

    fn text(&mut self, name: &str) -> String {
        let cell = self
            .columns
            .get(name)
            .and_then(|&column| self.record.get(column));
        if cell.is_none() {
            self.problem(name, "nothing", "a value");
        }
        cell.unwrap_or_default().to_owned()
    }

    fn parsed<T: std::str::FromStr + Default>(&mut self, name: &str, expected: &str) -> T {
        let text = self.text(name);
        text.parse().unwrap_or_else(|_| {
            self.problem(name, &format!("`{text}`"), expected);
            T::default()
        })
    }

    fn count(&mut self, name: &str) -> u32 {
        let count: u32 = self.parsed(name, "a whole number");
        // Far above any batch or context, far below where sums of them overflow.
        if count > 1 << 24 {
            self.problem(name, &count.to_string(), "a whole number up to 16777216");
            return 1;
        }
        count
    }

    fn at_least_1(&mut self, name: &str) -> u32 {
        let count = self.count(name);
        if count == 0 {
            self.problem(name, "0", "a whole number of at least 1");
        }
        count.max(1)
    }

    fn positive(&mut self, name: &str) -> f64 {
        let number: f64 = self.parsed(name, "a positive number");
        if !(number.is_finite() && number > 0.0) {
            self.problem(name, &number.to_string(), "a positive number");
        }
        number
    }

    fn dtype(&mut self, name: &str) -> Dtype {
        let text = self.text(name);
        Dtype::find(&text).unwrap_or_else(|| {
            self.problem(
                name,
                &format!("`{text}`"),
                "bfloat16, fp8, fp8_block, int8_wo, int4_wo, nvfp4, w4a16_mxfp4 or w4afp8",
            );
            Dtype::Bfloat16
        })
    }

    fn problem(&mut self, name: &str, found: &str, expected: &str) {
        self.problems.push(Problem::new(
            &format!("{}:{}: {name}", self.file, self.line),
            found,
            expected,
        ));
    }
}

struct Question {
    model: String,
    gpu: String,
    backend: String,
    version: Option<String>,
    gpus: u32,
    expert_parallel: u32,
    formats: Option<Formats>,
    experts: Option<Dtype>,
    what: What,
    expected: Option<f64>,
}

enum What {
    Context { batch: u32, isl: u32, prefix: u32 },
    Generation { batch: u32, kv_length: u32 },
    Mixed(MixedStep),
    Capacity { fraction: f64, max_tokens: u32 },
}

impl Question {
    fn read(cells: &mut Cells<'_>, kind: Kind) -> Question {
        let formats = (kind == Kind::Passes).then(|| Formats {
            gemm: cells.dtype("gemm"),
            kv_cache: cells.dtype("kvcache"),
            attention: cells.dtype("fmha"),
        });
        let version = (kind != Kind::KvCapacity).then(|| cells.text("version"));
        let what = match kind {
            Kind::Passes if cells.text("phase") == "context" => {
                let (batch, isl, prefix) = (
                    cells.at_least_1("batch"),
                    cells.at_least_1("isl"),
                    cells.count("prefix"),
                );
                if prefix >= isl {
                    cells.problem("prefix", &prefix.to_string(), "fewer tokens than isl");
                }
                What::Context {
                    batch,
                    isl,
                    prefix: prefix.min(isl - 1),
                }
            }
            Kind::Passes => {
                if cells.text("phase") != "generation" {
                    let found = cells.text("phase");
                    cells.problem("phase", &format!("`{found}`"), "context or generation");
                }
                What::Generation {
                    batch: cells.at_least_1("batch"),
                    kv_length: cells.at_least_1("kv_len"),
                }
            }
            Kind::MixedSteps => What::Mixed(MixedStep {
                isl: cells.at_least_1("isl"),
                osl: cells.at_least_1("osl"),
                context_tokens: cells.at_least_1("ctx_tokens"),
                decodes: cells.count("decode_reqs"),
            }),
            Kind::KvCapacity => What::Capacity {
                fraction: cells.positive("fraction"),
                max_tokens: cells.at_least_1("max_num_tokens"),
            },
        };
        let expected = match kind {
            Kind::KvCapacity if cells.text("kv_max_tokens").is_empty() => None,
            Kind::KvCapacity => Some(cells.positive("kv_max_tokens")),
            _ => Some(cells.positive("latency_ms")),
        };
        let gpus = cells.at_least_1("tp");
        let (expert_tensor, expert_parallel) = (cells.width("moe_tp"), cells.width("moe_ep"));
        if let (Some(tensor), Some(groups)) = (expert_tensor, expert_parallel)
            && tensor.checked_mul(groups) != Some(gpus)
        {
            let found = format!("moe_tp {tensor}, moe_ep {groups}");
            cells.problem("tp", &found, "widths of the experts whose product is tp");
        }
        Question {
            model: cells.text("model"),
            gpu: cells.text("system"),
            backend: cells.text("backend"),
            version,
            gpus,
            expert_parallel: expert_parallel.unwrap_or(1),
            formats,
            experts: cells.has("moe").then(|| cells.dtype("moe")),
            what,
            expected,
        }
    }

    /// The number, and the kernels of a pass.
    fn answer<'a>(
        &self,
        profile: &FindProfile<'a>,
    ) -> Result<(Option<f64>, Vec<OpTime>), CalibrationError> {
        let backend = Backend::find(&self.backend)?;
        let profile = profile(&self.gpu, backend, self.version.as_deref())?;
        let decoder = || {
            let shape = Shape::find(&self.model)?;
            let formats = match self.formats {
                Some(formats) => formats,
                None => shape_formats(&shape)?,
            };
            let setting = Setting {
                gpus: self.gpus,
                expert_parallel: self.expert_parallel,
                ranks: 1,
                formats,
                experts: self.experts.unwrap_or(formats.gemm),
                missing: Missing::Refuse,
            };
            Decoder::prepare(profile, &shape, &setting)
        };
        let pass = |composed: Composed| (Some(composed.ms()), composed.ops);
        Ok(match self.what {
            What::Context { batch, isl, prefix } => {
                pass(decoder()?.context_pass(batch, isl, prefix)?)
            }
            What::Generation { batch, kv_length } => {
                pass(decoder()?.generation_pass(batch, kv_length)?)
            }
            What::Mixed(step) => (Some(decoder()?.mixed_step(step)?.ms()), Vec::new()),
            What::Capacity {
                fraction,
                max_tokens,
            } => {
                let model = Model::find(&self.model)?;
                let formats = self.formats.unwrap_or_else(|| default_formats(&model));
                let question = AicMemory {
                    model: &model,
                    machine: &profile.machine,
                    backend,
                    gpus: self.gpus,
                    gemm: formats.gemm,
                    kv_cache: formats.kv_cache,
                    fraction,
                    max_tokens,
                };
                let tokens = kv_capacity(&question)?;
                (tokens.map(|tokens| tokens as f64), Vec::new())
            }
        })
    }

    fn text(&self) -> String {
        let what = match self.what {
            What::Context {
                batch,
                isl,
                prefix: 0,
            } => format!("{batch} x {isl} tokens"),
            What::Context { batch, isl, prefix } => {
                format!("{batch} x {isl} tokens, {prefix} cached")
            }
            What::Generation { batch, kv_length } => format!("{batch} decodes at {kv_length}"),
            What::Mixed(step) => format!(
                "{} + {} decodes, isl {}",
                step.context_tokens, step.decodes, step.isl
            ),
            What::Capacity { fraction, .. } => format!("fraction {fraction}"),
        };
        format!(
            "{} {} {} tp {}: {what}",
            self.model, self.gpu, self.backend, self.gpus
        )
    }
}
