//! Server-Sent Events: streams that stay alive while nothing happens, and end when the server does.

use std::fmt::Write as _;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use cmdexec_core::Error;
use cmdexec_core::time::Sleep;

/// An event as it travels. JSON has no line breaks, so that its data is one line.
pub(super) fn event(name: &str, id: Option<&dyn std::fmt::Display>, data: &impl Serialize) -> Bytes {
    let mut text = String::with_capacity(128);
    if let Some(id) = id {
        // Writing to a string does not fail.
        let _ = writeln!(text, "id: {id}");
    }
    // Wire types are structs of strings and numbers, which always serialise.
    let data = serde_json::to_string(data).unwrap_or_default();
    let _ = write!(text, "event: {name}\ndata: {data}\n\n");
    Bytes::from(text)
}

/// What ends a stream that went wrong. Not called `error`: browsers use that name for a lost connection.
pub(super) fn problem(error: &Error) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        code: &'static str,
        error: String,
        retry_after_ms: Option<u128>,
    }
    let retry_after_ms = error.retry_after().map(|after| after.as_millis());
    event("problem", None, &Data { code: error.code(), error: error.to_string(), retry_after_ms })
}

/// Events on their way to one reader. A slow reader is waited for: nothing is buffered for it here.
struct Feed<S> {
    events: S,
    closing: CancellationToken,
    /// When the reader's token expires.
    expiry: Sleep,
    keep_alive: Duration,
    ended: bool,
}

/// Answers with a stream of events. It ends with them, when the server closes, or when the token expires: then without the
/// event that says that nothing follows, so that the reader comes back and resumes.
pub(super) fn respond(
    events: impl Stream<Item = Bytes> + Send + 'static,
    closing: CancellationToken,
    expiry: Sleep,
    keep_alive: Duration,
) -> Response {
    let feed = Feed { events: Box::pin(events), closing, expiry, keep_alive, ended: false };
    let stream = futures_util::stream::unfold(feed, |mut feed| async move {
        let text = feed.next().await?;
        Some((Ok::<_, std::convert::Infallible>(text), feed))
    });
    let mut response = Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Some proxies gather what they pass on unless they are told.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<S: Stream<Item = Bytes>> Feed<Pin<Box<S>>> {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {
                self.ended = true;
                Some(Bytes::from_static(b"retry: 1000\n: closing\n\n"))
            }
            event = self.events.next() => event,
            () = &mut self.expiry => {
                self.ended = true;
                Some(Bytes::from_static(b": the token has expired\n\n"))
            }
            () = tokio::time::sleep(self.keep_alive) => Some(Bytes::from_static(b":\n\n")),
        }
    }
}
