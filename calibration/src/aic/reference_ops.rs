//! The same comparison kernel by kernel: JSON lines, one per row of the CSV file and in its order, whose `ops` hold the
//! milliseconds of each kernel, named as AIConfigurator does (`context_qkv_gemm`).
//!
//! Kernels with one name on both sides are compared. Those that only one side knows, because the other counts them
//! together (`mla_block`, `moe_overlap`), are compared as one sum, `others`.

use super::OpTime;
use super::reference::Comparison;
use crate::error::CalibrationError;
use crate::log_file::{Findings, LogFile};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Sums below this are rounding.
const LEAST_MS: f64 = 1e-5;
/// Reference values are rounded to a millionth of a millisecond.
const ROUNDING_MS: f64 = 1e-6;

/// One kernel of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct OpRow {
    /// Line of the CSV file.
    pub line: u64,
    /// The kernel.
    pub op: String,
    /// The reference value, milliseconds.
    pub expected: f64,
    /// Ours.
    pub found: f64,
}

impl OpRow {
    /// |found − expected| beyond rounding, relative to the reference value.
    #[must_use]
    pub fn error(&self) -> f64 {
        let off = (self.found - self.expected).abs() - ROUNDING_MS;
        off.max(0.0) / self.expected.abs().max(LEAST_MS)
    }
}

#[derive(Deserialize)]
struct Line {
    model: String,
    latency_ms: f64,
    ops: BTreeMap<String, f64>,
}

/// Compares the kernels of every priced pass, worst first.
///
/// # Errors
/// Lines that are no such objects, or that belong to other rows.
pub fn compare_ops(comparison: &Comparison, log: &LogFile) -> Result<Vec<OpRow>, CalibrationError> {
    let lines: Vec<(usize, &str)> = log.lines().collect();
    let mut findings = Findings::new(&log.name);
    let mut rows = Vec::new();
    for row in &comparison.rows {
        let Some(&(number, text)) = lines.get(row.line as usize - 2) else {
            let expected = format!("the kernels of row {} of the other file", row.line);
            findings.add(lines.len(), "", "the end of the file", expected, "");
            break;
        };
        let line: Line = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(error) => {
                let expected = "an object with model, latency_ms and ops";
                findings.add(number, "", error, expected, "");
                continue;
            }
        };
        let is_same =
            row.expected == Some(line.latency_ms) && row.question.starts_with(&line.model);
        if !is_same {
            let found = format!("{} with {} ms", line.model, line.latency_ms);
            let expected = format!(
                "{}, as in line {} of the other file",
                row.question, row.line
            );
            findings.add(number, "", found, expected, "give the files of one run");
            continue;
        }
        rows.extend(row_ops(row.line, &line.ops, &row.ops));
    }
    findings.finish()?;
    rows.sort_by(|a, b| b.error().total_cmp(&a.error()).then(a.line.cmp(&b.line)));
    Ok(rows)
}

fn row_ops(line: u64, reference: &BTreeMap<String, f64>, ours: &[OpTime]) -> Vec<OpRow> {
    let plain = |name: &str| -> String {
        let phases = ["context_", "generation_"];
        let stripped = phases.iter().find_map(|phase| name.strip_prefix(phase));
        stripped.unwrap_or(name).to_owned()
    };
    let mut expected: BTreeMap<String, f64> =
        reference.iter().map(|(op, ms)| (plain(op), *ms)).collect();
    let mut rows = Vec::new();
    let mut row = |op: String, expected: f64, found: f64| {
        if expected.abs().max(found.abs()) > LEAST_MS {
            rows.push(OpRow {
                line,
                op,
                expected,
                found,
            });
        }
    };
    let mut others = 0.0;
    for op in ours {
        match expected.remove(op.name) {
            Some(ms) => row(op.name.to_owned(), ms, op.ms),
            None => others += op.ms,
        }
    }
    row("others".to_owned(), expected.values().sum(), others);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Reach;

    #[test]
    fn kernels_are_matched_by_name_and_the_rest_in_sum() {
        let op = |name, ms| OpTime {
            name,
            ms,
            reach: Reach::Measured,
        };
        let ours = [
            op("qkv_gemm", 2.0),
            op("attention", 3.0),
            op("proj_gemm", 1.5),
        ];
        let reference: BTreeMap<String, f64> = [
            ("context_qkv_gemm", 2.0),
            ("context_mla_block", 4.0),
            ("context_p2p", 0.0),
        ]
        .map(|(name, ms)| (name.to_owned(), ms))
        .into();
        let rows = row_ops(7, &reference, &ours);
        let found: Vec<(&str, f64, f64)> = rows
            .iter()
            .map(|row| (row.op.as_str(), row.expected, row.found))
            .collect();
        assert_eq!(found, [("qkv_gemm", 2.0, 2.0), ("others", 4.0, 4.5)]);
        assert!(rows[0].error() == 0.0 && (rows[1].error() - 0.125).abs() < 1e-6);
    }
}
