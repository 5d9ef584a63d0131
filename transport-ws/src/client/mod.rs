//! The client half: both services over one socket.
//!
//! `link` is the handle that calls go through, `connect` opens sockets, `run` is the one task that has the socket, and `pushed` what it and
//! the callers of `lease` share. `worker`, `jobs` and `streams` are the services; `fallback` puts another way behind them.

use std::fmt;
use std::sync::Arc;

use cmdexec_core::service::{JobService, WorkerService};
use cmdexec_core::time::{Clock, SystemClock};

mod backoff;
mod connect;
mod fallback;
mod jobs;
mod link;
mod options;
mod pushed;
mod run;
mod streams;
mod stretch;
mod worker;

pub use fallback::Fallback;
pub use options::Options;

use connect::Target;
use link::Link;

/// Calls a server over a socket, and gives what it answers and pushes as the two services. Which of them is of use depends on the token. Cheap to
/// clone; clones share the socket, which is opened with the first call and again whenever it breaks, and closed with the last clone.
///
/// # Repeating
/// What is safe to repeat is repeated over the next socket for [`Options::retry_for`], then it is
/// [`Error::Unavailable`](cmdexec_core::Error::Unavailable): nothing is lost by a broken socket, and nothing done twice. What a broken socket
/// pushed is a worker's if a call of `lease` waited for it; else it is forgotten, and comes back to the queue by itself.
///
/// # Sizes
/// A request that is larger than what the server takes in one message is [`Error::Invalid`](cmdexec_core::Error::Invalid) and not sent, for the
/// server would close the socket; output and reports are spread over several. A piece of output is not, nor is a submission, which is done as a
/// whole or not at all.
///
/// # Files
/// Their bytes don't travel over sockets. [`Builder::files`] and [`Builder::worker_files`] say what brings them.
#[derive(Clone)]
pub struct Client {
    link: Arc<Link>,
    files: Option<Arc<dyn JobService>>,
    worker_files: Option<Arc<dyn WorkerService>>,
}

/// What [`Client::builder`] begins.
pub struct Builder {
    url: String,
    token: Option<(String, connect::As)>,
    options: Options,
    clock: Arc<dyn Clock>,
    files: Option<Arc<dyn JobService>>,
    worker_files: Option<Arc<dyn WorkerService>>,
}

/// A client can't be made of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The server's URL is none, or none of a server.
    #[error("{url:?} is no URL of a server: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The token has characters that no token has.
    #[error("the token is no token")]
    Token,
    /// The TLS library can't be used.
    #[error("the client can't be made: {0}")]
    Tls(String),
}

impl Client {
    /// Begins a client of the server at `url`, such as `ws://127.0.0.1:3000` (`wss`, `http` and `https` will do too). A path in it is put
    /// before the socket's, `/api/ws`, unless it ends with that.
    ///
    /// `wss` takes a server that the machine trusts: on Linux by the certificates of the system, or those of `SSL_CERT_FILE`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            token: None,
            options: Options::default(),
            clock: Arc::new(SystemClock),
            files: None,
            worker_files: None,
        }
    }

    /// Where the socket is.
    pub fn url(&self) -> &str {
        self.link.url()
    }

    /// Whether the socket is open now.
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// Opens the socket if that was not begun yet, and waits until it is open; as long as that takes. Cancellation safe.
    pub async fn opened(&self) {
        self.link.opened().await;
    }

    /// Waits until the socket is not open; not at all, if it is not.
    pub async fn closed(&self) {
        self.link.closed().await;
    }

    /// What went wrong last with the socket, for people. `None` while it is open.
    pub fn trouble(&self) -> Option<String> {
        self.link.trouble()
    }
}

impl Builder {
    /// Shows this token, which is a user's.
    #[must_use]
    pub fn user_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some((token.into(), connect::As::User));
        self
    }

    /// Shows this token, which is a worker's.
    #[must_use]
    pub fn worker_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some((token.into(), connect::As::Worker));
        self
    }

    /// Uses these settings.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How long `lease` waits, and how old what was pushed has become, is measured by this clock; the machine's own by default.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// What a user's uploads and downloads go by.
    #[must_use]
    pub fn files(mut self, files: Arc<dyn JobService>) -> Self {
        self.files = Some(files);
        self
    }

    /// What a worker's uploads and downloads go by.
    #[must_use]
    pub fn worker_files(mut self, files: Arc<dyn WorkerService>) -> Self {
        self.worker_files = Some(files);
        self
    }

    /// The client. Does not open the socket yet.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Client, BuildError> {
        let target = Target::new(&self.url, self.token)?;
        let link = Link::new(target, self.options, self.clock);
        Ok(Client { link: Arc::new(link), files: self.files, worker_files: self.worker_files })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("url", &self.url).field("options", &self.options).finish_non_exhaustive()
    }
}

/// Reads a text as the client does.
pub(crate) fn fuzz_text(text: &str) {
    use crate::message::{Cancel, Events, Jobs, Void, Welcome};
    let Ok(envelope) = crate::message::Envelope::read(text) else { return };
    let _ = (envelope.parse::<Welcome>(), envelope.parse::<Cancel>(), envelope.parse::<Void>());
    let _ = envelope.parse::<crate::refusal::Refusal>().map(cmdexec_core::Error::from);
    if let Ok(Jobs { jobs, .. }) = envelope.parse() {
        jobs.into_iter().for_each(|lease| drop(lease.into_leased()));
    }
    if let Ok(Events { events }) = envelope.parse() {
        events
            .into_iter()
            .for_each(|event| drop((streams::update(event.clone()), streams::output(event, bytes::Bytes::new()))));
    }
}

/// Reads a binary message as the client does.
pub(crate) fn fuzz_binary(bytes: &[u8]) {
    if let Some((_, packed)) = crate::message::split_binary(&bytes::Bytes::copy_from_slice(bytes)) {
        for (event, bytes) in crate::message::unpacked_events(&packed).into_iter().flatten() {
            drop(streams::output(event, bytes));
        }
    }
}
