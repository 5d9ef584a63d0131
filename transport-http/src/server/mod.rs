//! The server half: routes in front of the two services.
//!
//! A request passes `serve` (the connection), `edge` (id, span, net under panics), `guard` (who may, how often), `body` and
//! `crate::read` (what is asked), a room of `routes` (the call), and comes back through `answer` or `problem`.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::MethodRouter;
use bytes::Bytes;
use cmdexec_core::Error;
use cmdexec_core::job::Problem as Wrong;
use cmdexec_core::limiter::{LocalLimiter, RateLimiter, RequestLimiter};
use cmdexec_core::service::{JobService, Services, WorkerService};
use cmdexec_core::time::{Clock, Sleep, SystemClock, Timestamp};
use cmdexec_core::token::{Keys, LEEWAY};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

mod answer;
mod body;
mod calls;
mod docs;
mod edge;
mod form;
mod guard;
mod known;
mod limits;
mod meter;
mod options;
mod peer;
mod problem;
mod range;
mod routes;
mod serve;
mod sse;
mod tokens;
mod upload;

pub use meter::{REQUEST_SECONDS, REQUESTS};
pub use options::{Options, Push};
pub use peer::{Network, ParseNetworkError, Peer};

/// A REST server in front of [`Services`].
///
/// [`Server::serve`] answers on a listener until it is told to stop; [`Server::router`] is the same to be put into a
/// server of one's own. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    app: Arc<App>,
}

/// What [`Server::builder`] begins.
pub struct Builder {
    services: Arc<dyn Services>,
    keys: Keys,
    options: Options,
    limiter: Option<Arc<dyn RateLimiter>>,
    clock: Arc<dyn Clock>,
    mounts: Vec<Mount>,
}

/// What answers at a path besides the routes.
type Mount = (String, MethodRouter<Arc<App>>);

/// The settings can't be used; every problem is listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidOptions(pub Vec<Wrong>);

/// What every request has at hand.
#[derive(Debug)]
struct App {
    services: Arc<dyn Services>,
    tokens: tokens::Tokens,
    limiter: RequestLimiter,
    calls: Arc<calls::Calls>,
    workers: known::Known,
    options: Options,
    clock: Arc<dyn Clock>,
    /// When the server was made, by the clock's uptime.
    started: Duration,
    /// The memory that large bodies share.
    large_bodies: Arc<Semaphore>,
    /// How many files may come in at once.
    uploads: upload::Uploads,
    health: routes::Health,
    request_ids: edge::RequestIds,
    openapi: OnceLock<Bytes>,
    /// What answers at other paths.
    mounts: Vec<Mount>,
    /// Fires when polls are to be answered and streams are to end.
    closing: CancellationToken,
}

impl Server {
    /// Begins a server in front of `services` that judges tokens by `keys`.
    pub fn builder(services: Arc<dyn Services>, keys: Keys) -> Builder {
        Builder {
            services,
            keys,
            options: Options::default(),
            limiter: None,
            clock: Arc::new(SystemClock),
            mounts: Vec::new(),
        }
    }

    /// The routes, to be put into a server of one's own. It should set [`Peer`] on each request, and call
    /// [`Server::close`] before it waits for requests in flight.
    pub fn router(&self) -> Router {
        routes::router(&self.app)
    }

    /// Answers waiting polls at once, and ends streams of events in a way that lets their readers resume. What is asked
    /// from now on is answered without waiting.
    pub fn close(&self) {
        self.app.closing.cancel();
    }

    /// The OpenAPI document, as `GET /api/openapi.json` answers it.
    pub fn openapi(&self) -> Bytes {
        routes::openapi(&self.app)
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

    /// Lets something else answer at a path, such as `/api/ws`. It sees whatever is asked there, whoever asks; it may upgrade the
    /// connection, and ends by itself what it has upgraded. Each request has a [`CallerAddress`](cmdexec_core::limiter::CallerAddress) among
    /// its extensions, if that is known. The path must be none of the contract's.
    #[must_use]
    pub fn mount<S, R>(mut self, path: impl Into<String>, service: S) -> Self
    where
        S: Service<Request, Error = Infallible, Response = R, Future: Send> + Clone + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        self.mounts.push((path.into(), axum::routing::any_service(service)));
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
        let Self { services, keys, options, limiter, clock, mounts } = self;
        let limiter = limiter.unwrap_or_else(|| Arc::new(LocalLimiter::with_clock(Arc::clone(&clock))));
        let app = App {
            services,
            tokens: tokens::Tokens::new(keys, Arc::clone(&clock)),
            limiter: RequestLimiter::new(limiter, options.limits.clone()),
            calls: calls::Calls::new(options.max_worker_calls),
            workers: known::Known::default(),
            started: clock.uptime(),
            large_bodies: Arc::new(Semaphore::new(options.max_body_memory / body::UNIT)),
            uploads: upload::Uploads::new(options.max_uploads),
            health: routes::Health::default(),
            request_ids: edge::RequestIds::new(),
            openapi: OnceLock::new(),
            mounts,
            closing: CancellationToken::new(),
            options,
            clock,
        };
        Ok(Server { app: Arc::new(app) })
    }
}

impl App {
    /// What this user may do.
    fn jobs(&self, user: &guard::User) -> Arc<dyn JobService> {
        self.services.as_user(user.principal())
    }

    /// What this worker may do.
    fn work(&self, worker: &guard::Worker) -> Arc<dyn WorkerService> {
        self.services.as_worker(worker.principal())
    }

    /// The call's answer, unless it takes too long: dropping a call leaves the whole or nothing of what it would have done.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        match tokio::time::timeout(self.options.call_timeout, call).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::warn!("a call took too long");
                Err(Error::Unavailable { retry_after: Duration::from_secs(1) })
            }
        }
    }

    /// A worker's turn, when those of its calls are over that are one too many.
    async fn turn(&self, caller: impl Into<calls::Caller>) -> Result<calls::Call, Error> {
        self.calls.turn(caller, self.options.body_idle_timeout).await
    }

    /// Completes when a token that expires then is no longer good.
    fn expiry(&self, expires: Timestamp) -> Sleep {
        self.clock.sleep(expires.after(LEEWAY).since(self.clock.now()))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.app.options).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
    }
}
