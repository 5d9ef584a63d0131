//! How a job sees an input that others see too: as its own, to change as it likes, while theirs stay as they are.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::directory::Directory;
use super::GivenUp;
use super::cache::Tree;
#[cfg(launcher)]
use super::overlay::Overlay;

/// Found out once, by trying.
#[derive(Debug)]
pub(super) enum View {
    /// The cached tree, with what the job changes in a layer above it. Costs the same for any tree.
    #[cfg(launcher)]
    Overlays(Arc<Overlay>),
    /// A copy for each attempt. Where the file system can share blocks until they are changed, copying does (on Linux and macOS).
    Copies,
}

impl View {
    /// The best way that works for attempts below `attempts`, whose jobs run as `user` if not as the worker's own.
    pub(super) fn choose(attempts: &Path, user: Option<u32>) -> Self {
        #[cfg(launcher)]
        match Overlay::try_out(attempts, user) {
            Ok(overlay) => {
                tracing::info!("jobs see their files through overlay mounts");
                return Self::Overlays(Arc::new(overlay));
            }
            Err(error) => tracing::info!("jobs get copies of their files, because overlay mounts don't work: {error}"),
        }
        #[cfg(not(launcher))]
        let _ = (attempts, user);
        Self::Copies
    }

    /// Fills an attempt's empty directory.
    pub(super) async fn show(&self, tree: Arc<Tree>, directory: &Directory, user: Option<u32>) -> io::Result<()> {
        #[cfg(launcher)]
        if let Self::Overlays(overlay) = self {
            let (overlay, layer, below) = (Arc::clone(overlay), directory.layer(), Arc::clone(&tree));
            let mount = move || layer.mount(below.clone(), |at, layer| overlay.mount(below.path(), at, layer, user));
            match tokio::task::spawn_blocking(mount).await.map_err(io::Error::other)? {
                Ok(()) => return Ok(()),
                // Tried out at the start, so this is rare: the system has no more mounts to give, say.
                Err(error) => tracing::warn!(%error, "a job's files could not be mounted; they are copied"),
            }
        }
        #[cfg(not(launcher))]
        let _ = user;
        let given_up = GivenUp::default();
        let (into, flag) = (directory.path().to_owned(), Arc::clone(&given_up.0));
        let copied = tokio::task::spawn_blocking(move || copy(tree.path(), &into, &flag));
        copied.await.map_err(io::Error::other)?
    }
}

/// Copies what is in one directory into another: files with their modes, and links as they are.
fn copy(from: &Path, into: &Path, given_up: &AtomicBool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        if given_up.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, into.join(entry.file_name()));
        if kind.is_dir() {
            fs::create_dir(&to)?;
            copy(&entry.path(), &to, given_up)?;
        } else if kind.is_symlink() {
            copy_link(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn copy_link(from: &Path, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(fs::read_link(from)?, to)
}

/// There are none: an archive with links is refused here.
#[cfg(not(unix))]
fn copy_link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn copies_are_whole_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, one, other) = (dir.path().join("tree"), dir.path().join("one"), dir.path().join("other"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/run"), "original").unwrap();
        fs::set_permissions(tree.join("a/b/run"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("a/b/run", tree.join("link")).unwrap();
        for into in [&one, &other] {
            fs::create_dir(into).unwrap();
            copy(&tree, into, &AtomicBool::new(false)).unwrap();
            assert_eq!(fs::read_link(into.join("link")).unwrap(), Path::new("a/b/run"));
            assert_eq!(fs::metadata(into.join("a/b/run")).unwrap().permissions().mode() & 0o777, 0o755);
            fs::write(into.join("link"), "changed").unwrap();
            assert_eq!(fs::read(tree.join("a/b/run")).unwrap(), b"original");
        }
        assert!(copy(&tree, &dir.path().join("none"), &AtomicBool::new(true)).is_err());
    }
}
