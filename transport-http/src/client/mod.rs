//! The client half: both services, over HTTP.

use std::fmt;
use std::sync::Arc;

mod download;
mod events;
mod http;
mod jobs;
mod options;
mod refusal;
mod retry;
mod sending;
mod worker;

pub use options::Options;

use http::Http;

/// Calls a server and gives what it answers as the two services: whoever holds it as a
/// [`JobService`](cmdexec_core::service::JobService) or a [`WorkerService`](cmdexec_core::service::WorkerService) can't
/// tell it from the coordinator itself. Cheap to clone; clones share their connections.
///
/// # Repeating
/// What is safe to repeat (reading, registering, beating, numbered output, reports, cancelling, and submitting, which gets an
/// idempotency key if it has none) is repeated with growing pauses for [`Options::retry_for`], then it is
/// [`Error::Unavailable`](cmdexec_core::Error::Unavailable). Why is in [`Client::trouble`].
#[derive(Clone)]
pub struct Client {
    http: Arc<Http>,
}

/// What [`Client::builder`] begins.
pub struct Builder {
    url: String,
    user_token: Option<String>,
    worker_token: Option<String>,
    options: Options,
}

/// A client can't be made of this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The server's URL is none, or none of a web server.
    #[error("{url:?} is no URL of a server: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A token has characters that no token has.
    #[error("the {0} token is no token")]
    Token(&'static str),
    /// The TLS library can't be used.
    #[error("the HTTP client can't be made: {0}")]
    Tls(String),
}

impl Client {
    /// Begins a client of the server at `url`, such as `http://127.0.0.1:3000`; a path in it is put before every route.
    ///
    /// Several, with commas between them, are servers over one store: one is called until it can't be reached, then the next.
    ///
    /// `https` takes a server that the machine trusts: on Linux by the certificates of the system, or those of `SSL_CERT_FILE`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder { url: url.into(), user_token: None, worker_token: None, options: Options::default() }
    }

    /// The URL of the server that is called now.
    pub fn url(&self) -> &str {
        self.http.base()
    }

    /// What went wrong last on the way to the server, for people: which URL could not be reached, and why. `None` once
    /// it answers. Says more than [`Error::Unavailable`](cmdexec_core::Error::Unavailable) can.
    pub fn trouble(&self) -> Option<String> {
        self.http.trouble()
    }
}

impl Builder {
    /// Shows this token where a user is meant.
    #[must_use]
    pub fn user_token(mut self, token: impl Into<String>) -> Self {
        self.user_token = Some(token.into());
        self
    }

    /// Shows this token where a worker is meant.
    #[must_use]
    pub fn worker_token(mut self, token: impl Into<String>) -> Self {
        self.worker_token = Some(token.into());
        self
    }

    /// Uses these settings.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The client. Does not call the server yet.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Client, BuildError> {
        let http = Http::new(&self.url, self.user_token.as_deref(), self.worker_token.as_deref(), self.options)?;
        Ok(Client { http: Arc::new(http) })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.http.base()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("url", &self.url).field("options", &self.options).finish_non_exhaustive()
    }
}
