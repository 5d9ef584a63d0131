//! What is prepared once, when the launcher starts: namespaces that every job shares, and what may be done here.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use crate::group::Group;
use crate::hierarchy::{Controllers, Hierarchies};
use crate::protocol::{Containment, Hello, Run, Setup};
use crate::sys;

/// What jobs are started with.
pub(crate) struct Ground {
    pub(crate) containment: Containment,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) empty_network: Option<EmptyNetwork>,
    pub(crate) null: File,
}

/// A network namespace with nothing in it, not even a loopback that is up.
pub(crate) struct EmptyNetwork {
    /// The user namespace that owns it, where it took one.
    owner: Option<File>,
    network: File,
}

impl EmptyNetwork {
    /// Moves the calling process there.
    pub(crate) fn enter(&self) -> io::Result<()> {
        if let Some(owner) = &self.owner {
            // Gives every capability over the network and nothing else; running a program takes them away again.
            sys::enter_namespace(owner.as_fd(), sys::CLONE_NEWUSER)?;
        }
        sys::enter_namespace(self.network.as_fd(), sys::CLONE_NEWNET)
    }

    fn make() -> io::Result<Self> {
        Self::with_privileges().or_else(|_| Self::in_user_namespace())
    }

    fn with_privileges() -> io::Result<Self> {
        let own = File::open("/proc/self/ns/net")?;
        sys::leave_namespace(sys::CLONE_NEWNET)?;
        let network = File::open("/proc/self/ns/net");
        sys::enter_namespace(own.as_fd(), sys::CLONE_NEWNET)?;
        Ok(Self { owner: None, network: network? })
    }

    /// Without privileges, where the system allows it: a user namespace in which everyone is who he was.
    fn in_user_namespace() -> io::Result<Self> {
        let (user, group) = sys::own_ids();
        let (mut ready, ready_in) = io::pipe()?;
        let pid = sys::clone_process(None)?;
        if pid == 0 {
            let map = || {
                sys::leave_namespace(sys::CLONE_NEWUSER | sys::CLONE_NEWNET)?;
                std::fs::write("/proc/self/setgroups", "deny")?;
                std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
                std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
                (&ready_in).write_all(b"1")
            };
            let failed = map().is_err();
            if !failed {
                // Until it is killed: the namespaces must be there to be opened.
                std::thread::sleep(Duration::from_secs(10));
            }
            sys::exit_now(1);
        }
        // So that a child that fails is the end of the pipe.
        drop(ready_in);
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
        let mut byte = [0];
        let made =
            ready.read_exact(&mut byte).and_then(|()| Ok(Self { owner: Some(open("user")?), network: open("net")? }));
        let _ = sys::send_signal(pid, sys::SIGKILL);
        let _ = sys::reap(pid, true);
        let made = made?;
        // Having made it is not yet being let in.
        match in_child(|| i32::from(made.enter().is_err()))? {
            0 => Ok(made),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

impl Ground {
    /// Prepares everything, and says what of it worked.
    pub(crate) fn prepare(setup: &Setup) -> io::Result<(Self, Hello)> {
        let mut hierarchies = Hierarchies::open(setup);
        keep_what_works(&mut hierarchies);
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
        let has = hierarchies.unified_controllers;
        if containment != Containment::Cgroup && !(has.memory || has.cpu || has.pids) {
            // It would hold nothing together and limit nothing.
            hierarchies.unified = None;
        }
        let empty_network = EmptyNetwork::make().ok();
        let (hidden, private_proc) = make_private_mounts(&setup.hidden);
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

/// Making a group does not yet mean that a child may be put into it: tries, and drops what does not work.
fn keep_what_works(hierarchies: &mut Hierarchies) {
    let works = |hierarchies: &Hierarchies, run: Run| {
        let Ok(mut group) = Group::make(hierarchies, &Run { name: b"probe".to_vec(), ..run }) else { return false };
        let pid = group.clone_into().map(|(pid, born_in)| {
            if pid == 0 {
                sys::exit_now(i32::from(group.join(born_in).is_err()));
            }
            pid
        });
        let ended = pid.and_then(|pid| sys::reap(pid, true));
        let joined = matches!(ended, Ok(Some(ended)) if sys::decode_status(ended.status) == Ok(0));
        group.remove().is_ok() && joined
    };
    if !works(hierarchies, Run::default()) {
        hierarchies.unified = None;
        hierarchies.unified_controllers = Controllers::default();
    }
    if !works(hierarchies, Run { memory_bytes: Some(1 << 30), ..Run::default() }) {
        (hierarchies.memory, hierarchies.unified_controllers.memory) = (None, false);
    }
    if !works(hierarchies, Run { cpu_millis: Some(1000), ..Run::default() }) {
        (hierarchies.cpu, hierarchies.unified_controllers.cpu) = (None, false);
    }
    if !works(hierarchies, Run { pids: Some(100), ..Run::default() }) {
        (hierarchies.pids, hierarchies.unified_controllers.pids) = (None, false);
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
