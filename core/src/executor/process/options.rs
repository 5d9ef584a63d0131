//! What may be chosen about running jobs as processes.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::executor::{Error, GRACE};

/// What may be chosen about running jobs as processes. The defaults isolate as much as is permitted.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a job has between the polite signal and the kill. [`GRACE`] by default.
    pub grace: Duration,
    /// Which users jobs run as. [`Users::Auto`] by default.
    pub users: Users,
    /// How a job's processes are held together. [`Containment::Auto`] by default.
    pub containment: Containment,
    /// Whether control groups may be used. True by default.
    pub cgroups: bool,
    /// The cgroup version 2 directory below which groups are made. The worker's own group by default.
    pub cgroup_root: Option<PathBuf>,
    /// Directories that jobs must not see, such as the worker's own: an empty directory stands in their place, for
    /// every job. Needs privileges; without them it is the files' modes that keep jobs out. None by default.
    ///
    /// The directory that holds the attempts' directories does not belong here. Give it mode 0711: each attempt's
    /// directory is made private to its user by the executor.
    pub hidden: Vec<PathBuf>,
    /// `PATH` for jobs that do not set their own. `/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin` by
    /// default.
    pub path: String,
    /// Where workers of this machine agree on who has which job user, by lock files. `/run/cmdexec` by default.
    pub locks: PathBuf,
    /// Where jobs cannot be given users of their own: keep the worker's memory, environment and open files from
    /// processes of its user, by making the whole process undumpable (no core dumps, no debugger). True by default.
    pub protect_worker: bool,
}

/// Which users jobs run as. A slot keeps its user, with the group of the same number; no two slots on a machine
/// share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Users {
    /// One of 60706 to 61183 for each slot (a range that systemd and distributions leave free) when the worker is
    /// root; else the worker's own.
    Auto,
    /// The worker's own. Jobs can then read each other's files, and signal each other and the worker.
    Never,
    /// One of these for each slot. They must be nobody else's: every process of theirs may be killed.
    Range(Range<u32>),
}

impl Users {
    #[cfg(unix)]
    pub(super) const AUTO: Range<u32> = 60_706..61_184;
}

/// How a job's processes are held together, so that all of them can be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containment {
    /// The first of the others that works here, in their order.
    Auto,
    /// A cgroup of its own. Nothing gets out, and the kernel ends all of it in one stroke.
    Cgroup,
    /// A user of its own. The kernel ends every process of that user in one stroke.
    User,
    /// A supervising process that adopts whatever the job orphans, and hunts it down.
    Supervisor,
    /// A process group, without the launcher. A process that starts its own session gets away, no limit is enforced,
    /// descriptors that the embedding program left inheritable are inherited, and giving jobs their own users makes
    /// starting them slow in a large process: for systems that have nothing else.
    ProcessGroup,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grace: GRACE,
            users: Users::Auto,
            containment: Containment::Auto,
            cgroups: true,
            cgroup_root: None,
            hidden: Vec::new(),
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            locks: PathBuf::from("/run/cmdexec"),
            protect_worker: true,
        }
    }
}

impl Options {
    /// Says everything that is wrong with them.
    pub fn validate(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        if let Users::Range(range) = &self.users
            && (range.is_empty() || range.start == 0)
        {
            wrong.push(format!("users: {}..{} must name at least one user, and not root", range.start, range.end));
        }
        for path in self.hidden.iter().chain(&self.cgroup_root).chain([&self.locks]) {
            if !path.is_absolute() {
                wrong.push(format!("{}: must be an absolute path", path.display()));
            }
        }
        if self.path.contains('\0') {
            wrong.push("path: must not contain NUL".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::new(wrong.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_said_at_once() {
        Options::default().validate().unwrap();
        let wrong = Options {
            users: Users::Range(5..5),
            hidden: vec!["here".into()],
            path: "\0".to_owned(),
            ..Options::default()
        };
        let said = wrong.validate().unwrap_err().to_string();
        for part in ["users: 5..5", "here: must be an absolute path", "path: "] {
            assert!(said.contains(part), "{said}");
        }
    }
}
