//! A connection to the server whose token is always good: one that the worker makes itself is made anew in time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, StopStream, WorkerService,
};
use cmdexec_core::time::{Clock, SystemClock, Timestamp};
use cmdexec_core::token::{WorkerClaims, WorkerKey};
use cmdexec_transport_http as http;
use cmdexec_transport_ws as ws;

use crate::settings::{Credentials, Transport};

/// How long a token is used that the worker made: half of its life.
const USED_FOR: Duration = Duration::from_hours(12);

/// The server, as the worker sees it.
pub(crate) struct Connection {
    url: String,
    credentials: Credentials,
    /// For whom tokens are made; any worker while the id is not known yet.
    id: Option<WorkerId>,
    transport: Transport,
    current: Mutex<(Current, Timestamp)>,
}

/// The way to the server with one token.
#[derive(Clone)]
struct Current {
    http: http::Client,
    /// The socket with HTTP behind it, or HTTP alone.
    service: Arc<dyn WorkerService>,
}

impl Connection {
    /// Does not call the server yet.
    pub(crate) fn new(
        url: String,
        transport: Transport,
        credentials: Credentials,
        id: Option<WorkerId>,
    ) -> anyhow::Result<Self> {
        let current = Mutex::new(connect(&url, transport, &credentials, id.as_ref())?);
        Ok(Self { url, credentials, id, transport, current })
    }

    /// What went wrong last on the way to the server.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.current().http.trouble()
    }

    fn client(&self) -> Arc<dyn WorkerService> {
        self.current().service
    }

    fn current(&self) -> Current {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 <= SystemClock.now() {
            match connect(&self.url, self.transport, &self.credentials, self.id.as_ref()) {
                Ok(next) => *current = next,
                Err(error) => tracing::error!("making a new token: {error:#}"),
            }
        }
        current.0.clone()
    }
}

/// The way to the server, and when to make the next one.
fn connect(
    url: &str,
    transport: Transport,
    credentials: &Credentials,
    id: Option<&WorkerId>,
) -> anyhow::Result<(Current, Timestamp)> {
    let now = SystemClock.now();
    let (token, until) = match credentials {
        Credentials::Token(token) => (token.clone(), Timestamp::from_millis(i64::MAX)),
        Credentials::Secret(secret) => {
            let token = WorkerKey::new(secret)?.mint(&WorkerClaims::new(id.cloned(), now));
            (token, now.after(USED_FOR))
        }
    };
    let urls: Vec<&str> = url.split(',').map(str::trim).collect();
    // `ws` becomes `http`, `wss` becomes `https`.
    let plain = |url: &&str| url.strip_prefix("ws").map_or_else(|| (*url).to_owned(), |rest| format!("http{rest}"));
    let plain = urls.iter().map(plain).collect::<Vec<_>>().join(",");
    let http = http::Client::builder(plain).worker_token(&token).build()?;
    let mut service: Arc<dyn WorkerService> = Arc::new(http.clone());
    if transport == Transport::Ws {
        // Behind each server's socket stands the next one's, and behind all of them HTTP, which is there at once.
        for url in urls.into_iter().rev() {
            let mut options = ws::client::Options::default();
            options.retry_for = Duration::ZERO;
            let socket = ws::Client::builder(url).worker_token(&token).options(options).build()?;
            service = Arc::new(ws::client::Fallback::new(socket, service));
        }
    }
    Ok((Current { http, service }, until))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

#[async_trait]
impl WorkerService for Connection {
    async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        self.client().register(registration).await
    }

    async fn heartbeat(&self, worker: &WorkerId, beat: Heartbeat) -> Result<HeartbeatReply, Error> {
        self.client().heartbeat(worker, beat).await
    }

    async fn lease(&self, worker: &WorkerId, request: LeaseRequest) -> Result<Vec<LeasedJob>, Error> {
        self.client().lease(worker, request).await
    }

    async fn stops(&self, worker: &WorkerId) -> Result<StopStream, Error> {
        self.client().stops(worker).await
    }

    async fn append_output(
        &self,
        worker: &WorkerId,
        batches: Vec<OutputBatch>,
    ) -> Result<Vec<Result<OutputAck, Error>>, Error> {
        self.client().append_output(worker, batches).await
    }

    async fn finish(&self, worker: &WorkerId, attempts: Vec<FinishedAttempt>) -> Result<Vec<Result<(), Error>>, Error> {
        self.client().finish(worker, attempts).await
    }

    async fn download(
        &self,
        worker: Option<&WorkerId>,
        file: FileId,
        range: Option<GetRange>,
    ) -> Result<Download, Error> {
        self.client().download(worker, file, range).await
    }

    async fn upload_artifacts(
        &self,
        worker: &WorkerId,
        job: JobId,
        token: Option<LeaseToken>,
        bytes: ByteStream,
    ) -> Result<FileId, Error> {
        self.client().upload_artifacts(worker, job, token, bytes).await
    }
}
