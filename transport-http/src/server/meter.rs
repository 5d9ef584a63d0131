//! What is counted of requests: told to whatever recorder the program has installed for the `metrics` crate, if any.
//!
//! By the route's template, never by the path: who asks for made-up paths makes no series.

use std::time::Duration;

use axum::extract::MatchedPath;
use http::{Extensions, Method, StatusCode};

/// Requests that were answered, by `route`, `method` and `status` (`2xx`, …): a counter.
pub const REQUESTS: &str = "cmdexec_http_requests_total";

/// Seconds from a request's head to its answer's, by `route` and `method`: a histogram. A poll's wait is part of it, what a stream
/// gives after its head is not.
pub const REQUEST_SECONDS: &str = "cmdexec_http_request_seconds";

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Meter {
    route: Option<MatchedPath>,
    method: &'static str,
    begun: Duration,
}

impl Meter {
    /// Begins at the clock's uptime `now`.
    pub(super) fn begin(method: &Method, extensions: &Extensions, now: Duration) -> Self {
        Self { route: extensions.get::<MatchedPath>().cloned(), method: name(method), begun: now }
    }

    /// The head of the answer is there.
    pub(super) fn answered(self, status: StatusCode, now: Duration) {
        let route = self.route.as_ref().map_or("none", MatchedPath::as_str).to_owned();
        let seconds = now.saturating_sub(self.begun).as_secs_f64();
        metrics::histogram!(REQUEST_SECONDS, "route" => route.clone(), "method" => self.method).record(seconds);
        metrics::counter!(REQUESTS, "route" => route, "method" => self.method, "status" => class(status)).increment(1);
    }
}

/// The methods that routes have; anybody may send others.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
