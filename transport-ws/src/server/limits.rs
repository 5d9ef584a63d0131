//! Request limits: those of HTTP, by the same names and keys.

use std::sync::Arc;
use std::time::Duration;

use cmdexec_core::Error;
use cmdexec_core::id::{Owner, WorkerId};
use cmdexec_core::limiter::{Limit, RateLimiter};

use super::Options;

/// The limits in force.
#[derive(Debug)]
pub(super) struct Limits {
    limiter: Arc<dyn RateLimiter>,
    fails_closed: bool,
    pub(super) jobs: Limit,
    pub(super) requests: Limit,
    pub(super) heartbeats: Limit,
    pub(super) registrations: Limit,
}

impl Limits {
    pub(super) fn new(limiter: Arc<dyn RateLimiter>, options: &Options) -> Self {
        let limit = |name, max| Limit { name, max, window: options.rate_window };
        Self {
            limiter,
            fails_closed: options.limiter_fails_closed,
            jobs: limit("jobs", options.max_jobs),
            requests: limit("requests", options.max_requests),
            heartbeats: limit("heartbeats", options.max_heartbeats),
            registrations: limit("registrations", options.max_registrations),
        }
    }

    pub(super) async fn user(&self, limit: &Limit, owner: &Owner) -> Result<(), Error> {
        self.check(limit, || format!("u:{owner}")).await
    }

    pub(super) async fn worker(&self, limit: &Limit, worker: Option<&WorkerId>) -> Result<(), Error> {
        self.check(limit, || worker.map_or_else(|| "a:?".to_owned(), |worker| format!("w:{worker}"))).await
    }

    async fn check(&self, limit: &Limit, key: impl FnOnce() -> String) -> Result<(), Error> {
        if limit.max == 0 {
            return Ok(());
        }
        match self.limiter.check(limit, &key()).await {
            Ok(decision) => decision.retry_after.map_or(Ok(()), |retry_after| Err(Error::RateLimited { retry_after })),
            Err(error) if self.fails_closed => {
                tracing::warn!(error = %error, "a request is refused");
                Err(Error::Unavailable { retry_after: Duration::from_secs(1) })
            }
            Err(error) => {
                tracing::warn!(error = %error, "a request is let through uncounted");
                Ok(())
            }
        }
    }
}
