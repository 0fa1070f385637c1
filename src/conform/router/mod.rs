//! `dynosim conform router`: what the real KV router did, case by case, and what ours does.
//!
//! Each file holds one case: `id`, `kind`, `title`, `input`, `expected`. The kinds are described in
//! `tests/golden/router/README.md`; each has its own file here. Everything recorded is compared, costs and probabilities to
//! 1e-9, everything else exactly.

mod approx_ttl;
mod hash;
mod indexer;
mod policy_queue;
mod scheduler_queue;
mod selection;
mod sequences;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// What came of one case.
#[derive(Debug, Serialize)]
pub struct RouterVerdict {
    /// The case.
    pub name: String,
    /// Which part of the router it is about.
    pub kind: String,
    /// Results compared.
    pub compared: u64,
    /// The first difference in words; `None` if there is none.
    pub difference: Option<String>,
}

/// A file.
#[derive(Deserialize)]
struct RouterCase {
    id: String,
    kind: String,
    input: Value,
    expected: Value,
}

/// Results compared, and the first difference if there is one.
type Comparison = (u64, Option<String>);

/// Compares all cases below `path` (a folder, or one `.json`).
pub fn conform_router(path: &Path) -> Result<Vec<RouterVerdict>, Vec<String>> {
    let mut verdicts = Vec::new();
    let mut errors = Vec::new();
    for file in files(path, &[".json"]).map_err(|error| vec![error])? {
        match judge(&file) {
            Ok(verdict) => verdicts.push(verdict),
            Err(error) => errors.push(format!("{}: {error}", file.display())),
        }
    }
    if errors.is_empty() {
        Ok(verdicts)
    } else {
        Err(errors)
    }
}

/// The cases below a path: a folder, or one file. Names of cases have one of the endings; in order of name.
pub(super) fn files(path: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, String> {
    let place = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => place(&"no such file or folder"),
        _ => place(&error),
    })?;
    let is_case = |file: &PathBuf| {
        let name = super::file_name(file);
        endings.iter().any(|ending| name.ends_with(ending))
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_case)
        .collect();
    files.sort();
    if files.is_empty() {
        let patterns: Vec<String> = endings.iter().map(|ending| format!("*{ending}")).collect();
        let what = format!("no recorded cases ({}) here", patterns.join(", "));
        return Err(place(&what));
    }
    Ok(files)
}

fn judge(file: &Path) -> Result<RouterVerdict, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let case: RouterCase = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let RouterCase {
        id: name,
        kind,
        input,
        expected,
    } = case;
    let compare = match &*kind {
        "hash" => hash::compare,
        "indexer" => indexer::compare,
        "selection" => selection::compare,
        "sequences" => sequences::compare,
        "policy_queue" => policy_queue::compare,
        "scheduler_queue" => scheduler_queue::compare,
        "approx_ttl" => approx_ttl::compare,
        _ => {
            return Err(format!(
                "kind {kind}: expected hash, indexer, selection, sequences, policy_queue, scheduler_queue or approx_ttl"
            ));
        }
    };
    let (compared, difference) = compare(input, expected)?;
    Ok(RouterVerdict {
        name,
        kind,
        compared,
        difference,
    })
}

/// Reads a part of a case.
pub(super) fn read<T: DeserializeOwned>(part: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{part}: {error}"))
}

/// The first of several results that differs.
fn first_difference<T: PartialEq + Debug>(recorded: &[T], ours: &[T]) -> Comparison {
    let pairs = recorded.iter().zip(ours).enumerate();
    let difference = pairs
        .into_iter()
        .find_map(|(at, (recorded, ours))| differ(&format!("result {at}"), recorded, ours));
    let length = || differ("number of results", &recorded.len(), &ours.len());
    (recorded.len() as u64, difference.or_else(length))
}

fn differ<T: PartialEq + Debug>(what: &str, recorded: &T, ours: &T) -> Option<String> {
    (recorded != ours)
        .then(|| format!("{what}\n    recorded  {recorded:?}\n    dynosim   {ours:?}"))
}

/// Dense numbers for what cases call by name.
#[derive(Debug)]
struct Names<K>(Vec<K>);

impl<K: PartialEq + Clone> Names<K> {
    fn number(&mut self, name: &K) -> u32 {
        let known = self.0.iter().position(|other| other == name);
        known.unwrap_or_else(|| {
            self.0.push(name.clone());
            self.0.len() - 1
        }) as u32
    }
}

/// Seconds of a case as a time, to the nanosecond.
fn time(seconds: f64) -> engine::Time {
    engine::Time((seconds * 1e9).round() as u64 * 1000)
}
