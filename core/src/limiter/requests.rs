//! Which requests are counted together, and how many of each there may be: the same by whatever transport they come.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::{Decision, Limit, RateLimiter};
use crate::Error;
use crate::id::{Owner, WorkerId};

/// How many requests there may be. Transports that are given the same limits and the same [`RateLimiter`] count together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestLimits {
    /// The window that requests are counted in. 60 s by default; must be more than 0.
    pub window: Duration,
    /// Submissions a window and user; several at once count once. 50 by default; 0: no limit.
    pub jobs: u32,
    /// Heartbeats a window and worker. 600 by default; 0: no limit.
    pub heartbeats: u32,
    /// Registrations a window and worker. 10 by default; 0: no limit.
    pub registrations: u32,
    /// Other requests a window and user. 100 by default; 0: no limit.
    pub requests: u32,
    /// Whether requests are refused while the limiter can't tell; false by default: they are let through.
    pub fails_closed: bool,
}

impl Default for RequestLimits {
    fn default() -> Self {
        let window = Duration::from_mins(1);
        Self { window, jobs: 50, heartbeats: 600, registrations: 10, requests: 100, fails_closed: false }
    }
}

impl RequestLimits {
    /// No request is one too many.
    pub fn none() -> Self {
        Self { jobs: 0, heartbeats: 0, registrations: 0, requests: 0, ..Self::default() }
    }

    fn limit(&self, kind: RequestKind) -> Limit {
        let (name, max) = match kind {
            RequestKind::Submission => ("jobs", self.jobs),
            RequestKind::Heartbeat => ("heartbeats", self.heartbeats),
            RequestKind::Registration => ("registrations", self.registrations),
            RequestKind::Other => ("requests", self.requests),
        };
        Limit { name, max, window: self.window }
    }
}

/// Which of the limits a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// A user submits jobs.
    Submission,
    /// A worker gives a sign of life.
    Heartbeat,
    /// A worker registers.
    Registration,
    /// A user asks for anything else.
    Other,
}

/// The address that a request counts for, where its sender has not said who it is: of the client, or of whom a proxy that is believed
/// speaks for. A server sets it, as a request's extension, for what is mounted in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerAddress(pub IpAddr);

/// Whom a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller<'a> {
    /// A user, by whatever token.
    User(&'a Owner),
    /// A worker.
    Worker(&'a WorkerId),
    /// Somebody who has not said who it is. IPv6 addresses count by their /64: who has one mostly has all of it.
    Address(Option<IpAddr>),
}

impl Caller<'_> {
    /// Callers of different kinds must not meet: a user may be called like an address.
    fn key(self) -> String {
        match self {
            Self::User(owner) => format!("u:{owner}"),
            Self::Worker(worker) => format!("w:{worker}"),
            Self::Address(Some(address)) => format!("a:{}", network_of(address)),
            Self::Address(None) => "a:?".to_owned(),
        }
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts the requests of a transport against [`RequestLimits`].
#[derive(Debug, Clone)]
pub struct RequestLimiter {
    limiter: Arc<dyn RateLimiter>,
    limits: RequestLimits,
}

/// What became of a request's counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The limit it counts against, and how much of that is left; `None` where nothing was counted.
    pub left: Option<(Limit, Decision)>,
    /// Whether the request may be answered.
    ///
    /// # Errors
    /// `RateLimited`; `Unavailable`: the limiter can't tell, and [`RequestLimits::fails_closed`].
    pub passed: Result<(), Error>,
}

impl RequestLimiter {
    /// Counts by a limiter.
    pub fn new(limiter: Arc<dyn RateLimiter>, limits: RequestLimits) -> Self {
        Self { limiter, limits }
    }

    /// Counts a request, unless it is one too many.
    ///
    /// Cancellation safe: a dropped call has counted or not.
    pub async fn count(&self, kind: RequestKind, caller: Caller<'_>) -> Counted {
        let limit = self.limits.limit(kind);
        if limit.max == 0 {
            return Counted { left: None, passed: Ok(()) };
        }
        match self.limiter.check(&limit, &caller.key()).await {
            Ok(decision) => {
                let refused = decision.retry_after.map(|retry_after| Error::RateLimited { retry_after });
                Counted { left: Some((limit, decision)), passed: refused.map_or(Ok(()), Err) }
            }
            Err(error) if self.limits.fails_closed => {
                tracing::warn!(error = %error, "a request is refused");
                Counted { left: None, passed: Err(Error::Unavailable { retry_after: Duration::from_secs(1) }) }
            }
            Err(error) => {
                tracing::warn!(error = %error, "a request is let through uncounted");
                Counted { left: None, passed: Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::Unavailable;

    #[derive(Debug)]
    struct Down;

    #[async_trait::async_trait]
    impl RateLimiter for Down {
        async fn check(&self, _: &Limit, _: &str) -> Result<Decision, Unavailable> {
            Err(Unavailable("away".to_owned()))
        }
    }

    #[tokio::test]
    async fn without_an_answer_the_policy_decides() {
        let nobody = Caller::Address(None);
        for (fails_closed, kind, passes) in
            [(false, RequestKind::Other, true), (true, RequestKind::Other, false), (true, RequestKind::Heartbeat, true)]
        {
            let limits = RequestLimits { fails_closed, heartbeats: 0, ..RequestLimits::default() };
            let counted = RequestLimiter::new(Arc::new(Down), limits).count(kind, nobody).await;
            assert_eq!((counted.passed.is_ok(), counted.left), (passes, None));
        }
    }

    #[test]
    fn callers_of_different_kinds_never_meet() {
        let (owner, worker): (Owner, WorkerId) = ("1.2.3.4".parse().unwrap(), "1.2.3.4".parse().unwrap());
        let address = Some("1.2.3.4".parse().unwrap());
        let keys = [Caller::User(&owner), Caller::Worker(&worker), Caller::Address(address)].map(Caller::key);
        assert_eq!(keys, ["u:1.2.3.4", "w:1.2.3.4", "a:1.2.3.4"]);
        let of = |text: &str| Caller::Address(Some(text.parse().unwrap())).key();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:1.2.3.4"), "a:1.2.3.4");
    }
}
