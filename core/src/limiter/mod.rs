//! How many requests somebody may make.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

mod local;
mod requests;

pub use local::LocalLimiter;
pub use requests::{Caller, CallerAddress, Counted, RequestKind, RequestLimiter, RequestLimits};

/// Counts requests and says which are too many.
#[async_trait]
pub trait RateLimiter: fmt::Debug + Send + Sync + 'static {
    /// Counts one request of `key` against `limit`, unless it is one too many: then nothing is counted.
    ///
    /// Cancellation safe: a dropped call has counted or not.
    ///
    /// # Errors
    /// The limiter can't tell. Whether the request is let through then is the caller's policy.
    async fn check(&self, limit: &Limit, key: &str) -> Result<Decision, Unavailable>;
}

/// How many requests within which time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// What is limited; keys of different limits have nothing to do with one another.
    pub name: &'static str,
    /// How many requests; 0: no limit.
    pub max: u32,
    /// Within which time.
    pub window: Duration,
}

/// What a limiter says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request is one too many, and when another may be made.
    pub retry_after: Option<Duration>,
    /// How many more requests may be made at once.
    pub remaining: u32,
    /// In how long all of `max` may be made again.
    pub reset: Duration,
}

/// A limiter could not tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rate limiter is unavailable: {0}")]
pub struct Unavailable(pub String);
