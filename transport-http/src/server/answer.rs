//! JSON answers.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::problem::Problem;
use crate::older::Success;
use cmdexec_core::Error;

/// What a handler gives.
pub(super) type Answered = Result<Response, Problem>;

/// A JSON success body.
pub(super) fn json(status: StatusCode, body: impl Serialize) -> Answered {
    bare(status, &Success::of(body))
}

/// A JSON body as it is, without `success`.
pub(super) fn bare(status: StatusCode, body: &impl Serialize) -> Answered {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let mut response = (status, body).into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        }
        Err(error) => {
            tracing::error!(error = %error, "an answer does not serialise");
            Err(Error::Internal.into())
        }
    }
}
