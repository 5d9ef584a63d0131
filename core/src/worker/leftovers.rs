//! The worker's directory: taken for this worker alone, and cleared of what a crashed predecessor left.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::builder::StartError;
use super::directory::{make_private, remove_tree};
use super::mounts;

/// The directory, for as long as this is held.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    /// Locked while the worker lives; the system unlocks it however the process ends.
    _lock: File,
    /// Made for this worker, and of no use after it.
    temporary: bool,
}

impl WorkDir {
    /// Takes the directory and clears it; or makes one that is removed in the end.
    pub(super) fn take(path: Option<&Path>) -> Result<Self, StartError> {
        let (path, temporary) = match path {
            Some(path) => (path.to_owned(), false),
            // Not from the seed: two workers of one seed are two workers. Nobody can have made it before us: `make_private` refuses what is there.
            None => (std::env::temp_dir().join(format!("cmdexec-worker-{}", Uuid::new_v4().simple())), true),
        };
        let failed = |error: io::Error| StartError::WorkDir { path: path.clone(), error };
        if temporary {
            make_private(&path).map_err(failed)?;
        } else {
            fs::create_dir_all(&path).map_err(failed)?;
        }
        let_through(&path).map_err(failed)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StartError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let work_dir = Self { path: path.clone(), _lock: lock, temporary };
        work_dir.clear().map_err(failed)?;
        Ok(work_dir)
    }

    /// Where attempts have their directories.
    pub(super) fn attempts(&self) -> PathBuf {
        self.path.join("attempts")
    }

    /// Where unpacked inputs are kept.
    pub(super) fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
    }

    fn clear(&self) -> io::Result<()> {
        self.unmount()?;
        let attempts = self.attempts();
        match fs::symlink_metadata(&attempts) {
            Ok(metadata) if metadata.is_dir() => {
                for entry in fs::read_dir(&attempts)? {
                    let entry = entry?;
                    tracing::info!(path = %entry.path().display(), "removing what an earlier worker left");
                    let removed = if entry.file_type()?.is_dir() {
                        remove_tree(&entry.path())
                    } else {
                        fs::remove_file(entry.path())
                    };
                    // Something still holds it, such as a mount; new attempts have other names.
                    if let Err(error) = removed {
                        tracing::warn!(path = %entry.path().display(), %error, "it could not be removed");
                    }
                }
            }
            Ok(_) => fs::remove_file(&attempts)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if !attempts.exists() {
            make_private(&attempts)?;
        }
        let_through(&attempts)
    }

    /// Takes away what a worker mounts, which is all at `attempts` or below it. The directory itself may be a disk of its own, and stays one.
    fn unmount(&self) -> io::Result<()> {
        let attempts = self.attempts();
        match fs::symlink_metadata(&attempts) {
            Ok(metadata) if metadata.is_dir() => mounts::detach_below(&attempts),
            _ => Ok(()),
        }
    }
}

/// Lets others through a directory, and no more. Jobs run as other users than the worker where it may do so: they must get
/// to their own directories, and see nobody else's.
#[cfg(unix)]
fn let_through(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(directory)?.permissions().mode();
    if mode & 0o011 == 0o011 {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o011))
}

#[cfg(not(unix))]
fn let_through(_: &Path) -> io::Result<()> {
    Ok(())
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What the jobs of a worker that ended in a hurry had mounted, and the directory that it was mounted in.
        if let Err(error) = self.unmount() {
            tracing::warn!(path = %self.path.display(), %error, "what was mounted there could not be unmounted");
            return;
        }
        if self.temporary {
            // Attempts remove their own directories; this is little more than the lock.
            if let Err(error) = remove_tree(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "the worker's directory could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_predecessor_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        fs::create_dir_all(work.join("attempts/left/deep")).unwrap();
        fs::write(work.join("attempts/left.zip"), "x").unwrap();
        fs::write(work.join("id"), "kept").unwrap();
        let taken = WorkDir::take(Some(&work)).unwrap();
        assert_eq!(fs::read_dir(taken.attempts()).unwrap().count(), 0);
        assert!(work.join("id").exists());
        drop(taken);
        assert!(work.exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_of_its_own_stays_where_it_is() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let dir = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        if mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), none).is_err() {
            println!("nothing may be mounted here");
            return;
        }
        fs::write(dir.path().join("id"), "kept").unwrap();
        for _ in 0..2 {
            let taken = WorkDir::take(Some(dir.path())).unwrap();
            let below = taken.attempts().join("attempt");
            fs::create_dir(&below).unwrap();
            mount(none, &below, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            fs::write(below.join("file"), "x").unwrap();
            drop(taken);
            assert!(dir.path().join("id").exists() && !below.join("file").exists());
        }
        umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
    }

    #[test]
    fn one_worker_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = WorkDir::take(Some(dir.path())).unwrap();
        assert!(matches!(WorkDir::take(Some(dir.path())), Err(StartError::InUse { .. })));
        drop(first);
        WorkDir::take(Some(dir.path())).unwrap();
    }

    #[test]
    fn a_temporary_one_is_removed_in_the_end() {
        let taken = WorkDir::take(None).unwrap();
        let path = taken.path.clone();
        assert!(path.join("attempts").is_dir());
        drop(taken);
        assert!(!path.exists());
    }
}
