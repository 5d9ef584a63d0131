//! What every request passes: an id, a span, a meter, a net under panics, and the headers that every answer has. One middleware rather
//! than a stack of them, because each layer costs every request.

use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cmdexec_core::Error;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

use super::App;
use super::meter::Meter;
use super::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names requests that came without a name.
#[derive(Debug)]
pub(super) struct RequestIds {
    /// Tells this process's ids from another's.
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        Self { process: RandomState::new().hash_one(0), next: AtomicU64::new(0) }
    }

    fn next(&self) -> HeaderValue {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{n:x}", self.process);
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// The outermost middleware.
pub(super) async fn edge(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
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
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
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
