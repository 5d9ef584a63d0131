//! What a user does with jobs, but for reading their output.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use cmdexec_core::Error;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{JobQuery, Submission, SubmittedJob};
use http::request::Parts;
use http::{StatusCode, Uri};

use crate::read::{self, Fields, Json, Problems, Query, Submit};
use crate::server::App;
use crate::server::answer::{Answered, json};
use crate::server::body::{BATCH, Body, OTHER, SPEC};
use crate::server::guard::User;
use crate::server::problem::Problem;
use crate::{older, wire};

/// How many jobs one request may ask about.
const MAX_IDS: usize = 1_000;

/// The header of submissions, for the document.
#[derive(utoipa::IntoParams)]
#[expect(dead_code, reason = "only describes the header in the OpenAPI document")]
#[into_params(parameter_in = Header)]
pub(super) struct IdempotencyKey {
    /// Makes a repetition within 24 h known: 1 to 256 bytes of visible ASCII. `idempotencyKey` in the body says the same.
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
}

/// Submit a job
///
/// Once this is answered, the job is durable and will be run. A repeat with the same idempotency key within 24 h answers the
/// first job with 200.
#[utoipa::path(
    post, path = "/api/jobs/create", tag = "jobs", request_body = wire::Spec,
    params(IdempotencyKey),
    responses(
        (status = 201, description = "The job is there", body = wire::Created),
        (status = 200, description = "It was there already", body = wire::Created),
        (status = 409, description = "`idempotency_conflict`: the key was used for something else", body = wire::Problem),
    )
)]
pub(super) async fn create(State(app): State<Arc<App>>, user: User, Key(key): Key, body: Body<SPEC>) -> Answered {
    let submit = read::single(&body.bytes, key)??;
    let jobs = submitted(&app, &user, submit).await?;
    let job = jobs.first().ok_or(Error::Internal)?;
    json(created(&jobs), wire::Created::from(job))
}

/// Submit a job (older name)
#[utoipa::path(
    post, path = "/api/jobs/submit", tag = "jobs", request_body = wire::Spec,
    params(IdempotencyKey),
    responses(
        (status = 201, description = "The job is there", body = wire::Created),
        (status = 200, description = "It was there already", body = wire::Created),
        (status = 409, description = "`idempotency_conflict`: the key was used for something else", body = wire::Problem),
    )
)]
pub(super) async fn submit(app: State<Arc<App>>, user: User, Key(key): Key, body: Body<SPEC>) -> Answered {
    create(app, user, Key(key), body).await
}

/// The body of a batch, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
#[schema(rename_all = "camelCase")]
pub(super) struct BatchBody {
    /// 1 to 10,000 jobs.
    jobs: Vec<wire::Spec>,
    /// Makes a repetition of the whole batch known.
    idempotency_key: Option<String>,
}

/// Submit many jobs
///
/// All or nothing; the answers are in the request's order.
#[utoipa::path(
    post, path = "/api/jobs/create-batch", tag = "jobs", request_body = BatchBody,
    params(IdempotencyKey),
    responses(
        (status = 201, description = "The jobs are there", body = wire::CreatedBatch),
        (status = 200, description = "They were there already", body = wire::CreatedBatch),
        (status = 409, description = "`idempotency_conflict`: the key was used for something else", body = wire::Problem),
    )
)]
pub(super) async fn create_batch(
    State(app): State<Arc<App>>,
    user: User,
    Key(key): Key,
    body: Body<BATCH>,
) -> Answered {
    let submit = read::batch(&body.bytes, key)??;
    let jobs = submitted(&app, &user, submit).await?;
    json(created(&jobs), wire::CreatedBatch { jobs: jobs.iter().map(wire::Created::from).collect() })
}

/// Submits what was read.
pub(super) async fn submitted(app: &App, user: &User, submit: Submit) -> Result<Vec<SubmittedJob>, Error> {
    let Submit { specs, key } = submit;
    let submission = Submission { specs, idempotency_key: key };
    app.bounded(app.jobs(user).submit_batch(submission)).await
}

/// The key in a submission's header, if there is one. What is no ASCII becomes a key that is refused by name.
pub(super) struct Key(pub(super) Option<String>);

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get("idempotency-key");
        Ok(Self(header.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned())))
    }
}

fn created(jobs: &[SubmittedJob]) -> StatusCode {
    let repeated = !jobs.is_empty() && jobs.iter().all(|job| job.repeated);
    if repeated { StatusCode::OK } else { StatusCode::CREATED }
}

/// A job
///
/// With one `jobId` the job; with several, `{jobs: [...]}` in their order, null where there is none.
#[utoipa::path(
    get, path = "/api/jobs/status", tag = "jobs",
    params(("jobId" = Vec<uuid::Uuid>, Query, description = "Which job, or up to 1,000 jobs", style = Form, explode)),
    responses(
        (status = 200, description = "The job", body = wire::Job),
        (status = 404, description = "There is none, for the caller", body = wire::Problem),
    )
)]
pub(super) async fn status(State(app): State<Arc<App>>, user: User, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let ids: Vec<JobId> = query.all("jobId");
    if ids.is_empty() {
        query.missing("jobId");
    }
    if ids.len() > MAX_IDS {
        query.wrong("jobId", format!("must be at most {MAX_IDS}"));
    }
    let ids = query.check(Some(ids))?;
    match ids.as_slice() {
        [id] => {
            let views = app.bounded(app.jobs(&user).get(&[*id])).await?;
            let view = views.into_iter().next().flatten().ok_or(Error::JobNotFound)?;
            json(StatusCode::OK, older::Job::from(wire::Job::whole(&view)))
        }
        many => found(&app, &user, many).await,
    }
}

/// Many jobs
///
/// In the order of the ids; null where there is none, for the caller.
#[utoipa::path(
    post, path = "/api/jobs/status-batch", tag = "jobs", request_body = IdsBody,
    responses((status = 200, description = "The jobs", body = wire::JobList))
)]
pub(super) async fn status_batch(State(app): State<Arc<App>>, user: User, body: Body<OTHER>) -> Answered {
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(Json::parse(&body.bytes).map_err(Problem::from)?, &mut problems);
    fields.require("jobIds");
    let texts = fields.texts("jobIds").unwrap_or_default();
    if texts.len() > MAX_IDS {
        fields.wrong("jobIds", format!("must be at most {MAX_IDS}"));
    }
    let mut ids: Vec<JobId> = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(id) => ids.push(id),
            Err(error) => fields.wrong(&format!("jobIds[{i}]"), cmdexec_core::id::ParseError::to_string(&error)),
        }
    }
    let ids = problems.check(Some(ids))?;
    found(&app, &user, &ids).await
}

/// The body that asks about many jobs, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
#[schema(rename_all = "camelCase")]
pub(super) struct IdsBody {
    /// At most 1,000.
    job_ids: Vec<uuid::Uuid>,
}

async fn found(app: &App, user: &User, ids: &[JobId]) -> Answered {
    let views = app.bounded(app.jobs(user).get(ids)).await?;
    let jobs = views.iter().map(|view| view.as_ref().map(|view| older::Job::from(wire::Job::whole(view)))).collect();
    json(StatusCode::OK, older::JobList { jobs })
}

/// Jobs
///
/// Newest first: summaries, without output and environment, the command cut at 200 characters.
#[utoipa::path(
    get, path = "/api/jobs/list", tag = "jobs",
    params(
        ("status" = Option<wire::StatusName>, Query, description = "Only those in this status"),
        ("workerId" = Option<String>, Query, description = "Only those whose current or last worker this is"),
        ("label" = Option<String>, Query, description = "Only those that ask for this label"),
        ("createdAfter" = Option<wire::Time>, Query, description = "Only those created after this"),
        ("limit" = Option<u16>, Query, description = "How many at most: 50 by default, at most 500"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before"),
        ("offset" = Option<u16>, Query, description = "Leave out this many, at most 10,000"),
    ),
    responses((status = 200, description = "A page of jobs", body = wire::JobPage))
)]
pub(super) async fn list(State(app): State<Arc<App>>, user: User, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let default = JobQuery::default();
    let asked = JobQuery {
        status: query.parsed("status"),
        worker: query.parsed("workerId"),
        label: query.text("label").map(std::borrow::Cow::into_owned),
        created_after: query.time("createdAfter"),
        before: query.cursor("cursor"),
        offset: query.whole("offset", 0..=10_000).unwrap_or(default.offset),
        limit: query.whole("limit", 1..=500).unwrap_or(default.limit),
    };
    let asked = query.check(Some(asked))?;
    let page = app.bounded(app.jobs(&user).list(&asked)).await?;
    let page = older::JobPage {
        jobs: page.jobs.iter().map(|view| older::Job::from(wire::Job::summary(view))).collect(),
        next_cursor: page.next.map(|id| id.to_string()),
        total: page.total,
    };
    json(StatusCode::OK, page)
}

/// How much there is of everything
///
/// Who is no admin sees the counts of its own jobs, each to 10,000, and no queues; workers are shown to all.
#[utoipa::path(
    get, path = "/api/stats", tag = "jobs",
    responses((status = 200, description = "The numbers", body = wire::Stats))
)]
pub(super) async fn stats(State(app): State<Arc<App>>, user: User) -> Answered {
    let stats = app.bounded(app.jobs(&user).stats()).await?;
    json(StatusCode::OK, wire::Stats::from(&stats))
}

/// The body that names a job, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
#[schema(rename_all = "camelCase")]
pub(super) struct IdBody {
    job_id: uuid::Uuid,
}

/// Cancel a job
///
/// `cancelled` at once if no worker had it, else `cancelling` until its worker confirms.
#[utoipa::path(
    post, path = "/api/jobs/cancel", tag = "jobs", request_body = IdBody,
    responses(
        (status = 200, description = "Where it stands now", body = wire::JobState),
        (status = 404, description = "There is no such job, for the caller", body = wire::Problem),
        (status = 409, description = "It has ended: `job_finished`", body = wire::Problem),
    )
)]
pub(super) async fn cancel(State(app): State<Arc<App>>, user: User, body: Body<OTHER>) -> Answered {
    let mut problems = Problems::default();
    let mut fields = Fields::of_body(Json::parse(&body.bytes).map_err(Problem::from)?, &mut problems);
    fields.require("jobId");
    let id: Option<JobId> = fields.parsed("jobId");
    let id = problems.check(id)?;
    let status = app.bounded(app.jobs(&user).cancel(id)).await?;
    json(StatusCode::OK, wire::JobState { job_id: id.as_uuid(), status })
}
