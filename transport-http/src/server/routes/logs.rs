//! A job's output: its raw bytes, or as events that can be resumed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{Cursor, OutputEvent, OutputQuery, OutputStream};
use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Uri};

use crate::read::Query;
use crate::server::answer::Answered;
use crate::server::guard::User;
use crate::server::{App, sse};
use crate::wire;

/// A job's output
///
/// The raw bytes of both streams; with `follow=true`, or where `Accept` asks for `text/event-stream`, as events: `output`
/// (`{stream, data}` or `{stream, dataBase64}`), whose `id` is a cursor, `reset` where what came before is void, and one
/// `end`. A reconnect with `Last-Event-ID` misses and repeats nothing.
#[utoipa::path(
    get, path = "/api/jobs/logs", tag = "jobs",
    params(
        ("jobId" = uuid::Uuid, Query, description = "Which job"),
        ("follow" = Option<bool>, Query, description = "Wait for more until the job has ended"),
        ("stream" = Option<wire::StreamName>, Query, description = "Only this stream"),
        ("since" = Option<String>, Query, description = "From this cursor on"),
        ("Last-Event-ID" = Option<String>, Header, description = "From this cursor on, whatever `since` says"),
    ),
    responses(
        (status = 200, description = "The output", content(
            (Vec<u8> = "text/plain"),
            (wire::Event = "text/event-stream"),
        )),
        (status = 404, description = "There is no such job, for the caller", body = wire::Problem),
    )
)]
pub(super) async fn logs(State(app): State<Arc<App>>, user: User, headers: HeaderMap, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let id: Option<JobId> = query.required("jobId");
    let follow = query.flag("follow");
    let stream = match query.text("stream").as_deref() {
        None => None,
        Some("stdout") => Some(Stream::Stdout),
        Some("stderr") => Some(Stream::Stderr),
        Some(_) => {
            query.wrong("stream", "must be stdout or stderr");
            None
        }
    };
    let mut from: Option<Cursor> = query.parsed("since");
    // A browser that reconnects sends the first request's `since` again.
    if let Some(last) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
        from = last.to_str().ok().and_then(|text| text.parse().ok());
        if from.is_none() {
            query.wrong("Last-Event-ID", "not a cursor that this service gave out");
        }
    }
    let id = query.check(id)?;
    let output = app.bounded(app.jobs(&user).output(id, OutputQuery { from, follow, stream })).await?;
    let wants_events =
        headers.get_all(ACCEPT).iter().any(|accept| accept.to_str().unwrap_or_default().contains("text/event-stream"));
    if follow || wants_events {
        let expiry = app.expiry(user.0.expires);
        Ok(sse::respond(output.map(event), app.closing.clone(), expiry, app.options.keep_alive))
    } else {
        Ok(raw(output))
    }
}

fn event(event: Result<OutputEvent, cmdexec_core::Error>) -> Bytes {
    match event {
        Ok(OutputEvent::Chunk { cursor, stream, bytes }) => {
            let (data, data_base64) = wire::encode(&bytes);
            let data = wire::Event { stream: Some(stream), data, data_base64, status: None };
            sse::event("output", Some(&cursor), &data)
        }
        Ok(OutputEvent::Reset { cursor }) => sse::event("reset", Some(&cursor), &wire::Event::default()),
        Ok(OutputEvent::End { status }) => {
            sse::event("end", None, &wire::Event { status: Some(status), ..wire::Event::default() })
        }
        Err(error) => sse::problem(&error),
    }
}

/// The bytes as they were written. An error in between cuts the connection, so that nobody takes a part for the whole.
fn raw(output: OutputStream) -> Response {
    let bytes = output.filter_map(async |event| match event {
        Ok(OutputEvent::Chunk { bytes, .. }) => Some(Ok(bytes)),
        Ok(OutputEvent::Reset { .. } | OutputEvent::End { .. }) => None,
        Err(error) => Some(Err(error)),
    });
    let mut response = Body::from_stream(bytes).into_response();
    // No charset: whatever the job wrote.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
