//! One Parquet file as columns read by name; the only place that knows polars.
//!
//! Columns come in any order, text as `string` or `large_string`, whole numbers in any width. Every value is checked:
//! a missing column, an empty cell, a number out of range each become a problem with file and row.

use crate::error::{CalibrationError, Problem};
use polars::prelude::{DataFrame, DataType, ParquetReader, SerReader};
use std::io::Cursor;
use std::path::Path;

/// Problems listed per file; more are counted only.
const LISTED: usize = 20;

/// A file in memory.
pub(super) struct ParquetFile {
    name: String,
    frame: DataFrame,
    digest: String,
    problems: Vec<Problem>,
    found: usize,
}

impl ParquetFile {
    /// Reads a file; `name` is what messages call it.
    pub(super) fn read(path: &Path, name: &str) -> Result<ParquetFile, CalibrationError> {
        let bytes = std::fs::read(path).map_err(|source| CalibrationError::Read {
            path: path.to_owned(),
            source,
        })?;
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let broken = |why: String| {
            let problem = Problem::new(
                name,
                format!("{} bytes that cannot be read: {why}", bytes.len()),
                "a Parquet file",
            );
            CalibrationError::Invalid(vec![problem])
        };
        let frame = ParquetReader::new(Cursor::new(&bytes[..]))
            .finish()
            .map_err(|error| broken(error.to_string()))?;
        Ok(ParquetFile {
            name: name.to_owned(),
            frame,
            digest,
            problems: Vec::new(),
            found: 0,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn rows(&self) -> usize {
        self.frame.height()
    }

    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.frame.column(column).is_ok()
    }

    /// A text column.
    pub(super) fn text(&mut self, column: &str) -> Vec<String> {
        let Some(values) = self.cast(column, &DataType::String) else {
            return vec![String::new(); self.rows()];
        };
        let cells: Vec<Option<String>> = values
            .str()
            .expect("it was cast to text")
            .iter()
            .map(|cell| cell.map(str::to_owned))
            .collect();
        self.filled(column, cells, "text")
    }

    /// A text column, all empty where the file has none.
    pub(super) fn text_or_empty(&mut self, column: &str) -> Vec<String> {
        if self.has(column) {
            self.text(column)
        } else {
            vec![String::new(); self.rows()]
        }
    }

    /// A column of whole numbers that fit 32 bits.
    pub(super) fn whole(&mut self, column: &str) -> Vec<u32> {
        let Some(values) = self.cast(column, &DataType::Int64) else {
            return vec![0; self.rows()];
        };
        let cells: Vec<Option<i64>> = values.i64().expect("it was cast").iter().collect();
        let numbers = self.filled(column, cells, "a whole number");
        let mut fitting = Vec::with_capacity(numbers.len());
        for (row, number) in numbers.into_iter().enumerate() {
            fitting.push(u32::try_from(number).unwrap_or_else(|_| {
                self.problem(row, column, number, "a whole number from 0 to 4294967295");
                0
            }));
        }
        fitting
    }

    /// A column of whole numbers, all zero where the file has none.
    pub(super) fn whole_or_zero(&mut self, column: &str) -> Vec<u32> {
        if self.has(column) {
            self.whole(column)
        } else {
            vec![0; self.rows()]
        }
    }

    /// The latencies in milliseconds, each a positive number.
    pub(super) fn latency(&mut self) -> Vec<f64> {
        self.latency_from(|ms| ms > 0.0, "a positive number of milliseconds")
    }

    /// The latencies in milliseconds, of which some may be too short to be measured.
    pub(super) fn latency_or_zero(&mut self) -> Vec<f64> {
        self.latency_from(|ms| ms >= 0.0, "milliseconds from 0")
    }

    fn latency_from(&mut self, can_be: impl Fn(f64) -> bool, expected: &str) -> Vec<f64> {
        let Some(values) = self.cast("latency", &DataType::Float64) else {
            return vec![1.0; self.rows()];
        };
        let cells: Vec<Option<f64>> = values.f64().expect("it was cast").iter().collect();
        let numbers = self.filled("latency", cells, "milliseconds");
        for (row, &number) in numbers.iter().enumerate() {
            if !(number.is_finite() && can_be(number)) {
                self.problem(row, "latency", number, expected);
            }
        }
        numbers
    }

    /// Notes a problem of a row (from 0; printed from 1).
    pub(super) fn problem(
        &mut self,
        row: usize,
        what: &str,
        found: impl std::fmt::Display,
        expected: &str,
    ) {
        self.found += 1;
        if self.found <= LISTED {
            let field = format!("{}: row {}: {what}", self.name, row + 1);
            self.problems.push(Problem::new(&field, found, expected));
        }
    }

    /// All problems noted so far.
    pub(super) fn check(&mut self) -> Result<(), CalibrationError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut problems = std::mem::take(&mut self.problems);
        if self.found > LISTED {
            let more = format!("{} more problems", self.found - LISTED);
            problems.push(Problem::new(&self.name, more, "a table without any"));
        }
        Err(CalibrationError::Invalid(problems))
    }

    fn cast(&mut self, column: &str, to: &DataType) -> Option<polars::prelude::Column> {
        let Ok(values) = self.frame.column(column) else {
            let names: Vec<String> = self
                .frame
                .get_column_names()
                .iter()
                .map(ToString::to_string)
                .collect();
            self.found += 1;
            let problem = Problem::new(
                &self.name,
                format!("no column `{column}`"),
                format!("a column `{column}`"),
            );
            self.problems
                .push(problem.suggest(format!("the file has {}", names.join(", "))));
            return None;
        };
        let kind = values.dtype();
        let fits = match to {
            DataType::String => kind == &DataType::String,
            DataType::Int64 => kind.is_integer(),
            _ => kind.is_primitive_numeric(),
        };
        match values.cast(to) {
            Ok(cast) if fits => Some(cast),
            _ => {
                self.found += 1;
                let found = format!("column `{column}` of type {kind}");
                self.problems.push(Problem::new(
                    &self.name,
                    found,
                    format!("a column of type {to}"),
                ));
                None
            }
        }
    }

    fn filled<T: Default>(
        &mut self,
        column: &str,
        cells: Vec<Option<T>>,
        expected: &str,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(cells.len());
        for (row, cell) in cells.into_iter().enumerate() {
            if cell.is_none() {
                self.problem(row, column, "nothing", expected);
            }
            values.push(cell.unwrap_or_default());
        }
        values
    }
}
