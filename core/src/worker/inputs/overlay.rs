//! Overlay mounts: a cached tree below, what one job changes above, and the job sees both as one.
//!
//! The tree belongs to root. Where a job runs as a user of its own, the lower layer is shown as that user's by an id-mapped mount (Linux
//! 5.19), so that it may do everything with its files that it may do with fresh ones; what it changes is copied up as its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::directory::{make_private, remove_tree};
use super::super::mounts;
use super::sys;
use crate::executor::process::user_namespace;

#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Made once for each job user.
    namespaces: Mutex<HashMap<u32, Arc<File>>>,
}

impl Overlay {
    /// Tries everything out below `attempts` that a job with files will need, and lets what is mounted there from now on be seen
    /// by mount namespaces that are made later, such as the launcher's.
    pub(super) fn try_out(attempts: &Path, user: Option<u32>) -> io::Result<Self> {
        let overlay = Self::default();
        share(attempts)?;
        let probe = attempts.join("probe");
        make_private(&probe)?;
        let tried = overlay.try_in(&probe, user);
        mounts::detach_below(&probe)?;
        remove_tree(&probe)?;
        tried.inspect_err(|_| {
            // Nothing will be mounted there.
            let _ = umount2(attempts, MntFlags::MNT_DETACH);
        })?;
        Ok(overlay)
    }

    fn try_in(&self, probe: &Path, user: Option<u32>) -> io::Result<()> {
        let (tree, at) = (probe.join("tree"), probe.join("at"));
        make_private(&tree)?;
        make_private(&at)?;
        fs::write(tree.join("file"), "as it was")?;
        fs::create_dir(tree.join("directory"))?;
        self.mount(&tree, &at, &probe.join("layer"), user)?;
        let seen = at.join("file");
        let owner = fs::metadata(&seen)?.uid();
        if user.is_some_and(|user| user != owner) {
            return Err(io::Error::other("files are not shown as the job user's"));
        }
        fs::write(&seen, "changed")?;
        fs::rename(at.join("directory"), at.join("renamed"))?;
        if fs::metadata(&seen)?.uid() != owner || fs::read(tree.join("file"))? != b"as it was" {
            return Err(io::Error::other("changing a file does not do what it should"));
        }
        Ok(())
    }

    /// Mounts `tree` at the empty directory `at`, with what is changed in `layer`, which is made. Blocks for less than a millisecond.
    pub(super) fn mount(&self, tree: &Path, at: &Path, layer: &Path, user: Option<u32>) -> io::Result<()> {
        let (upper, work, lower) = (layer.join("upper"), layer.join("work"), layer.join("lower"));
        make_private(layer)?;
        make_private(&upper)?;
        make_private(&work)?;
        let Some(user) = user else { return overlay(tree, &upper, &work, at) };
        std::os::unix::fs::chown(&upper, Some(user), Some(user))?;
        make_private(&lower)?;
        let shown = sys::open_tree(tree)?;
        sys::show_as(&shown, &*self.namespace(user)?)?;
        // Only newer systems take a layer that is mounted nowhere.
        sys::attach(&shown, &lower)?;
        let mounted = overlay(&lower, &upper, &work, at);
        umount2(&lower, MntFlags::MNT_DETACH)?;
        mounted
    }

    fn namespace(&self, user: u32) -> io::Result<Arc<File>> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(namespace) = namespaces.get(&user) {
            return Ok(Arc::clone(namespace));
        }
        let namespace = Arc::new(user_namespace(user)?);
        namespaces.insert(user, Arc::clone(&namespace));
        Ok(namespace)
    }
}

fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> io::Result<()> {
    // Named by descriptors: in a path, commas and colons would mean something.
    let open = |path: &Path| File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
    let (lower, upper, work) = (open(lower)?, open(upper)?, open(work)?);
    let fd = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    // Directories can be renamed as anywhere else; and nothing needs to be on disk, because it is removed with the attempt.
    let layers = format!("lowerdir={},upperdir={},workdir={}", fd(&lower), fd(&upper), fd(&work));
    let options = format!("{layers},redirect_dir=on,volatile");
    Ok(mount(Some("cmdexec"), at, Some("overlay"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))?)
}

/// Makes a directory a mount of its own whose mounts namespaces made later get too.
fn share(directory: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    mount(Some(directory), directory, none, MsFlags::MS_BIND, none)?;
    // Private first: whatever else has a copy of the system's mounts needs none of these.
    let shared = mount(none, directory, none, MsFlags::MS_PRIVATE, none)
        .and_then(|()| mount(none, directory, none, MsFlags::MS_SHARED, none));
    if shared.is_err() {
        let _ = umount2(directory, MntFlags::MNT_DETACH);
    }
    Ok(shared?)
}
