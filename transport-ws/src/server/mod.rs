//! The server half: sockets in front of the two services.
//!
//! A request passes `handshake` (is it one for a socket, which version, which token), and then its socket is `session`'s: one task with one
//! loop, which reads messages as `asked` says, works on them by `work` (a worker's) and `user` (a user's), and sends what comes of it.
//! `subscription` makes events out of streams, `credit` keeps what workers have room for.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::job::Problem;
use cmdexec_core::limiter::{LocalLimiter, RateLimiter, RequestLimiter};
use cmdexec_core::service::{Role, Services};
use cmdexec_core::time::{Clock, SystemClock};
use cmdexec_core::token::Keys;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod asked;
mod credit;
mod echo;
mod everything;
mod handshake;
mod open;
mod options;
mod pulse;
mod session;
mod subscription;
mod user;
mod work;

#[doc(hidden)]
pub use echo::echo;
pub use open::Subject;
pub use options::Options;

/// Where the socket is.
pub const PATH: &str = "/api/ws";

/// Sockets in front of [`Services`].
///
/// It is a [`tower::Service`] that turns requests into sockets, to be put at [`PATH`] of a server that lets connections be upgraded. Clones are the
/// same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What [`Server::builder`] begins.
pub struct Builder {
    services: Arc<dyn Services>,
    keys: Keys,
    options: Options,
    limiter: Option<Arc<dyn RateLimiter>>,
    clock: Arc<dyn Clock>,
}

/// The settings can't be used; every problem is listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidOptions(pub Vec<Problem>);

/// What every socket has at hand.
struct Shared {
    services: Arc<dyn Services>,
    keys: Keys,
    options: Options,
    limiter: RequestLimiter,
    clock: Arc<dyn Clock>,
    room: Arc<Semaphore>,
    open: Arc<open::Open>,
    tasks: TaskTracker,
    /// Fires when sockets are to end in order.
    closing: CancellationToken,
    /// Fires when the time for that is over.
    cut: CancellationToken,
}

impl Server {
    /// Begins a server in front of `services` that judges tokens by `keys`.
    pub fn builder(services: Arc<dyn Services>, keys: Keys) -> Builder {
        Builder { services, keys, options: Options::default(), limiter: None, clock: Arc::new(SystemClock) }
    }

    /// Turns a request into a socket: the answer that begins it, or says why there is none. The socket is served by a task of the server's
    /// once the connection is upgraded; [`Server::close`] ends it.
    pub fn upgrade<B>(&self, request: &mut http::Request<B>) -> http::Response<Full<Bytes>> {
        handshake::upgrade(&self.shared, request)
    }

    /// How many sockets are open whose peers have shown good credentials.
    pub fn sockets(&self) -> usize {
        self.shared.open.len()
    }

    /// Closes the sockets of somebody whose credentials are no longer good; how many. Tokens are good by their signature: that no new
    /// socket is opened is for whoever judges them to see to.
    pub fn revoke(&self, subject: &Subject) -> usize {
        self.shared.open.revoke(subject)
    }

    /// Closes every socket in order: what is being worked on is answered, and peers are told that the server ends. New ones are refused.
    /// Waits for that, at most `drain`; how many had to be cut.
    pub async fn close(&self, drain: Duration) -> usize {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        match tokio::time::timeout(drain, self.shared.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => {
                let left = self.shared.tasks.len();
                self.shared.cut.cancel();
                self.shared.tasks.wait().await;
                left
            }
        }
    }
}

impl<B> tower::Service<http::Request<B>> for Server {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        ready(Ok(self.upgrade(&mut request)))
    }
}

impl Builder {
    /// Uses these settings.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Counts requests with this limiter; a [`LocalLimiter`] by default.
    #[must_use]
    pub fn limiter(mut self, limiter: Arc<dyn RateLimiter>) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// Judges tokens by this clock; the machine's own by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The server.
    ///
    /// # Errors
    /// [`InvalidOptions`].
    pub fn build(self) -> Result<Server, InvalidOptions> {
        let problems = self.options.validate();
        if !problems.is_empty() {
            return Err(InvalidOptions(problems));
        }
        let Self { services, keys, options, limiter, clock } = self;
        let limiter = limiter.unwrap_or_else(|| Arc::new(LocalLimiter::with_clock(Arc::clone(&clock))));
        let shared = Shared {
            services,
            keys,
            limiter: RequestLimiter::new(limiter, options.limits.clone()),
            clock,
            room: Arc::new(Semaphore::new(options.max_sockets)),
            open: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            options,
        };
        Ok(Server { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// The call's answer, unless it takes too long: dropping a call leaves the whole or nothing of what it would have done.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        tokio::time::timeout(self.options.call_timeout, call)
            .await
            .unwrap_or(Err(Error::Unavailable { retry_after: Duration::from_secs(1) }))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Reads a text as the handshake and a session do, whosever it is.
pub(crate) fn fuzz_text(text: &str) {
    let _ = handshake::auth(text);
    let Ok(envelope) = crate::message::Envelope::read(text) else { return };
    let bound = "w1".parse().ok();
    let _ = (asked::work::Said::read(&envelope, None), asked::work::Said::read(&envelope, bound.as_ref()));
    let _ = asked::user::Said::read(&envelope, Role::User);
}

/// Reads a binary message as a session does.
pub(crate) fn fuzz_binary(bytes: &[u8]) {
    if let Some((_, packed)) = crate::message::split_binary(&Bytes::copy_from_slice(bytes)) {
        let _ = asked::work::packed(&packed, None);
    }
}
