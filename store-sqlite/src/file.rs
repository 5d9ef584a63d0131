//! The database file: made for its owner's eyes only, and for one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use cmdexec_core::store::ErrorKind;

use crate::error::{Error, RETRY_AFTER};

/// Holds the database for this process until it is dropped, or the process dies.
///
/// SQLite would let a second process in, and two writers that each believe themselves alone would contradict one
/// another. The lock is on a file of its own, because closing any descriptor of the database would drop SQLite's locks.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: File,
    pub(crate) path: PathBuf,
}

/// Makes the database's directory and file if they are missing, and locks it.
pub(crate) fn claim(path: &Path) -> Result<Claim, Error> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_directory(directory)?;
    open(path)?;
    // Another spelling of the path must lead to the same lock.
    let path = path.canonicalize()?;
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock = open(Path::new(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => Ok(Claim { _lock: lock, path }),
        Err(TryLockError::WouldBlock) => Err(Error::Refused(
            ErrorKind::Unavailable { retry_after: RETRY_AFTER },
            format!("{} is open already; one process at a time may use it", path.display()),
        )),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// SQLite gives its own files beside the database the mode of the database.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a directory and those above it that are missing. Each is synced into the one above: SQLite sees to its files
/// within the directory, but an acknowledged job must not go with a directory that the power failure forgot.
pub(crate) fn make_directory(path: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    for dir in missing {
        let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_directory(above)?;
    }
    Ok(())
}

/// Makes what was made or removed in a directory durable, where directories can be synced.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
