//! Calls: one try or several, bounded in time and size.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cmdexec_core::Error;
use cmdexec_core::files::ByteStream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use super::refusal;
use super::retry::{Jitter, Retry};
use super::sending::Sending;
use super::{BuildError, Options};

/// The way to the server.
pub(super) struct Http {
    client: reqwest::Client,
    /// Servers over one store: any of them will do.
    bases: Vec<String>,
    /// Which of them is called.
    current: AtomicUsize,
    user: Option<HeaderValue>,
    worker: Option<HeaderValue>,
    pub(super) options: Options,
    jitter: Jitter,
    trouble: Mutex<Option<String>>,
}

/// On whose behalf a call is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum As {
    User,
    Worker,
}

/// A call to be made.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    /// The route, with its query.
    path: String,
    who: As,
    headers: HeaderMap,
    body: Option<Bytes>,
    timeout: Option<Duration>,
    /// Whether it may be made again when it is not known whether it arrived.
    repeatable: bool,
}

impl Call {
    pub(super) fn get(who: As, path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            who,
            headers: HeaderMap::new(),
            body: None,
            timeout: None,
            repeatable: true,
        }
    }

    /// A change that is harmless to repeat.
    pub(super) fn post(who: As, path: impl Into<String>, body: Bytes) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(who, path) }
    }

    /// A change whose body goes beside it ([`Http::send`]).
    pub(super) fn sending(who: As, path: impl Into<String>) -> Self {
        Self { method: Method::POST, repeatable: false, ..Self::get(who, path) }
    }

    pub(super) fn delete(who: As, path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(who, path) }
    }

    /// May be made once only, unless it certainly did not arrive.
    pub(super) fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    pub(super) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Asks for events.
    pub(super) fn events(self) -> Self {
        self.header(ACCEPT, HeaderValue::from_static("text/event-stream"))
    }

    /// Adds a parameter to the query.
    pub(super) fn query(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let value = value.to_string();
        let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        // Writing to a string does not fail.
        let _ = write!(self.path, "{separator}{name}={value}");
        self
    }
}

/// Why one try failed.
enum Failed {
    /// The request never arrived.
    Unsent(String),
    /// It is not known whether it arrived.
    Broken(String),
    /// It was refused.
    Refused(Error),
}

impl Http {
    pub(super) fn new(
        url: &str,
        user: Option<&str>,
        worker: Option<&str>,
        options: Options,
    ) -> Result<Self, BuildError> {
        let bases = url.split(',').map(|url| base(url.trim())).collect::<Result<Vec<_>, _>>()?;
        let secret = |name: &'static str, prefix: &str, token: Option<&str>| {
            let Some(token) = token else { return Ok(None) };
            let mut value =
                HeaderValue::try_from(format!("{prefix}{}", token.trim())).map_err(|_| BuildError::Token(name))?;
            value.set_sensitive(true);
            Ok(Some(value))
        };
        let mut tls = cmdexec_wire::tls().map_err(|error| BuildError::Tls(error.to_string()))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(options.connect_timeout)
            // Less than the server's own bound on idle connections, so that none is used that it is just closing.
            .pool_idle_timeout(Duration::from_secs(20))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            // A redirect would carry the token elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("cmdexec/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| BuildError::Tls(reasons(&error)))?;
        Ok(Self {
            client,
            bases,
            current: AtomicUsize::new(0),
            user: secret("user", "Bearer ", user)?,
            worker: secret("worker", "", worker)?,
            options,
            jitter: Jitter::new(),
            trouble: Mutex::default(),
        })
    }

    /// The server that is called now.
    pub(super) fn base(&self) -> &str {
        self.base_at(self.current())
    }

    fn base_at(&self, which: usize) -> &str {
        self.bases.get(which).map_or("", String::as_str)
    }

    fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// This one can't be reached: the next is called, unless another call has found that out before.
    fn leave(&self, which: usize) {
        let next = (which + 1) % self.bases.len().max(1);
        // Somebody else has moved on already.
        let _ = self.current.compare_exchange(which, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn retry(&self, how_long: Duration) -> Retry<'_> {
        Retry::new(&self.options, &self.jitter, how_long)
    }

    /// Makes a call and reads its answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        self.call_with_status(call).await.map(|(_, answer)| answer)
    }

    /// Makes a call and reads its answer, of which the status matters too.
    pub(super) async fn call_with_status<T: DeserializeOwned>(&self, call: &Call) -> Result<(StatusCode, T), Error> {
        let (status, body) = self.repeated(call, Reading::Whole).await?;
        let body = match body {
            Read::Whole(body) => body,
            Read::Open(_) => return Err(Error::Internal),
        };
        let answer = serde_json::from_slice(&body).map_err(|error| {
            self.note(format!("{}{} answered what was not expected: {error}", self.base(), call.path));
            Error::Internal
        })?;
        Ok((status, answer))
    }

    /// Makes a call whose answer has no body that matters.
    pub(super) async fn call_for_nothing(&self, call: &Call) -> Result<(), Error> {
        self.repeated(call, Reading::Whole).await.map(|_| ())
    }

    /// Makes a call whose answer is a stream. Only its head is bounded in time.
    pub(super) async fn open(&self, call: &Call) -> Result<Response, Error> {
        match self.repeated(call, Reading::Open).await? {
            (_, Read::Open(response)) => Ok(response),
            (_, Read::Whole(_)) => Err(Error::Internal),
        }
    }

    /// Makes a call, again and again where that is safe and may help.
    async fn repeated(&self, call: &Call, reading: Reading) -> Result<(StatusCode, Read), Error> {
        let mut retry = self.retry(self.options.retry_for);
        loop {
            let which = self.current();
            let timeout = call.timeout.unwrap_or(self.options.call_timeout);
            let tried = tokio::time::timeout(timeout, self.tried(call, reading)).await;
            let failed = match tried {
                Ok(Ok(answer)) => {
                    self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Ok(answer);
                }
                Ok(Err(failed)) => failed,
                Err(_) => Failed::Broken(format!("no answer within {timeout:?}")),
            };
            let (error, again, at_least) = match failed {
                Failed::Refused(error) => {
                    // Nothing was done for what is one too many.
                    let again = matches!(error, Error::RateLimited { .. })
                        || matches!(error, Error::Unavailable { .. }) && call.repeatable;
                    let at_least = error.retry_after();
                    (error, again, at_least)
                }
                Failed::Unsent(why) => (self.unreachable(call, &why), true, None),
                Failed::Broken(why) => (self.unreachable(call, &why), call.repeatable, None),
            };
            if matches!(error, Error::Unavailable { .. }) {
                self.leave(which);
            }
            match retry.pause(at_least) {
                Some(pause) if again => tokio::time::sleep(pause).await,
                _ => return Err(error),
            }
        }
    }

    /// Makes a call once.
    async fn tried(&self, call: &Call, reading: Reading) -> Result<(StatusCode, Read), Failed> {
        let mut request = self.request(call);
        if let Some(body) = &call.body {
            if !call.headers.contains_key(CONTENT_TYPE) {
                request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            request = request.body(body.clone());
        }
        let response = request.send().await.map_err(|error| {
            let why = reasons(&error);
            if error.is_connect() { Failed::Unsent(why) } else { Failed::Broken(why) }
        })?;
        self.answered(call, response, reading).await
    }

    fn request(&self, call: &Call) -> RequestBuilder {
        let request = self.client.request(call.method.clone(), format!("{}{}", self.base(), call.path));
        let request = request.headers(call.headers.clone());
        let (name, token) = match call.who {
            As::User => (AUTHORIZATION, &self.user),
            As::Worker => (HeaderName::from_static("x-worker-token"), &self.worker),
        };
        match token {
            Some(token) => request.header(name, token.clone()),
            None => request,
        }
    }

    async fn answered(&self, call: &Call, response: Response, reading: Reading) -> Result<(StatusCode, Read), Failed> {
        let status = response.status();
        if status.is_success() {
            let answer = match reading {
                Reading::Whole => Read::Whole(self.whole(response).await.map_err(Failed::Broken)?),
                Reading::Open => Read::Open(response),
            };
            return Ok((status, answer));
        }
        let seconds = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        let body = self.whole(response).await.map_err(Failed::Broken)?;
        let error = refusal::error(status, retry_after, &body).unwrap_or_else(|| {
            self.note(format!("{}{} answered {status}: is that a Command Executor server?", self.base(), call.route()));
            refusal::by_status(status, retry_after)
        });
        Err(Failed::Refused(error))
    }

    /// The whole body, if it is not too large.
    async fn whole(&self, mut response: Response) -> Result<Bytes, String> {
        let mut first = Bytes::new();
        let mut all: Option<BytesMut> = None;
        while let Some(piece) = response.chunk().await.map_err(|error| reasons(&error))? {
            let so_far = all.as_ref().map_or(first.len(), BytesMut::len);
            if so_far + piece.len() > self.options.max_answer {
                return Err(format!("the answer is larger than {} bytes", self.options.max_answer));
            }
            // Most answers come in one piece, which needs no copy.
            if first.is_empty() && all.is_none() {
                first = piece;
            } else {
                all.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&piece);
            }
        }
        Ok(all.map_or(first, BytesMut::freeze))
    }

    /// Makes a call once with a body that is not in memory. It may take any time, as long as it goes on.
    pub(super) async fn send<T: DeserializeOwned>(&self, call: &Call, bytes: ByteStream) -> Result<T, Error> {
        let which = self.current();
        let (sending, body) = Sending::begin(bytes);
        let kind = HeaderValue::from_static("application/zip");
        let request = self.request(call).header(CONTENT_TYPE, kind).body(reqwest::Body::wrap_stream(body));
        let tried = async {
            let response = request.send().await.map_err(|error| Failed::Broken(reasons(&error)))?;
            self.answered(call, response, Reading::Whole).await
        };
        let tried = tokio::select! {
            tried = tried => tried,
            () = sending.stalled(self.options.call_timeout) => {
                Err(Failed::Broken(format!("nothing was taken or answered for {:?}", self.options.call_timeout)))
            }
        };
        if let Some(error) = sending.error() {
            return Err(error);
        }
        match tried {
            Ok((_, Read::Whole(body))) => serde_json::from_slice(&body).map_err(|error| {
                self.note(format!("{}{} answered what was not expected: {error}", self.base(), call.route()));
                Error::Internal
            }),
            Ok((_, Read::Open(_))) => Err(Error::Internal),
            Err(Failed::Refused(error)) => Err(error),
            Err(Failed::Unsent(why) | Failed::Broken(why)) => {
                self.leave(which);
                Err(self.unreachable(call, &why))
            }
        }
    }

    fn unreachable(&self, call: &Call, why: &str) -> Error {
        self.note(format!("{}{} could not be reached: {why}", self.base(), call.route()));
        Error::Unavailable { retry_after: refusal::LATER }
    }

    pub(super) fn note(&self, trouble: String) {
        tracing::debug!(trouble, "a call failed");
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }
}

impl Call {
    /// The path without the query, which names whose jobs these are.
    fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
}

/// How much of an answer to read before a call is over.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// All of it.
    Whole,
    /// Its head: the caller reads on.
    Open,
}

/// What was read of an answer.
enum Read {
    Whole(Bytes),
    Open(Response),
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("base", &self.base()).finish_non_exhaustive()
    }
}

/// What stands before every route of the server at a URL.
fn base(url: &str) -> Result<String, BuildError> {
    let wrong = |why: String| BuildError::Url { url: url.to_owned(), why };
    let parsed: Url = url.parse().map_err(|error| wrong(format!("{error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(wrong("expected http:// or https://".to_owned()));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
        return Err(wrong("expected no user, password or query".to_owned()));
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

/// What is behind an error, without the outer layers that only say that something went wrong.
pub(super) fn reasons(error: &reqwest::Error) -> String {
    let mut source = std::error::Error::source(error);
    let mut reasons: Vec<String> = Vec::new();
    while let Some(error) = source {
        let reason = error.to_string();
        // Some layers repeat the one below.
        if !reasons.last().is_some_and(|last| last.contains(&reason)) {
            reasons.push(reason);
        }
        source = error.source();
    }
    if reasons.is_empty() { error.to_string() } else { reasons.join(": ") }
}
