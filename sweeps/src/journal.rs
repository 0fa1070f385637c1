//! Finished points on disk, so that a sweep killed at any moment goes on where it was.
//!
//! One JSON line per finished point, appended with a single write and flushed to the operating system: a killed process
//! leaves whole lines and at most one torn last line. Each line carries a checksum over its text. Opening reads all
//! lines: a torn last line is cut off (its point runs again), a damaged line elsewhere is reported and skipped, and what
//! is left is a map from the digest of a point to its result. The digest covers all that a result depends on, so a
//! journal may serve many sweeps, and a wider grid only runs what is new. A lock keeps two sweeps from one journal.
//!
//! ```json
//! {"check":"3f1c...16 digits","point":{"digest":"9a0b...64 digits","result":{...}}}
//! ```

use crate::digest::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

const BEFORE_CHECK: &[u8] = b"{\"check\":\"";
const BEFORE_POINT: &[u8] = b"\",\"point\":";
const CHECK_DIGITS: usize = 16;

/// An open journal of results of type `T`.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    file: File,
    done: BTreeMap<Digest, T>,
    damage: Vec<Damage>,
}

/// A line that could not be used. Its point is run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A journal that cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    #[error("{path}: cannot {action} the journal: {source}", path = .path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "{path}: another sweep is writing this journal, expected none: wait for it or choose another folder",
        path = .path.display()
    )]
    InUse {
        /// The journal.
        path: PathBuf,
    },
}

#[derive(Serialize)]
struct Entry<'a, T> {
    digest: Digest,
    result: &'a T,
}

#[derive(Deserialize)]
struct OwnedEntry<T> {
    digest: Digest,
    result: T,
}

impl<T: Serialize + DeserializeOwned + PartialEq> Journal<T> {
    /// Opens the journal at `path`, creating it if need be. `is_fresh` empties it first.
    ///
    /// # Errors
    /// The file cannot be used, or another process is using it. Damaged lines are no error: see [`Journal::damage`].
    pub fn open(path: &Path, is_fresh: bool) -> Result<Journal<T>, JournalError> {
        let error = |action| {
            move |source| JournalError::Io {
                path: path.to_owned(),
                action,
                source,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(error("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::InUse {
                    path: path.to_owned(),
                });
            }
            // Some network file systems have no locks; a journal without one is still a journal.
            Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(error("lock")(source)),
        }
        if is_fresh {
            file.set_len(0).map_err(error("empty"))?;
        }
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            done: BTreeMap::new(),
            damage: Vec::new(),
        };
        journal.load().map_err(error("read"))?;
        Ok(journal)
    }

    /// The result of a point, if it has been finished before.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&T> {
        self.done.get(digest)
    }

    /// Number of different points in the journal when it was opened.
    #[must_use]
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// True when no point was finished before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Lines that were skipped on opening.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a finished point: one write of one line. When it returns, the line survives the death of the process.
    ///
    /// # Errors
    /// The write failed; a part of the line may be on disk and is cut off by the next opening.
    pub fn append(&self, digest: Digest, result: &T) -> Result<(), JournalError> {
        let error = |source| JournalError::Io {
            path: self.path.clone(),
            action: "write",
            source,
        };
        let line = encode(digest, result).map_err(|source| error(source.into()))?;
        let mut file = &self.file;
        file.write_all(&line)
            .and_then(|()| file.flush())
            .map_err(error)
    }

    fn load(&mut self) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, self.file.try_clone()?);
        let (mut line, mut number, mut offset) = (Vec::new(), 0, 0u64);
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)? as u64;
            if length == 0 {
                return Ok(());
            }
            number += 1;
            let is_whole = line.pop_if(|last| *last == b'\n').is_some();
            match decode(&line) {
                Ok(entry) => self.remember(number, entry),
                Err(_) if !is_whole => return self.file.set_len(offset),
                Err(reason) => self.damage.push(Damage {
                    line: number,
                    reason,
                }),
            }
            if !is_whole {
                return (&self.file).write_all(b"\n");
            }
            offset += length;
        }
    }

    fn remember(&mut self, line: usize, entry: OwnedEntry<T>) {
        if self
            .done
            .get(&entry.digest)
            .is_some_and(|before| *before != entry.result)
        {
            let reason = "differs from an earlier result of the same point; the later one is used";
            self.damage.push(Damage { line, reason });
        }
        self.done.insert(entry.digest, entry.result);
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

fn encode<T: Serialize>(digest: Digest, result: &T) -> Result<Vec<u8>, serde_json::Error> {
    let point = serde_json::to_vec(&Entry { digest, result })?;
    let mut line = Vec::with_capacity(point.len() + 48);
    line.extend_from_slice(BEFORE_CHECK);
    line.extend_from_slice(checksum(&point).as_bytes());
    line.extend_from_slice(BEFORE_POINT);
    line.extend_from_slice(&point);
    line.extend_from_slice(b"}\n");
    Ok(line)
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<OwnedEntry<T>, &'static str> {
    const SHAPE: &str = "not a line of a journal; its point is run again";
    let rest = line.strip_prefix(BEFORE_CHECK).ok_or(SHAPE)?;
    let (check, rest) = rest.split_at_checked(CHECK_DIGITS).ok_or(SHAPE)?;
    let point = rest
        .strip_prefix(BEFORE_POINT)
        .and_then(|rest| rest.strip_suffix(b"}"))
        .ok_or(SHAPE)?;
    if checksum(point).as_bytes() != check {
        return Err("damaged (its checksum differs); its point is run again");
    }
    serde_json::from_slice(point).map_err(|_| "written by another version; its point is run again")
}

fn checksum(point: &[u8]) -> String {
    let mut text = blake3::hash(point).to_hex().to_string();
    text.truncate(CHECK_DIGITS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest_parts;
    use std::fs;

    type Result3 = Vec<f64>;

    fn digest(index: u8) -> Digest {
        digest_parts("test", &[&[index]])
    }

    fn result(index: u8) -> Result3 {
        vec![f64::from(index), 1.0 / 3.0]
    }

    fn three_points(path: &Path) -> Vec<u8> {
        let journal = Journal::<Result3>::open(path, true).unwrap();
        (0..3).for_each(|index| journal.append(digest(index), &result(index)).unwrap());
        fs::read(path).unwrap()
    }

    #[test]
    fn a_journal_cut_at_any_byte_loses_only_the_torn_point() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let whole = three_points(&path);
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let journal = Journal::<Result3>::open(&path, false).unwrap();
            // A line that lacks only its newline is complete.
            let complete = whole
                .iter()
                .enumerate()
                .filter(|&(at, byte)| *byte == b'\n' && at <= cut)
                .count();
            assert_eq!(journal.len(), complete, "cut at {cut}");
            assert!(
                journal.damage().is_empty(),
                "cut at {cut}: {:?}",
                journal.damage()
            );
            for index in 0..3 {
                match journal.get(&digest(index)) {
                    Some(found) => assert_eq!(*found, result(index)),
                    None => journal.append(digest(index), &result(index)).unwrap(),
                }
            }
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}, resumed");
        }
    }

    #[test]
    fn a_changed_byte_is_reported_and_never_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let whole = three_points(&path);
        let ends: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] == b'\n').collect();
        for at in 0..=ends[1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let journal = Journal::<Result3>::open(&path, false).unwrap();
            assert!(!journal.damage().is_empty(), "byte {at}");
            assert_eq!(journal.damage()[0].line, if at <= ends[0] { 1 } else { 2 });
            for index in 0..3 {
                assert!(
                    journal
                        .get(&digest(index))
                        .is_none_or(|found| *found == result(index)),
                    "byte {at}"
                );
            }
            let line = ends.iter().filter(|&&end| end < at).count() as u8;
            assert!(journal.get(&digest(line)).is_none(), "byte {at}");
        }
    }

    #[test]
    fn fresh_forgets_and_a_second_writer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        three_points(&path);
        let journal = Journal::<Result3>::open(&path, true).unwrap();
        assert!(journal.is_empty());
        assert!(matches!(
            Journal::<Result3>::open(&path, false),
            Err(JournalError::InUse { .. })
        ));
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn results_that_contradict_each_other_are_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let journal = Journal::<Result3>::open(&path, true).unwrap();
        for value in [1.0, 1.0, 2.0] {
            journal.append(digest(0), &vec![value]).unwrap();
        }
        drop(journal);
        let journal = Journal::<Result3>::open(&path, false).unwrap();
        assert_eq!(journal.get(&digest(0)), Some(&vec![2.0]));
        assert_eq!(
            journal
                .damage()
                .iter()
                .map(|damage| damage.line)
                .collect::<Vec<_>>(),
            [3]
        );
    }

    #[test]
    fn another_type_of_result_is_reported_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        three_points(&path);
        let journal = Journal::<String>::open(&path, false).unwrap();
        assert_eq!(journal.damage().len(), 3);
        assert!(
            journal.damage()[0]
                .to_string()
                .starts_with("line 1: written by another version")
        );
    }
}
