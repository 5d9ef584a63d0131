//! What a service answers when it does not do what was asked.

use std::time::Duration;

use crate::job::Problem;
use crate::store;

/// What a service answers when it does not do what was asked.
///
/// Each kind has a stable machine code ([`Error::code`]), the same over every transport.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was sent is wrong; every problem is listed.
    #[error("{}", join(.0))]
    Invalid(Vec<Problem>),
    /// There is no such job, or the caller may not know that there is.
    #[error("there is no such job")]
    JobNotFound,
    /// No such worker is registered; it should register (again).
    #[error("there is no such worker; register first")]
    WorkerNotFound,
    /// There is no such file, or the caller may not know that there is.
    #[error("there is no such file")]
    FileNotFound,
    /// The caller showed no credentials, or none that are good.
    #[error("the credentials are missing, wrong or expired")]
    Unauthenticated,
    /// The caller is known but may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The job has ended, so that this can't be done to it.
    #[error("the job has ended already")]
    JobFinished,
    /// The attempt is over or was never this worker's: stop it, and don't report on it again.
    #[error("the lease is lost: the job is no longer this worker's")]
    LeaseLost,
    /// A job that has not ended brings the file, so that it can't be removed.
    #[error("a job that has not ended brings this file")]
    FileInUse,
    /// The file has more bytes than one may have.
    #[error("a file may have at most {most} bytes")]
    FileTooLarge {
        /// The most that it may have.
        most: u64,
    },
    /// Its owner's files would have more bytes than they may together.
    #[error("the owner's files may have at most {quota} bytes together")]
    QuotaExceeded {
        /// The most that they may have.
        quota: u64,
    },
    /// The idempotency key was used for something else.
    #[error("the idempotency key was used for another submission")]
    IdempotencyConflict,
    /// Too many requests.
    #[error("too many requests; try again in {} s", .retry_after.as_secs_f64().ceil())]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// Something that is needed does not answer now. What was asked was not done, or it is not known whether it was:
    /// repeat it (submissions with an idempotency key).
    #[error("the service is unavailable")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// Something is broken on the service's side. The details are in its log.
    #[error("internal error")]
    Internal,
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// One problem with one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem::new(field, message)])
    }

    /// The stable name of this kind of error, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::JobNotFound => "job_not_found",
            Self::WorkerNotFound => "worker_not_found",
            Self::FileNotFound => "file_not_found",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden(_) => "forbidden",
            Self::JobFinished => "job_finished",
            Self::LeaseLost => "lease_lost",
            Self::FileInUse => "file_in_use",
            Self::FileTooLarge { .. } => "file_too_large",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed later, and how long to wait before it.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

impl From<store::Error> for Error {
    /// What a caller may know of a store's trouble. The rest goes to the log here, once.
    fn from(error: store::Error) -> Self {
        match error.retry_after() {
            Some(retry_after) => {
                tracing::warn!(error = %error, "the store is unavailable");
                Self::Unavailable { retry_after }
            }
            None => {
                tracing::error!(error = %error, "the store failed");
                Self::Internal
            }
        }
    }
}
