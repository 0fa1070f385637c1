//! Per-request records of a run, read back from the `requests.csv` that `dynosim replay --out` writes.

use crate::compare::RequestLatencies;
use csv::StringRecord;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Records that cannot be read.
#[derive(Debug, Error)]
pub enum RecordsError {
    /// The file cannot be read or is not CSV.
    #[error("{}: {source}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// A column is not there.
    #[error("{}: found no column `{column}`, expected the records that replay writes", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// A cell holds something else.
    #[error("{}:{line}: {column}: found `{found}`, expected {expected}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
}

const COLUMNS: [&str; 6] = [
    "outcome",
    "is_warmup",
    "ttft_ms",
    "tpot_ms",
    "e2e_ms",
    "queue_ms",
];

/// What each request saw, in the order of the workload; `None` for requests that did not complete or do not count.
///
/// # Errors
/// The first line that is not a record.
pub fn read(path: &Path) -> Result<Vec<Option<RequestLatencies>>, RecordsError> {
    let broken = |source| RecordsError::Csv {
        path: path.to_owned(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(broken)?;
    let header = reader.headers().map_err(broken)?.clone();
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        let found = header.iter().position(|name| name == column);
        *place = found.ok_or_else(|| RecordsError::NoColumn {
            path: path.to_owned(),
            column,
        })?;
    }
    let mut requests = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        requests.push(request(path, &record, &places)?);
    }
    Ok(requests)
}

fn request(
    path: &Path,
    record: &StringRecord,
    places: &[usize; COLUMNS.len()],
) -> Result<Option<RequestLatencies>, RecordsError> {
    let cell = |column: usize| record.get(places[column]).unwrap_or_default();
    if cell(0) != "completed" || cell(1) == "true" {
        return Ok(None);
    }
    let wrong = |column: usize| RecordsError::Cell {
        path: path.to_owned(),
        line: record.position().map_or(0, csv::Position::line),
        column: COLUMNS[column],
        found: cell(column).to_owned(),
        expected: "milliseconds",
    };
    let number = |column: usize| {
        let value = cell(column)
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite());
        value.ok_or_else(|| wrong(column))
    };
    let tpot_ms = if cell(3).is_empty() {
        None
    } else {
        Some(number(3)?)
    };
    Ok(Some(RequestLatencies {
        ttft_ms: number(2)?,
        tpot_ms,
        e2e_ms: number(4)?,
        queue_ms: number(5)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "request,outcome,is_warmup,pool,queue_ms,ttft_ms,tpot_ms,e2e_ms\n";

    fn read_text(text: &str) -> Result<Vec<Option<RequestLatencies>>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.csv");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| {
            error
                .to_string()
                .replace(&folder.path().display().to_string(), "")
        })
    }

    #[test]
    fn completed_requests_that_count_have_latencies() {
        let text = format!(
            "{HEADER}0,completed,false,\"a, b\",1,10.5,,20\n1,rejected,false,,,,,\n2,completed,true,a,1,2,3,4\n\
             3,completed,false,a,0,1,2.25,9\n"
        );
        let latencies = |queue_ms, ttft_ms, tpot_ms, e2e_ms| RequestLatencies {
            ttft_ms,
            tpot_ms,
            e2e_ms,
            queue_ms,
        };
        let expected = [
            Some(latencies(1.0, 10.5, None, 20.0)),
            None,
            None,
            Some(latencies(0.0, 1.0, Some(2.25), 9.0)),
        ];
        assert_eq!(read_text(&text).unwrap(), expected);
    }

    #[test]
    fn a_bad_cell_is_named_with_its_line() {
        let error = read_text(&format!("{HEADER}0,completed,false,a,0,x,,9\n")).unwrap_err();
        assert_eq!(
            error,
            "/requests.csv:2: ttft_ms: found `x`, expected milliseconds"
        );
        let error = read_text("request,outcome\n").unwrap_err();
        assert!(error.contains("found no column `is_warmup`"), "{error}");
    }
}
