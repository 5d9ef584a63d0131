//! The directory of one attempt: made cheaply, and removed whatever the job left in it.

use std::any::Any;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::spares::Spare;

/// How deep a tree is descended into before the rest is moved up. Keeps paths within what systems take
/// (4,096 bytes, at 255 a name) and the stack small, however deep the job has dug.
const DEEPEST: usize = 8;

/// A directory that one attempt has for itself.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    layer: Arc<Layer>,
    /// What shows that it may be used again.
    pub(super) spare: Option<Spare>,
}

/// What may be mounted at an attempt's directory, while the attempt has it. Mounting is another thread's work, which may still be at
/// it when the directory is to go.
#[derive(Debug)]
pub(super) struct Layer {
    at: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Plain,
    /// Something is mounted, and what is below it must stay as it is.
    Mounted(Box<dyn Any + Send>),
    Gone,
}

impl Layer {
    /// Where the changes to what is mounted are kept.
    fn changes(&self) -> PathBuf {
        let mut path = self.at.clone().into_os_string();
        path.push(".layer");
        path.into()
    }

    /// Mounts something by `mount`, which is given the directory and another that it is to make. `below` is held until it is unmounted.
    #[cfg_attr(not(launcher), expect(dead_code, reason = "only Linux has such mounts"))]
    pub(super) fn mount(
        &self,
        below: impl Any + Send,
        mount: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Gone) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Before it is done: what was mounted in part is to be unmounted too.
        *state = State::Mounted(Box::new(below));
        mount(&self.at, &self.changes())
    }

    /// Nothing is mounted, nor will be; false if something is.
    fn close(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Plain) {
            *state = State::Gone;
        }
        matches!(*state, State::Gone)
    }

    /// Unmounts what is mounted, for good. True if something was.
    fn unmount(&self) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Mounted(below) = std::mem::replace(&mut *state, State::Gone) else { return Ok(false) };
        let unmounted = unmount(&self.at);
        if unmounted.is_err() {
            *state = State::Mounted(below);
        }
        unmounted.map(|()| true)
    }
}

#[cfg(target_os = "linux")]
fn unmount(at: &Path) -> io::Result<()> {
    use nix::errno::Errno;
    use nix::mount::{MntFlags, umount2};
    match umount2(at, MntFlags::empty()) {
        // A process is still dying in it.
        Err(Errno::EBUSY) => Ok(umount2(at, MntFlags::MNT_DETACH)?),
        // Nothing is mounted.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn unmount(_: &Path) -> io::Result<()> {
    Ok(())
}

impl Directory {
    /// Makes it, for the worker's user alone. One system call, done in place: handing it to another thread costs more.
    pub(super) fn make(path: PathBuf) -> io::Result<Self> {
        make_private(&path)?;
        Ok(Self::at(path, None))
    }

    /// One that was there.
    pub(super) fn again(spare: Spare) -> Self {
        Self::at(spare.path.clone(), Some(spare))
    }

    fn at(path: PathBuf, spare: Option<Spare>) -> Self {
        let layer = Arc::new(Layer { at: path.clone(), state: Mutex::new(State::Plain) });
        Self { path, layer, spare }
    }

    /// What may be mounted at it.
    #[cfg_attr(not(launcher), expect(dead_code, reason = "only Linux has such mounts"))]
    pub(super) fn layer(&self) -> Arc<Layer> {
        Arc::clone(&self.layer)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with everything in it. What can't be removed is left for the next start.
    pub(super) async fn remove(self) {
        // Most jobs leave nothing; then this is one more system call.
        if self.layer.close() && fs::remove_dir(&self.path).is_ok() {
            return;
        }
        let removal = tokio::task::spawn_blocking(move || {
            let removed = self.layer.unmount().and_then(|was_mounted| {
                remove_tree(&self.path)?;
                let changes = self.layer.changes();
                if was_mounted && changes.exists() { remove_tree(&changes) } else { Ok(()) }
            });
            if let Err(error) = removed {
                tracing::warn!(path = %self.path.display(), %error, "a job's directory could not be removed");
            }
        });
        // It neither panics nor is aborted; if the runtime goes down, the next start removes what is left.
        let _ = removal.await;
    }
}

/// Makes a directory that only the worker's user may enter.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Removes a tree that may be read-only, unreadable and deep. Never follows a link. No process of a job is alive any more,
/// so that nothing changes meanwhile.
pub(super) fn remove_tree(top: &Path) -> io::Result<()> {
    let mut moved_up = Vec::new();
    let mut names = 0_u64;
    empty(top, top, 0, &mut moved_up, &mut names)?;
    while let Some(next) = moved_up.pop() {
        let emptied = empty(&next, top, 1, &mut moved_up, &mut names).and_then(|()| fs::remove_dir(&next));
        // The listing of `top` may have come by what was moved there meanwhile.
        emptied.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    }
    fs::remove_dir(top)
}

fn empty(directory: &Path, top: &Path, depth: usize, moved_up: &mut Vec<PathBuf>, names: &mut u64) -> io::Result<()> {
    // A directory can only be listed and emptied by someone who may read, write and enter it.
    open_up(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            fs::remove_file(&path)?;
        } else if fs::remove_dir(&path).is_err() {
            if depth < DEEPEST {
                empty(&path, top, depth + 1, moved_up, names)?;
                fs::remove_dir(&path)?;
            } else {
                let up = loop {
                    let up = top.join(format!(".deep-{names}"));
                    *names += 1;
                    if fs::symlink_metadata(&up).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                        break up;
                    }
                };
                // Renaming a directory changes its `..` entry, for which it must be writable.
                open_up(&path)?;
                fs::rename(&path, &up)?;
                moved_up.push(up);
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn open_up(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if fs::symlink_metadata(directory)?.permissions().mode() & 0o700 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn open_up(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_directory_and_a_full_one_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        Directory::make(path.clone()).unwrap().remove().await;
        assert!(!path.exists());
        let made = Directory::make(path.clone()).unwrap();
        fs::create_dir_all(path.join("b/c")).unwrap();
        fs::write(path.join("b/c/d"), "x").unwrap();
        made.remove().await;
        assert!(!path.exists());
        assert!(dir.path().exists());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_directory_is_private_and_must_be_new() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let _made = Directory::make(path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(Directory::make(path).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        remove_tree(&top).unwrap();
        assert!(outside.join("kept").exists());
    }

    #[cfg(unix)]
    #[test]
    fn unreadable_directories_are_removed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/c"), "x").unwrap();
        for path in [top.join("a/b"), top.join("a"), top.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        // Built from its end: each step puts the tree so far into a new directory.
        let name = "n".repeat(200);
        for i in 0..200 {
            let outer = dir.path().join(format!("outer-{i}"));
            fs::create_dir(&outer).unwrap();
            fs::rename(&top, outer.join(&name)).unwrap();
            fs::rename(&outer, &top).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }
}
