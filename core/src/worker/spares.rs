//! Directories that are used again. Making one and removing it again is most of what the runtime does for a short job, and most jobs leave
//! theirs as they found it.
//!
//! That is **proved by its change time**, which the system sets whenever anything about a directory changes (an entry made or removed, the
//! owner, the mode, an attribute, a list of access rights), and which nobody can set. What would defeat it:
//! - *Two changes within one tick of the file system's clock*, of which the second leaves no trace. So a directory rests for
//!   [`REST`] between the worker's own last change and the first job that has it: whatever a job changes has a later time.
//! - *File systems that keep no such time*, or keep another machine's. So nothing is used again but on those that are [known](keeps_time).
//! - *Whoever still has it open*. An executor's `run` returns when no process of the job is left; a job that was killed by dropping it gives no
//!   directory back. But it may have handed a descriptor to somebody else, who could list what is in it later. So a directory stays
//!   with jobs of one owner, as it stays with its slot and with the user that it was given to.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::attempt::Attempt;
use super::directory::{Directory, make_private};
use crate::executor::Kind;
use crate::time::Clock;

/// How long a directory rests before it is used: longer than any tick of the clocks of the file systems that are known, the coarsest of which
/// is 1 s (ext3, and ext4 with small inodes).
const REST: Duration = Duration::from_millis(1_500);

/// The directories that rest or are ready, one for each slot at the most. Removed when this is dropped.
#[derive(Debug)]
pub(super) struct Spares {
    /// Where they are; `None`: nothing is used again there.
    root: Option<PathBuf>,
    slots: Vec<Mutex<Option<Spare>>>,
    next: AtomicU64,
}

/// A directory that may be used again.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    /// Whom it was given to.
    user: Option<u32>,
    /// Whose jobs have had it; `None`: nobody's.
    scope: Option<String>,
    /// When it was last changed, by the file system's clock, in seconds and nanoseconds.
    changed: (i64, i64),
    /// An uptime at which that was so already.
    since: Duration,
}

impl Spares {
    /// For so many slots, in the directory where attempts have theirs.
    pub(super) fn new(root: PathBuf, slots: usize) -> Self {
        let root = keeps_time(&root).then_some(root);
        Self { root, slots: (0..slots).map(|_| Mutex::default()).collect(), next: AtomicU64::new(0) }
    }

    fn place(&self, slot: usize) -> Option<MutexGuard<'_, Option<Spare>>> {
        self.slots.get(slot).map(|spare| spare.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A directory for an attempt in this slot, if there is one that has rested and is as it was.
    pub(super) fn take(&self, slot: usize, user: Option<u32>, attempt: &Attempt, now: Duration) -> Option<Directory> {
        let scope = scope_of(attempt)?;
        let mut place = self.place(slot)?;
        let mut spare = place.take_if(|spare| now.saturating_sub(spare.since) >= REST)?;
        if spare.user != user || spare.scope.as_deref().is_some_and(|others| others != scope) {
            spare.remove();
            return None;
        }
        if !spare.is_as_it_was() {
            tracing::warn!(path = %spare.path.display(), "a directory of nobody's was changed, and is removed");
            tokio::spawn(Directory::again(spare).remove());
            return None;
        }
        spare.scope.get_or_insert_with(|| scope.to_owned());
        Some(Directory::again(spare))
    }

    /// Takes a directory back that an attempt in this slot had, if it may be used again; else gives it back.
    pub(super) fn put(&self, slot: usize, mut directory: Directory, attempt: &Attempt) -> Result<(), Directory> {
        // Who was killed so may still be dying.
        let is_over = !attempt.kill.is_cancelled();
        match (self.place(slot), directory.spare.take()) {
            (Some(mut place), Some(spare)) if is_over && place.is_none() && spare.is_as_it_was() => {
                *place = Some(spare);
                Ok(())
            }
            _ => Err(directory),
        }
    }

    /// Makes a directory that is to rest, if the slot has none and its attempts are such that they may use it. Nobody else does so for this slot
    /// meanwhile: the attempt still has it.
    pub(super) async fn refill(&self, slot: usize, user: Option<u32>, attempt: &Attempt, clock: &dyn Clock) {
        let (Some(root), Some(_)) = (&self.root, scope_of(attempt)) else { return };
        if self.place(slot).is_none_or(|place| place.is_some()) {
            return;
        }
        let path = root.join(format!("spare-{slot}-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let made = async {
            make_private(&path)?;
            #[cfg(unix)]
            if let Some(user) = user {
                crate::executor::process::give(&path, user).await?;
            }
            changed(&path)
        };
        match made.await {
            Ok(changed) => {
                // It rests from here on, however long it took to be made.
                let spare = Spare { path, user, scope: None, changed, since: clock.uptime() };
                if let Some(mut place) = self.place(slot) {
                    *place = Some(spare);
                }
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "no directory is kept ready");
                let _ = fs::remove_dir(path);
            }
        }
    }
}

/// Whose an attempt is that may use a directory again; `None`: it is to have a new one. A container may share its user with others, and files that a
/// job brings are made or mounted in its directory.
fn scope_of(attempt: &Attempt) -> Option<&str> {
    let may = attempt.kind() == Kind::Process && attempt.spec.input.is_none();
    attempt.scope.as_deref().filter(|_| may)
}

impl Spare {
    fn is_as_it_was(&self) -> bool {
        changed(&self.path).is_ok_and(|changed| changed == self.changed)
    }

    /// Removes it: it has nothing in it. What can't be removed is left for the next start.
    fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        let left = self.slots.iter_mut().map(|place| place.get_mut().unwrap_or_else(PoisonError::into_inner));
        left.filter_map(Option::take).for_each(|spare| spare.remove());
    }
}

/// When a directory was last changed in any way, if it is there.
#[cfg(target_os = "linux")]
fn changed(path: &std::path::Path) -> io::Result<(i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.ctime(), metadata.ctime_nsec()))
}

/// Whether the file system keeps change times by this machine's clock. What is not known does not.
#[cfg(target_os = "linux")]
fn keeps_time(root: &std::path::Path) -> bool {
    use nix::sys::statfs::{
        BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs,
    };
    // That of ext4 is that of ext2 and ext3 too.
    let known = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC];
    statfs(root).is_ok_and(|found| known.contains(&found.filesystem_type()))
}

#[cfg(not(target_os = "linux"))]
fn changed(_: &std::path::Path) -> io::Result<(i64, i64)> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn keeps_time(_: &std::path::Path) -> bool {
    false
}
