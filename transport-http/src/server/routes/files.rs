//! Files that jobs bring and leave.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cmdexec_core::Error;
use cmdexec_core::files::{Download, FileId, GetRange, ParseFileIdError};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use futures_util::StreamExt;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use crate::read::Query;
use crate::server::answer::{Answered, json};
use crate::server::calls::{Call, Caller};
use crate::server::guard::{self, User, Visitor, Worker};
use crate::server::problem::Problem;
use crate::server::upload::{Incoming, Opened};
use crate::server::{App, range};
use crate::{older, wire};

/// Keep a ZIP
///
/// The raw bytes, or a form with one field `file`. The same bytes are kept once; uploading them again renews `expiresAt`.
#[utoipa::path(
    post, path = "/api/files/upload", tag = "files",
    request_body(content(
        (Vec<u8> = "application/zip"),
        (FileForm = "multipart/form-data"),
    )),
    params(("name" = Option<String>, Query, description = "What to call it; `X-Filename` says the same")),
    responses(
        (status = 201, description = "It is kept", body = wire::Stored),
        (status = 413, description = "`file_too_large`, `quota_exceeded`: `limit` says how many bytes there may be", body = wire::Problem),
        (status = 415, description = "No ZIP by its content type", body = wire::Problem),
    )
)]
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    user: User,
    uri: Uri,
    headers: HeaderMap,
    incoming: Incoming,
) -> Answered {
    let mut query = Query::of(&uri);
    let name = query.text("name").map(std::borrow::Cow::into_owned);
    let name = query.check(Some(name))?.or_else(|| header_name(&headers));
    let _room = app.uploads.room(format!("u:{}", user.0.owner), app.options.body_idle_timeout).await?;
    let jobs = app.jobs(&user);
    let Opened { file, rest, .. } = incoming.open().await?;
    let Some((own, bytes)) = file else { return Err(Error::invalid("file", "is required").into()) };
    let stored = rest.judge(jobs.upload(name.or(own).as_deref(), bytes).await).await?;
    json(StatusCode::CREATED, older::Uploaded::from(wire::Stored::from(&stored)))
}

/// A form with a file, for the document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only describes the body in the OpenAPI document")]
pub(super) struct FileForm {
    /// The ZIP.
    #[schema(content_media_type = "application/zip")]
    file: Vec<u8>,
}

/// A name in a header, percent-encoded if it is not ASCII.
fn header_name(headers: &HeaderMap) -> Option<String> {
    Some(wire::decoded_name(headers.get("x-filename")?.to_str().ok()?))
}

/// The caller's files
///
/// By their ids.
#[utoipa::path(
    get, path = "/api/files/list", tag = "files",
    params(
        ("limit" = Option<u16>, Query, description = "How many at most: 50 by default, at most 500"),
        ("cursor" = Option<String>, Query, description = "The `nextCursor` of the page before"),
    ),
    responses((status = 200, description = "A page of files", body = wire::StoredPage))
)]
pub(super) async fn list(State(app): State<Arc<App>>, user: User, uri: Uri) -> Answered {
    let mut query = Query::of(&uri);
    let limit = query.whole("limit", 1..=500).unwrap_or(50);
    let after: Option<FileId> = match query.text("cursor").map(|cursor| cursor.parse()) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => {
            query.wrong("cursor", "not a cursor that this service gave out");
            None
        }
    };
    let after = query.check(Some(after))?;
    let files = app.bounded(app.jobs(&user).files(after, limit)).await?;
    // A full page may be the last; then the next is empty.
    let next = if files.len() == limit { files.last() } else { None };
    let page = wire::StoredPage {
        files: files.iter().map(wire::Stored::from).collect(),
        next_cursor: next.map(|file| file.id.to_string()),
    };
    json(StatusCode::OK, page)
}

/// What is kept of a file
#[utoipa::path(
    get, path = "/api/files/{fileId}", tag = "files", params(("fileId" = String, Path, description = "Which file")),
    responses(
        (status = 200, description = "The file", body = wire::Stored),
        (status = 404, description = "There is none, for the caller", body = wire::Problem),
    )
)]
pub(super) async fn file(State(app): State<Arc<App>>, user: User, Path(id): Path<String>) -> Answered {
    let stored = app.bounded(app.jobs(&user).file(known(&id)?)).await?;
    json(StatusCode::OK, wire::Stored::from(&stored))
}

/// Remove an upload
#[utoipa::path(
    delete, path = "/api/files/{fileId}", tag = "files",
    params(("fileId" = String, Path, description = "Which file")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none, for the caller", body = wire::Problem),
        (status = 409, description = "`file_in_use`: a job that has not ended brings it", body = wire::Problem),
    )
)]
pub(super) async fn remove(State(app): State<Arc<App>>, user: User, Path(id): Path<String>) -> Answered {
    app.bounded(app.jobs(&user).delete_file(known(&id)?)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Remove an upload (by its URL)
#[utoipa::path(
    delete, path = "/uploads/{file}", tag = "files", params(("file" = String, Path, description = "`{fileId}.zip`")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none, for the caller", body = wire::Problem),
        (status = 409, description = "`file_in_use`: a job that has not ended brings it", body = wire::Problem),
    )
)]
pub(super) async fn remove_by_url(app: State<Arc<App>>, user: User, Path(file): Path<String>) -> Answered {
    remove(app, user, Path(of_url(&file)?.to_string())).await
}

/// A file's bytes
///
/// For its owner, and for a worker that has a lease for a job that brings it. One range is given (`Range`, `If-Range`); the
/// `ETag` is the digest.
#[utoipa::path(
    get, path = "/uploads/{file}", tag = "downloads",
    params(
        ("file" = String, Path, description = "`{fileId}.zip`"),
        ("workerId" = Option<String>, Query, description = "Who asks, where a worker's token speaks for any worker"),
    ),
    responses(
        (status = 200, description = "All of it", content_type = "application/zip", body = Vec<u8>),
        (status = 206, description = "The part that was asked for", content_type = "application/zip", body = Vec<u8>),
        (status = 304, description = "The caller has it"),
        (status = 404, description = "There is none, for the caller", body = wire::Problem),
        (status = 416, description = "It has no such part", body = wire::Problem),
    )
)]
pub(super) async fn download(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(file): Path<String>,
    asking: Asking,
) -> Answered {
    give(&app, &visitor, of_url(&file)?, asking).await
}

/// A file's bytes, under any name
#[utoipa::path(
    get, path = "/uploads/{fileId}/{name}", tag = "downloads",
    params(
        ("fileId" = String, Path, description = "Which file"),
        ("name" = String, Path, description = "Anything"),
    ),
    responses(
        (status = 200, description = "All of it", content_type = "application/zip", body = Vec<u8>),
        (status = 206, description = "The part that was asked for", content_type = "application/zip", body = Vec<u8>),
        (status = 304, description = "The caller has it"),
        (status = 404, description = "There is none, for the caller", body = wire::Problem),
        (status = 416, description = "It has no such part", body = wire::Problem),
    )
)]
pub(super) async fn download_named(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(path): Path<(String, String)>,
    asking: Asking,
) -> Answered {
    give(&app, &visitor, known(&path.0)?, asking).await
}

/// A file's bytes (older name)
#[utoipa::path(
    get, path = "/api/files/download/{fileId}", tag = "downloads",
    params(("fileId" = String, Path, description = "Which file")),
    responses(
        (status = 200, description = "All of it", content_type = "application/zip", body = Vec<u8>),
        (status = 206, description = "The part that was asked for", content_type = "application/zip", body = Vec<u8>),
        (status = 304, description = "The caller has it"),
        (status = 404, description = "There is none, for the caller", body = wire::Problem),
        (status = 416, description = "It has no such part", body = wire::Problem),
    )
)]
pub(super) async fn download_older(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(id): Path<String>,
    asking: Asking,
) -> Answered {
    give(&app, &visitor, known(&id)?, asking).await
}

/// What else a download depends on.
#[derive(Debug)]
pub(super) struct Asking {
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
}

impl<S: Sync> axum::extract::FromRequestParts<S> for Asking {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self { uri: parts.uri.clone(), headers: parts.headers.clone(), extensions: parts.extensions.clone() })
    }
}

fn known(id: &str) -> Result<FileId, Error> {
    id.parse().map_err(|error: ParseFileIdError| Error::invalid("fileId", error.to_string()))
}

/// The file that `{fileId}.zip` is.
fn of_url(file: &str) -> Result<FileId, Error> {
    known(file.strip_suffix(".zip").unwrap_or(file))
}

async fn give(app: &App, visitor: &Visitor, id: FileId, asking: Asking) -> Answered {
    let mut query = Query::of(&asking.uri);
    let said: Option<WorkerId> = query.parsed("workerId");
    let said = query.check(Some(said))?;
    let mut comes_empty = false;
    let (open, call): (Open<'_>, _) = match visitor {
        Visitor::User(user) => {
            (Box::new(move |range| Box::pin(async move { app.jobs(user).download(id, range).await })), None)
        }
        Visitor::Worker(worker) => {
            let named = said.map(|said| worker.named(Some(said))).transpose()?.or_else(|| worker.bound().cloned());
            comes_empty = id == older::EMPTY
                && match &named {
                    Some(worker) => app.workers.is_older(worker, &*app.services).await,
                    None => true,
                };
            let caller = match &named {
                Some(id) => Caller::Worker(id.clone()),
                None => Caller::Address(guard::address(app, &asking.headers, &asking.extensions)),
            };
            let call = app.turn(caller).await?;
            let open: Open<'_> = Box::new(move |range| {
                let named = named.clone();
                Box::pin(async move { app.work(worker).download(named.as_ref(), id, range).await })
            });
            (open, Some(call))
        }
    };
    let etag = format!("\"{id}\"");
    let asked = range::asked(&asking.headers, &etag);
    let is_part = asked.is_some();
    match app.bounded(open(asked)).await {
        Ok(_) if range::is_known(&asking.headers, &etag) => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            lasting(response.headers_mut(), &etag);
            Ok(response)
        }
        Ok(download) => Ok(answer(download, &etag, is_part, call)),
        Err(Error::Invalid(problems)) if is_part => {
            let size = app.bounded(open(None)).await?.file.size;
            let mut response =
                Problem::with_status(StatusCode::RANGE_NOT_SATISFIABLE, Error::Invalid(problems)).into_response();
            set(response.headers_mut(), CONTENT_RANGE, format!("bytes */{size}"));
            Ok(response)
        }
        Err(Error::FileNotFound) if comes_empty => {
            Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/zip"))], older::EMPTY_ZIP).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

type Open<'a> =
    Box<dyn Fn(Option<GetRange>) -> futures_util::future::BoxFuture<'a, Result<Download, Error>> + Send + Sync + 'a>;

/// A file on its way. The worker's call lasts as long as that takes.
fn answer(download: Download, etag: &str, is_part: bool, call: Option<Call>) -> Response {
    let Download { file, range, bytes } = download;
    let bytes = bytes.map(move |piece| {
        let _ = &call;
        piece
    });
    let mut response = Body::from_stream(bytes).into_response();
    if is_part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end.saturating_sub(range.start)));
    lasting(headers, etag);
    if is_part {
        set(headers, CONTENT_RANGE, format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), file.size));
    }
    set(headers, CONTENT_DISPOSITION, disposition(file.name.as_deref().unwrap_or(&format!("{}.zip", file.id))));
    if let Some(name) = &file.name {
        set(headers, wire::FILE_NAME, wire::encoded_name(name));
    }
    set(headers, wire::FILE_CREATED, file.created.to_string());
    if let Some(expires) = file.expires {
        set(headers, wire::FILE_EXPIRES, expires.to_string());
    }
    response
}

/// What is said of a file that never changes, for those that may have it.
fn lasting(headers: &mut HeaderMap, etag: &str) {
    set(headers, ETAG, etag.to_owned());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
}

/// Texts of our own making are ASCII without control characters.
fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// A name for whoever saves the file (RFC 6266): once for everybody, once as it is.
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !"\"\\%;/".contains(c) || c == ' ' { c } else { '_' })
        .collect();
    if plain == name {
        return format!("attachment; filename=\"{plain}\"");
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", wire::encoded_name(name))
}

/// Keep what an attempt left
///
/// The ZIP of what `outputs` found. Its `fileId` goes into the report's `artifacts`; it is kept as long as the job is.
#[utoipa::path(
    post, path = "/api/jobs/artifacts", tag = "worker protocol",
    request_body(content = Vec<u8>, content_type = "application/zip"),
    params(
        ("jobId" = uuid::Uuid, Query, description = "Which job"),
        ("workerId" = Option<String>, Query, description = "Who asks, where the token speaks for any worker"),
        ("x-lease-token" = Option<String>, Header, description = "Which attempt: the current one's `leaseToken`"),
    ),
    responses(
        (status = 201, description = "It is kept", body = wire::Artifacts),
        (status = 409, description = "`lease_lost`: stop the job and forget it", body = wire::Problem),
        (status = 413, description = "`file_too_large`, `quota_exceeded`", body = wire::Problem),
        (status = 415, description = "No ZIP by its content type", body = wire::Problem),
    )
)]
pub(super) async fn artifacts(
    State(app): State<Arc<App>>,
    worker: Worker,
    uri: Uri,
    headers: HeaderMap,
    incoming: Incoming,
) -> Answered {
    let mut query = Query::of(&uri);
    let job: Option<JobId> = query.required("jobId");
    let said: Option<WorkerId> = query.parsed("workerId");
    let token = headers.get("x-lease-token").map(|token| token.to_str().unwrap_or_default().parse::<LeaseToken>());
    if matches!(token, Some(Err(_))) {
        query.wrong("x-lease-token", "is no lease's token");
    }
    let job = query.check(job)?;
    let id = worker.named(said)?;
    let _call = app.turn(&id).await?;
    let _room = app.uploads.room(format!("w:{id}"), app.options.body_idle_timeout).await?;
    let work = app.work(&worker);
    let token = token.and_then(Result::ok);
    let Opened { file, rest, .. } = incoming.open().await?;
    let Some((_, bytes)) = file else { return Err(Error::invalid("file", "is required").into()) };
    let file = rest.judge(work.upload_artifacts(&id, job, token, bytes).await).await?;
    json(StatusCode::CREATED, wire::Artifacts { file_id: file.to_string(), file_url: wire::file_url(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_break_no_header() {
        for (name, header) in [
            ("a b.zip", "attachment; filename=\"a b.zip\""),
            ("a\"b\\c.zip", "attachment; filename=\"a_b_c.zip\"; filename*=UTF-8''a%22b%5Cc.zip"),
            ("a\r\nx: y.zip", "attachment; filename=\"a__x: y.zip\"; filename*=UTF-8''a%0D%0Ax%3A%20y.zip"),
            ("ü.zip", "attachment; filename=\"_.zip\"; filename*=UTF-8''%C3%BC.zip"),
        ] {
            assert_eq!(disposition(name), header);
            assert!(HeaderValue::try_from(header).is_ok());
            assert_eq!(wire::decoded_name(&wire::encoded_name(name)), name);
        }
    }
}
