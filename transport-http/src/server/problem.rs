//! The one place where an error becomes an answer: RFC 9457 with a stable `code`.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use cmdexec_core::Error;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::read::Malformed;
use crate::wire;

/// Why a request is not answered as its sender hoped.
#[derive(Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    problems: Vec<cmdexec_core::job::Problem>,
    retry_after: Option<Duration>,
    /// The most that would have been taken.
    limit: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            problems: Vec::new(),
            retry_after: None,
            limit: None,
        }))
    }

    /// No credentials, or none that are good. One wording for whatever is wrong with them, except that they are old.
    pub(crate) fn unauthenticated(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here; see /api/docs")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this can't be done with that method")
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("the body may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
    }
}

impl Problem {
    /// An error whose status depends on where it came up.
    pub(crate) fn with_status(status: StatusCode, error: Error) -> Self {
        let mut problem = Self::from(error);
        problem.0.status = status;
        problem
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::JobNotFound | Error::WorkerNotFound | Error::FileNotFound => StatusCode::NOT_FOUND,
            Error::Unauthenticated => StatusCode::UNAUTHORIZED,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::FileTooLarge { .. } | Error::QuotaExceeded { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Error::JobFinished | Error::FileInUse | Error::LeaseLost | Error::IdempotencyConflict => {
                StatusCode::CONFLICT
            }
            Error::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut problem = Self::new(status, error.code(), error.to_string());
        problem.0.retry_after = error.retry_after();
        problem.0.limit = match error {
            Error::FileTooLarge { most } => Some(most),
            Error::QuotaExceeded { quota } => Some(quota),
            _ => None,
        };
        if let Error::Invalid(problems) = error {
            problem.0.problems = problems;
        }
        problem
    }
}

impl From<Malformed> for Problem {
    fn from(Malformed(why): Malformed) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", format!("the body is not the JSON it should be: {why}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Inner { status, code, detail, problems, retry_after, limit } = *self.0;
        // Whole seconds, rounded up: sooner would be refused again.
        let retry_after =
            retry_after.map(|after| u64::try_from(after.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1));
        let body = wire::Problem {
            kind: format!("/api/docs#{code}"),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            error: detail.clone().into_owned(),
            detail: detail.into_owned(),
            problems: problems.into_iter().map(wire::FieldProblem::from).collect(),
            limit,
            retry_after_seconds: retry_after,
        };
        // A struct of strings and numbers always serialises.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
