//! Refusals as programs read them: what each code stands for, and what became of one item of several.

use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::job::Problem;

use crate::{BatchAck, FieldProblem};

/// When to come again if nobody said.
pub const LATER: Duration = Duration::from_secs(1);

/// The error that a code alone stands for.
pub fn error_of(code: &str, retry_after: Option<Duration>) -> Option<Error> {
    let retry_after = retry_after.unwrap_or(LATER);
    Some(match code {
        "unauthenticated" => Error::Unauthenticated,
        "forbidden" => Error::Forbidden("the server does not allow this with these credentials"),
        "job_not_found" => Error::JobNotFound,
        "worker_not_found" => Error::WorkerNotFound,
        "file_not_found" => Error::FileNotFound,
        "file_in_use" => Error::FileInUse,
        "job_finished" => Error::JobFinished,
        "lease_lost" => Error::LeaseLost,
        "idempotency_conflict" => Error::IdempotencyConflict,
        "rate_limited" => Error::RateLimited { retry_after },
        "unavailable" => Error::Unavailable { retry_after },
        "internal" => Error::Internal,
        _ => return None,
    })
}

impl BatchAck {
    /// The item was accepted.
    pub fn accepted(cancel: bool) -> Self {
        Self { ok: true, cancel, seq: None, code: None, problems: Vec::new() }
    }

    /// What became of an item that was not accepted.
    ///
    /// # Errors
    /// What would be answered to all, unavailable or broken, is.
    pub fn refused(error: Error) -> Result<Self, Error> {
        match error {
            Error::Unavailable { .. } | Error::Internal => Err(error),
            refused => {
                let code = Some(refused.code().to_owned());
                let problems = match refused {
                    Error::Invalid(problems) => problems.into_iter().map(FieldProblem::from).collect(),
                    _ => Vec::new(),
                };
                Ok(Self { ok: false, cancel: false, seq: None, code, problems })
            }
        }
    }

    /// What it says, as the service said it.
    ///
    /// # Errors
    /// The item was refused.
    pub fn read(&self) -> Result<(), Error> {
        if self.ok {
            return Ok(());
        }
        let code = self.code.as_deref().unwrap_or_default();
        if code == "invalid" {
            let problems = self.problems.iter().map(|problem| Problem::new(&problem.field, &problem.message));
            return Err(Error::Invalid(problems.collect()));
        }
        Err(error_of(code, None).unwrap_or(Error::Internal))
    }
}
