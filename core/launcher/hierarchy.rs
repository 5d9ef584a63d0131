//! Where this machine's control groups are, and the launcher's own group in each hierarchy.
//!
//! `BASE` below is a group made by this launcher and locked by it: a launcher that finds one unlocked knows that its
//! maker is dead, kills what is in it and removes it. The lock is on the group's directory, so it holds across
//! process id namespaces that share the hierarchy, and ends with the process however that ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::protocol::Setup;
use crate::sys;

/// What the names of launchers' groups begin with.
const PREFIX: &str = "cmdexec-";
/// The group that the worker itself moves to where a group with members may not hand out controllers.
const WORKER_GROUP: &str = "cmdexec-worker";

/// The groups that jobs' groups are made in.
#[derive(Default)]
pub(crate) struct Hierarchies {
    /// The version 2 group, if one can be made.
    pub(crate) unified: Option<Base>,
    /// The groups in the version 1 hierarchies of the limits that version 2 does not have.
    pub(crate) memory: Option<Base>,
    pub(crate) cpu: Option<Base>,
    pub(crate) pids: Option<Base>,
    /// What the version 2 group hands on.
    pub(crate) unified_controllers: Controllers,
}

/// Which limits a version 2 group can set.
#[derive(Default, Clone, Copy)]
pub(crate) struct Controllers {
    pub(crate) memory: bool,
    pub(crate) cpu: bool,
    pub(crate) pids: bool,
}

/// A group of this launcher, removed with it.
pub(crate) struct Base {
    pub(crate) dir: PathBuf,
    _lock: File,
}

#[cfg(test)]
impl Base {
    pub(crate) fn pretended(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        Self { dir: dir.to_owned(), _lock: File::open(dir).unwrap() }
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // A group that still has members stays, and is swept by the next launcher.
        let _ = fs::remove_dir(&self.dir);
    }
}

impl Hierarchies {
    /// Finds the hierarchies, sweeps what dead launchers left in them, and makes this launcher's groups.
    pub(crate) fn open(setup: &Setup) -> Self {
        let mut found = Self::default();
        if !setup.cgroups {
            return found;
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mounts = mounts(&read("/proc/self/mountinfo"));
        let own = read("/proc/self/cgroup");

        let root = setup.cgroup_root.as_ref().map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)));
        if let Some(parent) = root.or_else(|| directory(&mounts, &own, None)) {
            let parent = if parent.ends_with(WORKER_GROUP) {
                parent.parent().map_or(parent.clone(), Path::to_path_buf)
            } else {
                parent
            };
            found.unified = open_base(&parent).ok();
            // Killing in one stroke is what the group is for; without it (before Linux 5.14) others do better.
            found.unified.take_if(|base| !base.dir.join("cgroup.kill").exists());
            if let Some(base) = &found.unified {
                found.unified_controllers = hand_on_controllers(&parent, &base.dir);
            }
        }
        let old = |controller: &str| open_base(&directory(&mounts, &own, Some(controller))?).ok();
        found.memory = if found.unified_controllers.memory { None } else { old("memory") };
        found.cpu = if found.unified_controllers.cpu { None } else { old("cpu") };
        found.pids = if found.unified_controllers.pids { None } else { old("pids") };
        found
    }
}

/// A mounted hierarchy: where, which of its groups is mounted there, and its controllers (`None`: version 2).
struct Mount {
    point: PathBuf,
    root: String,
    controllers: Option<String>,
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let controllers = match back.next()? {
            "cgroup2" => None,
            "cgroup" => Some(back.nth(1)?.to_owned()),
            _ => return None,
        };
        Some(Mount { point: PathBuf::from(point), root: root.to_owned(), controllers })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// The directory of this process's group, in the hierarchy of a controller or in version 2.
fn directory(mounts: &[Mount], own: &str, controller: Option<&str>) -> Option<PathBuf> {
    let has = |list: &str, name: &str| list.split(',').any(|c| c == name);
    let mount = mounts.iter().find(|m| match (&m.controllers, controller) {
        (None, None) => true,
        (Some(list), Some(name)) => has(list, name),
        _ => false,
    })?;
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (list, path) = (fields.next()?, fields.next()?);
        controller.map_or(list.is_empty(), |name| has(list, name)).then_some(path)
    })?;
    let below = if mount.root == "/" { path } else { path.strip_prefix(mount.root.as_str())? };
    Some(mount.point.join(below.trim_start_matches('/')))
}

/// Makes and locks this launcher's group below `parent`, after sweeping those of dead launchers.
fn open_base(parent: &Path) -> io::Result<Base> {
    let _turn = turn(parent);
    sweep(parent);
    let dir = parent.join(format!("{PREFIX}{}-{}", sys::own_pid(), boot_ticks()));
    fs::create_dir(&dir)?;
    // Being allowed to make a group is not yet being allowed to put processes into it.
    let usable = File::options().write(true).open(dir.join("cgroup.procs"));
    match usable.and_then(|_| File::open(&dir)).and_then(|file| sys::try_lock(&file).map(|()| file)) {
        Ok(lock) => Ok(Base { dir, _lock: lock }),
        Err(error) => {
            let _ = fs::remove_dir(&dir);
            Err(error)
        }
    }
}

/// One launcher at a time sweeps and makes its group. Otherwise one could say that it has swept while another is still at it,
/// and take a group that was just made and is not locked yet for a dead launcher's.
///
/// Whoever may read the directory may lock it, so nobody waits for ever: `None` after three seconds, or where there are no locks.
fn turn(parent: &Path) -> Option<File> {
    let file = File::open(parent).ok()?;
    for _ in 0..300 {
        match sys::try_lock(&file) {
            Ok(()) => return Some(file),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(Duration::from_millis(10)),
            Err(_) => return None,
        }
    }
    None
}

/// When this process started, in ticks since the machine did: with the process id, a name nobody else has.
fn boot_ticks() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(19).unwrap_or("0").to_owned()
}

/// Kills and removes the groups of launchers that are dead.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with(PREFIX) || name == WORKER_GROUP {
            continue;
        }
        let dir = entry.path();
        let Ok(file) = File::open(&dir) else { continue };
        if sys::try_lock(&file).is_err() {
            continue;
        }
        // Two seconds in all; what the kernel cannot end by then, the next launcher tries again.
        for _ in 0..200 {
            kill_members(&dir);
            if remove(&dir).is_ok() {
                break;
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// Ends every process in a group and in those below it.
pub(crate) fn kill_members(dir: &Path) {
    if fs::write(dir.join("cgroup.kill"), "1").is_err() {
        signal_members(dir, sys::SIGKILL);
    }
}

/// Sends a signal to every process in a group and in those below it.
pub(crate) fn signal_members(dir: &Path, signal: i32) {
    for line in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        // 0 stands for a process that this namespace cannot see, and would mean this process to kill().
        if let Some(pid) = line.parse().ok().filter(|pid| *pid > 0) {
            let _ = sys::send_signal(pid, signal);
        }
    }
    for child in children(dir) {
        signal_members(&child, signal);
    }
}

/// Removes a group and those below it; an error while one has members.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for child in children(dir) {
        remove(&child)?;
    }
    fs::remove_dir(dir)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Makes the limits of version 2 available to the groups below `base`, as far as `parent` has them.
fn hand_on_controllers(parent: &Path, base: &Path) -> Controllers {
    let mut enabled = Controllers::default();
    for (name, on) in [("memory", &mut enabled.memory), ("cpu", &mut enabled.cpu), ("pids", &mut enabled.pids)] {
        let enable = |dir: &Path| fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
        let offered = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        if !offered.split_whitespace().any(|c| c == name) {
            continue;
        }
        if enable(parent).is_err() && !(move_worker_down(parent) && enable(parent).is_ok()) {
            continue;
        }
        *on = enable(base).is_ok();
    }
    enabled
}

/// A group with members may not hand out controllers. Where the worker and this launcher are the only members of
/// their group, as in a service of their own or a container, they move into a group below it.
fn move_worker_down(parent: &Path) -> bool {
    let worker = sys::parent_pid();
    let members = fs::read_to_string(parent.join("cgroup.procs")).unwrap_or_default();
    let known = |line: &str| line.parse::<i32>().is_ok_and(|pid| pid == worker || pid == sys::own_pid());
    if members.is_empty() || !members.lines().all(known) {
        return false;
    }
    let dir = parent.join(WORKER_GROUP);
    let _ = fs::create_dir(&dir);
    members.lines().all(|pid| fs::write(dir.join("cgroup.procs"), pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
22 27 0:21 / /proc rw,relatime - proc proc rw";

    #[test]
    fn finds_its_group_in_every_kind_of_hierarchy() {
        let own = "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/s\n0::/user.slice";
        let mounts = mounts(HYBRID);
        let of = |controller| directory(&mounts, own, controller);
        assert_eq!(of(None), Some(PathBuf::from("/sys/fs/cgroup/unified/user.slice")));
        assert_eq!(of(Some("memory")), Some(PathBuf::from("/sys/fs/cgroup/memory/a/b")));
        assert_eq!(of(Some("cpu")), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/")));
        assert_eq!(of(Some("pids")), None);
    }

    #[test]
    fn a_container_sees_its_group_as_the_root() {
        let mounts = mounts("30 25 0:26 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory");
        let of = |own| directory(&mounts, own, Some("memory"));
        assert_eq!(of("4:memory:/docker/c1"), Some(PathBuf::from("/sys/fs/cgroup/memory/")));
        assert_eq!(of("4:memory:/docker/c1/x"), Some(PathBuf::from("/sys/fs/cgroup/memory/x")));
        assert_eq!(of("4:memory:/elsewhere"), None);
    }

    #[test]
    fn controllers_are_handed_on_as_far_as_they_are_offered() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir(&base).unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu pids\n").unwrap();
        let Controllers { memory, cpu, pids } = hand_on_controllers(dir.path(), &base);
        assert_eq!((memory, cpu, pids), (false, true, true));
        assert_eq!(fs::read_to_string(base.join("cgroup.subtree_control")).unwrap(), "+pids");
    }

    #[test]
    fn launchers_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let at_it = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let turn = turn(dir.path());
                    assert!(turn.is_some());
                    assert_eq!(at_it.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    at_it.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                });
            }
        });
    }

    #[test]
    fn a_group_is_removed_with_those_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("g");
        fs::create_dir_all(group.join("a/b")).unwrap();
        remove(&group).unwrap();
        assert!(!group.exists());
        remove(&group).unwrap();
    }
}
