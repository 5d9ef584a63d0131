//! Jobs as isolated processes of the worker's machine.
//!
//! What isolates a job, each as far as the worker's privileges go ([`Options`] says what may be chosen):
//!
//! | what | how | needs |
//! |---|---|---|
//! | no process outlives its job | a cgroup; else a user; else a supervisor that adopts orphans | nothing |
//! | other jobs' files | a user for each slot, and directories private to it | root |
//! | the worker's files | other users' modes; directories hidden by [`Options::hidden`] | root |
//! | the worker's environment and memory | another user and a private `/proc`; else an undumpable worker | nothing |
//! | no network | an empty network namespace | root, or a system that allows user namespaces |
//! | memory, processors, processes | cgroup version 2 or 1; else limits of each process | a writable cgroup |
//!
//! Jobs are started by the launcher, a small program that the library carries inside (`launcher/main.rs` in this
//! package), so that the worker never forks itself. When the worker dies, the launcher ends its jobs.

#[cfg(unix)]
mod executor;
#[cfg(launcher)]
mod launched;
#[cfg(launcher)]
mod launcher;
mod options;
#[cfg(unix)]
mod plain;
#[cfg(launcher)]
#[cfg_attr(not(test), expect(dead_code, reason = "the launcher's half of it"))]
mod protocol;
#[cfg(all(unix, not(launcher)))]
mod unlaunched;
#[cfg(not(unix))]
mod unsupported;
#[cfg(unix)]
mod user;

#[cfg(unix)]
pub use executor::ProcessExecutor;
#[cfg(launcher)]
pub(crate) use launcher::user_namespace;
pub use options::{Containment, Options, Users};
#[cfg(not(unix))]
pub use unsupported::ProcessExecutor;
#[cfg(unix)]
pub use user::give;
