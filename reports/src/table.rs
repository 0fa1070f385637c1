//! Rows with typed cells, written as CSV or Parquet in the order given.
//!
//! A column takes the narrowest type that holds all its cells: counts, then numbers, then text; flags stay flags. An empty
//! cell is an empty field in CSV and a null in Parquet. Numbers that are not finite are written as empty cells.

use crate::files::{Error, write_atomically};
use polars::prelude::{Column, DataFrame, ParquetWriter};
use std::io::{self, Write};
use std::path::Path;

/// A table; all rows are as long as `columns`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// One value of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A whole number.
    Count(u64),
    /// Any number.
    Number(f64),
    /// Words.
    Text(String),
    /// Yes or no: `true` or `false` in CSV.
    Flag(bool),
    /// Nothing known.
    Empty,
}

impl From<u64> for Cell {
    fn from(count: u64) -> Cell {
        Cell::Count(count)
    }
}

impl From<u32> for Cell {
    fn from(count: u32) -> Cell {
        Cell::Count(u64::from(count))
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Cell {
        if number.is_finite() {
            Cell::Number(number)
        } else {
            Cell::Empty
        }
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Cell {
        Cell::Flag(flag)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Empty, Into::into)
    }
}

impl Cell {
    fn number(&self) -> Option<f64> {
        match self {
            Cell::Count(count) => Some(*count as f64),
            Cell::Number(number) => Some(*number).filter(|number| number.is_finite()),
            _ => None,
        }
    }

    /// As CSV shows it.
    fn text(&self) -> Option<String> {
        match self {
            Cell::Count(count) => Some(count.to_string()),
            Cell::Number(number) => number.is_finite().then(|| number.to_string()),
            Cell::Text(text) => Some(text.clone()),
            Cell::Flag(flag) => Some(flag.to_string()),
            Cell::Empty => None,
        }
    }
}

impl Table {
    /// A table without rows.
    ///
    /// # Panics
    /// When two columns have the same name.
    #[must_use]
    pub fn new(columns: Vec<String>) -> Table {
        let mut names: Vec<&String> = columns.iter().collect();
        names.sort_unstable();
        assert!(
            names.windows(2).all(|pair| pair[0] != pair[1]),
            "the columns of a table have different names"
        );
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has more or fewer cells than there are columns.
    pub fn push(&mut self, row: Vec<Cell>) {
        assert!(
            row.len() == self.columns.len(),
            "a row has one cell per column"
        );
        self.rows.push(row);
    }

    /// The names of the columns.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows, first to last.
    #[must_use]
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// Writes the table in the format that the extension names: `.csv` or `.parquet`.
    ///
    /// # Errors
    /// Another extension, or a file that cannot be written; nothing half-written is left.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => write_atomically(path, |out| self.csv(out)),
            Some("parquet") => write_atomically(path, |out| self.parquet(out)),
            _ => Err(Error::new(
                path,
                "write",
                &"a table is a .csv or a .parquet file",
            )),
        }
    }

    /// Writes the table as CSV with a header; lines end in a line feed.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn csv(&self, out: impl Write) -> io::Result<()> {
        let mut writer = csv::WriterBuilder::new().from_writer(out);
        writer.write_record(&self.columns)?;
        for row in &self.rows {
            writer.write_record(row.iter().map(|cell| cell.text().unwrap_or_default()))?;
        }
        writer.flush()
    }

    fn parquet(&self, out: impl Write) -> io::Result<()> {
        let columns = (0..self.columns.len())
            .map(|index| self.column(index))
            .collect();
        let mut frame = DataFrame::new(self.rows.len(), columns).map_err(io::Error::other)?;
        ParquetWriter::new(out)
            .set_parallel(false)
            .finish(&mut frame)
            .map_err(io::Error::other)?;
        Ok(())
    }

    fn column(&self, index: usize) -> Column {
        let name = self.columns[index].as_str().into();
        let cells = || self.rows.iter().map(|row| &row[index]);
        let all =
            |holds: fn(&Cell) -> bool| cells().all(|cell| *cell == Cell::Empty || holds(cell));
        if all(|cell| matches!(cell, Cell::Count(_))) && cells().any(|cell| *cell != Cell::Empty) {
            let count = |cell: &Cell| {
                if let Cell::Count(count) = cell {
                    Some(*count)
                } else {
                    None
                }
            };
            Column::new(name, cells().map(count).collect::<Vec<_>>())
        } else if all(|cell| matches!(cell, Cell::Count(_) | Cell::Number(_))) {
            Column::new(name, cells().map(Cell::number).collect::<Vec<_>>())
        } else if all(|cell| matches!(cell, Cell::Flag(_))) {
            let flag = |cell: &Cell| {
                if let Cell::Flag(flag) = cell {
                    Some(*flag)
                } else {
                    None
                }
            };
            Column::new(name, cells().map(flag).collect::<Vec<_>>())
        } else {
            Column::new(name, cells().map(Cell::text).collect::<Vec<_>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::{AnyValue, DataType, ParquetReader, SerReader};

    fn sample() -> Table {
        let columns = ["workers", "rate", "name", "is_feasible", "missing", "mixed"];
        let mut table = Table::new(columns.map(str::to_owned).to_vec());
        table.push(vec![
            4u64.into(),
            0.1.into(),
            "a, \"b\"".into(),
            true.into(),
            Cell::Empty,
            1u64.into(),
        ]);
        table.push(vec![
            Cell::Empty,
            3u64.into(),
            "é".into(),
            false.into(),
            Cell::Empty,
            "two".into(),
        ]);
        table.push(vec![
            u64::MAX.into(),
            f64::NAN.into(),
            Cell::Empty,
            Cell::Empty,
            Cell::Empty,
            0.5.into(),
        ]);
        table
    }

    #[test]
    fn csv_by_the_letter() {
        let mut out = Vec::new();
        sample().csv(&mut out).unwrap();
        let expected = "workers,rate,name,is_feasible,missing,mixed\n\
            4,0.1,\"a, \"\"b\"\"\",true,,1\n\
            ,3,é,false,,two\n\
            18446744073709551615,,,,,0.5\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn parquet_round_trip_keeps_types_nulls_and_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        sample().write(&path).unwrap();
        let frame = ParquetReader::new(std::fs::File::open(&path).unwrap())
            .finish()
            .unwrap();
        assert_eq!(
            frame
                .get_column_names_owned()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            sample().columns()
        );
        let types: Vec<DataType> = frame.dtypes();
        use DataType::{Boolean, Float64, String, UInt64};
        assert_eq!(types, [UInt64, Float64, String, Boolean, Float64, String]);
        let cell = |row: usize, column: &str| {
            frame
                .column(column)
                .unwrap()
                .get(row)
                .unwrap()
                .into_static()
        };
        assert_eq!(cell(0, "workers"), AnyValue::UInt64(4));
        assert_eq!(cell(1, "workers"), AnyValue::Null);
        assert_eq!(cell(2, "workers"), AnyValue::UInt64(u64::MAX));
        assert_eq!(
            [cell(0, "rate"), cell(1, "rate"), cell(2, "rate")],
            [0.1.into(), 3.0.into(), AnyValue::Null]
        );
        assert_eq!(cell(0, "name").get_str(), Some("a, \"b\""));
        assert_eq!(
            [cell(1, "is_feasible"), cell(2, "is_feasible")],
            [AnyValue::Boolean(false), AnyValue::Null]
        );
        assert_eq!(
            [cell(0, "mixed").get_str(), cell(2, "mixed").get_str()],
            [Some("1"), Some("0.5")]
        );
        assert_eq!(frame.column("missing").unwrap().null_count(), 3);
    }

    #[test]
    fn the_same_table_gives_the_same_bytes() {
        let bytes = || {
            let mut out = Vec::new();
            sample().parquet(&mut out).unwrap();
            out
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn an_empty_table_has_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::new(vec!["a".to_owned(), "b".to_owned()]);
        for name in ["t.csv", "t.parquet"] {
            table.write(&folder.path().join(name)).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(folder.path().join("t.csv")).unwrap(),
            "a,b\n"
        );
        let file = std::fs::File::open(folder.path().join("t.parquet")).unwrap();
        assert_eq!(ParquetReader::new(file).finish().unwrap().shape(), (0, 2));
    }

    #[test]
    fn other_extensions_are_refused() {
        let error = sample()
            .write(Path::new("/tmp/rows.xlsx"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("rows.xlsx") && error.contains(".parquet"),
            "{error}"
        );
    }
}
