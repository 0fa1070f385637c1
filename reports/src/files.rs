//! Files are written whole or not at all: first under a temporary name in the same folder, then renamed.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A result that could not be written or read back.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}: {reason}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What was tried: `write`, `read`, ...
    pub action: &'static str,
    /// Why it failed.
    pub reason: String,
}

impl Error {
    pub(crate) fn new(path: &Path, action: &'static str, reason: &dyn std::fmt::Display) -> Error {
        Error {
            path: path.to_owned(),
            action,
            reason: reason.to_string(),
        }
    }
}

/// Writes a file through `fill`; the old content stays until everything is on its way to the disk.
///
/// # Errors
/// When the folder does not exist or cannot be written, the disk is full, or `fill` fails. Nothing is left behind.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>,
) -> Result<(), Error> {
    replace_atomically(path, |temporary| {
        let mut out = BufWriter::new(fs::File::create(temporary)?);
        fill(&mut out)?;
        out.flush()
    })
}

/// As [`write_atomically`] for writers that insist on a path; the temporary file keeps the extension of `path`.
pub(crate) fn replace_atomically(
    path: &Path,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), Error> {
    let failed = |reason: io::Error| Error::new(path, "write", &reason);
    let name = path
        .file_name()
        .ok_or_else(|| failed(io::Error::other("this is not the name of a file")))?;
    let mut temporary_name = std::ffi::OsString::from(format!(".{}.", std::process::id()));
    temporary_name.push(name);
    let temporary = path.with_file_name(temporary_name);
    let written = fill(&temporary).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; a leftover that cannot be removed changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        write_atomically(&path, |out| out.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |out| {
            out.write_all(b"half of the new")?;
            Err(io::Error::other("disk full"))
        })
        .unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(
            error.to_string().contains("rows.csv") && error.to_string().contains("disk full"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_folder_is_an_error_with_the_path() {
        let error = write_atomically(Path::new("/no/such/folder/x.json"), |_| Ok(())).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/no/such/folder/x.json: cannot write"),
            "{error}"
        );
    }
}
