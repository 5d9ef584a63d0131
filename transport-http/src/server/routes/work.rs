//! What a worker does.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::id::{JobId, Owner, WorkerId};
use cmdexec_core::job::Status;
use cmdexec_core::limiter::{Caller, Counted, RequestKind};
use cmdexec_core::service::{
    FinishedAttempt, LeaseRequest, LeasedJob, OutputAck, OutputBatch, OutputPieces, Role, UserPrincipal, WorkerService,
};
use http::{Extensions, HeaderMap, StatusCode, Uri};

use crate::read::{self, Query, ReportKind};
use crate::server::App;
use crate::server::answer::{Answered, json};
use crate::server::body::{Body, OTHER, OutputBody, RESULT};
use crate::server::guard::{self, Worker};
use crate::server::limits;
use crate::{older, wire};

/// How many jobs one request may ask for.
const MAX_LEASES: i128 = 1_000;

/// Register
///
/// The same id again is a reconnect, not an error.
#[utoipa::path(
    post, path = "/api/workers/register", tag = "worker protocol", request_body = wire::Register,
    responses(
        (status = 200, description = "The worker is known", body = wire::Registered),
        (status = 403, description = "It was removed, or the token is another worker's", body = wire::Problem),
    )
)]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    worker: Worker,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body<OTHER>,
) -> Answered {
    let mut registration = read::registration(&body.bytes)??;
    if worker.bound().is_some() {
        registration.worker = Some(worker.named(registration.worker.take())?);
    }
    let caller = match &registration.worker {
        Some(id) => Caller::Worker(id),
        None => Caller::Address(guard::address(&app, &headers, &extensions)),
    };
    let Counted { left, passed } = app.limiter.count(RequestKind::Registration, caller).await;
    let answer = async {
        passed?;
        let registered = app.bounded(app.work(&worker).register(registration.clone())).await?;
        app.workers.registered(&registration, &registered);
        let mut registered = wire::Registered::from(&registered);
        registered.ws_url = push_url(&app, &headers, &extensions);
        json(StatusCode::OK, registered)
    };
    let mut response = answer.await.into_response();
    limits::stamp(response.headers_mut(), left.as_ref(), app.clock.now());
    Ok(response)
}

/// Where jobs are pushed, by the name that the worker has for this server.
fn push_url(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Option<String> {
    let push = app.options.push.as_ref()?;
    let host = headers.get(http::header::HOST)?.to_str().ok()?;
    let authority: http::uri::Authority = host.parse().ok()?;
    let is_secure = guard::is_proxied(app, extensions)
        && headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https");
    let scheme = if is_secure { "wss" } else { "ws" };
    let port = push.port.map(|port| format!("{}:{port}", authority.host()));
    Some(format!("{scheme}://{}{}", port.as_deref().unwrap_or(host), push.path))
}

/// Give a sign of life
///
/// Renews the lease of every attempt that the worker holds.
#[utoipa::path(
    post, path = "/api/workers/heartbeat", tag = "worker protocol", request_body = wire::Beat,
    responses(
        (status = 200, description = "What to stop", body = wire::BeatAck),
        (status = 404, description = "`worker_not_found`: register again", body = wire::Problem),
    )
)]
pub(super) async fn heartbeat(State(app): State<Arc<App>>, worker: Worker, body: Body<OTHER>) -> Answered {
    let read::Beat { worker: said, beat } = read::beat(&body.bytes)??;
    let id = worker.named(said)?;
    let Counted { left, passed } = app.limiter.count(RequestKind::Heartbeat, Caller::Worker(&id)).await;
    let answer = async {
        passed?;
        let _call = app.turn(&id).await?;
        let reply = app.bounded(app.work(&worker).heartbeat(&id, beat)).await?;
        let interval = app.workers.heartbeat_interval(&id);
        let ack = older::BeatAck {
            ack: wire::BeatAck::from(&reply),
            timestamp: wire::Time(reply.server_time),
            next_check_in: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        };
        json(StatusCode::OK, ack)
    };
    let mut response = answer.await.into_response();
    limits::stamp(response.headers_mut(), left.as_ref(), app.clock.now());
    Ok(response)
}

/// The answer to who asks for jobs, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the answer in the OpenAPI document")]
#[serde(untagged)]
pub(super) enum GotJob {
    One(Box<wire::Lease>),
    Several(wire::Leases),
    None(NoJob),
}

/// There is no job now.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the answer in the OpenAPI document")]
#[schema(rename_all = "camelCase")]
pub(super) struct NoJob {
    /// Null.
    #[schema(required = true)]
    job_id: Option<uuid::Uuid>,
}

/// Ask for jobs
///
/// With `wait`, answers as soon as there is one; with `max`, `{jobs: [...]}` with several. A worker that said that it is
/// `draining`, or in `error`, gets none until it says otherwise.
#[utoipa::path(
    get, path = "/api/jobs/get-job", tag = "worker protocol",
    params(
        ("workerId" = Option<String>, Query, description = "Who asks; needed where the token speaks for any worker"),
        ("wait" = Option<f64>, Query, description = "How many seconds to wait for the first: at most 60"),
        ("max" = Option<u16>, Query, description = "How many at most: up to 1,000"),
    ),
    responses(
        (status = 200, description = "A lease, or `{jobId: null}`; with `max`, `{jobs: [...]}`", body = GotJob),
        (status = 404, description = "`worker_not_found`: register", body = wire::Problem),
    )
)]
pub(super) async fn get_job(State(app): State<Arc<App>>, worker: Worker, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let said: Option<WorkerId> = query.parsed("workerId");
    let wait = query.seconds("wait", 60.0).map_or(Duration::ZERO, Duration::from_secs_f64);
    let max: Option<usize> = query.whole("max", 1..=MAX_LEASES);
    let said = query.check(Some(said))?;
    let id = worker.named(said)?;
    // It is a part of the connection's buffer, which would be kept, and doubled, for as long as the call waits.
    drop(uri);
    let _call = if wait.is_zero() { app.turn(&id).await? } else { app.calls.begin(&id)? };
    let work = app.work(&worker);
    let leasing = work.lease(&id, LeaseRequest { max: max.unwrap_or(1), wait });
    let leased = if wait.is_zero() {
        app.bounded(leasing).await?
    } else {
        tokio::select! {
            biased;
            leased = leasing => leased?,
            // What was claimed for a call that is dropped goes back.
            () = app.closing.cancelled() => Vec::new(),
        }
    };
    let mut leases = Vec::with_capacity(leased.len());
    for leased in &leased {
        leases.push(lease(&app, &id, leased).await);
    }
    match max {
        Some(_) => json(StatusCode::OK, wire::Leases { jobs: leases }),
        None => json(StatusCode::OK, older::GetJob::of(leases.into_iter().next())),
    }
}

async fn lease(app: &App, worker: &WorkerId, leased: &LeasedJob) -> wire::Lease {
    let mut lease = wire::Lease::from(leased);
    if app.workers.is_older(worker, &*app.services).await {
        older::plain(&mut lease, &leased.spec);
    }
    lease
}

/// Send output
///
/// Durable when it is answered. `seq` counts an attempt's chunks across both streams from 0.
///
/// Instead of JSON, which costs much where there is much of it, the body may be `application/vnd.cmdexec.output`: the length of
/// a JSON document in 4 bytes, the highest first; that document, in which each chunk has a `length` in the place of its data;
/// and the bytes of all chunks, end to end.
#[utoipa::path(
    post, path = "/api/jobs/stream-output", tag = "worker protocol",
    request_body(content((wire::OutputBody = "application/json"), (wire::Packed = "application/vnd.cmdexec.output"))),
    responses(
        (status = 200, description = "It is kept", body = wire::OutputAck),
        (status = 409, description = "`lease_lost`: stop the job and forget it", body = wire::Problem),
    )
)]
pub(super) async fn stream_output(State(app): State<Arc<App>>, worker: Worker, output: OutputBody) -> Answered {
    let OutputBody { body, is_packed } = output;
    let read = if is_packed { read::packed(&body.bytes) } else { read::output(&body.bytes) };
    let read::Output { worker: said, batches, many } = read??;
    let id = worker.named(said)?;
    let _call = app.turn(&id).await?;
    let acks = app.bounded(app.work(&worker).append_output(&id, batches)).await?;
    if !many {
        let OutputAck { cancel } = acks.into_iter().next().unwrap_or(Err(Error::Internal))?;
        return json(StatusCode::OK, wire::OutputAck { ok: true, cancel, batches: None });
    }
    let acks: Vec<_> = acks
        .into_iter()
        .map(|ack| match ack {
            Ok(OutputAck { cancel }) => Ok(wire::BatchAck::accepted(cancel)),
            Err(error) => wire::BatchAck::refused(error),
        })
        .collect::<Result<_, Error>>()?;
    let cancel = acks.iter().any(|ack| ack.cancel);
    json(StatusCode::OK, wire::OutputAck { ok: true, cancel, batches: Some(acks) })
}

/// Ask whether a job is cancelled
///
/// True also where the job is no longer the worker's: it should stop.
#[utoipa::path(
    get, path = "/api/jobs/check-cancel", tag = "worker protocol",
    params(
        ("jobId" = uuid::Uuid, Query, description = "Which job"),
        ("workerId" = Option<String>, Query, description = "Who asks, where the token speaks for any worker"),
    ),
    responses(
        (status = 200, description = "`{cancelled}`", body = CancelledBody),
        (status = 404, description = "There is no such job; only where nothing says which worker asks", body = wire::Problem),
    )
)]
pub(super) async fn check_cancel(State(app): State<Arc<App>>, worker: Worker, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let job: Option<JobId> = query.required("jobId");
    let said: Option<WorkerId> = query.parsed("workerId");
    let job = query.check(job)?;
    let Some(id) = said.or_else(|| worker.bound().cloned()) else {
        return json(StatusCode::OK, older::Cancelled::is(is_cancelled(&app, job).await?));
    };
    let id = worker.named(Some(id))?;
    let _call = app.turn(&id).await?;
    let asking = OutputBatch { job, token: None, pieces: OutputPieces::Plain(Vec::new()) };
    let acks = app.bounded(app.work(&worker).append_output(&id, vec![asking])).await?;
    let cancelled = match acks.into_iter().next() {
        Some(Ok(OutputAck { cancel })) => cancel,
        // Nobody wants its result any more. Older workers ask nothing else that would tell them.
        Some(Err(Error::LeaseLost)) => true,
        Some(Err(error)) => return Err(error.into()),
        None => return Err(Error::Internal.into()),
    };
    json(StatusCode::OK, older::Cancelled::is(cancelled))
}

/// The answer to whether a job is cancelled, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
pub(super) struct CancelledBody {
    cancelled: bool,
}

/// Whether a job is cancelled, for a worker whose token and request say nothing of who asks.
async fn is_cancelled(app: &App, job: JobId) -> Result<bool, Error> {
    let everybody = UserPrincipal { owner: Owner::local(), role: Role::Admin };
    let views = app.bounded(app.services.as_user(everybody).get(&[job])).await?;
    let view = views.into_iter().next().flatten().ok_or(Error::JobNotFound)?;
    Ok(matches!(view.status, Status::Cancelling | Status::Cancelled))
}

/// The body of reports, for the document: one, or `results` with several.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
#[serde(untagged)]
pub(super) enum ReportBody {
    One(Box<wire::Report>),
    Many(wire::Reports),
}

/// Report how an attempt ended
///
/// Durable when it is answered. Repeating an accepted report changes nothing.
#[utoipa::path(
    post, path = "/api/jobs/submit-result", tag = "worker protocol", request_body = ReportBody,
    responses(
        (status = 200, description = "It is kept", body = wire::ReportAck),
        (status = 409, description = "`lease_lost`: somebody else has the job, or it is over", body = wire::Problem),
    )
)]
pub(super) async fn submit_result(State(app): State<Arc<App>>, worker: Worker, body: Body<RESULT>) -> Answered {
    finished(&app, &worker, read::reports(&body.bytes)??).await
}

/// The body of a failure, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
#[schema(rename_all = "camelCase")]
pub(super) struct FailureBody {
    job_id: uuid::Uuid,
    worker_id: Option<String>,
    lease_token: Option<String>,
    /// What went wrong.
    error: String,
}

/// Report that an attempt could not be run
///
/// It is tried again if its spec allows.
#[utoipa::path(
    put, path = "/api/jobs/submit-result", tag = "worker protocol", request_body = FailureBody,
    responses(
        (status = 200, description = "It is kept", body = wire::ReportAck),
        (status = 409, description = "`lease_lost`: somebody else has the job, or it is over", body = wire::Problem),
    )
)]
pub(super) async fn submit_failure(State(app): State<Arc<App>>, worker: Worker, body: Body<RESULT>) -> Answered {
    finished(&app, &worker, read::report(&body.bytes, ReportKind::Failure)??).await
}

/// Keeps the ZIP that came with a report. Where that can't be done, the report counts all the same.
async fn keep_zip(
    work: &dyn WorkerService,
    worker: &WorkerId,
    attempt: &mut FinishedAttempt,
    zip: Bytes,
) -> Result<(), Error> {
    let bytes = Box::pin(futures_util::stream::iter([Ok(zip)]));
    match work.upload_artifacts(worker, attempt.job, attempt.token, bytes).await {
        Ok(file) => attempt.details.artifacts = Some(file),
        Err(error @ (Error::Unavailable { .. } | Error::Internal | Error::Forbidden(_))) => return Err(error),
        // Whether it is a repetition, the report shows.
        Err(Error::LeaseLost) => {}
        Err(error) => attempt.details.warnings.push(format!("the result's ZIP was not kept: {error}")),
    }
    Ok(())
}

async fn finished(app: &App, worker: &Worker, report: read::Report) -> Answered {
    let read::Report { worker: said, mut attempts, zips, many } = report;
    let id = worker.named(said)?;
    let _call = app.turn(&id).await?;
    let work = app.work(worker);
    for (place, zip) in zips {
        if let Some(attempt) = attempts.get_mut(place) {
            app.bounded(keep_zip(&*work, &id, attempt, zip)).await?;
        }
    }
    let acks = app.bounded(work.finish(&id, attempts)).await?;
    if !many {
        acks.into_iter().next().unwrap_or(Err(Error::Internal))?;
        return json(StatusCode::OK, wire::ReportAck { ok: true, results: None });
    }
    let results: Vec<_> = acks
        .into_iter()
        .map(|ack| match ack {
            Ok(()) => Ok(wire::BatchAck::accepted(false)),
            Err(error) => wire::BatchAck::refused(error),
        })
        .collect::<Result<_, Error>>()?;
    json(StatusCode::OK, wire::ReportAck { ok: true, results: Some(results) })
}
