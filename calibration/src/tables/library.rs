//! Where profiles are found: in a folder of imported files, or among the embedded ones.
//!
//! A file is read once in the life of the program and shared by everything that asks for it.

use super::{Backend, Profile, file};
use crate::error::CalibrationError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Every profile that was read or made, for good: there are a handful, and step times borrow them.
static SHELF: Mutex<BTreeMap<(PathBuf, String), &'static Profile>> = Mutex::new(BTreeMap::new());

/// The profile of a GPU and engine: from `folder` if it is there, else an embedded one.
///
/// # Errors
/// Files that cannot be read or are not tables, or no profile of this GPU and engine.
pub fn find(
    folder: Option<&Path>,
    gpu: &str,
    backend: Backend,
) -> Result<&'static Profile, CalibrationError> {
    let imported = match folder {
        Some(folder) => imported(folder, gpu, backend)?,
        None => None,
    };
    match imported {
        Some(profile) => Ok(profile),
        None => Profile::embedded(gpu, backend),
    }
}

/// The profile `name`, made at the first call.
pub(crate) fn shelved(
    folder: Option<&Path>,
    name: &str,
    make: impl FnOnce() -> Profile,
) -> &'static Profile {
    let key = (folder.unwrap_or(Path::new("")).to_owned(), name.to_owned());
    let mut shelf = SHELF.lock().unwrap_or_else(PoisonError::into_inner);
    shelf
        .entry(key)
        .or_insert_with(|| Box::leak(Box::new(make())))
}

/// The file of the newest version of this GPU and engine.
fn imported(
    folder: &Path,
    gpu: &str,
    backend: Backend,
) -> Result<Option<&'static Profile>, CalibrationError> {
    let unreadable = |source| CalibrationError::Read {
        path: folder.to_owned(),
        source,
    };
    let prefix = format!("{gpu}-{}-", backend.name());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".tables") {
            names.push(name);
        }
    }
    let Some(name) = names.into_iter().max_by_key(|name| version(name)) else {
        return Ok(None);
    };
    let path = folder.join(&name);
    let key = (folder.to_owned(), name);
    let shelf = || SHELF.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(profile) = shelf().get(&key) {
        return Ok(Some(profile));
    }
    let bytes = std::fs::read(&path).map_err(|source| CalibrationError::Read {
        path: path.clone(),
        source,
    })?;
    let profile = file::decode(&path.display().to_string(), &bytes)?;
    Ok(Some(
        shelf()
            .entry(key)
            .or_insert_with(|| Box::leak(Box::new(profile))),
    ))
}

/// The numbers in a name, for comparison.
fn version(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}
