//! Files on their way here.

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange, StoredFile};
use cmdexec_core::time::Timestamp;
use futures_util::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::Response;
use std::ops::Range;
use std::sync::Arc;

use super::http::{As, Call, Http, reasons};
use super::refusal;
use crate::wire;

/// Asks for a file, or a part of it.
pub(super) fn call(who: As, id: FileId, range: Option<&GetRange>) -> Result<Call, Error> {
    let call = Call::get(who, wire::file_url(id));
    let range = match range {
        None => return Ok(call),
        Some(GetRange::Bounded(Range { start, end })) if start >= end => return Err(no_such_part()),
        Some(GetRange::Bounded(Range { start, end })) => format!("bytes={start}-{}", end - 1),
        Some(GetRange::Offset(start)) => format!("bytes={start}-"),
        Some(GetRange::Suffix(length)) => format!("bytes=-{length}"),
    };
    let range = HeaderValue::try_from(range).map_err(|_| Error::Internal)?;
    Ok(call.header(RANGE, range))
}

fn no_such_part() -> Error {
    Error::invalid("range", "the file has no such part")
}

/// What is on its way, by the answer's head.
pub(super) fn begin(http: Arc<Http>, id: FileId, response: Response) -> Result<Download, Error> {
    let headers = response.headers();
    let (range, size) = extent(response.status(), headers).ok_or(Error::Internal)?;
    let time = |name: HeaderName| headers.get(name).and_then(|time| Timestamp::parse_rfc3339(time.to_str().ok()?));
    let name = headers.get(wire::FILE_NAME).and_then(|name| name.to_str().ok()).map(wire::decoded_name);
    let created = time(wire::FILE_CREATED).ok_or(Error::Internal)?;
    let file = StoredFile { id, name, size, created, expires: time(wire::FILE_EXPIRES) };
    Ok(Download { file, range, bytes: bytes(http, response) })
}

/// Which bytes come, and of how many.
fn extent(status: StatusCode, headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    if status != StatusCode::PARTIAL_CONTENT {
        let size = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        return Some((0..size, size));
    }
    let (range, size) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first..last + 1, size))
}

/// A body that fails where it breaks off or stands still, so that its reader can ask for the rest.
fn bytes(http: Arc<Http>, response: Response) -> ByteStream {
    let idle = http.options.stream_idle_timeout;
    Box::pin(
        futures_util::stream::try_unfold(response, move |mut response| {
            let http = Arc::clone(&http);
            async move {
                let broken = |why: String| {
                    http.note(format!("{}: a file broke off: {why}", http.base()));
                    Error::Unavailable { retry_after: refusal::LATER }
                };
                let piece: Option<Bytes> = match tokio::time::timeout(idle, response.chunk()).await {
                    Ok(piece) => piece.map_err(|error| broken(reasons(&error)))?,
                    Err(_) => return Err(broken(format!("nothing came for {idle:?}"))),
                };
                Ok(piece.map(|piece| (piece, response)))
            }
        })
        .into_stream(),
    )
}
