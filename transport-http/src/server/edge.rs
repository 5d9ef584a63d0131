//! What every request passes: an id, a span, a meter, a net under panics, the guard, and the headers that every answer has. One layer
//! rather than a stack of them, because each costs every request several allocations.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use cmdexec_core::Error;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};
use tower::{Layer, Service};
use tracing::Instrument;

use super::App;
use super::guard::{Access, guard};
use super::meter::Meter;
use super::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names requests that came without a name.
#[derive(Debug)]
pub(super) struct RequestIds {
    /// Tells this process's ids from another's: they begin so.
    process: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self { process: format!("{:016x}-", RandomState::new().hash_one(0)), next: AtomicU64::new(0) }
    }

    fn next(&self) -> HeaderValue {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{}{n:x}", self.process)).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// The layer in front of every route, and of what answers where there is none.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    app: Arc<App>,
    /// Whom the guard behind it lets through; without one, everybody.
    access: Option<Access>,
}

impl Edge {
    /// In front of what is open to everybody.
    pub(super) fn open(app: &Arc<App>) -> Self {
        Self { app: Arc::clone(app), access: None }
    }

    /// With a guard.
    pub(super) fn guarded(app: &Arc<App>, access: Access) -> Self {
        Self { app: Arc::clone(app), access: Some(access) }
    }
}

impl<S> Layer<S> for Edge {
    type Service = Edged<S>;

    fn layer(&self, inner: S) -> Edged<S> {
        Edged { edge: self.clone(), inner }
    }
}

/// What is behind an [`Edge`].
#[derive(Debug, Clone)]
pub(super) struct Edged<S> {
    edge: Edge,
    inner: S,
}

impl<S> Service<Request> for Edged<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that was made ready is called.
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        Box::pin(pass(self.edge.clone(), request, inner).map(Ok))
    }
}

async fn pass<S>(Edge { app, access }: Edge, request: Request, inner: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Send,
{
    let given = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    // A copy: a clone is a part of the connection's buffer, and keeps it.
    let id = given.and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok()).unwrap_or_else(|| app.request_ids.next());
    // The path and no more: queries, headers and bodies may carry secrets.
    let span = tracing::debug_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        id = id.to_str().unwrap_or_default(),
    );
    let meter = Meter::begin(request.method(), request.extensions(), app.clock.uptime());
    let answered = async {
        let answering = async {
            match access {
                Some(access) => guard(&app, access, request, inner).await,
                None => answer(inner, request).await,
            }
        };
        match AssertUnwindSafe(answering).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                // The panic hook has said where.
                tracing::error!("a handler panicked");
                Problem::from(Error::Internal).into_response()
            }
        }
    };
    let mut response = if span.is_disabled() { answered.await } else { answered.instrument(span.clone()).await };
    meter.answered(response.status(), app.clock.uptime());
    tracing::debug!(parent: &span, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // Pages say for themselves what they need.
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
    response
}

/// The answer of what never fails to give one.
pub(super) async fn answer<S>(mut inner: S, request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    inner.call(request).await.unwrap_or_else(|never| match never {})
}
