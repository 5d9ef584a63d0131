//! A container's control groups, as this machine sees them: what the daemon can't be asked in time.
//!
//! The kernel's count of processes that it killed for want of memory is right the moment that the last one is gone; the daemon's flag
//! only once the container has ended. And a limit of a container that runs is changed in 0.05 ms, which takes the daemon 9.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cmdexec_core::job::Resources;

/// Where a container's groups are.
#[derive(Debug, Clone)]
pub(crate) enum Groups {
    /// Version 1: a group of each controller.
    Apart { memory: PathBuf, cpu: PathBuf, pids: PathBuf },
    /// Version 2: one for all.
    One(PathBuf),
}

/// The time over which a limit of processors is measured out, in microseconds. What the daemon uses.
const PERIOD: u64 = 100_000;

impl Groups {
    /// The groups of a process; `None` if they can't be seen from here.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Self::read(&table, Path::new("/sys/fs/cgroup")).filter(|groups| groups.oom_kills().is_some())
    }

    fn read(table: &str, root: &Path) -> Option<Self> {
        let below = |controller: &str| {
            let mut entries = table.lines().filter_map(|line| {
                let (_, rest) = line.split_once(':')?;
                rest.split_once(':')
            });
            let (controllers, path) = entries.find(|(names, _)| names.split(',').any(|name| name == controller))?;
            let dir = if controllers.is_empty() { root.to_owned() } else { root.join(controller) };
            Some(dir.join(path.trim_start_matches('/')))
        };
        match (below("memory"), below("cpu"), below("pids")) {
            (Some(memory), Some(cpu), Some(pids)) => Some(Self::Apart { memory, cpu, pids }),
            _ => below("").map(Self::One),
        }
    }

    /// How many processes the kernel has killed for want of memory so far.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let events = match self {
            Self::Apart { memory, .. } => memory.join("memory.oom_control"),
            Self::One(group) => group.join("memory.events"),
        };
        let text = fs::read_to_string(events).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// Holds everything in them to these limits from now on, and nothing that is not said to any.
    pub(crate) fn limit(&self, limits: &Resources) -> io::Result<()> {
        let quota = limits.cpu_millis.map(|millis| (u64::from(millis) * PERIOD / 1_000).max(1_000));
        let bytes = limits.memory_mb.map(|mb| mb.saturating_mul(1 << 20));
        let pids = limits.pids.map(with_init);
        match self {
            Self::Apart { memory, cpu, pids: group } => {
                let text = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
                let with_swap = memory.join("memory.memsw.limit_in_bytes");
                // The sum is never less than its part: raised before it, lowered after it.
                let before = if with_swap.exists() { fs::write(&with_swap, &text) } else { Ok(()) };
                fs::write(memory.join("memory.limit_in_bytes"), &text)?;
                if before.is_err() {
                    fs::write(&with_swap, &text)?;
                }
                fs::write(cpu.join("cpu.cfs_period_us"), PERIOD.to_string())?;
                fs::write(
                    cpu.join("cpu.cfs_quota_us"),
                    quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string()),
                )?;
                fs::write(group.join("pids.max"), or_max(pids.map(u64::from)))
            }
            Self::One(group) => {
                fs::write(group.join("memory.max"), or_max(bytes))?;
                if bytes.is_some() && group.join("memory.swap.max").exists() {
                    fs::write(group.join("memory.swap.max"), "0")?;
                }
                fs::write(group.join("cpu.max"), format!("{} {PERIOD}", or_max(quota)))?;
                fs::write(group.join("pids.max"), or_max(pids.map(u64::from)))
            }
        }
    }
}

/// The init is a process too, and not one of the job's.
pub(crate) fn with_init(pids: u32) -> u32 {
    pids.saturating_add(1)
}

fn or_max(number: Option<u64>) -> String {
    number.map_or_else(|| "max".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let one =
            "9:memory:/docker/a\n8:pids:/docker/b\n3:cpu,cpuacct:/docker/c\n1:name=systemd:/docker/a\n0::/docker/z\n";
        let Some(Groups::Apart { memory, cpu, pids }) = Groups::read(one, Path::new("/g")) else { panic!() };
        assert_eq!(memory, Path::new("/g/memory/docker/a"));
        assert_eq!((cpu.as_path(), pids.as_path()), (Path::new("/g/cpu/docker/c"), Path::new("/g/pids/docker/b")));
        let Some(Groups::One(group)) = Groups::read("0::/system.slice/x\n", Path::new("/g")) else { panic!() };
        assert_eq!(group, Path::new("/g/system.slice/x"));
        assert!(Groups::read("", Path::new("/g")).is_none());
    }

    #[test]
    fn limits_are_written_as_each_version_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Resources { cpu_millis: Some(1_500), memory_mb: Some(64), pids: Some(9), ..Resources::default() };
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        fs::write(dir.path().join("memory.swap.max"), "max").unwrap();
        Groups::One(dir.path().to_owned()).limit(&limits).unwrap();
        assert_eq!(
            ["memory.max", "memory.swap.max", "cpu.max", "pids.max"].map(read),
            ["67108864", "0", "150000 100000", "10"]
        );
        let at = || dir.path().to_owned();
        Groups::Apart { memory: at(), cpu: at(), pids: at() }.limit(&Resources::default()).unwrap();
        assert_eq!(["memory.limit_in_bytes", "cpu.cfs_quota_us", "pids.max"].map(read), ["-1", "-1", "max"]);
    }
}
