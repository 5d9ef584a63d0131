//! What is said of a request that was refused.

#[cfg(feature = "client")]
use std::time::Duration;

use cmdexec_core::Error;
#[cfg(feature = "client")]
use cmdexec_core::job::Problem;
use cmdexec_wire::FieldProblem;
#[cfg(feature = "client")]
use cmdexec_wire::error_of;
use serde::{Deserialize, Serialize};

/// The body of `error`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refusal {
    /// Why, for programs: the codes are those of HTTP's problems.
    pub(crate) code: String,
    /// Why, for people.
    #[serde(default)]
    pub(crate) detail: String,
    /// Every field that is wrong, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<FieldProblem>,
    /// The most that would have been taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (code, detail) = (error.code().to_owned(), error.to_string());
        let retry_after_ms = error.retry_after().map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let limit = match error {
            Error::FileTooLarge { most } => Some(most),
            Error::QuotaExceeded { quota } => Some(quota),
            _ => None,
        };
        let problems = match error {
            Error::Invalid(problems) => problems.into_iter().map(FieldProblem::from).collect(),
            _ => Vec::new(),
        };
        Self { code, detail, problems, limit, retry_after_ms }
    }
}

#[cfg(feature = "client")]
impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match (refusal.code.as_str(), refusal.limit) {
            ("invalid" | "malformed", _) if refusal.problems.is_empty() => Self::invalid("body", refusal.detail),
            ("invalid", _) => {
                let problems = refusal.problems.into_iter();
                Self::Invalid(problems.map(|problem| Problem::new(problem.field, problem.message)).collect())
            }
            ("file_too_large", Some(most)) => Self::FileTooLarge { most },
            ("quota_exceeded", Some(quota)) => Self::QuotaExceeded { quota },
            (code, _) => error_of(code, refusal.retry_after_ms.map(Duration::from_millis)).unwrap_or(Self::Internal),
        }
    }
}
