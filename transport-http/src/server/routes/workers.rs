//! Workers as users see them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use cmdexec_core::Error;
use cmdexec_core::id::WorkerId;
use http::{StatusCode, Uri};

use crate::read::Query;
use crate::server::App;
use crate::server::answer::{Answered, json};
use crate::server::guard::User;
use crate::wire;

/// The workers
#[utoipa::path(
    get, path = "/api/workers/list", tag = "workers",
    params(("workerId" = Option<Vec<String>>, Query, description = "Only these", style = Form, explode)),
    responses((status = 200, description = "The workers, by id", body = wire::WorkerList))
)]
pub(super) async fn list(State(app): State<Arc<App>>, user: User, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let ids: Vec<WorkerId> = query.all("workerId");
    let ids = query.check(Some(ids))?;
    let only = (!ids.is_empty()).then_some(ids.as_slice());
    let views = app.bounded(app.jobs(&user).workers(only)).await?;
    json(StatusCode::OK, wire::WorkerList { workers: views.iter().map(wire::Worker::from).collect() })
}

/// A worker
#[utoipa::path(
    get, path = "/api/workers/{workerId}", tag = "workers",
    params(("workerId" = String, Path, description = "Which worker")),
    responses(
        (status = 200, description = "The worker", body = wire::Worker),
        (status = 404, description = "There is no such worker", body = wire::Problem),
    )
)]
pub(super) async fn get(State(app): State<Arc<App>>, user: User, Path(id): Path<String>) -> Answered {
    let id = id.parse::<WorkerId>().map_err(|error| Error::invalid("workerId", error.to_string()))?;
    let views = app.bounded(app.jobs(&user).workers(Some(&[id]))).await?;
    let view = views.first().ok_or(Error::WorkerNotFound)?;
    json(StatusCode::OK, wire::Worker::from(view))
}

/// Remove a worker
///
/// It gets no further leases and can't register again; what it runs it is told to drop, and is tried again elsewhere.
#[utoipa::path(
    delete, path = "/api/workers/{workerId}", tag = "workers",
    params(("workerId" = String, Path, description = "Which worker")),
    responses(
        (status = 204, description = "It is removed"),
        (status = 404, description = "There is no such worker", body = wire::Problem),
    )
)]
pub(super) async fn remove(State(app): State<Arc<App>>, user: User, Path(id): Path<String>) -> Answered {
    let id = id.parse::<WorkerId>().map_err(|error| Error::invalid("workerId", error.to_string()))?;
    app.bounded(app.jobs(&user).remove_worker(&id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
