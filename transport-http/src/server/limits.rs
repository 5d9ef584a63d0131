//! Request limits, and what answers say of them.

use std::net::IpAddr;
use std::sync::Arc;

use cmdexec_core::Error;
use cmdexec_core::id::{Owner, WorkerId};
use cmdexec_core::limiter::{Decision, Limit, RateLimiter};
use cmdexec_core::time::Clock;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Options;
use super::problem::Problem;

/// The limits in force.
#[derive(Debug)]
pub(super) struct Limits {
    limiter: Arc<dyn RateLimiter>,
    clock: Arc<dyn Clock>,
    fails_closed: bool,
    pub(super) jobs: Limit,
    pub(super) requests: Limit,
    pub(super) heartbeats: Limit,
    pub(super) registrations: Limit,
}

/// Whom a request counts for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key<'a> {
    User(&'a Owner),
    Worker(&'a WorkerId),
    Address(Option<IpAddr>),
}

/// What the limiter said, for the answer's headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed(Option<(u32, std::time::Duration, Decision, i64)>);

impl Limits {
    pub(super) fn new(limiter: Arc<dyn RateLimiter>, clock: Arc<dyn Clock>, options: &Options) -> Self {
        Self {
            limiter,
            clock,
            fails_closed: options.limiter_fails_closed,
            jobs: options.limit("jobs", options.max_jobs),
            requests: options.limit("requests", options.max_requests),
            heartbeats: options.limit("heartbeats", options.max_heartbeats),
            registrations: options.limit("registrations", options.max_registrations),
        }
    }

    /// Counts a request. The answer carries the headers in either case.
    pub(super) async fn check(&self, limit: &Limit, key: Key<'_>) -> (Passed, Result<(), Problem>) {
        if limit.max == 0 {
            return (Passed(None), Ok(()));
        }
        // The kinds must not meet: a user may be called like an address.
        let key = match key {
            Key::User(owner) => format!("u:{owner}"),
            Key::Worker(worker) => format!("w:{worker}"),
            Key::Address(Some(address)) => format!("a:{}", network_of(address)),
            Key::Address(None) => "a:?".to_owned(),
        };
        match self.limiter.check(limit, &key).await {
            Ok(decision) => {
                let passed = Passed(Some((limit.max, limit.window, decision, self.clock.now().as_millis())));
                let refused = decision.retry_after.map(|retry_after| Error::RateLimited { retry_after });
                (passed, refused.map_or(Ok(()), |error| Err(error.into())))
            }
            Err(error) if self.fails_closed => {
                tracing::warn!(error = %error, "a request is refused");
                let retry_after = std::time::Duration::from_secs(1);
                (Passed(None), Err(Error::Unavailable { retry_after }.into()))
            }
            Err(error) => {
                tracing::warn!(error = %error, "a request is let through uncounted");
                (Passed(None), Ok(()))
            }
        }
    }
}

/// Who has one IPv6 address mostly has a /64 of them.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(std::net::Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Passed {
    /// Says in the answer how many requests are left: by the standard's names, and by the older ones.
    pub(super) fn stamp(self, headers: &mut HeaderMap) {
        const NAMES: [[HeaderName; 2]; 3] = [
            [HeaderName::from_static("ratelimit-limit"), HeaderName::from_static("x-ratelimit-limit")],
            [HeaderName::from_static("ratelimit-remaining"), HeaderName::from_static("x-ratelimit-remaining")],
            [HeaderName::from_static("ratelimit-reset"), HeaderName::from_static("x-ratelimit-reset")],
        ];
        let Some((max, window, decision, now)) = self.0 else { return };
        let [limit, remaining, reset] = NAMES;
        let reset_after = u64::try_from(decision.reset.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
        for name in limit {
            headers.insert(name, HeaderValue::from(max));
        }
        for name in remaining {
            headers.insert(name, HeaderValue::from(decision.remaining));
        }
        // The standard counts seconds from now, the older header names the second.
        let [reset, older_reset] = reset;
        headers.insert(reset, HeaderValue::from(reset_after));
        let at = now.div_euclid(1_000).saturating_add_unsigned(reset_after);
        headers.insert(older_reset, HeaderValue::from(at));
        if let Ok(policy) = HeaderValue::try_from(format!("{max};w={}", window.as_secs().max(1))) {
            headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
        }
    }
}
