//! A job's output: its raw bytes, or as events that can be resumed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cmdexec_core::executor::Stream;
use cmdexec_core::id::JobId;
use cmdexec_core::service::{Cursor, OutputEvent, OutputQuery, OutputStream};
use cmdexec_core::time::Timestamp;
use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::read::Query;
use crate::server::answer::Answered;
use crate::server::guard::User;
use crate::server::{App, sse};
use crate::wire;

/// How many bytes the raw output lacks.
const DROPPED_BYTES: HeaderName = HeaderName::from_static("x-dropped-bytes");

/// A job's output
///
/// The raw bytes of both streams; with `follow=true`, or where `Accept` asks for `text/event-stream`, as events: `output`
/// (`{stream, data}` or `{stream, dataBase64}`), whose `id` is a cursor, `gap` (`{bytes}`) where so many bytes were too much
/// to be kept, `reset` where what came before is void, and one `end`. A reconnect with `Last-Event-ID` misses and repeats
/// nothing. Of the raw bytes, the header `X-Dropped-Bytes` says how many are missing in the middle, if any are.
#[utoipa::path(
    get, path = "/api/jobs/logs", tag = "jobs",
    params(
        ("jobId" = uuid::Uuid, Query, description = "Which job"),
        ("follow" = Option<bool>, Query, description = "Wait for more until the job has ended"),
        ("stream" = Option<wire::StreamName>, Query, description = "Only this stream"),
        ("since" = Option<String>, Query, description = "From this cursor on; or, if it is an RFC 3339 time, what came then or later"),
        ("tail" = Option<u32>, Query, description = "Only the last so many lines of what is there: up to 100,000"),
        ("Last-Event-ID" = Option<String>, Header, description = "From this cursor on, whatever `since` and `tail` say"),
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
    let (mut from, mut since): (Option<Cursor>, Option<Timestamp>) = (None, None);
    if let Some(text) = query.text("since") {
        (from, since) = (text.parse().ok(), Timestamp::parse_rfc3339(&text));
        if from.is_none() && since.is_none() {
            query.wrong("since", "must be a cursor that this service gave out, or an RFC 3339 time");
        }
    }
    let tail = query.whole("tail", 0..=OutputQuery::MAX_TAIL as i128);
    // A browser that reconnects sends the first request's `since` again.
    if let Some(last) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
        from = last.to_str().ok().and_then(|text| text.parse().ok());
        if from.is_none() {
            query.wrong("Last-Event-ID", "not a cursor that this service gave out");
        }
    }
    let id = query.check(id)?;
    let jobs = app.jobs(&user);
    let output = app.bounded(jobs.output(id, OutputQuery { from, since, tail, follow, stream })).await?;
    let wants_events =
        headers.get_all(ACCEPT).iter().any(|accept| accept.to_str().unwrap_or_default().contains("text/event-stream"));
    if follow || wants_events {
        Ok(events(&app, &user, output))
    } else {
        let job = app.bounded(jobs.get(&[id])).await?.pop().flatten();
        Ok(raw(output, job.map_or(0, |job| job.dropped)))
    }
}

/// Output as events.
pub(super) fn events(app: &App, user: &User, output: OutputStream) -> Response {
    let expiry = app.expiry(user.0.expires);
    sse::respond(output.map(event), app.closing.clone(), expiry, app.options.keep_alive)
}

fn event(event: Result<OutputEvent, cmdexec_core::Error>) -> Bytes {
    match event {
        Ok(OutputEvent::Chunk { cursor, stream, bytes }) => {
            let (data, data_base64) = wire::encode(&bytes);
            let data = wire::Event { stream: Some(stream), data, data_base64, ..wire::Event::default() };
            sse::event("output", Some(&cursor), &data)
        }
        Ok(OutputEvent::Gap { cursor, bytes }) => {
            sse::event("gap", Some(&cursor), &wire::Event { bytes: Some(bytes), ..wire::Event::default() })
        }
        Ok(OutputEvent::Reset { cursor }) => sse::event("reset", Some(&cursor), &wire::Event::default()),
        Ok(OutputEvent::End { status }) => {
            sse::event("end", None, &wire::Event { status: Some(status), ..wire::Event::default() })
        }
        Err(error) => sse::problem(&error),
    }
}

/// The bytes as they were written. An error in between cuts the connection, so that nobody takes a part for the whole.
fn raw(output: OutputStream, dropped: u64) -> Response {
    let bytes = output.filter_map(async |event| match event {
        Ok(OutputEvent::Chunk { bytes, .. }) => Some(Ok(bytes)),
        Ok(OutputEvent::Gap { .. } | OutputEvent::Reset { .. } | OutputEvent::End { .. }) => None,
        Err(error) => Some(Err(error)),
    });
    let mut response = Body::from_stream(bytes).into_response();
    // No charset: whatever the job wrote.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if dropped > 0 {
        response.headers_mut().insert(DROPPED_BYTES, dropped.into());
    }
    response
}
