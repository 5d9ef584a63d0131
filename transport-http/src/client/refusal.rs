//! Errors as the service gave them, rebuilt from what came over the wire.

use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::job::Problem;
use http::StatusCode;

use crate::wire;
pub(super) use crate::wire::{LATER, error_of};

/// The error that a refusal stands for. `None` where the answer is not the project's: whoever answered is no such server,
/// or something in between.
pub(super) fn error(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Option<Error> {
    let problem: wire::Problem = serde_json::from_slice(body).ok()?;
    if problem.code == "invalid" {
        let problems = problem.problems.into_iter().map(|problem| Problem::new(problem.field, problem.message));
        return Some(Error::Invalid(problems.collect()));
    }
    if let Some(limit) = problem.limit {
        match problem.code.as_str() {
            "file_too_large" => return Some(Error::FileTooLarge { most: limit }),
            "quota_exceeded" => return Some(Error::QuotaExceeded { quota: limit }),
            _ => {}
        }
    }
    if let Some(error) = error_of(&problem.code, retry_after) {
        return Some(error);
    }
    let about_body = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT];
    about_body.contains(&status).then(|| Error::invalid("body", problem.detail))
}

/// The error that a status alone stands for, where somebody else than the server answered.
pub(super) fn by_status(status: StatusCode, retry_after: Option<Duration>) -> Error {
    let retry_after = retry_after.unwrap_or(LATER);
    match status {
        StatusCode::UNAUTHORIZED => Error::Unauthenticated,
        StatusCode::FORBIDDEN => Error::Forbidden("something on the way to the server does not allow this"),
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { retry_after },
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Error::Unavailable { retry_after },
        _ => Error::Internal,
    }
}
