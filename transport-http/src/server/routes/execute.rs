//! Submit and, if asked, wait.

use std::sync::{Arc, PoisonError};

use axum::extract::{FromRequest, Request, State};
use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{JobServiceExt, OutputQuery};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::jobs::{IdempotencyKey, Key, submitted};
use super::logs;
use crate::read::{self, Execution, Fields, Json, Problems};
use crate::server::App;
use crate::server::answer::{Answered, json};
use crate::server::body::{Body, OTHER, SPEC};
use crate::server::guard::User;
use crate::server::problem::Problem;
use crate::server::upload::{Incoming, Opened};
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

/// An execution with its files, for the document: any field of a spec, `commands` as lines.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
pub(super) struct ExecuteForm {
    /// The ZIP to unpack into the working directory.
    #[schema(content_media_type = "application/zip")]
    file: Option<Vec<u8>>,
    /// Shell lines, run in order.
    #[schema(example = "make\nmake test")]
    commands: Option<String>,
    mode: Option<String>,
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
/// As a form with a ZIP in `file`, `direct` answers at once with the job's output as it comes (`text/event-stream`, as `GET
/// /api/jobs/logs`), and its id in the header `X-Exec-Id`.
///
/// A repeat with the same idempotency key is about the first job: `distributed` answers its id with 200, `direct` waits for it
/// (and answers its id with 200 if it is gone).
#[utoipa::path(
    post, path = "/api/execute", tag = "jobs", request_body(content(
        (ExecuteBody = "application/json"),
        (ExecuteForm = "multipart/form-data"),
    )), params(IdempotencyKey),
    responses(
        (status = 200, description = "The finished job, or its output as it comes; or the id of one that was there already", content(
            (Executed = "application/json"),
            (wire::Event = "text/event-stream"),
        )),
        (status = 202, description = "It is there, and will be run", body = wire::Created),
        (status = 409, description = "`idempotency_conflict`: the key was used for something else", body = wire::Problem),
    )
)]
pub(super) async fn execute(State(app): State<Arc<App>>, user: User, Key(key): Key, request: Request) -> Answered {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") {
        let incoming = Incoming::from_request(request, &app).await?;
        return by_form(&app, &user, key, incoming).await;
    }
    let body = Body::<SPEC>::from_request(request, &app).await?;
    let Execution { submit, direct, wait } = read::execution(&body.bytes, key)??;
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

/// As a form: its file is kept first, so that the job can bring it.
async fn by_form(app: &App, user: &User, key: Option<String>, incoming: Incoming) -> Answered {
    let jobs = app.jobs(user);
    let _room = app.uploads.room(format!("u:{}", user.0.owner), app.options.body_idle_timeout).await?;
    let Opened { file, texts, rest } = incoming.open().await?;
    let file = match file {
        Some((name, bytes)) => Some(rest.judge(jobs.upload(name.as_deref(), bytes).await).await?),
        None => None,
    };
    let texts = std::mem::take(&mut *texts.lock().unwrap_or_else(PoisonError::into_inner));
    let Execution { submit, direct, wait: _ } = read::execution_form(&texts, file.map(|file| file.id), key)?;
    let created = submitted(app, user, submit).await?;
    let created = created.first().ok_or(Error::Internal)?;
    if !direct || created.status.is_none() {
        let status = if created.repeated { StatusCode::OK } else { StatusCode::ACCEPTED };
        return json(status, wire::Created::from(created));
    }
    let query = OutputQuery { follow: true, ..OutputQuery::default() };
    let mut response = logs::events(app, user, app.bounded(jobs.output(created.id, query)).await?);
    if let Ok(id) = HeaderValue::try_from(created.id.to_string()) {
        response.headers_mut().insert("x-exec-id", id);
    }
    Ok(response)
}

/// The body that names an execution, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
#[schema(rename_all = "camelCase")]
pub(super) struct ExecBody {
    /// The job's id.
    exec_id: uuid::Uuid,
}

/// Stop an execution
///
/// As `POST /api/jobs/cancel`.
#[utoipa::path(
    delete, path = "/api/execute", tag = "jobs", request_body = ExecBody,
    responses(
        (status = 200, description = "Where it stands now", body = wire::JobState),
        (status = 404, description = "There is no such job, for the caller", body = wire::Problem),
        (status = 409, description = "It has ended: `job_finished`", body = wire::Problem),
    )
)]
pub(super) async fn stop(State(app): State<Arc<App>>, user: User, body: Body<OTHER>) -> Answered {
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(Json::parse(&body.bytes).map_err(Problem::from)?, &mut problems);
    fields.require("execId");
    let id: Option<JobId> = fields.parsed("execId");
    let id = problems.check(id)?;
    let status = app.bounded(app.jobs(&user).cancel(id)).await?;
    json(StatusCode::OK, wire::JobState { job_id: id.as_uuid(), status })
}
