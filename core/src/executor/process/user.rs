//! Job users: which slot has which, and giving an attempt's directory to one.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, fchownat};

/// The users that this machine's workers share out among their slots.
#[derive(Debug)]
pub(super) struct Pool {
    range: Range<u32>,
    locks: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<usize, Claim>,
    /// Held as long as the pool lives, so that no other worker takes these users.
    claimed: Vec<Flock<File>>,
    /// Directories known to let anyone through to what is below them.
    passable: HashSet<PathBuf>,
}

/// The user of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) user: u32,
    /// Somebody else's processes may still run as it: the slot has got it, and nobody has looked ([`Pool::swept`]).
    pub(super) fresh: bool,
}

impl Pool {
    pub(super) fn new(range: Range<u32>, locks: PathBuf) -> Self {
        Self { range, locks, state: Mutex::default() }
    }

    /// The user that a slot has, claimed at its first use.
    pub(super) fn of_slot(&self, slot: usize) -> io::Result<Claim> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claim) = state.slots.get(&slot) {
            return Ok(*claim);
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.locks)?;
        let taken: HashSet<u32> = state.slots.values().map(|claim| claim.user).collect();
        for user in self.range.clone().filter(|user| !taken.contains(user)) {
            let path = self.locks.join(format!("user-{user}.lock"));
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            // Another worker of this machine has it.
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            state.claimed.push(lock);
            let claim = Claim { user, fresh: true };
            state.slots.insert(slot, claim);
            return Ok(claim);
        }
        Err(io::Error::other(format!("every job user of {}..{} is taken", self.range.start, self.range.end)))
    }

    /// Nobody else's processes run as a slot's user any more.
    pub(super) fn swept(&self, slot: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claim) = state.slots.get_mut(&slot) {
            claim.fresh = false;
        }
    }

    /// Whether a job user gets through to `dir`; else the directory that is in the way.
    pub(super) fn check_way(&self, dir: &Path) -> Result<(), PathBuf> {
        let Some(parent) = dir.parent() else { return Ok(()) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.passable.contains(parent) {
            return Ok(());
        }
        let blocks = |dir: &&Path| !fs::metadata(dir).is_ok_and(|m| m.mode() & 0o001 != 0);
        if let Some(blocking) = parent.ancestors().find(blocks) {
            return Err(blocking.to_owned());
        }
        // A worker has one such directory, or few.
        if state.passable.len() < 64 {
            state.passable.insert(parent.to_owned());
        }
        Ok(())
    }
}

/// Makes a directory private to a user and the group of the same number, with everything in it. Symbolic links are changed, not
/// followed. If the directory is the user's already, so is everything in it: only the worker could have given it.
///
/// # Errors
/// The system's, as when the caller is not root. What was given so far stays given.
pub async fn give(dir: &Path, user: u32) -> io::Result<()> {
    if give_top(dir, user)? {
        return Ok(());
    }
    let dir = dir.to_owned();
    let all = move || give_below(&mut open(&dir)?, user);
    tokio::task::spawn_blocking(all).await.map_err(io::Error::other)?
}

fn open(dir: &Path) -> io::Result<Dir> {
    Ok(Dir::open(dir, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Gives the directory itself; true if that is all: if it is empty, which most are, and which is not worth another thread.
fn give_top(dir: &Path, user: u32) -> io::Result<bool> {
    let mut dir = open(dir)?;
    let owner = nix::sys::stat::fstat(dir.as_fd())?;
    // Only if it must be: that it was not changed is how the worker knows that it may be used again.
    if Mode::from_bits_truncate(owner.st_mode) != Mode::S_IRWXU {
        nix::sys::stat::fchmod(dir.as_fd(), Mode::S_IRWXU)?;
    }
    if owner.st_uid == user && owner.st_gid == user {
        return Ok(true);
    }
    fchown(dir.as_fd(), Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?;
    Ok(dir.iter().all(|entry| entry.is_ok_and(|e| is_dots(e.file_name()))))
}

fn give_below(dir: &mut Dir, user: u32) -> io::Result<()> {
    let entries = dir.iter().collect::<Result<Vec<_>, _>>()?;
    for entry in entries {
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        let owner = (Some(Uid::from_raw(user)), Some(Gid::from_raw(user)));
        fchownat(dir.as_fd(), name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if !matches!(entry.file_type(), None | Some(nix::dir::Type::Directory)) {
            continue;
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match Dir::openat(dir.as_fd(), name, flags, Mode::empty()) {
            Ok(mut below) => give_below(&mut below, user)?,
            // A file system that does not say what its entries are.
            Err(nix::errno::Errno::ENOTDIR | nix::errno::Errno::ELOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_dots(name: &std::ffi::CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn no_two_slots_or_workers_share_a_user() {
        let locks = tempfile::tempdir().unwrap();
        let pool = |range| Pool::new(range, locks.path().join("l"));
        let (one, other) = (pool(100..103), pool(100..103));
        let first = one.of_slot(0).unwrap();
        assert_eq!(first, Claim { user: 100, fresh: true });
        assert_eq!(one.of_slot(0).unwrap(), first);
        one.swept(0);
        assert_eq!(one.of_slot(0).unwrap(), Claim { user: 100, fresh: false });
        assert_eq!(one.of_slot(7).unwrap().user, 101);
        assert_eq!(other.of_slot(0).unwrap().user, 102);
        one.of_slot(1).unwrap_err();
        drop(one);
        assert_eq!(other.of_slot(1).unwrap().user, 100);
    }

    #[test]
    fn a_directory_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = dir.path().join("work/attempt");
        fs::create_dir_all(&attempt).unwrap();
        let pool = Pool::new(1..2, dir.path().to_owned());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(pool.check_way(&attempt), Err(dir.path().to_owned()));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(pool.check_way(&attempt), Ok(()));
    }

    #[tokio::test]
    async fn a_tree_is_given_without_following_links() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("a/link")).unwrap();
        give(dir.path(), 60_706).await.unwrap();
        for given in ["", "a", "a/b", "a/b/file", "a/link"] {
            let owner = fs::symlink_metadata(dir.path().join(given)).unwrap().uid();
            assert_eq!(owner, 60_706, "{given}");
        }
        assert_eq!(fs::metadata(outside.path()).unwrap().uid(), 0);
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
    }
}
