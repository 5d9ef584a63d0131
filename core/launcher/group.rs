//! The control groups of one job.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::hierarchy::{self, Base, Hierarchies};
use crate::protocol::Run;
use crate::sys;

/// The control groups of one job: the version 2 group that holds it together, and whatever its limits need besides.
#[derive(Default)]
pub(crate) struct Group {
    unified: Option<Unified>,
    /// Version 1 groups, which a child joins by itself.
    old: Vec<PathBuf>,
    /// Where the kernel counts the processes that it killed for want of memory.
    oom_counter: Option<PathBuf>,
}

struct Unified {
    dir: PathBuf,
    handle: File,
}

impl Group {
    /// Makes the groups that a job needs: the version 2 one always (it is cheap), others for limits asked for.
    pub(crate) fn make(hierarchies: &Hierarchies, run: &Run) -> io::Result<Self> {
        let mut group = Self::default();
        match group.fill(hierarchies, run) {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.remove();
                Err(error)
            }
        }
    }

    fn fill(&mut self, hierarchies: &Hierarchies, run: &Run) -> io::Result<()> {
        let name = String::from_utf8_lossy(&run.name);
        let has = hierarchies.unified_controllers;
        if let Some(base) = &hierarchies.unified {
            let dir = base.dir.join(&*name);
            fs::create_dir(&dir)?;
            // Remembered before anything can fail, so that it is removed again.
            let opened = File::open(&dir);
            if opened.is_err() {
                let _ = fs::remove_dir(&dir);
            }
            self.unified = Some(Unified { dir: dir.clone(), handle: opened? });
            if let (true, Some(bytes)) = (has.memory, run.memory_bytes) {
                fs::write(dir.join("memory.max"), bytes.to_string())?;
                // Swap would make the limit soft. A kernel without swap accounting does not have the file.
                let _ = fs::write(dir.join("memory.swap.max"), "0");
                self.oom_counter = Some(dir.join("memory.events"));
            }
            if let (true, Some(millis)) = (has.cpu, run.cpu_millis) {
                fs::write(dir.join("cpu.max"), format!("{} {PERIOD_MICROS}", quota_micros(millis)))?;
            }
            if let (true, Some(pids)) = (has.pids, run.pids) {
                fs::write(dir.join("pids.max"), pids.to_string())?;
            }
        }
        if let (Some(base), Some(bytes)) = (&hierarchies.memory, run.memory_bytes) {
            let dir = self.make_old(base, &name)?;
            fs::write(dir.join("memory.limit_in_bytes"), bytes.to_string())?;
            // Memory and swap together may never be less than memory alone, so this is second. Needs swap accounting.
            let _ = fs::write(dir.join("memory.memsw.limit_in_bytes"), bytes.to_string());
            self.oom_counter = Some(dir.join("memory.oom_control"));
        }
        if let (Some(base), Some(millis)) = (&hierarchies.cpu, run.cpu_millis) {
            let dir = self.make_old(base, &name)?;
            fs::write(dir.join("cpu.cfs_period_us"), PERIOD_MICROS.to_string())?;
            fs::write(dir.join("cpu.cfs_quota_us"), quota_micros(millis).to_string())?;
        }
        if let (Some(base), Some(pids)) = (&hierarchies.pids, run.pids) {
            let dir = self.make_old(base, &name)?;
            fs::write(dir.join("pids.max"), pids.to_string())?;
        }
        Ok(())
    }

    fn make_old(&mut self, base: &Base, name: &str) -> io::Result<PathBuf> {
        let dir = base.dir.join(name);
        fs::create_dir(&dir)?;
        self.old.push(dir.clone());
        Ok(dir)
    }

    /// Starts a process, in the version 2 group if the kernel lets it be born there: the second answer says so.
    pub(crate) fn clone_into(&self) -> io::Result<(i32, bool)> {
        let Some(unified) = &self.unified else { return Ok((sys::clone_process(None)?, false)) };
        match sys::clone_process(Some(unified.handle.as_fd())) {
            // The filters of container runtimes may not know the call.
            Err(e) if matches!(sys::errno(&e), sys::ENOSYS | sys::EPERM) => Ok((sys::clone_process(None)?, false)),
            result => Ok((result?, true)),
        }
    }

    /// Moves the calling process into every group that it was not born in.
    pub(crate) fn join(&self, born_in: bool) -> io::Result<()> {
        let unified = self.unified.iter().filter(|_| !born_in).map(|u| &u.dir);
        self.old.iter().chain(unified).try_for_each(|dir| fs::write(dir.join("cgroup.procs"), "0"))
    }

    /// The version 2 directory, which holds all of the job's processes.
    pub(crate) fn unified(&self) -> Option<&Path> {
        self.unified.as_ref().map(|u| u.dir.as_path())
    }

    /// Whether the kernel killed a process of the group for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let text = self.oom_counter.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        oom_kills(&text) > 0
    }

    /// Removes the groups; an error while one of them has members.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        if let Some(unified) = &self.unified {
            hierarchy::remove(&unified.dir)?;
        }
        self.unified = None;
        while let Some(dir) = self.old.last() {
            hierarchy::remove(dir)?;
            self.old.pop();
        }
        Ok(())
    }
}

const PERIOD_MICROS: u64 = 100_000;

/// The processor time in a period. The kernel takes no less than a millisecond.
fn quota_micros(millis: u32) -> u64 {
    (u64::from(millis) * PERIOD_MICROS / 1000).max(1000)
}

/// The count in `memory.events` (version 2) or `memory.oom_control` (version 1).
fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hierarchy::Controllers;

    #[test]
    fn reads_the_kernels_count_in_both_versions() {
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), 1);
        assert_eq!(oom_kills("oom_kill_disable 1\nunder_oom 0\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }

    fn run() -> Run {
        let limits = (Some(64 << 20), Some(1500), Some(9));
        Run { name: b"job".to_vec(), memory_bytes: limits.0, cpu_millis: limits.1, pids: limits.2, ..Run::default() }
    }

    #[test]
    fn limits_are_written_as_version_2_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let hierarchies = Hierarchies {
            unified: Some(Base::pretended(dir.path())),
            unified_controllers: Controllers { memory: true, cpu: true, pids: true },
            ..Hierarchies::default()
        };
        let group = Group::make(&hierarchies, &run()).unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join("job").join(file)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("pids.max"), "9");
        fs::write(dir.path().join("job/memory.events"), "oom 1\noom_kill 1\n").unwrap();
        assert!(group.ran_out_of_memory());
    }

    #[test]
    fn limits_are_written_as_version_1_has_them_and_only_where_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let base = |name: &str| Some(Base::pretended(&dir.path().join(name)));
        let hierarchies =
            Hierarchies { memory: base("memory"), cpu: base("cpu"), pids: base("pids"), ..Hierarchies::default() };
        let group = Group::make(&hierarchies, &run()).unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read("memory/job/memory.limit_in_bytes"), "67108864");
        assert_eq!(read("memory/job/memory.memsw.limit_in_bytes"), "67108864");
        assert_eq!(read("cpu/job/cpu.cfs_quota_us"), "150000");
        assert_eq!(read("pids/job/pids.max"), "9");
        assert!(group.unified().is_none());
        drop(group);
        Group::make(&hierarchies, &Run { name: b"free".to_vec(), ..Run::default() }).unwrap();
        assert!(!dir.path().join("memory/free").exists());
    }

    #[test]
    fn a_quota_is_never_below_what_the_kernel_takes() {
        assert_eq!(quota_micros(1500), 150_000);
        assert_eq!(quota_micros(1), 1000);
    }
}
