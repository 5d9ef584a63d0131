//! What the program's exit code says.

use std::io;
use std::process::ExitCode;

use cmdexec_core::job::{Reason, Status};
use cmdexec_core::service::JobView;

/// The program's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    pub(crate) const OK: Self = Self(0);
    /// What was asked could not be done.
    pub(crate) const FAILED: Self = Self(1);
    /// The job's time was over, as with coreutils' `timeout`.
    pub(crate) const TIMEOUT: Self = Self(124);
    /// The job did not run, or nobody can say how it ended: the server, a worker or this program failed, not the command.
    pub(crate) const INFRASTRUCTURE: Self = Self(125);
    /// Interrupted, or the job was cancelled.
    pub(crate) const INTERRUPTED: Self = Self(130);
    /// The job used more memory than it may: 128 + SIGKILL, as a shell says it.
    pub(crate) const OUT_OF_MEMORY: Self = Self(137);
    /// Nobody reads the output any more: 128 + SIGPIPE.
    pub(crate) const BROKEN_PIPE: Self = Self(141);

    /// The job's own exit code, or why it has none.
    pub(crate) fn of_job(job: &JobView) -> Self {
        match (job.status, job.reason, job.exit_code) {
            (Status::Completed, ..) => Self::OK,
            (Status::Cancelled, ..) => Self::INTERRUPTED,
            (_, Some(Reason::Timeout), _) => Self::TIMEOUT,
            (_, Some(Reason::OutOfMemory), _) => Self::OUT_OF_MEMORY,
            // Codes beyond a byte exist on other systems: not 0 must stay not 0.
            (_, Some(Reason::ExitCode), Some(code)) => u8::try_from(code).map_or(Self::FAILED, Self),
            _ => Self::INFRASTRUCTURE,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Says what went wrong, and gives the exit code for it. A command whose exit code is otherwise a job's must not be taken
/// for the job's failure.
pub(crate) fn explain(error: &anyhow::Error, about_a_job: bool) -> Exit {
    if error.chain().any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)) {
        return Exit::BROKEN_PIPE;
    }
    eprintln!("cmdexec: {error:#}");
    if about_a_job { Exit::INFRASTRUCTURE } else { Exit::FAILED }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::a_job;

    #[test]
    fn the_jobs_own_code_or_why_there_is_none() {
        let exit = |status, reason, exit_code| Exit::of_job(&JobView { status, reason, exit_code, ..a_job() });
        assert_eq!(exit(Status::Completed, None, Some(0)), Exit::OK);
        assert_eq!(exit(Status::Failed, Some(Reason::ExitCode), Some(7)), Exit(7));
        assert_eq!(exit(Status::Failed, Some(Reason::ExitCode), Some(-1)), Exit::FAILED);
        assert_eq!(exit(Status::Failed, Some(Reason::Timeout), None), Exit::TIMEOUT);
        assert_eq!(exit(Status::Failed, Some(Reason::WorkerLost), None), Exit::INFRASTRUCTURE);
        assert_eq!(exit(Status::Cancelled, None, Some(143)), Exit::INTERRUPTED);
    }
}
