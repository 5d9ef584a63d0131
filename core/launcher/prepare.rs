//! What is prepared once, when the launcher starts: namespaces that every job shares, and what may be done here.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use crate::hierarchy::Hierarchies;
use crate::protocol::{Containment, Hello, Setup};
use crate::sys;

/// What jobs are started with.
pub(crate) struct Ground {
    pub(crate) containment: Containment,
    pub(crate) hierarchies: Hierarchies,
    /// A network namespace with nothing in it, not even a loopback that is up.
    pub(crate) empty_network: Option<File>,
    pub(crate) null: File,
}

impl Ground {
    /// Prepares everything, and says what of it worked.
    pub(crate) fn prepare(setup: &Setup) -> io::Result<(Self, Hello)> {
        let hierarchies = Hierarchies::open(setup);
        let user = setup.user.is_some_and(can_become);
        let possible = |containment: &Containment| match containment {
            Containment::Cgroup => hierarchies.unified.is_some(),
            Containment::User => user,
            Containment::Supervisor => true,
        };
        let containment = [setup.containment, Some(Containment::Cgroup), Some(Containment::User)]
            .into_iter()
            .flatten()
            .find(possible)
            .unwrap_or(Containment::Supervisor);
        let empty_network = make_empty_network().ok();
        let (hidden, private_proc) = make_private_mounts(&setup.hidden);
        let has = hierarchies.unified_controllers;
        let hello = Hello {
            containment,
            user,
            memory: has.memory || hierarchies.memory.is_some(),
            cpu: has.cpu || hierarchies.cpu.is_some(),
            pids: has.pids || hierarchies.pids.is_some(),
            no_network: empty_network.is_some(),
            hidden,
            private_proc,
        };
        let null = File::open("/dev/null")?;
        Ok((Self { containment, hierarchies, empty_network, null }, hello))
    }
}

/// Whether a child may become this user: it takes privileges, and in a user namespace the number must be mapped.
fn can_become(user: u32) -> bool {
    matches!(in_child(|| i32::from(sys::become_user(user).is_err())), Ok(0))
}

/// Runs something in a child, waits for it and gives its exit code.
pub(crate) fn in_child(act: impl FnOnce() -> i32) -> io::Result<i32> {
    let pid = sys::clone_process(None)?;
    if pid == 0 {
        sys::exit_now(act());
    }
    let ended = sys::reap(pid, true)?;
    Ok(ended.and_then(|e| sys::decode_status(e.status).ok()).unwrap_or(-1))
}

fn make_empty_network() -> io::Result<File> {
    let own = File::open("/proc/self/ns/net")?;
    sys::leave_namespace(sys::CLONE_NEWNET)?;
    let empty = File::open("/proc/self/ns/net");
    sys::enter_namespace(own.as_fd(), sys::CLONE_NEWNET)?;
    empty
}

/// A mount namespace for the launcher and so for every job, at no cost to any of them: hides directories under empty
/// read-only ones, and other users' processes in `/proc`. Says which of the two worked.
fn make_private_mounts(hidden: &[Vec<u8>]) -> (bool, bool) {
    if sys::leave_namespace(sys::CLONE_NEWNS).is_err() {
        return (hidden.is_empty(), false);
    }
    // Mounts made outside still arrive here; none made here leaves.
    if sys::mount_at(c"/", c"none", sys::MS_REC | sys::MS_SLAVE, c"").is_err() {
        return (hidden.is_empty(), false);
    }
    let safe = sys::MS_NOSUID | sys::MS_NODEV | sys::MS_NOEXEC;
    let hide = |path: &[u8]| {
        let Ok(path) = CString::new(path) else { return false };
        match std::fs::metadata(std::ffi::OsString::from_vec(path.clone().into_bytes())) {
            Ok(_) => sys::mount_at(&path, c"tmpfs", safe | sys::MS_RDONLY, c"mode=0,size=4k").is_ok(),
            // What is not there needs no hiding.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    };
    // Each is tried, also after one that failed.
    let all_hidden = hidden.iter().filter(|path| !hide(path)).count() == 0;
    (all_hidden, sys::mount_at(c"/proc", c"proc", safe, c"hidepid=2").is_ok())
}
