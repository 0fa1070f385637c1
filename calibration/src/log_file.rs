//! A log of somebody's run: its text (plain, gzip or zstd), the digest that names it, and what is wrong with it.
//!
//! Logs are read whole: a day of steps is some hundred megabytes, and every fit needs all of it. Problems are collected
//! with their line, so that one run shows everything there is to repair.

use crate::error::{CalibrationError, Problem, check};
use flate2::read::MultiGzDecoder;
use std::fmt::Display;
use std::io::{self, Read};
use std::path::Path;

/// Problems kept in full; the others are counted.
const SHOWN: usize = 20;

/// The contents of one file.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// The file, as the caller named it.
    pub name: String,
    /// BLAKE3 of the bytes on disk, in hexadecimal.
    pub digest: String,
    text: String,
}

impl LogFile {
    /// Reads a file; the compression is told by its first bytes.
    ///
    /// # Errors
    /// A file that cannot be read, compressed data that is damaged or cut off, or text that is not UTF-8.
    pub fn read(path: &Path) -> Result<LogFile, CalibrationError> {
        let read = || -> io::Result<(String, Vec<u8>)> {
            let bytes = std::fs::read(path)?;
            let digest = blake3::hash(&bytes).to_hex().to_string();
            Ok((digest, unpacked(bytes)?))
        };
        let (digest, bytes) = read().map_err(|source| CalibrationError::Read {
            path: path.to_owned(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..good]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let place = format!("{}:{line}", path.display());
            CalibrationError::Invalid(vec![Problem::new(&place, "bytes", "text in UTF-8")])
        })?;
        Ok(LogFile {
            name: path.display().to_string(),
            digest,
            text,
        })
    }

    /// A log that is not on disk.
    #[must_use]
    pub fn from_text(name: &str, text: &str) -> LogFile {
        LogFile {
            name: name.to_owned(),
            digest: blake3::hash(text.as_bytes()).to_hex().to_string(),
            text: text.to_owned(),
        }
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines that are not blank, with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.text.lines().map(str::trim));
        lines.filter(|(_, line)| !line.is_empty())
    }
}

fn unpacked(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain)?;
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        zstd::stream::read::Decoder::new(bytes.as_slice())?.read_to_end(&mut plain)?;
    } else {
        plain = bytes;
    }
    Ok(plain)
}

/// What is wrong with a log, by line.
#[derive(Debug)]
pub struct Findings<'a> {
    file: &'a str,
    shown: Vec<Problem>,
    more: usize,
}

impl<'a> Findings<'a> {
    /// Nothing wrong so far.
    #[must_use]
    pub fn new(file: &'a str) -> Self {
        Findings {
            file,
            shown: Vec::new(),
            more: 0,
        }
    }

    /// Adds a problem; `line` 0 means the file as a whole, an empty field the line as a whole.
    pub fn add(
        &mut self,
        line: usize,
        field: &str,
        found: impl Display,
        expected: impl Into<String>,
        suggestion: &str,
    ) {
        if self.shown.len() == SHOWN {
            self.more += 1;
            return;
        }
        let mut place = self.file.to_owned();
        if line > 0 {
            place += &format!(":{line}");
        }
        if !field.is_empty() {
            place += &format!(": {field}");
        }
        let problem = Problem::new(&place, found, expected);
        self.shown.push(match suggestion {
            "" => problem,
            suggestion => problem.suggest(suggestion),
        });
    }

    /// True while nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// All of it as one error.
    ///
    /// # Errors
    /// Whenever a problem was added.
    pub fn finish(mut self) -> Result<(), CalibrationError> {
        if self.more > 0 {
            let found = format!("{} more problems", self.more);
            self.shown.push(Problem::new(self.file, found, "none"));
        }
        check(self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn plain_gzip_and_zstd_read_alike_and_cut_off_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "{\"a\":1}\n\n  {\"a\":2}\n".repeat(200);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).expect("memory");
        let gzip = gzip.finish().expect("memory");
        let zstd = zstd::encode_all(text.as_bytes(), 1).expect("memory");
        let cut = gzip[..gzip.len() / 2].to_vec();
        for (name, bytes) in [("a", text.into_bytes()), ("b", gzip), ("c", zstd)] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            let log = LogFile::read(&path).expect("good");
            let lines: Vec<(usize, &str)> = log.lines().collect();
            assert_eq!(lines[..2], [(1, "{\"a\":1}"), (3, "{\"a\":2}")]);
        }
        let path = folder.path().join("cut");
        std::fs::write(&path, cut).expect("written");
        assert!(matches!(
            LogFile::read(&path),
            Err(CalibrationError::Read { .. })
        ));
        std::fs::write(&path, b"good\n\xff\xfe").expect("written");
        let error = LogFile::read(&path).expect_err("no text").to_string();
        assert!(error.contains("cut:2"), "{error}");
    }

    #[test]
    fn problems_beyond_twenty_are_counted() {
        let mut findings = Findings::new("log");
        for line in 1..=25 {
            findings.add(line, "t", "-1", "at least 0", "");
        }
        let error = findings.finish().expect_err("25 problems").to_string();
        assert!(
            error.starts_with("log:1: t: found -1, expected at least 0\n"),
            "{error}"
        );
        assert!(
            error.ends_with("log: found 5 more problems, expected none"),
            "{error}"
        );
    }
}
