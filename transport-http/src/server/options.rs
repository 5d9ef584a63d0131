//! The server's settings.

use std::time::Duration;

use cmdexec_core::job::Problem;
use cmdexec_core::limiter::RequestLimits;

use super::peer::Network;

/// The server's settings. Set what differs from the defaults; [`Options::validate`] says everything that is wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How many requests there may be.
    pub limits: RequestLimits,
    /// Origins whose pages may call the API in a browser. None by default.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed. None by default.
    pub trusted_proxies: Vec<Network>,
    /// How long an ordinary call may take until it is answered with 503. 30 s by default.
    pub call_timeout: Duration,
    /// How long a client may take for its request's head, and an idle connection may stay. 30 s by default.
    pub head_timeout: Duration,
    /// How long a client may pause within a request's body. 10 s by default.
    pub body_idle_timeout: Duration,
    /// How long a client may take for a request's body in all. 300 s by default.
    pub body_timeout: Duration,
    /// How long a client may take nothing of what it is sent until its connection is cut. 30 s by default. Who follows a
    /// stream of events resumes at the last one it got.
    pub write_timeout: Duration,
    /// How many bytes of bodies larger than 1 MiB are in memory at once; others wait. 256 MiB by default, and at least 64 MiB.
    pub max_body_memory: usize,
    /// How many bytes a file may have: what says that it has more is refused before it is read. 256 MiB by default; to be the
    /// same as the coordinator's.
    pub max_file_size: u64,
    /// How many files may come in at once, half of them one user's or worker's; others wait, as long as a client may pause within
    /// a body. Each takes 3 MiB of memory where files are kept in a folder, and 15 MiB elsewhere. 8 by default.
    pub max_uploads: usize,
    /// How many connections there may be at once; others wait to be accepted. 10,000 by default.
    pub max_connections: usize,
    /// How many calls of one worker there may be at once. Others wait, as long as a client may pause within a body, if they are
    /// few (seven times as many) and no polls that wait for jobs. 32 by default.
    pub max_worker_calls: usize,
    /// How often a silent stream of events says that it is alive. 15 s by default.
    pub keep_alive: Duration,
    /// Where jobs are pushed, which registrations are told. Nowhere by default.
    pub push: Option<Push>,
    /// How long requests in flight may take once the server is to stop. 10 s by default.
    pub drain: Duration,
}

/// Where jobs are pushed: a socket at this server's own address, by the name that its client knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Its path, such as `/api/ws`.
    pub path: String,
    /// Its port, if that is another one.
    pub port: Option<u16>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: RequestLimits::default(),
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            call_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(5),
            write_timeout: Duration::from_secs(30),
            max_body_memory: 256 * 1024 * 1024,
            max_file_size: 256 << 20,
            max_uploads: 8,
            max_connections: 10_000,
            max_worker_calls: 32,
            keep_alive: Duration::from_secs(15),
            push: None,
            drain: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// Everything that is wrong with the settings, by their names; empty if nothing is.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, field: &str, message: String| {
            if !holds {
                problems.push(Problem::new(field, message));
            }
        };
        for (name, duration) in [
            ("limits.window", self.limits.window),
            ("call_timeout", self.call_timeout),
            ("head_timeout", self.head_timeout),
            ("body_idle_timeout", self.body_idle_timeout),
            ("body_timeout", self.body_timeout),
            ("write_timeout", self.write_timeout),
            ("keep_alive", self.keep_alive),
        ] {
            check(!duration.is_zero(), name, "must be more than 0".to_owned());
        }
        check(self.max_body_memory >= super::body::BATCH, "max_body_memory", "must be at least 64 MiB".to_owned());
        check(self.max_file_size > 0, "max_file_size", "must be more than 0".to_owned());
        check(self.max_uploads > 0, "max_uploads", "must be more than 0".to_owned());
        check(self.max_connections > 0, "max_connections", "must be more than 0".to_owned());
        check(self.max_worker_calls > 0, "max_worker_calls", "must be more than 0".to_owned());
        for origin in &self.cors_origins {
            let is_origin = origin.parse::<http::Uri>().is_ok_and(|uri| {
                uri.scheme().is_some() && uri.authority().is_some() && !origin.ends_with('/') && uri.query().is_none()
            });
            check(is_origin, "cors_origins", format!("{origin:?} is no origin such as https://example.org"));
        }
        problems
    }
}
