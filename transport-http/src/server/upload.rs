//! Files on their way in: never whole in memory, few at once, and no client waited for that has fallen silent.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::files::ByteStream;
use futures_util::Stream;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use super::App;
use super::body::{SPEC, discard};
use super::form::{self, Form, Texts};
use super::problem::Problem;

/// How much more than its file a form may have.
const FORM: u64 = 64 * 1024 + SPEC as u64;

/// How many callers are remembered before those are forgotten that have no file on its way.
const CALLERS: usize = 1_000;

/// How many files come in at once.
#[derive(Debug)]
pub(super) struct Uploads {
    all: Arc<Semaphore>,
    each: usize,
    callers: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The room for one file; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Uploads {
    pub(super) fn new(most: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), each: most.div_ceil(2), callers: Mutex::default() }
    }

    /// Waits until there is room for a file of this caller's, but no longer than that.
    pub(super) async fn room(&self, caller: String, patience: Duration) -> Result<Room, Error> {
        let own = self.of(caller);
        let waiting = async {
            // One's own first: who waits for that keeps nobody else from coming in.
            let own = own.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Room { _all: all, _own: own })
        };
        let room = tokio::time::timeout(patience, waiting).await;
        room.ok().flatten().ok_or(Error::Unavailable { retry_after: Duration::from_secs(1) })
    }

    fn of(&self, caller: String) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS {
            callers.retain(|_, own| own.strong_count() > 0);
        }
        let own = callers.get(&caller).and_then(Weak::upgrade);
        own.unwrap_or_else(|| {
            let own = Arc::new(Semaphore::new(self.each));
            callers.insert(caller, Arc::downgrade(&own));
            own
        })
    }
}

/// A request's body that is a file, not read yet.
#[derive(Debug)]
pub(super) struct Incoming {
    bytes: ByteReader,
    /// What separates the fields, where it is a form with a file.
    boundary: Option<String>,
    state: Arc<Mutex<State>>,
}

/// A request's file, and what came with it.
pub(super) struct Opened {
    /// The file's own name and its bytes; none where a form has no field `file`.
    pub(super) file: Option<(Option<String>, ByteStream)>,
    /// The form's other fields, once the file has been read.
    pub(super) texts: Texts,
    pub(super) rest: Rest,
}

/// What outlives the stream of a body.
#[derive(Debug, Default)]
struct State {
    /// What is left of it, once nobody reads it any more.
    rest: Option<Body>,
    /// Why it ended early.
    stopped: Option<Stopped>,
}

#[derive(Debug, Clone, Copy)]
enum Stopped {
    Slow,
    Broken,
}

impl FromRequest<Arc<App>> for Incoming {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, mut body) = request.into_parts();
        let boundary = says_file(&parts.headers)?;
        let most = app.options.max_file_size;
        let slack = if boundary.is_some() { FORM } else { 0 };
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most + slack) {
            if !parts.headers.contains_key(EXPECT) {
                discard(&mut body).await;
            }
            return Err(Error::FileTooLarge { most }.into());
        }
        let state = Arc::new(Mutex::new(State::default()));
        let idle = app.options.body_idle_timeout;
        let bytes = ByteReader { body: Some(body), idle, silence: None, state: Arc::clone(&state) };
        Ok(Self { bytes, boundary, state })
    }
}

/// What a file may call itself.
fn says_file(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refused = |detail| Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return refused("the body must not be compressed");
    }
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let content_type = content_type.to_str().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let known = ["application/zip", "application/x-zip-compressed", "application/octet-stream"];
    if known.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(None);
    }
    if essence.eq_ignore_ascii_case("multipart/form-data") {
        return match form::boundary(content_type) {
            Some(boundary) => Ok(Some(boundary)),
            None => refused("a form's content type must name its boundary"),
        };
    }
    refused("the body must be application/zip, or multipart/form-data with a file")
}

impl Incoming {
    /// The file, for whoever keeps it, and what to ask when that has failed.
    pub(super) async fn open(self) -> Result<Opened, Problem> {
        let (bytes, rest): (ByteStream, _) = (Box::pin(self.bytes), Rest(self.state));
        let Some(boundary) = &self.boundary else {
            return Ok(Opened { file: Some((None, bytes)), texts: Texts::default(), rest });
        };
        match form::begin(bytes, boundary).await {
            Ok(Form { file, texts }) => Ok(Opened { file, texts, rest }),
            Err(error) => Err(rest.refused(error).await),
        }
    }
}

/// What is left of a body once its stream is gone.
pub(super) struct Rest(Arc<Mutex<State>>);

impl Rest {
    /// What to answer: if the body was refused, what is left of it is read for a moment first, so that the answer is not lost.
    pub(super) async fn judge<T>(self, kept: Result<T, Error>) -> Result<T, Problem> {
        match kept {
            Ok(kept) => Ok(kept),
            Err(error) => Err(self.refused(error).await),
        }
    }

    async fn refused(self, error: Error) -> Problem {
        let State { rest, stopped } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        match stopped {
            Some(Stopped::Slow) => {
                Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not come in time")
            }
            Some(Stopped::Broken) => Problem::new(StatusCode::BAD_REQUEST, "malformed", "the body broke off"),
            None => {
                if let Some(mut rest) = rest {
                    discard(&mut rest).await;
                }
                error.into()
            }
        }
    }
}

/// A body as a stream of bytes that fails once the client is silent for too long.
#[derive(Debug)]
struct ByteReader {
    body: Option<Body>,
    idle: Duration,
    /// Runs while the next bytes are waited for.
    silence: Option<Pin<Box<Sleep>>>,
    state: Arc<Mutex<State>>,
}

impl ByteReader {
    fn stop(&mut self, why: Stopped) -> Poll<Option<Result<Bytes, Error>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = Some(why);
        self.body = None;
        Poll::Ready(Some(Err(Error::invalid("body", "did not come in whole"))))
    }
}

impl Stream for ByteReader {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(None) => {
                    self.body = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => return self.stop(Stopped::Broken),
                Poll::Ready(Some(Ok(frame))) => {
                    self.silence = None;
                    // Trailers say nothing here.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Pending => {
                    let idle = self.idle;
                    let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                    ready!(silence.as_mut().poll(cx));
                    return self.stop(Stopped::Slow);
                }
            }
        }
    }
}

impl Drop for ByteReader {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rest = self.body.take();
    }
}
