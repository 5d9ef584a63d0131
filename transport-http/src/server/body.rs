//! Bodies: bounded in size, in time, and in what they take of memory together.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use cmdexec_core::Error;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::problem::Problem;
use crate::wire::PACKED;

/// The most that a job's spec may have.
pub(super) const SPEC: usize = 1024 * 1024;
/// The most that a batch of specs may have.
pub(super) const BATCH: usize = 64 * 1024 * 1024;
/// The most that a piece of output may have.
pub(super) const OUTPUT: usize = 4 * 1024 * 1024;
/// The most that a result may have.
pub(super) const RESULT: usize = 32 * 1024 * 1024;
/// The most that anything else may have.
pub(super) const OTHER: usize = 64 * 1024;

/// What the memory that large bodies share is counted in.
pub(super) const UNIT: usize = 64 * 1024;

/// A request's body that says it is JSON, of at most `LIMIT` bytes.
#[derive(Debug)]
pub(super) struct Body<const LIMIT: usize> {
    pub(super) bytes: Bytes,
    /// What a large one has of the memory for them, until the request is answered.
    _room: Option<OwnedSemaphorePermit>,
}

impl<const LIMIT: usize> FromRequest<Arc<App>> for Body<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        says_json(request.headers())?;
        Self::receive(request, app).await
    }
}

/// A request's body with output: JSON, or of the type [`PACKED`].
#[derive(Debug)]
pub(super) struct OutputBody {
    pub(super) body: Body<OUTPUT>,
    pub(super) is_packed: bool,
}

impl FromRequest<Arc<App>> for OutputBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let headers = request.headers();
        let is_packed = essence(headers).is_some_and(|essence| essence.eq_ignore_ascii_case(PACKED));
        let checked = if is_packed { is_plain(headers) } else { says_json(headers) };
        checked?;
        Ok(Self { body: Body::receive(request, app).await?, is_packed })
    }
}

impl<const LIMIT: usize> Body<LIMIT> {
    /// Reads a body, whatever its type.
    async fn receive(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, mut body) = request.into_parts();
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > LIMIT) {
            if !parts.headers.contains_key(EXPECT) {
                discard(&mut body).await;
            }
            return Err(Problem::too_large(LIMIT));
        }
        let room = if LIMIT > SPEC { room(app, length.unwrap_or(LIMIT)).await? } else { None };
        let reading = read(&mut body, length.unwrap_or(0), LIMIT, app.options.body_idle_timeout);
        let read = tokio::time::timeout(app.options.body_timeout, reading).await;
        let bytes = match read.unwrap_or(Err(Stopped::Slow)) {
            Ok(bytes) => bytes,
            Err(Stopped::Slow) => {
                let detail = "the body did not come in time";
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail));
            }
            Err(Stopped::Broken) => {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "malformed", "the body broke off"));
            }
            Err(Stopped::Large) => {
                discard(&mut body).await;
                return Err(Problem::too_large(LIMIT));
            }
        };
        let room = room.and_then(|room| needed(room, bytes.len()));
        Ok(Self { bytes, _room: room })
    }
}

/// What a body needs of its room now that it is read: who did not say how large it would be was given the most.
fn needed(mut room: OwnedSemaphorePermit, length: usize) -> Option<OwnedSemaphorePermit> {
    if length > SPEC { room.split(length.div_ceil(UNIT)) } else { None }
}

/// No content type is as good as JSON's; another is not. A page elsewhere can make a browser send only others.
fn says_json(headers: &HeaderMap) -> Result<(), Problem> {
    is_plain(headers)?;
    let is_json = essence(headers).is_none_or(|essence| {
        essence.eq_ignore_ascii_case("application/json")
            || essence.get(essence.len().saturating_sub(5)..).is_some_and(|end| end.eq_ignore_ascii_case("+json"))
    });
    if is_json { Ok(()) } else { Err(unsupported("the body must be application/json")) }
}

fn is_plain(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(unsupported("the body must not be compressed")),
        _ => Ok(()),
    }
}

/// The content type without its parameters, if there is one.
fn essence(headers: &HeaderMap) -> Option<&str> {
    let content_type = headers.get(CONTENT_TYPE)?;
    Some(content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim())
}

fn unsupported(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

enum Stopped {
    Slow,
    Broken,
    Large,
}

/// `length`: what the body says of itself, for which there is room; 0 if it does not.
async fn read(body: &mut axum::body::Body, length: usize, limit: usize, idle: Duration) -> Result<Bytes, Stopped> {
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| Stopped::Slow)?;
        let data = match frame {
            None => return Ok(all.map_or(first, BytesMut::freeze)),
            Some(Err(_)) => return Err(Stopped::Broken),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // Trailers say nothing here.
                Err(_) => continue,
            },
        };
        let so_far = all.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > limit {
            return Err(Stopped::Large);
        }
        // Most bodies come in one piece, which needs no copy.
        match &mut all {
            None if first.is_empty() => first = data,
            None => {
                let mut both = BytesMut::with_capacity(length.max((first.len() + data.len()) * 2));
                both.extend_from_slice(&first);
                both.extend_from_slice(&data);
                all = Some(both);
            }
            Some(all) => all.extend_from_slice(&data),
        }
    }
}

/// Reads on for a moment: a connection that is closed with bytes unread is reset, and the answer lost with it.
pub(super) async fn discard(body: &mut axum::body::Body) {
    const MOST: usize = 16 * 1024 * 1024;
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > MOST {
                break;
            }
        }
    })
    .await;
}

/// Waits until there is memory for a large body.
async fn room(app: &App, length: usize) -> Result<Option<OwnedSemaphorePermit>, Problem> {
    if length <= SPEC {
        return Ok(None);
    }
    let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
    let waiting = Arc::clone(&app.large_bodies).acquire_many_owned(units);
    match tokio::time::timeout(app.options.body_idle_timeout, waiting).await {
        Ok(Ok(permit)) => Ok(Some(permit)),
        _ => Err(Error::Unavailable { retry_after: Duration::from_secs(1) }.into()),
    }
}
