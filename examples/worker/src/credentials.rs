//! A connection to the server whose token is always good: one that the worker makes itself is made anew in time.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cmdexec_core::Error;
use cmdexec_core::files::{ByteStream, Download, FileId, GetRange};
use cmdexec_core::id::{JobId, LeaseToken, WorkerId};
use cmdexec_core::service::{
    FinishedAttempt, Heartbeat, HeartbeatReply, LeaseRequest, LeasedJob, OutputAck, OutputBatch, Registered,
    Registration, WorkerService,
};
use cmdexec_core::time::{Clock, SystemClock, Timestamp};
use cmdexec_core::token::{WorkerClaims, WorkerKey};
use cmdexec_transport_http::Client;

use crate::settings::Credentials;

/// How long a token is used that the worker made: half of its life.
const USED_FOR: Duration = Duration::from_hours(12);

/// The server, as the worker sees it.
pub(crate) struct Connection {
    url: String,
    credentials: Credentials,
    /// For whom tokens are made; any worker while the id is not known yet.
    id: Option<WorkerId>,
    current: Mutex<(Client, Timestamp)>,
}

impl Connection {
    /// Does not call the server yet.
    pub(crate) fn new(url: String, credentials: Credentials, id: Option<WorkerId>) -> anyhow::Result<Self> {
        let current = Mutex::new(connect(&url, &credentials, id.as_ref())?);
        Ok(Self { url, credentials, id, current })
    }

    /// What went wrong last on the way to the server.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.client().trouble()
    }

    fn client(&self) -> Client {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 <= SystemClock.now() {
            match connect(&self.url, &self.credentials, self.id.as_ref()) {
                Ok(next) => *current = next,
                Err(error) => tracing::error!("making a new token: {error:#}"),
            }
        }
        current.0.clone()
    }
}

/// A client, and when to make the next one.
fn connect(url: &str, credentials: &Credentials, id: Option<&WorkerId>) -> anyhow::Result<(Client, Timestamp)> {
    let now = SystemClock.now();
    let (token, until) = match credentials {
        Credentials::Token(token) => (token.clone(), Timestamp::from_millis(i64::MAX)),
        Credentials::Secret(secret) => {
            let token = WorkerKey::new(secret)?.mint(&WorkerClaims::new(id.cloned(), now));
            (token, now.after(USED_FOR))
        }
    };
    Ok((Client::builder(url).worker_token(token).build()?, until))
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
