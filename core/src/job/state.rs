//! Where a job stands: the part of it that changes, and the names of its endings.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::FileId;
use crate::id::{LeaseToken, WorkerId};
use crate::time::Timestamp;

/// The part of a job that changes. Only [`super::transition`] makes a new one out of an old one.
///
/// Its serde form is how stores keep it; golden files hold it still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// Where the job stands now.
    pub state: State,
    /// Attempts that are over, oldest first. Those that cost nothing are kept only for a while
    /// ([`super::KEPT_FREE_ATTEMPTS`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// How many attempts were claimed so far; the next one's number is one more.
    #[serde(default)]
    pub claimed: u32,
    /// Attempts spent on lost workers and infrastructure errors, against `max_attempts`.
    #[serde(default)]
    pub lost: u32,
    /// Attempts spent on non-zero exits and timeouts, against `retries`.
    #[serde(default)]
    pub failed: u32,
}

/// Where a job stands. States carry their data, so that nothing can contradict the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum State {
    /// Waits for its time.
    Scheduled {
        /// What it waits for.
        wait: Wait,
    },
    /// Ready to be claimed.
    Queued {
        /// When it became ready.
        since: Timestamp,
    },
    /// A worker has it.
    Running {
        /// Who has it, and by which token.
        lease: Lease,
    },
    /// A worker has it and has been, or will be, told to stop.
    Cancelling {
        /// Who has it, and by which token.
        lease: Lease,
        /// When the cancellation was asked for.
        since: Timestamp,
    },
    /// Ended with exit code 0.
    Completed {
        /// When.
        at: Timestamp,
    },
    /// Ended otherwise, with no tries left.
    Failed {
        /// When.
        at: Timestamp,
        /// Why, for programs.
        reason: Reason,
        /// Why, for people.
        error: String,
    },
    /// Ended because somebody asked.
    Cancelled {
        /// When.
        at: Timestamp,
    },
}

/// What a scheduled job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "for")]
pub enum Wait {
    /// The time that its submitter named.
    Time {
        /// When it is due.
        at: Timestamp,
    },
    /// The delay before a further attempt.
    Retry {
        /// When the last attempt ended.
        since: Timestamp,
        /// How long after that it is due.
        #[serde(with = "crate::time_serde::millis", rename = "delayMs")]
        delay: Duration,
    },
}

/// A worker's hold on a job for one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// Whose.
    pub worker: WorkerId,
    /// What fences it.
    pub token: LeaseToken,
    /// When it was claimed.
    pub since: Timestamp,
}

/// An attempt that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The lease that it ran under.
    #[serde(flatten)]
    pub lease: Lease,
    /// When it was over.
    pub ended: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What else its worker said of it.
    #[serde(flatten)]
    pub details: Details,
}

/// What a worker says of an attempt's end besides how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// How long the command ran, where the worker said.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "durationMs",
        with = "crate::time_serde::opt_millis"
    )]
    pub duration: Option<Duration>,
    /// The steps that were begun, in order; empty unless the job is one of [`super::Command::Steps`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The ZIP of what [`super::JobSpec::outputs`] found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<FileId>,
    /// What its user should know though it changes nothing: an output that was not there, one that was too large, a full disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Exactly which image the attempt ran in: its registry's digest, or the id of one that is nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Details {
    /// Nothing but how long the command ran.
    pub fn lasting(duration: Duration) -> Self {
        Self { duration: Some(duration), ..Self::default() }
    }
}

/// How a step of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its exit code; 128 + the number for a signal. `None`: it was under way when the job was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long it ran.
    #[serde(rename = "durationMs", with = "crate::time_serde::millis")]
    pub duration: Duration,
}

/// How an attempt ended, from the runtime's own evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "how")]
pub enum Outcome {
    /// The command exited by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the command that neither the executor sent nor the kernel for want of memory.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// The executor ended it because its time was over.
    TimedOut,
    /// The kernel ended it because it used more memory than it may.
    OutOfMemory,
    /// The executor ended it because it was told to stop, and the command had not exited by itself.
    Stopped,
    /// The worker gives the job back: it shuts down, or has no room. Costs the job nothing.
    Returned,
    /// The job's files could not be had or unpacked. Trying again would not help.
    InputError {
        /// What was wrong with them.
        message: String,
    },
    /// The executor could not run the command. Counts as the infrastructure's fault.
    ExecutorError {
        /// What went wrong.
        message: String,
    },
    /// Nobody said: the lease was over before the worker reported, or the worker dropped the job.
    /// Only the coordinator says so; a worker that reports it is refused.
    Lost,
}

impl Outcome {
    /// The exit code as a shell would give it: the command's own, or 128 + the signal's number.
    pub fn exit_code(&self) -> Option<i32> {
        match *self {
            Self::Exited { code } => Some(code),
            Self::Signaled { signal } => Some(128 + signal),
            _ => None,
        }
    }

    /// Whether the command did what it was asked to.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }
}

/// What a reader may see of where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for its time or a retry delay.
    Scheduled,
    /// Ready to be claimed.
    Queued,
    /// A worker has it.
    Running,
    /// A worker has it and is to stop it.
    Cancelling,
    /// Ended with exit code 0.
    Completed,
    /// Ended otherwise.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

impl Status {
    /// Every status, in the order of a job's life.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Cancelling,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether nothing can follow.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether a worker has the job.
    pub fn is_leased(self) -> bool {
        matches!(self, Self::Running | Self::Cancelling)
    }

    /// The status as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or(UnknownStatus)
    }
}

/// A text was no [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a status: expected scheduled, queued, running, cancelling, completed, failed or cancelled")]
pub struct UnknownStatus;

/// Why a job failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The command ended with a code other than 0, or by a signal.
    ExitCode,
    /// Its time was over.
    Timeout,
    /// It used more memory than it may.
    OutOfMemory,
    /// Its workers were lost once too often.
    WorkerLost,
    /// Its files could not be had or unpacked.
    InputError,
    /// Executors could not run it, once too often.
    ExecutorError,
    /// A job that it waited for did not complete.
    DependencyFailed,
}

impl Reason {
    /// The reason as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExitCode => "exit_code",
            Self::Timeout => "timeout",
            Self::OutOfMemory => "out_of_memory",
            Self::WorkerLost => "worker_lost",
            Self::InputError => "input_error",
            Self::ExecutorError => "executor_error",
            Self::DependencyFailed => "dependency_failed",
        }
    }
}

impl Life {
    /// The life of a job that has just been submitted and whose state is `state`.
    pub fn starting(state: State) -> Self {
        Self { state, attempts: Vec::new(), claimed: 0, lost: 0, failed: 0 }
    }

    /// What a reader may see of the state.
    pub fn status(&self) -> Status {
        match self.state {
            State::Scheduled { .. } => Status::Scheduled,
            State::Queued { .. } => Status::Queued,
            State::Running { .. } => Status::Running,
            State::Cancelling { .. } => Status::Cancelling,
            State::Completed { .. } => Status::Completed,
            State::Failed { .. } => Status::Failed,
            State::Cancelled { .. } => Status::Cancelled,
        }
    }

    /// The lease under which a worker has the job now, if one has.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Running { lease } | State::Cancelling { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// The lease of the current attempt, or of the last one.
    pub fn last_lease(&self) -> Option<&Lease> {
        self.lease().or_else(|| self.attempts.last().map(|a| &a.lease))
    }

    /// When the job ended, if it has.
    pub fn finished_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Completed { at } | State::Failed { at, .. } | State::Cancelled { at } => Some(at),
            _ => None,
        }
    }
}
