//! Changes of jobs as events.

use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{JobUpdate, WatchQuery};
use futures_util::StreamExt;
use http::Uri;

use crate::read::Query;
use crate::server::answer::Answered;
use crate::server::guard::User;
use crate::server::{App, sse};
use crate::wire;

/// Changes of jobs
///
/// As events: `update` with where a job stands. With `jobId`, the first says where it stands now, and an `end` follows once it has
/// ended; without, every job's changes from now on.
#[utoipa::path(
    get, path = "/api/jobs/watch", tag = "jobs",
    params(("jobId" = Option<uuid::Uuid>, Query, description = "Which job; absent: all that the caller may see")),
    responses(
        (status = 200, description = "The changes", content((wire::Update = "text/event-stream"))),
        (status = 404, description = "There is no such job, for the caller", body = wire::Problem),
    )
)]
pub(super) async fn watch(State(app): State<Arc<App>>, user: User, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let id: Option<JobId> = query.parsed("jobId");
    let what = query.check(Some(id.map_or(WatchQuery::All, WatchQuery::Job)))?;
    let updates = app.bounded(app.jobs(&user).watch(what)).await?;
    let one = id.is_some();
    let events = updates.map(move |update| event(one, update));
    Ok(sse::respond(events, app.closing.clone(), app.expiry(user.0.expires), app.options.keep_alive))
}

fn event(one: bool, update: Result<JobUpdate, cmdexec_core::Error>) -> Bytes {
    match update {
        Ok(update) => {
            let data = wire::Update::from(&update);
            let text = sse::event("update", None, &data);
            if !(one && update.status.is_finished()) {
                return text;
            }
            let end = sse::event("end", None, &data);
            [text, end].concat().into()
        }
        Err(error) => sse::problem(&error),
    }
}
