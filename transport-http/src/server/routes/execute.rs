//! Submit and, if asked, wait.

use std::sync::Arc;

use axum::extract::State;
use cmdexec_core::Error;
use cmdexec_core::service::JobServiceExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::jobs::{IdempotencyKey, idempotency_key, submitted};
use crate::read::{self, Execution};
use crate::server::App;
use crate::server::answer::{Answered, json};
use crate::server::body::{Body, SPEC};
use crate::server::guard::User;
use crate::server::problem::Problem;
use crate::{older, wire};

/// The body of an execution, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
#[schema(rename_all = "camelCase")]
pub(super) struct ExecuteBody {
    #[schema(inline)]
    #[serde(flatten)]
    spec: wire::Spec,
    /// `distributed`, the default: answer at once. `direct`: wait until the job has ended.
    #[schema(example = "direct")]
    mode: Option<String>,
    /// How long to wait at most; as long as it takes if absent.
    wait_ms: Option<u64>,
}

/// What 200 says of an execution, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the answer in the OpenAPI document")]
#[serde(untagged)]
pub(super) enum Executed {
    Finished(Box<wire::Job>),
    Known(wire::Created),
}

/// Submit a job and wait for it
///
/// `distributed`: 202 at once. `direct`: 200 with the finished job, or 202 with its id once `waitMs` is over or the server stops.
/// A repeat with the same idempotency key is about the first job: `distributed` answers its id with 200, `direct` waits for it
/// (and answers its id with 200 if it is gone).
#[utoipa::path(
    post, path = "/api/execute", tag = "jobs", request_body = ExecuteBody, params(IdempotencyKey),
    responses(
        (status = 200, description = "The finished job; or the id of one that was there already", body = Executed),
        (status = 202, description = "It is there, and will be run", body = wire::Created),
        (status = 409, description = "`idempotency_conflict`: the key was used for something else", body = wire::Problem),
    )
)]
pub(super) async fn execute(
    State(app): State<Arc<App>>,
    user: User,
    headers: HeaderMap,
    body: Result<Body<SPEC>, Problem>,
) -> Answered {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        return Err(Error::invalid("file", "files in the request (multipart) are not supported yet").into());
    }
    let body = body?;
    let Execution { submit, direct, wait } = read::execution(&body.bytes, idempotency_key(&headers))??;
    let created = submitted(&app, &user, submit).await?;
    let created = created.first().ok_or(Error::Internal)?;
    let is_gone = created.status.is_none();
    if direct && !is_gone {
        let jobs = app.jobs(&user);
        let patience = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = jobs.wait(created.id) => {
                return json(StatusCode::OK, older::Job::from(wire::Job::whole(&done?)));
            }
            () = app.closing.cancelled() => {}
            () = patience => {}
        }
    }
    let is_answered = created.repeated && (!direct || is_gone);
    json(if is_answered { StatusCode::OK } else { StatusCode::ACCEPTED }, wire::Created::from(created))
}
