//! Files are written whole or not at all: first under a temporary name in the same folder, then renamed.
//!
//! What stands under the name decides how:
//!
//! * nothing, or a file: written beside it and renamed over it, with the permissions of the old one;
//! * a link: the file it leads to is written so, and the link stays;
//! * a pipe, a device, standard output: these cannot be replaced and take the bytes as they come;
//! * a folder: an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

/// Links followed before they are taken for a circle, as Linux does.
const MOST_LINKS: usize = 40;

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

/// What a name leads to.
enum Target {
    /// A regular file, or none yet, under this name; the permissions of the old one.
    Replaced(PathBuf, Option<fs::Permissions>),
    /// Something that takes bytes and stays what it is.
    InPlace(File),
}

/// Writes a file through `fill`; the old content stays until the new one is on the disk.
///
/// # Errors
/// When the folder does not exist or cannot be written, the disk is full, or `fill` fails. Nothing is left behind.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Error> {
    let written = target(path).and_then(|target| match target {
        Target::InPlace(file) => filled(file, fill).map(|_| ()),
        Target::Replaced(path, permissions) => replace(&path, permissions, fill),
    });
    written.map_err(|error| Error::new(path, "write", &reason(path, &error)))
}

fn replace(
    path: &Path,
    permissions: Option<fs::Permissions>,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("this is not the name of a file"))?;
    let mut temporary_name = std::ffi::OsString::from(format!(".{}.", std::process::id()));
    temporary_name.push(name);
    let temporary = path.with_file_name(temporary_name);
    let written = File::create(&temporary)
        .and_then(|file| filled(file, fill))
        .and_then(|file| {
            permissions.map_or(Ok(()), |permissions| file.set_permissions(permissions))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell; a leftover that cannot be removed changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn filled(
    file: File,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<File> {
    let mut out = BufWriter::new(file);
    fill(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Follows links to what is to be written.
fn target(path: &Path) -> io::Result<Target> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Some(stream) = standard_stream(&path) {
            return stream.map(Target::InPlace);
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {
                return Ok(Target::Replaced(path, Some(found.permissions())));
            }
            Ok(found) if found.is_dir() => {
                return Err(io::Error::other("this is a folder, expected a file"));
            }
            // What an open file of a process is called says how to open it, not where it is.
            Ok(found) if found.is_symlink() && !is_of_a_process(&path) => {
                path = path.with_file_name("").join(fs::read_link(&path)?);
            }
            Ok(_) => {
                return OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .map(Target::InPlace);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Target::Replaced(path, None));
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("its links lead around in a circle"))
}

/// `/proc/self/fd/63`, `/dev/fd/63`: the shell's `>(command)`.
fn is_of_a_process(path: &Path) -> bool {
    path.parent()
        .is_some_and(|folder| folder == Path::new("/dev/fd") || folder.starts_with("/proc"))
}

/// Standard output and error by their names, shared with everything else that is printed there.
#[cfg(unix)]
fn standard_stream(path: &Path) -> Option<io::Result<File>> {
    use std::os::fd::AsFd;
    let shared = |stream: std::os::fd::BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from);
    match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(shared(io::stdout().as_fd())),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(shared(io::stderr().as_fd())),
        _ => None,
    }
}

#[cfg(not(unix))]
fn standard_stream(_: &Path) -> Option<io::Result<File>> {
    None
}

/// What stands in the way, in words.
fn reason(path: &Path, error: &io::Error) -> String {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => {
            format!(
                "found no folder {}, expected one: make it first",
                folder.display()
            )
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
        assert_eq!(
            error.to_string(),
            "/no/such/folder/x.json: cannot write: found no folder /no/such/folder, expected one: make it first"
        );
    }

    #[test]
    fn a_folder_in_the_place_of_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("taken/inside")).unwrap();
        let error =
            write_atomically(&folder.path().join("taken"), |out| out.write_all(b"x")).unwrap_err();
        assert!(error.to_string().contains("this is a folder"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    mod on_unix {
        use super::*;
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

        #[test]
        fn a_link_stays_and_its_file_is_written() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("store")).unwrap();
            fs::write(at("store/file"), "old").unwrap();
            fs::set_permissions(at("store/file"), fs::Permissions::from_mode(0o600)).unwrap();
            symlink("store/file", at("near")).unwrap();
            symlink(at("near"), at("far")).unwrap();
            symlink("store/new", at("dangling")).unwrap();
            symlink("circle", at("circle")).unwrap();
            write_atomically(&at("far"), |out| out.write_all(b"new")).unwrap();
            assert_eq!(fs::read_to_string(at("store/file")).unwrap(), "new");
            let mode = fs::metadata(at("store/file")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "a private file stays private");
            write_atomically(&at("dangling"), |out| out.write_all(b"first")).unwrap();
            assert_eq!(fs::read_to_string(at("store/new")).unwrap(), "first");
            for link in ["near", "far", "dangling"] {
                assert!(
                    fs::symlink_metadata(at(link)).unwrap().is_symlink(),
                    "{link}"
                );
            }
            let error = write_atomically(&at("circle"), |_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("in a circle"), "{error}");
            assert_eq!(fs::read_dir(at("store")).unwrap().count(), 2);
        }

        #[test]
        fn a_pipe_and_a_device_take_the_bytes_and_stay() {
            let folder = tempfile::tempdir().unwrap();
            let pipe = folder.path().join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.expect("mkfifo is part of POSIX").success());
            let reader = {
                let pipe = pipe.clone();
                std::thread::spawn(move || fs::read_to_string(pipe).unwrap())
            };
            write_atomically(&pipe, |out| out.write_all(b"through")).unwrap();
            assert_eq!(reader.join().unwrap(), "through");
            assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
            // By a link, so that a mistake would replace the link and not the device.
            let null = folder.path().join("null");
            symlink("/dev/null", &null).unwrap();
            write_atomically(&null, |out| out.write_all(b"nowhere")).unwrap();
            assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
            assert!(
                fs::metadata("/dev/null")
                    .unwrap()
                    .file_type()
                    .is_char_device()
            );
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }
}
