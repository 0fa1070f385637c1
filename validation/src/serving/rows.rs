//! Reads a file of benchmarks.
//!
//! CSV with a header. Needed columns: `backend`, `model_path`, `system`, `isl`, `osl`, `concurrency`, `tp`,
//! `silicon_ttft_ms`, `silicon_tpot_ms`. Known if there: `id`, `backend_version`, `model_family`, `gemm_quant_mode`,
//! `moe_quant_mode`, `pp_size`, `attention_dp_size`, `moe_tp_size`, `moe_ep_size` (empty: 1). Every other pair of columns `NAME_ttft_ms`
//! and `NAME_tpot_ms` holds the predictions of NAME, empty where it has none.

use super::ServingError;
use csv::StringRecord;
use std::path::Path;

/// Mean TTFT and mean TPOT, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Time to first token.
    pub ttft_ms: f64,
    /// Time per output token after the first.
    pub tpot_ms: f64,
}

impl Pair {
    /// Output tokens per second of a closed loop: `concurrency` answers of `osl` tokens per end-to-end time.
    #[must_use]
    pub fn output_tokens_per_s(&self, row: &Row) -> f64 {
        let e2e_ms = self.ttft_ms + self.tpot_ms * f64::from(row.osl - 1);
        f64::from(row.concurrency) * f64::from(row.osl) / e2e_ms * 1e3
    }
}

/// One benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Line of the file.
    pub line: u64,
    /// Its id; tells where it is from.
    pub id: String,
    /// The engine.
    pub backend: String,
    /// Its version; may be empty.
    pub version: String,
    /// The model, a Hugging Face id.
    pub model: String,
    /// Models that count as one.
    pub family: String,
    /// The GPU.
    pub gpu: String,
    /// Format of the projections; none for 16 bits.
    pub gemm: Option<String>,
    /// Format of the experts; none for 16 bits.
    pub experts: Option<String>,
    /// Prompt tokens.
    pub isl: u32,
    /// Output tokens.
    pub osl: u32,
    /// Clients.
    pub concurrency: u32,
    /// GPUs that share every layer's attention.
    pub tp: u32,
    /// Pipeline stages.
    pub pp: u32,
    /// Attention data parallelism.
    pub attention_dp: u32,
    /// GPUs that share an expert.
    pub moe_tp: u32,
    /// GPUs over which experts are spread.
    pub moe_ep: u32,
    /// What was measured.
    pub measured: Pair,
    /// By predictor of the file.
    pub predictions: Vec<Option<Pair>>,
}

/// A file of benchmarks.
#[derive(Debug, Clone, PartialEq)]
pub struct Benchmarks {
    /// Who else predicted them.
    pub predictors: Vec<String>,
    /// The benchmarks in the order of the file.
    pub rows: Vec<Row>,
}

const SUFFIX: &str = "_ttft_ms";

impl Benchmarks {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, lacks columns, or holds values that cannot be; all at once.
    pub fn read(path: &Path) -> Result<Benchmarks, ServingError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| ServingError::Read {
            path: name.clone(),
            source,
        })?;
        Benchmarks::parse(&name, &bytes)
    }

    /// Reads the contents of a file called `name`.
    ///
    /// # Errors
    /// As [`Benchmarks::read`].
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Benchmarks, ServingError> {
        let mut reader = csv::Reader::from_reader(bytes);
        let header = reader
            .headers()
            .map_err(|error| ServingError::Invalid(vec![format!("{name}: {error}")]))?
            .clone();
        let missing = needed_columns(&header);
        if !missing.is_empty() {
            return Err(ServingError::Invalid(vec![format!(
                "{name}:1: found no column {}, expected a file of serving benchmarks (docs/accuracy.md)",
                missing.join(", ")
            )]));
        }
        let predictors: Vec<String> = header
            .iter()
            .filter_map(|column| column.strip_suffix(SUFFIX))
            .filter(|who| *who != "silicon")
            .filter(|who| {
                header
                    .iter()
                    .any(|column| column == format!("{who}_tpot_ms"))
            })
            .map(str::to_owned)
            .collect();
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        for record in reader.records() {
            match record {
                Ok(record) => {
                    let mut cells = Cells {
                        file: name,
                        line: record.position().map_or(0, csv::Position::line),
                        header: &header,
                        record: &record,
                        problems: &mut problems,
                    };
                    rows.push(cells.row(&predictors));
                }
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        if rows.is_empty() && problems.is_empty() {
            problems.push(format!(
                "{name}: found no benchmarks, expected at least one row"
            ));
        }
        if !problems.is_empty() {
            return Err(ServingError::Invalid(problems));
        }
        Ok(Benchmarks { predictors, rows })
    }
}

fn needed_columns(header: &StringRecord) -> Vec<&'static str> {
    let mut needed = vec![
        "backend",
        "model_path",
        "system",
        "isl",
        "osl",
        "concurrency",
        "tp",
        "silicon_ttft_ms",
        "silicon_tpot_ms",
    ];
    needed.retain(|column| header.iter().all(|found| found != *column));
    needed
}

struct Cells<'a> {
    file: &'a str,
    line: u64,
    header: &'a StringRecord,
    record: &'a StringRecord,
    problems: &'a mut Vec<String>,
}

impl Cells<'_> {
    fn row(&mut self, predictors: &[String]) -> Row {
        let text = |name: &str| self.cell(name).to_owned();
        let (id, backend, version) = (text("id"), text("backend"), text("backend_version"));
        let (model, gpu) = (text("model_path"), text("system"));
        let (gemm, experts) = (text("gemm_quant_mode"), text("moe_quant_mode"));
        let family = Some(text("model_family")).filter(|family| !family.is_empty());
        Row {
            line: self.line,
            id,
            backend,
            version,
            family: family.unwrap_or_else(|| model.clone()),
            model,
            gpu,
            gemm: Some(gemm).filter(|gemm| !gemm.is_empty()),
            experts: Some(experts).filter(|experts| !experts.is_empty()),
            isl: self.count("isl", 1 << 24),
            osl: self.count("osl", 1 << 24),
            concurrency: self.count("concurrency", 1 << 16),
            tp: self.count("tp", 1 << 10),
            pp: self.width("pp_size"),
            attention_dp: self.width("attention_dp_size"),
            moe_tp: self.width("moe_tp_size"),
            moe_ep: self.width("moe_ep_size"),
            measured: Pair {
                ttft_ms: self.positive("silicon_ttft_ms"),
                tpot_ms: self.positive("silicon_tpot_ms"),
            },
            predictions: predictors.iter().map(|who| self.prediction(who)).collect(),
        }
    }

    fn cell(&self, name: &str) -> &str {
        let column = self.header.iter().position(|column| column == name);
        column
            .and_then(|column| self.record.get(column))
            .unwrap_or_default()
            .trim()
    }

    fn problem(&mut self, name: &str, expected: &str) {
        let found = self.cell(name);
        let problem = format!(
            "{}:{}: {name}: found `{found}`, expected {expected}",
            self.file, self.line
        );
        self.problems.push(problem);
    }

    fn count(&mut self, name: &str, most: u32) -> u32 {
        match self.cell(name).parse::<u32>() {
            Ok(count) if (1..=most).contains(&count) => count,
            _ => {
                self.problem(name, &format!("a whole number from 1 to {most}"));
                1
            }
        }
    }

    /// A width that may be left empty; some files write `1.0`, and 0 for "does not apply".
    fn width(&mut self, name: &str) -> u32 {
        match self.cell(name) {
            "" => 1,
            cell => match cell.parse::<f64>() {
                Ok(width) if (0.0..=1024.0).contains(&width) && width.fract() == 0.0 => {
                    (width as u32).max(1)
                }
                _ => {
                    self.problem(name, "a whole number from 1 to 1024, or nothing");
                    1
                }
            },
        }
    }

    fn positive(&mut self, name: &str) -> f64 {
        match self.cell(name).parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => number,
            _ => {
                self.problem(name, "a positive number of milliseconds");
                1.0
            }
        }
    }

    /// A prediction counts if both numbers are there and positive.
    fn prediction(&mut self, who: &str) -> Option<Pair> {
        let number = |name: String| {
            let number = self.cell(&name).parse::<f64>().ok()?;
            (number.is_finite() && number > 0.0).then_some(number)
        };
        Some(Pair {
            ttft_ms: number(format!("{who}_ttft_ms"))?,
            tpot_ms: number(format!("{who}_tpot_ms"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "backend,model_path,system,isl,osl,concurrency,tp,silicon_ttft_ms,silicon_tpot_ms,\
                          attention_dp_size,aic_ttft_ms,aic_tpot_ms";

    fn parse(rows: &str) -> Result<Benchmarks, ServingError> {
        Benchmarks::parse("runs.csv", format!("{HEADER}\n{rows}").as_bytes())
    }

    #[test]
    fn rows_widths_and_other_predictions_are_read() {
        let read = parse(
            "vllm,Qwen/Qwen3-32B,h100_sxm,1024,128,8,2,100,10,1.0,50,9\nvllm,Qwen/Qwen3-32B,h100_sxm,1024,128,8,2,100,10,,,\n",
        )
        .expect("good");
        assert_eq!(read.predictors, ["aic"]);
        let aic = Pair {
            ttft_ms: 50.0,
            tpot_ms: 9.0,
        };
        assert_eq!(read.rows[0].predictions, [Some(aic)]);
        assert_eq!(read.rows[1].predictions, [None]);
        assert_eq!((read.rows[1].line, read.rows[1].attention_dp), (3, 1));
        assert_eq!(read.rows[0].family, "Qwen/Qwen3-32B");
        // 8 clients x 128 tokens every 100 + 127 x 10 ms.
        let throughput = read.rows[0].measured.output_tokens_per_s(&read.rows[0]);
        assert!((throughput - 8.0 * 128.0 / 1.370).abs() < 1e-9);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let message =
            parse("vllm,m,g,0,128,eight,2,-1,NaN,1.5,,\nvllm,m,g,1,1,1,1,1,1,,,\nvllm,m\n")
                .expect_err("bad")
                .to_string();
        for part in [
            "runs.csv:2: isl: found `0`, expected a whole number from 1 to 16777216",
            "runs.csv:2: concurrency: found `eight`",
            "runs.csv:2: silicon_ttft_ms: found `-1`, expected a positive number",
            "runs.csv:2: silicon_tpot_ms: found `NaN`",
            "runs.csv:2: attention_dp_size: found `1.5`",
            "line: 4",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let message = Benchmarks::parse("x.csv", b"a,b\n1,2\n")
            .expect_err("bad")
            .to_string();
        assert!(
            message.contains("x.csv:1: found no column backend, model_path"),
            "{message}"
        );
        assert!(
            parse("")
                .expect_err("empty")
                .to_string()
                .contains("no benchmarks")
        );
    }
}
